"""A tiny slice of the benchmark, run as its users run it, so that it cannot rot; figures are looked at, never judged."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from benchmarks.fairness import Fairness
from benchmarks.recovery import Boots
from benchmarks.report import Goal, Results, goals, markdown
from benchmarks.rounds import Series
from benchmarks.soak import Sample, Soak

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_a_tiny_slice_of_this_server_alone_runs_and_reports(tmp_path: Path) -> None:
    run = subprocess.run(
        [
            *(str(ROOT / "scripts" / "bench"), "--quick", "--rounds", "1", "--peers", "none", "--bundled-client"),
            *("--workloads", "noop-8,mlp-16", "--sections", "load,fairness,boot", "--soak", "2000"),
            *("--out", str(tmp_path)),
        ],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "the bundled asyncio client" in run.stdout
    found = json.loads((tmp_path / "bench.json").read_text())
    assert list(found["workloads"]) == ["noop-8", "mlp-16"]
    for (series,) in found["workloads"].values():
        assert series["contender"] == "mms"
        assert series["errors"] == 0
        assert series["rate"][0] > 50
        assert 0 < series["p50"][0] <= series["p99"][0]
        assert series["cpu"][0] > 0
    assert 0 < found["fairness"]["alone_p50"][0] <= found["fairness"]["alone_p99"][0]
    assert found["fairness"]["batch"][0] > 1
    assert found["fairness"]["errors"] == 0
    assert found["soak"]["samples"][0]["requests"] == 0
    assert found["soak"]["samples"][-1]["requests"] >= 2000
    assert all(set(one["megabytes"]) == {"server", "fork server", "worker"} for one in found["soak"]["samples"])
    assert all(min(one["megabytes"].values()) > 5 for one in found["soak"]["samples"])
    (boots,) = found["boots"]
    assert boots["models"] == 20
    assert 0 < boots["first"][0] <= boots["last"][0]
    assert boots["processes"] >= 21
    assert boots["megabytes"][0] > 20
    assert (tmp_path / "bench.md").read_text().strip() == run.stdout.strip()
    assert "no-op, batch 8" in (tmp_path / "bench.svg").read_text()


def test_growth_is_counted_from_the_first_million_and_by_role() -> None:
    roles = ("server", "fork server", "worker")
    sizes = {
        0: (50.0, 10.0, 5.0),
        600_000: (60.0, 10.0, 5.0),
        1_100_000: (61.0, 10.0, 5.0),
        2_000_000: (63.5, 10.0, 5.5),
    }
    soak = Soak([Sample(count, dict(zip(roles, found, strict=True))) for count, found in sizes.items()])
    assert soak.growths == {"server": 2.5, "fork server": 0.0, "worker": 0.5}
    assert soak.growth == 3.0
    (goal,) = goals(Results({}, soak=soak))
    assert (goal.what, goal.met) == ("memory gained over 2,000,000 requests", True)


def test_a_light_model_is_fairly_served_where_it_waits_for_less_than_a_batch() -> None:
    waits = Fairness([0.1], [0.2], [0.2], [60.0], [50.0])
    (goal,) = goals(Results({}, fairness=waits))
    assert (round(goal.found, 3), goal.met) == (1.2, False)


def test_a_recovery_is_compared_with_the_slower_servers_in_their_own_shares() -> None:
    boots = [
        Boots(name, 20, first=[last], last=[last], megabytes=[megabytes])
        for name, last, megabytes in (("mms", 1.0, 170), ("multi-model-server", 4.0, 500), ("torchserve", 11.0, 3700))
    ]
    found = {goal.what.partition(": ")[2]: (round(goal.found, 3), goal.met) for goal in goals(Results({}, boots=boots))}
    assert found == {
        "first answer": (1.0, True),
        "time of multi-model-server": (0.25, True),
        "memory of multi-model-server": (0.34, True),
        "time of torchserve": (0.091, False),
    }


def series(contender: str, rate: float, cpu: float) -> Series:
    return Series(contender, [rate], [cpu], [1.0], [2.0], [3.0])


def test_a_goal_is_met_only_on_its_own_side() -> None:
    assert Goal("rate", 4.0, 4.0, True).met
    assert not Goal("rate", 3.99, 4.0, True).met
    assert Goal("cost", 1.0, 1.0, False).met
    assert not Goal("cost", 1.01, 1.0, False).met


def test_rates_are_compared_with_mosec_and_costs_with_the_cheapest_peer() -> None:
    results = Results({})
    results.workloads["noop-1"] = [
        series("mms", 30_000, 0.03),
        series("mosec", 10_000, 0.06),
        series("multi-model-server", 5_000, 0.02),
    ]
    found = {goal.what: (round(goal.found, 3), goal.met) for goal in goals(results)}
    assert found == {
        "no-op, batch 1, c=32: rate of mosec": (3.0, False),
        "no-op, batch 1, c=32: CPU of the cheapest peer": (1.5, False),
        "no-op, batch 1, c=32: p99 over p50": (2.0, True),
    }
    assert "| no-op, batch 1, c=32: rate of mosec | ≥ 4 × | 3 × | **no** |" in markdown(results)  # noqa: RUF001
