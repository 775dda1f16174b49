import pytest

from mms.api.wire import Cors, Wire, checked, reason_phrase, too_large
from mms.errors import PredictionFailed
from mms.request import InferenceResponse


@pytest.mark.parametrize(
    ("status", "phrase"),
    [(200, "OK"), (210, "Partial Success"), (413, "Request Entity Too Large"), (422, "Unprocessable Entity"),
     (507, "Insufficient Storage"), (599, "Server Error (599)"), (499, "Client Error (499)")],
)  # fmt: skip
def test_reason_phrases_are_those_of_the_original(status: int, phrase: str) -> None:
    assert reason_phrase(status) == phrase


def test_a_prediction_has_an_empty_phrase_and_no_content_type() -> None:
    head, _, body = Wire().answer(200, "", "id-1", None, b"OK", close=False).partition(b"\r\n\r\n")

    assert head.split(b"\r\n") == [
        b"HTTP/1.1 200 ",
        b"x-request-id: id-1",
        b"Pragma: no-cache",
        b"Cache-Control: no-cache; no-store, must-revalidate, private",
        b"Expires: Thu, 01 Jan 1970 00:00:00 UTC",
        b"connection: keep-alive",
        b"content-length: 2",
    ]
    assert body == b"OK"


def test_a_percent_sign_in_a_head_stays_one() -> None:
    answer = Wire().answer(200, "100% done", "id", "a/b; q=50%", b"%d", close=False, headers=[("x-p", "7%")])

    assert answer.startswith(b"HTTP/1.1 200 100% done\r\n")
    assert b"content-type: a/b; q=50%\r\n" in answer
    assert b"x-p: 7%\r\n" in answer
    assert answer.endswith(b"\r\n\r\n%d")


def test_a_handlers_own_cors_header_beats_the_configured_one() -> None:
    wire = Wire(Cors("https://a", "GET", ""))
    answer = wire.answer(200, "", "id", None, b"", close=False, headers=[("access-control-allow-ORIGIN", "https://b")])

    assert b"https://b" in answer
    assert b"https://a" not in answer
    assert b"Access-Control-Allow-Methods: GET\r\n" in answer
    assert b"Access-Control-Allow-Headers" not in answer


def test_templates_do_not_grow_without_end() -> None:
    wire = Wire()
    for number in range(2000):
        wire.answer(200, f"phrase {number}", "id", None, b"", close=False)

    assert len(wire._templates) <= 256


def test_too_large_says_nothing_but_that() -> None:
    assert too_large(close=False) == b"HTTP/1.1 413 Request Entity Too Large\r\ncontent-length: 0\r\n\r\n"
    assert too_large(close=True).endswith(b"content-length: 0\r\nconnection: close\r\n\r\n")


def test_the_servers_own_headers_beat_those_of_a_handler() -> None:
    mine = [("Cache-Control", "max-age=5"), ("x-request-id", "forged"), ("Content-Length", "7"), ("x-a", "1")]

    assert checked(InferenceResponse(b"", headers=mine)).headers == [("x-a", "1")]


def test_a_content_type_among_the_headers_counts_where_the_handler_set_no_other() -> None:
    headers = [("Content-Type", "text/plain")]

    assert checked(InferenceResponse(b"", headers=headers)).content_type == "text/plain"
    assert checked(InferenceResponse(b"", headers=headers, content_type="a/b")).content_type == "a/b"


@pytest.mark.parametrize(
    "response",
    [
        InferenceResponse(b"", headers=[("x-a", "1\r\nset-cookie: stolen")]),
        InferenceResponse(b"", headers=[("x a", "1")]),
        InferenceResponse(b"", headers=[("", "1")]),
        InferenceResponse(b"", reason="fine\r\nx: y"),
        InferenceResponse(b"", content_type="a/b\nx: y"),
        InferenceResponse(b"", status=101),
        InferenceResponse(b"", status=1000),
    ],
)
def test_an_answer_that_would_break_the_protocol_becomes_an_error(response: InferenceResponse) -> None:
    with pytest.raises(PredictionFailed) as caught:
        checked(response)

    assert caught.value.code == 500


def test_a_status_without_body_sends_none() -> None:
    assert checked(InferenceResponse(b"surprise", status=204)).body == b""


@pytest.mark.parametrize("origin", ["", "*", "https://%b.example/100%%d"])
@pytest.mark.parametrize("size", [0, 2, 1023, 1024, 70_000])
def test_the_plain_answer_is_the_one_that_the_long_way_gives(origin: str, size: int) -> None:
    wire = Wire(Cors(origin))
    body = b"x" * size
    assert wire.plain("an-id", body) == wire.answer(200, "", "an-id", None, body, False)
