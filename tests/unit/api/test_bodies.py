import pytest

from mms.api.bodies import parts_of
from mms.errors import BadInput

Plain = list[tuple[str, str, bytes]]


def read(content_type: str, body: bytes, query: bytes = b"") -> Plain:
    return parts_of(content_type.encode(), query, body)


@pytest.mark.parametrize(
    ("content_type", "mime"),
    [("application/json; charset=utf-8", "application/json"), ("Application/JSON", "Application/JSON"), ("", "")],
)
def test_any_other_body_is_one_part_with_its_type_as_it_came(content_type: str, mime: str) -> None:
    assert read(content_type, b"x") == [("body", mime, b"x")]


def test_an_empty_body_is_a_part_too() -> None:
    assert read("", b"") == [("body", "", b"")]


def test_query_parameters_come_first_so_that_the_body_wins() -> None:
    assert read("text/plain", b"real", b"body=query&r=two%20words&empty=&bare") == [
        ("body", "", b"query"),
        ("r", "", b"two words"),
        ("empty", "", b""),
        ("bare", "", b""),
        ("body", "text/plain", b"real"),
    ]


@pytest.mark.parametrize(
    ("form", "fields"),
    [
        (b"a=1&b=two+words&c=%26", [("a", b"1"), ("b", b"two words"), ("c", b"&")]),
        (b"a=1&a=2", [("a", b"1"), ("a", b"2")]),
        (b"a=&b", [("a", b"")]),
        (b"b&a=1", [("b", b""), ("a", b"1")]),
        (b"a=%ff", [("a", b"\xff")]),
        (b"", []),
    ],
)
def test_form_fields(form: bytes, fields: list[tuple[str, bytes]]) -> None:
    found = read("application/x-www-form-urlencoded; charset=utf-8", form)

    assert found == [(name, "", value) for name, value in fields]


def test_a_form_that_cannot_be_decoded_is_the_clients_fault() -> None:
    with pytest.raises(BadInput, match="byte 2"):
        read("application/x-www-form-urlencoded", b"a=%zz")


def multipart(*parts: bytes) -> bytes:
    return b"".join(b"--bb\r\n" + part + b"\r\n" for part in parts) + b"--bb--\r\n"


WORD = b'Content-Disposition: form-data; name="word"\r\n\r\nhello'
META = (
    b'Content-Disposition: form-data; name="meta"; filename="m.json"\r\nContent-Type: application/json; a=b\r\n\r\n[1]'
)
FILE = b'content-disposition: form-data; name="f"; filename="f"\r\n\r\n\x00\xff'


def test_files_keep_their_type_and_fields_have_none() -> None:
    found = read("multipart/form-data; boundary=bb", multipart(WORD, META, FILE))

    assert found == [
        ("word", "", b"hello"),
        ("meta", "application/json", b"[1]"),
        ("f", "application/octet-stream", b"\x00\xff"),
    ]


def test_multipart_without_a_boundary_is_just_a_body() -> None:
    assert read("multipart/form-data", b"junk") == [("body", "multipart/form-data", b"junk")]


@pytest.mark.parametrize("body", [b"junk", b""])
def test_a_multipart_body_in_which_no_part_begins_has_none(body: bytes) -> None:
    assert read("multipart/form-data; boundary=zzz", body) == []


@pytest.mark.parametrize("body", [b"--bb\r\n" + WORD, b"--bb\r\nContent-Disposition: form-data\r\n\r\nx\r\n--bb--\r\n"])
def test_a_multipart_body_that_is_cut_or_has_nameless_parts_is_the_clients_fault(body: bytes) -> None:
    with pytest.raises(BadInput):
        read("multipart/form-data; boundary=bb", body)
