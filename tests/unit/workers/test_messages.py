"""Requests and results: what goes in comes out, and a damaged frame does no harm."""

import socket
import struct
import threading

from hypothesis import given
from hypothesis import strategies as st

from mms.errors import BadInput, MmsError, PredictionFailed, ResponseTooLarge
from mms.request import HeaderList, InferenceRequest, InferenceResponse, Result
from mms.workers import frames, messages

short = st.binary(max_size=40)
names = st.text(max_size=10)
payloads = st.one_of(
    short, st.integers(8190, 8195).map(lambda size: bytes(range(256)) * (size // 256) + b"x" * (size % 256))
)
parts = st.tuples(names, names, payloads)
headers = st.lists(st.tuples(short, short), max_size=4)
requests = st.builds(
    InferenceRequest,
    names,
    st.just("m"),
    headers,
    st.lists(parts, max_size=3),
    st.just(0.0),
)
responses = st.builds(
    InferenceResponse,
    payloads,
    st.integers(100, 999),
    names,
    st.none() | names,
    st.lists(st.tuples(names, names), max_size=3),
)
errors = st.one_of(
    st.builds(PredictionFailed, names, st.integers(100, 999)),
    st.builds(BadInput, names),
    st.builds(ResponseTooLarge, names),
)


def flat(result: Result) -> tuple[object, ...]:
    if isinstance(result, bytes):
        return bytes, result
    if isinstance(result, MmsError):
        return type(result), result.message, getattr(result, "code", None)
    return result.body, result.status, result.reason, result.content_type, list(result.headers)


@given(st.lists(requests, min_size=1, max_size=5))
def test_a_batch_arrives_as_it_was_sent(batch: list[InferenceRequest]) -> None:
    frame = b"".join(messages.encode_batch(batch))
    assert frames.kind_of(frame) == frames.BATCH
    assert messages.requests_in(frame) == len(batch)
    arrived_as_sent(messages.decode_batch(frame), batch)


@given(st.lists(requests, min_size=1, max_size=20))
def test_calls_arrive_in_their_order_in_frames_of_any_number(batch: list[InferenceRequest]) -> None:
    sent = frames.FrameSplitter().feed(b"".join(messages.encode_calls(batch)))
    assert {frames.kind_of(frame) for frame in sent} == {frames.CALLS}
    assert [messages.requests_in(frame) for frame in sent] == [len(messages.decode_batch(frame)) for frame in sent]
    arrived_as_sent([request for frame in sent for request in messages.decode_batch(frame)], batch)


def test_a_call_with_much_to_read_does_not_wait_for_the_next_ones_bytes() -> None:
    large = [InferenceRequest("i", "m", [], [("body", "", bytes(50_000))], 0.0) for _ in range(5)]
    sent = frames.FrameSplitter().feed(b"".join(messages.encode_calls(large)))
    assert [messages.requests_in(frame) for frame in sent] == [2, 2, 1]


def test_a_head_that_is_sent_again_is_packed_once() -> None:
    headers = HeaderList([(b"Host", b"x")])
    first = b"".join(messages.encode_batch([InferenceRequest("i", "m", headers, [], 0.0)]))
    assert headers.packed is not None
    assert b"".join(messages.encode_batch([InferenceRequest("i", "m", headers, [], 0.0)])) == first
    assert messages.unpack_headers(messages.decode_batch(first)[0][1]) == [("Host", "x")]


def arrived_as_sent(received: list[messages.WireRequest], batch: list[InferenceRequest]) -> None:
    assert [(i, messages.unpack_headers(packed)) for i, packed, _ in received] == [
        (r.id, [(name.decode("latin-1"), value.decode("latin-1")) for name, value in r.headers]) for r in batch
    ]
    assert [[(name, kind, bytes(value)) for name, kind, value in parts] for _, _, parts in received] == [
        list(r.parts) for r in batch
    ]


@given(st.lists(payloads, max_size=6) | st.lists(payloads | responses | errors, max_size=6), st.binary(max_size=50))
def test_results_arrive_by_position(results: list[Result], metrics: bytes) -> None:
    received, lines = messages.decode_results(b"".join(messages.encode_results(results, metrics)))
    assert list(map(flat, received)) == list(map(flat, results))
    assert lines == metrics


@given(st.lists(payloads, min_size=1) | st.lists(payloads | responses | errors, min_size=1, max_size=3), st.data())
def test_a_damaged_results_frame_is_refused_or_read_but_never_out_of_bounds(
    results: list[Result], data: st.DataObject
) -> None:
    frame = bytearray(b"".join(messages.encode_results(results)))
    frame[data.draw(st.integers(9, len(frame) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        received, _ = messages.decode_results(bytes(frame))
    except (frames.FrameError, ValueError, TypeError, struct.error):
        return
    bodies = [r.body if isinstance(r, InferenceResponse) else r for r in received if not isinstance(r, MmsError)]
    assert sum(map(len, bodies)) <= len(frame)


def test_large_payloads_are_not_copied_into_the_frame() -> None:
    payload = b"p" * 200_000
    request = InferenceRequest("i", "m", [], [("body", "", payload)], 0.0)
    assert any(piece is payload for piece in messages.encode_batch([request]))
    body = b"b" * 200_000
    assert any(piece is body for piece in messages.encode_results([InferenceResponse(body)]))
    assert any(piece is body for piece in messages.encode_results([body, b"b"]))


def test_many_pieces_larger_than_the_socket_buffer_arrive_whole() -> None:
    ours, theirs = socket.socketpair()
    results: list[Result] = [InferenceResponse(bytes([i % 256]) * 9000) for i in range(1200)]
    writer = threading.Thread(
        target=lambda: (frames.write_all(theirs, messages.encode_results(results)), theirs.close())
    )
    writer.start()
    (frame,) = map(bytes, frames.read_frames(ours))
    writer.join()
    ours.close()
    received, _ = messages.decode_results(frame)
    assert list(map(flat, received)) == list(map(flat, results))
