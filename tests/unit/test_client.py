"""The client of the management port against a real HTTP server: good answers, refusals, strangers, and nobody at all."""

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mms.client import ManagementClient, ServerRefused, ServerUnreachable, model_path
from mms.errors import UsageError


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        status, body = self.answer()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_DELETE = do_GET  # noqa: N815 - the name that the base class looks for

    def answer(self) -> tuple[int, bytes]:
        if self.path == "/stranger":
            return 200, b"<html>"
        if self.path == "/refused":
            return 404, b'{"code": 404, "type": "ModelNotFoundException", "message": "Model not found: x"}'
        if self.path.startswith("/models?"):
            first = "next_page_token" not in self.path
            page = {"nextPageToken": "100", "models": [{"n": 1}]} if first else {"models": [{"n": 2}]}
            return 200, json.dumps(page).encode()
        said = {"method": self.command, "path": self.path, "key": self.headers.get("Idempotency-Key")}
        return 200, json.dumps(said).encode()

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_parameters_and_headers_reach_the_server(url):
    with ManagementClient(url + "/") as client:
        answer = client.send(
            "DELETE", model_path("a/b c", "quarantine"), headers={"Idempotency-Key": "k"}, x=True, y=None
        )

    assert answer.document == {"method": "DELETE", "path": "/models/a%2Fb%20c/quarantine?x=true", "key": "k"}


def test_a_refusal_is_told_in_the_servers_own_words(url):
    with ManagementClient(url) as client, pytest.raises(ServerRefused, match=r"^Model not found: x$") as refused:
        client.get("/refused")

    assert refused.value.status == 404


def test_something_else_that_answers_there_is_named(url):
    with ManagementClient(url) as client, pytest.raises(ServerUnreachable, match="is not the management port"):
        client.get("/stranger")


def test_the_list_of_models_is_read_to_its_end(url):
    with ManagementClient(url) as client:
        assert list(client.models()) == [{"n": 1}, {"n": 2}]


def test_nobody_there_is_one_line_that_says_what_to_do():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: a connection is refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with ManagementClient(url) as client, pytest.raises(ServerUnreachable) as nobody:
            client.get("/models")

    assert nobody.value.message == (
        f"No server answers at {url} (Connection refused); name it with --server URL or MMS_MANAGEMENT_URL."
    )


@pytest.mark.parametrize("server", ["localhost:8081", "ftp://x", "http://", "http://x:port", "http://x/path"])
def test_an_address_of_another_form_is_refused_by_name(server):
    with pytest.raises(UsageError, match=r"^--server must be http://host:port"):
        ManagementClient(server)


def test_a_server_that_listens_on_a_socket_file_is_asked_there(tmp_path):
    class Unix(ThreadingHTTPServer):
        address_family = socket.AF_UNIX

        def server_bind(self) -> None:
            self.socket.bind(self.server_address)

    class Local(Answers):
        def address_string(self) -> str:
            return "local"

    server = Unix(str(tmp_path / "socket"), Local)  # type: ignore[arg-type]
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        with ManagementClient(f"unix:{tmp_path}/socket") as client:
            assert client.get("/recovery")["path"] == "/recovery"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
