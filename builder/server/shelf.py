"""Answers that are kept ready: body, its gzip form and the heads around them, within a bound of bytes."""

from __future__ import annotations

import gzip
import hashlib
from http import HTTPStatus
from typing import TYPE_CHECKING

from multidict import CIMultiDict

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FOREVER", "NOT_MODIFIED", "PAGE", "Shelf", "Text"]

#: A page may be another at any time: asked again each time, answered by 304 where it isn't. Not `max-age=0`: uv 0.9 takes
#: that for fresh during the rest of the second.
PAGE = "no-cache"
#: What is named by its digest never changes; so long a time is what pip's cache takes for "for ever".
FOREVER = "max-age=365000000, immutable"
#: Smaller bodies don't get smaller by compression than the header that says so.
_WORTH = 256
OK, NOT_MODIFIED = 200, 304
#: What an entry takes beside its bytes, roughly.
_OVERHEAD = 1200


class Text:
    """One body as it is sent, under its forms. `etag` is that of the plain form, quotes included; errors have none.

    `checked` is the generation of the catalogue for which it was last found right.
    """

    __slots__ = ("body", "checked", "content_type", "control", "encoded", "etag", "label", "lines", "status", "vary")

    def __init__(
        self,
        body: bytes,
        content_type: str,
        *,
        checked: str,
        label: str = "simple",
        control: str = PAGE,
        vary: str = "Accept, Accept-Encoding",
        etag: str = "",
        status: int = 200,
    ) -> None:
        self.body = body
        self.checked = checked
        self.content_type = content_type
        self.label = label
        self.control = control
        self.vary = vary
        self.status = status
        known = etag or hashlib.sha256(content_type.encode() + b"\0" + body).hexdigest()[:32]
        self.etag = f'"{known}"' if status == OK else ""
        packed = gzip.compress(body, 6, mtime=0) if len(body) > _WORTH else b""
        self.encoded = packed if packed and len(packed) < len(body) else b""
        self.lines: dict[tuple[int, bool], bytes] = {}

    @property
    def size(self) -> int:
        """Return about what it takes, in bytes."""
        return len(self.body) + len(self.encoded) + _OVERHEAD

    def tag(self, *, packed: bool) -> str:
        """Return the tag of a form: a strong tag stands for bytes as they are sent."""
        return f'{self.etag[:-1]}-gz"' if packed else self.etag

    def current(self, headers: Mapping[str, str], *, packed: bool) -> bytes | None:
        """Return the body for a request with these headers; None where it takes a longer way."""
        del headers
        return self.encoded if packed else self.body

    def length(self, *, packed: bool) -> int:
        """Return the body's length."""
        return len(self.encoded if packed else self.body)

    def matches(self, header: str) -> bool:
        """Whether ``If-None-Match`` names one of the forms."""
        if not self.etag:
            return False
        names = {name.strip().removeprefix("W/") for name in header.split(",")}
        return bool(names & {"*", self.etag, self.tag(packed=True)})

    def headers(self, *, packed: bool) -> CIMultiDict[str]:
        """Return the headers of one form, for 200 and 304 alike: pip takes over those of a 304."""
        headers = CIMultiDict({"Content-Type": self.content_type, "Cache-Control": self.control})
        if self.etag:
            headers["ETag"] = self.tag(packed=packed)
        if self.vary:
            headers["Vary"] = self.vary
        if packed:
            headers["Content-Encoding"] = "gzip"
        headers["X-Content-Type-Options"] = "nosniff"
        return headers

    def line(self, status: int, *, packed: bool) -> bytes:
        """Return the head of an answer up to the value of its last header, ``Date``."""
        known = self.lines.get((status, packed))
        if known is None:
            headers = self.headers(packed=packed)
            if status != NOT_MODIFIED:
                headers["Content-Length"] = str(self.length(packed=packed))
            lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{k}: {v}" for k, v in headers.items())]
            known = self.lines[status, packed] = "\r\n".join([*lines, "Server: spark-build", "Date: "]).encode()
        return known


class Shelf:
    """Texts by path and kind; the one that was asked for least lately goes first when they take more than `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._texts: dict[tuple[str, str], Text] = {}
        self.size = 0

    def __len__(self) -> int:
        return len(self._texts)

    def get(self, path: str, kind: str) -> Text | None:
        """Return a text, and know that it was asked for. Whether it still holds is its `checked`."""
        key = (path, kind)
        text = self._texts.pop(key, None)
        if text is not None:
            self._texts[key] = text
        return text

    def put(self, path: str, kind: str, text: Text) -> None:
        """Keep a text."""
        self.drop(path, kind)
        self._texts[path, kind] = text
        self.size += text.size
        while self.size > self._limit and len(self._texts) > 1:
            self.drop(*next(iter(self._texts)))

    def drop(self, path: str, kind: str) -> None:
        """Forget a text."""
        text = self._texts.pop((path, kind), None)
        if text is not None:
            self.size -= text.size
