"""Disks after a power cut: what was synced is there, what was not is lost, wholly or by blocks."""

from __future__ import annotations

import random
from pathlib import Path

from chaos.power_walk import BLOCK, Disk, replayed


def test_unsynced_writes_are_lost_and_synced_ones_are_not(tmp_path: Path) -> None:
    disk = Disk({"db": bytearray(b"old")})
    disk.pending["db"] = [(0, b"new"), (3, b"er")]
    disk.after_cut(tmp_path / "before", None)
    disk.sync("db")
    disk.after_cut(tmp_path / "after", None)
    assert (tmp_path / "before" / "db").read_bytes() == b"old"
    assert (tmp_path / "after" / "db").read_bytes() == b"newer"


def test_a_cut_that_was_not_synced_is_lost_too(tmp_path: Path) -> None:
    disk = Disk({"wal": bytearray(b"12345")})
    disk.pending["wal"] = [(0, None)]
    disk.after_cut(tmp_path / "before", None)
    disk.sync("wal")
    disk.after_cut(tmp_path / "after", None)
    assert [(tmp_path / name / "wal").read_bytes() for name in ("before", "after")] == [b"12345", b""]


def test_half_of_the_unsynced_blocks_may_have_come_to_the_disk(tmp_path: Path) -> None:
    disk = Disk()
    disk.pending["wal"] = [(0, b"x" * BLOCK * 64)]
    disk.after_cut(tmp_path / "cut", random.Random(1))
    content = (tmp_path / "cut" / "wal").read_bytes()
    there = sum(content[at] == ord("x") for at in range(0, len(content), BLOCK))
    assert 10 < there < 54


def test_a_trace_is_replayed_call_by_call(tmp_path: Path) -> None:
    folder, template = tmp_path / "life", tmp_path / "template"
    template.mkdir()
    (template / "db").write_bytes(b"old")
    hexed = "".join(f"\\x{byte:02x}" for byte in b"new")
    trace = tmp_path / "trace"
    trace.write_text(
        f'7 pwrite64(4<{folder}/db>, "{hexed}", 3, 0 <unfinished ...>\n'
        f'8 write(9<pipe:[5]>, "{"".join(f"{chr(92)}x{b:02x}" for b in b"said" + bytes([10]))}", 5) = 5\n'
        "7 <... pwrite64 resumed>) = 3\n"
        f"7 fdatasync(4<{folder}/db>) = 0\n"
        f"7 fdatasync(4<{folder}/other>) = -1 EIO (Input/output error)\n"
    )
    seen = [
        (list(disk.said), bytes(disk.durable["db"]), len(disk.pending)) for disk in replayed(trace, template, folder)
    ]
    assert seen == [(["said"], b"old", 0), (["said"], b"old", 1), (["said"], b"new", 0)]
