"""`mms store`: verify, upgrade and back up a store itself; no server is asked, and its lock is respected."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mms.errors import StoreDamaged

store_app = typer.Typer(help="Look after the store itself: verify, upgrade, back up.", no_args_is_help=True)

ConfigFile = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="The server's config.properties.")]
StoreUrl = Annotated[
    str | None,
    typer.Option("--store", metavar="URL", help="The store: sqlite:////FILE or postgresql://USER@HOST/DATABASE."),
]
DataDir = Annotated[Path | None, typer.Option("--data-dir", metavar="DIR", help="Folder of the store and its witness.")]
ServerId = Annotated[str | None, typer.Option("--server-id", metavar="NAME", help="The server's name in the store.")]


def _store_config(config: Path | None, store: str | None, data_dir: Path | None, server_id: str | None) -> Any:
    """What a server with this configuration would open."""
    from mms.config.resolve import resolve_server
    from mms.config.sources import read_sources
    from mms.store.config import StoreConfig

    flags = {"store_url": store, "data_dir": data_dir, "server_id": server_id}
    settings = resolve_server(read_sources(config=None if config is None else str(config), flags=flags))
    return StoreConfig(
        url=settings.store_url,
        server_id=settings.server_id,
        data_dir=settings.data_dir,
        witness_path=settings.witness_path,
        boot_store_timeout=settings.boot_store_timeout,
        store_lock_wait=settings.store_lock_wait,
    )


@store_app.command()
def verify(
    config: ConfigFile = None, store: StoreUrl = None, data_dir: DataDir = None, server_id: ServerId = None
) -> None:
    """Check the store as a boot does: schema, witness, pages, every row's hash. Changes nothing; works on a store in use."""
    from mms.store import offline

    found = offline.verify(_store_config(config, store, data_dir, server_id))
    if found:
        raise StoreDamaged("\n".join(found))
    typer.echo("The store is whole.")


@store_app.command()
def upgrade(
    config: ConfigFile = None, store: StoreUrl = None, data_dir: DataDir = None, server_id: ServerId = None
) -> None:
    """Bring the store's schema up to date. Refused while a server uses the store; SQLite is copied first."""
    from mms.store import offline

    done = offline.upgrade_store(_store_config(config, store, data_dir, server_id))
    if done.before == done.after:
        typer.echo(f"The schema is up to date ({done.after}).")
    else:
        typer.echo(f"The schema is now {done.after} (it was {done.before or 'not there'}).")


@store_app.command()
def backup(
    target: Annotated[Path, typer.Argument(metavar="FILE", help="The copy; must not be there yet.")],
    config: ConfigFile = None,
    store: StoreUrl = None,
    data_dir: DataDir = None,
    server_id: ServerId = None,
) -> None:
    """Copy an SQLite store, in use or not, to a new file: one consistent state, synced to the disk."""
    from mms.store import offline

    offline.backup(_store_config(config, store, data_dir, server_id), target)
    typer.echo(f"The store is copied to {target}.")
