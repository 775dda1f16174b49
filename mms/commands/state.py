"""`mms models`, `mms recovery`, `mms journal`, `mms incarnations`: what a running server says of its models and its past."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from itertools import islice
from typing import Annotated, Any

import typer

from mms.client import ManagementClient
from mms.commands.asking import AsJson, Server, print_json, print_table, value_text

recovery_app = typer.Typer(help="What the last boot decided, and what came of each model.", invoke_without_command=True)
"""`mms recovery` alone shows; what acts on a recovery is a command below it."""


def models(
    state: Annotated[
        str | None, typer.Option("--state", metavar="STATE", help="Only models in this state, `quarantined` say.")
    ] = None,
    as_json: AsJson = False,
    server: Server = None,
) -> None:
    """List the models with their states and workers."""
    with ManagementClient(server) as client:
        found = list(client.models(state=state))
    if as_json:
        print_json({"models": found})
        return
    heads = ("model", "version", "state", "workers", "waiting", "url", "last error")
    print_table(heads, (_model(model) for model in found))


def _model(model: Mapping[str, Any]) -> tuple[object, ...]:
    workers = f"{model['readyWorkers']} of {model['minWorkers']}"
    error = model["lastError"].strip().rpartition("\n")[2]  # of a traceback, the line that says what it was
    version, url = model["modelVersion"], model["modelUrl"]
    return model["modelName"], version, model["state"], workers, model["queueDepth"], url, error


@recovery_app.callback()
def recovery(context: typer.Context, as_json: AsJson = False, server: Server = None) -> None:
    """Show what this boot decided and why, and what became of each model."""
    if context.invoked_subcommand is not None:
        return
    with ManagementClient(server) as client:
        report = client.get("/recovery")
    if as_json:
        print_json(report)
        return
    typer.echo(f"{report['decision']}: {report['reason']}")
    typer.echo(f"Epoch {report['incarnation']}, generation {report['generation']}, {_progress(report)}.")
    if report["safeMode"]:
        typer.echo("Safe mode: no model is loaded. `mms recovery resume` loads them.")
    for warning in report["warnings"]:
        typer.echo(f"Warning: {warning}")
    if report["models"]:
        heads = ("model", "version", "origin", "outcome", "seconds", "error")
        keys = ("modelName", "modelVersion", "origin", "outcome", "seconds", "error")
        print_table(heads, ([model[key] for key in keys] for model in report["models"]))


def _progress(report: Mapping[str, Any]) -> str:
    if report["state"] == "complete":
        return f"complete after {report['seconds']} s"
    left = sum(model["outcome"] == "pending" for model in report["models"])
    return f"recovering for {report['seconds']} s, {left} of {len(report['models'])} models to go"


def journal(
    model: Annotated[str | None, typer.Option("--model", metavar="MODEL", help="Only changes of this model.")] = None,
    after: Annotated[
        int | None, typer.Option("--after", metavar="SEQ", help="Begin after this journal number.", min=0)
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", help="Most entries: the newest, with --after the first.", min=1)
    ] = 50,
    as_json: AsJson = False,
    server: Server = None,
) -> None:
    """Show the changes that were made: by whom, when, and what each left behind."""
    with ManagementClient(server) as client:
        found = client.journal(model=model, after=after or 0)
        entries = list(islice(found, limit)) if after is not None else list(deque(found, maxlen=limit))
    if as_json:
        print_json({"entries": entries})
        return
    heads = ("seq", "at", "generation", "actor", "operation", "model", "outcome", "left behind")
    print_table(heads, (_entry(entry) for entry in entries))


def _entry(entry: Mapping[str, Any]) -> tuple[object, ...]:
    after = entry["after"]
    overrides = " ".join(f"{name}={value_text(value)}" for name, value in after["overrides"].items())
    left = " ".join(part for part in (after["state"], overrides) if part)
    model = " ".join(part for part in (entry["modelName"], entry["modelVersion"]) if part)
    at, generation, actor = entry["at"], entry["generation"], entry["actor"]
    return entry["seq"], at, generation, actor, entry["operation"], model, entry["outcome"], left


def incarnations(
    limit: Annotated[int, typer.Option("--limit", metavar="N", help="Most lives, newest first.", min=1, max=1000)] = 20,
    as_json: AsJson = False,
    server: Server = None,
) -> None:
    """Show the lives of the server: when each began and ended, and what its boot decided."""
    with ManagementClient(server) as client:
        document = client.get("/incarnations", limit=limit)
    if as_json:
        print_json(document)
        return
    heads = ("epoch", "generation", "state", "decision", "started", "stopped", "process", "flags", "reason")
    print_table(heads, (_life(life) for life in document["incarnations"]))


def _life(life: Mapping[str, Any]) -> tuple[object, ...]:
    process = f"{life['host']} pid {life['pid']}"
    flags = " ".join(life["flags"])
    began = (life["epoch"], life["generation"], life["state"], life["decision"], life["startedAt"], life["stoppedAt"])
    return *began, process, flags, life["reason"]
