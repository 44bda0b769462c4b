"""Who we are to a host: from the URL, from the index's URL, from ``~/.netrc``. Never kept, never sent to another host."""

from __future__ import annotations

import urllib.request
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    import http.client

    from builder.source.place import Sources

__all__ = ["Redirects", "of"]


def of(url: str, sources: Sources) -> str | None:
    """Return the value of the ``Authorization`` header for `url`, or None.

    Pins hold URLs without credentials: those of the configured index serve its files, too.
    """
    host = urlsplit(url).hostname
    places = [url, sources.index_url or "", *(to for _prefix, to in sources.mirrors)]
    places += [sources.env.get(name, "") for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL")]
    for place in places:
        parts = urlsplit(place.partition("=")[2] if "=" in place.partition(":")[0] else place)
        if parts.hostname == host and parts.username is not None:
            return _basic(unquote(parts.username), unquote(parts.password or ""))
    return _netrc(host or "", sources)


def _basic(user: str, secret: str) -> str:
    import base64  # noqa: PLC0415

    return "Basic " + base64.b64encode(f"{user}:{secret}".encode()).decode()


def _netrc(host: str, sources: Sources) -> str | None:
    file = Path(sources.env.get("NETRC") or Path(sources.env.get("HOME", "/")) / ".netrc")
    if not host or not file.is_file():
        return None
    import netrc  # noqa: PLC0415

    try:
        found = netrc.netrc(str(file)).authenticators(host)
    except (netrc.NetrcParseError, OSError):
        return None
    return _basic(found[0], found[2]) if found else None


class Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects over HTTP, and urllib's others not: it knows FTP, too. Another host never gets the login."""

    def redirect_request(  # noqa: D102  # urllib's method
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme.lower() not in {"http", "https"}:
            return None  # told as the answer that it is
        new = super().redirect_request(req, fp, code, msg, headers, newurl)
        if new is not None and urlsplit(newurl)[:2] != urlsplit(req.full_url)[:2]:
            new.remove_header("Authorization")
        return new
