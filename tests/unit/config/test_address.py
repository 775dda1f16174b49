"""Addresses to listen on."""

import pytest

from mms.config.address import Address
from mms.config.kinds import Unfit
from mms.config.options import BY_NAME

INFERENCE = BY_NAME["inference_address"].kind
MANAGEMENT = BY_NAME["management_address"].kind


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("http://127.0.0.1:8080", Address("http", "127.0.0.1", 8080)),
        ("HTTPS://Host.example:8443/", Address("https", "host.example", 8443)),
        ("http://0.0.0.0", Address("http", "0.0.0.0", 80)),
        ("https://0.0.0.0", Address("https", "0.0.0.0", 443)),
        ("http://[::1]:9000", Address("http", "::1", 9000)),
        ("http://h:0", Address("http", "h", 0)),
        ("unix:/tmp/management.sock", Address("unix", path="/tmp/management.sock")),
    ],
)
def test_the_forms(text, address):
    assert INFERENCE.parse(text) == address


def test_the_management_port_has_its_own_defaults():
    assert MANAGEMENT.parse("http://h").port == 8081
    assert MANAGEMENT.parse("https://h").port == 8444


@pytest.mark.parametrize(
    "text", ["127.0.0.1:8080", "ftp://h:1", "http://", "http://h:port", "unix:relative", "http://a b:1", ""]
)
def test_anything_else_is_no_address(text):
    with pytest.raises(Unfit, match=r"^Invalid binding address: "):
        INFERENCE.parse(text)


def test_a_port_that_does_not_exist():
    with pytest.raises(Unfit, match=r"^Invalid port number: 70000 "):
        INFERENCE.parse("http://h:70000")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("http://h:1", "http://h:1", True),
        ("http://h:1", "https://h:1", True),
        ("http://h:1", "http://h:2", False),
        ("http://h:1", "http://i:1", False),
        ("unix:/a", "unix:/a", True),
        ("unix:/a", "unix:/b", False),
        ("unix:/a", "http://h:1", False),
        ("http://h:0", "http://h:0", False),
    ],
)
def test_one_port_for_all_routes(one, other, same):
    assert INFERENCE.parse(one).same_place(INFERENCE.parse(other)) is same


@pytest.mark.parametrize("text", ["http://127.0.0.1:8080", "https://[::1]:1", "unix:/tmp/x"])
def test_an_address_reads_as_it_was_written(text):
    assert str(INFERENCE.parse(text)) == text
