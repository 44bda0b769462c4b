"""What makes an archive no whole, no safe or no honest wheel: the rules that `read.check` and the audit share.

Formats: the binary distribution format of PEP 427 with RECORD and WHEEL as in the packaging user guide's specifications.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import errno
import io
import re
import stat
import zipfile
import zlib
from collections import Counter
from typing import IO, TYPE_CHECKING, BinaryIO

from builder.errors import CheckRefused
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from packaging.version import Version

__all__ = [
    "DAMAGE",
    "TEXT_LIMIT",
    "Damaged",
    "Problem",
    "Record",
    "hidden",
    "member",
    "opened",
    "unfinished",
    "unnamed",
    "unreadable",
    "unsafe",
]

#: A large member may unpack to so many times its packed size before it is taken for a bomb. Libraries and GPU code reach
#: 10, text 30; deflate's own limit is about 1,030.
_RATIO = 200
_LARGE = 16 << 20
#: What is read into memory as a whole (METADATA, WHEEL, RECORD, the zip's directory) may have so many bytes.
TEXT_LIMIT = 16 << 20
#: Where in a member's own header the lengths of its name and of its extra field stand, and what may follow its data.
_LENGTHS_AT, _DESCRIPTOR = 26, 24
#: Weaker hashes are forbidden in RECORD.
_ALGORITHMS = frozenset({"sha256", "sha384", "sha512"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What is wrong with a wheel, or with one `file` in it. `found` goes on where the wheel's name ends."""

    code: str
    found: str
    file: str = ""
    cause: str = ""
    help: str = ""

    def refused(self, filename: str) -> CheckRefused:
        """Return the error that refuses the wheel called `filename`."""
        joint = ": " if self.code == "record-lies" else " "
        return CheckRefused(self.code, f"{filename}{joint}{self.found}", cause=self.cause, help=self.help)


class Damaged(Exception):  # what the file is, not what went wrong here
    """The bytes are no whole zip, or no RECORD; the text says what doesn't fit."""


#: What is raised while members are read that aren't whole.
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, Damaged)
#: What the standard library raises, beside that, on opening an archive or a member: encrypted or packed in an unknown way
#: (RuntimeError), a name that is no text (ValueError), a place that can't be (OverflowError). Caught there and nowhere
#: else, since mistakes of our own look the same.
_OPENING = (RuntimeError, ValueError, OverflowError)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip and turn every way in which it can be broken into CheckRefused ``wheel-damaged`` or ``wheel-unsafe``."""
    try:
        with _damage():
            said = _check_directory(path)
            archive = zipfile.ZipFile(path)
        with archive:
            if said != {len(archive.infolist())}:  # some installers go by that number
                found = f"its directory holds {len(archive.infolist())} members, and says {', '.join(map(str, said))}"
                raise Damaged(found)
            yield archive
    except DAMAGE as error:
        raise CheckRefused("wheel-damaged", f"{path.name} is no whole wheel", cause=str(error)) from error


def member(archive: zipfile.ZipFile, name: str | zipfile.ZipInfo) -> IO[bytes]:
    """Open a member; raise one of `DAMAGE` where that can't be done."""
    with _damage():
        return archive.open(name)


@contextlib.contextmanager
def _damage() -> Iterator[None]:
    try:
        yield
    except _OPENING as error:
        raise Damaged(str(error)) from error
    except OSError as error:
        if error.errno != errno.EINVAL:  # sent to a place before the file's start
            raise
        raise Damaged(str(error)) from error


def _check_directory(path: Path) -> set[int]:
    """Return how many members the directory says there are, on this disk and in all.

    Refuses one that would fill the memory, before the standard library reads it as a whole.
    """
    with path.open("rb") as stream:
        end = zipfile._EndRecData(stream)  # type: ignore[attr-defined]  # noqa: SLF001  # what ZipFile goes by
    if end and end[5] > TEXT_LIMIT:  # the size of the directory
        cause = f"{end[5]} bytes of names, more than {TEXT_LIMIT >> 20} MiB"
        raise CheckRefused("wheel-unsafe", f"{path.name} holds a directory that no wheel needs", cause=cause)
    return {int(end[3]), int(end[4])} if end else set()


def unsafe(archive: zipfile.ZipFile, size: int) -> Iterator[Problem]:
    """Yield why unpacking the archive of `size` bytes could do harm: only its directory is read."""
    for member in archive.infolist():
        if reason := _reason(member):
            name = member.orig_filename
            yield Problem(code="wheel-unsafe", found=f"holds {reason}", file=name, cause=repr(name))
    yield from _twice(archive.namelist())
    if sum(member.compress_size for member in archive.infolist()) > size:
        # A few kilobytes can unpack to petabytes so.
        yield Problem(code="wheel-unsafe", found="holds members that overlap", cause="a bomb, by all signs")


def _reason(member: zipfile.ZipInfo) -> str:
    # `filename` of a ZipInfo is cut at a NUL; the name as stored isn't.
    name = member.orig_filename
    parts = name.split("/")
    reason = ""
    if not name or "\\" in name or not name.isprintable():
        reason = "a NUL, a backslash or another character in the name that no name may hold"
    elif name.startswith("/") or re.match(r"[A-Za-z]:", name):
        reason = "an absolute path"
    elif ".." in parts or "." in parts or "" in parts[:-1]:
        reason = "a path that leaves the folder or isn't plain"
    elif stat.S_ISLNK(member.external_attr >> 16):
        reason = "a symbolic link"
    elif member.flag_bits & 0x1:
        reason = "an encrypted member"
    elif member.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        reason = f"a compression that not every installer reads ({member.compress_type})"
    elif member.file_size > _LARGE and member.file_size > member.compress_size * _RATIO:
        reason = f"{member.compress_size} bytes that claim to unpack to {member.file_size}"
    return reason


def _twice(names: list[str]) -> Iterator[Problem]:
    twice = [name for name, count in Counter(names).items() if count > 1]
    pending, folders = {name.rpartition("/")[0] for name in names}, set()
    while pending:
        folders |= pending
        pending = {name.rpartition("/")[0] for name in pending} - folders
    both = sorted(folders & set(names))
    for found, where in (("holds a name twice", twice), ("holds a name both as file and as folder", both)):
        for name in where:
            yield Problem(code="wheel-unsafe", found=found, file=name, cause=repr(name))


def hidden(archive: zipfile.ZipFile, path: Path) -> Iterator[Problem]:
    """Yield how many bytes of the archive belong to nothing that its directory names.

    Installers take a comment, and zeros behind the end; pip takes anything, uv nothing else.
    """
    end = 0
    with path.open("rb") as stream:
        found = _behind(stream)
        for member in sorted(archive.infolist(), key=lambda one: one.header_offset):
            if not 0 <= member.header_offset < archive.start_dir:  # whoever reads it will say so
                continue
            found += max(0, member.header_offset - end)
            stream.seek(member.header_offset + _LENGTHS_AT)
            lengths = stream.read(4)
            end = member.header_offset + _LENGTHS_AT + 4 + member.compress_size
            end += int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
            # Whoever writes to a pipe puts checksum and sizes behind the data, in one of four lengths.
            end += _DESCRIPTOR if member.flag_bits & 0x8 else 0
    found += max(0, archive.start_dir - end)
    if found:
        yield Problem(code="wheel-hidden", found=f"holds {found} bytes that its directory doesn't name")


def _behind(stream: BinaryIO) -> int:
    """Return how many bytes follow the end of the archive, unless all are zeros."""
    record = zipfile._EndRecData(stream)  # type: ignore[attr-defined]  # noqa: SLF001  # what ZipFile goes by
    stream.seek(record[9] + zipfile.sizeEndCentDir + record[7])  # type: ignore[attr-defined]  # its place, its comment
    rest = stream.read(TEXT_LIMIT)
    return len(rest) if rest.strip(b"\0") else 0


def unfinished(archive: zipfile.ZipFile) -> Iterator[Problem]:
    """Yield why the archive has no single, whole ``.dist-info`` folder."""
    found = {name.split("/")[0] for name in archive.namelist() if name.split("/")[0].endswith(".dist-info")}
    if len(found) != 1:
        names = ", ".join(sorted(found))
        yield Problem(code="wheel-name", found=f"holds {len(found)} .dist-info folders", cause=names)
        return
    for needed in ("METADATA", "WHEEL", "RECORD"):
        if (name := f"{min(found)}/{needed}") not in archive.NameToInfo:
            yield Problem(code="wheel-damaged", found=f"has no {name}", file=name)


def unnamed(said: tuple[str, str], metadata: tuple[str, str], info: str) -> Iterator[Problem]:
    """Yield where the file name's project and version are others than those of METADATA or of the folder `info`."""
    project, _dash, version = info.removesuffix(".dist-info").partition("-")
    for what, found in (("METADATA", metadata), (info, (project, version))):
        if _comparable(*found) != _comparable(*said):
            yield Problem(
                code="wheel-name",
                found=f"says {' '.join(said)}, its {what} says {' '.join(found)}",
                help="a wheel under a wrong name would be installed for another",
            )


def _comparable(project: str, version: str) -> tuple[str, Version | str]:
    """Return what equals another spelling of the same; a file name has ``_`` for what isn't allowed there."""
    from packaging.version import InvalidVersion, Version  # noqa: PLC0415  # not on the hit path

    project = re.sub(r"[-_.]+", "-", project).lower()
    try:
        return project, Version(version.replace("_", "-") if "+" not in version else version.replace("_", "."))
    except InvalidVersion:
        return project, version


def unreadable(version: str, info: str) -> Iterator[Problem]:
    """Yield why installers would refuse the version of the format, as WHEEL names it."""
    if not re.fullmatch(r"1\.\d+", version):
        yield Problem(
            code="wheel-damaged",
            found=f"has the wheel version {version or 'none'}, wanted 1.0",
            file=f"{info}/WHEEL",
            cause=f"{info}/WHEEL; installers refuse a major version that they don't know",
        )


def _rows(data: bytes) -> list[list[str]]:
    try:
        return list(csv.reader(io.StringIO(data.decode(), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise Damaged(str(error)) from error


class Record:
    """RECORD: what the wheel says of the bytes of its files. `problems` are lines that are no entries.

    Raises `Damaged` for what is no table.
    """

    def __init__(self, data: bytes, info: str) -> None:
        self.problems: list[Problem] = []
        self._unhashed = {f"{info}/RECORD", f"{info}/RECORD.jws", f"{info}/RECORD.p7s"}
        self._rows: dict[str, tuple[str, str]] = {}
        for row in _rows(data):
            if len(row) != 3 or not re.fullmatch(r"[0-9]{0,19}", row[2]):  # noqa: PLR2004  # path, hash, size
                self._lies("RECORD has a line that is no entry", "", repr(row))
            elif row[0] in self._rows:
                self._lies("RECORD names a file twice", row[0], row[0])
            else:
                self._rows[row[0]] = (row[1], row[2])

    def _lies(self, found: str, file: str, cause: str) -> None:
        self.problems.append(Problem(code="record-lies", found=found, file=file, cause=cause))

    def algorithm(self, name: str) -> str:
        """Return by which hash a file has to be read."""
        found = self._rows.get(name, ("", ""))[0].partition("=")[0]
        return found if found in _ALGORITHMS else "sha256"

    def names(self, members: Iterable[str]) -> Iterator[Problem]:
        """Yield where RECORD and the archive don't name the same files."""
        there = set(members)
        if extra := sorted(there - self._rows.keys() - self._unhashed):
            cause = extra[0]
            yield Problem(
                code="record-lies",
                found=f"{len(extra)} file(s) that RECORD doesn't name",
                file=cause if len(extra) == 1 else "",
                cause=cause if len(extra) == 1 else ", ".join(extra[:10]),
            )
        for name in sorted(self._rows.keys() - there - self._unhashed):
            yield Problem(code="record-lies", found="RECORD names a file that isn't there", file=name, cause=name)

    def differs(self, name: str, digest: bytes, size: int) -> Problem | None:
        """Return how a file with this `digest`, made by `algorithm`, isn't what RECORD says; None when it is."""
        if name in self._unhashed or name not in self._rows:
            return None
        text, said = self._rows[name]
        found = f"{self.algorithm(name)}={base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"
        if found == text and (not said or int(said) == size):
            return None
        return Problem(
            code="record-lies",
            found=f"{name} isn't what RECORD says",
            file=name,
            cause=f"found {found}, {size} bytes; RECORD says {text or 'no hash'}, {said} bytes",
        )
