"""How a worker ended, in words for operators and in the errors that tell of it; pure."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

from mms.errors import LoadFailed, WorkerDied
from mms.workers.launcher import Exit


def load_error(model: str, how: Exit | None, words: Sequence[str]) -> LoadFailed:
    """For a worker that ended by itself while it was loading `model`; `words` are the last lines of its stderr."""
    how = how or Exit(None)
    killed = how.status is not None and os.WIFSIGNALED(how.status) and os.WTERMSIG(how.status) == signal.SIGKILL
    return LoadFailed(
        f"The worker {describe_exit(how)} while it was loading model {model}.",
        detail="\n".join(words),
        out_of_memory=killed,
        environment=how.environment,
    )


def death(subject: str, how: Exit | None) -> WorkerDied:
    """For a worker, named by `subject`, that ended by itself after it had loaded."""
    how = how or Exit(None)
    return WorkerDied(detail=f"{subject} {describe_exit(how)}.", environment=how.environment)


def describe_exit(how: Exit) -> str:
    """One sentence part for people: how a worker process ended."""
    if how.environment:
        return "ended because the fork server ended"
    status = how.status
    if status is None:
        return "ended in an unknown way"
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = "unknown"
        hint = ": most likely out of memory" if number == signal.SIGKILL else ""
        return f"was killed by signal {number} ({name}){hint}"
    return f"exited with status {os.WEXITSTATUS(status)}"
