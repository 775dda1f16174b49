"""Which journal entry gave each override its value: read off the journal's after-images; pure, no store, no clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mms.records import ChangeOutcome, JournalEntry, Operation, Registration


def set_by(
    seq: int, operation: Operation, before: Registration | None, after: Registration, known: Mapping[str, int]
) -> dict[str, int]:
    """The numbers after one change. An override keeps its number for as long as it keeps its value, through a scaling,
    say, or when the same value is said again; a new registration says everything anew.

    An override that was there before and has no `known` number stays without one.
    """
    fresh = operation is Operation.REGISTER or before is None or not before.wanted
    numbers: dict[str, int] = {}
    for option, value in after.overrides.items():
        if fresh or before is None or option not in before.overrides or before.overrides[option] != value:
            numbers[option] = seq
        elif option in known:
            numbers[option] = known[option]
    return numbers


def read_off(entries: Iterable[JournalEntry]) -> dict[str, int]:
    """The numbers of one model's overrides, from its entries of one generation, ascending; failed changes do not count.

    Of a journal whose beginning was pruned, what was set before that has no number.
    """
    numbers: dict[str, int] = {}
    before: Registration | None = None
    for entry in entries:
        if entry.outcome is ChangeOutcome.FAILED:
            continue
        if before is None and entry.after.revision > 1 and entry.operation is not Operation.REGISTER:
            before = entry.after  # what came before it was pruned: its own values may be older than it
            continue
        numbers = set_by(entry.seq, entry.operation, before, entry.after, numbers)
        before = entry.after
    return numbers
