"""Every combination of last state, flags, mode and stored generations, against a table written on its own."""

from __future__ import annotations

import pytest

from mms.errors import UsageError
from mms.records import (
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

IDENTITY = ProcessIdentity(host="web-1", boot_id="b", pid=4321, start_ticks=1, version="0")


def incarnation(
    state: IncarnationState, generation: int = 3, flags: tuple[str, ...] = (), stop_reason: str = ""
) -> Incarnation:
    return Incarnation(
        epoch=7,
        generation=generation,
        state=state,
        decision=Decision.MANIFEST,
        reason="",
        identity=IDENTITY,
        flags=flags,
        stop_reason=stop_reason,
    )


def generation(number: int, registrations: int, *, changes: bool = True, abandoned: bool = False) -> GenerationSummary:
    return GenerationSummary(number, registrations, changes, abandoned)


STORES = {
    "empty": (),
    "last-changed": (generation(3, 2),),
    "last-untouched": (generation(3, 0, changes=False),),
    "older-changed": (generation(2, 4), generation(3, 0, changes=False)),
    "older-abandoned": (generation(2, 4, abandoned=True), generation(3, 0, changes=False)),
    "both-changed": (generation(1, 1), generation(2, 4), generation(3, 2)),
    "all-unregistered": (generation(2, 4), generation(3, 0, changes=True)),
}
NEWEST_WITH_CHANGES = {"last-changed": 3, "older-changed": 2, "both-changed": 3, "all-unregistered": 3}


def expected(last: str, flag: str, mode: str, store: str) -> tuple[str, int | None]:
    """The design's table, row by row, in words and literals: decision and generation (None: a new one)."""
    if flag == "--clean-start" or (mode == "never" and flag == "none"):
        return "clean", None
    if last == "none":
        return "manifest", None
    if flag == "none" and mode == "auto":
        return ("manifest", None) if last == "clean" else ("replay", 3)
    return "replay", NEWEST_WITH_CHANGES.get(store, 3)


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("mode", ["auto", "always", "never"])
@pytest.mark.parametrize("flag", ["none", "--recover", "--clean-start"])
@pytest.mark.parametrize("last", ["none", "booting", "running", "stopping", "clean"])
def test_every_row_of_the_table_decides_as_written(last: str, flag: str, mode: str, store: str) -> None:
    facts = BootFacts(
        last=None if last == "none" else incarnation(IncarnationState(last)),
        generations=STORES[store],
    )
    options = BootOptions(
        recover=flag == "--recover", clean_start=flag == "--clean-start", recovery_mode=RecoveryMode(mode)
    )
    decision = decide(facts, options)
    assert (decision.decision.value, decision.generation) == expected(last, flag, mode, store)
    assert decision.reason
    assert "\n" not in decision.reason
    assert not decision.safe_mode


@pytest.mark.parametrize("mode", list(RecoveryMode))
@pytest.mark.parametrize("state", [None, *IncarnationState])
def test_both_flags_together_are_a_usage_error(state: IncarnationState | None, mode: RecoveryMode) -> None:
    facts = BootFacts(last=None if state is None else incarnation(state))
    with pytest.raises(UsageError, match=r"--recover and --clean-start"):
        decide(facts, BootOptions(recover=True, clean_start=True, recovery_mode=mode))


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (IncarnationState.BOOTING, "stopped while booting, without the clean-shutdown mark"),
        (IncarnationState.RUNNING, "stopped while running, without the clean-shutdown mark"),
        (IncarnationState.STOPPING, "stopped while shutting down, without the clean-shutdown mark"),
        (IncarnationState.CLEAN, "stopped cleanly: the configured start-up models are loaded"),
    ],
)
def test_the_reason_says_who_stopped_and_how(state: IncarnationState, words: str) -> None:
    decision = decide(BootFacts(last=incarnation(state)), BootOptions())
    assert decision.reason == f"the last server (epoch 7, pid 4321 on web-1) {words}"


def test_an_orderly_stop_while_booting_repeats_the_boot_and_says_so() -> None:
    last = incarnation(IncarnationState.BOOTING, stop_reason="SIGTERM")
    decision = decide(BootFacts(last=last), BootOptions())
    assert (decision.decision, decision.generation) == (Decision.REPLAY, 3)
    assert decision.reason == (
        "the last server (epoch 7, pid 4321 on web-1) was told to stop while booting (SIGTERM), so its boot is repeated"
    )


# --- warnings ---------------------------------------------------------------------------------------------------------


def test_a_clean_stop_leaves_registrations_behind_and_names_both_ways_back() -> None:
    facts = BootFacts(last=incarnation(IncarnationState.CLEAN), generations=(generation(3, 2),))
    assert decide(facts, BootOptions()).warnings == (
        (
            "Generation 3 with 2 registrations is left behind: "
            "`mms restore --to-generation 3` brings them back now, --recover at the next start"
        ),
    )


def test_a_clean_start_names_every_generation_that_it_sets_aside() -> None:
    facts = BootFacts(
        last=incarnation(IncarnationState.RUNNING),
        generations=(generation(1, 4, abandoned=True), generation(2, 1), generation(3, 2)),
    )
    assert decide(facts, BootOptions(clean_start=True)).warnings == (
        "Generation 3 with 2 registrations is left behind: `mms restore --to-generation 3` brings them back now",
        "Generation 2 with 1 registration is left behind: `mms restore --to-generation 2` brings them back now",
    )


def test_the_boot_after_a_crashed_manifest_boot_still_says_what_was_left_behind() -> None:
    facts = BootFacts(
        last=incarnation(IncarnationState.BOOTING, generation=4),
        generations=(generation(3, 2), generation(4, 0, changes=False)),
    )
    decision = decide(facts, BootOptions())
    assert decision.generation == 4
    assert len(decision.warnings) == 1
    assert "Generation 3 with 2 registrations" in decision.warnings[0]


def test_a_replay_of_what_recover_would_choose_warns_of_nothing() -> None:
    facts = BootFacts(last=incarnation(IncarnationState.RUNNING), generations=(generation(2, 4), generation(3, 2)))
    assert decide(facts, BootOptions()).warnings == ()
    assert decide(facts, BootOptions(recover=True)).warnings == ()


@pytest.mark.parametrize(
    ("flag", "setting"), [("--clean-start", "recovery_mode=never"), ("--recover", "recovery_mode=always")]
)
@pytest.mark.parametrize("state", list(IncarnationState))
def test_a_flag_given_at_the_last_boot_too_is_warned_about(state: IncarnationState, flag: str, setting: str) -> None:
    options = BootOptions(recover=flag == "--recover", clean_start=flag == "--clean-start")
    repeated = decide(BootFacts(last=incarnation(state, flags=(flag,))), options)
    assert any(w.startswith(f"{flag} was also given at the last boot") and setting in w for w in repeated.warnings)
    once = decide(BootFacts(last=incarnation(state)), options)
    assert not any("also given" in w for w in once.warnings)


def test_another_flag_at_the_last_boot_is_nobody_s_business() -> None:
    facts = BootFacts(last=incarnation(IncarnationState.RUNNING, flags=("--clean-start",)))
    assert not any("also given" in w for w in decide(facts, BootOptions(recover=True)).warnings)
    assert not any("also given" in w for w in decide(facts, BootOptions()).warnings)


@pytest.mark.parametrize(
    ("last", "store", "warned"),
    [
        (None, "empty", True),
        (IncarnationState.CLEAN, "last-untouched", True),
        (IncarnationState.RUNNING, "older-abandoned", True),
        (IncarnationState.RUNNING, "last-changed", False),
        (IncarnationState.CLEAN, "older-changed", False),
    ],
)
def test_recover_with_nothing_to_recover_is_warned_about(
    last: IncarnationState | None, store: str, warned: bool
) -> None:
    facts = BootFacts(last=incarnation(last) if last else None, generations=STORES[store])
    asked = decide(facts, BootOptions(recover=True))
    assert any("nothing to recover" in w for w in asked.warnings) is warned
    by_mode = decide(facts, BootOptions(recovery_mode=RecoveryMode.ALWAYS))
    assert not any("nothing to recover" in w for w in by_mode.warnings)


# --- safe mode --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("failed", "safe"), [(0, False), (2, False), (3, True), (4, True)])
@pytest.mark.parametrize("mode", [RecoveryMode.AUTO, RecoveryMode.ALWAYS])
def test_three_failed_boots_bring_up_the_same_replay_in_safe_mode(mode: RecoveryMode, failed: int, safe: bool) -> None:
    facts = BootFacts(last=incarnation(IncarnationState.BOOTING), generations=(generation(3, 2),), failed_boots=failed)
    decision = decide(facts, BootOptions(recovery_mode=mode))
    assert (decision.decision, decision.generation) == (Decision.REPLAY, 3)
    assert decision.safe_mode is safe
    assert any("mms recovery resume" in w for w in decision.warnings) is safe


@pytest.mark.parametrize(
    ("flag", "mode"), [("--recover", "never"), ("--recover", "auto"), ("--clean-start", "auto"), ("none", "never")]
)
def test_a_flag_or_a_clean_boot_is_never_in_safe_mode(flag: str, mode: str) -> None:
    facts = BootFacts(last=incarnation(IncarnationState.BOOTING), generations=(generation(3, 2),), failed_boots=5)
    options = BootOptions(
        recover=flag == "--recover", clean_start=flag == "--clean-start", recovery_mode=RecoveryMode(mode)
    )
    assert not decide(facts, options).safe_mode
