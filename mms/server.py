"""The composition root: builds every part, boots, serves, drains, stops; reads as a list, and decides nothing itself."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from mms.activation import Activator
from mms.api.access_log import LogSink
from mms.api.apps import Listeners
from mms.api.served import ServedModels
from mms.archive.download import DownloadLimits
from mms.archive.model_archive import ArchiveStore, ModelArchive
from mms.attempts import Attempts
from mms.changes import Changes
from mms.config.machine import available_cores
from mms.config.resolve import ServerSettings
from mms.config.sources import ConfigSources
from mms.errors import NotCommitted, OutcomeUnknown, StoreDamaged, StoreUnreachable
from mms.failpoints import reached
from mms.gate import Gate
from mms.identity import process_identity
from mms.inference.registry import Registry
from mms.inference.service import InferenceService
from mms.model_manager import ModelManager
from mms.records import BootDecision, BootFacts, BootOptions, IncarnationState, StoreHealth
from mms.recovery.decision import decide
from mms.recovery.plan import make_plan
from mms.replay import Replay
from mms.safe_mode import SafeMode
from mms.startup import name_startup_models, refuse_repeated_names
from mms.status import ServerStatus
from mms.store.absent import AbsentStore
from mms.store.store import Store, StoreConfig
from mms.telemetry import Telemetry
from mms.wanted import WantedState
from mms.workers.engine import Engine

logger = logging.getLogger(__name__)

EXIT_CLEAN = 0
EXIT_UNCLEAN = 1
EXIT_FENCED = 75

EngineMaker = Callable[[str, int], Engine]
"""Makes the engine from the store's uuid and this life's epoch, which tag its processes."""


class RequestLogs(NamedTuple):
    """Where the lines of answered requests go; None leaves them out."""

    access: LogSink | None = None
    metrics: LogSink | None = None


class Server:
    """One life of the server process, from the open store to the clean mark."""

    def __init__(
        self,
        settings: ServerSettings,
        sources: ConfigSources,
        options: BootOptions,
        store: Store,
        make_engine: EngineMaker,
        logs: RequestLogs,
    ) -> None:
        self._settings = settings
        self._sources = sources
        self._options = options
        self._store = store
        self._make_engine = make_engine
        self._logs = logs
        self._cores = available_cores()
        self._registry = Registry()
        self._state = WantedState(store)
        self._gate = Gate()
        self._status = ServerStatus(store, self._registry)
        self._attempts = Attempts(store)
        self._safe_mode = SafeMode(self._gate, self._status, self._enter_running)
        self._stop = asyncio.Event()
        self._stop_reason = ""
        self._running = False  # True once the store knows that the boot has finished
        self._hurry = asyncio.Event()
        self._engine: Engine
        self._archives: ArchiveStore
        self._activator: Activator
        self._changes: Changes
        self._manager: ModelManager
        self._inference: InferenceService
        self._listeners: Listeners
        self._facts: BootFacts
        self._decision: BootDecision

    async def run(self) -> int:
        """Boot, serve until a signal, stop; returns the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        await self._claim()
        self._build()
        boot = asyncio.create_task(self._boot())
        stop = asyncio.create_task(self._stop.wait())
        await asyncio.wait((boot, stop), return_when=asyncio.FIRST_COMPLETED)
        if boot.done():
            boot.result()  # a boot that failed ends the server, dirty
            heartbeat = asyncio.create_task(self._heartbeat())
            await asyncio.wait((heartbeat, stop), return_when=asyncio.FIRST_COMPLETED)
            if heartbeat.done():
                heartbeat.result()  # it never ends by itself: a defect, and the server ends with it, dirty
            heartbeat.cancel()
            return await self._shut_down()
        return await self._interrupt(boot)

    def _on_signal(self, number: int) -> None:
        """The first signal asks for an orderly stop, a second one for a quick and dirty end."""
        if self._stop.is_set():
            logger.warning("A second signal: ending now, without the clean-shutdown mark.")
            self._hurry.set()
        self._stop_reason = self._stop_reason or f"signal {signal.Signals(number).name}"
        self._stop.set()

    # --- boot --------------------------------------------------------------------------------------------------------

    async def _claim(self) -> None:
        """Decide and take the store: from here on a crash of this process is visible to the next boot."""
        reached("boot.before_claim")
        incarnation, self._decision, self._facts = await self._store.claim(
            partial(decide, options=self._options), process_identity(), self._options.flags
        )
        self._status.claimed(incarnation, self._decision, self._facts.last)
        for warning in self._decision.warnings:
            logger.warning("%s", warning)
        logger.info(
            "Boot decision: %s (epoch %d, generation %d): %s",
            self._decision.decision.name,
            incarnation.epoch,
            incarnation.generation,
            self._decision.reason,
        )

    def _build(self) -> None:
        settings = self._settings
        self._engine = self._make_engine(self._store.store_uuid, self._store.epoch)
        tag = f"{self._store.store_uuid[:8]}-{self._store.epoch}"
        self._archives = ArchiveStore(
            settings.model_store,
            settings.data_dir,
            tag=tag,
            limits=DownloadLimits(total=settings.download_timeout, max_size=settings.max_archive_size),
        )
        self._activator = Activator(self._archives, self._engine, self._sources, settings, load_slots=self._cores)
        self._changes = Changes(
            self._state,
            self._gate,
            self._activator,
            self._registry,
            self._attempts,
            unregister_timeout=settings.unregister_model_timeout,
        )
        self._manager = ModelManager(
            self._state, self._gate, self._activator, self._registry, self._changes, self._store
        )
        self._inference = InferenceService(self._registry)
        self._listeners = Listeners(
            settings,
            manager=self._manager,
            status=self._status,
            inference=self._inference,
            models=ServedModels(self._registry),
            store=self._store,
            resume=self._safe_mode.resume,
            access_log=self._logs.access,
            metrics_log=self._logs.metrics,
            metrics=Telemetry(
                models=self._registry,
                status=self._status,
                store=self._store,
                answers=lambda: self._listeners.request_log.counts,
            ),
        )

    async def _boot(self) -> None:
        """Ports first: live at once, not ready; then the plan; then ready."""
        reached("boot.claimed")
        await self._sweep()
        reached("boot.swept")
        await self._engine.open()
        await self._listeners.start()
        reached("boot.listening")
        replay = await self._plan()
        self._status.replaying(replay)
        reached("boot.planned")
        await replay.run()
        reached("boot.replayed")
        if self._status.safe_mode:  # which goes on counting as a boot that did not finish
            self._safe_mode.begin(replay)
        else:
            await self._enter_running()
        self._gate.open()
        self._status.complete()
        logger.info("Ready after %.3f s.", self._status.recovered_in)
        logger.info("Model server started.")

    async def _sweep(self) -> None:
        """Remove what older lives left behind: temporary folders, and kept archives that nothing names any more."""
        try:
            keep = await self._store.referenced_digests()
        except NotCommitted as error:
            logger.warning("Leftovers are not swept: %s", error.message)
            return
        for gone in await asyncio.to_thread(self._archives.sweep, keep):
            logger.info("Removed leftover %s.", gone)

    async def _plan(self) -> Replay:
        opened: dict[str, ModelArchive] = {}
        startup = await name_startup_models(self._archives, self._settings, opened)
        self._manager.know_startup_models({model.name: model.model.url for model in startup})
        snapshot = await self._store.snapshot()
        self._state.adopt(snapshot)
        plan = make_plan(
            self._decision, self._facts, snapshot, startup, quarantine_after=self._settings.quarantine_after
        )
        return Replay(
            plan,
            await self._store.pending(),
            opened,
            state=self._state,
            activator=self._activator,
            registry=self._registry,
            attempts=self._attempts,
            parallel=2 * self._cores,
            quarantine_after=self._settings.quarantine_after,
            replay_wait=self._settings.replay_wait,
        )

    async def _enter(self, state: IncarnationState, reason: str = "") -> bool:
        """Step this incarnation's row; a store that is away leaves it dirty, which is the safe side."""
        try:
            await self._store.advance(state, reason)
        except (NotCommitted, OutcomeUnknown) as error:
            logger.warning("The state %s is not recorded: %s", state.value, error.message)
            return False
        return True

    async def _enter_running(self) -> bool:
        """The boot has finished."""
        self._running = await self._enter(IncarnationState.RUNNING)
        return self._running

    # --- while running -----------------------------------------------------------------------------------------------

    async def _heartbeat(self) -> None:
        """Every few seconds: a sign of life, request counts, outcomes that are still to be recorded."""
        while True:
            await asyncio.sleep(self._settings.heartbeat_interval)
            await self._store.heartbeat({served.key: served.requests_seen for served in self._registry})
            await self._state.flush()
            if not self._running and not self._status.safe_mode:
                await self._enter_running()
            if self._store.health is StoreHealth.FENCED:
                logger.error("Another server has taken the store: management is closed, this server drains and ends.")
                self._gate.close("Another server has taken the store; this one is ending.")
                self._stop_reason = "fenced"
                self._stop.set()

    # --- stop --------------------------------------------------------------------------------------------------------

    async def _interrupt(self, boot: asyncio.Task[None]) -> int:
        """An orderly stop while booting: stays dirty, so the next boot repeats the decision; counts as no failed boot."""
        logger.info("Stopping while booting (%s); the next boot repeats the decision.", self._stop_reason)
        self._status.stopping()
        boot.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await boot
        await self._end_boot()
        await self._listeners.close()
        await self._registry.close()  # else the pools would replace the workers that the engine ends
        await self._engine.close()
        await self._store.close()
        return EXIT_CLEAN

    async def _end_boot(self) -> None:
        """The boot did not finish, by order and not by a crash."""
        try:
            await self._store.interrupt_boot(self._stop_reason)
        except (NotCommitted, OutcomeUnknown) as error:
            logger.warning("The stop while booting is not recorded: %s", error.message)

    async def _shut_down(self) -> int:
        """Not ready, stop accepting, drain, stop workers, and last of all the clean mark."""
        logger.info("Stopping (%s).", self._stop_reason)
        reached("stop.begun")
        fenced = self._store.health is StoreHealth.FENCED
        self._status.stopping()
        await self._safe_mode.close()
        settled = await self._drain()
        reached("stop.drained")
        await self._registry.close()  # else the pools would replace the workers that the engine ends
        await self._engine.close()
        reached("stop.workers_gone")
        left = self._state.api_registrations
        clean = (
            settled
            and not fenced
            and not self._hurry.is_set()
            and await self._enter(IncarnationState.CLEAN, self._stop_reason)
        )
        if not self._running:
            await self._end_boot()
        reached("stop.marked")
        if clean and left:
            logger.warning("%d API registrations will not return without --recover.", len(left))
        await self._store.close()
        logger.info("Model server stopped%s.", "" if clean else ", without the clean-shutdown mark")
        if fenced:
            return EXIT_FENCED
        return EXIT_CLEAN if clean else EXIT_UNCLEAN

    async def _drain(self) -> bool:
        """Finish what was accepted, within `drain_timeout`; True where every management change is settled."""
        entered = self._running and await self._enter(IncarnationState.STOPPING, self._stop_reason)
        await self._listeners.stop_accepting()
        hurry = asyncio.create_task(self._hurry.wait())
        changes = asyncio.create_task(self._settle_changes())
        requests = asyncio.create_task(self._inference.drain(self._settings.drain_timeout))
        both = asyncio.gather(changes, requests, return_exceptions=True)
        await asyncio.wait((hurry, both), timeout=self._settings.drain_timeout, return_when=asyncio.FIRST_COMPLETED)
        settled = changes.done() and not changes.cancelled() and changes.exception() is None
        for task in (hurry, both):
            task.cancel()
        await self._listeners.close()
        return entered and settled

    async def _settle_changes(self) -> None:
        """Every accepted management change has its outcome, and the store has recorded it."""
        await self._gate.drain()
        await self._changes.close()
        await self._state.flush()


async def serve(
    settings: ServerSettings, sources: ConfigSources, options: BootOptions, make_engine: EngineMaker, logs: RequestLogs
) -> int:
    """Open the store and run one server life on it. Raises BootError."""
    refuse_repeated_names(settings.load_models)
    logger.info("Data directory: %s", settings.data_dir)
    store = await _open_store(settings, options)
    return await Server(settings, sources, options, store, make_engine, logs).run()


async def _open_store(settings: ServerSettings, options: BootOptions) -> Store:
    """The store, or with `on_store_failure=manifest` what stands in for one that cannot be had. Raises BootError."""
    config = StoreConfig(
        url=settings.store_url,
        server_id=settings.server_id,
        data_dir=settings.data_dir,
        witness_path=settings.witness_path,
        boot_store_timeout=settings.boot_store_timeout,
        store_lock_wait=settings.store_lock_wait,
        store_auto_upgrade=settings.store_auto_upgrade,
        accept_store_loss=settings.accept_store_loss,
        clean_start=options.clean_start,
        journal_keep_days=settings.journal_keep_days,
        journal_keep_entries=settings.journal_keep_entries,
    )
    try:
        return await Store.open(config)
    except (StoreUnreachable, StoreDamaged) as error:
        if settings.on_store_failure != "manifest":
            raise
        logger.error("%s", error.message)
        return AbsentStore(error.message)
