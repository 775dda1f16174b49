"""What every command that asks a running server has in common: its options, and how answers are put on the screen."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer

Server = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="URL",
        envvar="MMS_MANAGEMENT_URL",
        help="Management address of the server; default http://127.0.0.1:8081.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the server's answer as JSON.")]
"""For programs: the table may change, the document is the API's."""

UNBOUNDED = 10_000
"""Columns of a table that goes into a file or a pipe: nothing is cut off there."""


def print_json(document: Any) -> None:
    """The document as the API has it."""
    import json

    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))


def print_table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table as wide as the terminal; what the server said is shown as it is, never read as markup."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE, pad_edge=False, show_edge=False, header_style="bold")
    for head in heads:
        table.add_column(head, overflow="fold")
    for row in rows:
        table.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    console = Console(width=None if sys.stdout.isatty() else UNBOUNDED, highlight=False)
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        typer.echo(line.rstrip())


def value_text(value: object) -> str:
    """A setting's value as configurations write it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
