"""Which models are served now: name to served model; read on the hot path, written by the model manager only."""

from __future__ import annotations
