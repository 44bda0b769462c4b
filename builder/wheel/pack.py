"""From the backend's wheel to the one that is published: labelled, stripped, and the same bytes each time.

Members are copied stream by stream; only libraries to strip touch the disk. The zip has sorted members with ``.dist-info``
last and RECORD at the very end, one time stamp, two permissions, no extra fields. Deflate's output is that of the zlib in
use: `compressor` names it, for the record beside the wheel. What has to be edited inside is `builder.wheel.rewrite`'s
affair, what is stripped `builder.wheel.strip`'s.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import time
import zipfile
import zlib
from typing import TYPE_CHECKING

from builder.errors import BuildFailed, CheckRefused
from builder.stages import ZIP_EPOCH
from builder.wheel import read
from builder.wheel.label import labelled
from builder.wheel.rewrite import Change, excludes_torch
from builder.wheel.strip import Stripper

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from builder.stages import Built, Wheel
    from builder.wheel.strip import Strip

__all__ = ["compressor", "finish"]

_LEVEL = 6
#: A zip can't tell a time after 2107.
_NEWEST = 4354819198


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
    torch: str | None = None,
) -> Wheel:
    """Write the labelled wheel into `dest` and return it.

    `siblings` maps outputs of the same evaluation to their labelled versions: exact pins on them follow. `version_module`
    is a shell pattern of files that repeat the version as a string. `extra_files` lie below ``.dist-info``. Where METADATA
    excludes `torch`, a version of it, that one is put there. The same input, label and `epoch` (seconds) give the same
    bytes.

    Raises BuildFailed ``wheel-name`` when the backend built another project, ``version-module`` when no file that matches
    repeats the version, ``version-invalid``; CheckRefused when the wheel is damaged or unsafe; HostError ``strip-missing``.
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
    stem = f"{parts.project}-{new}"
    with zipfile.ZipFile(built.path) as source:
        change = Change(
            old=found.version,
            new=new,
            old_info=read.dist_info(source, found.filename),
            new_info=f"{stem}.dist-info",
            module=version_module,
            siblings={read.normalised(name): version for name, version in siblings.items()},
            torch=torch if torch and excludes_torch(found.metadata, torch) else None,
        )
        build = f"-{parts.build}" if parts.build else ""
        target = dest / f"{stem}{build}-{parts.python}-{parts.abi}-{parts.platform}.whl"
        dest.mkdir(parents=True, exist_ok=True)
        moment = min(max(epoch, ZIP_EPOCH), _NEWEST)
        _write(source, target, change, Stripper(strip, env, scratch), moment, extra_files)
    return read.inspect(target, output=built.output)


def _write(  # see finish
    source: zipfile.ZipFile,
    target: Path,
    change: Change,
    stripper: Stripper,
    epoch: int,
    extra_files: Mapping[str, bytes],
) -> None:
    members = _members(source, change)
    extra = {f"{change.new_info}/{name}": data for name, data in extra_files.items()}
    stamp = time.gmtime(epoch)[:6]
    rows: list[tuple[str, str, str]] = []
    rewritten = 0
    info = f"{change.new_info}/"
    with zipfile.ZipFile(target, "w") as archive:
        for name in sorted(members.keys() | extra.keys(), key=lambda name: (name.startswith(info), name)):
            mode = 0o644
            if name in extra:
                chunks, size = _one(extra[name])
            else:
                member = members[name]
                mode = 0o755 if (member.external_attr >> 16) & 0o111 else 0o644
                data = change.edited(name, source.read(member)) if change.concerns(name) else None
                if data is None:
                    chunks, size = stripper.chunks(source, member)
                else:
                    rewritten += change.is_module(name)
                    chunks, size = _one(data)
            rows.append(_add(archive, name, chunks, size, mode, stamp))
        record = f"{change.new_info}/RECORD"
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([*rows, (record, "", "")])
        _add(archive, record, *_one(text.getvalue().encode()), 0o644, stamp)
    if change.module and not rewritten:
        raise BuildFailed(
            "version-module",
            f"no file that matches {change.module} repeats the version {change.old}",
            help="mend version.module in the recipe, or take it out",
        )


def _members(source: zipfile.ZipFile, change: Change) -> dict[str, zipfile.ZipInfo]:
    """Return what is taken over, by new name: all files but RECORD and what signs it."""
    left_out = {f"{change.new_info}/{name}" for name in ("RECORD", "RECORD.jws", "RECORD.p7s")}
    members: dict[str, zipfile.ZipInfo] = {}
    for member in source.infolist():
        name = change.renamed(member.filename)
        if member.is_dir() or name in left_out:
            continue
        if name in members:
            raise CheckRefused(
                "wheel-unsafe", "two files of the wheel would get one name with the label", cause=f"{name!r}"
            )
        members[name] = member
    return members


def _one(data: bytes) -> tuple[Iterator[bytes], int]:
    return iter((data,)), len(data)


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
