"""SIGKILL of a newer server while it brings an older store's schema up to date: the old schema or the new, and nothing lost."""

from __future__ import annotations

import shutil
from pathlib import Path

from chaos.faults.kills import crash_booting
from chaos.site import package_folder
from chaos.trial import Fault, Trial
from mms.store import upgrade

PAUSE = 0.08
"""Seconds between two statements of the migration, so that a kill has a good chance to fall between them."""

NEXT = """
import time
import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{before}"

def upgrade():
    op.add_column("registration", sa.Column("note_{revision}", sa.Text))
    time.sleep({pause})
    op.create_table("extra_{revision}", sa.Column("id", sa.Integer, primary_key=True))
    time.sleep({pause})
    op.add_column("journal", sa.Column("note_{revision}", sa.Text))
    time.sleep({pause})
"""


def killed_while_upgrading(trial: Trial) -> None:
    """Each trial brings one more revision; its first boots are killed at random moments, the last one must be right."""
    newer = trial.folder / "newer"
    _copy_package(newer)
    with trial.story(config={"store_auto_upgrade": "true"}) as story:
        story.boot()
        story.site.environment["PYTHONPATH"] = str(newer)
        for rng in trial.rounds():
            story.load().wait_for(rng.randrange(2, 6))
            story.kill()
            _add_revision(newer / "migrations")
            for _ in range(rng.randrange(1, 4)):
                crash_booting(story, rng, earliest=0.25, latest=1.0)
            story.boot()


def _copy_package(folder: Path) -> None:
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(package_folder() / "mms", folder / "mms", ignore=ignore)
    shutil.copytree(package_folder() / "migrations", folder / "migrations", ignore=ignore)


def _add_revision(folder: Path) -> None:
    known = upgrade.revisions(folder)
    revision = f"{int(known[-1]) + 1:04d}"
    text = NEXT.format(revision=revision, before=known[-1], pause=PAUSE)
    (folder / "versions" / f"{revision}_next.py").write_text(text)


FAULTS = (
    Fault(
        "upgrade-kill",
        killed_while_upgrading,
        quick=1,
        rounds=5,
        what="1 to 3 SIGKILLs of a newer server that upgrades the store's schema",
    ),
)
