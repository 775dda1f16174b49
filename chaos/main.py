"""The command behind scripts/chaos: which trials, in which order, and what is printed; exit 0 where the promise held."""

from __future__ import annotations

import argparse
import random
import signal
import sys
import time
from pathlib import Path

from chaos import crash_points, mutations, power_cuts
from chaos.catalogue import FAULTS, chosen
from chaos.database import Databases
from chaos.leaks import adopt_orphans
from chaos.report import Points, Report
from chaos.trial import POSTGRES, SQLITE, Fault, run_trial

QUICK_POINTS = 16
"""Crash points of each scenario in a quick run, drawn with the seed; a full one takes them all."""


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a slice of every fault, under 4 minutes")
    parser.add_argument("--seed", type=int, help="draw everything from this number (default: a new one, printed)")
    parser.add_argument("--faults", default="", help="names, comma-separated; at-* means all that begin so")
    parser.add_argument("--store", choices=(SQLITE, POSTGRES), help="only this one")
    parser.add_argument("--trials", type=int, help="this many of each fault, in place of its own number")
    parser.add_argument("--first", type=int, default=1, help="number of the first trial: repeats a single one")
    parser.add_argument("--minutes", type=float, help="begin no further trial after this time")
    parser.add_argument("--no-crash-points", action="store_true", help="leave out the exact crash points (strace)")
    parser.add_argument("--crash-points", action="store_true", help="only the exact crash points")
    parser.add_argument("--mutations", action="store_true", help="prove that broken variants are caught")
    parser.add_argument("--only", default="", help="with --mutations: names, comma-separated")
    parser.add_argument("--out", type=Path, help="write chaos.md and chaos.json there")
    parser.add_argument("--evidence", type=Path, default=Path("chaos-evidence"), help="where violations are kept")
    parser.add_argument("--list", action="store_true", help="name the faults and leave")
    return parser


def main() -> int:
    """Run what was asked for."""
    options = arguments().parse_args()
    if options.list:
        for fault in FAULTS:
            print(f"{fault.name:34} {'/'.join(fault.stores):16} {fault.what}")
        return 0
    try:
        faults = chosen(options.faults) if options.faults else list(FAULTS)
    except ValueError as error:
        print(f"scripts/chaos: {error}", file=sys.stderr)
        return 2
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    adopt_orphans()
    signal.signal(
        signal.SIGTERM, lambda _number, _frame: sys.exit(128 + signal.SIGTERM)
    )  # servers and databases end too
    print(f"seed {seed}", flush=True)
    if options.mutations:
        return mutations.prove(seed, options.evidence, options.only, options.out)
    report = Report(seed)
    if not options.crash_points:
        run_faults(faults, report, options)
    if not options.no_crash_points and not options.faults:
        run_points(report, seed, quick=options.quick)
    print("\n" + report.as_markdown(faults))
    if options.out:
        report.write(options.out, faults)
    return 0 if report.held else 1


def run_faults(faults: list[Fault], report: Report, options: argparse.Namespace) -> None:
    """Trial after trial, each printed as it ends."""
    databases = Databases()
    began = time.monotonic()
    try:
        for fault in faults:
            if why := fault.missing():
                report.not_run[fault.name] = why
                continue
            own = fault.quick if options.quick else fault.full
            count = own if options.trials is None else options.trials
            for store in _stores(fault, report.seed, options):
                for number in range(options.first, options.first + count):
                    if options.minutes is not None and time.monotonic() - began > 60 * options.minutes:
                        report.not_run.setdefault(f"{fault.name} on {store}", "the time was over")
                        break
                    run_one(fault, store, number, report, databases, options.evidence)
    finally:
        databases.close()


def _stores(fault: Fault, seed: int, options: argparse.Namespace) -> list[str]:
    """The databases to attack with a fault: in a quick run one of them, drawn with the seed."""
    if options.store is not None:
        return [store for store in fault.stores if store == options.store]
    if options.quick:
        return [random.Random(f"{seed}/{fault.name}").choice(fault.stores)]
    return list(fault.stores)


def run_one(fault: Fault, store: str, number: int, report: Report, databases: Databases, evidence: Path) -> None:
    """One trial, told in one line."""
    command = (
        f"scripts/chaos --seed {report.seed} --faults {fault.name} --store {store} --first {number} --trials 1"
        " --no-crash-points"
    )
    verdict = run_trial(fault, store, number, report.seed, databases, evidence, command=command)
    report.verdicts.append(verdict)
    word = "held" if verdict.held else "BROKEN" if verdict.violation else "ERROR"
    print(f"{word:7} {fault.name:34} {store:9} #{number:<4} {verdict.seconds:6.1f} s  {verdict.counts}", flush=True)
    if not verdict.held:
        print(f"{(verdict.violation or verdict.error).strip()}\n  evidence: {verdict.evidence}", flush=True)


def run_points(report: Report, seed: int, *, quick: bool) -> None:
    """The exact crash points, scenario by scenario."""
    if why := crash_points.missing():
        report.not_run["exact crash points"] = why
        return
    for scenario in crash_points.SCENARIOS:
        if not quick:
            _told(power_cuts.cut(scenario), report)
        found = crash_points.walk(scenario, random.Random(f"{seed}/{scenario}"), QUICK_POINTS if quick else None)
        _told(found, report)


def _told(found: Points, report: Report) -> None:
    report.points.append(found)
    word = "BROKEN" if found.violations else "held"
    print(f"{word:7} {found.scenario}: {found.points} system calls", flush=True)
    for text in found.violations:
        print(f"  {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
