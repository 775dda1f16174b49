"""Older journal entries, packed: what a boot verifies stays small however long the journal is.

The entries of an older store are moved by the server while it runs, some hundreds at a time.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from alembic.util import CommandError

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "journal_segment",
        sa.Column("server_id", sa.Text, nullable=False),
        sa.Column("first_seq", sa.BigInteger, nullable=False),
        sa.Column("last_seq", sa.BigInteger, nullable=False),
        sa.Column("entries", sa.Integer, nullable=False),
        sa.Column("first_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("row_sha256", sa.Text, nullable=False),
        sa.Column("archives", sa.Text, nullable=False),
        sa.Column("idempotency_keys", sa.LargeBinary, nullable=False),
        sa.Column("models", sa.LargeBinary, nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("server_id", "first_seq", name="journal_segment_pkey"),
    )
    op.add_column("store_meta", sa.Column("entries", sa.BigInteger))


def downgrade() -> None:
    raise CommandError("A store is never downgraded: restore the backup that was taken before the upgrade.")
