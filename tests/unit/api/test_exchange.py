"""Predictions on the direct path, over real connections."""

import asyncio
import json
import re

import pytest

from mms.errors import NoWorkerAvailable, PredictionFailed
from mms.request import InferenceRequest, InferenceResponse, Result

UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


async def test_a_prediction_is_answered_as_by_the_original(client, port) -> None:
    answer = await client.ask("POST", "/predictions/noop", b"hello", Content_Type="text/plain; charset=utf-8")

    assert (answer.status, answer.reason, answer.body) == (200, "", b"OK")
    assert UUID4.fullmatch(answer.headers.pop("x-request-id"))
    assert answer.headers == {
        "pragma": "no-cache",
        "cache-control": "no-cache; no-store, must-revalidate, private",
        "expires": "Thu, 01 Jan 1970 00:00:00 UTC",
        "connection": "keep-alive",
        "content-length": "2",
    }
    request = port.service.requests[0]
    assert list(request.parts) == [("body", "text/plain", b"hello")]


async def test_headers_reach_the_handler_in_their_own_case_and_order(client, port) -> None:
    await client.ask("POST", "/predictions/noop", b"x", X_One="1", x_one="2")

    assert port.service.requests[0].headers == [
        (b"Host", b"test"),
        (b"Content-Length", b"1"),
        (b"X-One", b"1"),
        (b"x-one", b"2"),
    ]


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH"])
async def test_any_method_predicts(client, method: str) -> None:
    assert (await client.ask(method, "/predictions/noop")).body == b"OK"


@pytest.mark.parametrize(
    ("target", "names"),
    [
        ("/predictions/noop?q=1", ["body"]),
        ("/invocations?model_name=noop&q=1", ["model_name", "q", "body"]),
        ("/models/noop/invoke?q=1", ["q", "body"]),
        ("/noop/predict?q=1", ["q", "body"]),
        ("http://test/noop/predict?q=1", ["q", "body"]),
    ],
)
async def test_query_parameters_reach_the_handler_where_the_original_passes_them(
    client, port, target: str, names: list[str]
) -> None:
    assert (await client.ask("POST", target, b"x")).status == 200
    assert [name for name, _, _ in port.service.requests[0].parts] == names


@pytest.mark.parametrize("target", ["/invocations", "/invocations?model_name=", "/models//invoke"])
async def test_the_one_startup_model_answers_where_none_is_named(client, port, target: str) -> None:
    port.service.startup = "noop"

    assert (await client.ask("POST", target)).status == 200


@pytest.mark.parametrize(
    ("target", "status", "message"),
    [
        ("/invocations", 400, "Parameter model_name is required."),
        ("/invocations?model_name=", 404, "Model not found: "),
        ("/predictions/nobody", 404, "Model not found: nobody"),
    ],
)
async def test_without_a_model_there_is_an_error_and_the_connection_ends(
    client, target: str, status: int, message: str
) -> None:
    answer = await client.ask("POST", target, b"x")

    assert (answer.status, json.loads(answer.body)["message"]) == (status, message)
    assert answer.headers["connection"] == "close"
    assert answer.headers["content-type"] == "application/json"
    assert await client.closed()


async def test_an_answer_carries_what_the_handler_set(client, port) -> None:
    def reply(request: InferenceRequest) -> Result:
        return InferenceResponse(b"1,2", 201, "Made", "text/csv", [("x-a", "one"), ("Pragma", "mine")])

    port.service.reply = reply
    answer = await client.ask("POST", "/predictions/noop", b"x")

    assert (answer.status, answer.reason, answer.body) == (201, "Made", b"1,2")
    assert (answer.headers["content-type"], answer.headers["x-a"]) == ("text/csv", "one")
    assert answer.headers["pragma"] == "no-cache"


async def test_a_handlers_own_error_status_ends_the_connection(client, port) -> None:
    port.service.reply = lambda request: InferenceResponse(b"short", 418, "I am a teapot")
    answer = await client.ask("POST", "/predictions/noop", b"x")

    assert (answer.status, answer.reason, answer.headers["connection"]) == (418, "I am a teapot", "close")
    assert await client.closed()


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (PredictionFailed("odd", 599), 599, "Server Error (599)"),
        (PredictionFailed("Out of resources", 507), 507, "Insufficient Storage"),
        (NoWorkerAvailable("full"), 503, "Service Unavailable"),
    ],
)
async def test_an_error_is_told_with_its_status_and_phrase(client, port, error, status: int, reason: str) -> None:
    port.service.reply = lambda request: error
    answer = await client.ask("POST", "/predictions/noop", b"x")

    assert (answer.status, answer.reason) == (status, reason)
    assert json.loads(answer.body)["message"] == error.message


async def test_an_answer_that_would_split_the_response_is_an_error_instead(client, port) -> None:
    port.service.reply = lambda request: InferenceResponse(b"", headers=[("x-a", "1\r\nx-b: 2")])
    answer = await client.ask("POST", "/predictions/noop", b"x")

    assert answer.status == 500
    assert "x-b" not in answer.headers


async def test_a_bug_in_front_of_the_model_is_an_internal_error_and_no_hanging_client(client, port) -> None:
    def broken(request: InferenceRequest) -> None:
        raise RuntimeError("no")

    port.service.predict = broken

    assert (await client.ask("POST", "/predictions/noop", b"x")).status == 500


async def test_a_large_answer_arrives_whole(client, port) -> None:
    port.service.reply = lambda request: InferenceResponse(b"z" * 3_000_000)

    assert (await client.ask("POST", "/predictions/noop", b"x")).body == b"z" * 3_000_000


async def test_head_gets_the_head_only(client) -> None:
    answer = await client.ask("HEAD", "/predictions/noop")

    assert (answer.status, answer.headers["content-length"]) == (200, "2")
    assert (await client.ask("GET", "/predictions/noop")).body == b"OK"


async def test_a_chunked_body_is_put_together(client, port) -> None:
    head = b"POST /predictions/noop HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    for piece in (head, b"3\r\nabc\r\n2\r\n", b"de\r\n0\r\nX-Trailer: t\r\n\r\n"):
        await client.send(piece)
        await asyncio.sleep(0)

    assert (await client.answer()).status == 200
    assert port.service.requests[0].parts[0][2] == b"abcde"
    assert (b"X-Trailer", b"t") not in port.service.requests[0].headers


async def test_a_client_that_waits_for_leave_gets_it(client, port) -> None:
    await client.send(
        b"POST /predictions/noop HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    )
    async with asyncio.timeout(5):
        assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    await client.send(b"hi")

    assert (await client.answer()).status == 200


async def test_pipelined_requests_are_answered_in_order_whoever_is_slow(client, port) -> None:
    one = b"POST /predictions/slow HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    two = b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"
    three = b"POST /predictions/noop HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx"
    await client.send(one + two + three)
    async with asyncio.timeout(5):
        await port.service.arrived.wait()
    port.service.release(b"slept")

    assert (await client.answer()).body == b"slept"
    assert b"Healthy" in (await client.answer()).body
    assert (await client.answer()).body == b"OK"


async def test_many_pipelined_predictions_need_no_deep_stack(client) -> None:
    one = b"POST /predictions/noop HTTP/1.1\r\nHost: x\r\nContent-Length: 2000\r\n\r\n" + b"x" * 2000
    await client.send(one * 400)

    assert [(await client.answer()).status for _ in range(400)] == [413] * 400


async def test_a_client_that_has_gone_cancels_its_request(client, port) -> None:
    await client.send(b"POST /predictions/slow HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
    async with asyncio.timeout(5):
        await port.service.arrived.wait()
    await client.close()
    async with asyncio.timeout(5):
        await port.site.closed.wait()

    assert port.service.held[0].cancelled
    port.service.release()  # comes to nobody, and breaks nothing


async def test_each_answer_is_in_the_access_log(client, port) -> None:
    await client.ask("POST", "/predictions/noop?q=1", b"x")
    await client.ask("GET", "/nowhere")

    first, second = port.access_log.lines
    assert re.search(r'- /127\.0\.0\.1:\d+ "POST /predictions/noop\?q=1 HTTP/1\.1" 200 \d+$', first)
    assert '"GET /nowhere HTTP/1.1" 404' in second
    assert (port.site.request_log.counts[2], port.site.request_log.counts[4]) == (1, 1)
