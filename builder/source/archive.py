"""Archives by URL, and what archives and sdists share: kept by digest, unpacked safely, looked into once."""

from __future__ import annotations

import contextlib
import json
import os
import re
from typing import TYPE_CHECKING, Any

from builder.digest import sha256_bytes, sha256_file
from builder.errors import SourceError
from builder.recipe.interpolate import expand
from builder.source.place import locked, without_credentials, without_login, write_atomic
from builder.stages import ZIP_EPOCH, Pin

if TYPE_CHECKING:
    from pathlib import Path

    from builder.recipe.model import Source
    from builder.source.place import Sources
    from builder.stages import Request

__all__ = ["fetch", "file_of", "keep", "materialize", "pin", "read", "record", "recorded", "trusted"]

#: What names of archives end with.
_PACKED = re.compile(r"\.(tar(\.\w+)?|t[gbx]z2?|zip|whl)$", re.IGNORECASE)


def pin(source: Source, request: Request, sources: Sources, *, base: Path) -> Pin:  # noqa: ARG001  # all kinds take it
    """Return the archive made exact. Without a digest in the recipe the first download's is taken and kept.

    Raises SourceError ``hash-mismatch``, ``not-found``, ``unreachable``, ``offline-missing`` or ``archive-damaged``.
    """
    version = request.version or source.version
    assert source.url is not None  # noqa: S101  # the loader saw to it
    url = expand(source.url, {"version": version or ""})
    known = recorded(url, sources)
    digest = source.sha256 if version == source.version else None
    if known is None or (digest and known["sha256"] != digest):
        known = record(url, sources, keep(url, sources, sha256=digest))
    return Pin(
        kind="archive",
        url=without_credentials(url),
        tree=f"sha256:{known['sha256']}",
        time=known["time"],
        version=version,
        filename=known["filename"],
        size=known["size"],
    )


def recorded(url: str, sources: Sources) -> dict[str, Any] | None:
    """Return what the last download of `url` was: digest, size, file name, newest time in it; None where there was none."""
    try:
        loaded: dict[str, Any] = json.loads(_record(url, sources).read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return loaded


def record(url: str, sources: Sources, known: dict[str, Any]) -> dict[str, Any]:
    """Keep what a download was, and return it."""
    write_atomic(_record(url, sources), json.dumps(known).encode())
    return known


def _record(url: str, sources: Sources) -> Path:
    return sources.root / "archives" / f"{_key(url)}.json"


def _key(url: str) -> str:
    return sha256_bytes(without_login(url).encode())[:32]


def keep(url: str, sources: Sources, *, sha256: str | None, plain: bool = False) -> dict[str, Any]:
    """Bring an archive in and return its record: digest, size, file name, newest time in it.

    With `plain` it may be a file of any kind, and its time is `ZIP_EPOCH`, unless its name says that it is a tar or a zip.
    """
    from urllib.parse import urlsplit  # noqa: PLC0415

    from builder.source.download import fetch_file  # noqa: PLC0415
    from builder.source.unpack import newest  # noqa: PLC0415

    filename = urlsplit(url).path.rstrip("/").rsplit("/", 1)[-1]
    if not filename or filename in {".", ".."}:
        raise SourceError(
            "archive-name",
            f"{without_credentials(url)} names no file",
            run=(f"spark-build recipes show {sources.recipe} --origin",),
        )
    if sha256 and (there := sources.root / "files" / sha256 / filename).exists():
        return {"sha256": sha256, "size": there.stat().st_size, "filename": filename, "time": newest(there)}
    beside = sources.root / "files" / ".incoming" / _key(url) / filename
    with fetch_file(sources.mirrored(url), beside, sources, sha256=sha256) as got:
        target = sources.root / "files" / got.sha256 / filename
        try:
            time = ZIP_EPOCH if plain and not _PACKED.search(filename) else newest(beside)
        except SourceError:
            beside.unlink()
            raise
        target.parent.mkdir(parents=True, exist_ok=True)
        beside.replace(target)
        beside.parent.rmdir()
    return {"sha256": got.sha256, "size": target.stat().st_size, "filename": filename, "time": time}


def trusted(url: str, sources: Sources, *, again: bool = False) -> dict[str, Any]:
    """Return the record of the first download of `url`, which is made now where there was none; two at once make one.

    With `again` this download is the first, once it is whole.
    """
    if not again and (known := recorded(url, sources)):
        return known
    with locked(sources.root / "locks" / f"{_key(url)}-first.lock", sources, what=without_credentials(url)):
        known = None if again else recorded(url, sources)
        return known or record(url, sources, keep(url, sources, sha256=None, plain=True))


def file_of(pinned: Pin, sources: Sources) -> Path:
    """Return where the archive lies, or would."""
    return sources.root / "files" / pinned.tree.removeprefix("sha256:") / (pinned.filename or "archive")


def fetch(pinned: Pin, sources: Sources) -> int:
    """Bring the archive in unless it is there; return the bytes received."""
    target = file_of(pinned, sources)
    if target.exists():
        with contextlib.suppress(OSError):  # read-only sources have no use for it
            os.utime(target)  # last used, for gc
        return 0
    from builder.source.download import fetch_file  # noqa: PLC0415

    wanted = pinned.tree.removeprefix("sha256:")
    with fetch_file(sources.mirrored(pinned.url), target, sources, sha256=wanted) as got:
        return got.received


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
            help="it changed on this disk; delete it, and it is fetched again",
            run=(f"rm -r {file.parent}", f"spark-build fetch {sources.recipe}"),
        )
    unpack(file, dest, epoch=pinned.time)


def read(pinned: Pin, path: str, sources: Sources) -> bytes | None:
    """Return one member; what was read once is kept beside the archive, since looking for it means inflating all of it."""
    known = file_of(pinned, sources).parent / "members"
    cached = known / sha256_bytes(path.encode())[:32]
    absent = cached.with_suffix(".absent")
    if cached.exists():
        return cached.read_bytes()
    if absent.exists():
        return None
    from builder.source.unpack import read_member  # noqa: PLC0415

    fetch(pinned, sources)
    data = read_member(file_of(pinned, sources), path)
    write_atomic(absent if data is None else cached, data or b"")
    return data
