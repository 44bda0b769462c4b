"""Writing an index as files: only what differs, and taking away only what was written by an earlier run.

``.spark-build-index`` names every file of ours. It is written twice: before the work with the old files and the new ones,
so that a run that is killed leaves nothing unknown behind; after it with the new ones and the state that they show.
Line 1 names the format, line 2 the state, the rest are paths.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from builder import durable
from builder.errors import HostError, UsageError, WheelhouseError
from builder.index import pages
from builder.index.manifest import FORMAT, HEAD, MANIFEST

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from builder.index.listing import File, Listing

__all__ = ["Written", "claimed", "lacking", "write"]

_NEW = ".new"
#: How far off a time may be that a stick's file system keeps: FAT counts in steps of two seconds.
_COARSE_NS = 2 * 10**9
#: The manifest lies in a folder that others may write: what is deleted on its word has to look like ours.
_OURS = re.compile(r"simple/([^/]+/)?index\.(html|json)|files/[0-9a-f]{64}/[^/]+")
#: What `flock` says on file systems that have none, as some of those over a network.
_NO_LOCK = frozenset([errno.EBADF, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])


@dataclass(slots=True, kw_only=True)
class Written:
    """What one run did, in files; `copied_bytes` in bytes. All else was right already."""

    linked: int = 0
    copied: int = 0
    copied_bytes: int = 0
    pages: int = 0
    sidecars: int = 0
    removed: int = 0


@contextlib.contextmanager
def claimed(dest: Path) -> Iterator[None]:
    """Hold the folder for one writer, made when it isn't there; other processes wait, and a kill lets go of it.

    OSErrors inside become HostError ``disk-full`` or ``unwritable``. Raises UsageError ``not-an-index`` when the folder
    holds things that no export wrote.
    """
    with _told(dest):
        dest.mkdir(parents=True, exist_ok=True)
        folder = os.open(dest, os.O_RDONLY | os.O_DIRECTORY)
        try:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX)
            except OSError as error:
                if error.errno not in _NO_LOCK:
                    raise
            _check_ours(dest)
            yield
        finally:
            os.close(folder)


def write(dest: Path, listing: Listing) -> Written:
    """Make `dest`, which is claimed, show `listing`; return what had to be done."""
    done = Written()
    texts = _pages(listing)
    files = [file for some in listing.projects.values() for file in some]
    sidecars = {f"{pages.file_path(file)}.metadata": file for file in files}
    new = {*texts, *sidecars, *(pages.file_path(file) for file in files)}
    old = _manifest(dest)
    if not new <= old:
        _write_manifest(dest, "", old | new)
    for file in files:
        _place(file, listing, dest / pages.file_path(file), done)
    for path, file in sidecars.items():
        # Its folder is named after the wheel's digest: what has the right size there has the right bytes.
        if _size(dest / path) != file.metadata_size:
            done.sidecars += _put(dest / path, listing.metadata(file))
    for path, text in texts.items():
        done.pages += _put(dest / path, text.encode())
    for path in sorted(old - new):
        done.removed += _remove(dest, path)
    _write_manifest(dest, listing.state, new)
    return done


def lacking(dest: Path, listing: Listing) -> Iterator[Path]:
    """Yield what of `listing` isn't there in full size. Reads no file."""
    wanted = {path: len(text.encode()) for path, text in _pages(listing).items()}
    for files in listing.projects.values():
        for file in files:
            wanted |= {pages.file_path(file): file.size, f"{pages.file_path(file)}.metadata": file.metadata_size}
    for path, size in wanted.items():
        if _size(dest / path) != size:
            yield dest / path


def _pages(listing: Listing) -> dict[str, str]:
    """Return path and text of every page; those of projects first, so that the root names none that isn't there."""
    texts = {}
    for name, files in listing.projects.items():
        texts[f"simple/{name}/index.html"] = pages.project_html(name, files)
        texts[f"simple/{name}/index.json"] = pages.project_json(name, files)
    names = sorted(listing.projects)
    return texts | {"simple/index.html": pages.root_html(names), "simple/index.json": pages.root_json(names)}


def _check_ours(dest: Path) -> None:
    names = {name for name in os.listdir(dest) if name != _NEW}  # noqa: PTH208  # names are enough
    if not names or MANIFEST in names:
        return
    raise UsageError(
        "not-an-index",
        f"{dest} isn't empty and wasn't written by `spark-build index export`",
        cause=f"it holds {', '.join(sorted(names)[:3])}{' and more' if len(names) > 3 else ''}",  # noqa: PLR2004
        help="an export takes away what is no longer listed, so it wants a folder of its own: a new or an empty one",
        run=(f"spark-build index export {dest / 'index'}",),
    )


def _manifest(dest: Path) -> set[str]:
    try:
        lines = (dest / MANIFEST).read_text().split("\n")
    except FileNotFoundError:
        return set()
    number = lines[0].removeprefix(HEAD)
    if lines[0] == number or not number.isdecimal() or int(number) > FORMAT:
        raise UsageError(
            "index-newer",
            f"{dest / MANIFEST} has a format that this spark-build doesn't know",
            cause=lines[0][:60],
            help="a newer spark-build wrote this index: use that one, or name another folder",
        )
    return {line for line in lines[2:] if _OURS.fullmatch(line) and ".." not in line.split("/")}


def _write_manifest(dest: Path, state: str, paths: set[str]) -> None:
    _put(dest / MANIFEST, "\n".join([f"{HEAD}{FORMAT}", state, *sorted(paths), ""]).encode())


def _size(path: Path) -> int | None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return found.st_size


def _put(path: Path, data: bytes) -> bool:
    """Leave `data` in `path`, at once and lasting; return whether it had other bytes before."""
    with contextlib.suppress(FileNotFoundError):
        if path.read_bytes() == data:
            return False
    path.parent.mkdir(parents=True, exist_ok=True)
    with _beside(path) as new:
        durable.write_synced(new, data)
    return True


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """Give a new name in the same folder that becomes `path` at the end; nothing is left after an error."""
    new = path.with_name(_NEW)
    new.unlink(missing_ok=True)
    try:
        yield new
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def _place(file: File, listing: Listing, target: Path, done: Written) -> None:
    """Leave the wheel at `target`: as a hard link where the file system can, else as a copy whose bytes were checked."""
    try:
        source = file.path.stat()
    except FileNotFoundError as error:
        raise _missing(file) from error
    if source.st_size != file.size:
        raise _changed(file, f"it has {source.st_size} bytes, the catalogue says {file.size}")
    if not listing.is_whole(file):
        raise _changed(file, f"it has other bytes than those of the sha256 {file.sha256}")
    if _same(target, source):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with _beside(target) as new:
        try:
            new.hardlink_to(file.path)
            done.linked += 1
        except OSError:  # another file system, one without links, another owner
            found = durable.copy_synced(file.path, new)
            if found != file.sha256:
                raise _changed(file, f"its sha256 is {found}, the catalogue says {file.sha256}") from None
            os.utime(new, ns=(source.st_atime_ns, source.st_mtime_ns))
            done.copied += 1
            done.copied_bytes += file.size


def _same(target: Path, source: os.stat_result) -> bool:
    """Whether a link or a copy of the source as it is now lies at `target`; a copy carries its time."""
    try:
        found = target.lstat()
    except FileNotFoundError:
        return False
    slack_ns = 0 if found.st_dev == source.st_dev else _COARSE_NS
    return found.st_size == source.st_size and abs(found.st_mtime_ns - source.st_mtime_ns) <= slack_ns


def _missing(file: File) -> WheelhouseError:
    return _damaged(
        "wheel-missing", f"{file.filename} is in the catalogue, and its file isn't there", file, str(file.path)
    )


def _changed(file: File, cause: str) -> WheelhouseError:
    return _damaged("wheel-changed", f"{file.filename} isn't what was published", file, cause)


def _damaged(code: str, summary: str, file: File, cause: str) -> WheelhouseError:
    return WheelhouseError(
        code,
        summary,
        cause=cause,
        help="put the file back from a copy, or take the wheel out; it can be built again after that",
        run=("spark-build wheels verify", f"spark-build wheels rm {file.filename}"),
    )


def _remove(dest: Path, path: str) -> bool:
    """Take away a file of ours and the folders that it leaves empty; return whether it was there."""
    file = dest / path
    (file.parent / _NEW).unlink(missing_ok=True)  # of a run that was killed
    try:
        file.unlink()
    except FileNotFoundError:
        return False
    with contextlib.suppress(OSError):  # not empty: others put something there
        for folder in file.parents:
            if folder == dest:
                break
            folder.rmdir()
    return True


@contextlib.contextmanager
def _told(dest: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise HostError(
                "disk-full",
                f"no space left for {dest}",
                cause="the pages that were there are whole; what was copied so far is kept",
                help="free space there and run the same command again: it goes on where it stopped",
                run=(f"df -h {dest}",),
            ) from error
        raise HostError(
            "unwritable",
            f"{dest} can't be written",
            cause=f"{error.filename}: {error.strerror}" if error.filename else str(error),
            help="choose another folder, or mend its permissions",
            run=(f"ls -ld {dest}",),
        ) from error
