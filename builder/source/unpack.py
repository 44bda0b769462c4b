"""Unpacking archives that nobody vouches for: nothing leaves the folder, nothing is a device, nothing comes twice."""

from __future__ import annotations

import calendar
import contextlib
import errno
import functools
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, TypeVar

from builder.errors import SourceError
from builder.source import checkout

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["newest", "read_member", "unpack"]

T = TypeVar("T")

#: An archive may always unpack to 1 GiB; beyond that to at most a hundred times its size. Sources shrink to a fifth.
_FREE, _RATIO = 1 << 30, 100

#: What the decompressors raise; and a name that no file system takes.
_BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OSError,
)


def unpack(archive: Path, dest: Path, *, epoch: int, strip: int | None = None) -> None:
    """Leave the archive's tree at `dest`, every time stamp `epoch`, modes 644 and 755.

    `strip` leading folders are dropped, each of which has to be the only one; None means a single one where there is one.

    Unpacked beside and renamed; an error leaves nothing. Raises SourceError ``archive-unsafe`` for a member that leaves the
    folder, is absolute, a link out of the tree, a device, or there twice, and for an archive that grows out of proportion;
    ``archive-damaged`` when it is cut or broken.
    """
    beside = dest.with_name(f".{dest.name}.unpacking")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        with _whole(archive):
            (_unzip if _is_zip(archive) else _untar)(archive, beside)
        top = _single(beside) if strip is None else _below(beside, strip, archive)
        _check_links(top, archive)
        checkout.settle(top, epoch)
        os.replace(top, dest)  # noqa: PTH105  # fails on a folder that isn't empty, as it should
    finally:
        shutil.rmtree(beside, ignore_errors=True)


@contextlib.contextmanager
def _whole(archive: Path) -> Iterator[None]:
    """Turn what a broken archive raises into SourceError; a full or closed folder isn't the archive's fault."""
    try:
        yield
    except _BROKEN as error:
        if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS}:
            raise
        raise SourceError(
            "archive-damaged",
            f"{archive.name} is damaged, cut off, or no tar or zip",
            cause=str(error),
            help="delete it, and it is fetched again",
            run=(f"rm -r {archive.parent}",),
        ) from error


def _is_zip(archive: Path) -> bool:
    """Whether it starts as a zip does: one that only ends as such is a tar whose last file is a zip."""
    with archive.open("rb") as stream:
        return stream.read(4) in {b"PK\x03\x04", b"PK\x05\x06"}


def _single(folder: Path) -> Path:
    entries = list(folder.iterdir())
    return entries[0] if len(entries) == 1 and entries[0].is_dir() and not entries[0].is_symlink() else folder


def _below(folder: Path, levels: int, archive: Path) -> Path:
    for _level in range(levels):
        below = _single(folder)
        if below == folder:
            raise SourceError(
                "archive-layout",
                f"{archive.name} doesn't have {levels} leading folder{'s' if levels > 1 else ''} to drop",
                cause=f"it holds {', '.join(sorted(one.name for one in folder.iterdir())[:5]) or 'nothing'} there",
                help="the recipe's `strip` says how many are dropped",
                run=(f"python3 -m {'zipfile' if archive.suffix == '.zip' else 'tarfile'} -l {archive}",),
            )
        folder = below
    return folder


class _Names:
    """The names seen so far, and what they may be used for."""

    def __init__(self, archive: Path) -> None:
        self._archive = archive
        self._files: set[str] = set()
        self._folders: set[str] = set()
        self._room = max(_FREE, _RATIO * archive.stat().st_size)

    def take(self, name: str, *, folder: bool, size: int) -> str:
        """Return `name` as a safe relative path; raise SourceError ``archive-unsafe`` when it can't be one."""
        path = PurePosixPath(_safe_name(name, self._archive))
        text = str(path)
        parents = {str(parent) for parent in path.parents} - {"."}
        if self._files & parents or (text in self._files if folder else text in self._folders):
            raise _unsafe(self._archive, name, "a name that is a file and a folder, or a path through a link")
        if not folder and text in self._files:
            raise _unsafe(self._archive, name, "a file that is there twice")
        self._folders |= parents
        (self._folders if folder else self._files).add(text)
        self._room -= size
        if self._room < 0:
            raise _unsafe(self._archive, name, f"more than {_RATIO} times its size")
        return text

    def must_hold(self, name: str) -> None:
        """Refuse a hard link to what isn't a file of this archive, or lies behind a link."""
        if str(PurePosixPath(name)) not in self._files:
            raise _unsafe(self._archive, name, "a hard link to no file before it")


def _untar(archive: Path, dest: Path) -> None:
    names = _Names(archive)
    with tarfile.open(archive) as tar:
        for member in tar:
            if not (member.isfile() or member.isdir() or member.islnk() or member.issym()):
                raise _unsafe(archive, member.name, "a device or pipe")
            name = names.take(member.name, folder=member.isdir(), size=member.size)
            if member.islnk() or member.issym():
                _safe_link(name, member.linkname, archive, hard=member.islnk())
            if member.islnk():
                names.must_hold(member.linkname)
            _lay(tar, member, dest, name)
        _to_the_end(tar)


def _lay(tar: tarfile.TarFile, member: tarfile.TarInfo, dest: Path, name: str) -> None:
    """Write one member that was found safe. ``tarfile``'s own filters came with Python 3.11.4, and owners don't matter."""
    target = dest / name
    (target if member.isdir() else target.parent).mkdir(parents=True, exist_ok=True)
    if member.issym():
        target.symlink_to(member.linkname)
    elif member.islnk():
        target.hardlink_to(dest / PurePosixPath(member.linkname))
    elif stream := tar.extractfile(member) if member.isfile() else None:
        with target.open("wb") as copy:
            shutil.copyfileobj(stream, copy)
        target.chmod(0o755 if member.mode & 0o100 else 0o644)


def _to_the_end(tar: tarfile.TarFile) -> None:
    """Read what follows the last member: a checksum is compared there, and a broken header ends a tar without a word."""
    assert tar.fileobj is not None  # noqa: S101  # for mypy: it is open
    while chunk := tar.fileobj.read(1 << 20):
        if chunk.strip(b"\0"):
            msg = "a header in it is broken"
            raise tarfile.ReadError(msg)


def _unzip(archive: Path, dest: Path) -> None:
    names = _Names(archive)
    with zipfile.ZipFile(archive) as zipped:
        for member in zipped.infolist():
            name = names.take(member.orig_filename, folder=member.is_dir(), size=member.file_size)
            target, mode = dest / name, member.external_attr >> 16
            if member.is_dir():
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            if stat.S_ISLNK(mode):
                link = zipped.read(member).decode()
                _safe_link(name, link, archive, hard=False)
                target.symlink_to(link)
            elif stat.S_IFMT(mode) not in {0, stat.S_IFREG}:
                raise _unsafe(archive, member.filename, "a device or pipe")
            else:
                with zipped.open(member) as source, target.open("wb") as copy:
                    shutil.copyfileobj(source, copy)
                target.chmod(0o755 if mode & 0o100 else 0o644)


def _safe_name(name: str, archive: Path) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or name.startswith("\\") or (len(name) > 1 and name[1] == ":"):
        raise _unsafe(archive, name, "an absolute path")
    if ".." in path.parts or "\\" in name or "\0" in name:
        raise _unsafe(archive, name, "a path that leaves the folder")
    return str(path)


def _safe_link(name: str, link: str, archive: Path, *, hard: bool) -> None:
    start = "" if hard else str(PurePosixPath(name).parent)
    target = os.path.normpath(os.path.join(start, link))  # noqa: PTH118  # text, nothing is on disk
    if link.startswith("/") or target == ".." or target.startswith("../"):
        raise _unsafe(archive, name, f"a link out of the tree, to {link}")


def _check_links(top: Path, archive: Path) -> None:
    """Refuse a link that leaves the tree by way of another one, which its text alone doesn't show."""
    real = os.path.realpath(top)
    for root, folders, files in os.walk(top):
        for entry in (*folders, *files):
            path = os.path.join(root, entry)  # noqa: PTH118  # 10,000 of them
            if not os.path.islink(path):  # noqa: PTH114
                continue
            name, link = os.path.relpath(path, top), os.readlink(path)  # noqa: PTH115
            _safe_link(name, link, archive, hard=False)
            if not f"{os.path.realpath(path)}/".startswith(f"{real}/"):
                raise _unsafe(archive, name, f"a link out of the tree, to {link}")


def _unsafe(archive: Path, name: str, why: str) -> SourceError:
    return SourceError(
        "archive-unsafe",
        f"{archive.name} holds {why}",
        cause=repr(name),
        help="nothing of it was used; tell upstream, or check where the file comes from",
        run=(f"python3 -m {'zipfile' if archive.suffix == '.zip' else 'tarfile'} -l {archive}",),
    )


def newest(archive: Path) -> int:
    """Return the newest time stamp in a tar or zip: an archive has no other date that a mirror would keep.

    A zip's stamps have no time zone; they are taken as UTC everywhere. Raises SourceError ``archive-damaged``.
    """
    with _whole(archive):
        if _is_zip(archive):
            with zipfile.ZipFile(archive) as zipped:
                return max(calendar.timegm((*info.date_time, 0, 0, 0)) for info in zipped.infolist())
        with tarfile.open(archive) as tar:
            found = max(int(member.mtime) for member in tar)
            _to_the_end(tar)
            return found


def read_member(archive: Path, path: str) -> bytes | None:
    """Return the file at `path` in the tree that `unpack` would leave, or None; links between members are followed."""
    with _whole(archive):
        if _is_zip(archive):
            with zipfile.ZipFile(archive) as zipped:
                entry = _find({info.filename: info for info in zipped.infolist()}, path)
                return None if entry is None or entry.is_dir() else zipped.read(entry)
        found = archive.stat()  # its time is that of the last use
        member = _find(_members(archive, (found.st_ino, found.st_size)), path)
        with tarfile.open(archive) as tar:
            if member is not None and (member.issym() or member.islnk()):  # followed among the members of its own tar
                member = _find({info.name: info for info in tar}, path)
            try:
                stream = None if member is None else tar.extractfile(member)
            except KeyError:  # a link to nothing
                return None
            return None if stream is None else stream.read()


@functools.lru_cache(maxsize=1)
def _members(archive: Path, _stamp: tuple[int, ...]) -> dict[str, tarfile.TarInfo]:
    """Return the members of a tar by name. A plan asks for a dozen files, and reading 9,000 headers takes two seconds."""
    with tarfile.open(archive) as tar:
        return {info.name: info for info in tar}


def _find(members: Mapping[str, T], path: str) -> T | None:
    """Return the member that lies at `path` once a single top folder is stripped."""
    named = {PurePosixPath(name).parts: member for name, member in members.items()}
    tops = {parts[0] for parts in named if parts}
    single = len(tops) == 1 and any(len(parts) > 1 for parts in named)
    return named.get((*(tops if single else ()), *PurePosixPath(path).parts))
