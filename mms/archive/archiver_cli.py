"""The `model-archiver` command: MMS's flags, and one for each option that a manifest can carry; no packing here."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from mms.archive.archiver import FORMATS, build
from mms.archive.manifest import RUNTIMES
from mms.config.kinds import Unfit
from mms.config.option import Option
from mms.config.options import MODEL_OPTIONS
from mms.errors import MmsError
from mms.usage import EXIT_USAGE, Parser

EXIT_DONE = 0
EXIT_FAILED = 1

_FLAGS = {"batch_size": "--max-batch-size"}  # where it is not the option's own name


def main(argv: Sequence[str]) -> int:
    """Pack an archive as the arguments say; returns the exit code. Errors are one `ERROR - ...` on standard error."""
    try:
        arguments = _parser().parse_args(argv)
    except SystemExit as e:
        return EXIT_DONE if not e.code else EXIT_USAGE
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s - %(message)s"))
    log = logging.getLogger("mms.archive")
    log.addHandler(handler)
    try:
        _build(arguments)
    except MmsError as e:
        log.error("%s", e.message)
        return EXIT_FAILED
    except OSError as e:
        log.error("Failed to write the archive of %s: %s", arguments.model_name, e)
        return EXIT_FAILED
    finally:
        log.removeHandler(handler)
    return EXIT_DONE


def _build(arguments: argparse.Namespace) -> None:
    given = {option.manifest_key: getattr(arguments, option.name) for option in MODEL_OPTIONS}
    build(
        arguments.model_name,
        arguments.model_path,
        handler=arguments.handler,
        runtime=arguments.runtime,
        export_path=arguments.export_path,
        archive_format=arguments.archive_format,
        force=arguments.force,
        model_version=arguments.model_version,
        settings={key: value for key, value in given.items() if value is not None},
    )


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="model-archiver", description="Packs a folder into a model archive.")
    add = parser.add_argument
    add("--model-name", required=True, metavar="NAME", help="name of the model and, with .mar after it, of the archive")
    add("--model-path", required=True, type=Path, metavar="FOLDER", help="folder with the model's files")
    add("--handler", help="MODULE:FUNCTION that serves the model; not needed where there is exactly one .onnx file")
    add("--runtime", choices=RUNTIMES, default=RUNTIMES[0], help="which Python runs the handler (default: python)")
    add("--export-path", type=Path, metavar="FOLDER", help="where the archive is written (default: here)")
    add(
        "--archive-format",
        choices=tuple(FORMATS),
        default="default",
        help="default: NAME.mar; tgz: NAME.tar.gz; no-archive: the folder NAME",
    )
    add("-f", "--force", action="store_true", help="overwrite an archive that is there")
    add("-c", "--convert", nargs=0, action=_RefuseConversion, help="not offered: ONNX models are served as they are")
    add("--model-version", metavar="VERSION", help="the model's version")
    options = parser.add_argument_group("settings that the archive carries", "The operator's own settings beat them.")
    for option in MODEL_OPTIONS:
        options.add_argument(
            _FLAGS.get(option.name, f"--{option.name.replace('_', '-')}"),
            dest=option.name,
            type=_typed(option),
            metavar=option.unit.upper() or "BOOL",
            help=option.help.replace("%", "%%"),
        )
    return parser


class _RefuseConversion(argparse.Action):
    """MMS turns ONNX into MXNet models here; this server runs them as they are."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        parser.error("--convert is not offered: MXNet is not used, and .onnx files are served as they are.")


def _typed(option: Option) -> Callable[[str], object]:
    """Checks a flag's text by the option's own row of the table."""

    def parse(text: str) -> object:
        try:
            return option.kind.parse(text)
        except Unfit:
            raise argparse.ArgumentTypeError(f"must be {option.kind.expected}, not {text!r}") from None

    return parse
