"""Every fault there is, in the order in which they are run."""

from __future__ import annotations

from chaos.faults import (
    disk,
    files,
    identities,
    io_errors,
    kills,
    places,
    poison,
    postgres,
    starters,
    stops,
    timings,
    upgrades,
    workers,
)
from chaos.trial import Fault

FAULTS: tuple[Fault, ...] = (
    *kills.FAULTS,
    *stops.FAULTS,
    *workers.FAULTS,
    *poison.FAULTS,
    *files.FAULTS,
    *disk.FAULTS,
    *io_errors.FAULTS,
    *starters.FAULTS,
    *identities.FAULTS,
    *upgrades.FAULTS,
    *postgres.FAULTS,
    *timings.FAULTS,
    *places.FAULTS,
)

BY_NAME = {fault.name: fault for fault in FAULTS}


def chosen(names: str) -> list[Fault]:
    """The faults whose names are in a comma-separated list, or begin with one of its words that ends in `*`.

    Raises ValueError for a name that fits none.
    """
    found: list[Fault] = []
    for word in names.split(","):
        fitting = [
            fault
            for fault in FAULTS
            if fault.name == word or (word.endswith("*") and fault.name.startswith(word.removesuffix("*")))
        ]
        if not fitting:
            raise ValueError(f"there is no fault {word}; scripts/chaos --list shows them")
        found += [fault for fault in fitting if fault not in found]
    return found
