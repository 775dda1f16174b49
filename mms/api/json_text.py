"""Writes JSON the way MMS does: two spaces, its key order, characters that mean something in HTML escaped, one newline at the end."""

from __future__ import annotations

import json
from typing import Any

MIME = "application/json"

_HTML_SAFE = {ord(c): f"\\u{ord(c):04x}" for c in "'=<>&\u2028\u2029"}
"""None of these is part of JSON's own syntax, so they can be replaced after the text is made."""


def json_text(document: Any) -> bytes:
    """`document` as UTF-8 text; keys stay in the order in which they were put in."""
    return json.dumps(document, indent=2, ensure_ascii=False).translate(_HTML_SAFE).encode("utf-8", "replace") + b"\n"


def status_text(message: str) -> bytes:
    """The body of most management answers: `{"status": message}`."""
    return json_text({"status": message})
