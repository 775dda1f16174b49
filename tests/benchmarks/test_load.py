"""What the load generators say of a real server that is slow now and then: both tell of the requests that were sent."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.latencies import by_clock, percentile, sent
from benchmarks.load import Generator

SLOW_ONE_OF = 200
SLOW = 0.1  # seconds


def test_by_the_clock_a_stall_is_met_by_all_that_would_have_been_sent_meanwhile() -> None:
    assert by_clock({100: 7, 199: 2, 450: 3}, 100) == {100: 7, 199: 2, 450: 3, 350: 3, 250: 3, 150: 3}


@given(
    st.dictionaries(st.integers(1, 5_000), st.integers(1, 1_000), max_size=40),
    st.integers(1, 2_000),
)
def test_what_the_clock_adds_is_taken_out_to_the_last_request(counts: dict[int, int], interval: int) -> None:
    assert sent(by_clock(counts, interval), interval) == counts


@pytest.mark.parametrize(
    ("share", "milliseconds"), [(0.5, 0.2), (0.51, 0.3), (0.99, 0.3), (0.991, 9.0), (1.0, 9.0), (0.0, 0.1)]
)
def test_a_percentile_is_the_time_of_the_request_at_its_rank(share: float, milliseconds: float) -> None:
    assert percentile({9_000: 1, 100: 10, 200: 40, 300: 49}, share) == milliseconds


def test_a_round_without_requests_has_no_percentiles() -> None:
    assert percentile({}, 0.99) == 0.0


@pytest.fixture
def slow_now_and_then() -> Iterator[str]:
    """The address of a server that lets one of 200 requests wait for 0.1 s."""
    count = 0
    address: Future[str] = Future()
    end: Future[Callable[[], object]] = Future()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        with (
            closing(writer),
            suppress(asyncio.IncompleteReadError, ConnectionError),
        ):  # the round is over: its clients go
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                await reader.readexactly(length)
                count += 1
                if count % SLOW_ONE_OF == 0:
                    await asyncio.sleep(SLOW)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async def serve() -> None:
        loop, over = asyncio.get_running_loop(), asyncio.Event()
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            address.set_result(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
            end.set_result(lambda: loop.call_soon_threadsafe(over.set))
            await over.wait()

    with ThreadPoolExecutor(1) as thread:
        # Its end cancels whoever still waits for a slow answer, and closes each connection.
        served = thread.submit(asyncio.run, serve())
        yield address.result(30)
        end.result(30)()
        served.result(30)


@pytest.mark.parametrize("bundled", [True, False], ids=["bundled", "wrk"])
def test_p99_is_that_of_the_requests_that_were_sent(slow_now_and_then: str, tmp_path: Path, bundled: bool) -> None:
    if not bundled and shutil.which("wrk") is None:
        pytest.skip("wrk is not installed")
    body = tmp_path / "body"
    body.write_bytes(b"x")
    load = Generator(tmp_path, bundled=bundled).run(slow_now_and_then, body, "text/plain", 4, 1.0)
    assert load.errors == 0
    assert load.requests > 4 * SLOW_ONE_OF  # some of them were slow
    # One request of 200 is slow, and 199 of 200 are not: the 99th of 100 is one of the fast ones.
    assert load.p50 <= load.p99 < 1000 * SLOW / 2
    # By the clock, the others that were due in those 0.1 s would have waited as well.
    assert load.p99_by_clock > 1000 * SLOW / 2
