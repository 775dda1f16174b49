"""Packing in tests: all that can be packed, and where entries lie after it."""

from __future__ import annotations

from sqlalchemy import select

from mms.store import offline, segments
from mms.store.store import Store, StoreConfig
from mms.store.tables import journal
from tests.store_life import life, registered


async def packed(store: Store) -> None:
    """Pack as long as there is something to pack."""
    before = -1
    while store.counts.commits != before:
        before = store.counts.commits
        await store.pack()


def ranges(config: StoreConfig) -> list[tuple[int, int]]:
    with offline.reader(config) as tx:
        return [(head.first_seq, head.last_seq) for head in segments.heads(tx, config.server_id, up_to=10**9)]


def loose(config: StoreConfig) -> list[int]:
    with offline.reader(config) as tx:
        own = journal.c.server_id == config.server_id
        return list(tx.execute(select(journal.c.seq).where(own).order_by(journal.c.seq)).scalars())


async def six_packed(config: StoreConfig) -> None:
    async with life(config) as store:
        for name in "abcdef":
            await registered(store, name)
        await packed(store)
