"""Puts a server under load: wrk where it is installed, else the client that is bundled; both in a process of their own."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.latencies import by_clock, percentile, sent

_LUA = """
local file = io.open({body!r}, "rb")
wrk.method = "POST"
wrk.body = file:read("*all")
wrk.headers["Content-Type"] = {content_type!r}
file:close()
done = function(summary, latency, requests)
  local e = summary.errors
  local counts = {{}}
  for i = 1, #latency do counts[i] = string.format('"%d": %d', latency(i)) end
  io.write(string.format('\\n{{"requests": %d, "microseconds": %d, "errors": %d, "counts": {{%s}}}}\\n',
    summary.requests, summary.duration, e.connect + e.read + e.write + e.status + e.timeout, table.concat(counts, ", ")))
end
"""


@dataclass(frozen=True)
class Load:
    """What one round came to; milliseconds for the percentiles.

    `p50` and `p99` are those of the requests that were sent, one at a time by each client. `p99_by_clock` is what clients
    would have met that send at the same rate, but by the clock; it is the one that wrk itself shows.
    """

    requests: int
    seconds: float
    errors: int
    p50: float
    p99: float
    p99_by_clock: float


class Generator:
    """The load generator of this run; `name` says which."""

    def __init__(self, folder: Path, *, bundled: bool = False) -> None:
        self._folder = folder
        self._wrk = None if bundled else shutil.which("wrk")
        self._numbers = itertools.count()  # of the scripts: two loads may run at once
        self.name = "wrk" if self._wrk else "the bundled asyncio client"

    def run(self, url: str, body: Path, content_type: str, clients: int, seconds: float) -> Load:
        """`clients` connections, each with one request at a time, for that long. Raises SystemExit where it cannot run."""
        found = subprocess.run(
            self._command(url, body, content_type, clients, seconds), capture_output=True, text=True, check=False
        )
        if found.returncode:
            raise SystemExit(f"{self.name} failed: {found.stderr or found.stdout}")
        return self._load(json.loads(found.stdout.strip().splitlines()[-1]), clients)

    def _load(self, found: dict[str, Any], clients: int) -> Load:
        requests, microseconds, errors = found["requests"], found["microseconds"], found["errors"]
        counts = {int(took): count for took, count in found["counts"].items()}
        interval = microseconds // max(requests // clients, 1)
        if self._wrk is None:
            met = by_clock(counts, interval)
        else:
            met, counts = counts, sent(counts, interval)
        if not errors and sum(counts.values()) != requests:
            raise SystemExit(f"{self.name} counts {requests} requests and shows the times of {sum(counts.values())}")
        p50, p99 = percentile(counts, 0.5), percentile(counts, 0.99)
        return Load(requests, microseconds / 1e6, errors, p50, p99, percentile(met, 0.99))

    def _command(self, url: str, body: Path, content_type: str, clients: int, seconds: float) -> list[str]:
        if self._wrk is None:
            program = str(Path(__file__).with_name("client.py"))
            return [sys.executable, program, url, str(body), content_type, str(clients), str(seconds)]
        script = self._folder / f"load-{next(self._numbers)}.lua"
        script.write_text(_LUA.format(body=str(body), content_type=content_type))
        # wrk takes whole seconds only.
        duration = f"{max(round(seconds), 1)}s"
        return [self._wrk, "-t1", f"-c{clients}", f"-d{duration}", "--timeout", "20s", "-s", str(script), url]
