"""Projects of another index on our pages, for clients that know one index only. Off unless names are allowed.

Nothing that is ours, or reserved, ever comes from there: a project is ours or theirs, never both. Their page is asked for as
JSON (PEP 691); of its files only wheels with a sha256 are passed on, and their URLs stay theirs, so that files come from
there and clients check them. A page is good for some minutes, and longer while the other index is in trouble.
"""

from __future__ import annotations

import asyncio
import json
import re
from html import escape
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit, urlunsplit
from weakref import WeakKeyDictionary

from builder.errors import scrubbed
from builder.index import listing
from builder.index.pages import API_VERSION
from builder.server import negotiate, simple
from builder.server.refusal import Refusal
from builder.server.shelf import Text
from builder.values import dataclass

if TYPE_CHECKING:
    from aiohttp import ClientSession, web

    from builder.server.site import Site

__all__ = ["project"]

#: Seconds for which a page is good, and for how long one is shown while no newer can be had.
GOOD_S, STALE_S = 300.0, 86_400.0
#: Seconds after a failure in which nobody asks again.
_PAUSE_S = 10.0
_TOTAL_S, _CONNECT_S = 20.0, 5.0
#: Bytes of their page: the largest that are known have a fifth of that.
_PAGE = 32 << 20
#: So many projects are kept.
_KEPT = 512
_CHUNK = 1 << 16
_OK, _MISSING, _UNCHANGED = 200, 404, 304

_SHA256 = re.compile(r"[0-9a-f]{64}")
_FILENAME = re.compile(
    r"([A-Za-z0-9_.]+)-([A-Za-z0-9_.+!]+)(?:-\d[A-Za-z0-9_.]*)?-[A-Za-z0-9_.]+-[A-Za-z0-9_.]+-[A-Za-z0-9_.]+\.whl"
)
_JSON = "application/vnd.pypi.simple.v1+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What the other index says of a project, as we pass it on; no `texts` where it has no such project."""

    at: float
    etag: str
    texts: dict[str, Text]


class Other:
    """The other index as one server knows it."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.pages: dict[str, Page] = {}
        self.failed: dict[str, tuple[float, Refusal]] = {}
        self.fetches: dict[str, asyncio.Task[Page]] = {}
        self.end: asyncio.Task[None] | None = None
        self._session: ClientSession | None = None

    @property
    def session(self) -> ClientSession:
        """The client, made when it is first needed; proxies and logins are those of the environment and ``~/.netrc``."""
        if self._session is None:
            from aiohttp import ClientSession, ClientTimeout, DummyCookieJar  # noqa: PLC0415

            timeout = ClientTimeout(total=_TOTAL_S, sock_connect=_CONNECT_S)
            self._session = ClientSession(timeout=timeout, trust_env=True, cookie_jar=DummyCookieJar())
        return self._session

    async def until(self, stopping: asyncio.Event) -> None:
        """Let go of connections when the server stops; what is asked for by then is waited for."""
        try:
            await stopping.wait()
            await asyncio.gather(*self.fetches.values(), return_exceptions=True)
        finally:
            if self._session is not None:
                await self._session.close()


_OTHERS: WeakKeyDictionary[Site, Other] = WeakKeyDictionary()


async def project(
    request: web.BaseRequest,
    site: Site,
    *,
    name: str,
    channel: str = "",  # noqa: ARG001  # theirs has none
) -> web.StreamResponse:
    """Answer the other index's page of a project that nobody here ever had; in every channel it is the same.

    Raises Refusal 404 where it has none, 406, and 502 where it can't be asked and nothing is kept of it.
    """
    asked = simple.named_format(request)
    kind = negotiate.kind_of(request.headers.get("Accept", ""), asked)
    if not kind:
        types = ", ".join(one.partition(";")[0] for one in negotiate.TYPES.values())
        raise Refusal(406, "not-acceptable", f"this is there as {types}", headers={"Vary": "Accept"})
    page = await _page(request, site, name)
    if listing.is_owned(site.house, name, site.settings.reserve):  # it may have become ours while we waited
        raise Refusal(503, "passthrough-ours", f"{name} was published here a moment ago", headers={"Retry-After": "1"})
    if not page.texts:
        raise Refusal(404, "project-missing", f"there is no project {name}, neither here nor at the other index")
    return simple.send(request, page.texts[kind])


async def _page(request: web.BaseRequest, site: Site, name: str) -> Page:
    if not site.settings.passthrough_url:
        raise Refusal(502, "passthrough-url", "no other index is configured", "index.pass-through-url names one")
    other = _OTHERS.get(site)
    if other is None:
        other = _OTHERS[site] = Other(site.settings.passthrough_url)
        other.end = asyncio.get_running_loop().create_task(other.until(site.stopping))
    now, known = request.loop.time(), other.pages.get(name)
    if known and now - known.at < GOOD_S:
        return known
    failed = other.failed.get(name)
    if failed is None or now - failed[0] >= _PAUSE_S:
        try:
            return await asyncio.shield(_fetch(other, name, site))
        except Refusal as refused:
            failed = (request.loop.time(), refused)
            other.failed[name] = failed
            site.complain(f"{refused.summary}")
    if known and now - known.at < STALE_S:
        return known
    raise failed[1]


def _fetch(other: Other, name: str, site: Site) -> asyncio.Task[Page]:
    """Return the one fetch of a project that runs; who asks meanwhile waits for the same."""
    task = other.fetches.get(name)
    if task is None:
        task = asyncio.get_running_loop().create_task(_fetched(other, name, site))
        other.fetches[name] = task
        task.add_done_callback(lambda _task: other.fetches.pop(name, None))
    return task


async def _fetched(other: Other, name: str, site: Site) -> Page:
    from aiohttp import ClientError  # noqa: PLC0415

    known = other.pages.get(name)
    headers = {"Accept": _JSON, "User-Agent": "spark-build"}
    if known and known.etag:
        headers["If-None-Match"] = known.etag
    try:
        async with other.session.get(f"{other.url}/{name}/", headers=headers, max_redirects=3) as answer:
            etag = answer.headers.get("ETag", "")
            if answer.status == _UNCHANGED and known:
                page = Page(at=asyncio.get_running_loop().time(), etag=known.etag, texts=known.texts)
            elif answer.status == _MISSING:
                page = Page(at=asyncio.get_running_loop().time(), etag="", texts={})
            else:
                base, body = str(answer.url.with_user(None)), await _body(answer, name, other)
                texts = await site.thread(_texts, body, base, name)
                page = Page(at=asyncio.get_running_loop().time(), etag=etag, texts=texts)
    except (ClientError, TimeoutError, OSError) as error:
        text = scrubbed(str(error)) or type(error).__name__
        raise _trouble(other, name, text) from error
    except ValueError as error:
        raise _trouble(other, name, f"its page can't be passed on: {error}") from error
    other.failed.pop(name, None)
    other.pages.pop(name, None)
    other.pages[name] = page
    while len(other.pages) > _KEPT:
        other.pages.pop(next(iter(other.pages)))
    return page


async def _body(answer: Any, name: str, other: Other) -> bytes:  # noqa: ANN401  # aiohttp's, imported late
    """Return the body of a page; raise Refusal where it is none, ValueError where there is too much of it."""
    if answer.status != _OK:
        raise _trouble(other, name, f"it answers {answer.status}")
    if answer.content_type != _JSON:
        raise _trouble(other, name, f"it answers {answer.content_type} where JSON is wanted (PEP 691)")
    if urlsplit(other.url).scheme == "https" and answer.url.scheme != "https":
        raise _trouble(other, name, "it leads to a place without TLS")
    body = bytearray()
    async for chunk in answer.content.iter_chunked(_CHUNK):
        body += chunk
        if len(body) > _PAGE:
            raise _trouble(other, name, f"its page has more than {_PAGE >> 20} MiB")
    return bytes(body)


def _trouble(other: Other, name: str, cause: str) -> Refusal:
    return Refusal(502, "passthrough", f"{scrubbed(other.url)} was asked for {name}: {cause}")


def _texts(body: bytes, base: str, name: str) -> dict[str, Text]:
    """Return our page of what `body` says, in every kind; raise ValueError where that isn't a page of this project."""
    try:
        found = json.loads(body)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    match found:
        case {"meta": {"api-version": str(version)}, "name": str(said), "files": list(listed)}:
            pass
        case _:
            raise ValueError("it isn't as PEP 691 wants it")
    if version.partition(".")[0] != "1":
        raise ValueError(f"it has the version {version}")
    if simple.normalised(said) != name:
        raise ValueError(f"it is about {said[:80]}")
    files = [entry for one in listed if isinstance(one, dict) and (entry := _entry(one, base, name))]
    versions = dict.fromkeys(entry["filename"].split("-")[1] for entry in files)
    document = {"meta": {"api-version": API_VERSION}, "name": name, "versions": list(versions), "files": files}
    data = (json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n").encode()
    html = _html(name, files).encode()
    return {
        kind: Text(data if kind == negotiate.JSON else html, content_type, checked="")
        for kind, content_type in negotiate.TYPES.items()
    }


def _entry(one: dict[str, Any], base: str, name: str) -> dict[str, Any] | None:
    """Return a file as we list it, with an absolute URL; None for what is no wheel of the project, or has no sha256."""
    match one:
        case {"filename": str(filename), "url": str(url), "hashes": {"sha256": str(sha256)}}:
            pass
        case _:
            return None
    parsed = _FILENAME.fullmatch(filename)
    if not parsed or simple.normalised(parsed[1]) != name or not _SHA256.fullmatch(sha256):
        return None
    parts = urlsplit(urljoin(base, url))
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username is not None:
        return None
    entry: dict[str, Any] = {
        "filename": filename,
        "url": urlunsplit((*parts[:4], "")),
        "hashes": {"sha256": sha256},
        "yanked": one["yanked"] if isinstance(one.get("yanked"), str | bool) else False,
    }
    for key, kind in (("size", int), ("upload-time", str), ("requires-python", str)):
        if isinstance(one.get(key), kind) and not isinstance(one[key], bool):
            entry[key] = one[key]
    match one.get("core-metadata", one.get("dist-info-metadata")):
        case {"sha256": str(digest)} if _SHA256.fullmatch(digest):
            entry["core-metadata"] = {"sha256": digest}
        case True:
            entry["core-metadata"] = True
    return entry


def _html(name: str, files: list[dict[str, Any]]) -> str:
    lines = [f"    <a {_attributes(entry)}>{escape(entry['filename'])}</a><br>" for entry in files]
    head = f'<meta charset="utf-8">\n    <meta name="pypi:repository-version" content="{API_VERSION}">'
    title = f"<title>Links for {escape(name)}</title>"
    body = "\n".join(lines)
    return (
        f"<!DOCTYPE html>\n<html>\n  <head>\n    {head}\n    {title}\n  </head>\n  <body>\n{body}\n  </body>\n</html>\n"
    )


def _attributes(entry: dict[str, Any]) -> str:
    values = {"href": f"{entry['url']}#sha256={entry['hashes']['sha256']}"}
    if "requires-python" in entry:
        values["data-requires-python"] = entry["requires-python"]
    if metadata := entry.get("core-metadata"):
        values["data-core-metadata"] = f"sha256={metadata['sha256']}" if isinstance(metadata, dict) else "true"
    if entry["yanked"] is not False:
        values["data-yanked"] = entry["yanked"] if isinstance(entry["yanked"], str) else ""
    return " ".join(f'{key}="{escape(value)}"' for key, value in values.items())
