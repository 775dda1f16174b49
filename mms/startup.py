"""Finds out which models the configuration wants at start-up, and their names; opens archives, decides nothing."""

from __future__ import annotations

import asyncio

from mms.archive.model_archive import ArchiveStore, ModelArchive
from mms.config.resolve import ServerSettings
from mms.errors import MmsError
from mms.records import StartupModel
from mms.recovery.plan import NamedStartupModel


async def name_startup_models(
    archives: ArchiveStore, settings: ServerSettings, opened: dict[str, ModelArchive]
) -> list[NamedStartupModel]:
    """The configured models with their names: the configured one, else the manifest's, else the file's.

    Archives are opened for that, side by side, and left in `opened` by URL; one that cannot be opened is named with its error.
    """
    models = list(settings.load_models)
    if settings.load_all:
        models = [StartupModel(url) for url in await asyncio.to_thread(archives.startup_urls)]
    return list(await asyncio.gather(*(_named(archives, model, opened) for model in models)))


async def _named(archives: ArchiveStore, model: StartupModel, opened: dict[str, ModelArchive]) -> NamedStartupModel:
    try:
        archive = await asyncio.to_thread(archives.open, model.url)
    except MmsError as error:
        return NamedStartupModel(model.name or model.url, model, error=error.message)
    opened[model.url] = archive
    name = model.name or archive.manifest.model_name or archive.default_name
    return NamedStartupModel(name, model, archive.manifest.model_version or "", sha256=archive.sha256)
