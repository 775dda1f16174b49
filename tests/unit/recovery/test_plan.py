"""The rules of replay, one by one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mms.records import (
    BootDecision,
    BootFacts,
    Decision,
    LoadAttempt,
    ModelKey,
    Origin,
    Registration,
    RegistrationState,
    ReplayOutcome,
    StartupModel,
)
from mms.recovery.plan import Charge, NamedStartupModel, Plan, PlanItem, make_plan

REPLAY = BootDecision(Decision.REPLAY, "crashed", 3)
NO_FACTS = BootFacts(last=None)


def api(name: str, seq: int = 1, state: RegistrationState = RegistrationState.ACTIVE, **more: object) -> Registration:
    row = Registration(ModelKey(name, "1.0"), Origin.API, state, url=f"{name}.mar", sha256=f"sha-{name}", seq=seq)
    return replace(row, **more)  # type: ignore[arg-type]


def changed(
    name: str, seq: int = 1, state: RegistrationState = RegistrationState.ACTIVE, **more: object
) -> Registration:
    """A row over a configured model."""
    return replace(Registration(ModelKey(name, "1.0"), Origin.MANIFEST, state, seq=seq), **more)  # type: ignore[arg-type]


def configured(name: str, **more: str) -> NamedStartupModel:
    return NamedStartupModel(name, StartupModel(url=f"store/{name}.mar"), version="1.0", **more)


def item_of(plan: Plan, name: str) -> PlanItem:
    """The only item of that name."""
    (item,) = [item for item in plan.items if item.key.name == name]
    return item


def died_loading(*names: str, epoch: int = 7, sha256: str | None = None) -> BootFacts:
    attempts = tuple(
        LoadAttempt(epoch, ModelKey(n, "1.0"), sha256 if sha256 is not None else f"sha-{n}") for n in names
    )
    return BootFacts(last=None, open_attempts=attempts)


def test_a_registration_of_the_api_is_activated_as_it_was_stored() -> None:
    row = api("a", overrides={"batch_size": 8, "min_workers": 2}, handler="s:h", runtime="python3")
    assert make_plan(REPLAY, NO_FACTS, [row], []).items == (
        PlanItem(row.key, Origin.API, "a.mar", row.overrides, registration=row, sha256="sha-a"),
    )


@pytest.mark.parametrize("state", [RegistrationState.PENDING, RegistrationState.ACTIVE, RegistrationState.FAILED])
def test_whatever_a_crash_left_pending_or_failed_is_tried_again(state: RegistrationState) -> None:
    assert item_of(make_plan(REPLAY, NO_FACTS, [api("a", state=state)], []), "a").outcome is ReplayOutcome.PENDING


def test_a_configured_model_is_loaded_from_today_s_configuration_with_the_stored_overrides_on_top() -> None:
    row = changed("a", overrides={"min_workers": 4})
    item = item_of(make_plan(REPLAY, NO_FACTS, [row], [configured("a")]), "a")
    assert (item.url, item.overrides, item.origin) == ("store/a.mar", {"min_workers": 4}, Origin.MANIFEST)
    assert item.startup
    assert item.registration is row
    assert item.outcome is ReplayOutcome.PENDING


def test_a_configured_model_that_the_operator_unregistered_stays_out() -> None:
    row = changed("a", seq=12, state=RegistrationState.UNREGISTERED)
    item = item_of(make_plan(REPLAY, NO_FACTS, [row], [configured("a")]), "a")
    assert item.outcome is ReplayOutcome.SKIPPED
    assert item.error == "unregistered by the operator (journal entry 12)"


def test_a_tombstone_stays_out_whatever_version_the_archive_has_today() -> None:
    row = replace(changed("a", state=RegistrationState.UNREGISTERED), key=ModelKey("a", "0.9"))
    assert item_of(make_plan(REPLAY, NO_FACTS, [row], [configured("a")]), "a").outcome is ReplayOutcome.SKIPPED


def test_a_model_configured_since_is_loaded() -> None:
    item = item_of(make_plan(REPLAY, NO_FACTS, [api("a")], [configured("b")]), "b")
    assert (item.outcome, item.registration, item.startup) == (ReplayOutcome.PENDING, None, True)


def test_a_model_removed_from_the_configuration_since_is_not_loaded_and_said_so() -> None:
    plan = make_plan(REPLAY, NO_FACTS, [changed("a", overrides={"batch_size": 2})], [])
    item = item_of(plan, "a")
    assert item.outcome is ReplayOutcome.SKIPPED
    assert "no longer among the configured start-up models" in item.error
    assert any("Model a is not loaded" in note for note in plan.notes)


def test_the_api_s_row_wins_over_the_configuration_and_the_configured_one_is_shadowed() -> None:
    plan = make_plan(REPLAY, NO_FACTS, [api("a")], [configured("a")])
    outcomes = {(item.origin, item.url): item.outcome for item in plan.items}
    assert outcomes == {
        (Origin.API, "a.mar"): ReplayOutcome.PENDING,
        (Origin.MANIFEST, "store/a.mar"): ReplayOutcome.SHADOWED,
    }


def test_a_new_version_registered_after_an_unregistration_wins_over_the_configuration_too() -> None:
    old = changed("a", seq=1, state=RegistrationState.UNREGISTERED)
    new = replace(api("a", seq=2), key=ModelKey("a", "2.0"))
    plan = make_plan(REPLAY, NO_FACTS, [old, new], [configured("a")])
    assert sorted(item.outcome for item in plan.items) == ["pending", "shadowed", "skipped"]


def test_a_quarantined_registration_keeps_its_place_and_its_last_error() -> None:
    row = api("a", state=RegistrationState.QUARANTINED, charges=3, last_error="segfault")
    plan = make_plan(REPLAY, NO_FACTS, [row, api("b")], [])
    assert (item_of(plan, "a").outcome, item_of(plan, "a").error) == (ReplayOutcome.QUARANTINED, "segfault")
    assert item_of(plan, "b").outcome is ReplayOutcome.PENDING


@pytest.mark.parametrize(("today", "outcome"), [("old", "quarantined"), ("", "quarantined"), ("new", "pending")])
def test_a_new_archive_lifts_the_quarantine_of_a_configured_model(today: str, outcome: str) -> None:
    row = changed("a", state=RegistrationState.QUARANTINED, sha256="old", charges=3, last_error="x")
    plan = make_plan(REPLAY, NO_FACTS, [row], [configured("a", sha256=today)])
    assert item_of(plan, "a").outcome == outcome
    assert item_of(plan, "a").wave == 0


def test_a_configured_model_whose_archive_cannot_be_opened_fails_alone() -> None:
    plan = make_plan(
        REPLAY, NO_FACTS, [], [configured("a", error="Model not found in model store: a.mar"), configured("b")]
    )
    assert (item_of(plan, "a").outcome, item_of(plan, "b").outcome) == (ReplayOutcome.FAILED, ReplayOutcome.PENDING)
    assert item_of(plan, "a").error == "Model not found in model store: a.mar"


def test_a_name_configured_twice_is_loaded_once() -> None:
    plan = make_plan(REPLAY, NO_FACTS, [], [configured("a"), configured("a")])
    assert [(item.outcome.value, item.error) for item in plan.items] == [
        ("pending", ""),
        ("failed", "Model a is already registered."),
    ]


@pytest.mark.parametrize("decision", [Decision.CLEAN, Decision.MANIFEST])
def test_a_boot_that_begins_a_generation_loads_the_configured_models_only(decision: Decision) -> None:
    plan = make_plan(BootDecision(decision, "x"), died_loading("a"), [api("b")], [configured("a"), configured("c")])
    assert {(item.key.name, item.outcome) for item in plan.items} == {("a", "pending"), ("c", "pending")}
    assert plan.charges == ()
    assert item_of(plan, "a").wave == 1


def test_the_busiest_load_first_then_the_configured_then_by_journal_number() -> None:
    rows = [api("late", seq=9), api("early", seq=2), api("busy", seq=10, requests_seen=500)]
    rows.append(changed("warm", seq=11, requests_seen=20))
    plan = make_plan(REPLAY, NO_FACTS, rows, [configured("z"), configured("warm"), configured("y")])
    assert [item.key.name for item in plan.items] == ["busy", "warm", "z", "y", "early", "late"]


def test_safe_mode_loads_nothing_and_knows_everything() -> None:
    rows = [api("a"), api("gone", state=RegistrationState.UNREGISTERED)]
    plan = make_plan(replace(REPLAY, safe_mode=True), NO_FACTS, rows, [configured("b")])
    assert {item.key.name for item in plan.items} == {"a", "b", "gone"}
    assert all(item.outcome is ReplayOutcome.SKIPPED for item in plan.items)
    assert (item_of(plan, "a").error, item_of(plan, "b").error) == ("safe mode", "safe mode")


# --- suspects and charges ---------------------------------------------------------------------------------------------


def test_the_only_model_that_was_loading_is_charged_and_tried_once_more_alone_and_last() -> None:
    plan = make_plan(REPLAY, died_loading("a"), [api("a"), api("b")], [])
    (charge,) = plan.charges
    assert (charge.key.name, charge.sha256, charge.charges, charge.quarantine) == ("a", "sha-a", 1, False)
    assert "died while it loaded only this model" in charge.error
    assert [(item.key.name, item.wave, item.outcome.value) for item in plan.items] == [
        ("b", 0, "pending"),
        ("a", 1, "pending"),
    ]


def test_the_third_charge_quarantines() -> None:
    plan = make_plan(REPLAY, died_loading("a"), [api("a", charges=2), api("b")], [])
    (charge,) = plan.charges
    assert (charge.charges, charge.quarantine) == (3, True)
    item = item_of(plan, "a")
    assert (item.outcome, item.error) == (ReplayOutcome.QUARANTINED, charge.error)
    assert any("is quarantined" in note for note in plan.notes)


def test_several_that_were_loading_are_only_suspected_and_load_one_at_a_time_after_the_others() -> None:
    rows = [api("a", seq=1), api("b", seq=2, requests_seen=9), api("c", seq=3), api("d", seq=4, requests_seen=99)]
    plan = make_plan(REPLAY, died_loading("b", "d", "c"), rows, [])
    assert plan.charges == ()
    waves = {item.key.name: item.wave for item in plan.items}
    assert waves["a"] == 0
    assert sorted([waves["b"], waves["c"], waves["d"]]) == [1, 2, 3]
    assert waves["d"] < waves["b"] < waves["c"], "the busiest suspect first"


def test_an_attempt_with_another_digest_is_not_held_against_the_new_archive() -> None:
    plan = make_plan(REPLAY, died_loading("a", sha256="older"), [api("a", charges=2)], [])
    assert plan.charges == ()
    assert item_of(plan, "a").outcome is ReplayOutcome.PENDING


def test_a_model_unregistered_while_it_was_loading_is_not_charged() -> None:
    plan = make_plan(REPLAY, died_loading("a"), [api("a", state=RegistrationState.UNREGISTERED)], [])
    assert plan.charges == ()


def test_a_configured_model_without_a_row_can_be_charged() -> None:
    plan = make_plan(REPLAY, died_loading("a"), [], [configured("a", sha256="sha-a")])
    assert [(c.key.name, c.charges) for c in plan.charges] == [("a", 1)]


def test_charges_of_an_older_archive_do_not_count_for_a_configured_model() -> None:
    row = changed("a", sha256="old", charges=2)
    plan = make_plan(REPLAY, died_loading("a", sha256="new"), [row], [configured("a", sha256="new")])
    assert [(c.charges, c.sha256, c.quarantine) for c in plan.charges] == [(1, "new", False)]


def test_the_last_lone_attempt_is_charged_while_older_suspects_stay_suspected() -> None:
    facts = BootFacts(
        last=None,
        open_attempts=tuple(LoadAttempt(e, ModelKey(n, "1.0"), f"sha-{n}") for e, n in [(7, "a"), (7, "b"), (8, "a")]),
    )
    plan = make_plan(REPLAY, facts, [api("a"), api("b"), api("c")], [])
    assert [charge.key.name for charge in plan.charges] == ["a"]
    assert [(item.key.name, item.wave) for item in plan.items] == [("c", 0), ("b", 1), ("a", 2)]


def test_a_model_charged_before_loads_alone_even_after_a_death_of_another_cause() -> None:
    plan = make_plan(REPLAY, NO_FACTS, [api("a", charges=1), api("b")], [])
    assert [(item.key.name, item.wave) for item in plan.items] == [("b", 0), ("a", 1)]
    assert plan.charges == ()


def test_charges_are_made_in_safe_mode_too() -> None:
    plan = make_plan(replace(REPLAY, safe_mode=True), died_loading("a"), [api("a", charges=2)], [])
    assert plan.charges == (Charge(ModelKey("a", "1.0"), "sha-a", True, plan.charges[0].error, 3),)
    assert item_of(plan, "a").outcome is ReplayOutcome.QUARANTINED


def test_of_two_versions_of_a_name_only_the_last_word_is_loaded() -> None:
    """A new version that took the place of another one; the server died before or after the old row was touched."""
    old, new = api("a", seq=3), replace(api("a", seq=5), key=ModelKey("a", "2.0"))
    items = {item.key.version: item for item in make_plan(REPLAY, NO_FACTS, [old, new], []).items}
    assert items["2.0"].outcome is ReplayOutcome.PENDING
    assert items["1.0"].outcome is ReplayOutcome.SKIPPED
    assert "journal entry 5" in items["1.0"].error


def test_safe_mode_remembers_who_shall_load_alone_when_it_is_over() -> None:
    decision = replace(REPLAY, safe_mode=True)
    plan = make_plan(decision, died_loading("a", "b"), [api("a"), api("b", 2), api("c", 3)], [])
    assert [(item.key.name, item.wave) for item in plan.items] == [("c", 0), ("a", 1), ("b", 2)]
    assert {item.outcome for item in plan.items} == {ReplayOutcome.SKIPPED}
