"""A store for compile caches: what one machine compiled, the others take.

``GET``, ``HEAD``, ``PUT`` and ``DELETE`` of opaque values at ``/ccache/<key>``, as ccache's HTTP storage asks for them in
each of its layouts (``subdirs``: two characters, a slash, the rest; ``flat``; ``bazel``: ``ac/`` and 64 hex digits), and
as `builder.gate.relay` does. https://ccache.dev/manual/4.14.html, section HTTP storage backend.

Values lie in ``<wheelhouse>/ccache``, two levels deep. Their sum is bounded: those that weren't asked for the longest go.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
from typing import TYPE_CHECKING, BinaryIO

from aiohttp import web

from builder.server import body, incoming, sending
from builder.server.refusal import Refusal

if TYPE_CHECKING:
    from pathlib import Path

    from builder.server.site import Site

__all__ = ["Store", "entry"]

#: ccache's own digests, in its base 32 or in hex, with or without their first two characters apart; bazel's folder.
_KEY = re.compile(r"([0-9a-z]{2})/?([0-9a-z]{14,126})")
#: What a compile brings: an object of a large kernel has 12 MB.
_LONGEST = 1 << 30
#: Smaller ones are read in one go.
_SMALL = 256 << 10
#: What a value takes on a disk at least: values of no bytes would fill it, too, since each has a name there.
_BLOCK = 4096
#: A cleaning makes room down to this share of the bound, so that not each value has one.
_SHARE = 0.9
#: A value's time is that of its last use, as exact as this; so most uses write nothing.
_USED_S = 3600.0
#: What was being written when a server was killed goes after this.
_TORN_S = 3600.0


async def entry(request: web.BaseRequest, site: Site, key: str) -> web.StreamResponse:
    """Give, take or drop a value."""
    store: Store | None = site.own.get("ccache")
    if store is None:
        store = site.own["ccache"] = Store(site.settings.root / "ccache", site.settings.ccache_bytes)
        await site.thread(store.measure)
    path = store.path(key)
    match request.method:
        case "PUT":
            return await _put(request, site, store, path)
        case "DELETE":
            gone = await site.thread(store.drop, path)
            return web.Response(status=204 if gone else 404)
        case _:
            return await _get(request, site, store, path)


async def _get(request: web.BaseRequest, site: Site, store: Store, path: Path) -> web.StreamResponse:
    found = await site.thread(store.get, path)
    site.metrics.add("ccache_misses_total" if found is None else "ccache_hits_total")
    headers = {"Content-Type": "application/octet-stream", "Cache-Control": "no-store"}
    if found is None:
        raise Refusal(404, "not-cached", "nothing has that key")
    if isinstance(found, bytes):
        return web.Response(body=found, headers=headers)
    with found:
        answer = web.StreamResponse(headers=headers)
        size = answer.content_length = os.fstat(found.fileno()).st_size
        await answer.prepare(request)
        if request.method == "GET":
            await sending.send(request, answer, found.fileno(), 0, size, stall_s=site.settings.stall_s)
    return answer


async def _put(request: web.BaseRequest, site: Site, store: Store, path: Path) -> web.StreamResponse:
    """Take a value; it is seen when all of it is there."""
    size = body.length(request, min(_LONGEST, store.most))
    beside = store.root / f".{os.urandom(12).hex()}"
    try:
        await site.thread(store.begin, beside, path, size)
        async for block in body.blocks(request, site):
            await site.thread(_append, beside, block)
        new = await site.thread(store.place, beside, path, size)
    except BaseException:
        await asyncio.shield(site.thread(_forget, beside))
        raise
    if store.size > store.most and not store.cleaning:
        store.cleaning = True
        site.own["ccache-cleaning"] = asyncio.ensure_future(site.thread(store.clean))
    return web.Response(status=201 if new else 204)


def _append(path: Path, data: bytes) -> None:
    try:
        with path.open("ab") as stream:
            stream.write(data)
    except OSError as error:
        raise incoming.unwritable(error) from error


def _forget(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


class Store:
    """A folder of values that take `most` bytes in all; `size` is what they take now. What blocks belongs into a thread."""

    def __init__(self, root: Path, most: int) -> None:
        self.root = root
        self.most = most
        self.size = 0
        self.cleaning = False

    def path(self, key: str) -> Path:
        """Return where the value of `key` lies; raise Refusal 400 for what is none of ccache's."""
        found = _KEY.fullmatch(key)
        if not found:
            raise Refusal(400, "key", "that is no key of ccache's")
        return self.root / found[1] / found[2]

    def measure(self) -> None:
        """Count what is there, and remove what a killed server was writing."""
        self.size = sum(size for _used, size, _path in self._every())
        with contextlib.suppress(FileNotFoundError):
            for one in self.root.glob(".*"):
                if time.time() - one.stat().st_mtime > _TORN_S:
                    _forget(one)

    def get(self, path: Path) -> bytes | BinaryIO | None:
        """Return a value, or a large one's file, open; None where there is none. It is the youngest then."""
        try:
            stream = path.open("rb")
        except OSError:
            return None
        known = os.fstat(stream.fileno())
        if time.time() - known.st_mtime > _USED_S:
            os.utime(stream.fileno())
        if known.st_size > _SMALL:
            return stream
        with stream:
            return stream.read()

    def begin(self, beside: Path, path: Path, size: int) -> None:
        """Leave an empty file to write to, and the folder of the value; raise Refusal 507 where there is no room."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            incoming.require_space(self.root, size)
            beside.touch()
        except OSError as error:
            raise incoming.unwritable(error) from error

    def place(self, beside: Path, path: Path, size: int) -> bool:
        """Let the value be what was written; return whether there was none."""
        if beside.stat().st_size != size:
            raise Refusal(400, "body-short", "the value isn't whole")
        try:
            before = _taken(path.stat().st_size)
        except FileNotFoundError:
            before = 0
        beside.replace(path)
        self.size += _taken(size) - before
        return not before

    def drop(self, path: Path) -> bool:
        """Remove a value; return whether there was one."""
        try:
            size = _taken(path.stat().st_size)
            path.unlink()
        except FileNotFoundError:
            return False
        self.size -= size
        return True

    def clean(self) -> None:
        """Remove those that weren't asked for the longest, until there is room again."""
        try:
            every = sorted(self._every())
            self.size = sum(size for _used, size, _path in every)
            for _used, _size, path in every:
                if self.size <= self.most * _SHARE:
                    break
                self.drop(path)
        finally:
            self.cleaning = False

    def _every(self) -> list[tuple[float, int, Path]]:
        found = []
        with contextlib.suppress(FileNotFoundError):
            for path in self.root.glob("??/*"):
                with contextlib.suppress(FileNotFoundError):
                    known = path.stat()
                    found.append((known.st_mtime, _taken(known.st_size), path))
        return found


def _taken(size: int) -> int:
    """Return what so many bytes take on a disk."""
    return max(1, -(-size // _BLOCK)) * _BLOCK
