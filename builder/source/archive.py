"""Archives by URL, and what archives and sdists share: kept by digest, unpacked safely, looked into once."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from builder.digest import sha256_file
from builder.errors import SourceError
from builder.recipe.interpolate import expand
from builder.source.place import without_credentials
from builder.stages import Pin

if TYPE_CHECKING:
    from pathlib import Path

    from builder.recipe.model import Source
    from builder.source.place import Sources
    from builder.stages import Request

__all__ = ["fetch", "file_of", "keep", "materialize", "pin", "read", "write_atomic"]


def pin(source: Source, request: Request, sources: Sources, *, recipe: str) -> Pin:
    """Return the archive made exact. Without a digest in the recipe the first download's is taken and kept."""
    version = request.version or source.version
    assert source.url is not None  # noqa: S101  # the loader saw to it
    url = expand(source.url, {"version": version or ""})
    record = sources.root / "archives" / f"{_key(url)}.json"
    known = json.loads(record.read_text()) if record.exists() else None
    digest = source.sha256 if version == source.version else None
    if known is None or (digest and known["sha256"] != digest):
        known = keep(url, sources, sha256=digest, command=f"spark-build fetch {recipe}")
        write_atomic(record, json.dumps(known).encode())
    return Pin(
        kind="archive",
        url=without_credentials(url),
        tree=f"sha256:{known['sha256']}",
        time=known["time"],
        version=version,
        filename=known["filename"],
        size=known["size"],
    )


def _key(url: str) -> str:
    from builder.digest import sha256_bytes  # noqa: PLC0415

    return sha256_bytes(url.encode())[:32]


def keep(url: str, sources: Sources, *, sha256: str | None, command: str) -> dict[str, Any]:
    """Bring an archive in and return its record: digest, size, file name, newest time in it."""
    from builder.source.download import fetch_file  # noqa: PLC0415

    filename = url.partition("#")[0].partition("?")[0].rstrip("/").rsplit("/", 1)[-1]
    if not filename or filename in {".", ".."}:
        raise SourceError("archive-name", f"{without_credentials(url)} names no file")
    beside = sources.root / "files" / ".incoming" / f"{_key(url)}-{filename}"
    digest, _received = fetch_file(sources.mirrored(url), beside, sources, sha256=sha256, command=command)
    target = sources.root / "files" / digest / filename
    target.parent.mkdir(parents=True, exist_ok=True)
    beside.replace(target)
    return {"sha256": digest, "size": target.stat().st_size, "filename": filename, "time": _newest(target)}


def _newest(archive: Path) -> int:
    """Return the newest time stamp in a tar or zip: an archive has no other date that a mirror would keep."""
    import tarfile  # noqa: PLC0415
    import time  # noqa: PLC0415
    import zipfile  # noqa: PLC0415

    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as zipped:
                return max(int(time.mktime((*info.date_time, 0, 0, 0))) for info in zipped.infolist())
        with tarfile.open(archive) as tar:
            return max(int(member.mtime) for member in tar)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, ValueError) as error:
        raise SourceError(
            "archive-damaged", f"{archive.name} is damaged or cut off", cause=str(error), run=(f"rm {archive}",)
        ) from error


def file_of(pinned: Pin, sources: Sources) -> Path:
    """Return where the archive lies, or would."""
    return sources.root / "files" / pinned.tree.removeprefix("sha256:") / (pinned.filename or "archive")


def fetch(pinned: Pin, sources: Sources) -> int:
    """Bring the archive in unless it is there; return the bytes received."""
    target = file_of(pinned, sources)
    if target.exists():
        os.utime(target)  # last used, for gc
        return 0
    from builder.source.download import fetch_file  # noqa: PLC0415

    digest = pinned.tree.removeprefix("sha256:")
    name = pinned.filename or pinned.url
    command = f"spark-build fetch {name.partition('-')[0].partition('_')[0]}"
    return fetch_file(sources.mirrored(pinned.url), target, sources, sha256=digest, command=command)[1]


def materialize(pinned: Pin, dest: Path, sources: Sources) -> None:
    """Unpack to `dest`, the bytes checked once more: a disk may have lost some since they came."""
    from builder.source.unpack import unpack  # noqa: PLC0415

    fetch(pinned, sources)
    file, wanted = file_of(pinned, sources), pinned.tree.removeprefix("sha256:")
    if (found := sha256_file(file)) != wanted:
        raise SourceError(
            "hash-mismatch",
            f"{file} isn't what was pinned",
            cause=f"sha256 {found}, wanted {wanted}",
            help="delete it, and it is fetched again",
            run=(f"rm {file}",),
        )
    unpack(file, dest, epoch=pinned.time)


def read(pinned: Pin, path: str, sources: Sources) -> bytes | None:
    """Return one member; what was read once is kept beside the archive, since looking for it means inflating all of it."""
    from builder.source.unpack import read_members  # noqa: PLC0415

    fetch(pinned, sources)
    archive = file_of(pinned, sources)
    cached = archive.parent / "members" / path.replace("/", "%2F")
    absent = cached.with_name(cached.name + ".absent")
    if cached.exists():
        return cached.read_bytes()
    if absent.exists():
        return None
    for _name, data in read_members(archive, frozenset({path})):
        write_atomic(cached, data)
        return data
    write_atomic(absent, b"")
    return None


def write_atomic(path: Path, data: bytes) -> None:
    """Write beside and rename, so that no reader ever sees half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_bytes(data)
    beside.replace(path)
