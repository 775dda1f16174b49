"""`mms export`, `mms quarantine` and `mms recovery resume`: what an operator does with a running server's state."""

from __future__ import annotations

from typing import Annotated

import typer

from mms.client import ManagementClient, model_path
from mms.commands.asking import AsJson, Server, print_json, print_table
from mms.commands.restore import LONGEST
from mms.commands.state import recovery_app

quarantine_app = typer.Typer(help="Models that failed to load too often and are left out.", no_args_is_help=True)


def export(
    as_json: Annotated[bool, typer.Option("--json", help="A JSON document instead of a config.properties.")] = False,
    server: Server = None,
) -> None:
    """Write down what is served now, as a config.properties: start-up models and the settings of each."""
    with ManagementClient(server) as client:
        if as_json:
            print_json(client.get("/export", format="json"))
        else:
            typer.echo(client.text("/export"), nl=False)


@quarantine_app.command("list")
def quarantined(as_json: AsJson = False, server: Server = None) -> None:
    """List the models in quarantine with the error that brought each there."""
    with ManagementClient(server) as client:
        found = list(client.models(state="quarantined"))
    if as_json:
        print_json({"models": found})
    elif not found:
        typer.echo("No model is quarantined.")
    else:
        rows = ([m["modelName"], m["modelVersion"], m["modelUrl"], m["lastError"].strip()] for m in found)
        print_table(("model", "version", "url", "last error"), rows)


@quarantine_app.command("clear")
def clear(
    model: Annotated[str, typer.Argument(metavar="NAME", help="Name of the model.")], server: Server = None
) -> None:
    """Take a model out of quarantine and load it now."""
    with ManagementClient(server, timeout=LONGEST) as client:
        typer.echo(client.send("DELETE", model_path(model, "quarantine")).document["status"])


@recovery_app.command("resume")
def resume(as_json: AsJson = False, server: Server = None) -> None:
    """Leave safe mode: load every model that it left out; returns when each was tried."""
    with ManagementClient(server, timeout=LONGEST) as client:
        report = client.send("POST", "/recovery/resume").document
    if as_json:
        print_json(report)
        return
    rows = ([model[key] for key in ("modelName", "outcome", "seconds", "error")] for model in report["models"])
    print_table(("model", "outcome", "seconds", "error"), rows)
