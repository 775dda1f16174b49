"""How a model is called when nobody says: MMS's rule for a name made from an archive's place."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from mms.archive.download import is_url

_NOT_IN_NAMES = re.compile(r"(\W|^_)", re.ASCII)
_ARCHIVE_NAMES = (".model", ".mar", ".tar.gz", ".tgz")


def default_name(url: str) -> str:
    """`squeezenet_v1.1.mar` is `squeezenet_v1_1`; the folder and, of a web address, the query do not count."""
    path = urlsplit(url).path if is_url(url) else url
    name = path.rstrip("/").rpartition("/")[2]
    if any(part in name for part in _ARCHIVE_NAMES):
        name = name.removesuffix(".gz").rpartition(".")[0]
    return _NOT_IN_NAMES.sub("_", name)
