from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest

from mms.store.witness import SLOT_SIZE, Mark, Witness, decode, encode

ID = str(uuid.UUID(int=7))


def mark(commits: int) -> Mark:
    return Mark(ID, epoch=1, last_seq=commits // 2, commits=commits)


def test_a_mark_survives_its_slot() -> None:
    assert decode(encode(mark(5))) == mark(5)


@pytest.mark.parametrize("size", [0, 10, 51])
def test_a_slot_that_is_too_short_says_nothing(size: int) -> None:
    assert decode(encode(mark(5))[:size]) is None


def test_every_flipped_bit_of_a_slot_is_noticed() -> None:
    slot = encode(mark(5))
    for bit in range(len(slot) * 8):
        flipped = bytearray(slot)
        flipped[bit // 8] ^= 1 << bit % 8
        assert decode(bytes(flipped)) is None, f"bit {bit}"


def test_no_file_is_not_the_same_as_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "w"
    assert (Witness(path).read().present, Witness(path).read().mark) == (False, None)
    path.write_bytes(b"nothing of ours")
    assert (Witness(path).read().present, Witness(path).read().mark) == (True, None)


def test_the_newest_mark_is_read_and_the_older_slot_is_written_next(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "w"
    writer = Witness(path)
    for commits in range(1, 6):
        before = path.read_bytes() if commits > 1 else b""
        writer.write(mark(commits))
        after = path.read_bytes()
        if commits > 1:
            changed = [before[at : at + SLOT_SIZE] != after[at : at + SLOT_SIZE] for at in (0, SLOT_SIZE)]
            assert sorted(changed) == [False, True]
            assert decode(after[0 if changed[1] else SLOT_SIZE :]) == mark(commits - 1)
        assert Witness(path).read().mark == mark(commits)
    writer.close()


def test_a_later_life_goes_on_in_the_same_file_and_spares_the_newest_slot(tmp_path: Path) -> None:
    path = tmp_path / "w"
    first = Witness(path)
    first.write(mark(1))
    first.write(mark(2))
    first.close()
    inode = path.stat().st_ino
    second = Witness(path)
    second.read()
    second.write(mark(3))
    second.close()
    assert path.stat().st_ino == inode
    content = path.read_bytes()
    assert {decode(content[:SLOT_SIZE]), decode(content[SLOT_SIZE:])} == {mark(2), mark(3)}


def test_a_torn_slot_leaves_the_other(tmp_path: Path) -> None:
    path = tmp_path / "w"
    writer = Witness(path)
    writer.write(mark(1))
    writer.write(mark(2))
    writer.close()
    content = bytearray(path.read_bytes())
    newest = 0 if decode(bytes(content[:SLOT_SIZE])) == mark(2) else SLOT_SIZE
    content[newest + 30 : newest + 60] = os.urandom(30)
    path.write_bytes(content)
    assert Witness(path).read().mark == mark(1)


@pytest.mark.parametrize(
    ("other", "behind"),
    [(Mark(ID, 1, 2, 5), False), (Mark(ID, 2, 2, 5), True), (Mark(ID, 1, 3, 5), True), (Mark(ID, 1, 2, 6), True)],
)
def test_a_store_is_behind_if_it_lacks_anything(other: Mark, behind: bool) -> None:
    assert Mark(ID, 1, 2, 5).behind(other) is behind
