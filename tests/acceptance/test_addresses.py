"""Where the server listens: TLS from PEM files and from a keystore, Unix sockets, one port for everything, and CORS."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest

from tests.acceptance.running import ECHO, RunningServer, make_model, wait_until
from tests.certificates import make

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("certificates"))


def key_settings(kind: str, folder: Path) -> dict[str, object]:
    if kind == "keystore":
        return {"keystore": folder / "keystore.p12", "keystore_pass": "secret", "keystore_type": "PKCS12"}
    return {"certificate_file": folder / "certificate.pem", "private_key_file": folder / "key.pem"}


@pytest.mark.parametrize("kind", ["pem", "keystore"])
def test_both_ports_speak_tls_with_the_configured_certificate(kind: str, certificates: Path, tmp_path: Path) -> None:
    trusting = ssl.create_default_context(cafile=str(certificates / "certificate.pem"))
    with RunningServer(tmp_path, config=key_settings(kind, certificates)) as server:
        make_model(server.models, "echo", ECHO)
        plain = server.inference_url, server.management_url
        server.inference_url, server.management_url = (url.replace("http:", "https:") for url in plain)
        server.config |= {"inference_address": server.inference_url, "management_address": server.management_url}
        server.launch()
        with httpx.Client(verify=trusting, trust_env=False, timeout=30) as client:

            def ready() -> bool:
                try:
                    return client.get(f"{server.management_url}/readyz").status_code == 200
                except httpx.ConnectError:
                    return False

            wait_until(ready, what="ready")
            done = client.post(f"{server.management_url}/models?url=echo&initial_workers=1&synchronous=true")
            assert (done.status_code, done.json()) == (200, {"status": "Workers scaled"})
            body = b"x" * 300_000
            assert client.post(f"{server.inference_url}/predictions/echo", content=body).text == f"echo:{body.decode()}"
        for url in plain:
            with pytest.raises(httpx.TransportError), httpx.Client(trust_env=False) as careless:
                careless.get(f"{url}/ping").raise_for_status()
        with pytest.raises(httpx.ConnectError), httpx.Client(trust_env=False) as distrusting:
            distrusting.get(f"{server.inference_url}/ping")
        assert server.stop() == 0


def test_unix_addresses_are_sockets_that_curl_can_ask_and_that_are_gone_after_the_stop(tmp_path: Path) -> None:
    sockets = {"inference_address": tmp_path / "inference.sock", "management_address": tmp_path / "management.sock"}
    with RunningServer(tmp_path, config={name: f"unix:{file}" for name, file in sockets.items()}) as server:
        make_model(server.models, "echo", ECHO)
        server.launch()

        def ask(file: Path, path: str, *words: str) -> str:
            command = ["curl", "-sS", "--unix-socket", file, *words, f"http://localhost{path}"]
            return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout

        inference, management = sockets.values()
        wait_until(lambda: '"ready"' in ask(management, "/readyz").lower(), what="ready")
        assert "Workers scaled" in ask(management, "/models?url=echo&initial_workers=1&synchronous=true", "-X", "POST")
        assert ask(inference, "/predictions/echo", "-d", "hello", "-H", "content-type: text/plain") == "echo:hello"
        wait_until(lambda: '0.0.0.0 "POST /predictions/echo' in (tmp_path / "logs" / "access_log.log").read_text())
        assert server.stop() == 0
        assert not inference.exists()
        assert not management.exists()


def test_one_address_for_both_serves_all_routes(tmp_path: Path) -> None:
    with RunningServer(tmp_path) as server:
        server.management_url = server.inference_url
        server.config["management_address"] = server.inference_url
        make_model(server.models, "echo", ECHO)
        server.start()
        assert server.manage("POST", "/models?url=echo&initial_workers=1&synchronous=true").status_code == 200
        assert server.predict("echo", "x").text == "echo:x"
        assert server.infer("POST", "/models/echo/invoke", content="x").text == "echo:x"
        assert server.infer("GET", "/ping").json() == {"status": "Healthy"}
        paths = server.infer("OPTIONS", "/").json()["paths"]
        assert {"/ping", "/models", "/predictions/{model_name}"} <= set(paths)
        assert server.manage("DELETE", "/models/echo").status_code == 200


def test_a_browser_may_manage_models_where_cors_is_configured(tmp_path: Path) -> None:
    cors = {
        "cors_allowed_origin": "https://console.example",
        "cors_allowed_methods": "GET, POST, PUT, DELETE, OPTIONS",
        "cors_allowed_headers": "X-Custom-Header, Content-Type",
    }
    with RunningServer(tmp_path, config=cors) as server:
        make_model(server.models, "echo", ECHO)
        server.start()
        origin = {"Origin": "https://console.example"}

        def allowed(headers: Mapping[str, str]) -> list[str | None]:
            return [headers.get(f"access-control-allow-{what}") for what in ("origin", "methods", "headers")]

        for method, path in (("POST", "/models"), ("PUT", "/models/echo"), ("DELETE", "/models/echo")):
            asks = {**origin, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": "content-type"}
            preflight = server.manage("OPTIONS", path, headers=asks)
            assert preflight.status_code == 200, path
            assert allowed(preflight.headers) == list(cors.values())
        answer = server.manage("POST", "/models?url=echo&initial_workers=1", headers=origin)
        assert (answer.status_code, allowed(answer.headers)) == (200, list(cors.values()))
        answer = server.predict("echo", headers=origin)
        assert (answer.status_code, allowed(answer.headers)) == (200, list(cors.values()))
        missing = server.predict("nobody", headers=origin)
        assert (missing.status_code, allowed(missing.headers)) == (404, list(cors.values()))


def test_a_preflight_without_cors_is_the_originals_405(tmp_path: Path) -> None:
    with RunningServer(tmp_path) as server:
        server.start()
        asks = {"Origin": "https://console.example", "Access-Control-Request-Method": "POST"}
        assert server.manage("OPTIONS", "/models", headers=asks).status_code == 405
