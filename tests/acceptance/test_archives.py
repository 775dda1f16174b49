"""Archives from everywhere, served: packed by the original archiver and by ours, of the 0.x layout, in place, from the web."""

from __future__ import annotations

import hashlib
import json
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.acceptance.running import ECHO, RunningServer, make_model, wait_until
from tests.certificates import make
from tests.original_archiver import install
from tests.unit.archive.builders import lay_out, model_files, zipped
from tests.unit.archive.web import WebServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SOURCES = {
    "service.py": "import labels.read\n\ndef handle(data, context):\n    return [labels.read.LABEL for _ in data or [0]]\n",
    "labels/__init__.py": "",
    "labels/read.py": "import pathlib\nLABEL = (pathlib.Path(__file__).parent / 'label.txt').read_text()\n",
    "labels/label.txt": "served",
}
LEGACY_SERVICE = """
from mms.model_service.model_service import SingleNodeService
from mms.utils.timeit_decorator import timeit

class Shouting(SingleNodeService):
    @timeit
    def _inference(self, data):
        return [bytes(data[0]).decode().upper()]
"""
SIGNATURE = {"input_type": "image/jpeg", "inputs": [{"data_name": "body", "data_shape": [1]}], "outputs": []}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("original"))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    with RunningServer(tmp_path, config={"max_archive_size": 200_000, "download_timeout": 2}) as running:
        yield running


@pytest.fixture
def web() -> Iterator[WebServer]:
    made = WebServer()
    yield made
    made.close()


def register(server: RunningServer, url: str, **parameters: object) -> tuple[int, str]:
    asked = {"url": url, "initial_workers": 1, "synchronous": "true", **parameters}
    answer = server.manage("POST", "/models", params=asked)
    return answer.status_code, answer.json().get("status") or answer.json()["message"]


def kept(server: RunningServer) -> set[str]:
    folder = server.folder / "mms-data" / "archives"
    return {child.name[:64] for child in folder.iterdir()} if folder.is_dir() else set()


@pytest.mark.parametrize("archiver", ["original", "ours"])
def test_archives_of_every_format_are_served_whoever_packed_them(
    server: RunningServer, original: Path, archiver: str
) -> None:
    sources = lay_out(server.folder / "sources", SOURCES)
    command = original if archiver == "original" else Path(sys.executable).parent / "model-archiver"
    for name, form in (("zip", "default"), ("tar", "tgz"), ("folder", "no-archive")):
        words = ["--model-name", name, "--model-path", sources, "--handler", "service:handle", "--archive-format", form]
        subprocess.run([command, *words, "--export-path", server.models], check=True, timeout=60)
    server.start()
    for name, file in (("zip", "zip.mar"), ("tar", "tar.tar.gz"), ("folder", "folder")):
        assert register(server, file) == (200, "Workers scaled")
        assert server.predict(name).text == "served"


@pytest.mark.parametrize("nested", [False, True], ids=["at the top", "one folder down"])
def test_an_archive_of_the_0_x_layout_is_served(server: RunningServer, nested: bool) -> None:
    manifest = {"Engine": {"MXNet": 0.12}, "Model-Archive-Version": 0.1, "Model-Server": 0.1}
    manifest |= {"Model": {"Model-Name": "shouting", "Service": "shouting.py", "Description": "", "Symbol": "s.json"}}
    files = {
        "MANIFEST.json": json.dumps(manifest),
        "shouting.py": LEGACY_SERVICE,
        "signature.json": json.dumps(SIGNATURE),
    }
    below = "old/" if nested else ""
    (server.models / "old.mar").write_bytes(zipped({f"{below}{name}": text for name, text in files.items()}))
    server.start()
    assert register(server, "old.mar") == (200, "Workers scaled")
    assert server.manage("GET", "/models/shouting").json()["modelVersion"] == "snapshot"
    assert server.predict("shouting", b"loud").text == "LOUD"


def test_a_folder_of_the_store_is_served_in_place_and_survives_its_unregistration(server: RunningServer) -> None:
    folder = make_model(server.models, "echo", "import os\n" + ECHO.replace("context.model_name}:", "os.getcwd()}:"))
    before = sorted(folder.rglob("*"))
    server.start()
    assert register(server, "echo")[0] == 200
    assert server.predict("echo", "").text == f"{folder}:"
    assert server.manage("DELETE", "/models/echo").status_code == 200
    assert sorted(folder.rglob("*")) == before
    assert kept(server) == set()


def test_a_link_that_leaves_the_store_is_refused_as_not_there(server: RunningServer) -> None:
    outside = make_model(server.folder, "outside", ECHO)
    (server.models / "link").symlink_to(outside)
    server.start()
    assert register(server, "link") == (404, "Model leads outside of the model store: link")


def test_models_of_the_same_bytes_share_one_folder_until_nothing_names_it(
    server: RunningServer, web: WebServer
) -> None:
    content, other = zipped(model_files("served")), zipped({"service.py": "no manifest"})
    url = web.serve("/served.mar?token=a%3Db", content)
    (server.models / "copy.mar").write_bytes(content)
    (server.models / "nameless.mar").write_bytes(other)
    server.start()
    assert register(server, url, model_name="first") == (200, "Workers scaled")
    assert register(server, "copy.mar", model_name="second") == (200, "Workers scaled")
    assert register(server, "nameless.mar")[0] == 400
    assert web.asked == ["/served.mar?token=a%3Db"]
    digest = hashlib.sha256(content).hexdigest()
    assert digest in kept(server)
    assert server.manage("DELETE", "/models/first").status_code == 200
    assert server.predict("second").text == "OK"
    assert (
        server.manage("PUT", "/models/second?min_worker=2&synchronous=true").status_code == 200
    )  # a new worker loads it

    server.kill()
    server.start()
    assert server.predict("second").text == "OK"
    assert kept(server) == {digest}
    assert web.asked == ["/served.mar?token=a%3Db"]


def test_a_download_that_is_too_large_or_too_slow_is_given_up_and_nothing_else_waits_for_it(
    server: RunningServer, web: WebServer
) -> None:
    def drip(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        while not web.ended.wait(0.05):
            request.wfile.write(b"PK")

    large = web.serve("/large.mar", bytes(300_000))
    web.answers["/slow.mar"] = drip
    make_model(server.models, "echo", ECHO)
    server.start()
    assert register(server, "echo")[0] == 200
    status, message = register(server, large, model_name="large")
    assert status == 400
    assert message.startswith(f"Failed to download model from: {large}")

    outcome: list[tuple[int, str]] = []
    slow = threading.Thread(target=lambda: outcome.append(register_alone(server, web.url("/slow.mar"))))
    slow.start()
    wait_until(lambda: "/slow.mar" in web.asked)
    began = time.monotonic()
    while slow.is_alive() and time.monotonic() - began < 1:
        asked = time.monotonic()
        assert server.predict("echo", "x").text == "echo:x"
        assert time.monotonic() - asked < 1
    slow.join(30)
    assert outcome == [(400, f"Download model timeout: {web.url('/slow.mar')}")]
    assert server.model_names() == ["echo"]
    assert list((server.folder / "mms-data" / "tmp").iterdir()) == []


def register_alone(server: RunningServer, url: str) -> tuple[int, str]:
    """As `register`, on a connection of its own: it is called from another thread."""
    import httpx

    answer = httpx.post(f"{server.management_url}/models", params={"url": url}, timeout=60, trust_env=False)
    return answer.status_code, answer.json()["message"]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.mark.parametrize("trusted", [True, False], ids=["trusted", "not trusted"])
def test_an_archive_comes_over_https_from_a_host_that_this_machine_trusts(tmp_path: Path, trusted: bool) -> None:
    certificates = make(tmp_path)
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "m.mar").write_bytes(zipped(model_files("m")))
    host = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "web")))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "certificate.pem", certificates / "key.pem")
    host.socket = context.wrap_socket(host.socket, server_side=True)
    host.handle_error = lambda request, client_address: None  # type: ignore[method-assign]
    serving = threading.Thread(target=host.serve_forever, args=(0.01,))
    serving.start()
    environment = {"SSL_CERT_FILE": str(certificates / "certificate.pem")} if trusted else {}
    try:
        with RunningServer(tmp_path, environment=environment) as server:
            server.start()
            url = f"https://127.0.0.1:{host.server_port}/m.mar"
            status, message = register(server, url)
            if trusted:
                assert (status, message) == (200, "Workers scaled")
                assert server.predict("m").text == "OK"
            else:
                assert (status, message) == (400, f"Failed to download model from: {url}")
    finally:
        host.shutdown()
        serving.join()
        host.server_close()
