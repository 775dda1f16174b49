"""One engine of local processes for the module, and a way to start a worker on a handler written on the spot."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from mms.workers.local import LocalEngine
from mms.workers.process import LocalWorker
from tests.unit.workers.handling import ECHO, Ear, Start, spec, write_model


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def engine() -> AsyncIterator[LocalEngine]:
    engine = LocalEngine(store_uuid="test", epoch=1)
    await engine.open()
    yield engine
    await engine.close()


@pytest.fixture
def start(engine: LocalEngine, tmp_path: Path) -> Start:
    """Write a handler, start a worker on it, and listen."""

    async def starter(source: str = ECHO, **changes: Any) -> tuple[LocalWorker, Ear]:
        ear = Ear()
        worker = engine.worker(spec(write_model(tmp_path / "m", source), **changes))
        await worker.start(ear)
        return worker, ear

    return starter
