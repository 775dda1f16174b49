"""A decorator that prints how long a function took; part of the handler kit."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_R = TypeVar("_R")


def timeit(func: Callable[_P, _R]) -> Callable[_P, _R]:
    """Print the duration of each call, by the clock and of the processor, in seconds."""

    @functools.wraps(func)
    def timed(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        began, began_cpu = time.perf_counter(), time.process_time()
        result = func(*args, **kwargs)
        wall, cpu = time.perf_counter() - began, time.process_time() - began_cpu
        print(f"func: {func.__name__!r} took a total of {wall:.4f} sec to run and {cpu:.4f} sec of CPU time")  # noqa: T201
        return result

    return timed
