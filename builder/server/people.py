"""The pages for people: the same bytes that an export has, kept until the wheelhouse or its builds change.

Nothing here is done on the loop's thread but to look whether a page still holds: reading and rendering go to the thread that
has a wheelhouse of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from aiohttp import web

from builder import site as pages
from builder.pipeline import pages as told
from builder.server import simple
from builder.server.refusal import Refusal
from builder.server.shelf import FOREVER, PAGE, Text
from builder.site import builds as build_pages
from builder.site import channels as channel_pages
from builder.site import front as front_page
from builder.site import project as project_page
from builder.site import search
from builder.site import wheel as wheel_page
from builder.site.frame import STATIC
from builder.site.frame import static as static_file
from builder.site.tree import hits
from builder.values import dataclass
from builder.wheelhouse import overview

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from builder.pipeline.builds import Attempt
    from builder.server.site import Site
    from builder.wheelhouse import Wheelhouse

__all__ = ["build", "builds", "channel", "channels", "front", "missing", "project", "static", "wheel"]

_HTML = "text/html; charset=utf-8"
_KIND = "people"
#: No script and no style but the two files, nothing from elsewhere, in nobody's frame.
_POLICY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
#: How old what is known of attempts may be, in seconds: reading it is work that grows with their number.
_ATTEMPTS_S = 2.0
_LONGEST_QUERY = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """The attempts at a moment; `stamp` changes with them, with what audits said, and with who may sign."""

    at: float
    attempts: tuple[Attempt, ...]
    stamp: str


class _Told(told.Told):
    """Tells what was seen."""

    def __init__(self, house: Wheelhouse, seen: _Seen, signers: Path | None) -> None:
        super().__init__(house.root, signers)
        self._seen = seen

    def attempts(self) -> Sequence[Attempt]:
        """Return the attempts that were seen."""
        return self._seen.attempts


async def front(request: web.BaseRequest, site: Site) -> web.StreamResponse:
    """Answer the first page; with ``?q=`` what is found."""
    query = parse_qs(simple.query(request)[1:]).get("q", [""])[0].strip()[:_LONGEST_QUERY]
    if not query:
        return await _page(request, site, "", lambda source: front_page.render(source.front()))

    def found(source: pages.Source) -> Text:
        checked = f"{site.generation} {seen.stamp}"
        known: tuple[str, list[search.Hit]] = site.own.get("people-search", ("", []))
        if known[0] != checked:
            known = site.own["people-search"] = (checked, hits(source))
        body = front_page.render(None, query=query, hits=search.find(known[1], query))
        return Text(body, _HTML, checked="", label=_KIND, vary="Accept-Encoding")

    seen = await _seen(site)
    return _sent(request, await site.reading(lambda house: found(_source(site, house, seen))))


async def project(request: web.BaseRequest, site: Site, *, name: str) -> web.StreamResponse:
    """Answer the page of a project."""
    canonical = simple.normalised(name)
    if canonical != name:
        raise Refusal(301, "name", f"the name is {canonical}", headers={"Location": f"../{canonical}/"})

    def make(source: pages.Source) -> bytes | None:
        found = source.project(name)
        return project_page.render(found) if found else None

    return await _page(request, site, f"projects/{name}/", make, f"There is no package {name} here.")


async def wheel(request: web.BaseRequest, site: Site, *, sha256: str) -> web.StreamResponse:
    """Answer the page of a wheel."""

    def make(source: pages.Source) -> bytes | None:
        found = source.wheel(sha256)
        return wheel_page.render(found) if found else None

    return await _page(request, site, f"wheels/{sha256}/", make, "There is no wheel with this digest here.")


async def builds(request: web.BaseRequest, site: Site) -> web.StreamResponse:
    """Answer the list of builds."""
    return await _page(request, site, "builds/", lambda source: build_pages.every(source.attempts))


async def build(request: web.BaseRequest, site: Site, *, fingerprint: str) -> web.StreamResponse:
    """Answer the page of a build; that of a running one is made anew each time."""

    def make(source: pages.Source) -> bytes | None:
        found = source.build(fingerprint)
        return build_pages.render(found) if found else None

    seen = await _seen(site)
    running = any(one.fingerprint == fingerprint and one.outcome == "running" for one in seen.attempts)
    return await _page(
        request, site, f"builds/{fingerprint}/", make, "Nothing is known of such a build here.", keep=not running
    )


async def channels(request: web.BaseRequest, site: Site) -> web.StreamResponse:
    """Answer the list of channels."""
    return await _page(request, site, "channels/", lambda source: channel_pages.every(source.channels()))


async def channel(request: web.BaseRequest, site: Site, *, channel: str) -> web.StreamResponse:
    """Answer the page of a channel."""

    def make(source: pages.Source) -> bytes | None:
        found = source.selection(channel)
        return channel_pages.render(found) if found else None

    return await _page(request, site, f"channels/{channel}/", make, f"There is no channel {channel} here.")


async def static(request: web.BaseRequest, site: Site, *, name: str) -> web.StreamResponse:
    """Answer a file that the pages use, and the index of the search."""
    if name == "search.js":
        kind = STATIC["spark.js"]
        return await _page(request, site, "static/search.js", lambda source: search.script(hits(source)), kind=kind)
    if name not in STATIC:
        raise Refusal(404, "path-missing", "there is nothing here")
    lasting = simple.query(request).startswith("?v=")
    key = f"/static/{name}{'?v' if lasting else ''}"
    text = site.shelf.get(key, _KIND)
    if text is None:
        control = FOREVER if lasting else PAGE
        text = Text(static_file(name), STATIC[name], checked="", label=_KIND, vary="Accept-Encoding", control=control)
        site.shelf.put(key, _KIND, text)
    return _sent(request, text)


def missing(path: str, text: str = "There is no page at this address.") -> web.Response:
    """Return the page that stands at `path` (below the root, without a slash in front) where there is nothing."""
    body = channel_pages.missing(path, text)
    headers = {"Content-Type": _HTML, "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", **_POLICY}
    return web.Response(status=404, body=body, headers=headers)


async def _page(
    request: web.BaseRequest,
    site: Site,
    path: str,
    make: Callable[[pages.Source], bytes | None],
    absent: str = "",
    *,
    kind: str = _HTML,
    keep: bool = True,
) -> web.StreamResponse:
    seen = await _seen(site)
    checked = f"{site.fresh(site.now())} {seen.stamp}"
    text = site.shelf.get(f"/{path}", _KIND) if keep else None
    if text is None or text.checked != checked:
        body = await site.reading(lambda house: make(_source(site, house, seen)))
        if body is None:
            return missing(path, absent)
        if text is not None and text.body == body:
            text.checked = checked
        else:
            text = await site.thread(
                Text, body, kind, checked=checked, label=_KIND, vary="Accept-Encoding"
            )  # packing takes its time
            if keep:
                site.shelf.put(f"/{path}", _KIND, text)
    return _sent(request, text)


def _source(site: Site, house: Wheelhouse, seen: _Seen) -> pages.Source:
    return pages.Source(house, _Told(house, seen, site.settings.signers), url=site.settings.public_url)


def _sent(request: web.BaseRequest, text: Text) -> web.Response:
    answer = simple.send(request, text)
    answer.headers.update(_POLICY)
    return answer


async def _seen(site: Site) -> _Seen:
    """Return what is known of attempts and reports, not older than some seconds."""
    seen: _Seen | None = site.own.get("people")
    now = site.now()
    if seen is None or now - seen.at > _ATTEMPTS_S:
        seen = site.own["people"] = await site.reading(lambda house: _look(house, now, site.settings.signers))
    return seen


def _look(house: Wheelhouse, now: float, signers: Path | None) -> _Seen:
    attempts = tuple(told.Told(house.root).attempts())
    state = [(one.fingerprint, one.attempt, one.outcome, one.ms) for one in attempts]
    trusted = signers.stat().st_mtime_ns if signers is not None and signers.is_file() else 0
    return _Seen(at=now, attempts=attempts, stamp=f"{hash(tuple(state)):x} {overview.documents(house)} {trusted}")
