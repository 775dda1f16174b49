import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from mms import logfiles
from mms.logfiles import KEPT_ROLLS, LineLog, LogFiles


@pytest.fixture
def log(tmp_path: Path) -> Iterator[LineLog]:
    log = LineLog(tmp_path / "access_log.log")
    yield log
    log.close()


def test_lines_come_in_order_behind_those_of_an_earlier_life(log: LineLog, tmp_path: Path) -> None:
    file = tmp_path / "access_log.log"
    file.write_bytes(b"before\n")

    log.write(b"one\ntwo\n")
    log.write(b"three\n")
    assert log.flush() == len(b"one\ntwo\nthree\n")
    log.write(b"four\n")
    log.flush()

    assert file.read_bytes() == b"before\none\ntwo\nthree\nfour\n"
    assert log.flush() == 0


def test_a_full_file_is_rolled_and_the_oldest_goes(
    log: LineLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logfiles, "ROLL_AT", 10)
    for number in range(KEPT_ROLLS + 2):
        log.write(b"line %d, long enough\n" % number)
        log.flush()

    rolled = [tmp_path / f"access_log.log.{number}" for number in range(1, KEPT_ROLLS + 1)]
    assert [file.read_bytes()[5:6] for file in rolled] == [b"6", b"5", b"4", b"3", b"2"]
    assert not (tmp_path / "access_log.log").exists()
    assert not (tmp_path / f"access_log.log.{KEPT_ROLLS + 1}").exists()


@pytest.mark.parametrize("moved", [True, False])
def test_a_file_that_somebody_moved_or_removed_is_made_again(
    log: LineLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, moved: bool
) -> None:
    monkeypatch.setattr(logfiles, "LOOKED_AT", 0.0)
    file = tmp_path / "access_log.log"
    log.write(b"old\n")
    log.flush()
    if moved:
        file.replace(tmp_path / "yesterday")
    else:
        file.unlink()

    log.write(b"new\n")
    log.flush()

    assert file.read_bytes() == b"new\n"
    if moved:
        assert (tmp_path / "yesterday").read_bytes() == b"old\n"


def test_a_file_that_cannot_be_written_costs_lines_and_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "logs"
    log = LineLog(folder / "access_log.log")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            log.write(b"lost\n")
            log.flush()
    assert [record.getMessage() for record in caplog.records if "are lost" in record.getMessage()] == [
        f"Lines for {folder}/access_log.log are lost: [Errno 2] No such file or directory: '{folder}/access_log.log'"
    ]

    folder.mkdir()
    log.write(b"kept\n")
    log.flush()
    log.close()
    assert (folder / "access_log.log").read_bytes() == b"kept\n"


def test_a_full_disk_costs_lines_and_no_descriptor(caplog: pytest.LogCaptureFixture) -> None:
    log = LineLog(Path("/dev/full"))
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        log.write(b"lost\n")
        log.flush()

    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert "Lines for /dev/full are lost: [Errno 28] No space left on device" in caplog.text


def test_a_disk_that_hangs_does_not_fill_the_memory(
    log: LineLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logfiles, "MOST_BYTES", 100)
    for _ in range(50):
        log.write(b"ten bytes\n")
    assert log.flush() == 100
    assert caplog.text.count("are lost: they came faster than the disk took them.") == 1

    log.write(b"ten bytes\n")
    assert log.flush() == 10
    assert (tmp_path / "access_log.log").stat().st_size == 110


def test_the_thread_writes_what_is_left_at_the_end(tmp_path: Path) -> None:
    files = LogFiles()
    log = files.open(tmp_path / "logs", "mms_metrics.log")
    assert log is not None
    file = tmp_path / "logs" / "mms_metrics.log"
    assert file.read_bytes() == b""  # there from the start

    log.write(b"last words\n")
    files.close()

    assert file.read_bytes() == b"last words\n"


def test_a_folder_that_cannot_be_made_is_said_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "logs").write_text("a file")
    files = LogFiles()
    assert files.open(tmp_path / "logs", "access_log.log") is None
    files.close()
    assert "No access_log.log" in caplog.text
