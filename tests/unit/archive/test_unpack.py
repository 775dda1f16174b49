"""An archive stays in its folder and within its limits, whatever it says."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from mms.archive import unpack as module
from mms.archive.unpack import is_archive, unpack
from mms.errors import InvalidModel
from tests.unit.archive.builders import all_files, lay_out, tar_link, tarred, zipped

MIB = 1 << 20


def unpacked(tmp_path: Path, content: bytes, max_size: int = MIB) -> Path:
    archive = tmp_path / "archive"
    archive.write_bytes(content)
    return unpack(archive, tmp_path / "into", max_size=max_size)


@pytest.mark.parametrize("pack", [zipped, tarred])
@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil", "a/..", ".."])
def test_an_entry_that_would_leave_the_folder_is_refused(tmp_path: Path, pack: object, name: str) -> None:
    content = zipped({name: "x"}) if pack is zipped else tarred({name: "x"})
    with pytest.raises(InvalidModel, match="would leave its folder"):
        unpacked(tmp_path, content)
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    "links",
    [
        [("out", "..")],
        [("out", "/etc")],
        [("out", "../../etc/passwd")],
        [("a/b/out", "../../../x")],
        [("out", "link"), ("link", "..")],
        [("x", "b/c/../../s"), ("b/c", "../z"), ("x2", "x/../../s")],
        [("top", "../.."), ("top/sub", "anything")],
        [("d", "."), ("d/e", "../..")],
    ],
)
@pytest.mark.parametrize("top", ["", "model/"])
def test_links_that_lead_out_are_refused_in_every_disguise(
    tmp_path: Path, links: list[tuple[str, str]], top: str
) -> None:
    before = set(tmp_path.parent.iterdir())
    with pytest.raises(InvalidModel, match="would leave its folder"):
        unpacked(tmp_path, tarred({f"{top}f": "x", f"{top}z/g": "y"}, *(tar_link(top + n, t) for n, t in links)))
    assert set(tmp_path.parent.iterdir()) == before
    assert {p.name for p in tmp_path.iterdir()} <= {"archive", "into"}


def test_a_link_may_not_lead_beside_the_top_folder_that_is_taken_off(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match="would leave its folder"):
        unpacked(tmp_path, tarred({"model/f": "x"}, tar_link("model/out", "../other")))


def test_links_within_are_made(tmp_path: Path) -> None:
    content = unpacked(tmp_path, tarred({"m/a/f": "x"}, tar_link("m/b", "a/f"), tar_link("m/c/d", "../b")))
    assert (content / "c" / "d").read_text() == "x"


def test_a_hard_link_is_a_copy(tmp_path: Path) -> None:
    content = unpacked(tmp_path, tarred({"m/f": "x"}, tar_link("m/g", "m/f", tarfile.LNKTYPE)))
    assert (content / "g").read_text() == "x"


def test_a_hard_link_to_what_the_archive_does_not_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match="a link to nothing"):
        unpacked(tmp_path, tarred({}, tar_link("g", "/etc/passwd", tarfile.LNKTYPE)))


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_and_pipes_are_refused(tmp_path: Path, kind: bytes) -> None:
    info = tarfile.TarInfo("device")
    info.type = kind
    with pytest.raises(InvalidModel, match="neither file nor folder: device"):
        unpacked(tmp_path, tarred({}, info))


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_a_bomb_is_stopped_at_the_limit(tmp_path: Path, pack: object) -> None:
    files = {"m/a": b"\0" * MIB, "m/b": b"\0" * MIB}
    content = zipped(files) if pack is zipped else tarred(files)
    assert len(content) < 10_000
    with pytest.raises(InvalidModel, match=f"larger than {MIB} bytes when unpacked"):
        unpacked(tmp_path, content)
    assert sum(len(data) for data in all_files(tmp_path / "into").values()) <= MIB


def test_an_entry_that_lies_about_its_size_is_stopped_too(tmp_path: Path) -> None:
    content = bytearray(zipped({"a": b"\0" * (2 * MIB)}))
    honest = (2 * MIB).to_bytes(4, "little")
    assert content.count(honest) == 2
    lying = bytes(content).replace(honest, (10).to_bytes(4, "little"))
    with pytest.raises(InvalidModel, match="broken"):
        unpacked(tmp_path, lying)
    assert sum(len(data) for data in all_files(tmp_path / "into").values()) <= MIB


def test_more_entries_than_the_limit_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ENTRIES", 3)
    with pytest.raises(InvalidModel, match="more than 3 entries"):
        unpacked(tmp_path, zipped({str(i): "" for i in range(4)}))


@pytest.mark.parametrize(
    "names", [["a", "a/b"], ["a/b", "a"], ["x" * 300], ["a", "a/"], ["a/", "a"]], ids=lambda names: "-".join(names)[:9]
)
def test_names_that_no_folder_can_hold_are_the_archive_s_fault(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(InvalidModel, match="names that cannot be unpacked"):
        unpacked(tmp_path, zipped(dict.fromkeys(names, "")))


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    content = bytearray(zipped({"a": "x"}))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    with pytest.raises(InvalidModel, match=r"broken.*encrypted"):
        unpacked(tmp_path, bytes(content))


def test_modes_say_no_more_than_whether_a_file_can_be_run(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, mode in (("run", 0o4777), ("read", 0o000)):
            info = zipfile.ZipInfo(name)
            info.external_attr = (stat.S_IFREG | mode) << 16
            archive.writestr(info, "x")
    content = unpacked(tmp_path, buffer.getvalue())
    assert stat.S_IMODE((content / "run").stat().st_mode) == 0o755
    assert stat.S_IMODE((content / "read").stat().st_mode) == 0o644


def test_folders_are_made_and_the_root_may_be_named(tmp_path: Path) -> None:
    content = unpacked(tmp_path, zipped({"./": "", "empty/": "", "./a/./b": "x"}))
    assert (content / "empty").is_dir()
    assert all_files(content) == {"a/b": b"x"}


def test_every_file_and_folder_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: set[int] = set()
    honest = os.fsync

    def noted(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        honest(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    content = unpacked(tmp_path, zipped({"a/b/c": "x", "d": "y"}))
    assert synced == {path.stat().st_ino for path in (content, *content.rglob("*"))}


@pytest.mark.parametrize(
    ("content", "is_one"),
    [(zipped({"a": "x"}), True), (tarred({"a": "x"}), True), (b"PK\x03\x04", True), (b"", False), (b"text", False)],
)
def test_an_archive_is_known_by_its_content(tmp_path: Path, content: bytes, is_one: bool) -> None:
    lay_out(tmp_path, {"file": content})
    assert is_archive(tmp_path / "file") is is_one
