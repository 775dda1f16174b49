"""Cores and GPUs, as a container's files show them."""

import os

import pytest

from mms.config.machine import available_cores, available_gpus


@pytest.fixture
def cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    return 16


def tree(tmp_path, files):
    for name, text in files.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return available_cores(tmp_path / "proc", tmp_path / "cgroup")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 16),
        ({"proc/self/cgroup": "0::/\n", "cgroup/cpu.max": "max 100000\n"}, 16),
        ({"proc/self/cgroup": "0::/\n", "cgroup/cpu.max": "250000 100000\n"}, 3),
        ({"proc/self/cgroup": "0::/a/b\n", "cgroup/a/cpu.max": "200000 100000", "cgroup/a/b/cpu.max": "max 100000"}, 2),
        ({"proc/self/cgroup": "0::/host/path\n", "cgroup/cpu.max": "50000 100000"}, 1),
        ({"proc/self/cgroup": "4:memory:/x\n3:cpu,cpuacct:/x\n", "cgroup/cpu/x/cpu.cfs_quota_us": "400000",
          "cgroup/cpu/x/cpu.cfs_period_us": "100000"}, 4),
        ({"proc/self/cgroup": "3:cpu:/\n", "cgroup/cpu/cpu.cfs_quota_us": "-1", "cgroup/cpu/cpu.cfs_period_us": "100000"}, 16),
    ],
)  # fmt: skip
def test_cores_are_those_of_the_control_group(tmp_path, cores, files, expected):
    assert tree(tmp_path, files) == expected


def test_this_machine_has_cores():
    assert 1 <= available_cores() <= len(os.sched_getaffinity(0))


def test_gpus_are_counted_by_their_devices(tmp_path):
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    assert available_gpus(tmp_path) == 2
    assert available_gpus(tmp_path / "gone") == 0
