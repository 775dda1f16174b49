"""The server's end of a worker's socket, on a real pair."""

import asyncio
import socket
import struct

import pytest

from mms.workers import frames
from mms.workers.connection import Connection

pytestmark = pytest.mark.asyncio(loop_scope="module")


class End:
    """A connection and the worker's end of it, which the test plays."""

    def __init__(self) -> None:
        self.frames: asyncio.Queue[bytes] = asyncio.Queue()
        self.broken: asyncio.Queue[Exception] = asyncio.Queue()
        self.lost = asyncio.Event()
        self.connection = Connection(self.frames.put_nowait, self.broken.put_nowait, self.lost.set)
        self.theirs: socket.socket

    async def open(self) -> "End":
        ours, self.theirs = socket.socketpair()
        self.theirs.settimeout(10)
        await asyncio.get_running_loop().create_unix_connection(lambda: self.connection, sock=ours)
        return self

    async def close(self) -> None:
        self.theirs.close()
        await asyncio.wait_for(self.lost.wait(), 10)


async def test_all_that_is_written_soon_in_one_turn_leaves_in_one_write() -> None:
    end = await End().open()
    end.connection.write_soon([b"one"])
    end.connection.write_soon([b"two"])
    assert await asyncio.to_thread(end.theirs.recv, 100) == b"onetwo"
    await end.close()


async def test_a_control_frame_overtakes_nothing() -> None:
    end = await End().open()
    end.connection.write_soon([b"batch"])
    end.connection.control(frames.STOP, None)
    stop = frames.encode_control(frames.STOP, None)
    received = b""
    while len(received) < len(b"batch" + stop):
        received += await asyncio.to_thread(end.theirs.recv, 100)
    assert received == b"batch" + stop
    await end.close()


async def test_large_pieces_arrive_in_their_order() -> None:
    end = await End().open()
    pieces: frames.Buffers = [b"a" * 70_000, memoryview(b"b" * 70_000), b"c"]
    end.connection.write(pieces)
    whole = b"".join(pieces)
    received = b""
    while len(received) < len(whole):
        received += await asyncio.to_thread(end.theirs.recv, 1 << 20)
    assert received == whole
    await end.close()


async def test_frames_arrive_and_what_is_none_is_told() -> None:
    end = await End().open()
    frame = frames.encode_control(frames.LOADED, {"pid": 1})
    end.theirs.sendall(frame[:3])
    end.theirs.sendall(frame[3:] + frame)
    assert await asyncio.wait_for(end.frames.get(), 10) == frame
    assert await asyncio.wait_for(end.frames.get(), 10) == frame
    end.theirs.sendall(struct.pack("<QB", 1, 0))
    assert isinstance(await asyncio.wait_for(end.broken.get(), 10), frames.FrameError)
    await end.close()


async def test_after_its_end_nothing_is_written_and_nothing_raises() -> None:
    end = await End().open()
    await end.close()
    assert not end.connection.open
    end.connection.write([b"late"])
    end.connection.control(frames.STOP, None)
    end.connection.abort()
