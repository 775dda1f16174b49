"""Boots one after the other on a store reduced to its generations: which one is continued, after any chain of ends."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mms.records import (
    BootDecision,
    BootFacts,
    BootOptions,
    Decision,
    GenerationSummary,
    Incarnation,
    IncarnationState,
    ProcessIdentity,
    RecoveryMode,
)
from mms.recovery.decision import decide

PLAIN, RECOVER, CLEAN = BootOptions(), BootOptions(recover=True), BootOptions(clean_start=True)
CRASHES = [IncarnationState.BOOTING, IncarnationState.RUNNING, IncarnationState.STOPPING]


@dataclass
class Ledger:
    """What the store remembers of boots."""

    incarnations: list[Incarnation] = field(default_factory=list)
    registrations: dict[int, int] = field(default_factory=dict)
    abandoned: set[int] = field(default_factory=set)

    def boot(self, options: BootOptions, end: IncarnationState, *, registers: int = 0) -> BootDecision:
        """One life: decides, registers that many models, ends in that state."""
        decision = decide(self.facts(), options)
        generation = decision.generation
        if generation is None:
            if decision.decision is Decision.CLEAN:
                self.abandoned |= set(self.registrations)
            generation = max(self.registrations, default=0) + 1
            self.registrations[generation] = 0
        self.registrations[generation] += registers
        epoch = len(self.incarnations) + 1
        identity = ProcessIdentity("web-1", "b", 1, epoch, "0")
        life = Incarnation(epoch, generation, end, decision.decision, decision.reason, identity, flags=options.flags)
        self.incarnations.append(life)
        return decision

    def facts(self) -> BootFacts:
        failed = 0
        for life in reversed(self.incarnations):
            if life.state is not IncarnationState.BOOTING:
                break
            failed += 1
        return BootFacts(
            last=self.incarnations[-1] if self.incarnations else None,
            generations=tuple(
                GenerationSummary(number, count, count > 0, number in self.abandoned)
                for number, count in self.registrations.items()
            ),
            failed_boots=failed,
        )


@pytest.fixture
def ledger() -> Ledger:
    """Generation 1 holds two registrations and ended cleanly."""
    ledger = Ledger()
    ledger.boot(PLAIN, IncarnationState.CLEAN, registers=2)
    return ledger


@pytest.mark.parametrize("times", [1, 2, 5])
def test_a_crashed_manifest_boot_after_a_clean_stop_does_not_bring_back_what_ended_cleanly(
    ledger: Ledger, times: int
) -> None:
    for _ in range(times):
        ledger.boot(PLAIN, IncarnationState.BOOTING)
    decision = decide(ledger.facts(), PLAIN)
    assert (decision.decision, decision.generation) == (Decision.REPLAY, 2)
    assert any("Generation 1 with 2 registrations is left behind" in warning for warning in decision.warnings)


@pytest.mark.parametrize("times", [1, 2, 5])
def test_a_crashed_recover_boot_is_repeated_without_the_flag(ledger: Ledger, times: int) -> None:
    ledger.boot(RECOVER, IncarnationState.BOOTING)
    for _ in range(times - 1):
        ledger.boot(PLAIN, IncarnationState.BOOTING)
    decision = decide(ledger.facts(), PLAIN)
    assert (decision.decision, decision.generation) == (Decision.REPLAY, 1)


@pytest.mark.parametrize("before", [*CRASHES, IncarnationState.CLEAN])
@pytest.mark.parametrize("times", [1, 2, 5])
def test_a_crashed_clean_start_stays_clean(ledger: Ledger, before: IncarnationState, times: int) -> None:
    ledger.boot(RECOVER, before)
    ledger.boot(CLEAN, IncarnationState.BOOTING)
    for _ in range(times - 1):
        ledger.boot(PLAIN, IncarnationState.BOOTING)
    decision = decide(ledger.facts(), PLAIN)
    assert (decision.decision, decision.generation) == (Decision.REPLAY, 2)
    assert ledger.registrations[2] == 0
    assert decide(ledger.facts(), RECOVER).generation == 2, "what was set aside comes back by a restore only"


@pytest.mark.parametrize("end", CRASHES)
def test_what_was_registered_before_any_kind_of_crash_is_continued(end: IncarnationState) -> None:
    ledger = Ledger()
    ledger.boot(PLAIN, end, registers=2)
    decision = decide(ledger.facts(), PLAIN)
    assert (decision.decision, decision.generation) == (Decision.REPLAY, 1)


def test_kubernetes_users_keep_everything_over_clean_stops_with_recovery_mode_always() -> None:
    always = BootOptions(recovery_mode=RecoveryMode.ALWAYS)
    ledger = Ledger()
    ledger.boot(always, IncarnationState.CLEAN, registers=2)
    for end in (IncarnationState.CLEAN, IncarnationState.RUNNING, IncarnationState.CLEAN):
        assert ledger.boot(always, end).generation == 1


ends = st.sampled_from(IncarnationState)
options = st.sampled_from([PLAIN, PLAIN, RECOVER, CLEAN])
lives = st.lists(st.tuples(options, ends, st.integers(0, 2)), max_size=8)


@given(lives, st.sampled_from(CRASHES), st.integers(1, 6))
def test_k_crashes_in_a_row_give_what_one_gives(
    lives: list[tuple[BootOptions, IncarnationState, int]], end: IncarnationState, times: int
) -> None:
    ledger = Ledger()
    for given_options, state, registers in lives:
        ledger.boot(given_options, state, registers=registers)
    ledger.boot(PLAIN, end)
    after_one = decide(ledger.facts(), PLAIN)
    for _ in range(times):
        ledger.boot(PLAIN, end)
    after_many = decide(ledger.facts(), PLAIN)
    assert (after_many.decision, after_many.generation) == (after_one.decision, after_one.generation)
    assert after_one.decision is Decision.REPLAY


@given(lives)
def test_an_acknowledged_registration_is_continued_or_named_or_was_set_aside(
    lives: list[tuple[BootOptions, IncarnationState, int]],
) -> None:
    ledger = Ledger()
    for given_options, state, registers in lives:
        ledger.boot(given_options, state, registers=registers)
    for given_options in (PLAIN, RECOVER, CLEAN):
        decision = decide(ledger.facts(), given_options)
        held = [g for g, n in ledger.registrations.items() if n and g not in ledger.abandoned]
        if held and decision.generation not in held:
            assert any(f"Generation {max(held)} " in warning for warning in decision.warnings)
