"""A server that registers models and says what it was told, for tests that make its system calls fail."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from pathlib import Path

from mms.errors import NotCommitted, OutcomeUnknown
from mms.records import ChangeOutcome, RegistrationState
from mms.store.store import Store, StoreConfig
from tests.store_life import WHO, auto, begun, wish


async def main(folder: Path) -> None:
    config = StoreConfig(url=f"sqlite:///{folder}/store.db", server_id="one", data_dir=folder, boot_store_timeout=1)
    store = await Store.open(config)
    await store.claim(auto, WHO, ())
    print("claimed", flush=True)
    for number in range(6):
        name = f"model-{number}"
        try:
            first = await begun(store, wish(name))
            print("begun", name, flush=True)
            await store.finish(first, ChangeOutcome.DONE, {}, replace(first.row, state=RegistrationState.ACTIVE))
            print("done", name, flush=True)
        except NotCommitted:
            print("refused", name, store.health, flush=True)
        except OutcomeUnknown:
            print("unknown", name, store.health, flush=True)
    sys.stdout.flush()


asyncio.run(main(Path(sys.argv[1])))
