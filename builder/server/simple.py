"""The pages of clients: ``/simple/`` and ``/simple/<project>/``, of every channel.

A page is made when it is asked for, kept, and looked at again only when the catalogue has changed; where that changed
nothing on it, its bytes and its tag stay.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from aiohttp import web

from builder.index import listing, pages
from builder.server import negotiate
from builder.server.refusal import Refusal
from builder.server.shelf import Text

if TYPE_CHECKING:
    from collections.abc import Callable

    from builder.server.site import Site

__all__ = ["made", "named_format", "normalised", "project", "query", "root", "send"]

LOCAL = "local"
#: Packing this much takes a millisecond or two.
_LARGE = 64 * 1024
_SEPARATORS = re.compile(r"[-_.]+")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")


async def root(request: web.BaseRequest, site: Site, *, channel: str = "") -> web.StreamResponse:
    """Answer the list of projects."""

    def make(kind: str) -> str:
        if channel and channel not in listing.channels(site.house):
            raise Refusal(404, "channel-missing", f"there is no channel {channel}")
        names = listing.projects(site.house, channel or LOCAL)
        return pages.root_json(names) if kind == negotiate.JSON else pages.root_html(names)

    return send(request, await _kept(site, request, _above(channel), make, label="simple-root"))


async def project(request: web.BaseRequest, site: Site, *, name: str, channel: str = "") -> web.StreamResponse:
    """Answer the page of a project: 200 for every name that is ours, with no file on it where there is none to offer.

    A name that isn't written as it is normalised is redirected to the one that is.
    """
    if not _NAME.fullmatch(name):
        raise Refusal(404, "project-missing", "that can't be the name of a project")
    canonical = normalised(name)
    if canonical != name:
        raise Refusal(301, "name", f"the name is {canonical}", headers={"Location": f"../{canonical}/{query(request)}"})
    path = f"{_above(channel)}{name}/"
    absent = site.absent.get(path, "")
    if absent is not None and absent.checked == site.fresh(site.now()):
        return send(request, absent)

    def make(kind: str) -> str:
        found = listing.project(site.house, channel or LOCAL, name, site.superseded)
        if found is None and listing.is_owned(site.house, name, site.settings.reserve):
            found = listing.Project(name=name)
        if found is None:
            raise _Missing
        up = path.count("/") - 1
        return pages.project_json(found, up) if kind == negotiate.JSON else pages.project_html(found, up)

    try:
        text = await _kept(site, request, path, make)
    except _Missing:
        return await _without(request, site, path, name, channel)
    return send(request, text)


class _Missing(Exception):
    """Nobody here ever had that name."""


def normalised(name: str) -> str:
    """Return the canonical name of a project (PEP 503)."""
    return _SEPARATORS.sub("-", name).lower()


def query(request: web.BaseRequest) -> str:
    """Return the query of a request as it was sent, with its question mark."""
    _path, mark, rest = request.raw_path.partition("?")
    return mark + rest


def named_format(request: web.BaseRequest) -> str | None:
    """Return what ``?format=`` says, decoded; None where it isn't there."""
    return parse_qs(query(request)[1:], keep_blank_values=True).get("format", [None])[0]


def _above(channel: str) -> str:
    return f"/{channel}/simple/" if channel else "/simple/"


def _channel(path: str) -> str:
    return path.partition("/simple/")[0].strip("/")


async def _kept(
    site: Site, request: web.BaseRequest, path: str, make: Callable[[str], str], *, label: str = "simple"
) -> Text:
    """Return the text that is kept for a path and the kind that is asked for, made anew where the catalogue changed it."""
    kind = negotiate.kind_of(request.headers.get("Accept", ""), named_format(request))
    if not kind:
        types = ", ".join(one.partition(";")[0] for one in negotiate.TYPES.values())
        raise Refusal(406, "not-acceptable", f"this is there as {types}", headers={"Vary": "Accept"})
    text = site.shelf.get(path, kind)
    if text is not None and text.checked == site.fresh(site.now()):
        return text
    generation, body = "", b""
    while generation != site.look():  # no page may be newer than it says: of a set, others would be seen without it
        generation = site.generation
        body = make(kind).encode()
    if text is not None and text.body == body:
        text.checked = generation
        return text
    text = await made(site, body, negotiate.TYPES[kind], checked=generation, label=label)
    if path.startswith("/simple/") or _channel(path) in listing.channels(site.house):
        site.shelf.put(path, kind, text)  # of channels that aren't there, there is no end
    return text


async def made(site: Site, body: bytes, content_type: str, **how: Any) -> Text:  # noqa: ANN401  # as `Text` takes it
    """Return a text; a large one is packed in a thread."""
    if len(body) < _LARGE:
        return Text(body, content_type, **how)
    return await site.thread(Text, body, content_type, **how)


def _remembered(site: Site, path: str, name: str) -> Text:
    text = Text(
        f"there is no project {name} here\n".encode(), "text/plain; charset=utf-8", checked=site.generation, status=404
    )
    site.absent.put(path, "", text)
    return text


async def _without(request: web.BaseRequest, site: Site, path: str, name: str, channel: str) -> web.StreamResponse:
    """Answer for a name that nobody here ever had: by the public index where that is allowed, else that there is none."""
    if any(fnmatchcase(name, pattern) for pattern in site.settings.passthrough):  # and isn't remembered as absent
        from builder.server import passthrough  # noqa: PLC0415  # off unless said

        return await passthrough.project(request, site, name=name, channel=channel)
    return send(request, _remembered(site, path, name))


def send(request: web.BaseRequest, text: Text) -> web.Response:
    """Return a text as an answer: packed where the client takes that, and 304 where it has it."""
    headers = request.headers
    packed = bool(text.encoded) and negotiate.takes_gzip(headers.get("Accept-Encoding", ""))
    if (known := headers.get("If-None-Match")) and text.matches(known):
        return web.Response(status=304, headers=text.headers(packed=packed))
    body = text.encoded if packed else text.body
    return web.Response(status=text.status, body=body, headers=text.headers(packed=packed))
