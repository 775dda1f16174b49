"""The image's configuration and the compose file's environment, on a real PostgreSQL: what a container's life looks like."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.acceptance.running import ECHO, RunningServer, make_model

ROOT = Path(__file__).resolve().parents[2]


def image_configuration() -> dict[str, object]:
    """docker/config.properties, less what is a place in the container."""
    lines = (ROOT / "docker" / "config.properties").read_text().splitlines()
    pairs = (line.split("=", 1) for line in lines if line and not line.startswith("#"))
    places = ("inference_address", "management_address", "model_store", "data_dir")
    return {key: value for key, value in pairs if key not in places}


@pytest.mark.slow
def test_what_was_registered_survives_an_update_and_a_crash_of_the_container(tmp_path: Path, postgres_url: str) -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    environment = {**compose["services"]["server"]["environment"], "MMS_STORE_URL": postgres_url}
    with RunningServer(tmp_path, config=image_configuration(), environment=environment) as server:
        make_model(server.models, "echo", ECHO)
        server.start()
        assert server.manage("POST", "/models?url=echo&initial_workers=1&batch_size=3").status_code == 200
        assert server.stop() == 0

        server.start()
        recovery = server.recovery()
        assert (recovery["decision"], server.outcomes()) == ("REPLAY", {"echo": "active"})
        assert "recovery_mode=always" in recovery["reason"]
        assert server.predict("echo").text == "echo:x"

        server.kill()
        server.start()
        assert server.outcomes() == {"echo": "active"}
        assert server.manage("GET", "/models/echo").json()["batchSize"] == 3
        assert not (tmp_path / "mms-data" / "store.db").exists(), "the registrations are in PostgreSQL"
        assert server.stop() == 0
