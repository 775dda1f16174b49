"""The command behind scripts/chaos: which trials, in which order, and what is printed; exit 0 where the promise held."""

from __future__ import annotations

import argparse
import random
import signal
import sys
import time
from pathlib import Path

from chaos import block_cuts, crash_points, mutations, power_cuts
from chaos.catalogue import FAULTS, chosen
from chaos.column import POSTGRES, SQLITE
from chaos.jobs import Jobs
from chaos.leaks import adopt_orphans
from chaos.plan import Wish, numbers, planned, stores
from chaos.report import Report
from chaos.results import Points, Results, commit_under_test, outcome
from chaos.site import package_folder
from chaos.trial import Fault, Verdict

QUICK_POINTS = 16
"""Crash points of each scenario in a quick run, drawn with the seed; a full one takes them all."""
QUICK_CUTS = 4
MOST_JOBS = 30


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a slice of every fault, under 4 minutes")
    parser.add_argument("--seed", type=int, help="draw everything from this number (default: a new one, printed)")
    parser.add_argument("--faults", default="", help="names, comma-separated; at-* means all that begin so")
    parser.add_argument("--store", choices=(SQLITE, POSTGRES), help="only this one")
    parser.add_argument("--trials", type=int, help="this many of each fault, in place of its own number")
    parser.add_argument("--first", type=int, default=1, help="number of the first trial: repeats a single one")
    parser.add_argument(
        "--jobs", type=int, default=1, choices=range(1, MOST_JOBS + 1), metavar="N", help="trials at once"
    )
    parser.add_argument(
        "--results", type=Path, help="go on with what this file does not hold yet, and report all of it"
    )
    parser.add_argument("--minutes", type=float, help="begin no further trial after this time")
    parser.add_argument("--no-crash-points", action="store_true", help="leave out the exact crash points (strace)")
    parser.add_argument("--crash-points", action="store_true", help="only the exact crash points")
    parser.add_argument("--mutations", action="store_true", help="prove that broken variants are caught")
    parser.add_argument("--only", default="", help="with --mutations: names, comma-separated")
    parser.add_argument("--report", action="store_true", help="run nothing: only report what --results holds")
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
    signal.signal(
        signal.SIGTERM, lambda _number, _frame: sys.exit(128 + signal.SIGTERM)
    )  # servers and databases end too
    if options.mutations:
        adopt_orphans()
        print(f"seed {seed}", flush=True)
        return mutations.prove(seed, options.evidence, options.only, options.out)
    results = Results.of(options.results, seed)
    if options.seed is not None:
        results.seed = options.seed
    print(f"seed {results.seed}", flush=True)
    report = Report(results)
    if not options.crash_points and not options.report:
        run_faults(faults, report, options)
    if not options.no_crash_points and not options.faults and not options.report:
        run_points(report, quick=options.quick)
    print("\n" + report.as_markdown(faults))
    if options.out:
        report.write(options.out, faults)
    return 0 if results.held else 1


def run_faults(faults: list[Fault], report: Report, options: argparse.Namespace) -> None:
    """All trials that are missing, each printed as it ends."""
    results = report.results
    wish = Wish(results.seed, options.quick, options.store, options.trials, options.first)
    possible = []
    for fault in faults:
        if not (why := fault.missing()):
            possible.append(fault)
        elif any(numbers(fault, store, wish) for store in stores(fault, wish)):
            report.not_run[fault.name] = why
    until = None if options.minutes is None else time.monotonic() + 60 * options.minutes

    def told(verdict: Verdict) -> None:
        results.add(verdict, commit_under_test(package_folder()))
        print_verdict(verdict)

    left = Jobs(options.jobs, results.seed, options.evidence).run(planned(possible, wish, results.done), told, until)
    if left:
        report.not_run[f"{left} trials"] = "the time was over"


def print_verdict(verdict: Verdict) -> None:
    """One line, and what was wrong below it."""
    word = outcome(verdict)
    said = " ".join(f"{name} {number}" for name, number in sorted(verdict.counts.items()))
    print(
        f"{word if word == 'held' else word.upper():7} {verdict.fault:34} {verdict.store:9} #{verdict.number:<4} "
        f"{verdict.seconds:6.1f} s  {said}",
        flush=True,
    )
    if not verdict.held:
        print(f"{(verdict.violation or verdict.error).strip()}\n  evidence: {verdict.evidence}", flush=True)


def run_points(report: Report, *, quick: bool) -> None:
    """The exact crash points and the power cuts, scenario by scenario."""
    results = report.results
    if why := block_cuts.missing():
        report.not_run[block_cuts.WHAT] = why
    if lacking := crash_points.missing():
        report.not_run[f"{crash_points.WHAT}; {power_cuts.WHAT}"] = lacking
    for scenario in crash_points.SCENARIOS:
        if not why and not results.walked(block_cuts.WHAT, scenario):
            most = QUICK_CUTS if quick else None
            _told(block_cuts.cut(scenario, f"{results.seed}/{scenario}", most), results)
        if lacking:
            continue
        if not quick and not results.walked(power_cuts.WHAT, scenario):
            _told(power_cuts.cut(scenario), results)
        if not results.walked(crash_points.WHAT, scenario):
            rng = random.Random(f"{results.seed}/{scenario}")
            _told(crash_points.walk(scenario, rng, QUICK_POINTS if quick else None), results)


def _told(found: Points, results: Results) -> None:
    results.add_points(found, commit_under_test(package_folder()))
    word = "BROKEN" if found.violations else "held"
    print(f"{word:7} {found.what}, {found.scenario}: {found.points} in {found.seconds:.0f} s", flush=True)
    for text in found.violations:
        print(f"  {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
