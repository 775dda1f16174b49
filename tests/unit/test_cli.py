"""The command line's words and exit codes, without a server."""

import re
import subprocess
import sys

import pytest
import typer.main

from mms.cli import app
from mms.config.option import Layer
from mms.config.options import BY_NAME, OPTIONS
from mms.launcher import parser

FLAGS = [option for option in OPTIONS if option.flag and Layer.COMMAND_LINE in option.layers]


@pytest.mark.parametrize("option", FLAGS, ids=lambda option: option.flag)
def test_each_flag_of_the_option_table_is_one_of_serve_with_the_tables_words(option):
    serve = typer.main.get_command(app).commands["serve"]
    found = [parameter for parameter in serve.params if option.flag in parameter.opts]

    assert len(found) == 1
    assert found[0].help.startswith(option.help)


def test_serve_has_no_flag_that_the_option_table_does_not_know():
    serve = typer.main.get_command(app).commands["serve"]
    flags = {flag for parameter in serve.params for flag in parameter.opts}

    assert flags - {option.flag for option in FLAGS} == {"--config"}


@pytest.mark.parametrize("command", ["models", "recovery", "journal", "incarnations", "settings m"])
def test_a_command_that_finds_no_server_says_so_in_one_line_and_exits_69(command):
    run = subprocess.run(
        [sys.executable, "-P", "-m", "mms", *command.split()],
        env={"MMS_MANAGEMENT_URL": "http://127.0.0.1:1", "PYTHONPATH": ":".join(filter(None, sys.path))},
        capture_output=True,
        text=True,
    )

    assert run.returncode == 69
    assert re.fullmatch(r"No server answers at http://127\.0\.0\.1:1 \(.+\); name it with .+\n", run.stderr)
    assert run.stdout == ""


@pytest.mark.parametrize("name", ["model_store", "load_models", "log_config", "recover", "clean_start"])
def test_the_originals_command_line_describes_its_flags_in_the_tables_words_too(name):
    actions = {flag: action for action in parser()._actions for flag in action.option_strings}

    assert actions[BY_NAME[name].flag].help == BY_NAME[name].help


def test_what_only_other_commands_need_is_not_imported_to_serve():
    code = "import sys, mms.cli; print([name for name in ('http.client', 'rich.table', 'sqlalchemy') if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert run.stdout == "[]\n"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("serve --bogus", "mms serve: No such option: --bogus. See mms serve --help."),
        ("serve --accept-store-loss x", "mms serve: Invalid value for '--accept-store-loss': .+ See mms serve --help."),
        ("nosuch", "mms: No such command 'nosuch'. See mms --help."),
        ("config check --foo", "mms config check: No such option: --foo. See mms config check --help."),
        ("settings", "mms settings: Missing argument 'MODEL'. See mms settings --help."),
        ("multi-model-server --bogus", "multi-model-server: unrecognized arguments: --bogus. See multi-model-server --help."),
        ("multi-model-server --start --stop", "multi-model-server: argument --stop: not allowed with argument --start. See .+"),
        ("model-archiver --bogus", "model-archiver: the following arguments are required: --model-name, --model-path. See .+"),
        ("model-archiver --model-name m --model-path . --bogus", "model-archiver: unrecognized arguments: --bogus. See .+"),
    ],
)  # fmt: skip
def test_a_wrong_word_is_answered_in_one_line_that_names_it_and_the_help_with_exit_code_2(words, line):
    run = subprocess.run([sys.executable, "-P", "-m", "mms", *words.split()], capture_output=True, text=True)

    assert (run.returncode, run.stdout) == (2, "")
    assert re.fullmatch(line, run.stderr.removesuffix("\n"))


@pytest.mark.parametrize("words", ["", "config", "serve --help", "multi-model-server --help", "model-archiver --help"])
def test_help_is_shown_where_it_is_asked_for_or_nothing_is(words):
    run = subprocess.run([sys.executable, "-P", "-m", "mms", *words.split()], capture_output=True, text=True)

    assert run.returncode == (0 if "--help" in words else 2)
    assert "--help" in run.stdout + run.stderr
    assert "Traceback" not in run.stderr
