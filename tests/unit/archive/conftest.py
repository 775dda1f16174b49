from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mms.archive.model_archive import ArchiveStore
from tests.unit.archive.web import WebServer


@pytest.fixture
def model_store(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    folder.mkdir()
    return folder


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture
def archives(model_store: Path, data_dir: Path) -> ArchiveStore:
    return ArchiveStore(model_store, data_dir, tag="life-1")


@pytest.fixture
def web() -> Iterator[WebServer]:
    server = WebServer()
    yield server
    server.close()
