"""Reads a path of the inference port: which prediction route it is and for which model, or that it is none."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

_KEPT = 1024  # most paths whose reading is kept


@dataclass(frozen=True, slots=True)
class PredictionRoute:
    """One of the four prediction routes; `model` None means that the query names it, `query` whether parameters reach the handler."""

    model: str | None
    query: bool


def decoded(raw_path: bytes) -> str:
    """A path without its percent-encoding; bytes that are no UTF-8 become replacement characters."""
    return (unquote_to_bytes(raw_path) if b"%" in raw_path else raw_path).decode("utf-8", "replace")


def segments(path: str) -> list[str]:
    """The parts of a decoded path; empty ones at the end do not count, so `/models/` is `/models`."""
    return path.rstrip("/").split("/")[1:]


def prediction_route(path: str, *, single_port: bool) -> PredictionRoute | None:
    """The prediction route of a decoded path, or None.

    On a single port `/models/predict` is the model of that name, not a prediction for a model called `models`.
    """
    parts = segments(path)
    if len(parts) >= 2 and parts[0] == "predictions":
        return PredictionRoute(parts[1], query=False)
    if parts == ["invocations"]:
        return PredictionRoute(None, query=True)
    if len(parts) == 3 and parts[0] == "models" and parts[2] == "invoke":
        return PredictionRoute(parts[1], query=True)
    if len(parts) == 2 and parts[1] == "predict" and not (single_port and parts[0] == "models"):
        return PredictionRoute(parts[0], query=True)
    return None


class Router:
    """Prediction routes by raw path; a server sees few different ones, so readings are kept."""

    def __init__(self, *, single_port: bool) -> None:
        self._single_port = single_port
        self._known: dict[bytes, PredictionRoute | None] = {}

    def find(self, raw_path: bytes) -> PredictionRoute | None:
        """The prediction route of a path as it came (percent-encoded, without its query)."""
        try:
            return self._known[raw_path]
        except KeyError:
            path = decoded(raw_path)
            route = prediction_route(path, single_port=self._single_port)
            if len(self._known) >= _KEPT:
                self._known.clear()
            self._known[raw_path] = route
            return route
