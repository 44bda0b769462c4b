"""Bringing wheels, and what lies beside them, below ``files/``: as hard links, else as copies whose bytes were checked."""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from builder.errors import WheelhouseError
from builder.index import listing, view
from builder.index.stage import NEW

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from builder.index.listing import File, House

__all__ = ["Placing", "Written", "records", "size_of"]

#: How far off a time may be that a stick's file system keeps: FAT counts in steps of two seconds.
_COARSE_NS = 2 * 10**9
_CHUNK = 4 << 20
#: What was said of how a wheel was made, and its signature: they lie beside the wheel, under its name and these.
_RECORDS = (".provenance.json", ".provenance.json.sig")


@dataclass(slots=True, kw_only=True)
class Written:
    """What one run did, in files; `copied_bytes` in bytes. All else was right already."""

    linked: int = 0
    copied: int = 0
    copied_bytes: int = 0
    pages: int = 0
    sidecars: int = 0
    removed: int = 0


def records(files: Mapping[str, File]) -> Iterator[tuple[str, str]]:
    """Yield path in the tree and file of each record and signature that there is."""
    for path, file in files.items():
        for tail in _RECORDS:
            if size_of(source := f"{file.path}{tail}") is not None:
                yield f"{path}{tail}", source


def _names(folder: Path) -> frozenset[str]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return frozenset(os.listdir(folder))  # noqa: PTH208  # names are enough
    return frozenset()


def size_of(path: str) -> int | None:
    """Return the size of a file in bytes, None where there is none."""
    try:
        return os.lstat(path).st_size  # thousands of them
    except (FileNotFoundError, NotADirectoryError):
        return None


class Placing:
    """Brings files below ``files/``; `unsynced` are those that aren't known to be on the disk."""

    def __init__(self, house: House, dest: Path, total: int, tell: Callable[[int, int], None]) -> None:
        self._house = house
        self._dest = dest
        self._total = total
        self._tell = tell
        self._bytes = 0
        self._there = _names(dest / "files")
        self.done = Written()
        self.unsynced: list[str] = []

    def wheels(self, files: Mapping[str, File]) -> None:
        """Leave each wheel at its path and its METADATA beside it."""
        known = view.times(self._house)
        for path, file in files.items():
            target = f"{self._dest}/{path}"
            fresh = file.sha256 not in self._there
            if fresh:
                os.makedirs(os.path.dirname(target), exist_ok=True)  # noqa: PTH103, PTH120  # thousands of them
            self._wheel(file, target, known, fresh=fresh)
            # Its folder is named after the wheel's digest: what has the right size there has the right bytes.
            if fresh or size_of(f"{target}.metadata") != file.metadata_size:
                self._beside(f"{target}.metadata", listing.metadata(self._house, file.sha256), fresh=fresh)
            self._bytes += file.size
            self._tell(self._bytes, self._total)

    def links(self, beside: Mapping[str, str]) -> None:
        """Leave each of these small files at its path."""
        for path, source in beside.items():
            target = f"{self._dest}/{path}"
            with contextlib.suppress(FileNotFoundError):  # taken away meanwhile
                if not _same(target, os.stat(source)):  # noqa: PTH116  # thousands of them
                    try:
                        self._link(source, target)
                    except OSError:
                        self._copy(source, target)
                    self.done.sidecars += 1

    def _wheel(self, file: File, target: str, known: Mapping[str, int], *, fresh: bool) -> None:
        """Leave the wheel at `target`: as a hard link where the file system can, else as a copy whose bytes were checked."""
        try:
            source = os.stat(file.path)  # noqa: PTH116  # thousands of them
        except FileNotFoundError as error:
            raise _missing(file) from error
        if source.st_size != file.size:
            raise _changed(file, f"it has {source.st_size} bytes, the catalogue says {file.size}")
        if known.get(file.sha256) != source.st_mtime_ns and not self._house.is_whole(file):
            raise _changed(file, f"it has other bytes than those of the sha256 {file.sha256}")
        if not fresh and _same(target, source):
            return
        try:
            self._link(str(file.path), target)
            self.done.linked += 1
        except OSError:  # another file system, one without links, another owner
            found = self._copy(str(file.path), target, expected=file.sha256)
            if found != file.sha256:
                raise _changed(file, f"its sha256 is {found}, the catalogue says {file.sha256}") from None
            self.done.copied += 1
            self.done.copied_bytes += file.size

    def _link(self, source: str, target: str) -> None:
        try:
            os.link(source, target)
        except FileExistsError:
            with _replacing(target) as new:
                os.link(source, new)

    def _copy(self, source: str, target: str, *, expected: str = "") -> str:
        """Leave a synced copy with the time of `source`; return its sha256, and leave none where another is `expected`."""
        digest, before = hashlib.sha256(), self._bytes
        with _replacing(target) as new:
            with open(source, "rb") as stream, open(new, "wb") as copy:  # noqa: PTH123
                while chunk := stream.read(_CHUNK):
                    digest.update(chunk)
                    copy.write(chunk)
                    if expected:
                        before += len(chunk)
                        self._tell(before, self._total)
                copy.flush()
                os.fsync(copy.fileno())
                found = os.fstat(stream.fileno())
            if expected in {"", digest.hexdigest()}:
                os.utime(new, ns=(found.st_atime_ns, found.st_mtime_ns))
            else:
                os.unlink(new)  # noqa: PTH108
        return digest.hexdigest()

    def _beside(self, target: str, data: bytes, *, fresh: bool) -> None:
        place = contextlib.nullcontext(target) if fresh else _replacing(target)
        with place as new, open(new, "wb") as stream:  # noqa: PTH123  # thousands of them
            stream.write(data)
        self.unsynced.append(target)
        self.done.sidecars += 1


@contextlib.contextmanager
def _replacing(target: str) -> Iterator[str]:
    """Give a new name in the same folder, of a file that becomes `target` at the end; nothing is left after an error."""
    new = f"{os.path.dirname(target)}/{NEW}"  # noqa: PTH120  # thousands of them
    with contextlib.suppress(FileNotFoundError):  # of a run that was killed
        os.unlink(new)  # noqa: PTH108
    try:
        yield new
        with contextlib.suppress(FileNotFoundError):  # it was no good
            os.replace(new, target)  # noqa: PTH105
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)  # noqa: PTH108
        raise


def _same(target: str, source: os.stat_result) -> bool:
    """Whether a link or a copy of the source as it is now lies at `target`; a copy carries its time."""
    try:
        found = os.lstat(target)
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
