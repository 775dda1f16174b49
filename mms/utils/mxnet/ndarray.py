"""Helpers for mxnet arrays; part of the handler kit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def top_probability(data: Any, labels: Sequence[str], top: int = 5) -> list[dict[str, Any]]:
    """The `top` most probable labels of the first row of `data` [rows, labels, ...]: `{"probability", "class"}`, best first."""
    row = data.asnumpy()[0].reshape(-1)
    best = row.argsort()[::-1][:top]
    return [{"probability": float(row[place]), "class": labels[place]} for place in best]
