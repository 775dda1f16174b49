"""Several servers on one store, an owner that is stopped, and a clock that lies: exactly one owner, no decision changed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg

from chaos.column import SQLITE
from chaos.history import Outcome
from chaos.site import Site, until
from chaos.trial import Fault, Trial
from chaos.violation import Violation

IN_USE = 75
_LOSE_WITHIN = 30.0


def several_at_once(trial: Trial) -> None:
    """Two to four servers are started at once on one store: one serves, the others end with 75 and say who has it."""
    rng = trial.rng
    with trial.story(config={"store_lock_wait": 0}) as story:
        story.boot()
        story.load().wait_for(3)
        story.kill()
        others = [_second(story.site, trial, number) for number in range(rng.randrange(1, 4))]
        sites = [story.site, *others]
        try:
            rng.shuffle(sites)
            for site in sites:
                site.launch()
            until(
                lambda: sum(site.process.poll() is None for site in sites if site.process) <= 1, _LOSE_WITHIN, "losers"
            )
            codes = [site.process.returncode for site in sites if site.process and site.process.poll() is not None]
            if codes != [IN_USE] * (len(sites) - 1):
                raise Violation(f"of {len(sites)} servers started at once the losers ended with {codes}")
            (winner,) = [site for site in sites if site.process and site.process.poll() is None]
            story.site = winner
            story.booted()
            story.kill()
        finally:
            for site in others:
                site.__exit__(None, None, None)


def stopped_owner(trial: Trial) -> None:
    """The owner is stopped (SIGSTOP) and a second server is started: it is refused, and the owner goes on unharmed."""
    with trial.story(config={"store_lock_wait": 0}) as story:
        story.boot()
        load = story.load()
        load.wait_for(3)
        other = _second(story.site, trial, 1)
        assert story.site.process is not None
        story.site.process.send_signal(signal.SIGSTOP)
        try:
            other.launch()
            if (code := other.gone(_LOSE_WITHIN)) != IN_USE:
                raise Violation(f"a second server was started on the store of a stopped one and ended with {code}")
        finally:
            story.site.process.send_signal(signal.SIGCONT)
            other.__exit__(None, None, None)
        load.wait_for(6)
        story.judge_living()
        story.kill()
        story.boot()


def _second(first: Site, trial: Trial, number: int) -> Site:
    """Another server with the same store and the same models, on ports of its own."""
    other = Site(trial.folder / f"server-{number}", environment=first.environment)
    urls = {"inference_address": other.inference_url, "management_address": other.management_url}
    other.config = {**first.config, **urls, "data_dir": first.data}
    other.models = first.models
    return other


def lock_lost(trial: Trial) -> None:
    """The lock is taken from a living owner and a second server claims: from then on the first one promises nothing more."""
    with trial.story(config={"store_lock_wait": 0, "heartbeat_interval": 3600}) as story:
        story.boot()
        story.load().wait_for(4)
        story.rest()  # an owner that goes on writing is noticed by the second one before it claims
        other = _second(story.site, trial, 1)
        _take_lock(story.site, trial)
        with other:
            other.launch()
            other.wait_complete()
            claimed = time.monotonic()
            story.load()
            time.sleep(1.5)
            story.rest()
            late = [call for call in story.history.calls(story.history.life) if call.key and call.invoked > claimed]
            promised = [call for call in late if call.outcome is Outcome.OK]
            if promised:
                raise Violation(
                    f"after another server had claimed the store the first one acknowledged {len(promised)} of {len(late)} "
                    f"changes, the first of them {promised[0].verb} {promised[0].model}"
                )
            if not late:
                raise Violation("no change was asked for after the second claim")


def _take_lock(site: Site, trial: Trial) -> None:
    """What an operator does who believes that a lock file is stale, or a PostgreSQL that loses a session."""
    if trial.store == SQLITE:
        (site.data / "store.db.lock").unlink()
        return
    url = str(site.config["store_url"])
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(l.pid, 3000) FROM pg_locks l WHERE l.locktype = 'advisory' "
            "AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )


def clock_off(trial: Trial) -> None:
    """The second life believes that it is years earlier or later; then the first clock is back. No decision changes."""
    rng = trial.rng
    with trial.story() as story:
        story.boot()
        story.load().wait_for(3)
        story.kill()
        years = rng.choice((-10, -3, 3, 10))
        story.site.environment |= {
            "LD_PRELOAD": _libfaketime(),
            "FAKETIME": f"{years:+d}y",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }
        story.boot()
        story.load().wait_for(3)
        pid = story.site.pid
        story.kill()
        for path in Path("/dev/shm").glob(f"*faketime_*_{pid}"):
            path.unlink()
        for name in ("LD_PRELOAD", "FAKETIME", "FAKETIME_DONT_FAKE_MONOTONIC", "DONT_FAKE_MONOTONIC"):
            del story.site.environment[name]
        story.boot()


def _libfaketime() -> str:
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    return str(found[0]) if found else ""


def _without_faketime() -> str:
    if not (library := _libfaketime()):
        return "libfaketime is not installed (scripts/chaos --install-tools)"
    probe = [sys.executable, "-c", "import time; print(time.time())"]
    done = subprocess.run(
        probe, env={"LD_PRELOAD": library, "FAKETIME": "+10y"}, capture_output=True, text=True, timeout=20, check=False
    )
    far = done.returncode == 0 and float(done.stdout) > time.time() + 9 * 365 * 86_400
    return "" if far else "libfaketime does not work with this Python"


FAULTS = (
    Fault("starters", several_at_once, 1, what="2 to 4 servers started at once on one store"),
    Fault("owner-stopped", stopped_owner, 0, what="SIGSTOP of the owner, a second start, SIGCONT"),
    Fault("lock-lost", lock_lost, 1, what="the lock taken from a living owner, and a second claim"),
    Fault("clock", clock_off, 0, 1, (SQLITE,), missing=_without_faketime, what="a clock that is 3 or 10 years off"),
)
