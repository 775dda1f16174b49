"""Calls a model's handler, in the worker process: the contract between handlers and the server lives here.

Only what a worker may hold enters: standard library, orjson, the handler kit, errors and requests.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

from mms.context import Context, RequestProcessor, RequestProcessors
from mms.errors import BadInput, MmsError, PredictionFailed, ResponseTooLarge
from mms.metrics.dimension import Dimension
from mms.metrics.metric import Metric
from mms.metrics.metrics_store import MetricsStore
from mms.request import InferenceResponse, Result
from mms.service import PredictionException, Service
from mms.workers.messages import WireRequest, unpack_headers
from mms.workers.payloads import decode_part, encode_output

logger = logging.getLogger(__name__)

_NO_METRICS = b""


def _properties(request: WireRequest) -> dict[str, Any]:
    """What a handler may ask of a request: a mapping for each parameter, and its headers."""
    _, headers, parts = request
    properties: dict[str, Any] = {name: {"content-type": kind} for name, kind, _ in parts}
    properties.update(unpack_headers(headers))
    return properties


class _TimeLine:
    """The metric line of a call's duration, put together from pieces: it is written for every call."""

    def __init__(self, model_name: str) -> None:
        dimensions = [Dimension("ModelName", model_name), Dimension("Level", "Model")]
        line = Metric("PredictionTime", "\0", "ms", dimensions, "\1").record()
        self._before, rest = line.split("\0")
        self._between, rest = rest.split("\1")
        self._after = rest.rstrip("0123456789")

    def of(self, milliseconds: float, ids: str) -> str:
        """The line, with its newline; `ids` are the requests', joined by commas."""
        return f"{self._before}{milliseconds}{self._between}{ids}{self._after}{int(time.time())}\n"


class Model:
    """A loaded handler with the rules around its call; `predict` never raises for what a handler or a client does wrong."""

    def __init__(self, service: Service, *, decode: bool, max_response_size: int) -> None:
        self._service = service
        self._context: Context = service.context
        self._decode = decode
        self._max_response_size = max_response_size
        self._time_line = _TimeLine(self._context.model_name)

    def configure(self, batch_size: int, max_response_size: int) -> None:
        """Take over live settings."""
        self._context.system_properties["batch_size"] = batch_size
        self._max_response_size = max_response_size

    def predict(self, requests: Sequence[WireRequest]) -> tuple[list[Result], bytes]:
        """One result a request, by position, and the metric lines that the call left behind."""
        try:
            inputs = [self._input(request) for request in requests]
        except BadInput as error:
            return ([error], _NO_METRICS) if len(requests) == 1 else self._predict_good(requests)
        results, metrics = self._call(inputs, requests)
        return (results, metrics) if results is not None else self._predict_each(requests)

    def _predict_good(self, requests: Sequence[WireRequest]) -> tuple[list[Result], bytes]:
        """As `predict`, of requests some of which cannot be read: those are refused, the others make the call."""
        results: dict[int, Result] = {}
        good: dict[int, WireRequest] = {}
        for place, request in enumerate(requests):
            try:
                self._input(request)
            except BadInput as error:
                results[place] = error
            else:
                good[place] = request
        metrics = _NO_METRICS
        if good:
            answers, metrics = self.predict(list(good.values()))
            results.update(zip(good, answers, strict=True))
        return [results[place] for place in range(len(requests))], metrics

    def _predict_each(self, requests: Sequence[WireRequest]) -> tuple[list[Result], bytes]:
        """One more try for each request of a call on which the handler raised, so that one bad request fails alone."""
        answers, metrics = [], []
        for request in requests:
            # Decoded again: the first call may have changed what it was given.
            results, lines = self.predict((request,))
            answers += results
            metrics.append(lines)
        return answers, b"".join(metrics)

    def _input(self, request: WireRequest) -> dict[str, Any]:
        values: dict[str, Any] = {}
        if self._decode:
            for name, content_type, value in request[2]:
                values[name] = decode_part(name, content_type, value)
        else:
            for name, _, value in request[2]:
                values[name] = bytearray(value)
        return values

    def _call(self, inputs: list[dict[str, Any]], requests: Sequence[WireRequest]) -> tuple[list[Result] | None, bytes]:
        """Results of one call, or None where the handler raised on a batch of several and the items are to be tried alone."""
        count = len(inputs)
        context = self._context
        ids = [request[0] for request in requests]
        context.request_ids = dict(enumerate(ids))
        context.request_processor = processors = RequestProcessors(requests, _properties)
        context.metrics = store = MetricsStore(context.request_ids, context.model_name)
        started = time.perf_counter()
        try:
            output = self._service.entry_point(inputs, context)
        except PredictionException as error:
            logger.error("Prediction error", exc_info=True)
            return [PredictionFailed(str(error.message), _status(error.error_code, 500))] * count, _lines(store)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            logger.warning("Invoking the handler failed.", exc_info=True)
            if count > 1:
                return None, _NO_METRICS
            if isinstance(error, MemoryError):
                return [PredictionFailed("Out of resources", 507)], _lines(store)
            return [PredictionFailed("Prediction failed", 503)], _lines(store)
        milliseconds = round((time.perf_counter() - started) * 1000, 2)
        failure = self._wrong_output(output, count)
        if failure is not None:
            return [failure] * count, _lines(store)
        results = self._results(output, processors)
        line = self._time_line.of(milliseconds, ",".join(ids))
        return results, _lines(store, line)

    def _wrong_output(self, output: Any, count: int) -> PredictionFailed | None:
        name = self._context.model_name
        if not isinstance(output, list):
            logger.warning("model: %s, the handler returned %s instead of a list.", name, type(output).__name__)
            return PredictionFailed("Invalid model predict output", 503)
        if len(output) != count:
            logger.warning("model: %s, the handler answered %d of %d requests.", name, len(output), count)
            return PredictionFailed("number of batch response mismatched", 503)
        return None

    def _results(self, output: list[Any], processors: RequestProcessors) -> list[Result]:
        if not processors.untouched:
            return [self._result(value, processor) for value, processor in zip(output, processors, strict=True)]
        most = self._max_response_size
        return [value if type(value) is bytes and len(value) <= most else self._result(value, None) for value in output]

    def _result(self, value: Any, processor: RequestProcessor | None) -> Result:
        """One item's result; `processor` None where nobody has asked for it, so that it says nothing."""
        if isinstance(value, MmsError):  # the built-in handler refuses single requests this way
            return value
        try:
            body = encode_output(value)
        except (TypeError, ValueError, RecursionError):
            logger.warning("An item of the handler's answer cannot be written as JSON.", exc_info=True)
            return PredictionFailed("Unsupported model output data type.", 503)
        if len(body) > self._max_response_size:
            return ResponseTooLarge(
                f"The response of {len(body)} bytes exceeds the max_response_size of {self._max_response_size} bytes."
            )
        if processor is None or processor.answered_plainly:
            return body
        headers = dict(processor.get_response_headers())
        content_type = headers.pop("content-type", None)
        return InferenceResponse(
            body,
            _status(processor.get_response_status_code(), 200),
            str(processor.get_response_status_phrase() or ""),
            None if content_type is None else str(content_type),
            [(str(name), str(content)) for name, content in headers.items()],
        )


def _status(code: Any, otherwise: int) -> int:
    """A status as HTTP can carry it."""
    try:
        number = int(code)
    except (TypeError, ValueError):
        return otherwise
    return number if 100 <= number <= 999 else otherwise


def _lines(store: MetricsStore, last: str = "") -> bytes:
    own = "".join([f"{metric.record()}\n" for metric in store.store]) if store.store else ""
    return f"{own}{last}".encode("utf-8", "replace")
