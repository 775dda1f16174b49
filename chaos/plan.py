"""Which trials a run makes, in which portions and in which order; pure."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from chaos import column
from chaos.trial import Fault

Key = tuple[str, str, int]
"""Fault, store and number: what a trial is told apart by."""


@dataclass(frozen=True, slots=True)
class Portion:
    """Trials `first` to `first + count - 1` of a fault on a store; they share one history."""

    fault: str
    store: str
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class Wish:
    """What the command line asks for. `trials` None: as many as a quick or a full run makes."""

    seed: int
    quick: bool = False
    store: str | None = None
    trials: int | None = None
    first: int = 1


def planned(faults: Sequence[Fault], wish: Wish, done: Collection[Key] = ()) -> list[Portion]:
    """All portions that are not done yet, of every fault in proportion: a run that is cut short has some of each."""
    placed: list[tuple[float, Portion]] = []
    for fault in faults:
        for store in stores(fault, wish):
            portions = list(_portions(fault, store, numbers(fault, store, wish), done))
            rng = random.Random(f"{wish.seed}/{fault.name}/{store}")
            placed += [((index + rng.random()) / len(portions), each) for index, each in enumerate(portions)]
    return [portion for _, portion in sorted(placed, key=lambda each: each[0])]


def stores(fault: Fault, wish: Wish) -> list[str]:
    """The databases to attack with a fault: in a quick run one of them, drawn with the seed."""
    if wish.store is not None:
        return [store for store in fault.stores if store == wish.store]
    if wish.quick:
        return [random.Random(f"{wish.seed}/{fault.name}").choice(fault.stores)]
    return list(fault.stores)


def numbers(fault: Fault, store: str, wish: Wish) -> range:
    """The trials that are wanted of a fault on a store."""
    own = fault.quick if wish.quick else column.trials(fault.name, store)
    return range(wish.first, wish.first + (own if wish.trials is None else wish.trials))


def _portions(fault: Fault, store: str, wanted: range, done: Collection[Key]) -> Iterator[Portion]:
    first = count = 0
    for number in wanted:
        missing = (fault.name, store, number) not in done
        if count and (not missing or count == fault.rounds or number != first + count):
            yield Portion(fault.name, store, first, count)
            count = 0
        if missing:
            first = number if count == 0 else first
            count += 1
    if count:
        yield Portion(fault.name, store, first, count)
