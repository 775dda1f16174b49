"""Turns what was measured into Markdown and JSON, with each goal's ratio beside it; decides nothing but met or missed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from benchmarks.fairness import BUSY, LIGHT, Fairness
from benchmarks.recovery import Boots
from benchmarks.rounds import Series
from benchmarks.soak import ROLES, WORKLOAD, Soak
from benchmarks.store_boot import JournalCost
from benchmarks.workloads import WORKLOADS, Workload

OURS, LOOP, MOSEC, ORIGINAL, TORCHSERVE = "mms", "loop", "mosec", "multi-model-server", "torchserve"


@dataclass
class Results:
    """Everything of one run."""

    conditions: dict[str, str]
    workloads: dict[str, list[Series]] = field(default_factory=dict)
    fairness: Fairness | None = None
    soak: Soak | None = None
    boots: list[Boots] = field(default_factory=list)
    onnx: Boots | None = None
    idle: dict[int, Series] = field(default_factory=dict)
    claim: dict[str, float] = field(default_factory=dict)
    journal: JournalCost | None = None


@dataclass(frozen=True)
class Goal:
    """One promise: what was found against what was asked, in the same unit."""

    what: str
    found: float
    asked: float
    at_least: bool
    unit: str = "×"

    @property
    def met(self) -> bool:
        """Whether it holds."""
        return self.found >= self.asked if self.at_least else self.found <= self.asked

    @property
    def row(self) -> str:
        """As a row of the table."""
        sign = "≥" if self.at_least else "≤"
        asked = f"{sign} {self.asked:g} {self.unit}"
        return f"| {self.what} | {asked} | {self.found:.3g} {self.unit} | {'yes' if self.met else '**no**'} |"


_AGAINST_MOSEC = {"noop-1": 4.0, "noop-8": 1.75, "mlp-1": 2.5, "mlp-16": 1.3, "noop-8-light": 20.0, "mlp-16-light": 4.0}
_AGAINST_LOOP = {"convnet-8": 0.97, "convnet-8x2": 0.95}
_LEAST_CPU = ("noop-1", "noop-8", "mlp-1", "mlp-16")


def goals(results: Results) -> list[Goal]:
    """Every goal that this run has the figures for."""
    return [*_rates(results), *_costs(results), *_tails(results), *_recovery(results), *_growth(results)]


def _named(series: Iterable[Series]) -> dict[str, Series]:
    return {one.contender: one for one in series}


def _rates(results: Results) -> Iterable[Goal]:
    for table, other in ((_AGAINST_MOSEC, MOSEC), (_AGAINST_LOOP, LOOP)):
        for name, asked in table.items():
            found = _named(results.workloads.get(name, ()))
            if OURS in found and other in found:
                # Round by round: both met the same minutes of the machine.
                pairs = zip(found[OURS].rate, found[other].rate, strict=True)
                yield Goal(f"{_title(name)}: rate of {other}", median(a / b for a, b in pairs), asked, True)


def _costs(results: Results) -> Iterable[Goal]:
    for name in _LEAST_CPU:
        found = _named(results.workloads.get(name, ()))
        peers = [one.median_cpu for key, one in found.items() if key not in (OURS, LOOP)]
        if OURS in found and peers:
            yield Goal(f"{_title(name)}: CPU of the cheapest peer", found[OURS].median_cpu / min(peers), 1.0, False)


def _tails(results: Results) -> Iterable[Goal]:
    for name, series in results.workloads.items():
        workload = _workload(name)
        found = _named(series)
        if workload.clients == 32 and OURS in found:
            yield Goal(f"{workload.title}: p99 over p50", found[OURS].tail, 2.5, False)
    if results.fairness is not None:
        what = f"{LIGHT.title}, beside {BUSY.title}: p99 by the clock in batches of the other"
        yield Goal(what, results.fairness.share, 1.0, False)


def _recovery(results: Results) -> Iterable[Goal]:
    found = {one.contender: one for one in results.boots}
    ours, original, torchserve = found.get(OURS), found.get(ORIGINAL), found.get(TORCHSERVE)
    if ours is not None:
        yield Goal("20 models after SIGKILL: first answer", median(ours.first), 1.0, False, "s")
    if ours is not None and original is not None:
        yield Goal(f"20 models after SIGKILL: time of {ORIGINAL}", ours.seconds / original.seconds, 0.333, False)
        share = median(ours.megabytes) / median(original.megabytes)
        yield Goal(f"20 models after SIGKILL: memory of {ORIGINAL}", share, 0.6, False)
    if ours is not None and torchserve is not None:
        yield Goal(f"20 models after SIGKILL: time of {TORCHSERVE}", ours.seconds / torchserve.seconds, 0.083, False)
    if results.onnx is not None:
        many = results.onnx
        yield Goal(f"{many.models} ONNX models: boot, each", 1000 * many.seconds / many.models, 25, False, "ms")
        yield Goal(f"{many.models} ONNX models: PSS of a worker", median(many.worker_megabytes), 12, False, "MB")
    if results.claim:
        seconds = results.claim["claim"] + results.claim["snapshot"]
        yield Goal("claim, decision and snapshot with 1,000 stored rows", 1000 * seconds, 200, False, "ms")


def _growth(results: Results) -> Iterable[Goal]:
    rates = {count: one.median_rate for count, one in results.idle.items()}
    if len(rates) > 1:
        base = rates[min(rates)]
        for count, rate in rates.items():
            if rate is not base:
                yield Goal(f"throughput beside {count} idle models", rate / base, 0.9, True)
    if results.soak is not None:
        sent = results.soak.samples[-1].requests
        yield Goal(f"memory gained over {sent:,} requests", results.soak.growth, 3.0, False, "MB")
    if (cost := results.journal) is not None:
        yield Goal(f"boot with a journal of {cost.entries:,} entries", cost.boot / cost.empty_boot, 1.1, False)
        change = cost.change / cost.empty_change
        yield Goal(f"registration with a journal of {cost.entries:,} entries", change, 1.1, False)


def _workload(name: str) -> Workload:
    return next(one for one in WORKLOADS if one.name == name)


def _title(name: str) -> str:
    return _workload(name).title


# --- Markdown ---------------------------------------------------------------------------------------------------------


def markdown(results: Results) -> str:
    """The whole report."""
    parts = [
        "| | |\n|---|---|\n" + "\n".join(f"| {key} | {value} |" for key, value in results.conditions.items()),
        _goal_table(goals(results)),
        *(_workload_table(name, series) for name, series in results.workloads.items()),
    ]
    if results.fairness is not None:
        parts.append(_fairness(results.fairness))
    if results.soak is not None:
        parts.append(_soak(results.soak))
    if results.boots:
        parts.append(_boot_table(results.boots))
    if results.onnx is not None:
        parts.append(_onnx(results.onnx))
    if results.idle:
        parts.append(_idle(results.idle))
    if results.claim or results.journal:
        parts.append(_store(results))
    return "\n\n".join(parts) + "\n"


def _goal_table(found: Sequence[Goal]) -> str:
    rows = "\n".join(goal.row for goal in found)
    return f"### Goals\n\n| | asked | found | met |\n|---|---|---|---|\n{rows}"


def _workload_table(name: str, series: Sequence[Series]) -> str:
    rows = []
    for one in series:
        span = f"{min(one.rate):,.0f} – {max(one.rate):,.0f}"
        tail = f"{median(one.p50):.2f} / {median(one.p99):.2f}" if one.p50 else ""
        by_clock = f"{median(one.p99_by_clock):.2f}" if one.p99_by_clock else ""
        rows.append(
            f"| {one.contender} | {one.median_rate:,.0f} | {span} | {one.median_cpu:.3f} | {tail} | {by_clock} "
            f"| {one.errors or ''} |"
        )
    columns = ("", "requests/s", "min – max", "CPU-s per 1,000", "p50 / p99 ms", "p99 by the clock", "errors")
    head = f"|{'|'.join(f' {one} ' if one else ' ' for one in columns)}|\n{'|---' * len(columns)}|\n"
    return f"### {_title(name)}\n\n{head}" + "\n".join(rows)


def _fairness(found: Fairness) -> str:
    rows = "\n".join(
        f"| {where} | {median(p50):.2f} | {median(p99):.2f} | {min(p99):.2f} – {max(p99):.2f} |"
        for where, p50, p99 in (
            ("alone", found.alone_p50, found.alone_p99),
            ("beside", found.beside_p50, found.beside_p99),
        )
    )
    head = "| | p50, ms | p99 by the clock, ms | min – max |\n|---|---|---|---|\n"
    return (
        f"### {LIGHT.title}, alone and beside {BUSY.title}\n\n{head}{rows}\n\n"
        f"A batch of the busy model takes {median(found.batch):.0f} ms, and four of them are always waiting; "
        f"errors: {found.errors}."
    )


def _soak(found: Soak) -> str:
    rows = "\n".join(
        f"| {one.requests:,} | " + " | ".join(f"{one.megabytes[role]:.1f}" for role in ROLES) + f" | {one.total:.1f} |"
        for one in found.samples
    )
    grown = ", ".join(f"{role} {size:+.1f} MB" for role, size in found.growths.items())
    return (
        f"### Memory over {found.samples[-1].requests:,} requests ({WORKLOAD.title})\n\n"
        f"| requests | {' | '.join(f'{role}, MB' for role in ROLES)} | all |\n|---|---|---|---|---|\n{rows}\n\n"
        f"Growth once a million had been answered: {found.growth:+.1f} MB ({grown}); "
        f"{found.seconds:.0f} s, errors: {found.errors}."
    )


def _boot_table(boots: Sequence[Boots]) -> str:
    rows = [
        f"| {one.contender} | {median(one.first):.2f} | {one.seconds:.2f} | {min(one.last):.2f} – {max(one.last):.2f} "
        f"| {median(one.megabytes):.0f} | {one.processes} |"
        for one in boots
    ]
    head = "| | first answer, s | all, s | min – max | PSS, MB | processes |\n|---|---|---|---|---|---|\n"
    return f"### Boot until each of {boots[0].models} no-op models has answered\n\n{head}" + "\n".join(rows)


def _onnx(boots: Boots) -> str:
    return (
        f"### {boots.models} small ONNX models, one worker each, after SIGKILL\n\n"
        f"First answer after {median(boots.first):.2f} s, all after {boots.seconds:.2f} s "
        f"({1000 * boots.seconds / boots.models:.1f} ms a model); {median(boots.worker_megabytes):.1f} MB PSS a worker, "
        f"{median(boots.megabytes):.0f} MB in {boots.processes} processes in all."
    )


def _idle(idle: Mapping[int, Series]) -> str:
    rows = "\n".join(f"| {count} | {one.median_rate:,.0f} | {one.median_cpu:.3f} |" for count, one in idle.items())
    head = "| idle models, a worker each | requests/s | CPU-s per 1,000 |\n|---|---|---|\n"
    return f"### No-op, batch 8 / 5 ms, c=32, beside idle models\n\n{head}{rows}"


def _store(results: Results) -> str:
    lines = []
    if results.claim:
        found = ", ".join(f"{key} {1000 * value:.0f} ms" for key, value in results.claim.items() if key != "rows")
        lines.append(f"With {results.claim['rows']:.0f} stored registrations: {found} (`open` verifies the store).")
    if (cost := results.journal) is not None:
        lines.append(
            f"With {cost.entries:,} journal entries (and with none): boot {cost.boot:.2f} s ({cost.empty_boot:.2f} s), "
            f"a registration {1000 * cost.change:.1f} ms ({1000 * cost.empty_change:.1f} ms)."
        )
    return "### The store\n\n" + "\n".join(lines)


# --- JSON -------------------------------------------------------------------------------------------------------------


def as_json(results: Results) -> str:
    """Every figure of every round, and the goals."""
    document: dict[str, Any] = asdict(results)
    document["goals"] = [{**asdict(goal), "met": goal.met} for goal in goals(results)]
    return json.dumps(document, indent=2)
