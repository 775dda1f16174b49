from __future__ import annotations

from pathlib import Path

import pytest

from mms.errors import UsageError
from mms.store import location
from mms.store.location import network_file_system, parse, witness_file


def test_an_sqlite_url_names_an_absolute_file(tmp_path: Path) -> None:
    found = parse(f"sqlite:///{tmp_path}/a/../store.db")
    assert found.path == tmp_path / "store.db"
    assert found.file("-wal") == tmp_path / "store.db-wal"
    assert found.shown == f"sqlite:///{tmp_path}/store.db"


@pytest.mark.parametrize(
    "url", ["postgresql://u:s3cret@h/d", "postgres://u:s3cret@h/d", "postgresql+psycopg://u:s3cret@h/d"]
)
def test_postgres_urls_of_all_spellings_are_read_and_shown_without_password(url: str) -> None:
    found = parse(url)
    assert not found.sqlite
    assert found.url.drivername == "postgresql+psycopg"
    assert found.shown == "postgresql://u:***@h/d"
    assert found.redacted("login s3cret failed") == "login *** failed"


def test_a_password_in_the_query_is_not_shown_either() -> None:
    found = parse("postgresql://u@h/d?password=s3cret&sslmode=require")
    assert "s3cret" not in found.shown
    assert found.redacted("s3cret") == "***"


@pytest.mark.parametrize(
    "url", ["", "store.db", "sqlite://", "sqlite:///:memory:", "mysql://u:s3cret@h/d", "postgresql://u:s3cret@h:x/d"]
)
def test_another_url_is_refused_in_one_line_that_repeats_nothing_secret(url: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse(url)
    assert refused.value.message.startswith("store: ")
    assert "s3cret" not in refused.value.message


def test_each_server_and_store_has_a_witness_of_its_own(tmp_path: Path) -> None:
    def name(url: str, server: str = "one", data: Path = tmp_path) -> str:
        return witness_file(parse(url), server, data).name

    urls = [f"sqlite:///{tmp_path}/a.db", f"sqlite:///{tmp_path}/b.db", "postgresql://h/d", "postgresql://h/e"]
    assert len({name(url, server) for url in urls for server in ("one", "two")}) == 8
    assert name("postgresql://u:old@h/d") == name("postgresql://u:new@h:5432/d?sslmode=require")
    moved = tmp_path / "moved"
    assert name(f"sqlite:///{tmp_path}/a.db") == name(f"sqlite:///{moved}/a.db", data=moved)


def test_a_local_disk_is_no_network_file_system(tmp_path: Path) -> None:
    assert network_file_system(tmp_path) is None
    assert network_file_system(Path("/proc")) is None


def test_a_known_network_file_system_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proc = 0x9FA0
    monkeypatch.setitem(location.NETWORK_FILE_SYSTEMS, proc, "a network")
    assert network_file_system(Path("/proc")) == "a network"
