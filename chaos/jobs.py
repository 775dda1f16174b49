"""Several trials at once: each job is a process with its own folders, ports, PostgreSQL and adopted orphans."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

from chaos.job import END
from chaos.plan import Portion
from chaos.site import package_folder
from chaos.trial import Verdict

_ENDS_WITHIN = 60.0


class Jobs:
    """Hands portions to jobs in order, as each becomes free."""

    def __init__(self, count: int, seed: int, evidence: Path) -> None:
        self._count = count
        self._seed = seed
        self._evidence = evidence
        self._lock = threading.Lock()
        self._processes: list[subprocess.Popen[str]] = []
        self._stopped = False

    def run(self, portions: Iterable[Portion], told: Callable[[Verdict], None], until: float | None) -> int:
        """Run all, or begin none after `until` (monotonic seconds); returns how many trials were not begun.

        `told` is called with each verdict, by one thread at a time.
        """
        queue = deque(portions)
        threads = [threading.Thread(target=self._serve, args=(n, queue, told, until)) for n in range(self._count)]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        finally:
            self._stopped = True
            for process in list(self._processes):
                process.terminate()
            for thread in threads:
                thread.join(_ENDS_WITHIN)
        return sum(portion.count for portion in queue)

    def _serve(self, number: int, queue: deque[Portion], told: Callable[[Verdict], None], until: float | None) -> None:
        process: subprocess.Popen[str] | None = None
        while not self._stopped and (until is None or time.monotonic() < until):
            with self._lock:
                if not queue:
                    break
                portion = queue.popleft()
            if process is None:
                process = self._start(number)
            if not self._hand_over(process, portion, told):
                process.wait(_ENDS_WITHIN)
                self._processes.remove(process)
                process = None
        if process is not None and process.stdin is not None:
            process.stdin.close()
            process.wait(_ENDS_WITHIN)
            self._processes.remove(process)

    def _start(self, number: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-P", "-m", "chaos.job", str(number), str(self._seed), str(self._evidence.resolve())]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=package_folder(), env=_environment()
        )
        self._processes.append(process)
        return process

    def _hand_over(self, process: subprocess.Popen[str], portion: Portion, told: Callable[[Verdict], None]) -> bool:
        """Whether the job has lived through the portion."""
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(asdict(portion)) + "\n")
        process.stdin.flush()
        for line in process.stdout:
            said = json.loads(line)
            if said == END:
                return True
            with self._lock:
                told(Verdict(**said))
        if not self._stopped:
            lost = f"the job ended with {process.wait(_ENDS_WITHIN)} during trials {portion.first} to {portion.first + portion.count - 1}"
            with self._lock:
                told(Verdict(portion.fault, portion.store, portion.first, self._seed, 0.0, error=lost))
        return False


def _environment() -> dict[str, str]:
    given = dict(os.environ)
    given["PYTHONPATH"] = os.pathsep.join(filter(None, (given.get("PYTHONPATH", ""), str(package_folder()))))
    return given
