"""Wheels and what lies beside them, found by digest in the catalogue; no path is ever made of a URL."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from aiohttp import web
from multidict import CIMultiDict

from builder.index import listing
from builder.server import sending, simple
from builder.server.refusal import Refusal
from builder.server.shelf import FOREVER, Text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from builder.index.listing import Entry
    from builder.server.site import Site

__all__ = ["file", "ranged"]

#: Smaller ones are read in one go: cheaper than what sendfile takes to set up.
_SMALL = 256 * 1024
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_TYPE = "application/octet-stream"
_RANGE = re.compile(r"bytes=\s*([0-9]{0,18})-([0-9]{0,18})\s*", re.IGNORECASE)


async def file(request: web.BaseRequest, site: Site, *, sha256: str, filename: str) -> web.StreamResponse:
    """Answer a wheel, its ``.metadata``, its record or the record's signature."""
    generation = site.fresh(site.now())  # asked first: what is kept may be newer than it says, and never older
    entry = listing.by_sha256(site.house, sha256)
    tail = filename.removeprefix(entry.filename) if entry else ""
    if entry is None or not filename.startswith(entry.filename) or entry.state == "unpublished":
        raise _missing()
    if entry.state == "quarantined":
        why = f": {entry.reason}" if entry.reason else ""
        raise Refusal(403, "quarantined", f"{entry.filename} is quarantined{why}")
    if not tail:
        return await _wheel(request, site, entry, generation)
    if tail == ".metadata":
        return simple.send(request, await _metadata(site, entry, generation))
    if tail in {".provenance.json", ".provenance.json.sig"}:
        return await _beside(request, site, entry.path.with_name(filename))
    raise _missing()


def _missing() -> Refusal:
    return Refusal(404, "file-missing", "there is no such file")


async def _metadata(site: Site, entry: Entry, generation: str) -> Text:
    path = f"/files/{entry.sha256}/{entry.filename}.metadata"
    text = site.shelf.get(path, "")
    if text is None:
        body = listing.metadata(site.house, entry.sha256)
        how = {"label": "file", "checked": generation, "control": FOREVER, "vary": "Accept-Encoding"}
        text = await simple.made(site, body, "text/plain; charset=utf-8", **how)
        site.shelf.put(path, "", text)
    text.checked = generation  # its wheel was found a moment ago, and METADATA never changes
    return text


async def _beside(request: web.BaseRequest, site: Site, path: Path) -> web.StreamResponse:
    """Answer a record or its signature: these may be made anew for the same wheel."""
    try:
        body = await site.thread(path.read_bytes)
    except FileNotFoundError:
        raise _missing() from None
    kind = "application/json" if path.suffix == ".json" else "text/plain; charset=utf-8"
    return simple.send(request, Text(body, kind, checked="", vary="Accept-Encoding"))


async def _wheel(request: web.BaseRequest, site: Site, entry: Entry, generation: str) -> web.StreamResponse:
    descriptor = await _opened(site, entry)
    try:
        return await _send(request, site, entry, descriptor, generation)
    finally:
        os.close(descriptor)


async def _opened(site: Site, entry: Entry) -> int:
    """Return a descriptor of the wheel's file, which has the bytes that were published; raise Refusal 500 else."""
    try:
        descriptor = os.open(entry.path, _OPEN)
    except OSError as error:
        raise _broken(site, entry, str(error.strerror)) from error
    try:
        wrong = await _wrong(site, entry, descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    if wrong:
        os.close(descriptor)
        raise _broken(site, entry, wrong)
    return descriptor


async def _wrong(site: Site, entry: Entry, descriptor: int) -> str:
    """Return what is wrong with an open wheel, or an empty text; read only where its time isn't the one that was kept."""
    found = os.fstat(descriptor)
    seen = (found.st_ino, found.st_size, found.st_mtime_ns)
    if found.st_size != entry.size:
        return f"it has {found.st_size} bytes, the catalogue says {entry.size}"
    if found.st_mtime_ns == entry.mtime_ns or site.sound.get(entry.sha256) == seen:
        return ""
    if not await site.reading(lambda house: house.is_whole(entry)):
        return "it has other bytes than those that were published"
    again = entry.path.stat()  # what was read has to be what is open
    if (again.st_ino, again.st_size, again.st_mtime_ns) != seen:
        return "it was changed while it was read"
    site.sound[entry.sha256] = seen
    return ""


def _broken(site: Site, entry: Entry, cause: str) -> Refusal:
    site.complain(f"{entry.filename} isn't served: {cause}; see: spark-build wheels verify")
    return Refusal(500, "wheel-changed", f"{entry.filename} isn't what was published, and isn't served")


class _Small(Text):
    """A small wheel: what is kept is where it lies; its file is opened each time."""

    __slots__ = ("_entry",)

    def __init__(self, entry: Entry, *, checked: str) -> None:
        super().__init__(
            b"", _TYPE, label="file", checked=checked, control=FOREVER, vary="", etag=entry.sha256
        )  # fmt: skip
        self._entry = entry

    def current(self, headers: Mapping[str, str], *, packed: bool) -> bytes | None:
        """Return the bytes of the file; None where a part is wanted, and where the file isn't as it was."""
        del packed
        entry = self._entry
        if "Range" in headers:
            return None
        try:
            descriptor = os.open(entry.path, _OPEN)
        except OSError:
            return None
        try:
            found = os.fstat(descriptor)
            if found.st_size != entry.size or found.st_mtime_ns != entry.mtime_ns:
                return None
            data = os.read(descriptor, entry.size)
        finally:
            os.close(descriptor)
        return data if len(data) == entry.size else None

    def length(self, *, packed: bool) -> int:
        """Return its size."""
        del packed
        return self._entry.size

    def headers(self, *, packed: bool) -> CIMultiDict[str]:
        """Return those of wheels."""
        headers = super().headers(packed=packed)
        headers["Accept-Ranges"] = "bytes"
        return headers


async def _send(
    request: web.BaseRequest, site: Site, entry: Entry, descriptor: int, generation: str
) -> web.StreamResponse:
    etag = f'"{entry.sha256}"'
    headers = CIMultiDict(
        {
            "Content-Type": _TYPE,
            "Cache-Control": FOREVER,
            "ETag": etag,
            "Accept-Ranges": "bytes",
            "X-Content-Type-Options": "nosniff",
        }
    )
    known = request.headers.get("If-None-Match")
    if known and {etag, "*"} & {name.strip().removeprefix("W/") for name in known.split(",")}:
        return web.Response(status=304, headers=headers)
    status, start, end = 200, 0, entry.size
    wanted = request.headers.get("Range") if request.method == "GET" else None
    if wanted and request.headers.get("If-Range", etag).strip() == etag and (part := ranged(wanted, entry.size)):
        status, (start, end) = 206, part
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{entry.size}"
    if request.method == "HEAD":
        headers["Content-Length"] = str(entry.size)
        return web.Response(status=status, headers=headers)
    if entry.size <= _SMALL:
        path = f"/files/{entry.sha256}/{entry.filename}"
        site.shelf.put(path, "", _Small(entry, checked=generation))
    if end - start <= _SMALL:
        return web.Response(status=status, headers=headers, body=os.pread(descriptor, end - start, start))
    answer = web.StreamResponse(status=status, headers=headers)
    answer.content_length = end - start
    await answer.prepare(request)
    await sending.send(request, answer, descriptor, start, end, stall_s=site.settings.stall_s)
    return answer


def ranged(header: str, size: int) -> tuple[int, int] | None:
    """Return the part that a ``Range`` header names, its end excluded; None where the whole is to be sent (RFC 9110, 14.2).

    That is for other units and for several ranges. Raises Refusal 416 for a range that names nothing of `size` bytes.
    """
    if not header.lower().startswith("bytes=") or "," in header:
        return None
    found = _RANGE.fullmatch(header)
    first, last = found.groups() if found else ("", "")
    start, end = 0, 0
    if first:
        start, end = int(first), min(int(last) + 1, size) if last else size
    elif last:
        start, end = max(0, size - int(last)), size
    if start >= end:
        raise Refusal(
            416, "range", f"there are {size} bytes, and none of them is in that range",
            headers={"Content-Range": f"bytes */{size}"},
        )  # fmt: skip
    return start, end
