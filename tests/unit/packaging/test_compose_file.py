"""docker-compose.yml: valid, and saying what recovery needs. No Docker engine is at hand, so nothing here starts it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from mms.config.check import check
from mms.config.resolve import resolve_server
from mms.config.sources import read_sources
from mms.records import RecoveryMode

ROOT = Path(__file__).resolve().parents[3]
FILE = ROOT / "docker-compose.yml"


@pytest.fixture
def compose() -> dict[str, Any]:
    return dict(yaml.safe_load(FILE.read_text()))


def schema_check(file: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_file_follows_the_compose_specification() -> None:
    done = schema_check(FILE)
    assert done.returncode == 0, done.stdout


def test_a_file_that_does_not_follow_it_is_refused(compose: dict[str, Any], tmp_path: Path) -> None:
    compose["services"]["server"]["restarts"] = "on-failure:5"
    broken = tmp_path / "docker-compose.yml"
    broken.write_text(yaml.safe_dump(compose))
    assert schema_check(broken).returncode == 1


def test_the_server_is_restarted_after_a_crash_but_not_for_ever(compose: dict[str, Any]) -> None:
    assert compose["services"]["server"]["restart"] == "on-failure:5"


def test_the_server_brings_its_registrations_back_after_a_clean_stop_too(compose: dict[str, Any]) -> None:
    environment = compose["services"]["server"]["environment"]
    assert environment["MMS_RECOVERY_MODE"] == "always"
    assert environment["MMS_STORE_AUTO_UPGRADE"] == "true"


def test_the_server_has_time_to_drain(compose: dict[str, Any]) -> None:
    assert compose["services"]["server"]["stop_grace_period"] == "15s"


def test_the_server_waits_for_a_healthy_postgresql_of_at_least_16(compose: dict[str, Any]) -> None:
    image, _, version = compose["services"]["database"]["image"].partition(":")
    assert (image, int(version) >= 16) == ("postgres", True)
    assert compose["services"]["server"]["depends_on"] == {"database": {"condition": "service_healthy"}}


@pytest.mark.parametrize("service", ["server", "database"])
def test_each_service_says_whether_it_is_healthy_and_keeps_its_data_in_a_named_volume(
    compose: dict[str, Any], service: str
) -> None:
    definition = compose["services"][service]
    assert definition["healthcheck"]["test"][0] == "CMD"
    named = {volume.split(":")[0] for volume in definition["volumes"]} & set(compose["volumes"])
    assert named


def test_the_management_port_is_published_to_this_machine_only(compose: dict[str, Any]) -> None:
    assert "127.0.0.1:8081:8081" in compose["services"]["server"]["ports"]


def test_the_image_s_configuration_and_the_compose_environment_are_understood_by_the_server(
    compose: dict[str, Any],
) -> None:
    environment = {**compose["services"]["server"]["environment"], "MMS_STORE_URL": "postgresql://mms:mms@database/mms"}
    sources = read_sources(config=str(ROOT / "docker" / "config.properties"), environ=environment)
    assert check(sources) == []
    settings = resolve_server(sources)
    assert settings.recovery_mode is RecoveryMode.ALWAYS
    assert settings.store_auto_upgrade is True
    assert settings.store_url.startswith("postgresql")
    assert settings.store_lock_wait == 30
    assert settings.drain_timeout < 15, "the stop_grace_period is longer"
    assert settings.data_dir == Path("/var/lib/mms")
