"""The lines of the server's log."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator

import pytest

from mms import logging as server_log


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    out = io.StringIO()
    server_log.configure(stream=out)
    yield out
    root.handlers[:] = before
    root.setLevel(level)


def test_a_record_is_one_line_with_the_time_in_utc_first(stream: io.StringIO) -> None:
    logging.getLogger("mms.store").warning("The store is %s.", "away")
    line = stream.getvalue()
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z \[warning\] The store is away\. \[mms\.store\]\n", line
    )


def test_a_traceback_follows_its_line(stream: io.StringIO) -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("mms.x").exception("It failed.")
    assert "[error] It failed. [mms.x]\nTraceback" in stream.getvalue()
    assert stream.getvalue().endswith("ValueError: broken\n")


def test_what_is_below_the_level_and_the_chatter_of_libraries_stay_out(stream: io.StringIO) -> None:
    logging.getLogger("mms.x").debug("detail")
    logging.getLogger("uvicorn.access").info("a request")
    assert stream.getvalue() == ""
