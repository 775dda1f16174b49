"""One server's lives, one after the other: load, an end, the next boot, and what must hold between them."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import Any

import psutil

from chaos.checker import End, States, check_boot, check_contents, check_repeats
from chaos.clients import Client, Load, initial_states
from chaos.history import Call, History, Outcome
from chaos.leaks import Belongings, belongings, left_behind
from chaos.site import MODELS, Site
from chaos.violation import Violation

BOOTS_TO_SAFE_MODE = 3


class Story:
    """Keeps what is expected of the next life; every method raises Violation where the promise does not hold."""

    def __init__(self, site: Site, history: History, seed: str) -> None:
        self.site = site
        self.history = history
        self.seed = seed
        self.rng = random.Random(f"{seed}/story")
        self.before: States = initial_states()
        self._load: Load | None = None
        self._loads = 0
        self._end: End | None = None
        self._epoch = 0
        self._ready = False
        self._had = Belongings()

    # --- a life ------------------------------------------------------------------------------------------------------

    def boot(self, *flags: str) -> dict[str, Any]:
        """Start the server and wait until it is ready; after an earlier life, judge the boot and what came back."""
        self.site.launch(*flags)
        return self.booted(*flags)

    def booted(self, *flags: str, repeat: bool = True) -> dict[str, Any]:
        """Wait for a boot that was launched, and judge it; `repeat` asks again for what may or may not have happened."""
        recovery = self._complete()
        if not flags:
            self._must(check_boot(self._end, recovery, self._epoch))
        self._epoch = recovery["incarnation"]
        self._ready = True
        if recovery["decision"] == "MANIFEST" and self._end is not None:
            recovery = self._recover_after_clean_stop()
        self._judge(repeat=repeat)
        self._end = End(ready=True)
        return recovery

    def _complete(self) -> dict[str, Any]:
        """Wait for the recovery; leave safe mode and quarantine where crashed boots have led there, and only there."""
        recovery = self.site.wait_complete()
        lives = self.site.manage("GET", f"/incarnations?limit={BOOTS_TO_SAFE_MODE + 1}").json()["incarnations"][1:]
        crashed_boots = [life["state"] for life in lives].count("booting")
        if recovery["safeMode"]:
            if crashed_boots < BOOTS_TO_SAFE_MODE:
                raise Violation(f"safe mode after lives that ended {[life['state'] for life in lives]}")
            self.site.manage("POST", "/recovery/resume")
            recovery = {**self.site.wait_complete(), "decision": recovery["decision"], "reason": recovery["reason"]}
        if not self.site.is_ready():
            raise Violation(f"not ready after a complete recovery: {self.site.manage('GET', '/readyz').text}")
        fine = ("active", "skipped", "shadowed")
        down = [each for each in recovery["models"] if each["modelName"] in MODELS and each["outcome"] not in fine]
        for model in down:
            if model["outcome"] != "quarantined" or crashed_boots < BOOTS_TO_SAFE_MODE:
                raise Violation(f"a good model did not come back: {model}")
            self.site.manage("DELETE", f"/models/{model['modelName']}/quarantine")
        return recovery

    def _recover_after_clean_stop(self) -> dict[str, Any]:
        """A manifest boot shows the configured models alone; `--recover` then brings back what it left behind."""
        self._must(check_contents(initial_states(), (), self.site.states()))
        self.site.term()
        if (code := self.site.gone()) != 0:
            raise Violation(f"an idle server ended with {code} when it was asked to stop")
        self.site.launch("--recover")
        recovery = self.site.wait_complete()
        self._epoch = recovery["incarnation"]
        wanted = "REPLAY"
        if recovery["decision"] != wanted:
            raise Violation(f"--recover decided {recovery['decision']}: {recovery['reason']}")
        return recovery

    def load(self, *, clients: int = 3, pause: float = 0.01) -> Load:
        """Let clients loose on this life."""
        self._loads += 1
        seed = f"{self.seed}/{self._loads}"  # no two loads may draw the same Idempotency-Keys
        self._load = Load(self.site, self.history, seed, clients=clients, pause=pause).start()
        return self._load

    def load_on(self, acknowledged: int) -> None:
        """Wait until so many more changes than now have been acknowledged."""
        if self._load is None:
            self.load()
        assert self._load is not None
        so_far = sum(call.outcome is Outcome.OK and bool(call.key) for call in self.history.calls(self.history.life))
        self._load.wait_for(so_far + acknowledged)

    def rest(self) -> None:
        """End the load while the server goes on; wrong answers are violations."""
        if self._load is not None:
            load, self._load = self._load, None
            self._must(load.stop())

    def abandon(self) -> None:
        """Let go of the clients, whatever they have seen."""
        if self._load is not None:
            self._load.stop()
            self._load = None

    # --- its end -----------------------------------------------------------------------------------------------------

    def note_belongings(self) -> None:
        """Remember what the server has, for the look at what its end leaves behind."""
        with suppress(psutil.NoSuchProcess):
            self._had = belongings(self.site)

    def kill(self) -> None:
        """SIGKILL, now."""
        self.note_belongings()
        self.site.kill()
        self.died()

    def died(self, *, asked: bool = False, hurried: bool = False, booting: bool = False) -> None:
        """The process has ended: end the load, look for leaks, and open the next life's page."""
        assert self.site.process is not None
        code = self.site.process.returncode
        self._end = End(self._ready, asked, None if code < 0 else code, hurried, booting)
        self._ready = False
        self.rest()
        self._must([f"one second after the server's end there is still {text}" for text in self._leaks()])
        self._had = Belongings()

    def _leaks(self) -> list[str]:
        return left_behind(self.site, self._had)

    # --- judgement ---------------------------------------------------------------------------------------------------

    def judge_living(self) -> None:
        """The same judgement of a server that has not been restarted: its clients have ended, it says what it holds."""
        self.rest()
        self._judge()

    def _judge(self, *, repeat: bool = True) -> None:
        observed = self.site.states()
        calls = self.history.calls(self.history.life)
        self._must(check_contents(self.before, calls, observed))
        self._must(self.site.wrong_answers(observed))
        before = self.before
        self.history.life += 1
        self.before = observed
        if not repeat:
            return
        repeats = self._repeat([call for call in calls if call.outcome is Outcome.UNKNOWN and call.key])
        self._must(check_repeats(before, calls, observed, repeats))

    def _repeat(self, unknown: list[Call]) -> list[Call]:
        """Ask again, with the same key, for everything that may or may not have happened."""
        client = Client("repeater", self.site, self.history, self.rng)
        try:
            repeats = [client.change(call.verb, call.model, call.values, again=call) for call in unknown]
            once_more = [client.change(call.verb, call.model, call.values, again=call) for call in unknown]
        finally:
            client.close()
        for first, second in zip(repeats, once_more, strict=True):
            if first.outcome is Outcome.OK and (second.status, second.replayed) != (first.status, True):
                raise Violation(f"call {first.number} was repeated and answered anew: {second.status} {second.text}")
        return repeats

    def _must(self, found: list[str]) -> None:
        if found:
            raise Violation("\n".join(found))
