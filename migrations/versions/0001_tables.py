"""The store's first tables."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from alembic.util import CommandError

revision: str = "0001"
down_revision: str | None = None
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def _time(name: str, *, nullable: bool = False) -> sa.Column:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _text(*names: str, nullable: bool = False) -> list[sa.Column]:
    return [sa.Column(name, sa.Text, nullable=nullable) for name in names]


def _whole(*names: str) -> list[sa.Column]:
    return [sa.Column(name, sa.Integer, nullable=False) for name in names]


def _big(*names: str) -> list[sa.Column]:
    return [sa.Column(name, sa.BigInteger, nullable=False) for name in names]


def upgrade() -> None:
    op.create_table(
        "store_meta",
        *_text("server_id", "store_uuid"),
        *_big("epoch", "last_seq", "commits"),
        *_whole("generation", "generations"),
        *_big("pruned_seq"),
        _time("created_at"),
        *_text("row_sha256"),
        sa.PrimaryKeyConstraint("server_id", name="store_meta_pkey"),
    )
    op.create_table(
        "incarnation",
        *_text("server_id"),
        *_big("epoch"),
        *_whole("generation"),
        *_text("state", "decision", "reason"),
        sa.Column("flags", sa.JSON, nullable=False),
        *_text("host", "boot_id"),
        *_whole("pid"),
        *_big("start_ticks"),
        *_text("version"),
        _time("started_at"),
        _time("ready_at", nullable=True),
        _time("heartbeat_at", nullable=True),
        _time("stopped_at", nullable=True),
        *_text("stop_reason"),
        sa.Column("boot_interrupted", sa.Boolean, nullable=False),
        *_text("row_sha256"),
        sa.PrimaryKeyConstraint("server_id", "epoch", name="incarnation_pkey"),
    )
    op.create_table(
        "registration",
        *_text("server_id"),
        *_whole("generation"),
        *_text("name", "version", "origin", "state", "url", "sha256"),
        *_text("handler", "runtime", nullable=True),
        sa.Column("overrides", sa.JSON, nullable=False),
        *_whole("revision"),
        *_big("seq"),
        *_whole("charges"),
        *_text("last_error"),
        *_big("requests_seen"),
        _time("created_at"),
        _time("updated_at"),
        *_text("row_sha256"),
        sa.PrimaryKeyConstraint("server_id", "generation", "name", "version", name="registration_pkey"),
    )
    op.create_table(
        "load_attempt",
        *_text("server_id"),
        *_big("epoch"),
        *_text("name", "version", "sha256"),
        _time("opened_at"),
        _time("closed_at", nullable=True),
        *_text("row_sha256"),
        sa.PrimaryKeyConstraint("server_id", "epoch", "name", "version", name="load_attempt_pkey"),
    )
    op.create_table(
        "journal",
        *_text("server_id"),
        *_big("seq", "epoch"),
        *_whole("generation"),
        _time("at"),
        *_text("actor", "request_id"),
        *_text("idempotency_key", nullable=True),
        *_text("request_digest", "operation", "name", "version", "sha256"),
        sa.Column("before", sa.JSON),
        sa.Column("after", sa.JSON, nullable=False),
        *_text("outcome"),
        sa.Column("response", sa.JSON),
        *_text("row_sha256"),
        sa.PrimaryKeyConstraint("server_id", "seq", name="journal_pkey"),
    )
    op.create_index("journal_idempotency_key", "journal", ["server_id", "idempotency_key"])
    op.create_index("journal_model", "journal", ["server_id", "generation", "name", "seq"])
    op.create_index("journal_outcome", "journal", ["server_id", "outcome"])


def downgrade() -> None:
    raise CommandError("A store is never downgraded: restore the backup that was taken before the upgrade.")
