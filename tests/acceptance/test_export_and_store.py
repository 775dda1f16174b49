"""What an operator takes away from a server: an export that boots elsewhere, a backup that can be put back, a store that is checked."""

from __future__ import annotations

import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.command_line import mms, mms_ok
from tests.acceptance.running import ECHO, RunningServer, make_model
from tests.unit.archive.web import WebServer

pytestmark = pytest.mark.slow


def settings(server: RunningServer, model: str) -> dict[str, Any]:
    answer = server.manage("GET", f"/models/{model}/settings")
    assert answer.status_code == 200, answer.text
    return {option: one["value"] for option, one in answer.json()["settings"].items()}


def ok(answer: Any) -> Any:
    assert 200 <= answer.status_code < 300, answer.text
    return answer.json()


def test_an_export_booted_clean_on_a_fresh_machine_gives_the_same_settings(tmp_path: Path) -> None:
    config = {
        "load_models": "echo,gone",
        "default_workers_per_model": 1,
        "default_response_timeout": 77,
        "echo.job_queue_size": 55,
    }
    names = ["a.b-c", "echo", "mani"]
    with RunningServer(tmp_path / "first", config=config) as server:
        make_model(server.models, "echo", ECHO)
        make_model(server.models, "gone", ECHO)
        make_model(server.models, "mani", ECHO, model={"batchSize": 16, "maxBatchDelay": 9, "minWorkers": 1})
        server.start()
        ok(server.manage("PUT", "/models/echo?batch_size=5&min_worker=2&synchronous=true"))
        ok(server.manage("DELETE", "/models/gone"))
        ok(server.manage("POST", "/models?url=mani&max_batch_delay=3"))
        ok(server.manage("POST", "/models?url=echo&model_name=a.b-c&initial_workers=0&max_request_size=1234"))
        before = {name: settings(server, name) for name in names}
        written = mms_ok(server, "export")
        document = ok(server.manage("GET", "/export?format=json"))
        assert [model["modelName"] for model in document["models"]] == names
        assert document["models"][1]["settings"]["batch_size"]["value"] == 5
        assert '"modelName": "mani"' in mms_ok(server, "export", "--json")
        assert server.manage("GET", "/export?format=xml").status_code == 400
        models = server.models
    assert "gone" not in written
    assert "mani.batch_size" not in written  # the archive says it
    with RunningServer(tmp_path / "second") as fresh:
        fresh.config["model_store"] = models
        own = "".join(f"{key}={value}\n" for key, value in fresh.config.items())
        config_file = tmp_path / "second" / "exported.properties"
        config_file.write_text(written + own)
        assert mms_ok(fresh, "config", "check", "--config", str(config_file), asks=False)
        fresh.start("--clean-start", "--config", str(config_file))
        assert fresh.model_names() == names
        assert {name: settings(fresh, name) for name in names} == before
        assert fresh.predict("echo", "x").text == "echo:x"


def test_a_live_store_is_backed_up_and_what_is_put_back_is_found_older_than_its_witness(tmp_path: Path) -> None:
    copy = tmp_path / "backup.db"
    with RunningServer(tmp_path / "here") as server:
        make_model(server.models, "echo", ECHO)
        make_model(server.models, "other", ECHO)
        server.start()
        ok(server.manage("POST", "/models?url=echo&initial_workers=1"))
        config_file = str(server.folder / "config.properties")
        assert "whole" in mms_ok(server, "store", "verify", "--config", config_file, asks=False)
        mms_ok(server, "store", "backup", str(copy), "--config", config_file, asks=False)
        assert mms(server, "store", "backup", str(copy), "--config", config_file, asks=False).returncode == 1
        in_use = mms(server, "store", "upgrade", "--config", config_file, asks=False)
        assert in_use.returncode == 75
        assert str(server.pid) in in_use.stderr
        ok(server.manage("POST", "/models?url=other&initial_workers=1"))
        server.kill()

        store = server.folder / "mms-data" / "store.db"
        for extra in ("", "-wal", "-shm"):
            store.with_name(store.name + extra).unlink(missing_ok=True)
        copy.rename(store)
        verdict = mms(server, "store", "verify", "--config", config_file, asks=False)
        assert verdict.returncode == 78
        assert "journal numbers 2 to 2 are missing" in verdict.stderr
        server.launch()
        assert server.exit_code() == 78
        assert "--accept-store-loss 2" in server.log()
        server.start("--accept-store-loss", "2")
        assert server.outcomes() == {"echo": "active"}
        assert server.stop() == 0
        assert "up to date" in mms_ok(server, "store", "upgrade", "--config", config_file, asks=False)


def test_verify_names_a_row_that_was_changed_behind_the_servers_back(tmp_path: Path) -> None:
    with RunningServer(tmp_path) as server:
        make_model(server.models, "echo", ECHO)
        server.start()
        ok(server.manage("POST", "/models?url=echo&batch_size=4"))
        assert server.stop() == 0
        store = tmp_path / "mms-data" / "store.db"
        with sqlite3.connect(store) as connection:
            connection.execute("UPDATE registration SET overrides = replace(overrides, '4', '9')")
        connection.close()
        url = f"sqlite:///{store}"
        verdict = mms(server, "store", "verify", "--store", url, "--data-dir", str(tmp_path / "mms-data"), asks=False)
        assert verdict.returncode == 78
        assert "echo" in verdict.stderr


def test_the_store_commands_work_on_postgres_too(tmp_path: Path, postgres_url: str) -> None:
    with RunningServer(tmp_path, config={"store_url": postgres_url}) as server:
        server.start()
        config_file = str(server.folder / "config.properties")
        assert "whole" in mms_ok(server, "store", "verify", "--config", config_file, asks=False)
        assert mms(server, "store", "upgrade", "--config", config_file, asks=False).returncode == 75
        no_file = mms(server, "store", "backup", str(tmp_path / "x"), "--config", config_file, asks=False)
        assert no_file.returncode == 1
        assert "pg_dump" in no_file.stderr
        assert server.stop() == 0
        assert "up to date" in mms_ok(server, "store", "upgrade", "--config", config_file, asks=False)


@pytest.mark.parametrize("source", ["file", "http"])
def test_what_was_registered_is_served_after_its_file_or_host_is_gone(tmp_path: Path, source: str) -> None:
    folder = make_model(tmp_path / "source", "kept", ECHO)
    web = WebServer()
    with closing(web), RunningServer(tmp_path / "server") as server:
        mar = server.models / "kept.mar"
        with zipfile.ZipFile(mar, "w") as archive:
            for file in sorted(folder.rglob("*")):
                archive.write(file, file.relative_to(folder))
        url = "kept.mar" if source == "file" else web.serve("/kept.mar", mar.read_bytes())
        server.start()
        ok(server.manage("POST", "/models", params={"url": url, "initial_workers": "1", "batch_size": "3"}))
        server.kill()
        mar.unlink()
        web.close()
        for _ in range(2):
            server.start()
            assert server.outcomes() == {"kept": "active"}
            assert server.predict("kept", "x").text == "kept:x"
            assert ok(server.manage("GET", "/models/kept"))["batchSize"] == 3
            server.kill()
