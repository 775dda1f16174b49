"""A store that cannot be had at boot: the exit codes, the words, and the server that runs without one on request."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.acceptance.running import ECHO, RunningServer, free_port, make_model


def damage(server: RunningServer) -> None:
    data = server.folder / "mms-data"
    data.mkdir()
    (data / "store.db").write_bytes(b"this is no database at all" * 400)


def test_a_damaged_store_stops_the_boot_with_78_and_says_what_to_do(tmp_path: Path) -> None:
    with RunningServer(tmp_path) as server:
        damage(server)
        server.launch()
        assert server.exit_code() == 78
        last = server.log().strip().splitlines()[-1]
        assert "damaged" in last
        assert "--clean-start" in last


def test_one_flipped_bit_among_old_journal_entries_stops_the_boot_with_78_and_names_them(tmp_path: Path) -> None:
    with RunningServer(tmp_path, environment={"MMS_FAILPOINTS": "pack.after_witness=sleep"}) as server:  # packs a few
        make_model(server.models, "echo", ECHO)
        server.start()
        for size in range(1, 14):
            assert server.manage("POST", f"/models?url=echo&model_name=echo{size}&batch_size={size}").status_code == 200
        path = tmp_path / "mms-data" / "store.db"
        content = wait_for_a_segment(path)
        assert server.stop() == 0
        whole = path.read_bytes()
        harmed = bytearray(whole)
        harmed[whole.index(content[:64]) + 40] ^= 4
        path.write_bytes(harmed)
        server.launch()
        assert server.exit_code() == 78
        last = server.log().strip().splitlines()[-1]
        assert "table journal_segment, first_seq 1, last_seq 4: the row is not what was written" in last
        assert "--clean-start" in last
        path.write_bytes(whole)
        server.start("--recover")
        assert len(server.manage("GET", "/journal").json()["entries"]) == 13


def wait_for_a_segment(path: Path) -> bytes:
    """The content of the first one; the server packs beside its work."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
            found = connection.execute("SELECT content FROM journal_segment ORDER BY first_seq").fetchone()
        if found is not None:
            return bytes(found[0])
        time.sleep(0.05)
    raise AssertionError("no entry was packed within 20 s")


def test_a_clean_start_moves_a_damaged_store_aside_and_deletes_nothing(tmp_path: Path) -> None:
    with RunningServer(tmp_path) as server:
        damage(server)
        before = (tmp_path / "mms-data" / "store.db").read_bytes()
        server.start("--clean-start")
        kept = [file for file in (tmp_path / "mms-data").iterdir() if file.is_file() and file.read_bytes() == before]
        assert len(kept) == 1


def test_with_on_store_failure_manifest_the_configured_models_serve_and_nothing_can_be_changed(tmp_path: Path) -> None:
    with RunningServer(tmp_path, config={"on_store_failure": "manifest", "load_models": "echo"}) as server:
        make_model(server.models, "echo", ECHO)
        damage(server)
        server.start()
        assert server.predict("echo", "x").text == "echo:x"
        refused = server.manage("POST", "/models?url=echo&model_name=other")
        assert refused.status_code == 503
        assert refused.json()["outcome"] == "not-committed"
        assert server.manage("GET", "/readyz").json()["store"] == "unreachable"
        assert server.stop() == 0


def test_a_database_that_does_not_answer_ends_the_boot_with_69_after_the_wait(tmp_path: Path) -> None:
    nobody = f"postgresql://postgres:secret@127.0.0.1:{free_port()}/mms"
    with RunningServer(tmp_path, config={"store_url": nobody, "boot_store_timeout": 1}) as server:
        began = time.monotonic()
        server.launch()
        assert server.exit_code() == 69
        assert time.monotonic() - began >= 1
        assert "boot_store_timeout" in server.log()
        assert "secret" not in server.log()


@pytest.mark.parametrize("flags", [("--recover", "--clean-start"), ("--store", "mysql://x/y")])
def test_a_command_line_that_cannot_be_meant_is_refused_with_2_in_one_line(
    tmp_path: Path, flags: tuple[str, ...]
) -> None:
    with RunningServer(tmp_path) as server:
        server.launch(*flags)
        assert server.exit_code() == 2
        assert "Traceback" not in server.log()
        assert not (tmp_path / "mms-data" / "store.db").exists()
