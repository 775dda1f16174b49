"""What the HTTP layer asks of the rest of the server: the contracts that `server.py` fulfils when it builds the ports."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from mms.config.resolve import Explained
from mms.records import Caller, Incarnation, JournalEntry
from mms.request import InferenceRequest
from mms.status import RecoveryReport
from mms.wishes import ChangeResult, ModelDescription, Readiness, RegisterModel, UpdateModel

Metrics = Callable[[], tuple[bytes, str]]
"""The metrics of the server in Prometheus's text form, and its content type."""

Resume = Callable[[], Awaitable[None]]
"""Leaves safe mode."""


class Destination(Protocol):
    """What stands behind a model's name at the moment."""

    @property
    def max_request_size(self) -> int | None:
        """Most bytes of a body; None where the model is not served, and the server-wide limit counts."""

    @property
    def submit(self) -> Callable[[InferenceRequest], None]:
        """Takes a request, as `PredictionService.predict` does."""


class PredictionService(Protocol):
    """The data plane, as the prediction routes see it; every call is made on the event loop and returns at once."""

    def find(self, name: str) -> Destination | None:
        """Where a prediction for that model may go without a further look; to be asked for each one. None: `predict` says why."""

    def predict(self, request: InferenceRequest) -> None:
        """Take a request; its `done` is called later, once. Raises ModelNotFound, NoWorkerAvailable or another MmsError at once."""

    def only_startup_model(self) -> str | None:
        """The start-up model, where there is just one: requests that name no model are meant for it."""


class Models(Protocol):
    """What is served, as far as the inference port looks at it."""

    def known(self, name: str) -> bool:
        """Whether a model of that name is registered."""

    def max_request_size(self, name: str) -> int | None:
        """Most bytes of a body for that model; None where it is not served, and the server-wide limit counts."""

    def health(self) -> str:
        """`Healthy`, `Partial Healthy` or `Unhealthy`, as /ping says it."""


class Manager(Protocol):
    """The one write path and its read side, as the management routes see it; errors are those of `mms/errors.py`."""

    async def register(self, wish: RegisterModel, caller: Caller) -> ChangeResult:
        """Register a model."""

    async def update(self, wish: UpdateModel, caller: Caller) -> ChangeResult:
        """Scale a model or set overrides."""

    async def unregister(self, name: str, caller: Caller) -> ChangeResult:
        """Take a model out of service."""

    def describe(self, name: str) -> ModelDescription:
        """One model; raises ModelNotFound."""

    def list_models(self) -> list[ModelDescription]:
        """All models, by name."""

    async def explain(self, name: str) -> Mapping[str, Explained]:
        """Every option of a model with its provenance; raises ModelNotFound."""

    async def remove_override(self, name: str, option: str, caller: Caller) -> ChangeResult:
        """Take one override back."""


class Status(Protocol):
    """What the server says of itself."""

    def recovery(self) -> RecoveryReport:
        """This boot's decision and what came of it."""

    def readiness(self) -> Readiness:
        """Whether the server can answer for its wanted models."""


class Journal(Protocol):
    """The read side of the store."""

    async def journal(self, *, model: str | None = None, after: int = 0, limit: int = 100) -> list[JournalEntry]:
        """Entries after a number, ascending."""

    async def incarnations(self, limit: int = 100) -> list[Incarnation]:
        """Lives of the server, newest first."""
