"""Cuts the power of a block device at records of its log during one store life; run as a process of its own, prints JSON.

The store lives on ext4, on a loop device, on a disk of nbdkit that logs what is written and flushed. For each cut the disk
is built as a real one may hold it: all that was flushed, and of what was not, nothing or a random half of the 4 KiB blocks.
The file system is mounted anew, which replays its journal, and the next boot is judged as after a kill.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from chaos.store_life import Scenario, victim, wrong_after
from chaos.walking import drawn, in_child, walk

BLOCK = 4096
LIFE = "life"
_STARTS_WITHIN = 20.0


def main() -> int:
    """Arguments: scenario, seed, and how many cuts (0: all)."""
    return walk(_look)


def _look(scenario: Scenario, template: Path, base: Path) -> dict[str, Any]:
    start, lines, data = _recorded(scenario, template, base)
    indexes = range(start, len(lines) + 1)
    # After a flush nothing is left of which a half could be lost.
    moments = [(index, half) for index in indexes for half in (False, True) if not half or lines[index - 1] != "F"]
    cuts = drawn(moments)
    violations = []
    for number, (index, half) in enumerate(cuts):
        rng = random.Random(f"{sys.argv[2]}/{number}") if half else None
        disk, said = _disk_after(lines, data, index, rng, start)
        found = _judged(scenario, disk, said, base)
        violations += [f"power cut after record {index} of {len(lines)} ({said[-1:]}): {text}" for text in found]
    return {"points": len(cuts), "of": len(moments), "violations": violations}


def _recorded(scenario: Scenario, template: Path, base: Path) -> tuple[int, list[str], bytes]:
    """Live the life on the logging disk; returns the record with which it began, all records, and the data of the writes."""
    index, data, mounted = base / "index", base / "data", base / "mounted"
    with _logging_disk(base) as device:
        subprocess.run(["mkfs.ext4", "-q", "-F", str(device)], check=True, capture_output=True)
        with _mount(device, mounted):
            shutil.copytree(template, mounted / LIFE)
        with _mount(device, mounted):
            os.sync()
            start = len(index.read_text().splitlines())
            in_child(lambda: _live(scenario, mounted / LIFE, index))
    lines = index.read_text().splitlines()
    if lines.count("closed") != 1:
        raise RuntimeError("the life did not end well")
    end = lines.index("closed") + 1
    return start, lines[:end], data.read_bytes()


def _live(scenario: Scenario, folder: Path, index: Path) -> None:
    descriptor = os.open(index, os.O_WRONLY | os.O_APPEND)  # acknowledgements stand between the records of the disk
    victim(scenario, folder, descriptor)


@contextmanager
def _logging_disk(base: Path) -> Iterator[Path]:
    """nbdkit with the plugin, made a file by nbdfuse; yields the file."""
    socket, shown = base / "socket", base / "shown"
    shown.mkdir()
    plugin = Path(__file__).with_name("block_log.py")
    kit = subprocess.Popen(
        ["nbdkit", "-f", "-U", str(socket), "python", str(plugin), f"index={base / 'index'}", f"data={base / 'data'}"]
    )
    fuse: subprocess.Popen[bytes] | None = None
    try:
        _until(socket.exists, "the socket of nbdkit")
        fuse = subprocess.Popen(["nbdfuse", str(shown), "--unix", str(socket)])
        _until((shown / "nbd").exists, "the disk of nbdfuse")
        yield shown / "nbd"
    finally:
        subprocess.run(["umount", str(shown)], check=False, capture_output=True)
        for process in (fuse, kit):
            if process is not None:
                process.terminate()
                process.wait(20)


@contextmanager
def _mount(device: Path, folder: Path) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop", str(device), str(folder)], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True, capture_output=True)


def _until(question: object, what: str) -> None:
    assert callable(question)
    deadline = time.monotonic() + _STARTS_WITHIN
    while not question():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come within {_STARTS_WITHIN:g} s")
        time.sleep(0.02)


def _disk_after(
    lines: list[str], data: bytes, index: int, rng: random.Random | None, start: int
) -> tuple[bytearray, list[str]]:
    """The disk and what was acknowledged when the power is cut after so many records."""
    size = max(int(line.split()[1]) + int(line.split()[2]) for line in lines if line.startswith("W "))
    disk = bytearray(-(-size // BLOCK) * BLOCK)
    pending: list[tuple[int, bytes]] = []
    said = []
    for number, line in enumerate(lines[:index]):
        if line == "F" or number == start:
            _keep(disk, pending, None)
            pending = []
        if line.startswith("W "):
            offset, length, durable, at = map(int, line.split()[1:])
            content = data[at : at + length]
            if durable:
                disk[offset : offset + length] = content
            else:
                pending.append((offset, content))
        elif line != "F":
            said.append(line)
    if rng is not None:
        _keep(disk, pending, rng)
    return disk, said


def _keep(disk: bytearray, pending: list[tuple[int, bytes]], rng: random.Random | None) -> None:
    """Write what is pending: all of it, or with `rng` half of the blocks."""
    for offset, content in pending:
        for at in range(0, len(content), BLOCK):
            if rng is None or rng.random() < 0.5:
                block = content[at : at + BLOCK]
                disk[offset + at : offset + at + len(block)] = block


def _judged(scenario: Scenario, disk: bytearray, said: list[str], base: Path) -> list[str]:
    image, folder = base / "cut.img", base / "cut"
    image.write_bytes(disk)
    with image.open("r+b") as file:
        file.truncate(_size())
    with _mount(image, folder):
        return in_child(partial(wrong_after, scenario, folder / LIFE, said)) or []


def _size() -> int:
    """Bytes of the whole disk, as the plugin has it."""
    text = Path(__file__).with_name("block_log.py").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("SIZE = ")]
    value, shift = line.removeprefix("SIZE = ").split(" << ")
    return int(value) << int(shift)


if __name__ == "__main__":
    sys.exit(main())
