"""The client of a running server's management port: one connection, JSON answers, errors as one line; no printing here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlencode

from mms.errors import MmsError

DEFAULT_SERVER = "http://127.0.0.1:8081"
SERVER_VARIABLE = "MMS_MANAGEMENT_URL"
TIMEOUT = 60.0  # seconds
PAGE = 100  # most models in one answer of GET /models

Document = dict[str, Any]


class ServerUnreachable(MmsError):
    """Nobody answers at the server's address, or what answers there is no server of this kind."""


class ServerRefused(MmsError):
    """The server answered with an error: `status` is its HTTP status, the message its own."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Answer:
    """A good answer (2xx) and its JSON document."""

    status: int
    document: Document


class ManagementClient:
    """Asks one server. `server` is `http://host:port`, `https://host:port` or `unix:/path`, as `management_address` has it.

    Proxies of the environment are not used. Raises UsageError for an address of another form.
    """

    def __init__(self, server: str | None = None, *, timeout: float = TIMEOUT) -> None:
        self.server = (server or DEFAULT_SERVER).rstrip("/")
        # Imported here: TLS and mail parsing come with it, and `mms serve` reads this module too.
        from mms.connection import Failure, connection

        self._failure = Failure
        self._connection = connection(self.server, timeout)

    def __enter__(self) -> ManagementClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def get(self, path: str, **query: object) -> Document:
        """A document of the server; parameters that are None are left out. Raises as `send` does."""
        return self.send("GET", path, headers=None, **query).document

    def text(self, path: str) -> str:
        """A text of the server. Raises as `send` does."""
        return self._exchange("GET", path, {})[1].decode()

    def send(self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **query: object) -> Answer:
        """One request. Raises ServerUnreachable, and ServerRefused with the server's own message for any answer but 2xx."""
        given = {name: _text(value) for name, value in query.items() if value is not None}
        target = f"{path}?{urlencode(given)}" if given else path
        status, body = self._exchange(method, target, headers or {})
        return Answer(status, self._document(body, status))

    def _exchange(self, method: str, target: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
        try:
            self._connection.request(method, target, headers=dict(headers))
            response = self._connection.getresponse()
            body = response.read()
        except self._failure as error:
            self._connection.close()
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise ServerUnreachable(
                f"No server answers at {self.server} ({reason}); name it with --server URL or {SERVER_VARIABLE}."
            ) from error
        if not 200 <= response.status < 300:
            document = self._document(body, response.status)
            raise ServerRefused(str(document.get("message") or f"Status {response.status}"), response.status)
        return response.status, body

    def models(self, *, state: str | None = None) -> Iterator[Document]:
        """Every model with its details, by name."""
        token: str | None = None
        while True:
            page = self.get("/models", limit=PAGE, next_page_token=token, state=state, details=True)
            yield from page["models"]
            token = page.get("nextPageToken")
            if token is None:
                return

    def journal(self, *, model: str | None = None, after: int = 0) -> Iterator[Document]:
        """The journal's entries after a number, ascending."""
        following: int | None = after
        while following is not None:
            page = self.get("/journal", model=model, after=following, limit=1000)
            yield from page["entries"]
            following = page["next"]

    def _document(self, body: bytes, status: int) -> Document:
        try:
            document = json.loads(body)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise ServerUnreachable(
                f"What answers at {self.server} (with status {status}) is not the management port of this server."
            )
        return document


def model_path(name: str, *more: str) -> str:
    """The path of a model's route, with any character in its name."""
    return "/" + "/".join(quote(part, safe="") for part in ("models", name, *more))


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
