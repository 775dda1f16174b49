"""A packed journal beside one that is never packed: whatever happens to both, they read the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from mms.errors import BadInput, IdempotencyMismatch, NotCommitted, StillRunning
from mms.records import Begun, Caller, Change, ChangeOutcome, Operation, RegistrationState
from mms.store import offline, retention
from mms.store import verbs as verbs_module
from mms.store.opening import open_once
from mms.store.store import StoreConfig
from mms.store.verbs import Verbs
from tests.integration.store.packing import ranges
from tests.store_life import WHO, auto, change, clean, manifest, wish

START = datetime(2026, 1, 1, tzinfo=UTC)

STEPS = st.one_of(
    st.tuples(st.just("register"), st.sampled_from("abc"), st.sampled_from(["done", "failed", "open"])),
    st.tuples(st.just("unregister"), st.sampled_from("abc"), st.sampled_from(["done", "failed", "open"])),
    st.tuples(st.just("settle"), st.integers(0, 5), st.sampled_from(["done", "failed"])),
    st.tuples(st.just("pack")),
    st.tuples(st.just("prune"), st.integers(0, 40)),
    st.tuples(st.just("boot"), st.sampled_from(["auto", "manifest", "clean"])),
)


class Pair:
    """Two stores that live the same lives; only one of them packs."""

    def __init__(self, configs: list[StoreConfig]) -> None:
        self.configs = configs
        self.verbs: list[Verbs] = []
        self.open: list[list[Begun]] = [[], []]
        self.clock = count()
        self.boot("manifest")

    def close(self) -> None:
        for each in self.verbs:
            each.close()
        self.verbs = []

    def boot(self, how: str) -> None:
        self.close()
        for config in self.configs:
            opened = open_once(config)  # which verifies
            verbs = Verbs(config, opened)
            verbs.claim({"auto": auto, "manifest": manifest, "clean": clean}[how], WHO, ())
            self.verbs.append(verbs)
        self.open = [each.pending() for each in self.verbs]

    def step(self, at: datetime, verb: str, *details: Any) -> None:
        with patch.object(verbs_module, "now", lambda _tx: at):
            if verb == "boot":
                self.boot(*details)
            elif verb == "pack":
                self.verbs[1]._packs_from = 0
                self.verbs[1].pack()
            else:
                for number, verbs in enumerate(self.verbs):
                    getattr(self, verb)(verbs, self.open[number], *details)

    def register(self, verbs: Verbs, left: list[Begun], name: str, outcome: str) -> None:
        self._change(verbs, left, change(wish(name, overrides={"n": verbs.last_seq}), key=f"{verbs.last_seq}"), outcome)

    def unregister(self, verbs: Verbs, left: list[Begun], name: str, outcome: str) -> None:
        row = replace(wish(name), state=RegistrationState.UNREGISTERED)
        self._change(verbs, left, change(row, Operation.UNREGISTER), outcome)

    def _change(self, verbs: Verbs, left: list[Begun], wished: Change, outcome: str) -> None:
        made = verbs.begin(wished)
        assert isinstance(made, Begun)
        left.append(made)
        if outcome != "open":
            self.settle(verbs, left, -1, outcome)

    def settle(self, verbs: Verbs, left: list[Begun], number: int, outcome: str) -> None:
        if left:
            made = left.pop(number % len(left))
            verbs.finish(made, ChangeOutcome(outcome), {"of": made.seq}, None)

    def prune(self, verbs: Verbs, _left: list[Begun], old: int) -> None:
        verbs._retained_at = None
        with patch.object(retention, "keep_from", lambda _at, _days: START + timedelta(minutes=old)):
            verbs._retain()

    def seen(self, verbs: Verbs, config: StoreConfig, at: datetime) -> Iterator[object]:
        """All that can be read; none of it may tell the two apart."""
        yield offline.journal(config, limit=1000)
        yield [offline.journal(config, model=name, limit=1000) for name in "abc"]
        yield [offline.journal(config, after=after, limit=2) for after in (0, 3)]
        yield verbs.snapshot(None)
        yield [each.seq for each in verbs.pending()]
        yield verbs.referenced_digests()
        for seq in range(verbs.last_seq + 1):
            yield refused_or(verbs.snapshot_at, seq, None, None)
        for minute in range(int((at - START).total_seconds() // 60) + 2):
            yield refused_or(verbs.snapshot_at, None, None, START + timedelta(minutes=minute))
        for key in range(verbs.last_seq):
            yield refused_or(verbs.answered, Caller("tester", "r-1", f"{key}", f"digest of {key}"))


def refused_or(verb: Any, *arguments: Any) -> object:
    try:
        return verb(*arguments)
    except (BadInput, NotCommitted, IdempotencyMismatch, StillRunning) as error:
        return f"{type(error).__name__}: {error.message}"


def compare(pair: Pair, steps: list[tuple[Any, ...]]) -> None:
    for number, step in enumerate(steps):
        at = START + timedelta(minutes=number)
        pair.step(at, *step)
        if step[0] not in ("pack", "prune") and number + 1 < len(steps):
            continue
        both = [list(pair.seen(verbs, config, at)) for verbs, config in zip(pair.verbs, pair.configs, strict=True)]
        assert both[0] == both[1], f"after {steps[: number + 1]}"
    for config in pair.configs:
        assert offline.verify(config) == []


@settings(max_examples=30, phases=[Phase.explicit, Phase.generate])
@given(st.lists(STEPS, min_size=4, max_size=22), st.integers(0, 2), st.integers(1, 4), st.integers(0, 4))
def test_whatever_happens_a_packed_journal_reads_as_one_that_never_was(
    steps: list[tuple[Any, ...]], kept_loose: int, size: int, keep_entries: int
) -> None:
    with TemporaryDirectory() as folder:
        configs = [
            StoreConfig(
                f"sqlite:///{folder}/{name}.db", "one", Path(folder), journal_keep_entries=keep_entries,
                journal_loose=kept_loose, journal_segment=size,
            )
            for name in ("plain", "packed")
        ]  # fmt: skip
        with closing(Pair(configs)) as pair:
            compare(pair, steps)


def test_the_same_on_postgres(postgres_url: str, tmp_path: Path) -> None:
    configs = [
        StoreConfig(postgres_url, name, tmp_path, journal_keep_entries=3, journal_loose=1, journal_segment=2)
        for name in ("plain", "packed")
    ]
    steps: list[tuple[Any, ...]] = []
    for number in range(12):
        steps.append(("register", "abc"[number % 3], ["done", "failed", "open", "done"][number % 4]))
        steps.append(("pack",))
    steps += [("prune", 9), ("boot", "auto"), ("settle", 1, "done"), ("unregister", "b", "done"), ("pack",), ("pack",)]
    steps += [("prune", 28), ("register", "a", "done"), ("boot", "manifest"), ("register", "c", "done"), ("pack",)]
    with closing(Pair(configs)) as pair:
        compare(pair, steps)
        assert ranges(configs[1])
        assert not ranges(configs[0])
