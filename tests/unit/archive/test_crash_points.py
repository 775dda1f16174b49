"""A process that dies at any of its steps while it keeps an archive leaves the content whole or not there at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from mms.archive.digest import tree_digest
from tests.unit.archive.builders import lay_out, model_files, zipped

# Forks a child for each step that Python reports to audit hooks (open, mkdir, rename, remove ...); the child dies at that
# step, then a new life opens the same archive. A script of its own, since a process with threads should not fork.
SCRIPT = """
import os, sys
from pathlib import Path
from mms.archive.model_archive import ArchiveStore
from mms.archive.digest import tree_digest

model_store, work, whole = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]

def die_at(step, data_dir):
    seen = 0
    def hook(event, arguments):
        nonlocal seen
        if event == "open" or event.startswith(("os.", "shutil.", "tempfile.")):
            seen += 1
            if seen == step:
                os._exit(9)
    store = ArchiveStore(model_store, data_dir, tag="life-1")
    sys.addaudithook(hook)
    store.open("a.mar")
    os._exit(0)

step = 0
while True:
    step += 1
    data_dir = work / str(step)
    data_dir.mkdir()
    child = os.fork()
    if not child:
        die_at(step, data_dir)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    kept = data_dir / "archives"
    for path in kept.iterdir() if kept.is_dir() else ():
        assert tree_digest(path) == whole, f"half-made content after step {step}"
    store = ArchiveStore(model_store, data_dir, tag="life-2")
    archive = store.open("a.mar")
    assert tree_digest(archive.model_dir) == whole, f"wrong content after step {step}"
    store.sweep({archive.sha256})
    assert [path.name for path in (data_dir / "tmp").iterdir()] in ([], ["life-2"]), f"leftovers of step {step}"
    if code == 0:
        break
    assert code == 9, code
print(step - 1)
"""


def test_content_is_whole_or_not_there_whenever_the_process_dies(tmp_path: Path) -> None:
    files = {**model_files(), "data/weights.bin": b"w" * 3_000_000}
    whole = lay_out(tmp_path / "whole", files)
    lay_out(tmp_path / "store", {"a.mar": zipped(files)})
    (tmp_path / "work").mkdir()
    arguments = [tmp_path / "store", tmp_path / "work", tree_digest(whole)]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20, "steps at which it died"
