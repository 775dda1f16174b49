"""Which journal entry an override's value is shown with, in the life that set it and read off the journal afterwards."""

from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from mms.override_numbers import read_off, set_by
from mms.records import ChangeOutcome, JournalEntry, ModelKey, Operation, Origin, Registration, RegistrationState

ROW = Registration(ModelKey("m"), Origin.API, RegistrationState.ACTIVE)


def entry(seq, operation, overrides, *, state=RegistrationState.ACTIVE, outcome=ChangeOutcome.DONE, revision=None):
    after = replace(ROW, overrides=overrides, state=state, seq=seq, revision=revision or seq)
    return JournalEntry(seq, 1, 1, datetime.now(UTC), "me", "", operation, ROW.key, after, outcome)


def test_each_override_has_the_number_of_the_entry_that_gave_it_its_value():
    entries = [
        entry(1, Operation.REGISTER, {"batch_size": 2}),
        entry(2, Operation.UPDATE, {"batch_size": 2, "min_workers": 1}),
        entry(3, Operation.UPDATE, {"batch_size": 4, "min_workers": 1}),
    ]
    assert read_off(entries) == {"batch_size": 3, "min_workers": 2}


def test_a_value_said_again_keeps_its_number_and_one_taken_back_loses_it():
    entries = [
        entry(1, Operation.REGISTER, {"batch_size": 2, "max_workers": 3}),
        entry(2, Operation.UPDATE, {"batch_size": 2, "max_workers": 3}),
        entry(3, Operation.REMOVE_OVERRIDE, {"batch_size": 2}),
    ]
    assert read_off(entries) == {"batch_size": 1}


def test_a_new_registration_says_everything_anew():
    entries = [
        entry(1, Operation.REGISTER, {"batch_size": 2}),
        entry(2, Operation.UNREGISTER, {"batch_size": 2}, state=RegistrationState.UNREGISTERED),
        entry(3, Operation.REGISTER, {"batch_size": 2}),
    ]
    assert read_off(entries) == {"batch_size": 3}


def test_a_change_that_failed_gave_nothing_its_value():
    entries = [
        entry(1, Operation.REGISTER, {"batch_size": 2}),
        entry(2, Operation.UPDATE, {"batch_size": 4}, outcome=ChangeOutcome.FAILED),
        entry(3, Operation.UPDATE, {"batch_size": 2, "min_workers": 1}),
    ]
    assert read_off(entries) == {"batch_size": 1, "min_workers": 3}


def test_a_change_whose_server_died_before_it_knew_counts():
    entries = [
        entry(1, Operation.REGISTER, {"batch_size": 2}),
        entry(2, Operation.UPDATE, {"batch_size": 4}, outcome=ChangeOutcome.PENDING),
    ]
    assert read_off(entries) == {"batch_size": 2}


def test_what_was_set_before_the_journal_begins_has_no_number_until_it_changes():
    pruned = [
        entry(7, Operation.UPDATE, {"batch_size": 2, "min_workers": 1}),
        entry(8, Operation.UPDATE, {"batch_size": 2, "min_workers": 3}),
    ]
    assert read_off(pruned) == {"min_workers": 8}


OVERRIDES = st.dictionaries(st.sampled_from(["batch_size", "min_workers", "max_batch_delay"]), st.integers(1, 2))


@given(st.lists(st.tuples(st.sampled_from([Operation.REGISTER, Operation.UPDATE]), OVERRIDES), min_size=1, max_size=8))
def test_the_life_that_sets_them_and_a_reader_of_the_journal_agree(steps):
    entries = [entry(seq, operation, overrides) for seq, (operation, overrides) in enumerate(steps, start=1)]
    known, before = {}, None
    for each in entries:
        known = set_by(each.seq, each.operation, before, each.after, known)
        before = each.after

    assert read_off(entries) == known
    assert set(known) == set(steps[-1][1])
