"""The databases that servers under attack use: a file each on SQLite, a fresh database each on one real PostgreSQL."""

from __future__ import annotations

import json
from pathlib import Path

import psycopg
from psycopg.rows import dict_row

from tests.postgres_server import PostgresServer


class Databases:
    """PostgreSQL is started at the first wish for it, and goes with `close`."""

    def __init__(self) -> None:
        self._postgres: PostgresServer | None = None

    @property
    def postgres(self) -> PostgresServer:
        """The running PostgreSQL."""
        if self._postgres is None:
            self._postgres = PostgresServer()
            self._postgres.start()
        return self._postgres

    def fresh(self, store: str) -> str | None:
        """The URL of a new, empty store; None for SQLite, whose file each server has in its own folder."""
        return self.postgres.url(self.postgres.new_database()) if store == "postgres" else None

    def keep(self, url: str | None, folder: Path) -> None:
        """Write down the rows of a PostgreSQL store beside the history, and drop its database."""
        if url is None or self._postgres is None or f":{self._postgres.port}/" not in url:
            return
        rows = {}
        with psycopg.connect(url, row_factory=dict_row, autocommit=True) as connection:
            names = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
            for each in names:
                table = each["tablename"]
                rows[table] = connection.execute(f'SELECT * FROM "{table}"'.encode()).fetchall()
        (folder / "database.json").write_text(json.dumps(rows, default=str, indent=1))
        self._postgres.drop_database(url.rsplit("/", 1)[-1])

    def close(self) -> None:
        """Stop PostgreSQL."""
        if self._postgres is not None:
            self._postgres.remove()
            self._postgres = None
