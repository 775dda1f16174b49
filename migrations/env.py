"""Runs the migrations on a connection whose transaction the store began; Alembic itself neither begins nor commits."""

from alembic import context
from alembic.util import CommandError

from mms.store.tables import metadata

connection = context.config.attributes.get("connection")
if connection is None:
    raise CommandError("The store's migrations are run by `mms store upgrade`, which takes the store's lock first.")

context.configure(
    connection=connection,
    target_metadata=metadata,
    # Alembic holds SQLite's DDL for non-transactional, which is true only of the driver's own way to begin. The store
    # begins with BEGIN IMMEDIATE, so that a migration is there wholly or not at all.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
