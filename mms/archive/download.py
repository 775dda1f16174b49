"""Fetches a model archive over HTTP into a file, within limits of time and size; blocking."""

from __future__ import annotations

import errno
import hashlib
import http.client
import ipaddress
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from mms.errors import DownloadFailed, ModelNotFound

_HTTP = re.compile(r"https?://", re.IGNORECASE)
_UNUSABLE = re.compile(r"[^\x21-\x7e]")
_CHUNK = 1 << 16  # bytes
_MAX_REDIRECTS = 20
_MACHINE_TROUBLE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})


@dataclass(frozen=True, slots=True)
class DownloadLimits:
    """Seconds to connect, to wait for the next bytes, and for the whole; bytes of the body."""

    connect: float = 10.0
    read: float = 60.0
    total: float = 600.0
    max_size: int = 10 << 30


def is_url(url: str) -> bool:
    """True for what is fetched over HTTP; anything else is a name in the model store."""
    return _HTTP.match(url) is not None


def download(url: str, target: Path, limits: DownloadLimits) -> str:
    """Fetch `url` into the new file `target`; the SHA-256 of its bytes.

    Redirects are followed within one scheme, as MMS does. Raises ModelNotFound for a URL that is none, DownloadFailed,
    both with MMS's words, and OSError for trouble of this machine with the file.
    """
    _check(url)
    watch = _Watch(limits)
    try:
        with _open(url, watch) as response, target.open("xb") as file:
            return _copy(response, file, url, watch)
    except urllib.error.HTTPError as e:
        e.close()
        raise DownloadFailed(f"Failed to download model from: {url}, code: {e.code}") from None
    except _NetworkTrouble as e:
        if isinstance(e.cause, OSError) and e.cause.errno in _MACHINE_TROUBLE:
            raise e.cause from None
        if watch.expired or isinstance(e.cause, TimeoutError):
            raise DownloadFailed(f"Download model timeout: {url}") from e.cause
        raise DownloadFailed(f"Failed to download model from: {url}") from e.cause
    finally:
        watch.stop()


class _NetworkTrouble(Exception):
    """The other side's trouble, told apart from this machine's trouble with its own disk."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(str(cause))
        self.cause = cause


class _Watch:
    """Ends the connection when the whole time is over, whatever it is doing: headers may drip for ever too."""

    def __init__(self, limits: DownloadLimits) -> None:
        self.limits = limits
        self.expired = False
        self._deadline = time.monotonic() + limits.total
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(limits.total, self._expire)
        self._timer.daemon = True
        self._timer.start()

    def over(self, connection: socket.socket) -> None:
        """Watch this connection from now on."""
        self._socket = connection
        if self.expired:
            self._expire()

    def check(self) -> None:
        if self.expired or time.monotonic() >= self._deadline:
            self.expired = True
            raise _NetworkTrouble(TimeoutError("the whole download takes too long"))

    def stop(self) -> None:
        self._timer.cancel()

    def _expire(self) -> None:
        self.expired = True
        if self._socket is not None:
            try:
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # closed already


def _check(url: str) -> None:
    """MMS tells a URL that cannot be parsed from a host that does not answer."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  (raises for a port that is none)
        usable = not _UNUSABLE.search(url) and "@" not in parts.netloc
    except ValueError:
        usable = False
    if not usable:
        raise ModelNotFound(f"Invalid model url: {url}")
    if not parts.hostname:
        raise DownloadFailed(f"Failed to download model from: {url}")


def _open(url: str, watch: _Watch) -> http.client.HTTPResponse:
    proxies = urllib.request.ProxyHandler({}) if _is_loopback(url) else urllib.request.ProxyHandler()
    opener = urllib.request.OpenerDirector()
    opener.addheaders = [("User-Agent", "mms")]
    for handler in (
        proxies,
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _SameSchemeRedirects(),
        _Http(watch),
        _Https(watch),
    ):
        opener.add_handler(handler)
    try:
        response: http.client.HTTPResponse = opener.open(url, timeout=watch.limits.connect)
    except urllib.error.HTTPError:
        raise
    except urllib.error.URLError as e:
        raise _NetworkTrouble(e.reason if isinstance(e.reason, BaseException) else e) from None
    except (OSError, http.client.HTTPException, ValueError) as e:
        raise _NetworkTrouble(e) from None
    if response.status != http.HTTPStatus.OK:
        response.close()
        raise urllib.error.HTTPError(url, response.status, response.reason, response.headers, None)
    return response


def _copy(response: http.client.HTTPResponse, file: IO[bytes], url: str, watch: _Watch) -> str:
    announced = response.length  # None where the server did not say
    digest = hashlib.sha256()
    received = 0
    while True:
        try:
            chunk = response.read1(_CHUNK)
        except (OSError, http.client.HTTPException, ValueError) as e:
            raise _NetworkTrouble(e) from None
        watch.check()
        if not chunk:
            break
        received += len(chunk)
        if received > watch.limits.max_size:
            raise DownloadFailed(
                f"Failed to download model from: {url}, it is larger than {watch.limits.max_size} bytes"
            )
        digest.update(chunk)
        file.write(chunk)
    if announced is not None and received < announced:
        raise _NetworkTrouble(http.client.IncompleteRead(b"", announced - received))
    return digest.hexdigest()


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _SameSchemeRedirects(urllib.request.HTTPRedirectHandler):
    max_redirections = _MAX_REDIRECTS

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme != urlsplit(req.full_url).scheme:
            return None  # the redirect itself is then the answer
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Http(urllib.request.HTTPHandler):
    def __init__(self, watch: _Watch) -> None:
        super().__init__()
        self._watch = watch

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_watched(http.client.HTTPConnection, self._watch), req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, watch: _Watch) -> None:
        super().__init__()
        self._watch = watch

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_watched(http.client.HTTPSConnection, self._watch), req)


def _watched(kind: Callable[..., http.client.HTTPConnection], watch: _Watch) -> Any:
    """A connection of that kind with the limit for connecting first and the one for reading after; urllib knows only one."""

    def connection(host: str, **options: Any) -> http.client.HTTPConnection:
        made = kind(host, **options)
        connect = made.connect

        def watched_connect() -> None:
            connect()
            made.sock.settimeout(watch.limits.read)
            watch.over(made.sock)

        made.connect = watched_connect  # type: ignore[method-assign]
        return made

    return connection
