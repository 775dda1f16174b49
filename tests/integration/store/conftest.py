"""A store's configuration on each database."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mms.store.store import StoreConfig


@pytest.fixture(params=["sqlite", "postgres"])
def config(request: pytest.FixtureRequest, tmp_path: Path) -> StoreConfig:
    url = f"sqlite:///{tmp_path}/store.db"
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_url")
    return StoreConfig(url=url, server_id="one", data_dir=tmp_path, boot_store_timeout=5)


@pytest.fixture
def sqlite_config(tmp_path: Path) -> StoreConfig:
    return StoreConfig(url=f"sqlite:///{tmp_path}/store.db", server_id="one", data_dir=tmp_path, boot_store_timeout=5)


@pytest.fixture
def packing(config: StoreConfig) -> StoreConfig:
    """Everything settled is packed, two and two."""
    return replace(config, journal_loose=0, journal_segment=2)
