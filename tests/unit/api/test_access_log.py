import re

from mms.api.access_log import PIECE, RequestLog, peer_name


class Memory:
    def __init__(self) -> None:
        self.data = b""

    def write(self, line: bytes) -> None:
        self.data += line


def test_a_request_is_one_line_in_the_originals_format() -> None:
    access, metrics = Memory(), Memory()
    log = RequestLog(access, metrics)

    log.record(peer_name(("127.0.0.1", 64003)), b"POST /predictions/x?q=1 HTTP/1.1", 200, 0.118)

    line = r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d,\d{3} - /127\.0\.0\.1:64003 "POST /predictions/x\?q=1 HTTP/1\.1" 200 118\n'
    assert re.fullmatch(line, access.data.decode())
    assert re.search(r" - Requests2XX\.Count:1\|#Level:Host\|#hostname:.+,timestamp:null\n$", metrics.data.decode())


def test_lines_are_handed_on_in_pieces_and_none_waits_for_long() -> None:
    access, waiting = Memory(), []
    log = RequestLog(access, later=lambda seconds, call: waiting.append((seconds, call)))

    count = 0
    while not access.data:  # a piece ends with a millisecond
        log.record(b"", b"GET / HTTP/1.1", 200, 0.0)
        count += 1
    assert access.data.count(b"\n") == count - 1 >= PIECE / 3

    ((seconds, call),) = waiting
    assert seconds <= 0.2
    call()
    assert access.data.count(b"\n") == count

    log.record(b"", b"GET / HTTP/1.1", 200, 0.0)
    assert len(waiting) == 2
    log.flush()
    assert access.data.count(b"\n") == count + 1


def test_the_metrics_log_has_one_line_for_each_answer_by_its_class() -> None:
    metrics = Memory()
    log = RequestLog(None, metrics, later=lambda seconds, call: None)
    for status in (200, 404, 200, 503, 200):
        log.record(b"", b"GET / HTTP/1.1", status, 0.0)
    log.flush()
    log.flush()

    lines = metrics.data.decode().splitlines()
    assert [sum(f"Requests{name}." in line for line in lines) for name in ("2XX", "4XX", "5XX")] == [3, 1, 1]
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d,\d{3} - ", line) for line in lines)


def test_an_answer_that_took_long_is_logged_in_whole_milliseconds() -> None:
    access = Memory()
    log = RequestLog(access)
    for seconds in (0.0009, 0.9999, 1.0, 61.5):
        log.record(b"", b"GET / HTTP/1.1", 200, seconds)
    assert [line.split()[-1] for line in access.data.splitlines()] == [b"0", b"999", b"1000", b"61500"]


def test_answers_are_counted_by_the_hundred_even_without_logs() -> None:
    log = RequestLog()
    for status in (200, 202, 404, 599):
        log.record(b"", b"GET / HTTP/1.1", status, 0.0)

    assert (log.counts[2], log.counts[4], log.counts[5]) == (2, 1, 1)


def test_what_is_neither_2xx_nor_4xx_counts_as_5xx_in_the_metrics_log() -> None:
    metrics = Memory()
    log = RequestLog(None, metrics)
    log.record(b"", b"GET / HTTP/1.1", 302, 0.0)

    assert b"Requests5XX" in metrics.data


def test_a_peer_without_an_address() -> None:
    assert peer_name(None) == b"0.0.0.0"
