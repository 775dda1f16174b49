"""Unpacks zip and tar archives into a folder, and nowhere else; bounded in size and number, synced to the disk."""

from __future__ import annotations

import errno
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from mms.errors import InvalidModel

MAX_ENTRIES = 100_000  # files and folders of one archive
_CHUNK = 1 << 20  # bytes
_LEAVING_LINK = "The model archive holds a link that would leave its folder"
_GZIP_MAGIC = b"\x1f\x8b"
_ZIP_MAGIC = b"PK\x03\x04"
_BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,  # a compression that zipfile does not know
    RuntimeError,  # an encrypted entry
    UnicodeError,
    ValueError,  # a NUL in a name
)
# What the archive's own names bring about; every other OSError is the machine's trouble.
_NAMES_FAULT = frozenset(
    {errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.ELOOP}
)


def is_archive(path: Path) -> bool:
    """True for a zip (.mar) or a gzipped tar, whole or broken, by content: names are not believed."""
    with path.open("rb") as file:
        head = file.read(4)
    return head.startswith((_GZIP_MAGIC, _ZIP_MAGIC)) or zipfile.is_zipfile(path)


def unpack(archive: Path, into: Path, *, max_size: int) -> Path:
    """Unpack into the new folder `into`, sync it, and return the folder that is the archive's content.

    That is `into`, or its only child for a tar, where the model's name is the top folder. Raises InvalidModel for an
    archive that is broken, too large or tries to leave its folder, and OSError for trouble of the machine.
    """
    into.mkdir(parents=True)
    room = _Room(into, max_size)
    try:
        with archive.open("rb") as file:
            tarred = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
        if tarred:
            _unpack_tar(archive, room)
        else:
            _unpack_zip(archive, room)
    except _BROKEN as e:
        raise InvalidModel(f"The model archive is broken: {e}") from None
    except OSError as e:
        if e.errno in _NAMES_FAULT:
            raise InvalidModel(f"The model archive holds names that cannot be unpacked: {e.strerror}") from None
        raise
    children = list(into.iterdir())
    content = children[0] if tarred and len(children) == 1 and stat.S_ISDIR(children[0].lstat().st_mode) else into
    room.check_links(content)
    _sync_folders(content)
    return content


class _Room:
    """The folder being filled: checks each name, counts what is written, creates links last."""

    def __init__(self, root: Path, max_size: int) -> None:
        self._root = root
        self._max_size = max_size
        self._left = max_size
        self._entries = 0
        self._links: list[Path] = []

    def place(self, name: str) -> Path | None:
        """Where an entry goes; None for the root itself."""
        self._entries += 1
        if self._entries > MAX_ENTRIES:
            raise InvalidModel(f"The model archive holds more than {MAX_ENTRIES} entries")
        parts = PurePosixPath(name).parts
        if PurePosixPath(name).is_absolute() or ".." in parts:
            raise InvalidModel(f"The model archive holds an entry that would leave its folder: {name}")
        return self._root.joinpath(*parts) if parts else None

    def write(self, target: Path, source: IO[bytes], *, executable: bool) -> None:
        """One file, synced. Its mode says no more than whether it can be run."""
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            while chunk := source.read(_CHUNK):
                self._left -= len(chunk)
                if self._left < 0:
                    raise InvalidModel(f"The model archive is larger than {self._max_size} bytes when unpacked")
                file.write(chunk)
            file.flush()
            os.fchmod(file.fileno(), 0o755 if executable else 0o644)
            os.fsync(file.fileno())

    def link(self, place: Path, target: str) -> None:
        """One symbolic link, made when all files are there, so that no file is ever written through one."""
        if not place.parent.resolve().is_relative_to(self._root.resolve()):
            raise InvalidModel(f"{_LEAVING_LINK}: {place.name}")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(target)
        self._links.append(place)

    def check_links(self, content: Path) -> None:
        """A link may become one that leaves only by a later one, so all are looked at when all are there."""
        for place in self._links:
            absolute = PurePosixPath(place.readlink()).is_absolute()
            if absolute or not place.resolve().is_relative_to(content.resolve()):
                raise InvalidModel(f"{_LEAVING_LINK}: {place.name}")


def _unpack_zip(archive: Path, room: _Room) -> None:
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            place = room.place(info.filename)
            if place is None:
                continue
            if info.is_dir():
                place.mkdir(parents=True, exist_ok=True)
                continue
            with opened.open(info) as source:
                room.write(place, source, executable=bool(info.external_attr >> 16 & 0o100))


def _unpack_tar(archive: Path, room: _Room) -> None:
    links: list[tuple[Path, str]] = []
    with tarfile.open(archive, "r:gz") as opened:
        for member in opened:
            place = room.place(member.name)
            if member.issym() and place is not None:
                links.append((place, member.linkname))
            elif member.isdir():
                if place is not None:
                    place.mkdir(parents=True, exist_ok=True)
            elif (member.isreg() or member.islnk()) and place is not None:
                with _member(opened, member) as source:
                    room.write(place, source, executable=bool(member.mode & 0o100))
            else:
                raise InvalidModel(f"The model archive holds an entry that is neither file nor folder: {member.name}")
    for place, target in links:
        room.link(place, target)


@contextmanager
def _member(opened: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[IO[bytes]]:
    """A file's bytes; a hard link is read as the member that it names, so it can name no file outside."""
    try:
        source = opened.extractfile(member)
    except KeyError:
        source = None
    if source is None:
        raise InvalidModel(f"The model archive holds a link to nothing: {member.name}")
    with source:
        yield source


def _sync_folders(top: Path) -> None:
    for folder, _, _ in os.walk(top, topdown=False):
        sync_folder(Path(folder))


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
