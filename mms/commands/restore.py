"""`mms restore`: shows what would change to get back to a point, asks, and applies it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from mms.client import ManagementClient
from mms.commands.asking import AsJson, Server, print_json, value_text
from mms.errors import MmsError, UsageError

LONGEST = 3600.0
"""Seconds: every model of a restore may take its own start-up timeout."""

Shown = Mapping[str, Any]


class RestoreIncomplete(MmsError):
    """Some steps of a restore failed; the others hold."""


def restore(
    to: Annotated[int | None, typer.Option("--to", metavar="SEQ", help="To right after this journal number.")] = None,
    to_generation: Annotated[
        int | None, typer.Option("--to-generation", metavar="G", help="To the end of this generation.")
    ] = None,
    before: Annotated[
        str | None, typer.Option("--before", metavar="TIME", help="To right before a time: 2026-01-31T12:00:00Z.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
    server: Server = None,
) -> None:
    """Go back to an earlier state: register, unregister and reconfigure what differs; no other model is touched."""
    point = {name: value for name, value in (("seq", to), ("generation", to_generation), ("before", before)) if value}
    if to == 0:
        point["seq"] = 0
    if len(point) != 1:
        raise UsageError("Give just one of --to SEQ, --to-generation G and --before TIME.")
    with ManagementClient(server, timeout=LONGEST) as client:
        planned = client.send("POST", "/restore", headers=None, **point, dry_run=True).document
        if dry_run or not planned["plan"]:
            _show(planned, as_json=as_json)
            return
        if not as_json:
            _show(planned, as_json=False)
        if not yes:
            typer.confirm("Apply this?", abort=True, err=as_json)
        done = client.send("POST", "/restore", headers=None, **point).document
    failed = [step for step in done["plan"] if "error" in step]
    if as_json:
        print_json(done)
    else:
        typer.echo(f"{_count(len(done['plan']) - len(failed))} applied. `mms restore --to {done['seq']}` undoes this.")
    if failed:
        raise RestoreIncomplete("\n".join(f"Model {step['modelName']}: {step['error']}" for step in failed))


def _show(planned: Shown, *, as_json: bool) -> None:
    if as_json:
        print_json(planned)
        return
    if not planned["plan"]:
        typer.echo("Nothing would change.")
        return
    typer.echo(f"{_count(len(planned['plan']))}:")
    for step in planned["plan"]:
        for line in diff(step):
            typer.echo(line)


def diff(step: Shown) -> list[str]:
    """One step as lines: the operation, then what goes (-) and what comes (+)."""
    name = " ".join(part for part in (step["modelName"], step["modelVersion"]) if part)
    lines = [f"  {step['operation']} {name}"]
    old, new = _facts(step["from"]), _facts(step["to"])
    for fact in sorted({*old, *new}):
        if old.get(fact) != new.get(fact):
            lines += [f"    - {fact}={old[fact]}"] if fact in old else []
            lines += [f"    + {fact}={new[fact]}"] if fact in new else []
    return lines


def _facts(row: Shown | None) -> dict[str, str]:
    if row is None:
        return {}
    named = ("version", "url", "sha256", "handler", "runtime")
    facts = {name: str(row[name]) for name in named if row[name]}
    return facts | {option: value_text(value) for option, value in row["overrides"].items()}


def _count(steps: int) -> str:
    return "1 change" if steps == 1 else f"{steps} changes"
