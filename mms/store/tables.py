"""The store's tables as SQLAlchemy metadata, the same for SQLite and Postgres; only columns may enter, no statements."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    TypeDecorator,
)

from mms.store.seal import OUTSIDE

metadata = MetaData()


class UtcDateTime(TypeDecorator[datetime]):
    """An aware time in UTC on both databases; SQLite itself would forget the time zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Store in UTC."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Read as UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)  # type: ignore[no-any-return]


def _seal() -> Column[str]:
    """SHA-256 over the row's content: `seal.py` makes it, verification compares it."""
    return Column("row_sha256", Text, nullable=False)


# One row per server: the fence, and the source of gap-free numbers. `commits` counts durable transactions, so that the
# witness also misses a lost second transaction; `generations` is the newest generation number ever allotted, which a
# recovery of an older one leaves alone; `pruned_seq` is the newest journal number that retention may have removed; `entries`
# is how many the journal holds, packed or not, so that none is ever missed in silence (null: not counted since an upgrade).
store_meta = Table(
    "store_meta",
    metadata,
    Column("server_id", Text, nullable=False),
    Column("store_uuid", Text, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("last_seq", BigInteger, nullable=False),
    Column("commits", BigInteger, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("generations", Integer, nullable=False),
    Column("pruned_seq", BigInteger, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    _seal(),
    Column("entries", BigInteger),
    PrimaryKeyConstraint("server_id", name="store_meta_pkey"),
)

incarnation = Table(
    "incarnation",
    metadata,
    Column("server_id", Text, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("decision", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("flags", JSON(none_as_null=True), nullable=False),
    Column("host", Text, nullable=False),
    Column("boot_id", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("start_ticks", BigInteger, nullable=False),
    Column("version", Text, nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("ready_at", UtcDateTime),
    Column("heartbeat_at", UtcDateTime),
    Column("stopped_at", UtcDateTime),
    Column("stop_reason", Text, nullable=False),
    Column("boot_interrupted", Boolean, nullable=False),
    _seal(),
    PrimaryKeyConstraint("server_id", "epoch", name="incarnation_pkey"),
)

registration = Table(
    "registration",
    metadata,
    Column("server_id", Text, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("name", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("origin", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("handler", Text),
    Column("runtime", Text),
    Column("overrides", JSON(none_as_null=True), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("charges", Integer, nullable=False),
    Column("last_error", Text, nullable=False),
    Column("requests_seen", BigInteger, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    _seal(),
    PrimaryKeyConstraint("server_id", "generation", "name", "version", name="registration_pkey"),
)

load_attempt = Table(
    "load_attempt",
    metadata,
    Column("server_id", Text, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("name", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("opened_at", UtcDateTime, nullable=False),
    Column("closed_at", UtcDateTime),
    _seal(),
    PrimaryKeyConstraint("server_id", "epoch", "name", "version", name="load_attempt_pkey"),
)

# `before` is the row that the change replaced (null: none) and `after` the one that it left: whole images both.
journal = Table(
    "journal",
    metadata,
    Column("server_id", Text, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("actor", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("idempotency_key", Text),
    Column("request_digest", Text, nullable=False),
    Column("operation", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("before", JSON(none_as_null=True)),
    Column("after", JSON(none_as_null=True), nullable=False),
    Column("outcome", Text, nullable=False),
    Column("response", JSON(none_as_null=True)),
    _seal(),
    PrimaryKeyConstraint("server_id", "seq", name="journal_pkey"),
)
# Not unique: a request whose first life died is run again under the same key.
Index("journal_idempotency_key", journal.c.server_id, journal.c.idempotency_key)
Index("journal_model", journal.c.server_id, journal.c.generation, journal.c.name, journal.c.seq)
Index("journal_outcome", journal.c.server_id, journal.c.outcome)

# Older entries, some hundreds packed into one row, which `segment.py` makes and reads; what is looked for is readable
# without the content. `first_at` and `last_at` are the earliest and the latest time in it. Its server is outside of its
# hash: rows that are set aside under another name must stay readable.
journal_segment = Table(
    "journal_segment",
    metadata,
    Column("server_id", Text, nullable=False),
    Column("first_seq", BigInteger, nullable=False),
    Column("last_seq", BigInteger, nullable=False),
    Column("entries", Integer, nullable=False),
    Column("first_at", UtcDateTime, nullable=False),
    Column("last_at", UtcDateTime, nullable=False),
    _seal(),
    Column("archives", Text, nullable=False),
    Column("idempotency_keys", LargeBinary, nullable=False),
    Column("models", LargeBinary, nullable=False),
    Column("content", LargeBinary, nullable=False),
    PrimaryKeyConstraint("server_id", "first_seq", name="journal_segment_pkey"),
    info={OUTSIDE: frozenset({"server_id"})},
)
