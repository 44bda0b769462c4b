"""From the backend's wheel to the one that is published: labelled, stripped, and the same bytes each time.

Members are copied stream by stream; only libraries to strip touch the disk. The zip has sorted members with ``.dist-info``
last and RECORD at the very end, one time stamp, two permissions, no extra fields. Deflate's output is that of the zlib in
use: `compressor` names it, for the record beside the wheel.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
import time
import zipfile
import zlib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal

from builder import proc
from builder.errors import BuildFailed, HostError
from builder.wheel import read
from builder.wheel.label import labelled

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from builder.stages import Built, Wheel

__all__ = ["Strip", "compressor", "finish"]

Strip = Literal["none", "debug", "unneeded", "all"]

_CHUNK = 1 << 20
_LEVEL = 6
#: A zip can't tell a time before this.
_OLDEST = 315532800


@dataclass(frozen=True, slots=True, kw_only=True)
class _Change:
    """What is rewritten: the version, where it is repeated, and the folder that carries it."""

    old: str
    new: str
    old_info: str
    new_info: str
    module: str | None
    siblings: Mapping[str, str]


def compressor() -> str:
    """Return the deflate library whose output the wheel holds."""
    return f"zlib {zlib.ZLIB_RUNTIME_VERSION}"


def finish(  # noqa: PLR0913  # each is a fact that ends up in the bytes
    built: Built,
    *,
    dest: Path,
    label: str,
    siblings: Mapping[str, str],
    version_module: str | None,
    strip: Strip,
    epoch: int,
    extra_files: Mapping[str, bytes],
    expected: str,
    env: Mapping[str, str],
    scratch: Path,
) -> Wheel:
    """Write the labelled wheel into `dest` and return it.

    `siblings` maps outputs of the same evaluation to their labelled versions: exact pins on them follow. `version_module`
    is a shell pattern of files that repeat the version as a string. `extra_files` lie below ``.dist-info``. The same input,
    label and `epoch` (seconds) give the same bytes.

    Raises BuildFailed ``wheel-name`` when the backend built another project, ``version-module`` when no file that matches
    repeats the version; CheckRefused when the wheel is damaged or unsafe; HostError ``strip-missing``.
    """
    read.check(built.path)
    found = read.inspect(built.path, output=built.output)
    if found.project != read.normalised(expected):
        raise BuildFailed(
            "wheel-name",
            f"the build of {expected} made a wheel of {found.project}",
            cause=found.filename,
            help="name the output in the recipe after what the project builds",
        )
    new = labelled(found.version, label)
    parts = read.parse_name(found.filename)
    stem = f"{parts.project}-{_escaped(new)}"
    with zipfile.ZipFile(built.path) as source:
        old_info = read.dist_info(source, found.filename)
        change = _Change(
            old=found.version,
            new=new,
            old_info=old_info,
            new_info=f"{stem}.dist-info",
            module=version_module,
            siblings={read.normalised(name): version for name, version in siblings.items()},
        )
        build = f"-{parts.build}" if parts.build else ""
        target = dest / f"{stem}{build}-{parts.python}-{parts.abi}-{parts.platform}.whl"
        dest.mkdir(parents=True, exist_ok=True)
        _write(source, target, change, _Stripper(strip, env, scratch), max(epoch, _OLDEST), extra_files)
    return read.inspect(target, output=built.output)


def _escaped(version: str) -> str:
    return re.sub(r"[^\w\d.+!]+", "_", version)


def _write(  # see finish
    source: zipfile.ZipFile,
    target: Path,
    change: _Change,
    stripper: _Stripper,
    epoch: int,
    extra_files: Mapping[str, bytes],
) -> None:
    names = {_renamed(member.filename, change): member for member in source.infolist() if not member.is_dir()}
    names.pop(f"{change.new_info}/RECORD")
    for signature in ("RECORD.jws", "RECORD.p7s"):
        names.pop(f"{change.new_info}/{signature}", None)  # it signs another RECORD
    extra = {f"{change.new_info}/{name}": data for name, data in extra_files.items()}
    stamp = time.gmtime(epoch)[:6]
    rows: list[tuple[str, str, str]] = []
    rewritten = 0
    with zipfile.ZipFile(target, "w") as archive:
        for name in sorted(names.keys() | extra.keys(), key=lambda name: (name.startswith(change.new_info), name)):
            mode = 0o644
            if name in extra:
                chunks: Iterator[bytes] = iter((extra[name],))
                size = len(extra[name])
            else:
                member = names[name]
                mode = 0o755 if (member.external_attr >> 16) & 0o111 else 0o644
                data = _edited(source, member, name, change)
                if data is not None:
                    rewritten += change.module is not None and fnmatchcase(name, change.module)
                    chunks, size = iter((data,)), len(data)
                else:
                    chunks, size = stripper.chunks(source, member)
            rows.append(_add(archive, name, chunks, size, mode, stamp))
        record = f"{change.new_info}/RECORD"
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([*rows, (record, "", "")])
        data = text.getvalue().encode()
        _add(archive, record, iter((data,)), len(data), 0o644, stamp)
    if change.module and not rewritten:
        raise BuildFailed(
            "version-module",
            f"no file that matches {change.module} repeats the version {change.old}",
            help="mend version.module in the recipe, or take it out",
        )


def _add(  # one member
    archive: zipfile.ZipFile, name: str, chunks: Iterator[bytes], size: int, mode: int, stamp: tuple[int, ...]
) -> tuple[str, str, str]:
    """Add one member and return its line of RECORD."""
    info = zipfile.ZipInfo(name, stamp[:6])  # type: ignore[arg-type]  # six of them
    info.compress_type = zipfile.ZIP_DEFLATED
    info._compresslevel = _LEVEL  # type: ignore[attr-defined]  # noqa: SLF001  # `open` takes no level before 3.13
    info.create_system = 3
    info.external_attr = (0o100000 | mode) << 16
    info.file_size = size
    digest, written = hashlib.sha256(), 0
    with archive.open(info, "w") as stream:
        for chunk in chunks:
            digest.update(chunk)
            written += len(chunk)
            stream.write(chunk)
    text = base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode()
    return name, f"sha256={text}", str(written)


def _renamed(name: str, change: _Change) -> str:
    """Return `name` with the version in ``.dist-info`` and ``.data`` folders replaced."""
    folder, slash, rest = name.partition("/")
    if folder == change.old_info:
        return f"{change.new_info}{slash}{rest}"
    if folder == change.old_info.removesuffix(".dist-info") + ".data":
        return f"{change.new_info.removesuffix('.dist-info')}.data{slash}{rest}"
    return name


def _edited(source: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, change: _Change) -> bytes | None:
    """Return the new content of a file that repeats the version, or None for all others."""
    if name == f"{change.new_info}/METADATA":
        return _metadata(source.read(member), change)
    if change.module and fnmatchcase(name, change.module):
        old = source.read(member)
        pattern = re.compile(rb"(?P<q>[\"'])" + re.escape(change.old.encode()) + rb"(?P=q)")
        new, count = pattern.subn(lambda hit: hit["q"] + change.new.encode() + hit["q"], old)
        return new if count else None
    return None


def _metadata(text: bytes, change: _Change) -> bytes:
    """Return METADATA with Version and exact pins on siblings replaced, all other bytes as they were."""
    ending = b"\r\n" if b"\r\n" in text.split(b"\n", 1)[0] + b"\n" else b"\n"
    head, blank, body = text.partition(ending * 2)
    lines = []
    for line in head.split(ending):
        key, colon, value = line.partition(b":")
        if key.lower() == b"version":
            lines.append(key + colon + b" " + change.new.encode())
        elif key.lower() == b"requires-dist":
            lines.append(key + colon + b" " + _pin(value.strip().decode(), change.siblings).encode())
        else:
            lines.append(line)
    return ending.join(lines) + blank + body


def _pin(requirement: str, siblings: Mapping[str, str]) -> str:
    """Return a requirement with ``==`` on a sibling moved to the sibling's labelled version."""
    found = re.match(r"([A-Za-z0-9._-]+)(\s*\[[^\]]*\])?\s*\(?\s*==\s*([^\s;,)]+)\s*\)?", requirement)
    if not found or read.normalised(found[1]) not in siblings:
        return requirement
    return f"{found[1]}{found[2] or ''}=={siblings[read.normalised(found[1])]}{requirement[found.end() :]}"


class _Stripper:
    """Gives a member's bytes; those of ELF files after binutils' ``strip`` where that was asked for."""

    _FLAGS = {"debug": "--strip-debug", "unneeded": "--strip-unneeded", "all": "--strip-all"}  # noqa: RUF012  # a constant

    def __init__(self, strip: Strip, env: Mapping[str, str], scratch: Path) -> None:
        self._strip = strip
        self._env = env
        self._scratch = scratch

    def chunks(self, source: zipfile.ZipFile, member: zipfile.ZipInfo) -> tuple[Iterator[bytes], int]:
        """Return the member's chunks and their size in bytes."""
        if self._strip != "none":
            with source.open(member) as stream:
                if stream.read(4) == b"\x7fELF":
                    return self._stripped(source, member)
        return _chunks(source, member), member.file_size

    def _stripped(self, source: zipfile.ZipFile, member: zipfile.ZipInfo) -> tuple[Iterator[bytes], int]:
        self._scratch.mkdir(parents=True, exist_ok=True)
        file = self._scratch / "strip.elf"
        with file.open("wb") as target:
            for chunk in _chunks(source, member):
                target.write(chunk)
        # -D: no dates; preserved as an archive member would be. A foreign machine's file needs that machine's strip.
        done = proc.capture(["strip", "-D", self._FLAGS[self._strip], str(file)], env=self._env)
        if not done.ok:
            raise HostError(
                "strip-failed",
                f"strip can't read {member.filename}",
                cause=done.err.strip(),
                help="binutils of the wheel's machine are needed; or set build.strip to none",
                run=("apt-get install binutils-multiarch",),
            )
        data = file.read_bytes()
        file.unlink()
        return iter((data,)), len(data)


def _chunks(source: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
    with source.open(member) as stream:
        while chunk := stream.read(_CHUNK):
            yield chunk
