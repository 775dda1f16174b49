"""A client that repeats its head word for word is not parsed again; nobody may notice but by the time it takes."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mms.api.head import KnownHead, RequestHead
from mms.api.routes import PredictionRoute
from mms.request import InferenceResponse
from tests.unit.api.conftest import LIMITS


def whole(body: bytes, *, model: bytes = b"noop", extra: bytes = b"") -> bytes:
    length = str(len(body)).encode()
    return (
        b"POST /predictions/"
        + model
        + b" HTTP/1.1\r\nHost: x\r\n"
        + extra
        + b"Content-Length: "
        + length
        + b"\r\n\r\n"
        + body
    )


BY_PATH = PredictionRoute("noop", True)


def known(
    raw: bytes,
    *,
    length: int = 0,
    extra: tuple[bytes, bytes] | None = None,
    method: bytes = b"POST",
    url: bytes = b"/predictions/noop",
    route: PredictionRoute = BY_PATH,
    keep_alive: bool = True,
) -> KnownHead | None:
    headers = [(b"Host", b"x"), (b"Content-Length", str(length).encode()), *([extra] if extra else [])]
    head = RequestHead(method, url, "1.1", headers, keep_alive)
    return KnownHead.learnt(head, route, raw, b"")


def test_a_head_is_learnt_from_one_whole_request_and_nothing_else() -> None:
    one = whole(b"abc")
    assert known(one, length=3) is not None
    assert known(one + b"POST", length=3) is None
    assert known(one[:-1], length=3) is None
    assert known(whole(b"abc", extra=b"X: " + b"y" * 3000 + b"\r\n"), length=3) is None


@pytest.mark.parametrize(
    "extra", [(b"Transfer-Encoding", b"chunked"), (b"upgrade", b"h2c"), (b"Expect", b"100-continue")]
)
def test_what_changes_the_framing_is_never_learnt(extra: tuple[bytes, bytes]) -> None:
    assert known(whole(b"abc"), length=3, extra=extra) is None


def test_what_asks_for_more_than_the_shortest_answer_is_never_learnt() -> None:
    one = whole(b"abc")
    assert known(one, length=3, method=b"HEAD") is None
    assert known(one, length=3, keep_alive=False) is None
    assert known(one, length=3, route=PredictionRoute(None, True)) is None
    assert known(one, length=3, url=b"/predictions/noop?a=1") is None
    assert known(one, length=3, extra=(b"Content-Type", b"multipart/form-data; boundary=x")) is None


REQUESTS = {
    whole(b"abc"): (200, b"abc"),
    whole(b"xyz"): (200, b"xyz"),
    whole(b"abc", extra=b"X: 1\r\n"): (200, b"abc"),
    whole(b"abc", extra=b"X: 2\r\n"): (200, b"abc"),
    whole(b""): (200, b""),
    whole(b"0123456789!", model=b"small"): (413, b""),
    whole(b"POST /", model=b"small"): (200, b"POST /"),
    whole(b"abc", extra=b"Expect: 100-continue\r\n"): (200, b"abc"),
}


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    flights=st.lists(st.lists(st.sampled_from(list(REQUESTS)), min_size=1, max_size=3), min_size=1, max_size=12),
    cut=st.integers(0, 80),
)
async def test_requests_of_one_connection_are_answered_as_if_each_were_parsed(port, flights, cut) -> None:
    port.service.reply = lambda request: InferenceResponse(request.parts[-1][2])
    client = await port.connect()
    for number, flight in enumerate(flights):
        stream = b"".join(flight)
        await client.send(stream[:cut] if number % 2 else stream)
        if number % 2:
            await client.send(stream[cut:])
        for request in flight:
            answer = await client.answer()
            if answer.status == 100:
                answer = await client.answer()
            assert (answer.status, answer.body) == REQUESTS[request]
    await client.close()


async def test_a_repeated_head_is_logged_and_identified_like_any_other(port) -> None:
    client = await port.connect()
    ids = set()
    for body in (b"abc", b"def", b"ghi"):
        await client.send(whole(body))
        ids.add((await client.answer()).headers["x-request-id"])
    assert len(ids) == 3
    assert [request.parts[0][2] for request in port.service.requests] == [b"abc", b"def", b"ghi"]
    assert len([line for line in port.access_log.lines if '"POST /predictions/noop HTTP/1.1" 200' in line]) == 3


async def test_the_limit_of_today_holds_for_a_head_of_yesterday(port, monkeypatch) -> None:
    client = await port.connect()
    await client.send(whole(b"abc"))
    assert (await client.answer()).status == 200
    monkeypatch.setitem(LIMITS, "noop", 2)
    await client.send(whole(b"abc"))
    assert (await client.answer()).status == 413


async def test_a_large_body_behind_a_known_head_arrives_whole(port, monkeypatch) -> None:
    monkeypatch.setitem(LIMITS, "noop", 1_000_000)
    port.service.reply = lambda request: InferenceResponse(bytes(request.parts[-1][2]))
    client = await port.connect()
    for size in (40_000, 40_000, 40_000, 32_000, 32_000, 110_592, 110_592, 110_592):
        body = bytes(range(256)) * (size // 256)
        await client.send(whole(body))
        answer = await client.answer()
        assert (answer.status, answer.body) == (200, body)
