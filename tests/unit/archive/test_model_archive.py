"""Opening what is named today, and opening again what was registered."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from pathlib import Path

import pytest

from mms.archive.model_archive import ArchiveStore, ModelArchive
from mms.archive.names import default_name
from mms.errors import BadInput, ChangedArchive, InvalidModel, LoadFailed, MissingArchive, ModelNotFound
from tests.unit.archive.builders import MANIFEST, all_files, lay_out, model_files, tar_link, tarred, zipped
from tests.unit.archive.web import WebServer

# --- what the URL names today -----------------------------------------------------------------------------------------


def test_a_mar_file_is_unpacked_and_kept_under_its_digest(
    archives: ArchiveStore, model_store: Path, data_dir: Path
) -> None:
    content = zipped(model_files())
    (model_store / "noop.mar").write_bytes(content)
    archive = archives.open("noop.mar")
    assert archive.sha256 == hashlib.sha256(content).hexdigest()
    assert archive.model_dir == data_dir / "archives" / archive.sha256
    assert archive.kept
    assert (archive.url, archive.default_name, archive.manifest.model_name) == ("noop.mar", "noop", "noop")
    assert archive.error == ""
    assert set(all_files(archive.model_dir)) == {"service.py", MANIFEST}
    assert list((data_dir / "tmp").iterdir()) == [], "nothing temporary is left"


@pytest.mark.parametrize("name", ["noop.tar.gz", "noop.tgz", "noop.mar"])
def test_a_gzipped_tar_is_opened_by_content_without_its_top_folder(
    archives: ArchiveStore, model_store: Path, name: str
) -> None:
    (model_store / name).write_bytes(tarred({f"noop/{k}": v for k, v in model_files().items()}))
    archive = archives.open(name)
    assert set(all_files(archive.model_dir)) == {"service.py", MANIFEST}
    assert (archive.manifest.model_name, archive.default_name) == ("noop", "noop")


def test_a_tar_without_a_top_folder_is_taken_as_it_is(archives: ArchiveStore, model_store: Path) -> None:
    (model_store / "noop.tgz").write_bytes(tarred(model_files()))
    assert set(all_files(archives.open("noop.tgz").model_dir)) == {"service.py", MANIFEST}


def test_a_directory_is_served_in_place(archives: ArchiveStore, model_store: Path, data_dir: Path) -> None:
    lay_out(model_store / "noop", model_files())
    archive = archives.open("noop")
    assert archive.model_dir == model_store / "noop"
    assert not archive.kept
    assert len(archive.sha256) == 64
    assert not (data_dir / "archives").exists()


def test_the_digest_of_a_directory_is_of_names_and_contents_alone(archives: ArchiveStore, model_store: Path) -> None:
    lay_out(model_store / "a", model_files())
    lay_out(model_store / "b", dict(reversed(list(model_files().items()))))
    lay_out(model_store / "b", {"__pycache__/service.cpython-311.pyc": b"x", "old.pyc": b"y"})
    (model_store / "b" / "service.py").chmod(0o755)
    os.utime(model_store / "b" / "service.py", (0, 0))
    assert archives.open("a").sha256 == archives.open("b").sha256
    lay_out(model_store / "b", {"service.py": "def handle(data, context):\n    return ['KO']\n"})
    assert archives.open("a").sha256 != archives.open("b").sha256


def test_the_digest_of_a_directory_does_not_confuse_where_a_name_ends(
    archives: ArchiveStore, model_store: Path
) -> None:
    lay_out(model_store / "a", {"x": "yz", "w": ""})
    lay_out(model_store / "b", {"xy": "z", "w": ""})
    assert archives.open("a").sha256 != archives.open("b").sha256


def test_a_link_inside_a_directory_counts_with_what_it_leads_to_and_a_loop_ends(
    archives: ArchiveStore, model_store: Path, tmp_path: Path
) -> None:
    lay_out(model_store / "a", model_files())
    weights = tmp_path / "weights.bin"
    weights.write_bytes(b"1")
    (model_store / "a" / "weights.bin").symlink_to(weights)
    (model_store / "a" / "again").symlink_to(model_store / "a", target_is_directory=True)
    before = archives.open("a").sha256
    weights.write_bytes(b"2")
    assert archives.open("a").sha256 != before


def test_a_volume_mounted_anew_by_kubernetes_has_the_same_digest(archives: ArchiveStore, model_store: Path) -> None:
    digests = []
    for dated in ("..2026_11_23_04", "..2026_11_24_05"):
        folder = model_store / dated.strip(".")
        lay_out(folder / dated, {"service.py": "x"})
        (folder / "..data").symlink_to(dated)
        (folder / "service.py").symlink_to("..data/service.py")
        digests.append(archives.open(folder.name).sha256)
    assert digests[0] == digests[1]


def test_archives_in_sub_folders_are_found_and_named_by_their_last_part(
    archives: ArchiveStore, model_store: Path
) -> None:
    lay_out(model_store, {"sub/dir/deep.mar": zipped({"service.py": ""})})
    assert archives.open("sub/dir/deep.mar").default_name == "deep"
    assert archives.open("sub/dir").manifest.handler is None


@pytest.mark.parametrize("url", ["../noop.mar", "a/../noop.mar", "..", "noop..mar"])
def test_two_dots_are_refused_in_a_local_name(archives: ArchiveStore, url: str) -> None:
    with pytest.raises(ModelNotFound) as e:
        archives.open(url)
    assert e.value.message == f"Relative path is not allowed in url: {url}"


@pytest.mark.parametrize(
    "url", ["nosuch.mar", "noop.mar/x", ".", "/", "a\0b", "x" * 5000, "loop", "ftp://h/noop.mar", "socket"]
)
def test_what_is_no_archive_of_the_store_is_not_found(archives: ArchiveStore, model_store: Path, url: str) -> None:
    (model_store / "noop.mar").write_bytes(zipped(model_files()))
    (model_store / "loop").symlink_to("loop")
    os.mkfifo(model_store / "socket")
    with pytest.raises(ModelNotFound) as e:
        archives.open(url)
    assert e.value.message == f"Model not found in model store: {url}"


def test_an_absolute_name_is_looked_for_below_the_store(archives: ArchiveStore, model_store: Path) -> None:
    (model_store / "noop.mar").write_bytes(zipped(model_files()))
    assert archives.open("/noop.mar").manifest.model_name == "noop"


@pytest.mark.parametrize("target", ["file", "directory"])
def test_a_link_that_leaves_the_store_is_refused(
    archives: ArchiveStore, model_store: Path, tmp_path: Path, target: str
) -> None:
    outside = tmp_path / "outside"
    lay_out(outside, {**model_files(), "noop.mar": zipped(model_files())})
    (model_store / "link").symlink_to(outside / "noop.mar" if target == "file" else outside)
    with pytest.raises(ModelNotFound, match="Model leads outside of the model store: link"):
        archives.open("link")


def test_a_link_within_the_store_is_followed(archives: ArchiveStore, model_store: Path) -> None:
    (model_store / "noop-42.mar").write_bytes(zipped(model_files()))
    (model_store / "current.mar").symlink_to("noop-42.mar")
    assert archives.open("current.mar").manifest.model_name == "noop"


def test_no_url_and_no_store_have_their_own_words(data_dir: Path, archives: ArchiveStore) -> None:
    with pytest.raises(BadInput, match=r"^Parameter url is required\.$"):
        archives.open("")
    with pytest.raises(ModelNotFound, match=r"^Model store has not been configured\.$"):
        ArchiveStore(None, data_dir, tag="t").open("noop.mar")


@pytest.mark.parametrize("content", [b"This is not an archive.\n", b""])
def test_a_file_that_is_no_archive_opens_as_an_empty_one_with_an_error_to_raise_later(
    archives: ArchiveStore, model_store: Path, content: bytes
) -> None:
    (model_store / "notzip.mar").write_bytes(content)
    archive = archives.open("notzip.mar")
    assert (archive.manifest.model_name, archive.manifest.handler, archive.kept) == (None, None, False)
    assert archive.error == "Model archive notzip.mar is neither a zip nor a gzipped tar."


@pytest.mark.parametrize("cut", [10, -30])
@pytest.mark.parametrize("pack", [zipped, tarred])
def test_a_truncated_archive_is_an_invalid_model(
    archives: ArchiveStore, model_store: Path, data_dir: Path, pack: object, cut: int
) -> None:
    content = zipped(model_files()) if pack is zipped else tarred(model_files())
    (model_store / "cut.mar").write_bytes(content[:cut])
    with pytest.raises(InvalidModel, match="The model archive is broken"):
        archives.open("cut.mar")
    assert not (data_dir / "archives").exists()


def test_an_archive_with_a_flipped_byte_is_an_invalid_model(archives: ArchiveStore, model_store: Path) -> None:
    content = bytearray(zipped({"data.bin": os.urandom(1000)}))
    content[200] ^= 1
    (model_store / "flipped.mar").write_bytes(content)
    with pytest.raises(InvalidModel, match="broken"):
        archives.open("flipped.mar")


# --- the only .onnx file ----------------------------------------------------------------------------------------------


def test_the_only_onnx_file_of_an_archive_without_a_handler_is_named(archives: ArchiveStore, model_store: Path) -> None:
    (model_store / "m.mar").write_bytes(zipped({"sub/model.onnx": b"x", "labels.txt": "a", ".cache/o.onnx": b"y"}))
    archive = archives.open("m.mar")
    assert archive.onnx_file == archive.model_dir / "sub" / "model.onnx"


@pytest.mark.parametrize("files", [{"a.onnx": b"", "b.onnx": b""}, {"a.txt": b""}, {**model_files(), "a.onnx": b""}])
def test_none_two_or_a_handler_name_no_onnx_file(
    archives: ArchiveStore, model_store: Path, files: dict[str, bytes]
) -> None:
    (model_store / "m.mar").write_bytes(zipped(files))
    assert archives.open("m.mar").onnx_file is None
    lay_out(model_store / "m", files)
    assert archives.open("m").onnx_file is None


# --- keeping ----------------------------------------------------------------------------------------------------------


def test_two_names_for_the_same_bytes_share_what_is_kept(archives: ArchiveStore, model_store: Path) -> None:
    content = zipped(model_files())
    (model_store / "a.mar").write_bytes(content)
    (model_store / "b.mar").write_bytes(content)
    first, second = archives.open("a.mar"), archives.open("b.mar")
    assert first.model_dir == second.model_dir
    assert (first.url, second.url) == ("a.mar", "b.mar")


def test_kept_content_is_reused_and_not_unpacked_again(archives: ArchiveStore, model_store: Path) -> None:
    (model_store / "a.mar").write_bytes(zipped(model_files()))
    inode = archives.open("a.mar").model_dir.stat().st_ino
    assert archives.open("a.mar").model_dir.stat().st_ino == inode


def test_threads_that_open_the_same_archive_at_once_all_get_it_whole(archives: ArchiveStore, model_store: Path) -> None:
    files = {**model_files(), **{f"data/{i}.bin": os.urandom(2000) for i in range(30)}}
    (model_store / "a.mar").write_bytes(zipped(files))
    together = threading.Barrier(8)
    opened: list[tuple[ModelArchive, int]] = []

    def go() -> None:
        together.wait(10)
        archive = archives.open("a.mar")
        opened.append((archive, len(all_files(archive.model_dir))))

    threads = [threading.Thread(target=go) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [count for _, count in opened] == [len(files)] * 8
    assert len({archive.model_dir for archive, _ in opened}) == 1


def test_what_a_dead_life_left_half_unpacked_is_never_taken_for_the_whole(model_store: Path, data_dir: Path) -> None:
    (model_store / "a.mar").write_bytes(zipped(model_files()))
    lay_out(data_dir / "tmp" / "life-0" / "abc" / "content", {"service.py": "half"})
    archive = ArchiveStore(model_store, data_dir, tag="life-1").open("a.mar")
    assert set(all_files(archive.model_dir)) == {"service.py", MANIFEST}


def test_an_archive_replaced_while_it_is_read_is_not_kept_under_the_wrong_digest(
    archives: ArchiveStore, model_store: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = model_store / "a.mar"
    path.write_bytes(zipped(model_files("old")))
    from mms.archive import model_archive

    honest = model_archive.file_digest

    def replaced_just_after(opened: Path) -> str:
        digest = honest(opened)
        path.write_bytes(zipped(model_files("new")))
        return digest

    monkeypatch.setattr(model_archive, "file_digest", replaced_just_after)
    with pytest.raises(InvalidModel, match=r"a\.mar changed while it was being read"):
        archives.open("a.mar")
    assert not (data_dir / "archives").exists()


# --- opening again what was registered --------------------------------------------------------------------------------


@pytest.mark.parametrize("changed", ["registered", "new", "fail"])
def test_an_unchanged_archive_reopens_as_it_was(archives: ArchiveStore, model_store: Path, changed: str) -> None:
    (model_store / "a.mar").write_bytes(zipped(model_files()))
    first = archives.open("a.mar")
    assert archives.reopen("a.mar", first.sha256, changed=changed) == first


@pytest.mark.parametrize("changed", ["registered", "new", "fail"])
def test_an_archive_removed_from_the_store_is_served_from_what_is_kept_and_said_so(
    archives: ArchiveStore, model_store: Path, changed: str, caplog: pytest.LogCaptureFixture
) -> None:
    (model_store / "a.mar").write_bytes(zipped(model_files()))
    first = archives.open("a.mar")
    (model_store / "a.mar").unlink()
    assert archives.reopen("a.mar", first.sha256, changed=changed) == first
    assert "a.mar is gone or away" in caplog.text
    assert "the registered content" in caplog.text


def test_a_replaced_archive_is_served_as_it_was_registered(
    archives: ArchiveStore, model_store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (model_store / "a.mar").write_bytes(zipped(model_files("old")))
    sha256 = archives.open("a.mar").sha256
    (model_store / "a.mar").write_bytes(zipped(model_files("new")))
    assert archives.reopen("a.mar", sha256).manifest.model_name == "old"
    assert "a.mar has changed since it was registered: the registered content" in caplog.text
    assert archives.reopen("a.mar", sha256, changed="new").manifest.model_name == "new"
    assert "the new one is used" in caplog.text
    with pytest.raises(ChangedArchive, match=r"a\.mar has changed since it was registered"):
        archives.reopen("a.mar", sha256, changed="fail")


def test_a_replaced_archive_whose_registered_content_is_not_kept_is_changed(
    archives: ArchiveStore, model_store: Path
) -> None:
    (model_store / "a.mar").write_bytes(zipped(model_files("new")))
    with pytest.raises(ChangedArchive, match="what it was then is not kept"):
        archives.reopen("a.mar", "0" * 64)
    assert archives.reopen("a.mar", "0" * 64, changed="new").manifest.model_name == "new"


@pytest.mark.parametrize("changed", ["registered", "fail"])
def test_a_changed_directory_is_changed_since_it_cannot_be_kept(
    archives: ArchiveStore, model_store: Path, changed: str
) -> None:
    lay_out(model_store / "d", model_files())
    sha256 = archives.open("d").sha256
    assert archives.reopen("d", sha256, changed=changed).sha256 == sha256
    lay_out(model_store / "d", {"service.py": "# another"})
    with pytest.raises(ChangedArchive, match="d has changed since it was registered"):
        archives.reopen("d", sha256, changed=changed)
    assert archives.reopen("d", sha256, changed="new").sha256 != sha256


@pytest.mark.parametrize("changed", ["registered", "new", "fail"])
@pytest.mark.parametrize("url", ["gone.mar", "gone", "http://127.0.0.1:1/gone.mar", "http://127.0.0.1:port/x"])
def test_an_archive_that_is_nowhere_to_be_had_is_missing(archives: ArchiveStore, url: str, changed: str) -> None:
    with pytest.raises(MissingArchive, match="is gone and its content is not kept"):
        archives.reopen(url, "0" * 64, changed=changed)


def test_an_archive_of_unknown_digest_is_opened_as_it_is_today(archives: ArchiveStore, model_store: Path) -> None:
    (model_store / "a.mar").write_bytes(zipped(model_files()))
    assert archives.reopen("a.mar", "").manifest.model_name == "noop"


def test_a_digest_that_is_none_names_no_folder(archives: ArchiveStore, data_dir: Path) -> None:
    (data_dir / "archives").mkdir()
    with pytest.raises(MissingArchive):
        archives.reopen("gone.mar", "../archives")


def test_a_web_archive_is_replayed_without_asking_its_host(archives: ArchiveStore, web: WebServer) -> None:
    url = web.serve("/noop.mar", zipped(model_files()))
    first = archives.open(url)
    web.asked.clear()
    assert archives.reopen(url, first.sha256) == first
    assert web.asked == []


def test_a_web_archive_follows_the_setting_for_changed_ones(archives: ArchiveStore, web: WebServer) -> None:
    url = web.serve("/noop.mar", zipped(model_files("old")))
    sha256 = archives.open(url).sha256
    assert archives.reopen(url, sha256, changed="fail").manifest.model_name == "old"
    web.serve("/noop.mar", zipped(model_files("new")))
    assert archives.reopen(url, sha256).manifest.model_name == "old"
    assert archives.reopen(url, sha256, changed="new").manifest.model_name == "new"
    with pytest.raises(ChangedArchive):
        archives.reopen(url, sha256, changed="fail")
    web.serve("/noop.mar", b"PK\x03\x04 broken")
    with pytest.raises(ChangedArchive):
        archives.reopen(url, sha256, changed="fail")
    del web.answers["/noop.mar"]
    assert archives.reopen(url, sha256, changed="new").manifest.model_name == "old"
    assert archives.reopen(url, sha256, changed="fail").manifest.model_name == "old"


# --- trouble of the machine -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", [errno.ENOSPC, errno.EROFS, errno.EMFILE, errno.EIO, errno.EDQUOT])
def test_trouble_of_the_machine_is_told_from_a_bad_model(
    archives: ArchiveStore, model_store: Path, monkeypatch: pytest.MonkeyPatch, trouble: int
) -> None:
    (model_store / "a.mar").write_bytes(zipped(model_files()))

    def fails(descriptor: int) -> None:
        raise OSError(trouble, os.strerror(trouble))

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(LoadFailed) as e:
        archives.open("a.mar")
    assert e.value.environment
    assert e.value.message == f"Failed to save model: a.mar: {os.strerror(trouble)}"


def test_a_data_folder_that_is_a_file_is_trouble_of_the_machine(model_store: Path, tmp_path: Path) -> None:
    (model_store / "a.mar").write_bytes(zipped(model_files()))
    (tmp_path / "file").write_text("")
    with pytest.raises(LoadFailed) as e:
        ArchiveStore(model_store, tmp_path / "file", tag="t").open("a.mar")
    assert e.value.environment


# --- start-up and sweep -----------------------------------------------------------------------------------------------


def test_all_means_directories_and_archives_that_are_not_hidden_by_name(
    archives: ArchiveStore, model_store: Path, data_dir: Path
) -> None:
    lay_out(model_store, {"b/x": "", "a.mar": "", "c.model": "", ".hidden/x": "", ".h.mar": "", "readme.txt": ""})
    assert archives.startup_urls() == ["a.mar", "b", "c.model"]
    assert ArchiveStore(None, data_dir, tag="t").startup_urls() == []


def test_a_sweep_removes_what_no_registration_names_and_what_other_lives_left(
    archives: ArchiveStore, model_store: Path, data_dir: Path
) -> None:
    for name in ("a", "b"):
        (model_store / f"{name}.mar").write_bytes(zipped(model_files(name)))
    a, b = archives.open("a.mar"), archives.open("b.mar")
    lay_out(data_dir / "archives", {f"{a.sha256}.cache/graph": b"", f"{b.sha256}.cache/graph": b""})
    lay_out(data_dir / "tmp" / "life-0-abc", {"download": b"half"})
    assert archives.sweep(set()) == ["life-0-abc"], "what this life opened stays"
    next_life = ArchiveStore(model_store, data_dir, tag="life-2")
    gone = next_life.sweep({a.sha256})
    assert sorted(gone) == sorted([b.sha256, f"{b.sha256}.cache"])
    assert sorted(p.name for p in (data_dir / "archives").iterdir()) == [a.sha256, f"{a.sha256}.cache"]
    assert next_life.reopen("a.mar", a.sha256) == a
    assert list((data_dir / "tmp").iterdir()) == []


def test_a_sweep_of_a_new_data_folder_finds_nothing(archives: ArchiveStore) -> None:
    assert archives.sweep(set()) == []


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("squeezenet_v1.1.mar", "squeezenet_v1_1"),
        ("noop_v1.0", "noop_v1_0"),
        ("squeezenet.model", "squeezenet"),
        ("sub/dir/deep.mar", "deep"),
        ("_private.mar", "_private"),
        ("a b-c.mar", "a_b_c"),
        ("http://host:80/path/net-v2.mar?sig=a.b/c", "net_v2"),
        ("net.tar.gz", "net"),
        ("net.tgz", "net"),
        ("dir/", "dir"),
        ("größe.mar", "gr__e"),
    ],
)
def test_the_default_name_follows_the_rule_of_mms(url: str, name: str) -> None:
    assert default_name(url) == name


def test_a_tar_link_inside_the_archive_is_kept(archives: ArchiveStore, model_store: Path) -> None:
    files = {f"noop/{k}": v for k, v in model_files().items()}
    (model_store / "l.tgz").write_bytes(tarred(files, tar_link("noop/alias.py", "service.py")))
    archive = archives.open("l.tgz")
    assert (archive.model_dir / "alias.py").resolve() == (archive.model_dir / "service.py").resolve()
