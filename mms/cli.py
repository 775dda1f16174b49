"""The command line: commands, flags and exit codes; no logic. What is not needed to parse a command is imported inside it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from mms.client import ServerUnreachable
from mms.commands import restore, settings, state, store, upkeep
from mms.config.options import BY_NAME
from mms.errors import (
    BootError,
    MmsError,
    StoreDamaged,
    StoreInUse,
    StoreNewer,
    StoreOutdated,
    StoreUnreachable,
    UsageError,
)
from mms.usage import EXIT_USAGE, complaint

#: Exit codes, after sysexits.h where it has a fitting one. 75 and 78 are not to be retried blindly.
EXIT_OK = 0
EXIT_FAILED = 1
EXIT_UNREACHABLE = 69  # the store of a boot, or the server that a command asks
EXIT_STORE_IN_USE = 75
EXIT_STORE_DAMAGED = 78

_EXIT_CODES: dict[type[MmsError], int] = {
    UsageError: EXIT_USAGE,
    StoreUnreachable: EXIT_UNREACHABLE,
    ServerUnreachable: EXIT_UNREACHABLE,
    StoreInUse: EXIT_STORE_IN_USE,
    StoreDamaged: EXIT_STORE_DAMAGED,
    StoreNewer: EXIT_STORE_DAMAGED,
    StoreOutdated: EXIT_STORE_DAMAGED,
}

#: The parser's own errors; the base of the one that typer shows in public, so whichever parser typer brings.
_WrongWords: type[Exception] = typer.BadParameter.__mro__[1]

app = typer.Typer(
    help="mms: a multi-model inference server that never forgets what an operator told it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
config_app = typer.Typer(help="Look at a configuration without starting a server.", no_args_is_help=True)
app.add_typer(config_app, name="config")

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="config.properties, or `sagemaker` for the built-in one."),
]


def _flag(name: str, metavar: str | None = None) -> Any:
    """A flag of `serve`: its spelling, help and default are those of the option table."""
    row = BY_NAME[name]
    default = f" Default: {row.shown_default}." if metavar and row.shown_default != "none" else ""
    return typer.Option(row.flag, metavar=metavar, help=f"{row.help}{default}")


@app.command()
def serve(
    config: ConfigFile = None,
    model_store: Annotated[Path | None, _flag("model_store", "DIR")] = None,
    models: Annotated[list[str] | None, _flag("load_models", "[NAME=]URL")] = None,
    data_dir: Annotated[Path | None, _flag("data_dir", "DIR")] = None,
    store: Annotated[str | None, _flag("store_url", "URL")] = None,
    server_id: Annotated[str | None, _flag("server_id", "NAME")] = None,
    recover: Annotated[bool, _flag("recover")] = False,
    clean_start: Annotated[bool, _flag("clean_start")] = False,
    inference_address: Annotated[str | None, _flag("inference_address", "URL")] = None,
    management_address: Annotated[str | None, _flag("management_address", "URL")] = None,
    accept_store_loss: Annotated[int | None, _flag("accept_store_loss", "SEQ")] = None,
    log_config: Annotated[Path | None, _flag("log_config", "FILE")] = None,
    log_level: Annotated[str | None, _flag("log_level", "LEVEL")] = None,
) -> None:
    """Run the server in the foreground; log to stderr."""
    from mms.launch import run_server

    flags: dict[str, Any] = {
        "model_store": model_store,
        "load_models": ",".join(models) if models else None,
        "data_dir": data_dir,
        "store_url": store,
        "server_id": server_id,
        "recover": recover,
        "clean_start": clean_start,
        "inference_address": inference_address,
        "management_address": management_address,
        "accept_store_loss": accept_store_loss,
        "log_config": log_config,
        "log_level": log_level,
    }
    raise typer.Exit(run_server(None if config is None else str(config), flags))


@app.command(
    "multi-model-server", hidden=True, context_settings={"ignore_unknown_options": True, "help_option_names": []}
)
def multi_model_server(arguments: Annotated[list[str] | None, typer.Argument()] = None) -> None:
    """The command line of AWS multi-model-server."""
    from mms.launcher import main as launcher

    raise typer.Exit(launcher(arguments or []))


@app.command("model-archiver", hidden=True, context_settings={"ignore_unknown_options": True, "help_option_names": []})
def model_archiver(arguments: Annotated[list[str] | None, typer.Argument()] = None) -> None:
    """Pack a model archive."""
    from mms.archive.archiver_cli import main as archiver

    raise typer.Exit(archiver(arguments or []))


@config_app.command("check")
def config_check(config: ConfigFile = None) -> None:
    """Validate a configuration: unknown keys, bad values, names that collide, models that name no archive."""
    from mms.archive.peek import named_by
    from mms.config.check import check
    from mms.config.sources import read_sources

    sources = read_sources(config=None if config is None else str(config), config_flag="--config")
    findings = check(sources, archive_name=named_by)
    for finding in findings:
        typer.echo(f"{finding.severity}: {finding}")
    if not findings:
        typer.echo("The configuration is in order.")
    raise typer.Exit(EXIT_USAGE if any(finding.fatal for finding in findings) else EXIT_OK)


# Commands that ask a running server, each in its room under mms/commands.
app.add_typer(state.recovery_app, name="recovery")
app.command()(settings.settings)
app.command()(state.models)
app.command()(state.journal)
app.command()(state.incarnations)
app.command()(restore.restore)
app.command()(upkeep.export)
app.add_typer(upkeep.quarantine_app, name="quarantine")

# Commands that open the store themselves.
app.add_typer(store.store_app, name="store")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit: whatever is wrong is one line on stderr, with the exit code that belongs to it."""
    argv = _repeat_models(list(sys.argv[1:] if arguments is None else arguments))
    try:
        code = app(args=argv, standalone_mode=False, prog_name="mms")
    except MmsError as error:
        typer.echo(error.message, err=True)
        sys.exit(exit_code(error))
    except typer.Abort:
        typer.echo("Aborted.", err=True)
        sys.exit(EXIT_FAILED)
    except _WrongWords as error:
        typer.echo(_usage_line(error), err=True)
        sys.exit(EXIT_USAGE)
    sys.exit(code if isinstance(code, int) else EXIT_OK)


def _usage_line(error: Any) -> str:
    """What the parser complains of, in one line; where it was given no words at all, its help is the answer."""
    message = error.format_message()
    asked_nothing = type(error).__name__ == "NoArgsIsHelpError"
    return message if asked_nothing else complaint(error.ctx.command_path if error.ctx else "mms", message)


def exit_code(error: MmsError) -> int:
    """The exit code that tells a supervisor what kind of trouble it was."""
    for kind in type(error).__mro__:
        if kind in _EXIT_CODES:
            return _EXIT_CODES[kind]
    return EXIT_USAGE if isinstance(error, BootError) else EXIT_FAILED


def _repeat_models(argv: list[str]) -> list[str]:
    """`--models A B` as MMS takes it becomes `--models A --models B`, which is what the parser takes."""
    if not argv or argv[0] != "serve":
        return argv
    rewritten: list[str] = []
    in_models = False
    for word in argv:
        if word.startswith("-"):
            in_models = word == "--models"
            rewritten.append(word)
            continue
        if in_models and rewritten[-1] != "--models":
            rewritten.append("--models")
        rewritten.append(word)
    return rewritten
