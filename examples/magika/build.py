"""The recipe: packs `magika.mar` from the model in the installed package magika and the handler beside this file.

python examples/magika/build.py FOLDER
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
import tempfile
from pathlib import Path

from mms.archive import archiver

HERE = Path(__file__).resolve().parent


def sources() -> dict[str, Path]:
    """Name in the archive to the file it comes from."""
    spec = importlib.util.find_spec("magika")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("The model is in the package magika, which is not installed: pip install 'magika>=1,<2'")
    package = Path(spec.submodule_search_locations[0])
    model = package / "models" / "standard_v3_3"
    return {
        "model.onnx": model / "model.onnx",
        "config.min.json": model / "config.min.json",
        "content_types.json": package / "config" / "content_types_kb.min.json",
        "handler.py": HERE / "handler.py",
        "NOTICE.md": HERE / "NOTICE.md",
        "LICENSE": HERE.parent.parent / "LICENSE",
    }


def build(folder: Path) -> Path:
    """Pack `magika.mar` into that folder, over an older one; returns its path."""
    with tempfile.TemporaryDirectory(prefix="magika-") as staged:
        for name, source in sources().items():
            shutil.copyfile(source, Path(staged, name))
        return archiver.build("magika", Path(staged), handler="handler:handle", export_path=folder, force=True)


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        raise SystemExit("Usage: python examples/magika/build.py FOLDER")
    Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
    print(build(Path(sys.argv[1])))
