"""Fetching over HTTP from a real server that behaves well, badly, slowly or not at all."""

from __future__ import annotations

import hashlib
import socket
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from mms.archive.download import DownloadLimits, download, is_url
from mms.errors import DownloadFailed, ModelNotFound
from tests.unit.archive.web import WebServer

LIMITS = DownloadLimits(connect=5, read=5, total=30, max_size=1 << 20)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "download"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def refusal(url: str, target: Path, limits: DownloadLimits = LIMITS) -> str:
    with pytest.raises(DownloadFailed) as e:
        download(url, target, limits)
    return e.value.message


def test_the_bytes_are_written_and_digested(web: WebServer, target: Path) -> None:
    content = bytes(range(256)) * 1000
    url = web.serve("/a.mar", content)
    assert download(url, target, LIMITS) == hashlib.sha256(content).hexdigest()
    assert target.read_bytes() == content


@pytest.mark.parametrize("code", [404, 500, 204, 201, 304])
def test_any_status_but_200_is_told_as_mms_tells_it(web: WebServer, target: Path, code: int) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(code)
        request.send_header("Content-Length", "0")
        request.end_headers()

    web.answers["/a.mar"] = answer
    url = web.url("/a.mar")
    assert refusal(url, target) == f"Failed to download model from: {url}, code: {code}"


def test_a_host_that_does_not_answer(target: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/a.mar"
        assert refusal(url, target) == f"Failed to download model from: {url}"


@pytest.mark.parametrize(
    "url",
    ["http://localhost:aaaa", "http://h:99999/x", "http://[::1/x", "http://h/a b", "http://h/ä", "http://u:p@h/x"],
)
def test_what_is_no_url_is_not_found(target: Path, url: str) -> None:
    with pytest.raises(ModelNotFound) as e:
        download(url, target, LIMITS)
    assert e.value.message == f"Invalid model url: {url}"


def test_a_url_without_a_host_cannot_be_downloaded(target: Path) -> None:
    assert refusal("http:///noop.mar", target) == "Failed to download model from: http:///noop.mar"


@pytest.mark.parametrize("code", [301, 302, 303, 307])
def test_redirects_are_followed(web: WebServer, target: Path, code: int) -> None:
    web.serve("/real.mar", b"real")
    download(web.redirect("/moved.mar", "/real.mar", code), target, LIMITS)
    assert target.read_bytes() == b"real"


@pytest.mark.parametrize("place", ["https://127.0.0.1:1/x", "file:///etc/passwd", "ftp://127.0.0.1/x"])
def test_redirects_to_another_scheme_are_not(web: WebServer, target: Path, place: str) -> None:
    url = web.redirect("/moved.mar", place)
    assert refusal(url, target) == f"Failed to download model from: {url}, code: 302"


def test_redirects_in_a_circle_end(web: WebServer, target: Path) -> None:
    url = web.redirect("/moved.mar", "/moved.mar")
    assert refusal(url, target).startswith(f"Failed to download model from: {url}")
    assert len(web.asked) < 50


def test_a_body_cut_short_is_no_archive(web: WebServer, target: Path) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "1000")
        request.end_headers()
        request.wfile.write(b"only this")
        request.close_connection = True

    web.answers["/a.mar"] = answer
    url = web.url("/a.mar")
    assert refusal(url, target) == f"Failed to download model from: {url}"


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_over_the_limit_is_refused(web: WebServer, target: Path, announced: bool) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        if announced:
            request.send_header("Content-Length", str(2 << 20))
        request.end_headers()
        request.wfile.write(b"\0" * (2 << 20))
        request.close_connection = True

    web.answers["/a.mar"] = answer
    assert "it is larger than 1048576 bytes" in refusal(web.url("/a.mar"), target)
    assert target.stat().st_size <= 1 << 20


def drip(web: WebServer, head: bytes, drop: bytes) -> str:
    """A server that sends a drop every 50 ms, for ever."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        try:
            request.wfile.write(head)
            while not web.ended.wait(0.05):
                request.wfile.write(drop)
                request.wfile.flush()
        except OSError:
            return  # the client has gone, as it should

    web.answers["/slow.mar"] = answer
    return web.url("/slow.mar")


@pytest.mark.parametrize(
    ("head", "drop"),
    [
        (b"HTTP/1.0 200 OK\r\n\r\n", b"x"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 100000\r\n\r\n", b"x"),
        (b"HTTP/1.0 200 OK\r\n", b"x"),
    ],
    ids=["endless body", "announced body", "endless header"],
)
def test_a_server_that_drips_for_ever_is_given_up_in_time(
    web: WebServer, target: Path, head: bytes, drop: bytes
) -> None:
    url = drip(web, head, drop)
    started = time.monotonic()
    message = refusal(url, target, DownloadLimits(connect=5, read=5, total=0.5))
    assert message == f"Download model timeout: {url}"
    assert time.monotonic() - started < 3


def test_a_server_that_says_nothing_is_given_up_in_time(web: WebServer, target: Path) -> None:
    web.answers["/mute.mar"] = lambda request: web.ended.wait(20) and None
    url = web.url("/mute.mar")
    started = time.monotonic()
    assert refusal(url, target, DownloadLimits(connect=5, read=0.3, total=20)) == f"Download model timeout: {url}"
    assert time.monotonic() - started < 3


def test_what_speaks_no_http_cannot_be_downloaded(web: WebServer, target: Path) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"\0\1\2 garbage\r\n\r\n")

    web.answers["/a.mar"] = answer
    assert refusal(web.url("/a.mar"), target).startswith("Failed to download model from:")


def test_a_proxy_is_not_asked_for_this_machine(web: WebServer, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    download(web.serve("/a.mar", b"x"), target, LIMITS)
    assert target.read_bytes() == b"x"


def test_a_proxy_is_asked_for_others(web: WebServer, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", web.url(""))
    web.serve("http://models.example.org/a.mar", b"from the proxy")
    download("http://models.example.org/a.mar", target, LIMITS)
    assert target.read_bytes() == b"from the proxy"


def test_trouble_with_the_target_is_not_the_host_s(web: WebServer, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        download(web.serve("/a.mar", b"x"), tmp_path / "nowhere" / "download", LIMITS)


@pytest.mark.parametrize(
    ("url", "is_one"),
    [("http://h/x", True), ("HTTPS://h/x", True), ("ftp://h/x", False), ("x.mar", False), ("http:/x", False)],
)
def test_only_http_is_fetched(url: str, is_one: bool) -> None:
    assert is_url(url) is is_one
