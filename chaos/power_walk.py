"""Cuts the power after each system call of one store life; run as a process of its own, prints JSON.

strace records what the life writes, syncs, cuts, renames and removes. For each moment the files are built as a disk may
hold them that keeps what was synced and, of what was not, nothing or a random half of the 4 KiB blocks; then the next
boot is judged as after a kill. Names (created, renamed, removed files) count as durable at once: what a file system that
loses names would do is not shown here.
"""

from __future__ import annotations

import random
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from chaos.crash_walk import UNHARMED, traced
from chaos.store_life import Scenario, wrong_after
from chaos.walking import in_child, walk

CALLS = "write,pwrite64,ftruncate,fsync,fdatasync,unlink,rename"
BLOCK = 4096
_LINE = re.compile(r"^\s*(\d+)\s+(.*)$")
_CALL = re.compile(r"^(\w+)\((.*)\)\s+=\s+(-?\d+)")
_FD = re.compile(r"^\d+<([^>]*)>(?:, (.*))?$")


@dataclass(slots=True)
class Disk:
    """Files by name: what is durable, and the writes since the last sync, in order (None as data: cut to that length)."""

    durable: dict[str, bytearray] = field(default_factory=dict)
    pending: dict[str, list[tuple[int, bytes | None]]] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    def sync(self, name: str) -> None:
        """Make everything of a file durable."""
        for at, data in self.pending.pop(name, []):
            _write(self.durable.setdefault(name, bytearray()), at, data)

    def after_cut(self, folder: Path, rng: random.Random | None) -> None:
        """Write the files as a power cut leaves them: unsynced blocks are lost, or with `rng` half of them."""
        folder.mkdir()
        for name in {*self.durable, *self.pending}:
            content = bytearray(self.durable.get(name, b""))
            for at, data in self.pending.get(name, []):
                for start, block in _blocks(at, data):
                    if rng is not None and rng.random() < 0.5:
                        _write(content, start, block)
            (folder / name).write_bytes(content)


def _write(content: bytearray, at: int, data: bytes | None) -> None:
    if data is None:
        del content[at:]
        content.extend(bytes(max(0, at - len(content))))
        return
    content.extend(bytes(max(0, at - len(content))))
    content[at : at + len(data)] = data


def _blocks(at: int, data: bytes | None) -> Iterator[tuple[int, bytes | None]]:
    if data is None:
        yield at, None
        return
    for offset in range(0, len(data), BLOCK):
        yield at + offset, data[offset : offset + BLOCK]


def _calls(trace: Path) -> Iterator[tuple[str, str]]:
    """Name and arguments of each call that went well, in the order in which they returned."""
    open_calls: dict[str, str] = {}
    for line in trace.read_text().splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        thread, text = match.groups()
        if text.endswith("<unfinished ...>"):
            open_calls[thread] = text.removesuffix("<unfinished ...>").rstrip()
            continue
        if text.startswith("<... "):
            text = open_calls.pop(thread, "") + text.split("resumed>", 1)[1]
        call = _CALL.match(text)
        if call is not None and int(call[3]) >= 0:
            yield call[1], call[2]


def _text(quoted: str) -> bytes:
    """The bytes of a string that strace wrote all in hexadecimal."""
    return bytes.fromhex(quoted.strip('"').replace("\\x", ""))


def replayed(trace: Path, template: Path, folder: Path) -> Iterator[Disk]:
    """The disk after each call."""
    disk = Disk({path.name: bytearray(path.read_bytes()) for path in template.iterdir()})
    ends: dict[str, int] = {}
    for call, arguments in _calls(trace):
        if call in ("unlink", "rename"):
            names = [Path(_text(part).decode()) for part in arguments.split(", ")]
            if names[0].parent != folder:
                continue
            content, pending = disk.durable.pop(names[0].name, None), disk.pending.pop(names[0].name, None)
            if call == "rename":
                disk.durable[names[1].name] = content if content is not None else bytearray()
                if pending:
                    disk.pending[names[1].name] = pending
            yield disk
            continue
        match = _FD.match(arguments)
        if match is None:
            continue
        path, rest = Path(_text(match[1]).decode() if "\\x" in match[1] else match[1]), match[2] or ""
        if call == "write" and path.name.startswith("pipe:"):
            disk.said += _text(rest.rsplit(", ", 1)[0]).decode().split()
            yield disk
        elif path.parent == folder:
            _apply(disk, ends, call, path.name, rest)
            yield disk


def _apply(disk: Disk, ends: dict[str, int], call: str, name: str, rest: str) -> None:
    if call in ("fsync", "fdatasync"):
        disk.sync(name)
    elif call == "ftruncate":
        disk.pending.setdefault(name, []).append((int(rest), None))
    elif call == "pwrite64":
        data, _, at = rest.rsplit(", ", 2)
        disk.pending.setdefault(name, []).append((int(at), _text(data)))
    elif call == "write":  # only ever appended to, from the file's beginning
        added = _text(rest.rsplit(", ", 1)[0])
        disk.pending.setdefault(name, []).append((ends.get(name, 0), added))
        ends[name] = ends.get(name, 0) + len(added)


def main() -> int:
    """Argument: the scenario."""
    return walk(_look)


def _look(scenario: Scenario, template: Path, base: Path) -> dict[str, Any]:
    folder, trace = base / "life", base / "trace"
    options = ["-y", "-xx", "-s", "2000000", "-o", str(trace), "-e", f"trace={CALLS}"]
    if traced(scenario, template, folder, options)[-1:] != [UNHARMED]:
        raise RuntimeError("the life did not end well")
    violations, points = [], 0
    for number, disk in enumerate(replayed(trace, template, folder)):
        for half in (None, random.Random(number)):
            cut = base / "cut"
            disk.after_cut(cut, half)
            said = list(disk.said)
            found = in_child(partial(wrong_after, scenario, cut, said)) or []
            points += 1
            violations += [f"power cut after call {number} ({said[-1:]}): {text}" for text in found]
            shutil.rmtree(cut)
    return {"points": points, "violations": violations}


if __name__ == "__main__":
    sys.exit(main())
