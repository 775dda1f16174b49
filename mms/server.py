"""One life of the server: claim, boot, serve, stop; reads as a list, and decides nothing itself."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from functools import partial

from mms.archive.model_archive import ModelArchive
from mms.config.resolve import ServerSettings
from mms.config.sources import ConfigSources
from mms.errors import NotCommitted, OutcomeUnknown, StoreDamaged, StoreUnreachable
from mms.failpoints import armed, reached
from mms.gate import Gate
from mms.identity import process_identity
from mms.inference.registry import Registry
from mms.life import Life
from mms.parts import EngineMaker, Logs, Parts
from mms.records import BootDecision, BootFacts, BootOptions, StoreHealth
from mms.recovery.decision import decide
from mms.recovery.plan import make_plan
from mms.replay import Replay
from mms.safe_mode import SafeMode
from mms.shutdown import Shutdown
from mms.startup import name_startup_models
from mms.status import ServerStatus
from mms.store.absent import AbsentStore
from mms.store.store import Store, StoreConfig
from mms.workers.leftovers import sweep_leftovers

logger = logging.getLogger(__name__)

PACK_EVERY = 0.5
"""Seconds between two looks at the journal: also a store of an older version, with all its entries to pack, gets done."""
FEW_ENTRIES = {"journal_loose": 4, "journal_segment": 4}
"""What is packed where a crash in a packing is wanted: such a test does not wait for some hundred changes."""


class Server:
    """From the open store to the clean mark."""

    def __init__(
        self,
        settings: ServerSettings,
        sources: ConfigSources,
        options: BootOptions,
        store: Store,
        make_engine: EngineMaker,
        logs: Logs,
    ) -> None:
        self._settings = settings
        self._sources = sources
        self._options = options
        self._store = store
        self._make_engine = make_engine
        self._logs = logs
        self._registry = Registry()
        self._gate = Gate(settings.replay_wait)
        self._status = ServerStatus(store, self._registry)
        self._life = Life(store)
        self._safe_mode = SafeMode(self._gate, self._status, self._life.enter_running)
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._stop_reason = ""
        self._parts: Parts
        self._facts: BootFacts
        self._decision: BootDecision

    async def run(self) -> int:
        """Boot, serve until a signal, stop; returns the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        await self._claim()
        self._build()
        stop = asyncio.create_task(self._stop.wait())
        boot = asyncio.create_task(self._boot())
        await asyncio.wait((boot, stop), return_when=asyncio.FIRST_COMPLETED)
        shutdown = self._shutdown()
        if not boot.done():
            return await shutdown.interrupt(boot, self._stop_reason)
        boot.result()  # a boot that failed ends the server, dirty
        heartbeat = asyncio.create_task(self._heartbeat())
        packing = asyncio.create_task(self._pack_journal())
        await asyncio.wait((heartbeat, stop), return_when=asyncio.FIRST_COMPLETED)
        if heartbeat.done():
            heartbeat.result()  # it never ends by itself: a defect, and the server ends with it, dirty
        heartbeat.cancel()
        packing.cancel()
        return await shutdown.run(self._stop_reason, self._hurry)

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
        self._parts = Parts(
            self._settings,
            self._sources,
            self._store,
            self._status,
            self._registry,
            self._gate,
            self._make_engine,
            self._logs,
            self._safe_mode.resume,
        )

    async def _boot(self) -> None:
        """Ports first: live at once, not ready; then the plan; then ready."""
        reached("boot.claimed")
        await self._sweep()
        reached("boot.swept")
        await self._parts.engine.open()
        self._registry.await_plan(self._settings.replay_wait)
        await self._parts.listeners.start()
        reached("boot.listening")
        replay = await self._plan()
        self._status.replaying(replay)
        reached("boot.planned")
        await replay.run()
        reached("boot.replayed")
        if self._status.safe_mode:  # which goes on counting as a boot that did not finish
            self._safe_mode.begin(replay)
        else:
            await self._life.enter_running()
        self._gate.open()
        self._status.complete()
        logger.info("Ready after %.3f s.", self._status.recovered_in)
        logger.info("Model server started.")

    async def _sweep(self) -> None:
        """Remove what older lives left behind: processes, temporary folders, kept archives that nothing names any more."""
        try:
            keep = await self._store.referenced_digests()
        except NotCommitted as error:
            logger.warning("Leftovers are not swept: %s", error.message)
            return
        await asyncio.to_thread(sweep_leftovers, self._store.store_uuid, self._store.epoch)
        for gone in await asyncio.to_thread(self._parts.archives.sweep, keep):
            logger.info("Removed leftover %s.", gone)

    async def _plan(self) -> Replay:
        parts = self._parts
        opened: dict[str, ModelArchive] = {}
        startup = await name_startup_models(parts.archives, self._settings, opened)
        parts.manager.know_startup_models({model.name: model.model.url for model in startup})
        snapshot = await self._store.snapshot()
        parts.state.adopt(snapshot)
        plan = make_plan(
            self._decision, self._facts, snapshot, startup, quarantine_after=self._settings.quarantine_after
        )
        return Replay(
            plan,
            await self._store.pending(),
            opened,
            state=parts.state,
            activator=parts.activator,
            registry=self._registry,
            attempts=parts.attempts,
            parallel=2 * parts.cores,
            quarantine_after=self._settings.quarantine_after,
            replay_wait=self._settings.replay_wait,
        )

    # --- while running -----------------------------------------------------------------------------------------------

    async def _heartbeat(self) -> None:
        """Every few seconds: a sign of life, request counts, outcomes that are still to be recorded.

        Before the first, what a boot puts off; a defect there ends the server as one in here would.
        """
        await self._parts.listeners.complete()
        gc.freeze()  # that too lives as long as the process
        while True:
            await asyncio.sleep(self._settings.heartbeat_interval)
            await self._store.heartbeat({served.key: served.requests_seen for served in self._registry})
            await self._parts.state.flush()
            if not self._life.running and not self._status.safe_mode:
                await self._life.enter_running()
            if self._store.health is StoreHealth.FENCED and not self._stop.is_set():
                logger.error("Another server has taken the store: management is closed, this server drains and ends.")
                self._gate.close("Another server has taken the store; this one is ending.")
                self._stop_reason = "fenced"
                self._stop.set()

    async def _pack_journal(self) -> None:
        """Some older entries at a time, so that neither a boot nor a change feels how long the journal is."""
        told = ""
        while True:
            await asyncio.sleep(PACK_EVERY)
            try:
                await self._store.pack()
            except (NotCommitted, OutcomeUnknown) as error:
                if error.message != told:
                    logger.warning("The journal is not packed at the moment: %s", error.message)
                told = error.message
            except Exception:  # of upkeep: what was asked of the server does not depend on it
                logger.exception("The journal is not packed any more before a restart")
                return

    def _shutdown(self) -> Shutdown:
        return Shutdown(
            self._store,
            self._life,
            self._parts,
            self._registry,
            self._gate,
            self._status,
            self._safe_mode,
            drain_timeout=self._settings.drain_timeout,
        )


async def serve(
    settings: ServerSettings, sources: ConfigSources, options: BootOptions, make_engine: EngineMaker, logs: Logs
) -> int:
    """Open the store and run one server life on it. Raises BootError."""
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
        **(FEW_ENTRIES if armed("pack") else {}),
    )
    try:
        return await Store.open(config)
    except (StoreUnreachable, StoreDamaged) as error:
        if settings.on_store_failure != "manifest":
            raise
        logger.error("%s", error.message)
        return AbsentStore(error.message)
