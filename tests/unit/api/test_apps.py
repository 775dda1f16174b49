"""The ports as the server builds them from its settings."""

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from mms.api.apps import Listeners
from mms.config.resolve import resolve_server
from mms.config.sources import read_sources
from mms.errors import UsageError

Build = Callable[..., Awaitable[Listeners]]


@pytest.fixture
async def build(port, tmp_path: Path):
    built: list[Listeners] = []

    async def build_(**given: str) -> Listeners:
        file = tmp_path / "config.properties"
        file.write_text("".join(f"{name}={value}\n" for name, value in given.items()))
        settings = resolve_server(read_sources(config=str(file), flags={}, environ={}))
        listeners = Listeners(
            settings,
            manager=port.manager,
            status=port.status,
            inference=port.service,
            models=port.site.models,
            store=port.journal,
        )
        built.append(listeners)
        await listeners.start()
        return listeners

    yield build_
    for listeners in built:
        await listeners.close()


async def ask(port: int | str, target: str, tls: ssl.SSLContext | None = None) -> tuple[bytes, dict]:
    if isinstance(port, str):
        reader, writer = await asyncio.open_unix_connection(port)
    else:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
    writer.write(f"GET {target} HTTP/1.0\r\n\r\n".encode())
    async with asyncio.timeout(5):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return head, json.loads(body)


ANY = "http://127.0.0.1:0"


async def test_two_addresses_have_their_own_routes(build: Build) -> None:
    inference, management = (await build(inference_address=ANY, management_address=ANY)).ports

    assert (await ask(inference, "/ping"))[1] == {"status": "Healthy"}
    assert b"404" in (await ask(inference, "/models"))[0]
    assert (await ask(management, "/models"))[1] == {"models": []}
    assert b"404" in (await ask(management, "/ping"))[0]


async def test_one_address_has_all_routes(build: Build, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    assert (await build(inference_address=f"unix:{path}", management_address=f"unix:{path}")).ports == [0]

    assert (await ask(path, "/ping"))[1] == {"status": "Healthy"}
    assert (await ask(path, "/models"))[1] == {"models": []}


async def test_an_https_address_is_encrypted(build: Build) -> None:
    inference, _ = (await build(inference_address="https://127.0.0.1:0", management_address=ANY)).ports
    trusting = ssl.create_default_context()
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE

    assert (await ask(inference, "/ping", trusting))[1] == {"status": "Healthy"}


async def test_cors_settings_are_sent(build: Build) -> None:
    inference, _ = (
        await build(inference_address=ANY, management_address=ANY, cors_allowed_origin="https://a.example")
    ).ports

    assert b"Access-Control-Allow-Origin: https://a.example\r\n" in (await ask(inference, "/ping"))[0]


async def test_where_one_address_cannot_be_had_neither_is_kept(build: Build, port, unused_port: int) -> None:
    taken = f"http://127.0.0.1:{port.listener.port}"
    with pytest.raises(UsageError, match="Cannot listen on"):
        await build(inference_address=f"http://127.0.0.1:{unused_port}", management_address=taken)

    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", unused_port)


@pytest.fixture
async def unused_port() -> int:
    server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    number = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return number


async def test_a_drain_ends_all_ports(build: Build) -> None:
    listeners = await build(inference_address=ANY, management_address=ANY)
    ports = listeners.ports
    assert await listeners.drain(5)

    for number in ports:
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", number)
