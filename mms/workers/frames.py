"""Frames between the server and a worker, both directions, over one Unix socket pair: their kinds, their way through a socket.

A frame is `<length u64><kind u8>` and a payload; the length counts the whole frame. `messages.py` says what is in those that
are no control frames.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import Any, Final

import orjson

LOAD: Final = 1
BATCH: Final = 2
CONFIGURE: Final = 3
STOP: Final = 4
CALLS: Final = 5
LOADED: Final = 16
LOAD_FAILED: Final = 17
RESULTS: Final = 18
BODIES: Final = 19

Buffers = list[bytes | memoryview]
"""Consecutive pieces of one or more frames, to be written in this order."""

JOINED: Final = 65536
"""Bytes up to which a frame is cheaper joined than written in pieces."""

_HEAD = struct.Struct("<QB")
_IOV_MAX = 512
HEADER_SIZE: Final = _HEAD.size


class FrameError(Exception):
    """The other side sent bytes that are no frame."""


def kind_of(frame: bytes | memoryview) -> int:
    """Which kind of frame this is."""
    return frame[8]


def encode_control(kind: int, content: Any) -> bytes:
    """A small frame of JSON: load, configure, stop, loaded, load failed."""
    body = orjson.dumps(content)
    return _HEAD.pack(_HEAD.size + len(body), kind) + body


def decode_control(frame: bytes | memoryview) -> Any:
    """The JSON of a control frame."""
    return orjson.loads(frame[_HEAD.size :])


class FrameSplitter:
    """Cuts what arrives into whole frames; holds at most one unfinished frame, of at most `limit` bytes."""

    __slots__ = ("_chunks", "_have", "_limit", "_need")

    def __init__(self, limit: int = 1 << 40) -> None:
        self._chunks: list[bytes] = []
        self._have = 0
        self._need = HEADER_SIZE
        self._limit = limit

    @property
    def expected(self) -> int:
        """The length of the frame that is under way, 0 where none is or it is not known yet."""
        return self._need if self._chunks and self._need > HEADER_SIZE else 0

    def hand_over(self, frame: memoryview) -> int:
        """Put what is here of the frame under way to its beginning, for somebody else to complete; says how much it was."""
        have = self._have
        frame[:have] = b"".join(self._chunks)
        self._chunks.clear()
        return have

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that `data` completes; raises FrameError on a length that no frame has."""
        if self._chunks:
            self._chunks.append(data)
            self._have += len(data)
            if self._have < self._need:
                return []
            data = b"".join(self._chunks)
            self._chunks.clear()
        frames = []
        position, end = 0, len(data)
        self._need = HEADER_SIZE
        while end - position >= HEADER_SIZE:
            length = _HEAD.unpack_from(data, position)[0]
            if not HEADER_SIZE <= length <= self._limit:
                raise FrameError(f"A frame of {length} bytes is not possible.")
            if end - position < length:
                self._need = length
                break
            frames.append(data if length == end else data[position : position + length])
            position += length
        if position < end:
            self._chunks.append(data[position:] if position else data)
            self._have = end - position
        return frames


def read_frames(sock: socket.socket) -> Iterator[bytes | memoryview]:
    """Frames from a blocking socket, until the other side closes it.

    A large frame is read to where it stays, and its memory is used again for the next one: it has to be done with by then.
    """
    splitter = FrameSplitter()
    memory = bytearray()
    while True:
        data = sock.recv(JOINED)
        if not data:
            return
        yield from splitter.feed(data)
        length = splitter.expected
        if length > JOINED:
            if len(memory) < length:
                memory = bytearray(length)
            frame = memoryview(memory)[:length]
            have = splitter.hand_over(frame)
            while have < length:
                count = sock.recv_into(frame[have:], 0, socket.MSG_WAITALL)
                if not count:
                    return
                have += count
            yield frame


def write_all(sock: socket.socket, buffers: Buffers) -> None:
    """Write the pieces to a blocking socket, as few calls as the kernel allows, without joining them."""
    if len(buffers) == 1:
        sock.sendall(buffers[0])
        return
    pending = [memoryview(piece) for piece in buffers]
    while pending:
        sent = sock.sendmsg(pending[:_IOV_MAX])
        done = 0
        while done < len(pending) and sent >= len(pending[done]):
            sent -= len(pending[done])
            done += 1
        del pending[:done]
        if sent:
            pending[0] = pending[0][sent:]
