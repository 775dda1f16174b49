"""The broken variants can still be made of today's code, and each has something that is to catch it."""

from __future__ import annotations

import compileall
from pathlib import Path

import pytest

from chaos.catalogue import BY_NAME, FAULTS
from chaos.crash_points import SCENARIOS
from chaos.mutations import MUTATIONS, Mutation, broken_copy


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_the_broken_copy_can_be_made_and_compiled(mutation: Mutation, tmp_path: Path) -> None:
    folder = broken_copy(mutation, tmp_path)
    for edit in mutation.edits:
        assert compileall.compile_file(folder / "mms" / edit.file, quiet=1)


def test_each_has_trials_that_exist() -> None:
    for mutation in MUTATIONS:
        assert mutation.trials or mutation.points or mutation.power_cut
        assert all(name in BY_NAME and store in BY_NAME[name].stores for name, store, _ in mutation.trials)
        assert set(mutation.points) <= set(SCENARIOS)


def test_no_two_faults_share_a_name() -> None:
    assert len(BY_NAME) == len(FAULTS)
