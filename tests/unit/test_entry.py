"""The console scripts."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("function", "becomes"),
    [
        ("mms", "-P -m mms --flag value"),
        ("multi_model_server", "-P -m mms multi-model-server --flag value"),
        ("model_archiver", "-P -m mms model-archiver --flag value"),
    ],
)
def test_a_console_script_becomes_python_dash_m_with_its_own_arguments(function: str, becomes: str) -> None:
    script = f"import sys; sys.executable = '/bin/echo'; from mms import entry; entry.{function}()"
    done = subprocess.run([sys.executable, "-c", script, "--flag", "value"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == becomes


def test_a_console_script_loads_nothing_heavy_before_it_becomes_the_server() -> None:
    script = "import sys; import mms.entry; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert not loaded & {"asyncio", "fastapi", "numpy", "onnxruntime", "sqlalchemy", "typer", "uvicorn"}


def test_a_boot_imports_nothing_that_its_models_can_answer_without() -> None:
    script = "import sys; import mms.cli, mms.launch, mms.server, mms.workers.local; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    later = {
        "alembic",
        "fastapi",
        "httpx",
        "prometheus_client",
        "psycopg",
        "pydantic",
        "rich",
        "starlette",
        "structlog",
    }
    assert not loaded & {*later, "numpy", "onnxruntime"}
    assert {"sqlalchemy", "uvicorn"} <= loaded  # or the list above would prove nothing


def test_garbage_is_collected_again_once_the_command_line_is_imported() -> None:
    script = "import sys, runpy, gc, atexit; sys.argv = ['mms', '--help']; "
    script += (
        "atexit.register(lambda: print('collects:', gc.isenabled())); runpy.run_module('mms', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "collects: True" in done.stdout


def test_garbage_is_collected_again_once_a_server_is_imported(tmp_path: Path) -> None:
    script = f"""
import gc, mms.server
async def serve(*_):
    print("collects:", gc.isenabled())
    return 0
mms.server.serve = serve
from mms.launch import run_server
run_server(None, {{"data_dir": {str(tmp_path)!r}}})
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path, timeout=60
    )
    assert "collects: True" in done.stdout
