"""The server's end of one worker's socket: cuts what arrives into frames, and writes frames in as few calls as can be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from mms.workers import frames


class Connection(asyncio.Protocol):
    """`received` takes each frame, `broken` what was no frame, and `lost` says that the worker's end is closed."""

    def __init__(
        self, received: Callable[[bytes], None], broken: Callable[[Exception], None], lost: Callable[[], None]
    ) -> None:
        self._received = received
        self._broken = broken
        self._lost = lost
        self._splitter = frames.FrameSplitter()
        self._held_back: frames.Buffers = []
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.WriteTransport
        self.open = False

    # --- the transport's calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """From now on it can be written to."""
        self._transport = cast(asyncio.WriteTransport, transport)
        self.open = True

    def data_received(self, data: bytes) -> None:
        """Bytes from the worker."""
        try:
            arrived = self._splitter.feed(data)
        except frames.FrameError as error:
            self._broken(error)
            return
        for frame in arrived:
            self._received(frame)

    def connection_lost(self, exc: Exception | None) -> None:
        """The worker has ended, or is about to."""
        self.open = False
        self._lost()

    # --- writing: what cannot arrive any more is dropped ---

    def write(self, buffers: frames.Buffers) -> None:
        """Write frames now: small pieces in one call, large ones one after the other, not copied together."""
        if not self.open:
            return
        if len(buffers) == 1:
            self._transport.write(buffers[0])
        elif sum(map(len, buffers)) <= frames.JOINED:
            self._transport.write(b"".join(buffers))
        else:
            self._transport.writelines(buffers)

    def write_soon(self, buffers: frames.Buffers) -> None:
        """Write frames at the end of this turn of the loop, together with all others of the turn."""
        if not self._held_back:
            self._loop.call_soon(self._write_held_back)
        self._held_back += buffers

    def _write_held_back(self) -> None:
        buffers, self._held_back = self._held_back, []
        if buffers:
            self.write(buffers)

    def control(self, kind: int, content: Any) -> None:
        """Write a control frame, after all that was written before it."""
        self._write_held_back()
        self.write([frames.encode_control(kind, content)])

    def abort(self) -> None:
        """Close it at once."""
        if self.open:
            self._transport.abort()
