"""Reading a wheel and judging it as a file: names, paths, RECORD.

Formats: the binary distribution format of PEP 427 with RECORD and WHEEL as in the packaging user guide's specifications.
Members are streamed; a wheel may be larger than memory.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from builder.digest import sha256_file
from builder.errors import CheckRefused
from builder.stages import Wheel
from builder.values import dataclass
from builder.wheel import problems

if TYPE_CHECKING:
    import zipfile
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from builder.wheel.problems import Problem, Record

__all__ = ["Name", "check", "dist_info", "header", "header_lines", "headers", "inspect", "normalised", "parse_name"]

_CHUNK = 1 << 20
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
    return next(headers(metadata, name), None)


def headers(metadata: bytes, name: str) -> Iterator[str]:
    """Yield every header `name`, unfolded."""
    for lines in header_lines(metadata):
        key, _colon, value = b" ".join(line.strip() for line in lines).partition(b":")
        if key.strip().lower() == name.lower().encode():
            yield value.strip().decode(errors="replace")


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
    with problems.opened(path) as archive:
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
    _refuse(problems.unfinished(archive), filename)
    return next(name for part in archive.namelist() if (name := part.split("/")[0]).endswith(".dist-info"))


def read_text(archive: zipfile.ZipFile, name: str, filename: str) -> bytes:
    """Return a member that is read as a whole; raise CheckRefused ``wheel-unsafe`` when it is too large for that."""
    with problems.member(archive, name) as stream:
        data = stream.read(problems.TEXT_LIMIT + 1)
    if len(data) > problems.TEXT_LIMIT:
        raise CheckRefused(
            "wheel-unsafe",
            f"{filename} holds {name} of more than {problems.TEXT_LIMIT >> 20} MiB",
            cause="a text of that size",
        )
    return data


def check(path: Path) -> None:
    """Return when the wheel is what it says; raise CheckRefused otherwise.

    Slugs: ``wheel-damaged`` (no zip, truncated, wrong CRC), ``wheel-unsafe`` (a path that leaves the folder, a link, a name
    twice, a bomb), ``wheel-name`` (file name, METADATA and folder disagree), ``record-lies`` (RECORD names other bytes).
    """
    with problems.opened(path) as archive:
        _refuse(problems.unsafe(archive, path.stat().st_size), path.name)
        info = dist_info(archive, path.name)
        parts, metadata = parse_name(path.name), read_text(archive, f"{info}/METADATA", path.name)
        said = (header(metadata, "Name") or "", header(metadata, "Version") or "")
        _refuse(problems.unnamed((parts.project, parts.version), said, info), path.name)
        version = header(read_text(archive, f"{info}/WHEEL", path.name), "Wheel-Version") or ""
        _refuse(problems.unreadable(version, info), path.name)
        record = problems.Record(read_text(archive, f"{info}/RECORD", path.name), info)
        _refuse(record.problems, path.name)
        members = [member.filename for member in archive.infolist() if not member.is_dir()]
        _refuse(record.names(members), path.name)
        _refuse((_differs(archive, name, record) for name in members), path.name)


def _refuse(found: Iterable[Problem | None], filename: str) -> None:
    for problem in found:
        if problem:
            raise problem.refused(filename)


def _differs(archive: zipfile.ZipFile, name: str, record: Record) -> Problem | None:
    digest, size = hashlib.new(record.algorithm(name)), 0
    with problems.member(archive, name) as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return record.differs(name, digest.digest(), size)
