"""What the walks along a store life share: a prepared store to begin with, points drawn by a seed, forks without threads."""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from chaos.store_life import SCENARIOS, Scenario, prepare

Point = TypeVar("Point", bound=tuple[Any, ...])


def walk(look: Callable[[Scenario, Path, Path], dict[str, Any]]) -> int:
    """What all walks share: `look` gets the scenario, its prepared store and a folder, and what it found is printed as JSON."""
    scenario = SCENARIOS[sys.argv[1]]
    base = Path(tempfile.mkdtemp(prefix="mms-walk-"))
    try:
        template = base / "template"
        template.mkdir()
        in_child(lambda: prepare(scenario, template))
        print(json.dumps(look(scenario, template, base)))
    finally:
        shutil.rmtree(base)
    return 0


def drawn(every: list[Point]) -> list[Point]:
    """As many of the points as the third argument says (0: all), by the seed that is the second."""
    most = int(sys.argv[3])
    return sorted(random.Random(sys.argv[2]).sample(every, most)) if most and most < len(every) else every


def in_child(work: Callable[[], list[str] | None]) -> list[str] | None:
    """Run in a fork, so that no thread of it ever lives in this process; raises where it did."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        answer: dict[str, Any] = {}
        try:
            answer = {"found": work()}
        except BaseException as error:
            answer = {"error": repr(error)}
        finally:
            with suppress(OSError):
                os.write(write, json.dumps(answer).encode())
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = json.load(pipe)
    os.waitpid(pid, 0)
    if "error" in said:
        raise RuntimeError(said["error"])
    found: list[str] | None = said["found"]
    return found
