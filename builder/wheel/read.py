"""Reading a wheel and judging it as a file: names, paths, RECORD.

Formats: the binary distribution format of PEP 427 with RECORD and WHEEL as in the packaging user guide's specifications.
Members are streamed; a wheel may be larger than memory.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import errno
import hashlib
import io
import re
import stat
import zipfile
import zlib
from collections import Counter
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from builder.digest import sha256_file
from builder.errors import CheckRefused
from builder.stages import Wheel
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from packaging.version import Version

__all__ = ["Name", "check", "dist_info", "header", "header_lines", "inspect", "normalised", "parse_name"]

_CHUNK = 1 << 20
#: A large member may unpack to so many times its packed size before it is taken for a bomb. Libraries and GPU code reach
#: 10, text 30; deflate's own limit is about 1,030.
_RATIO = 200
_LARGE = 16 << 20
#: What is read into memory as a whole (METADATA, WHEEL, RECORD) may have so many bytes.
_TEXT_LIMIT = 64 << 20
_PROJECT = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_NAME = re.compile(
    r"(?P<project>[^\s-]+)-(?P<version>[^\s-]+)(-(?P<build>\d[^\s-]*))?-(?P<python>[^\s-]+)-(?P<abi>[^\s-]+)-(?P<platform>[^\s-]+)\.whl"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Name:
    """The parts of a wheel's file name (PEP 427)."""

    project: str
    version: str
    build: str | None
    python: str
    abi: str
    platform: str


def normalised(project: str) -> str:
    """Return a project's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", project).lower()


def parse_name(filename: str) -> Name:
    """Return the parts of `filename`; raise CheckRefused ``wheel-name`` when it is no wheel's name."""
    found = _NAME.fullmatch(filename)
    if not found:
        raise CheckRefused(
            "wheel-name", f"{filename} is no wheel's name", cause="wanted name-version[-build]-python-abi-platform.whl"
        )
    return Name(**found.groupdict())


def header(metadata: bytes, name: str) -> str | None:
    """Return the first header `name` of a METADATA or WHEEL file, unfolded, or None; the body isn't read."""
    for lines in header_lines(metadata):
        key, _colon, value = b" ".join(line.strip() for line in lines).partition(b":")
        if key.strip().lower() == name.lower().encode():
            return value.strip().decode(errors="replace")
    return None


def header_lines(metadata: bytes) -> Iterator[list[bytes]]:
    """Yield the lines of each header, endings kept: its own and those that continue it. An empty line ends them."""
    found: list[bytes] = []
    for line in metadata.splitlines(keepends=True):  # of bytes: at LF, CR and CRLF only
        if not line.rstrip(b"\r\n"):
            break
        if line[:1] in b" \t" and found:
            found.append(line)
            continue
        if found:
            yield found
        found = [line]
    if found:
        yield found


def inspect(path: Path, *, output: str = "") -> Wheel:
    """Return what the wheel at `path` says of itself, with the digest of its bytes.

    Raises CheckRefused ``wheel-damaged`` when it can't be read and ``wheel-name`` when its METADATA has no name or version.
    """
    parts = parse_name(path.name)
    with _opened(path) as archive:
        info = dist_info(archive, path.name)
        metadata = read_text(archive, f"{info}/METADATA", path.name)
    project, version = header(metadata, "Name"), header(metadata, "Version")
    if not project or not version or not _PROJECT.fullmatch(project):
        raise CheckRefused(
            "wheel-name",
            f"{path.name}: METADATA lacks a Name or a Version",
            cause=f"found {project!r} and {version!r}; the file name says {parts.project} {parts.version}",
        )
    return Wheel(
        output=output or project,
        project=normalised(project),
        version=version,
        path=path,
        filename=path.name,
        sha256=sha256_file(path),
        size=path.stat().st_size,
        metadata=metadata,
        requires_python=header(metadata, "Requires-Python"),
    )


def dist_info(archive: zipfile.ZipFile, filename: str) -> str:
    """Return the name of the one ``.dist-info`` folder; raise CheckRefused when there is none or more than one."""
    found = {name.split("/")[0] for name in archive.namelist() if name.split("/")[0].endswith(".dist-info")}
    if len(found) != 1:
        names = ", ".join(sorted(found))
        raise CheckRefused("wheel-name", f"{filename} holds {len(found)} .dist-info folders", cause=names)
    info = found.pop()
    for needed in ("METADATA", "WHEEL", "RECORD"):
        if f"{info}/{needed}" not in archive.NameToInfo:
            raise CheckRefused("wheel-damaged", f"{filename} has no {info}/{needed}")
    return info


def read_text(archive: zipfile.ZipFile, name: str, filename: str) -> bytes:
    """Return a member that is read as a whole; raise CheckRefused ``wheel-unsafe`` when it is too large for that."""
    with archive.open(name) as stream:
        data = stream.read(_TEXT_LIMIT + 1)
    if len(data) > _TEXT_LIMIT:
        raise CheckRefused(
            "wheel-unsafe", f"{filename} holds {name} of more than {_TEXT_LIMIT >> 20} MiB", cause="a text of that size"
        )
    return data


def check(path: Path) -> None:
    """Return when the wheel is what it says; raise CheckRefused otherwise.

    Slugs: ``wheel-damaged`` (no zip, truncated, wrong CRC), ``wheel-unsafe`` (a path that leaves the folder, a link, a name
    twice, a bomb), ``wheel-name`` (file name, METADATA and folder disagree), ``record-lies`` (RECORD names other bytes).
    """
    with _opened(path) as archive:
        for member in archive.infolist():
            _check_member(member, path.name)
        _check_twice(archive, path.name)
        _check_overlap(archive, path)
        info = dist_info(archive, path.name)
        _check_names(archive, path.name, info)
        _check_format(archive, path.name, info)
        _check_record(archive, path.name, info)


#: What the standard library raises for bytes that are no zip. RuntimeError: encrypted, or an unknown compression.
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, csv.Error)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip and turn every way in which it can be broken into one error."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (*_DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        # EINVAL: the directory sends the reader to a place before the file's start.
        raise CheckRefused("wheel-damaged", f"{path.name} is no whole wheel", cause=str(error)) from error


def _check_member(member: zipfile.ZipInfo, filename: str) -> None:
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
    if reason:
        raise CheckRefused("wheel-unsafe", f"{filename} holds {reason}", cause=repr(name))


def _check_twice(archive: zipfile.ZipFile, filename: str) -> None:
    names = archive.namelist()
    if len(names) != len(set(names)):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise CheckRefused("wheel-unsafe", f"{filename} holds a name twice", cause=repr(twice))
    folders = {str(folder) for name in names for folder in PurePosixPath(name).parents}
    folders |= {name.rstrip("/") for name in names if name.endswith("/")}
    if both := sorted(folders & set(names)):
        raise CheckRefused("wheel-unsafe", f"{filename} holds a name both as file and as folder", cause=repr(both[0]))


def _check_overlap(archive: zipfile.ZipFile, path: Path) -> None:
    """Refuse an archive whose members share bytes: a few kilobytes can unpack to petabytes so."""
    if sum(member.compress_size for member in archive.infolist()) > path.stat().st_size:
        raise CheckRefused("wheel-unsafe", f"{path.name} holds members that overlap", cause="a bomb, by all signs")


def _check_format(archive: zipfile.ZipFile, filename: str, info: str) -> None:
    version = header(read_text(archive, f"{info}/WHEEL", filename), "Wheel-Version") or ""
    if not re.fullmatch(r"1\.\d+", version):
        raise CheckRefused(
            "wheel-damaged",
            f"{filename} has the wheel version {version or 'none'}, wanted 1.0",
            cause=f"{info}/WHEEL; installers refuse a major version that they don't know",
        )


def _check_names(archive: zipfile.ZipFile, filename: str, info: str) -> None:
    parts = parse_name(filename)
    metadata = read_text(archive, f"{info}/METADATA", filename)
    project, version = header(metadata, "Name") or "", header(metadata, "Version") or ""
    folder_project, _dash, folder_version = info.removesuffix(".dist-info").partition("-")
    for what, found_project, found_version in (
        ("METADATA", project, version),
        (info, folder_project, folder_version),
    ):
        same_version = _comparable(found_version) == _comparable(parts.version)
        if normalised(found_project) != normalised(parts.project) or not same_version:
            raise CheckRefused(
                "wheel-name",
                f"{filename} says {parts.project} {parts.version}, its {what} says {found_project} {found_version}",
                help="a wheel under a wrong name would be installed for another",
            )


def _comparable(version: str) -> Version | str:
    """Return what equals another spelling of the same version; a file name has ``_`` for what isn't allowed there."""
    from packaging.version import InvalidVersion, Version  # noqa: PLC0415  # not on the hit path

    try:
        return Version(version.replace("_", "-") if "+" not in version else version.replace("_", "."))
    except InvalidVersion:
        return version


def _check_record(archive: zipfile.ZipFile, filename: str, info: str) -> None:
    listed = _record(archive, info, filename)
    unhashed = {f"{info}/RECORD", f"{info}/RECORD.jws", f"{info}/RECORD.p7s"}
    members = {member.filename for member in archive.infolist() if not member.is_dir()}
    if extra := sorted(members - listed.keys() - unhashed):
        raise CheckRefused("record-lies", f"{filename}: {len(extra)} file(s) that RECORD doesn't name", cause=extra[0])
    for name, (digest, size) in listed.items():
        if name in unhashed:
            continue
        if name not in members:
            raise CheckRefused("record-lies", f"{filename}: RECORD names a file that isn't there", cause=name)
        found_digest, found_size = _hashed(archive, name, digest.partition("=")[0])
        if found_digest != digest or (size and int(size) != found_size):
            raise CheckRefused(
                "record-lies",
                f"{filename}: {name} isn't what RECORD says",
                cause=f"found {found_digest}, {found_size} bytes; RECORD says {digest or 'no hash'}, {size} bytes",
            )


def _record(archive: zipfile.ZipFile, info: str, filename: str) -> Mapping[str, tuple[str, str]]:
    rows: dict[str, tuple[str, str]] = {}
    lines = io.StringIO(read_text(archive, f"{info}/RECORD", filename).decode(), newline="")
    for row in csv.reader(lines, strict=True):
        if len(row) != 3 or not re.fullmatch(r"[0-9]*", row[2]):  # noqa: PLR2004  # path, hash, size
            raise CheckRefused("record-lies", f"{filename}: RECORD has a line that is no entry", cause=repr(row))
        if row[0] in rows:
            raise CheckRefused("record-lies", f"{filename}: RECORD names a file twice", cause=row[0])
        rows[row[0]] = (row[1], row[2])
    return rows


def _hashed(archive: zipfile.ZipFile, name: str, algorithm: str) -> tuple[str, int]:
    if algorithm not in {"sha256", "sha384", "sha512"}:  # weaker ones are forbidden by the format
        algorithm = "sha256"
    digest, size = hashlib.new(algorithm), 0
    with archive.open(name) as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    text = base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode()
    return f"{algorithm}={text}", size
