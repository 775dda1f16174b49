"""What frames of requests and of results hold; both sides, server and worker, import this.

Requests come in a BATCH frame where one handler call takes them all, in a CALLS frame where each has its own; the answers to
a CALLS frame may come in several RESULTS frames, or BODIES frames where each is nothing but a body. Metadata of requests
travels as one marshalled list (both ends are the same interpreter), large payloads follow it as they are and are never
joined; results come back as a table of fixed rows and then their bytes, read without trusting the worker.
"""

from __future__ import annotations

import marshal
import struct
from array import array
from collections.abc import Sequence
from typing import Any, cast

import orjson

from mms.errors import BadInput, MmsError, PredictionFailed, ResponseTooLarge
from mms.request import Header, HeaderList, InferenceRequest, InferenceResponse, Part, Result
from mms.workers.frames import BATCH, BODIES, CALLS, JOINED, RESULTS, Buffers, FrameError

_BATCH = struct.Struct("<QBII")  # length, kind, requests, bytes of metadata
_RESULTS = struct.Struct("<QBII")  # length, kind, rows, bytes of metric lines; of BODIES as well
_ROW = struct.Struct("<BHHHII")  # kind, status, lengths of reason, content type, headers, body
_LENGTH = "I"  # of one body in the table of a BODIES frame
_RESPONSE, _PREDICTION_FAILED, _TOO_LARGE, _BAD_INPUT, _BODY = range(5)
_NO_CONTENT_TYPE = 0xFFFF
_INLINE = 8192  # a payload up to this many bytes is cheaper copied into the metadata than written on its own
_MARSHAL_VERSION = 2  # later versions track references, which costs more than it saves here


WireRequest = tuple[str, bytes, Sequence[Part]]
"""One request as the worker sees it: id, headers and parts; the headers stay packed until the handler asks for them."""


# --- a batch, server to worker ----------------------------------------------------------------------------------------


def encode_batch(requests: Sequence[InferenceRequest], kind: int = BATCH) -> Buffers:
    """One frame for `requests`, as pieces to be written in order; payloads above 8 KiB are the callers' own objects, not copies."""
    tail: Buffers = []
    rows = []
    for request in requests:
        headers = request.headers
        packed = headers.packed if type(headers) is HeaderList else None
        parts: Sequence[Any] = request.parts
        for part in parts:
            if len(part[2]) > _INLINE:
                parts = [_apart(part, tail) for part in parts]
                break
        rows.append((request.id, _packed(headers) if packed is None else packed, parts))
    size = sum(map(len, tail))
    metadata = marshal.dumps(rows, _MARSHAL_VERSION)
    length = _BATCH.size + len(metadata)
    head = _BATCH.pack(length + size, kind, len(rows), len(metadata)) + metadata
    if not tail:
        return [head]
    if length + size <= JOINED:
        return [b"".join((head, *tail))]
    return [head, *tail]


def _apart(part: Part, tail: Buffers) -> tuple[str, str, bytes | memoryview | int]:
    """The part with its value, or with the length of a large one, which goes into `tail`."""
    name, content_type, value = part
    if len(value) <= _INLINE:
        return part
    tail.append(value)
    return name, content_type, len(value)


def encode_calls(requests: Sequence[InferenceRequest]) -> Buffers:
    """Frames for `requests` that have a handler call each: one for small ones, several where much has to arrive before the first."""
    if len(requests) == 1:
        return encode_batch(requests, CALLS)
    buffers: Buffers = []
    first = size = 0
    for index, request in enumerate(requests):
        size += sum([len(value) for _, _, value in request.parts])
        if size > JOINED:
            buffers += encode_batch(requests[first : index + 1], CALLS)
            first, size = index + 1, 0
    if first < len(requests):
        buffers += encode_batch(requests[first:], CALLS)
    return buffers


def _packed(headers: Sequence[Header]) -> bytes:
    packed = marshal.dumps(list(headers), _MARSHAL_VERSION) if headers else b""
    if type(headers) is HeaderList:
        headers.packed = packed
    return packed


def requests_in(frame: bytes | memoryview) -> int:
    """How many requests a BATCH or CALLS frame holds."""
    count: int = _BATCH.unpack_from(frame)[2]
    return count


def decode_batch(frame: bytes | memoryview) -> list[WireRequest]:
    """The requests of a BATCH or CALLS frame; large payloads are views of it, not copies."""
    _, _, _, length = _BATCH.unpack_from(frame)
    position = _BATCH.size + length
    view = memoryview(frame)
    requests: list[tuple[str, bytes, list[Any]]] = marshal.loads(view[_BATCH.size : position])
    if position < len(frame):
        for _, _, parts in requests:
            for index, (name, content_type, value) in enumerate(parts):
                if type(value) is int:
                    parts[index] = (name, content_type, view[position : position + value])
                    position += value
    return cast(list[WireRequest], requests)


def unpack_headers(packed: bytes) -> list[tuple[str, str]]:
    """Request headers in arrival order, as text."""
    if not packed:
        return []
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in marshal.loads(packed)]


# --- results, worker to server ----------------------------------------------------------------------------------------


def encode_results(results: Sequence[Result], metrics: bytes = b"") -> Buffers:
    """One frame with a result for each request, by position, and finished metric lines (each ends in a newline)."""
    bodies = [result for result in results if type(result) is bytes]
    if len(bodies) == len(results):
        return _encode_bodies(bodies, metrics)
    rows: Buffers = []
    tail: Buffers = []
    for result in results:
        if type(result) is bytes:
            rows.append(_ROW.pack(_BODY, 200, 0, 0, 0, len(result)))
            tail.append(result)
        elif isinstance(result, InferenceResponse):
            reason = result.reason.encode() if result.reason else b""
            content_type = result.content_type
            kind_bytes = b"" if content_type is None else content_type.encode()
            headers = orjson.dumps(result.headers) if result.headers else b""
            body = result.body
            rows.append(
                _ROW.pack(
                    _RESPONSE,
                    result.status,
                    len(reason),
                    _NO_CONTENT_TYPE if content_type is None else len(kind_bytes),
                    len(headers),
                    len(body),
                )
            )
            tail += (reason, kind_bytes, headers, body)
        else:
            kind, status, message = _error_row(result)
            rows.append(_ROW.pack(kind, status, 0, 0, 0, len(message)))
            tail.append(message)
    size = _RESULTS.size + len(rows) * _ROW.size + len(metrics) + sum(map(len, tail))
    head = b"".join((_RESULTS.pack(size, RESULTS, len(rows), len(metrics)), *rows, metrics))
    if size <= JOINED:
        return [b"".join((head, *tail))]
    return [head, *(piece for piece in tail if piece)]


def _encode_bodies(bodies: list[bytes], metrics: bytes) -> Buffers:
    table = array(_LENGTH, map(len, bodies))
    size = _RESULTS.size + len(bodies) * table.itemsize + len(metrics) + sum(table)
    head = _RESULTS.pack(size, BODIES, len(bodies), len(metrics))
    if size <= JOINED:
        return [b"".join((head, table, metrics, *bodies))]
    return [b"".join((head, table, metrics)), *(body for body in bodies if body)]


def _error_row(error: Any) -> tuple[int, int, bytes]:
    message = error.message.encode("utf-8", "replace")
    if isinstance(error, BadInput):
        return _BAD_INPUT, 400, message
    if isinstance(error, ResponseTooLarge):
        return _TOO_LARGE, 0, message
    return _PREDICTION_FAILED, getattr(error, "code", 503), message


def decode_results(frame: bytes) -> tuple[list[Result], bytes]:
    """Results by position and the metric lines of a RESULTS or BODIES frame; raises FrameError where lengths do not add up."""
    _, frame_kind, count, metrics_length = _RESULTS.unpack_from(frame)
    if frame_kind == BODIES:
        return _decode_bodies(frame, count, metrics_length)
    table_end = _RESULTS.size + count * _ROW.size
    position = table_end + metrics_length
    results: list[Result] = []
    if position > len(frame):
        raise FrameError("A results frame is shorter than its table.")
    for kind, status, reason, content_type, headers, body in _ROW.iter_unpack(frame[_RESULTS.size : table_end]):
        if kind == _BODY:
            results.append(frame[position : position + body])
            position += body
        elif kind != _RESPONSE:
            results.append(_error(kind, status, frame[position : position + body].decode("utf-8", "replace")))
            position += body
        else:
            position = _full_response(frame, position, results, status, reason, content_type, headers, body)
    if position != len(frame):
        raise FrameError("A results frame has another length than its table says.")
    return results, frame[table_end : table_end + metrics_length]


def _decode_bodies(frame: bytes, count: int, metrics_length: int) -> tuple[list[Result], bytes]:
    table = array(_LENGTH)
    table_end = _RESULTS.size + count * table.itemsize
    position = table_end + metrics_length
    if position > len(frame):
        raise FrameError("A results frame is shorter than its table.")
    table.frombytes(frame[_RESULTS.size : table_end])
    results: list[Result] = []
    for length in table:
        results.append(frame[position : position + length])
        position += length
    if position != len(frame):
        raise FrameError("A results frame has another length than its table says.")
    return results, frame[table_end : table_end + metrics_length]


def _full_response(
    frame: bytes,
    position: int,
    results: list[Result],
    status: int,
    reason: int,
    content_type: int,
    headers: int,
    body: int,
) -> int:
    phrase = frame[position : position + reason].decode("utf-8", "replace")
    position += reason
    kind = None
    if content_type != _NO_CONTENT_TYPE:
        kind = frame[position : position + content_type].decode("utf-8", "replace")
        position += content_type
    pairs = [(name, value) for name, value in orjson.loads(frame[position : position + headers])] if headers else ()
    position += headers
    results.append(InferenceResponse(frame[position : position + body], status, phrase, kind, pairs))
    return position + body


def _error(kind: int, status: int, message: str) -> MmsError:
    if kind == _BAD_INPUT:
        return BadInput(message)
    if kind == _TOO_LARGE:
        return ResponseTooLarge(message)
    if kind == _PREDICTION_FAILED:
        return PredictionFailed(message, status)
    raise FrameError(f"A results frame has a row of unknown kind {kind}.")
