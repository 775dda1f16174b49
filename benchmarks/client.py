"""The bundled load generator: keep-alive connections with one request each at a time; prints one line of JSON."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import httptools
import uvloop


class _Client(asyncio.Protocol):
    """One connection: sends, waits for the whole answer, notes how long it took, sends again."""

    def __init__(self, request: bytes, stop_at: float, latencies: list[float], errors: list[str]) -> None:
        self._request = request
        self._stop_at = stop_at
        self._latencies = latencies
        self._errors = errors
        self._sent = 0.0
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are of no common class
        self._parser = httptools.HttpResponseParser(self)
        self._send()

    def _send(self) -> None:
        self._sent = time.perf_counter()
        if self._sent >= self._stop_at:
            self._transport.close()
        else:
            self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if 200 <= status < 300:
            self._latencies.append(time.perf_counter() - self._sent)
        else:
            self._errors.append(str(status))
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None or time.perf_counter() < self._stop_at:
            self._errors.append(str(exc or "closed"))
        if not self.over.done():
            self.over.set_result(None)


async def _run(url: str, body: bytes, content_type: str, clients: int, seconds: float) -> dict[str, object]:
    parts = urlsplit(url)
    head = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: {content_type}\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    latencies: list[float] = []
    errors: list[str] = []
    began = time.perf_counter()
    loop = asyncio.get_running_loop()
    made = [
        await loop.create_connection(
            lambda: _Client(request, began + seconds, latencies, errors),
            parts.hostname or "127.0.0.1",
            parts.port or 80,
        )
        for _ in range(clients)
    ]
    async with asyncio.timeout(seconds + 30):
        await asyncio.gather(*(client.over for _, client in made))
    elapsed = time.perf_counter() - began
    counts = Counter(round(1e6 * took) for took in latencies)
    return {"requests": len(latencies), "microseconds": round(1e6 * elapsed), "errors": len(errors), "counts": counts}


if __name__ == "__main__":
    _url, _body, _kind, _clients, _seconds = sys.argv[1:6]
    print(json.dumps(uvloop.run(_run(_url, Path(_body).read_bytes(), _kind, int(_clients), float(_seconds)))))
