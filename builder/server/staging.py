"""Wheels that are sent in pieces: a connection that breaks costs what was on the way, not what has arrived.

``PUT /api/staging/<sha256>/<wheel>`` sends all of it, or with ``Content-Range: bytes a-b/total`` a piece that begins where
the last one ended; ``HEAD`` says in ``Upload-Offset`` where that is, and in ``Upload-Complete`` whether it is all there (the
words of draft-ietf-httpbis-resumable-upload). The record and its signature are sent the same way, with
``.provenance.json`` and ``.provenance.json.sig`` behind the wheel's name. Nothing is published by it: that is what
``POST /api/publish`` does.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
from typing import TYPE_CHECKING, BinaryIO

from aiohttp import web

from builder.digest import sha256_file
from builder.server import body, incoming
from builder.server.refusal import Refusal
from builder.server.upload import told
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from builder.server.site import Site
    from builder.wheelhouse import Wheelhouse

__all__ = ["drop_records", "head", "place", "put"]

_RECORD, _SEAL = ".provenance.json", ".provenance.json.sig"
_LONGEST = {_RECORD: 16 << 20, _SEAL: 64 << 10}
_RANGE = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15})")
#: So often what is staged and forgotten is looked for.
_SWEEP_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A piece of a file of `total` bytes, `size` from `start` on."""

    start: int
    size: int
    total: int


def place(site: Site, sha256: str, filename: str) -> Path:
    """Return where a file of the wheel with these bytes is staged; raise Refusal 400 for a name that none can have."""
    ending = _ending(filename)
    incoming.check_name(filename.removesuffix(ending))
    return incoming.root(site) / incoming.STAGING / sha256 / filename


async def head(_request: web.BaseRequest, site: Site, sha256: str, filename: str) -> web.StreamResponse:
    """Say how much is there; all of it where the wheel is published.

    Of a record nothing is, whatever is: its digest isn't in the path, so that it may be another than the one to be sent.
    """
    path = place(site, sha256, filename)
    if _ending(filename):
        return web.Response(headers=_told(0, complete=False))
    size = await site.reading(lambda house: _published(house, sha256, filename))
    complete = size is not None or path.exists()
    if size is None:
        size = _size(path if complete else _part(path))
    return web.Response(headers=_told(size, complete=complete))


async def put(request: web.BaseRequest, site: Site, sha256: str, filename: str) -> web.StreamResponse:
    """Take a piece, or all; answer 201 when all is there and has the digest that it is sent under, 202 before that.

    Raises Refusal 409 with ``Upload-Offset`` where the piece isn't the next one, 400 when all is there and has another
    digest; then it has to be sent anew.
    """
    path = place(site, sha256, filename)
    try:
        piece = _piece(request, site, filename)
        await _sweep(site)
        if filename.endswith(".whl") and (
            path.exists() or await site.reading(lambda house: _published(house, sha256, filename)) is not None
        ):
            await body.drain(request, site)
            return web.Response(status=201, headers=_told(piece.total, complete=True))
        stream = await site.thread(_opened, path, piece)
        try:
            async for block in body.blocks(request, site):
                await site.thread(_write, stream, block)
            # Hashing and syncing gigabytes takes seconds, in which pages want the server's few threads.
            size = await asyncio.to_thread(_ended, stream, path, piece, sha256)
        finally:
            await site.thread(stream.close)
    except Refusal as refused:
        await body.drain(request, site, refused)
        return told(refused, request)
    complete = size == piece.total
    return web.Response(status=201 if complete else 202, headers=_told(size, complete=complete))


def drop_records(folders: Iterable[Path]) -> None:
    """Leave the wheels that are staged in `folders`, and nothing beside them."""
    for folder in folders:
        for file in folder.glob(f"*.whl{_RECORD}*"):
            file.unlink(missing_ok=True)


def _told(size: int, *, complete: bool) -> dict[str, str]:
    return {
        "Upload-Offset": str(size),
        "Upload-Complete": "?1" if complete else "?0",
        "Cache-Control": "no-store",
    }


def _published(house: Wheelhouse, sha256: str, filename: str) -> int | None:
    """Return the size of a published wheel; None where it is none. It may have to read the file."""
    named = (sha256, filename)
    found = house.catalogue.stored("sha256=? AND filename=? AND state<>'unpublished'", named)
    return next((one.size for one in found if house.is_whole(one)), None)


def _ending(filename: str) -> str:
    """Return what stands behind the wheel's name; empty for the wheel itself."""
    return next((one for one in (_SEAL, _RECORD) if filename.endswith(one)), "")


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _piece(request: web.BaseRequest, site: Site, filename: str) -> Piece:
    most = _LONGEST.get(_ending(filename), site.settings.max_upload)
    size = body.length(request, most)
    said = request.headers.get("Content-Range")
    if said is None:
        return Piece(start=0, size=size, total=size)
    found = _RANGE.fullmatch(said)
    start, last, total = map(int, found.groups()) if found else (0, 0, 0)
    if not found or last - start + 1 != size or last >= total:
        raise Refusal(400, "range", "Content-Range has to be `bytes a-b/total`, and to fit Content-Length")
    if total > most:
        raise Refusal(413, "body-long", f"{total} bytes, and more than {most} aren't taken")
    return Piece(start=start, size=size, total=total)


async def _sweep(site: Site) -> None:
    if site.now() - site.own.get("swept", float("-inf")) > _SWEEP_S:
        site.own["swept"] = site.now()
        await site.thread(incoming.sweep, site.settings.root)


def _opened(path: Path, piece: Piece) -> BinaryIO:
    """Return the file, held by us, at the place where the piece begins."""
    try:
        incoming.require_space(path.parents[3], piece.total - piece.start)
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = os.fdopen(os.open(_part(path), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644), "wb", buffering=0)
    except FileNotFoundError:  # the folder went as what is in it was published
        raise _gone() from None
    except OSError as error:
        raise incoming.unwritable(error) from error
    try:
        _take(stream, path, piece)
    except BaseException:
        stream.close()
        raise
    return stream


def _take(stream: BinaryIO, path: Path, piece: Piece) -> None:
    """Hold the file, and go to where the piece begins; raise Refusal 409 where that can't be."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Refusal(409, "busy", "somebody else is sending this") from None
    if not _is_part(stream, path):  # it was opened just before the one who held it was done
        raise _gone()
    size = os.fstat(stream.fileno()).st_size
    if piece.start not in {0, size}:
        raise Refusal(409, "offset", f"the next byte wanted is {size}", headers={"Upload-Offset": str(size)})
    stream.truncate(piece.start)
    stream.seek(piece.start)


def _is_part(stream: BinaryIO, path: Path) -> bool:
    """Whether the open file is still the one that is being sent: it isn't once all of it came, or it was published."""
    try:
        return os.path.samestat(os.fstat(stream.fileno()), _part(path).stat())
    except FileNotFoundError:
        return False


def _gone() -> Refusal:
    return Refusal(409, "offset", "somebody else has sent this meanwhile; ask again", headers={"Upload-Offset": "0"})


def _write(stream: BinaryIO, data: bytes) -> None:
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[stream.write(rest) :]
    except OSError as error:
        raise incoming.unwritable(error) from error


def _ended(stream: BinaryIO, path: Path, piece: Piece, sha256: str) -> int:
    """Return what is there; all of it goes under its own name once its digest is right."""
    size = os.fstat(stream.fileno()).st_size
    if size < piece.total:
        return size
    part = _part(path)
    try:
        if not _is_part(stream, path):
            raise _gone()
        if path.name.endswith(".whl") and (found := sha256_file(part)) != sha256:
            part.unlink()
            raise Refusal(
                400, "hash", f"it was sent as {sha256[:16]}…, the bytes that came give {found[:16]}…", "send it anew"
            )
        os.fsync(stream.fileno())  # what has its own name counts as sent, also after a power cut
        part.replace(path)
    except FileNotFoundError:
        raise _gone() from None
    return size
