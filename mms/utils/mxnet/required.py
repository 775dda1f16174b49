"""Imports mxnet for those helpers that are about nothing else; part of the handler kit."""

from __future__ import annotations

import importlib
from typing import Any


def mxnet(helper: str) -> Any:
    """The module mxnet. Raises ImportError in one line where it is not installed, naming the helper that wants it."""
    try:
        return importlib.import_module("mxnet")
    except ImportError as error:
        raise ImportError(
            f"{helper} needs the package mxnet, which is not installed in the server's environment."
        ) from error
