"""A port on a free TCP address, in front of parts made by hand that keep the contracts of `mms/api/ports.py`."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from mms.api.access_log import RequestLog
from mms.api.inference import Described, InferenceRoutes, Preflight, Slashes
from mms.api.listener import Listener
from mms.api.management import management_app
from mms.api.openapi import inference_paths, management_paths
from mms.api.request_ids import RequestIds
from mms.api.routes import Router
from mms.api.site import Site
from mms.api.wire import Cors, Wire
from mms.config.address import Address
from mms.config.resolve import Candidate, Explained, Scope, Source
from mms.errors import MmsError, ModelConflict, ModelNotFound
from mms.records import (
    BootDecision,
    Caller,
    ChangeOutcome,
    Decision,
    Incarnation,
    IncarnationState,
    JournalEntry,
    ModelKey,
    Operation,
    Origin,
    ProcessIdentity,
    Registration,
    RegistrationState,
    ReplayOutcome,
)
from mms.request import InferenceRequest, InferenceResponse, Result
from mms.status import RecoveryReport
from mms.wishes import (
    ChangeResult,
    ChangeStatus,
    ModelDescription,
    ModelRecovery,
    Readiness,
    RegisterModel,
    UpdateModel,
    WorkerDescription,
)

NOON = datetime(2026, 1, 31, 12, 0, 0, 123_456, UTC)


class Memory:
    """A log sink that remembers."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, line: bytes) -> None:
        self.data += line

    @property
    def lines(self) -> list[str]:
        return self.data.decode().splitlines()


LIMITS = {"small": 10, "noop": 1000, "slow": 1000}
"""Three models; `small` takes ten bytes."""


@dataclass
class Place:
    """Where predictions for one of them go."""

    max_request_size: int
    submit: Callable[[InferenceRequest], None]


class HandmadeService:
    """Answers predictions on the next turn of the loop with what `reply` says; holds those for the model `slow`."""

    def __init__(self) -> None:
        self.requests: list[InferenceRequest] = []
        self.held: list[InferenceRequest] = []
        self.startup: str | None = None
        self.reply: Callable[[InferenceRequest], Result] = lambda request: InferenceResponse(b"OK")
        self.arrived = asyncio.Event()

    def find(self, name: str) -> Place | None:
        return Place(LIMITS[name], self.predict) if name in LIMITS else None

    def predict(self, request: InferenceRequest) -> None:
        if request.model not in LIMITS:
            raise ModelNotFound(f"Model not found: {request.model}")
        self.requests.append(request)
        self.arrived.set()
        if request.model == "slow":
            self.held.append(request)
        else:
            asyncio.get_running_loop().call_soon(request.done, self.reply(request))

    def release(self, body: bytes = b"late") -> None:
        self.held.pop(0).done(InferenceResponse(body))

    def only_startup_model(self) -> str | None:
        return self.startup


class HandmadeModels:
    """What the service serves."""

    def known(self, name: str) -> bool:
        return name in LIMITS

    def max_request_size(self, name: str) -> int | None:
        return LIMITS.get(name)

    def health(self) -> str:
        return "Healthy"


def description(name: str, **changes: Any) -> ModelDescription:
    worker = WorkerDescription("9000-1", 0.5, "READY", False, 1234)
    made = ModelDescription(name, "1.0", f"{name}.mar", None, "python", 1, 1, 1, 100, False, (worker,), "active", "", 0)
    return replace(made, **changes)


class HandmadeManager:
    """Keeps registrations in a dictionary and every call in a list."""

    def __init__(self) -> None:
        self.models: dict[str, ModelDescription] = {}
        self.calls: list[tuple[Any, Caller]] = []
        self.error: MmsError | None = None
        self.status = ChangeStatus.SCALED

    def _noted(self, wish: Any, caller: Caller) -> None:
        self.calls.append((wish, caller))
        if self.error is not None:
            raise self.error

    async def register(self, wish: RegisterModel, caller: Caller) -> ChangeResult:
        self._noted(wish, caller)
        name = wish.model_name or wish.url.removesuffix(".mar")
        if name in self.models:
            raise ModelConflict(f"Model {name} is already registered.")
        self.models[name] = description(name, url=wish.url)
        return ChangeResult(ChangeStatus.REGISTERED, name)

    async def update(self, wish: UpdateModel, caller: Caller) -> ChangeResult:
        self._noted(wish, caller)
        self.describe(wish.name)
        return ChangeResult(self.status, wish.name)

    async def unregister(self, name: str, caller: Caller) -> ChangeResult:
        self._noted(name, caller)
        self.describe(name)
        del self.models[name]
        return ChangeResult(ChangeStatus.UNREGISTERED, name)

    async def remove_override(self, name: str, option: str, caller: Caller) -> ChangeResult:
        self._noted((name, option), caller)
        return ChangeResult(ChangeStatus.OVERRIDE_REMOVED, name, option)

    def describe(self, name: str) -> ModelDescription:
        if name not in self.models:
            raise ModelNotFound(f"Model not found: {name}")
        return self.models[name]

    def list_models(self) -> list[ModelDescription]:
        return [self.models[name] for name in sorted(self.models)]

    async def explain(self, name: str) -> Mapping[str, Explained]:
        self.describe(name)
        beaten = Candidate(4, Source.MANIFEST, Scope.ARCHIVE, "model.batchSize")
        chosen = Candidate(8, Source.API, Scope.MODEL, "journal entry 7")
        return {"batch_size": Explained("batch_size", "requests", True, chosen, (beaten,))}


class HandmadeStatus:
    """A server that has replayed two models, one of them in vain."""

    def __init__(self) -> None:
        self.answer = Readiness(True, "degraded", ("broken",), "ok")

    def recovery(self) -> RecoveryReport:
        decision = BootDecision(Decision.REPLAY, "the last incarnation crashed", 3)
        models = (
            ModelRecovery(ModelKey("noop", "1.0"), Origin.API, ReplayOutcome.ACTIVE, 0.25),
            ModelRecovery(ModelKey("broken"), Origin.API, ReplayOutcome.FAILED, 1.0, "no such file"),
        )
        return RecoveryReport(
            decision, life(8, IncarnationState.RUNNING), life(7, IncarnationState.RUNNING), True, 1.25, models
        )

    def readiness(self) -> Readiness:
        return self.answer


def life(epoch: int, state: IncarnationState) -> Incarnation:
    identity = ProcessIdentity("host", "boot", 4711, 99, "1.0")
    return Incarnation(epoch, 3, state, Decision.REPLAY, "why", identity, started_at=NOON)


class HandmadeJournal:
    """Three entries and two lives."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def journal(self, *, model: str | None = None, after: int = 0, limit: int = 100) -> list[JournalEntry]:
        self.asked.append((model, after, limit))
        key = ModelKey("noop", "1.0")
        row = Registration(key, Origin.API, RegistrationState.ACTIVE, url="noop.mar", overrides={"batch_size": 8})
        entries = [
            JournalEntry(seq, 8, 3, NOON, "anonymous@::1", "id", Operation.UPDATE, key, row, ChangeOutcome.DONE)
            for seq in (1, 2, 3)
        ]
        return [entry for entry in entries if entry.seq > after][:limit]

    async def incarnations(self, limit: int = 100) -> list[Incarnation]:
        return [life(8, IncarnationState.RUNNING), life(7, IncarnationState.CLEAN)][:limit]


@dataclass
class Answer:
    """An answer as it came over the wire; header names in lower case."""

    status: int
    reason: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Client:
    """One raw connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, *, head: bool = False) -> Answer:
        """The next final answer; a deadline instead of a hanging test."""
        async with asyncio.timeout(5):
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            _, status, reason = lines[0].split(" ", 2)
            headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines[1:] if line)}
            body = b"" if head else await self.reader.readexactly(int(headers.get("content-length", "0")))
            return Answer(int(status), reason, headers, body)

    async def ask(self, method: str, target: str, body: bytes = b"", **headers: str) -> Answer:
        """One request with a body, and its answer."""
        lines = [f"{method} {target} HTTP/1.1", "Host: test", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        await self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        return await self.answer(head=method == "HEAD")

    async def closed(self) -> bool:
        """Whether the server has closed the connection, with nothing left unread."""
        async with asyncio.timeout(5):
            try:
                return await self.reader.read(1) == b""
            except ConnectionResetError:
                return True

    async def close(self) -> None:
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()


@dataclass
class Port:
    """A listening port and the parts behind it."""

    service: HandmadeService
    manager: HandmadeManager
    status: HandmadeStatus
    journal: HandmadeJournal
    access_log: Memory
    metrics_log: Memory
    site: Site
    listener: Listener
    clients: list[Client] = field(default_factory=list)

    async def connect(self) -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.listener.port)
        client = Client(reader, writer)
        self.clients.append(client)
        return client


OpenPort = Callable[..., Awaitable[Port]]


@pytest.fixture
async def open_port() -> AsyncIterator[OpenPort]:
    """Opens a port: `kind` is inference, management or both; further arguments are those of Site and Cors."""
    async with AsyncExitStack() as stack:

        async def open_(kind: str = "inference", *, cors: Cors | None = None, keep_alive: float = 75.0) -> Port:
            service, models, manager = HandmadeService(), HandmadeModels(), HandmadeManager()
            status, journal = HandmadeStatus(), HandmadeJournal()
            access, metrics = Memory(), Memory()
            router = None if kind == "management" else Router(single_port=kind == "both")
            log = RequestLog(access, metrics)
            site = Site(service, models, router, Wire(cors), RequestIds(), log, 1000, keep_alive)
            management = Preflight(
                cors or Cors(), management_app(manager, status, journal, lambda: (b"up 1\n", "text/plain"))
            )
            app: Any = Described(management_paths(), management)
            if kind != "management":
                other = management if kind == "both" else None
                paths = inference_paths() | (management_paths() if kind == "both" else {})
                app = Described(paths, InferenceRoutes(models, status, other, single_port=kind == "both"))
            listener = Listener(Address("http", "127.0.0.1", 0), Slashes(app), site, None)
            await listener.start()
            port = Port(service, manager, status, journal, access, metrics, site, listener)
            stack.push_async_callback(listener.close)
            stack.push_async_callback(lambda: asyncio.gather(*(client.close() for client in port.clients)))
            return port

        yield open_


@pytest.fixture
async def port(open_port: OpenPort) -> Port:
    """An inference port."""
    return await open_port()


@pytest.fixture
async def client(port: Port) -> Client:
    """A connection to it."""
    return await port.connect()


@pytest.fixture
async def management(open_port: OpenPort) -> Port:
    """A management port."""
    return await open_port("management")


@pytest.fixture
async def operator(management: Port) -> Client:
    """A connection to it."""
    return await management.connect()
