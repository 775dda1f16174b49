"""Who killed the server: reads the load attempts that an earlier server left open; pure, no database, no clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mms.records import BootFacts, LoadAttempt, ModelKey, Registration


@dataclass(frozen=True, slots=True)
class Charge:
    """A model charged with the death of an earlier server; `quarantine` is True where that reached `quarantine_after`.

    `charges` is the count that the row has after this one, `sha256` the digest that it counts for.
    """

    key: ModelKey
    sha256: str
    quarantine: bool
    error: str
    charges: int = 1


@dataclass(frozen=True, slots=True)
class Suspicion:
    """What the open attempts mean for this boot.

    `alone` are the models that load one at a time, with the charges that each has: those with most load last.
    """

    charges: tuple[Charge, ...] = ()
    alone: Mapping[ModelKey, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def suspect(
    models: Sequence[tuple[ModelKey, str, Registration | None]],
    facts: BootFacts,
    *,
    charging: bool,
    quarantine_after: int,
) -> Suspicion:
    """Charge the only model that was loading when the last server died; of several, charge none and load each alone.

    `models` are those that this boot would load: key, digest (empty: not known), stored row. An attempt counts only for
    the digest it was made with: a new archive starts with a clean sheet. Whoever was charged before and has not loaded
    well since is kept apart too, so that it cannot hide among others. `charging` is False for a boot that has begun a
    new generation: there is no row yet to charge.
    """
    died = max((attempt.epoch for attempt in facts.open_attempts), default=0)
    under_way = [attempt for attempt in facts.open_attempts if attempt.epoch == died]
    charges: tuple[Charge, ...] = ()
    alone: dict[ModelKey, int] = {}
    for key, sha256, row in models:
        open_attempts = [attempt for attempt in facts.open_attempts if _same(attempt, key, sha256)]
        count = _charges_before(row, sha256)
        if charging and len(under_way) == 1 and under_way[0] in open_attempts:
            count += 1
            charges = (_charge(key, under_way[0], count, quarantine_after, facts),)
        if open_attempts or count:
            alone[key] = count
    suspected = [key for key, count in alone.items() if not count]
    return Suspicion(charges, alone, tuple(_notes(charges, suspected, died)))


def _same(attempt: LoadAttempt, key: ModelKey, sha256: str) -> bool:
    return attempt.key.name == key.name and (not sha256 or not attempt.sha256 or attempt.sha256 == sha256)


def _charges_before(row: Registration | None, sha256: str) -> int:
    if row is None or (sha256 and row.sha256 and row.sha256 != sha256):
        return 0
    return row.charges


def _charge(key: ModelKey, attempt: LoadAttempt, count: int, limit: int, facts: BootFacts) -> Charge:
    where = f"pid {facts.last.identity.pid} on {facts.last.identity.host}" if facts.last else "unknown process"
    who = (
        f"epoch {attempt.epoch}, {where}"
        if facts.last and facts.last.epoch == attempt.epoch
        else f"epoch {attempt.epoch}"
    )
    quarantine = 0 < limit <= count
    error = f"a server ({who}) died while it loaded only this model (charge {count} of {limit})"
    return Charge(key, attempt.sha256, quarantine, error, count)


def _notes(charges: Sequence[Charge], suspected: Sequence[ModelKey], died: int) -> list[str]:
    notes = [
        f"Model {charge.key.name} is charged: {charge.error}"
        + ("; it is quarantined until `mms quarantine clear` or a new archive" if charge.quarantine else "")
        for charge in charges
    ]
    if suspected:
        names = ", ".join(key.name for key in suspected)
        notes.append(
            f"A server (epoch {died}) died while it loaded several models; these are loaded one at a time: {names}"
        )
    return notes
