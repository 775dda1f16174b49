"""The application that is built later."""

import asyncio
import threading
from typing import Any

import pytest

from mms.api.deferred import Deferred


class Application:
    """Counts its requests."""

    def __init__(self) -> None:
        self.requests = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.requests += 1


def ask(deferred: Deferred) -> asyncio.Task[None]:
    nothing: Any = None
    return asyncio.create_task(deferred({"type": "http"}, nothing, nothing))


async def test_it_is_built_once_in_a_thread_and_everyone_who_asks_meanwhile_waits_for_it() -> None:
    application, may_go, built_in = Application(), threading.Event(), []

    def build() -> Application:
        built_in.append(threading.current_thread())
        assert may_go.wait(10)
        return application

    deferred = Deferred(build)
    asked = [ask(deferred) for _ in range(5)]
    await asyncio.sleep(0.02)  # the event loop runs on meanwhile
    assert not any(task.done() for task in asked)
    may_go.set()
    await asyncio.gather(*asked, deferred.ready())
    await ask(deferred)

    assert application.requests == 6
    assert len(built_in) == 1
    assert built_in[0] is not threading.main_thread()


async def test_a_client_that_goes_away_takes_it_from_nobody_else() -> None:
    application, may_go = Application(), threading.Event()
    deferred = Deferred(lambda: application if may_go.wait(10) else Application())
    gone, stays = ask(deferred), ask(deferred)
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait((gone,))
    may_go.set()
    await stays

    assert gone.cancelled()
    assert application.requests == 1


async def test_what_goes_wrong_is_told_to_everyone() -> None:
    def build() -> Application:
        raise ImportError("no such module")

    deferred = Deferred(build)
    for asked in (ask(deferred), ask(deferred), asyncio.create_task(deferred.ready())):
        with pytest.raises(ImportError, match="no such module"):
            await asked
