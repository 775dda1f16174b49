"""What a handler learns of its model and its requests, and what it may say of its answers; part of the handler kit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, overload

from mms.metrics.metrics_store import MetricsStore


class RequestProcessor:
    """Headers of one request, and status and headers of its answer.

    `request_header` is a mapping, or a function that makes it when the handler first asks.
    """

    # On the class, since one is made for each request and few handlers set anything.
    _response_header: dict[str, str] | None = None
    _code = 200
    _phrase: str | None = None

    def __init__(self, request_header: Mapping[str, Any] | Callable[[], Mapping[str, Any]]) -> None:
        self._request_header = request_header

    def get_request_properties(self) -> Mapping[str, Any]:
        """Every header of the request, and for each parameter a mapping with its content type."""
        header = self._request_header
        if callable(header):
            header = self._request_header = header()
        return header

    def get_request_property(self, key: str) -> Any:
        """One header of the request, its name as the client wrote it; None if there is none."""
        return self.get_request_properties().get(key)

    def report_status(self, code: int, reason_phrase: str | None = None) -> None:
        """Set the status of the answer."""
        self._code = code
        self._phrase = reason_phrase

    def get_response_status_code(self) -> int:
        """Status of the answer, 200 unless set."""
        return self._code

    def get_response_status_phrase(self) -> str | None:
        """Reason phrase of the answer, None unless set."""
        return self._phrase

    def add_response_property(self, key: str, value: str) -> None:
        """Set one header of the answer; the last value wins."""
        if self._response_header is None:
            self._response_header = {}
        self._response_header[key] = value

    def get_response_headers(self) -> dict[str, str]:
        """Headers of the answer."""
        if self._response_header is None:
            self._response_header = {}
        return self._response_header

    def get_response_header(self, key: str | None = None) -> Any:
        """One header of the answer, or all of them where no name is given."""
        headers = self.get_response_headers()
        return headers if key is None else headers.get(key)

    @property
    def answered_plainly(self) -> bool:
        """True where the handler set neither status nor headers."""
        return self._response_header is None and self._code == 200 and not self._phrase


class RequestProcessors(Sequence[RequestProcessor]):
    """The processors of one call's requests, each made when the handler first asks for it: few handlers ever do.

    `requests` are whatever `header_of` makes a request's headers of. `untouched` stays True until a processor is asked for.
    """

    __slots__ = ("_header_of", "_made", "_requests")

    def __init__(self, requests: Sequence[Any], header_of: Callable[[Any], Mapping[str, Any]]) -> None:
        self._requests = requests
        self._header_of = header_of
        self._made: list[RequestProcessor] | None = None

    @property
    def untouched(self) -> bool:
        """Whether every answer is still as plain as can be."""
        return self._made is None

    def _all(self) -> list[RequestProcessor]:
        if self._made is None:
            self._made = [RequestProcessor(partial(self._header_of, request)) for request in self._requests]
        return self._made

    @overload
    def __getitem__(self, index: int) -> RequestProcessor: ...
    @overload
    def __getitem__(self, index: slice) -> list[RequestProcessor]: ...
    def __getitem__(self, index: int | slice) -> RequestProcessor | list[RequestProcessor]:
        """As of a list."""
        return self._all()[index]

    def __iter__(self) -> Iterator[RequestProcessor]:
        """As of a list."""
        return iter(self._all())

    def __len__(self) -> int:
        """How many requests the call has."""
        return len(self._requests)


class Context:
    """One for each loaded model; its request fields are set anew for each call of the handler."""

    def __init__(
        self,
        model_name: str,
        model_dir: str,
        manifest: Mapping[str, Any] | None,
        batch_size: int,
        gpu: int | None,
        mms_version: str,
    ) -> None:
        self.model_name = model_name
        self.manifest = manifest
        self._system_properties: dict[str, Any] = {
            "model_dir": model_dir,
            "gpu_id": gpu,
            "batch_size": batch_size,
            "server_name": "MMS",
            "server_version": mms_version,
        }
        self.request_ids: dict[int, str] | None = None
        self.request_processor: Sequence[RequestProcessor] | None = None
        self.metrics: MetricsStore | None = None

    @property
    def system_properties(self) -> dict[str, Any]:
        """`model_dir`, `gpu_id` (None on a CPU), `batch_size`, `server_name`, `server_version`."""
        return self._system_properties

    def _processor(self, idx: int) -> RequestProcessor:
        if self.request_processor is None:
            raise ValueError("There is no request while the model is being loaded.")
        return self.request_processor[idx]

    def get_request_id(self, idx: int = 0) -> str | None:
        """Id of the request at `idx` in the batch."""
        return None if self.request_ids is None else self.request_ids.get(idx)

    def get_request_header(self, idx: int, key: str) -> Any:
        """One header of a request, its name as the client wrote it; None if there is none."""
        return self._processor(idx).get_request_property(key)

    def get_all_request_header(self, idx: int) -> Mapping[str, Any]:
        """Every header of a request."""
        return self._processor(idx).get_request_properties()

    def set_response_content_type(self, idx: int, value: str) -> None:
        """Content type of one answer; without it the answer has none."""
        self.set_response_header(idx, "content-type", value)

    def get_response_content_type(self, idx: int) -> str | None:
        """Content type of one answer as set so far."""
        value = self._processor(idx).get_response_header("content-type")
        return None if value is None else str(value)

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        """Status and reason phrase of one answer; without effect while the model is being loaded."""
        if self.request_processor is not None:
            self.request_processor[idx].report_status(code, phrase)

    def set_all_response_status(self, code: int = 200, phrase: str = "") -> None:
        """Status and reason phrase of every answer of the batch."""
        for processor in self.request_processor or ():
            processor.report_status(code, phrase)

    def get_response_status(self, idx: int) -> tuple[int, str | None]:
        """Status and reason phrase of one answer as set so far."""
        processor = self._processor(idx)
        return processor.get_response_status_code(), processor.get_response_status_phrase()

    def set_response_header(self, idx: int, key: str, value: str) -> None:
        """One header of one answer; the last value wins."""
        self._processor(idx).add_response_property(key, value)

    def get_response_headers(self, idx: int) -> dict[str, str]:
        """Headers of one answer as set so far."""
        return self._processor(idx).get_response_headers()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Context) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]
