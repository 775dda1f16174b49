"""The command behind `scripts/bench`: what to run is read here, the rest is done by the rooms beside it."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlencode

import psutil

from benchmarks import chart, report
from benchmarks.contenders import DEFAULT_PEERS, PEERS, Contender, Ours
from benchmarks.fairness import light_beside_busy
from benchmarks.load import Generator
from benchmarks.recovery import NoopBoots, hundred_onnx_models
from benchmarks.rounds import Bench, Plan, Series
from benchmarks.soak import soak
from benchmarks.store_boot import claim_times, journal_cost
from benchmarks.workloads import WORKLOADS, Material

IDLE_MODELS = (1, 8, 64, 512)
SECTIONS = ("load", "fairness", "boot", "onnx", "idle", "store")


def progress(line: str) -> None:
    """One line for whoever waits."""
    print(line, file=sys.stderr, flush=True)


def arguments(words: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    names = [one.name for one in WORKLOADS]
    parser.add_argument("--quick", action="store_true", help="a short real run: 2 rounds of 1 s, small counts")
    parser.add_argument("--rounds", type=int, help="interleaved rounds (5; 2 with --quick)")
    parser.add_argument("--seconds", type=float, help="of load a round (5; 1 with --quick)")
    parser.add_argument(
        "--peers", default=",".join(DEFAULT_PEERS), help=f"servers to compare with, or none ({','.join(PEERS)})"
    )
    parser.add_argument("--workloads", default=",".join(names), help=f"({','.join(names)})")
    parser.add_argument("--sections", default=",".join(SECTIONS), help=f"({','.join(SECTIONS)})")
    parser.add_argument(
        "--soak", type=int, default=0, metavar="REQUESTS", help="also watch the memory over so many requests"
    )
    parser.add_argument("--bundled-client", action="store_true", help="even where wrk is installed")
    parser.add_argument("--out", type=Path, help="folder for bench.md, bench.json and bench.svg (not written without)")
    given = parser.parse_args(words)
    given.rounds = given.rounds or (2 if given.quick else 5)
    given.seconds = given.seconds or (1.0 if given.quick else 5.0)
    for option, known in (("peers", [*PEERS, "none"]), ("workloads", names), ("sections", SECTIONS)):
        chosen = [name for name in getattr(given, option).split(",") if name]
        for name in chosen:
            if name not in known:
                parser.error(f"--{option}: {name} is not one of {', '.join(known)}")
        setattr(given, option, [name for name in chosen if name != "none"])
    return given


def main(words: Sequence[str]) -> int:
    """Run what was asked for; 0 whatever the figures are."""
    given = arguments(words)
    contenders: list[Contender] = [Ours(), *(PEERS[name]() for name in given.peers)]
    for contender in contenders:
        contender.prepare()
    with tempfile.TemporaryDirectory(prefix="mms-bench-") as name:
        folder = Path(name)
        material = Material(folder / "material")
        generator = Generator(folder, bundled=given.bundled_client)
        results = report.Results(conditions(contenders, generator, given))
        run(given, folder, material, generator, contenders, results)
    results.conditions["load average at the end"] = f"{os.getloadavg()[0]:.1f}"
    text = report.markdown(results)
    print(text)
    if given.out is not None:
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / "bench.md").write_text(text)
        (given.out / "bench.json").write_text(report.as_json(results))
        if results.workloads:
            (given.out / "bench.svg").write_text(chart.draw(results.workloads))
    return 0


def run(
    given: argparse.Namespace,
    folder: Path,
    material: Material,
    generator: Generator,
    contenders: Sequence[Contender],
    results: report.Results,
) -> None:
    """The chosen sections, one after the other."""
    bench = Bench(folder / "load", material, generator, Plan(given.rounds, given.seconds), progress)
    if "load" in given.sections:
        for workload in WORKLOADS:
            if workload.name in given.workloads:
                loop = workload.model == "convnet"
                results.workloads[workload.name] = bench.measure(workload, contenders, loop=loop)
    if "fairness" in given.sections:
        results.fairness = light_beside_busy(
            folder / "fairness", material, generator, given.rounds, given.seconds, progress
        )
    if given.soak:
        results.soak = soak(folder / "soak", material, generator, given.soak, progress)
    if "boot" in given.sections:
        boots = NoopBoots(folder / "boot", material, progress)
        results.boots = boots.measure(contenders, 1 if given.quick else 3)
    if "onnx" in given.sections:
        models, rounds = (10, 1) if given.quick else (100, 3)
        results.onnx = hundred_onnx_models(folder / "onnx", material, rounds, progress, models)
    if "idle" in given.sections:
        counts = IDLE_MODELS[:2] if given.quick else IDLE_MODELS
        results.idle = beside_idle_models(folder / "idle", material, bench, counts)
    if "store" in given.sections:
        rows, entries = (100, 2_000) if given.quick else (1_000, 100_000)
        results.claim = claim_times(folder / "claim", rows, 1 if given.quick else 5, progress)
        results.journal = journal_cost(folder / "journal", material, entries, 1 if given.quick else 11, progress)


def beside_idle_models(folder: Path, material: Material, bench: Bench, counts: Sequence[int]) -> dict[int, Series]:
    """The busy no-op model in one server each with so many idle ones, measured in turns."""
    workload = next(one for one in WORKLOADS if one.name == "noop-8")
    ours = Ours()
    with ExitStack() as stack:
        served = {}
        for count in counts:
            running, url = ours.start(folder / str(count), material, workload)
            stack.callback(running.end)
            management = (folder / str(count) / "config.properties").read_text().splitlines()[1].partition("=")[2]
            for number in range(count):
                wish = {"url": "noop", "model_name": f"idle{number}", "initial_workers": 1, "synchronous": "true"}
                running.wait("POST", f"{management}/models?{urlencode(wish)}")
            served[count] = (running, url)
            progress(f"{count} idle models are up")
        return dict(zip(counts, bench.turns(workload, list(served.values())), strict=True))


def conditions(contenders: Sequence[Contender], generator: Generator, given: argparse.Namespace) -> dict[str, str]:
    """What the figures were taken on."""
    longest = max(one.longer for one in WORKLOADS)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{_processor()}, {os.cpu_count()} cores, {psutil.virtual_memory().total / 1e9:.0f} GB, Linux {platform.release()}",
        "python": platform.python_version(),
        "servers": ", ".join(one.version for one in contenders),
        "load": f"{generator.name}, on the same cores; {given.rounds} interleaved rounds of {given.seconds:g} s "
        f"({longest * given.seconds:g} s where a batch takes tens of milliseconds); medians",
        "load average at the start": f"{os.getloadavg()[0]:.1f}",
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return json.dumps(platform.machine())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
