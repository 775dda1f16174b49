"""HTTP itself, over real connections."""

import asyncio
import json

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mms.request import InferenceResponse

TOO_LARGE = b"x" * 1001


async def test_a_connection_serves_request_after_request(client) -> None:
    assert (await client.ask("GET", "/ping")).status == 200
    assert (await client.ask("POST", "/predictions/noop", b"x")).status == 200
    assert (await client.ask("GET", "/ping")).headers["connection"] == "keep-alive"


@pytest.mark.parametrize("target", ["/nowhere", "/predictions/nobody"])
async def test_an_error_ends_the_connection(client, target: str) -> None:
    assert (await client.ask("POST", target, b"x")).headers["connection"] == "close"
    assert await client.closed()


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"this is no http\r\n\r\n",
        b"POST /predictions/noop HTTP/1.1\r\nHost: x\r\nContent-Length: abc\r\n\r\nx",
        b"GET /" + b"a" * 4096 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 8192 + b"\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 20_000,
        b"POST /ping HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
async def test_what_cannot_be_decoded_is_answered_400_and_the_connection_ends(client, request_bytes: bytes) -> None:
    await client.send(request_bytes)
    answer = await client.answer()

    assert (answer.status, answer.headers["connection"]) == (400, "close")
    assert json.loads(answer.body) == {
        "code": 400,
        "type": "BadRequestException",
        "message": "Invalid HTTP message.",
    }
    assert "x-request-id" in answer.headers
    assert await client.closed()


@pytest.mark.parametrize("target", [b"/predictions/noop", b"/models"])
async def test_a_body_that_breaks_off_into_rubbish_is_refused(open_port, target: bytes) -> None:
    port = await open_port("both")
    client = await port.connect()
    await client.send(b"POST " + target + b" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    await client.send(b"no number\r\n")

    assert (await client.answer()).status == 400
    assert await client.closed()
    assert port.service.requests == []


async def test_what_follows_the_last_answer_of_a_connection_is_not_done(client, port) -> None:
    last = b"POST /predictions/nobody HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    more = b"POST /predictions/noop HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    await client.send(last + more)

    assert (await client.answer()).status == 404
    assert await client.closed()
    assert port.service.requests == []


async def test_a_refusal_waits_for_the_answers_before_it(client, port) -> None:
    await client.send(b"POST /predictions/slow HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\nrubbish\r\n\r\n")
    async with asyncio.timeout(5):
        await port.service.arrived.wait()
    port.service.release()

    assert (await client.answer()).body == b"late"
    assert (await client.answer()).status == 400


async def test_a_host_is_required_from_http_1_1_on(client, port) -> None:
    await client.send(b"GET /ping HTTP/1.1\r\n\r\n")
    assert (await client.answer()).status == 400

    older = await port.connect()
    await older.send(b"GET /ping HTTP/1.0\r\n\r\n")
    assert (await older.answer()).status == 200
    assert await older.closed()


@pytest.mark.parametrize("line", [b"Connection: close\r\n", b""])
async def test_a_client_may_end_the_connection_itself(client, line: bytes) -> None:
    version = b"1.1" if line else b"1.0"
    await client.send(
        b"POST /predictions/noop HTTP/" + version + b"\r\nHost: x\r\nContent-Length: 0\r\n" + line + b"\r\n"
    )

    assert (await client.answer()).headers["connection"] == "keep-alive"
    assert await client.closed()


async def test_an_old_client_may_keep_the_connection(client) -> None:
    for _ in range(2):
        await client.send(b"GET /predictions/noop HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert (await client.answer()).status == 200


@pytest.mark.parametrize("target", ["/predictions/noop", "/ping", "/predictions/nobody"])
async def test_a_body_that_is_announced_too_large_is_refused_and_the_connection_goes_on(client, target: str) -> None:
    answer = await client.ask("POST", target, TOO_LARGE)

    assert (answer.status, answer.reason) == (413, "Request Entity Too Large")
    assert (answer.headers, answer.body) == ({"content-length": "0"}, b"")
    assert (await client.ask("GET", "/ping")).status == 200


async def test_the_limit_of_the_model_itself_counts(client) -> None:
    assert (await client.ask("POST", "/predictions/small", b"x" * 11)).status == 413
    assert (await client.ask("POST", "/predictions/small", b"x" * 10)).status == 200


async def test_the_refusal_does_not_wait_for_the_body(client) -> None:
    await client.send(b"POST /predictions/noop HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n")

    assert (await client.answer()).status == 413


async def test_a_client_that_waits_for_leave_is_refused_and_let_go(client) -> None:
    await client.send(
        b"POST /predictions/noop HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5000\r\n\r\n"
    )

    assert (await client.answer()).status == 413
    assert await client.closed()


@pytest.mark.parametrize("target", [b"/predictions/noop", b"/ping", b"/models"])
async def test_a_chunked_body_that_grows_too_large_ends_the_connection(open_port, target: bytes) -> None:
    client = await (await open_port("both")).connect()
    await client.send(b"POST " + target + b" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    await client.send(b"5dc\r\n" + b"x" * 1500 + b"\r\n")
    answer = await client.answer()

    assert answer.status in ((413,) if target != b"/ping" else (200, 413))  # /ping does not wait for a body
    if answer.status == 413:
        assert answer.headers == {"content-length": "0", "connection": "close"}
        await client.send(b"0\r\n\r\n")
        assert await client.closed()


async def test_an_offer_to_upgrade_is_passed_over(client) -> None:
    lines = b"Host: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n"
    await client.send(b"POST /predictions/noop HTTP/1.1\r\n" + lines + b"Content-Length: 1\r\n\r\nx")
    assert (await client.answer()).body == b"OK"

    await client.send(b"GET /ping HTTP/1.1\r\n" + lines + b"\r\nGET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
    assert [(await client.answer()).status for _ in range(2)] == [200, 200]


async def test_an_idle_connection_is_closed_after_a_while_and_a_busy_one_is_not(open_port) -> None:
    port = await open_port(keep_alive=0.2)
    idle, used, busy = [await port.connect() for _ in range(3)]
    assert (await used.ask("POST", "/predictions/noop", b"x")).status == 200
    await busy.send(b"POST /predictions/slow HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")

    assert await idle.closed()
    assert await used.closed()
    await asyncio.sleep(0.3)  # longer than an idle connection lives
    port.service.release()
    assert (await busy.answer()).body == b"late"


async def test_half_a_head_does_not_hold_a_connection_for_ever(open_port) -> None:
    port = await open_port(keep_alive=0.2)
    client = await port.connect()
    await client.send(b"GET /ping HTTP/1.1\r\nHost")

    assert await client.closed()


async def test_a_client_that_does_not_read_is_not_answered_without_end(port) -> None:
    client = await port.connect()
    body = b"z" * 500_000
    port.service.reply = lambda request: InferenceResponse(body)
    one = b"POST /predictions/noop HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    client.writer.transport.pause_reading()
    client.writer.write(one * 200)
    connection = next(iter(port.listener._server.server_state.connections))
    async with asyncio.timeout(5):
        while not connection.flow.write_paused:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)

    assert len(port.service.requests) < 100
    client.writer.transport.resume_reading()
    assert [len((await client.answer()).body) for _ in range(200)] == [len(body)] * 200


WHOLE = b"POST /predictions/noop HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"POST /noop/predict?q=1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x=y\r\nc\r\n0\r\nT: 1\r\n\r\n"
UPGRADE = (
    b"POST /predictions/noop HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 1\r\n\r\nu"
)
OTHER = b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"
LARGE = b"POST /predictions/noop HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n" + b"z" * 1001
EXPECTED = {WHOLE: (200, b"hello"), CHUNKED: (200, b"abc"), UPGRADE: (200, b"u"), OTHER: (200, b"{"), LARGE: (413, b"")}


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    requests=st.lists(st.sampled_from(list(EXPECTED)), min_size=1, max_size=10),
    cuts=st.lists(st.integers(1, 300), max_size=30),
)
@example(
    requests=[OTHER, OTHER, WHOLE, WHOLE], cuts=[31, 97]
)  # half a body waits behind a request that is being served
async def test_however_a_stream_is_cut_the_answers_are_the_same_and_in_order(port, requests, cuts) -> None:
    port.service.reply = lambda request: InferenceResponse(request.parts[-1][2])
    client = await port.connect()
    stream = b"".join(requests)
    for cut in cuts:
        client.writer.write(stream[:cut])
        stream = stream[cut:]
        await asyncio.sleep(0)
    client.writer.write(stream)

    for request in requests:
        answer = await client.answer()
        status, begin = EXPECTED[request]
        assert (answer.status, answer.body[: max(len(begin), 1)]) == (status, begin)
    await client.close()
