"""The pages: what they point at is there."""

import importlib
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from fastapi.routing import APIRoute

from mms import cli
from mms.api.management import management_app
from mms.model_manager import ModelManager

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+\s+(.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_inside_the_project_leads_somewhere(page: Path) -> None:
    broken = []
    for target in LINK.findall(page.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_file_of_the_project_that_a_page_names_is_there(page: Path) -> None:
    named = re.findall(r"(?<![\w/.-])((?:mms|scripts|tests|docs|examples|docker|\.ci)/[\w./-]*)", page.read_text())
    built_by_the_reader = {"mms/migrations"}
    assert {name for name in named if not (ROOT / name).exists()} <= built_by_the_reader


def test_the_dependencies_are_explained_one_by_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = {re.split(r"[\[<>=]", line)[0] for line in project["project"]["dependencies"]}
    table = re.findall(r"^\| ([\w, -]+)(?: \(with[^|]*)? \| ", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    explained = {name.strip() for row in table for name in row.split(",")}
    assert wanted <= explained
    tools = (ROOT / "CONTRIBUTING.md").read_text().split("For development:")[1]
    for line in project["dependency-groups"]["dev"]:
        name = re.split(r"[\[<>=]", line)[0]
        assert name in tools or name.startswith("types-"), name


def test_the_pages_that_a_reader_is_promised_are_there() -> None:
    for name in ("getting-started", "recovery", "settings", "api", "operations", "migrating-from-mms", "glossary"):
        assert (ROOT / "docs" / f"{name}.md").exists(), name


def test_the_api_page_lists_the_management_routes_that_the_server_offers_and_no_other() -> None:
    there: Any = object()  # the parts behind the routes are not asked for anything
    manager: Any = ModelManager
    app = management_app(manager, there, there, there, there)
    offered = {
        f"{method} {route.path.replace('{model_name}', '{model}')}"
        for route in app.routes
        if isinstance(route, APIRoute)
        for method in route.methods
    }
    section = (ROOT / "docs" / "api.md").read_text().split("## Management")[1]
    assert set(re.findall(r"^\| `([A-Z]+ /[^`]*)` \|", section, re.MULTILINE)) == offered


def test_the_operations_page_explains_each_exit_code() -> None:
    codes = {value for name, value in vars(cli).items() if name.startswith("EXIT_")} - {cli.EXIT_FAILED}
    page = (ROOT / "docs" / "operations.md").read_text()
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)} == codes


def commands(group: Any, path: str) -> Iterator[str]:
    """The commands below a group, as they are typed; a group that does something by itself is one of them."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{path} {name}")
        if not command.hidden and (not hasattr(command, "commands") or command.invoke_without_command):
            yield f"{path} {name}"


def test_the_operations_page_lists_each_command_and_no_other() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    known = set(commands(typer.main.get_command(cli.app), "mms"))
    assert set(re.findall(r"^\| `(mms [a-z ]+)` \|", page, re.MULTILINE)) == known


def test_every_module_that_the_migration_page_promises_to_handlers_can_be_imported() -> None:
    page = (ROOT / "docs" / "migrating-from-mms.md").read_text().split("## Handlers")[1]
    promised = re.findall(r"`(mms\.[a-z_.]+)`", page)
    assert "mms.service" in promised
    for module in promised:
        importlib.import_module(module)
