"""Unpacking archives that nobody vouches for: nothing leaves the folder, nothing is a device, nothing comes twice."""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from builder.errors import HostError, SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["read_members", "unpack"]


def unpack(archive: Path, dest: Path, *, epoch: int) -> None:
    """Leave the archive's tree at `dest` (its single top folder stripped), every time stamp `epoch`.

    Unpacked beside and renamed. Raises SourceError ``archive-unsafe`` for a member that leaves the folder, is absolute, a
    link out of the tree, a device, or there twice; ``archive-damaged`` when it is cut or broken; HostError ``disk-full``.
    """
    beside = dest.with_name(f".{dest.name}.unpacking")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        if zipfile.is_zipfile(archive):
            _unzip(archive, beside)
        else:
            _untar(archive, beside)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, OSError) as error:
        if isinstance(error, OSError) and error.errno == 28:  # noqa: PLR2004  # ENOSPC
            raise HostError("disk-full", f"no space left to unpack {archive.name}", run=("spark-build gc",)) from error
        if isinstance(error, OSError) and error.errno is not None and not isinstance(error, tarfile.TarError):
            raise
        raise SourceError(
            "archive-damaged",
            f"{archive.name} is damaged or cut off",
            cause=str(error),
            help="delete it, and it is fetched again",
            run=(f"rm {archive}",),
        ) from error
    top = _single_top(beside)
    _stamp(top, epoch)
    top.replace(dest)
    shutil.rmtree(beside, ignore_errors=True)


def _single_top(folder: Path) -> Path:
    entries = [entry for entry in folder.iterdir() if entry.name != "pax_global_header"]
    return entries[0] if len(entries) == 1 and entries[0].is_dir() and not entries[0].is_symlink() else folder


def _untar(archive: Path, dest: Path) -> None:
    seen: set[str] = set()
    with tarfile.open(archive) as tar:
        for member in tar:
            name = _safe_name(member.name, archive)
            if member.islnk() or member.issym():
                _safe_link(name, member.linkname, archive, hard=member.islnk())
            elif not (member.isfile() or member.isdir()):
                raise _unsafe(archive, member.name, "a device or pipe")
            if not member.isdir():
                if name in seen:
                    raise _unsafe(archive, member.name, "there twice")
                seen.add(name)
            _through_link(dest, name, archive)
            tar.extract(member, dest, filter="data")


def _unzip(archive: Path, dest: Path) -> None:
    seen: set[str] = set()
    with zipfile.ZipFile(archive) as zipped:
        for member in zipped.infolist():
            name = _safe_name(member.orig_filename, archive)
            target = dest / name
            if member.is_dir():
                target.mkdir(parents=True, exist_ok=True)
                continue
            if name in seen:
                raise _unsafe(archive, member.filename, "there twice")
            seen.add(name)
            target.parent.mkdir(parents=True, exist_ok=True)
            mode = member.external_attr >> 16
            if stat.S_ISLNK(mode):
                link = zipped.read(member).decode()
                _safe_link(name, link, archive, hard=False)
                target.symlink_to(link)
                continue
            _through_link(dest, name, archive)
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


def _through_link(dest: Path, name: str, archive: Path) -> None:
    """Refuse to write through a link that an earlier member made."""
    folder = dest
    for part in PurePosixPath(name).parts[:-1]:
        folder /= part
        if folder.is_symlink():
            raise _unsafe(archive, name, "a path through a link")


def _unsafe(archive: Path, name: str, why: str) -> SourceError:
    return SourceError(
        "archive-unsafe",
        f"{archive.name} holds {why}",
        cause=repr(name),
        help="nothing of it was used; tell upstream, or check where the file comes from",
    )


def _stamp(folder: Path, epoch: int) -> None:
    """Give everything one time: ninja and setuptools compare them, and unpacking order must not show."""
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            os.utime(os.path.join(root, name), (epoch, epoch), follow_symlinks=False)  # noqa: PTH118  # 10,000 of them
    os.utime(folder, (epoch, epoch))


def read_members(archive: Path, wanted: frozenset[str], *, limit: int = 1 << 20) -> Iterator[tuple[str, bytes]]:
    """Yield (path below the top folder, content) of the members in `wanted` that are there and at most `limit` bytes."""
    left = set(wanted)
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as zipped:
                for name in zipped.namelist():
                    inner = name.partition("/")[2]
                    if inner in left and zipped.getinfo(name).file_size <= limit:
                        left.discard(inner)
                        yield inner, zipped.read(name)
            return
        with tarfile.open(archive) as tar:
            for member in tar:
                inner = member.name.partition("/")[2]
                if inner in left and member.isfile() and member.size <= limit:
                    stream = tar.extractfile(member)
                    if stream is not None:
                        left.discard(inner)
                        yield inner, stream.read()
                if not left:
                    return
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise SourceError(
            "archive-damaged",
            f"{archive.name} is damaged or cut off",
            cause=str(error),
            run=(f"rm {archive}",),
        ) from error
