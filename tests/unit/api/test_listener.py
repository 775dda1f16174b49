import asyncio
import signal
import socket
from pathlib import Path

import pytest

from mms.api.access_log import RequestLog
from mms.api.listener import Listener
from mms.api.request_ids import RequestIds
from mms.api.site import Site
from mms.api.wire import Wire
from mms.config.address import Address
from mms.errors import UsageError
from mms.request import InferenceResponse


def listener_at(address: Address, port) -> Listener:
    site = Site(port.service, port.site.models, port.site.router, Wire(), RequestIds(), RequestLog(), 1000)
    return Listener(address, port.listener._config.app, site, None)


async def test_signals_stay_whose_they_are(port) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    await port.listener.drain(1)
    await port.listener.close()

    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


async def test_a_taken_address_is_named(port) -> None:
    taken = Address("http", "127.0.0.1", port.listener.port)
    with pytest.raises(
        UsageError, match=rf"Cannot listen on http://127\.0\.0\.1:{port.listener.port}: Address already in use"
    ):
        await listener_at(taken, port).start()


async def test_after_stop_accepting_what_has_come_is_answered_and_nothing_more_comes(port) -> None:
    idle, busy = await port.connect(), await port.connect()
    await idle.ask("GET", "/ping")
    await busy.send(b"POST /predictions/slow HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
    async with asyncio.timeout(5):
        await port.service.arrived.wait()
    number = port.listener.port
    await port.listener.stop_accepting()

    assert await idle.closed()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", number)
    port.service.release()
    answer = await busy.answer()
    assert (answer.body, answer.headers["connection"]) == (b"late", "close")
    assert await busy.closed()


async def test_pipelined_requests_that_have_come_are_all_answered_and_the_last_says_that_it_is(port) -> None:
    client = await port.connect()
    slow = b"POST /predictions/slow HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    await client.send(slow + slow)
    async with asyncio.timeout(5):
        await port.service.arrived.wait()
    await port.listener.stop_accepting()
    port.service.release(b"one")
    first = await client.answer()
    port.service.release(b"two")
    second = await client.answer()

    assert (first.body, first.headers["connection"]) == (b"one", "keep-alive")
    assert (second.body, second.headers["connection"]) == (b"two", "close")
    assert await client.closed()


async def test_an_answer_that_is_on_its_way_at_the_close_still_leaves(port) -> None:
    client = await port.connect()
    body = b"z" * 3_000_000
    port.service.reply = lambda request: InferenceResponse(body)
    await client.send(b"POST /predictions/noop HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
    async with asyncio.timeout(5):
        await port.service.arrived.wait()
    answer, _ = await asyncio.gather(client.answer(), port.listener.close())

    assert answer.body == body


async def test_a_drain_answers_what_has_come_and_closes_idle_connections(port) -> None:
    idle, busy = await port.connect(), await port.connect()
    await idle.ask("GET", "/ping")
    await busy.send(b"POST /predictions/slow HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
    async with asyncio.timeout(5):
        await port.service.arrived.wait()
    drained = asyncio.create_task(port.listener.drain(5))

    assert await idle.closed()
    assert not drained.done()
    port.service.release()
    answer = await busy.answer()
    assert (answer.body, answer.headers["connection"]) == (b"late", "close")
    assert await drained


async def test_a_drain_has_an_end(port) -> None:
    client = await port.connect()
    await client.send(b"POST /predictions/slow HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
    async with asyncio.timeout(5):
        await port.service.arrived.wait()

    assert not await port.listener.drain(0.05)
    await port.listener.close()
    assert await client.closed()
    assert port.service.held[0].cancelled


async def test_an_idle_drain_is_over_at_once(port) -> None:
    async with asyncio.timeout(1):
        assert await port.listener.drain(60)


async def test_a_unix_socket_serves_and_is_gone_afterwards(port, tmp_path: Path) -> None:
    path = tmp_path / "s"
    listener = listener_at(Address("unix", path=str(path)), port)
    await listener.start()
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(b"POST /predictions/noop HTTP/1.0\r\nContent-Length: 0\r\n\r\n")
    async with asyncio.timeout(5):
        assert (await reader.read()).endswith(b"\r\n\r\nOK")
    writer.close()
    await listener.close()

    assert not path.exists()


async def test_a_socket_file_of_a_dead_server_is_replaced_and_one_in_use_is_not(port, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    listener = listener_at(Address("unix", path=str(path)), port)
    await listener.start()

    with pytest.raises(UsageError, match="Address already in use"):
        await listener_at(Address("unix", path=str(path)), port).start()
    await listener.close()
