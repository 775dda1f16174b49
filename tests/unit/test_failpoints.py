"""Failpoints: off by default, armed by name, and every name in the table is a place in the code."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from mms import failpoints
from mms.failpoints import TABLE, FailpointReached, arm

CODE = Path(failpoints.__file__).parent


def test_without_the_variable_nothing_happens() -> None:
    arm("")("change.begun")


def test_an_armed_place_acts_and_the_others_do_not() -> None:
    act = arm("change.begun=raise,begin.after_commit=sleep:0.01")
    act("stop.begun")
    with pytest.raises(FailpointReached, match=r"change\.begun"):
        act("change.begun")
    began = time.monotonic()
    act("begin.after_commit")
    assert time.monotonic() - began >= 0.01


def test_a_count_means_just_that_time() -> None:
    act = arm("change.begun=raise@2")
    act("change.begun")
    with pytest.raises(FailpointReached):
        act("change.begun")
    act("change.begun")


@pytest.mark.parametrize("spec", ["nowhere=kill", "change.begun=explode", "change.begun"])
def test_what_cannot_be_meant_is_refused(spec: str) -> None:
    with pytest.raises(ValueError, match="MMS_FAILPOINTS"):
        arm(spec)


def test_the_table_and_the_code_name_the_same_places() -> None:
    named = {place.name for place in TABLE}
    assert len(named) == len(TABLE)
    code = "".join(file.read_text() for file in CODE.rglob("*.py") if file.name != "failpoints.py")
    literal = set(re.findall(r'reached\("([a-z_.]+)"\)', code))
    moments = {"before_commit", "after_commit", "after_witness"}
    by_commit = {name for name in named if name.partition(".")[2] in moments}
    assert named - by_commit == literal - by_commit
    assert {name.partition(".")[0] for name in by_commit} == {
        "claim",
        "running",
        "stopping",
        "clean",
        "begin",
        "finish",
        "pack",
    }
