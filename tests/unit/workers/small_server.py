"""A small server to be killed: starts one worker for each model folder given, prints all pids, and keeps the workers busy."""

import asyncio
import json
import os
import sys
from pathlib import Path

from mms.request import Batch
from mms.workers.fork_launcher import ForkServerLauncher
from mms.workers.local import LocalEngine
from tests.unit.workers.handling import Ear, request, spec


async def main(method: str, *folders: str) -> None:
    engine = LocalEngine(start_method="spawn" if method == "spawn" else "forkserver", store_uuid="small", epoch=3)
    await engine.open()
    workers = []
    for folder in folders:
        worker = engine.worker(spec(Path(folder), response_timeout=600.0))
        await worker.start(Ear())
        worker.send(Batch([request()]))
        workers.append(worker)
    pids = [worker.pid for worker in workers]
    launcher = engine._launcher
    if isinstance(launcher, ForkServerLauncher):
        pids.append(launcher.pid)
    print(json.dumps({"server": os.getpid(), "others": pids}), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
