"""The wheel: what an installed server finds."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import hatchling.build
import pytest

from tests.acceptance.running import RunningServer

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        name = hatchling.build.build_wheel(str(folder))
    return zipfile.ZipFile(folder / name)


def test_the_migrations_are_in_the_wheel_below_the_package(wheel: zipfile.ZipFile) -> None:
    versions = [path.name for path in (ROOT / "migrations" / "versions").glob("*.py")]
    assert versions
    for name in ["env.py", *(f"versions/{version}" for version in versions)]:
        assert f"mms/migrations/{name}" in wheel.namelist()


def test_every_file_of_the_package_is_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    files = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "mms").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert files - set(wheel.namelist()) == set()


def test_the_built_in_configuration_for_sagemaker_is_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    assert "mms/config/sagemaker.properties" in wheel.namelist()


def test_nothing_but_the_package_is_installed(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"mms"}


def test_the_wheel_brings_the_console_scripts(wheel: zipfile.ZipFile) -> None:
    (entry_points,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert wheel.read(entry_points).decode().split() == [
        "[console_scripts]",
        *("mms", "=", "mms.entry:mms"),
        *("model-archiver", "=", "mms.entry:model_archiver"),
        *("multi-model-server", "=", "mms.entry:multi_model_server"),
    ]


@pytest.mark.slow
def test_a_server_runs_from_the_wheel_alone_and_makes_its_store_from_the_migrations_in_it(
    wheel: zipfile.ZipFile, tmp_path: Path
) -> None:
    installed = tmp_path / "site-packages"
    wheel.extractall(installed)
    environment = {"PYTHONPATH": str(installed)}
    with RunningServer(tmp_path / "server", environment=environment) as server:
        server.start()
        assert server.recovery()["decision"] == "MANIFEST"
        assert server.stop() == 0
    where = "import mms.store.upgrade as upgrade; print(upgrade.migrations_folder())"
    found = subprocess.run(
        [sys.executable, "-P", "-c", where],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == str(installed / "mms" / "migrations")
