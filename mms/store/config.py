"""What a store needs to be told; plain values, read from settings elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """Where the store is and how long to wait for it (seconds)."""

    url: str  # sqlite:///ABSOLUTE or postgresql://...
    server_id: str
    data_dir: Path
    witness_path: Path | None = None
    boot_store_timeout: float = 60.0
    store_lock_wait: float = 0.0
    store_auto_upgrade: bool = False
    accept_store_loss: int | None = None
    clean_start: bool = False  # a damaged file is moved aside, never deleted
    # Retention never removes an entry that is younger than this, nor one of the newest so many.
    journal_keep_days: float = 90.0
    journal_keep_entries: int = 100_000
    # Not options: the newest so many entries stay rows of their own, older ones are packed so many into a segment.
    # Measured: a boot verifies an entry that is not packed in 0.04 ms, and a segment is packed in 15 ms.
    journal_loose: int = 50
    journal_segment: int = 200
