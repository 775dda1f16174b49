"""The time that a call may take, by the event loop's own clock."""

import asyncio

import pytest

from mms.workers.patience import Patience

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Watched:
    """A patience that notes when it was over; `under_way` is what it asks for."""

    def __init__(self, seconds: float) -> None:
        self.under_way = True
        self.over = asyncio.Event()
        self.patience = Patience(seconds, lambda: self.under_way, self.over.set)
        self._began = asyncio.get_running_loop().time()

    async def ended(self) -> float:
        """Seconds from the start."""
        await asyncio.wait_for(self.over.wait(), 10)
        return asyncio.get_running_loop().time() - self._began


async def passed(seconds: float) -> float:
    """Return when another patience, begun now, is over; its own account of how long that was."""
    other = Watched(seconds)
    other.patience.begin()
    return await other.ended()


async def test_it_ends_no_earlier_than_it_was_told() -> None:
    watched = Watched(0.05)
    watched.patience.begin()
    assert await watched.ended() >= 0.045


async def test_a_new_call_begins_a_new_time() -> None:
    watched = Watched(0.1)
    watched.patience.begin()
    later = await passed(0.06)
    watched.patience.begin()
    assert await watched.ended() >= later + 0.095


async def test_without_a_call_under_way_it_is_never_over() -> None:
    watched = Watched(0.02)
    watched.patience.begin()
    watched.under_way = False
    await passed(0.06)
    assert not watched.over.is_set()
    watched.under_way = True
    watched.patience.begin()  # the timer had gone off for nothing
    await watched.ended()


async def test_a_shorter_time_holds_for_the_call_under_way() -> None:
    watched = Watched(60)
    watched.patience.begin()
    watched.patience.configure(0.01)
    assert await watched.ended() < 10


async def test_closed_it_says_nothing_more() -> None:
    watched = Watched(0.01)
    watched.patience.begin()
    watched.patience.close()
    await passed(0.03)
    assert not watched.over.is_set()
