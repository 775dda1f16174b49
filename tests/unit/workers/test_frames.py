"""Frames: what goes in comes out, however the stream is cut."""

import itertools
import socket
import struct
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mms.workers import frames


@given(st.lists(st.binary(max_size=30), max_size=6), st.lists(st.integers(1, 17), min_size=1))
def test_the_splitter_does_not_care_how_the_stream_is_cut(bodies: list[bytes], sizes: list[int]) -> None:
    sent = [struct.pack("<QB", 9 + len(body), 7) + body for body in bodies]
    stream = b"".join(sent)
    splitter = frames.FrameSplitter()
    received: list[bytes] = []
    position = 0
    for size in itertools.cycle(sizes):
        if position >= len(stream):
            break
        received += splitter.feed(stream[position : position + size])
        position += size
    assert received == sent


@pytest.mark.parametrize("length", [0, 8, 101])
def test_a_length_that_no_frame_has_is_refused(length: int) -> None:
    with pytest.raises(frames.FrameError, match=f"{length} bytes"):
        frames.FrameSplitter(limit=100).feed(struct.pack("<QB", length, 7))


@given(st.lists(st.sampled_from([0, 1, 70_000, 65_527, 65_528, 200_000]), min_size=1, max_size=5))
@settings(max_examples=30)
def test_frames_of_any_size_are_read_from_a_socket_one_after_the_other(sizes: list[int]) -> None:
    sent = [struct.pack("<QB", 9 + size, number) + bytes([number]) * size for number, size in enumerate(sizes)]
    ours, theirs = socket.socketpair()
    writer = threading.Thread(target=lambda: (theirs.sendall(b"".join(sent)), theirs.close()))
    writer.start()
    assert [bytes(frame) for frame in frames.read_frames(ours)] == sent
    writer.join()
    ours.close()


def test_a_frame_that_the_other_side_never_finishes_is_none() -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(struct.pack("<QB", 200_000, 2) + b"x" * 1000)
    theirs.close()
    assert list(frames.read_frames(ours)) == []
    ours.close()
