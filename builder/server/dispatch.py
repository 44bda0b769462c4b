"""From a request to its answer: the way through routes, tokens and handlers, and what becomes of errors on it."""

from __future__ import annotations

import asyncio
import functools
import importlib
import traceback
from typing import TYPE_CHECKING

from aiohttp import HttpVersion11

from builder.errors import SparkError
from builder.server import accesslog, refusal, routes
from builder.server.refusal import Refusal
from builder.server.shelf import NOT_MODIFIED
from builder.server.simple import normalised, query

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp import web

    from builder.server.routes import Match
    from builder.server.site import Site

__all__ = ["handler"]

#: Those whose channel is the one that is published to.
_ENTERS = frozenset({"legacy"})


def handler(site: Site) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
    """Return what answers every request."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        begun = site.now()
        label, answer, user = await _answered(request, site)
        try:
            await answer.prepare(request)
            await answer.write_eof()
        finally:
            bare = request.method == "HEAD" or answer.status == NOT_MODIFIED
            sent = 0 if bare else answer.content_length or answer.body_length
            site.metrics.observe(label, answer.status, sent, site.now() - begun)
            if site.log is not None:
                site.log_line(request._message, request.protocol.peername, answer.status, sent, user)  # noqa: SLF001
        return answer

    return handle


async def _answered(request: web.BaseRequest, site: Site) -> tuple[str, web.StreamResponse, str]:
    """Return the class of the path, the answer, and the name of the token."""
    label, user = "unknown", ""
    try:
        _require_host(request, site)
        match = routes.find(_path(request.raw_path))
        label = match.route.label
        name, scope = match.of_method(request.method)
        channel = match.arguments.get("channel", "local") if label in _ENTERS else None
        user = site.tokens.allow(request, scope, channel).name
        if match.redirect and request.method in {"GET", "HEAD"}:
            return label, _refused(request, _moved(request, match)), user
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0  # nothing of the answer itself
        if label != "health":
            site.fresh(site.now())
        return label, await _load(name)(request, site, **match.arguments), user
    except Refusal as refused:
        return label, _refused(request, refused), user
    except SparkError as error:
        found = refusal.of_error(error)
        if found.status >= 500:  # noqa: PLR2004  # ours
            site.complain(f"{_told(request)}: {error.code}: {error.summary}: {error.cause}")
        return label, _refused(request, found), user
    except (ConnectionError, TimeoutError, asyncio.CancelledError):
        raise
    except Exception:  # noqa: BLE001  # one request must not end the server, and the client must not see what it was
        site.complain(f"{_told(request)}: a bug in spark-build\n{traceback.format_exc()}")
        return label, _refused(request, Refusal(500, "bug", "the server failed; its log says why")), user


def _require_host(request: web.BaseRequest, site: Site) -> None:
    named = request.headers.getall("Host", [])
    if request.version >= HttpVersion11 and len(named) != 1:
        raise Refusal(400, "host", "a request of HTTP/1.1 has one Host header")
    if not all(site.is_ours(host) for host in named):
        raise Refusal(
            421, "host-other", "this server, which only this machine can read, isn't known by that name",
            "ask for localhost; for other names: index.public-url in the configuration, or --open-reads or --closed-reads",
        )  # fmt: skip


def _refused(request: web.BaseRequest, refused: Refusal) -> web.StreamResponse:
    if refused.status == 404 and request.headers.get("Accept", "").startswith("text/html"):  # noqa: PLR2004  # a browser
        from builder.server import people  # noqa: PLC0415

        return people.missing(_path(request.raw_path).removeprefix("/"))
    answer = refusal.answer(refused, accept=request.headers.get("Accept", ""))
    if refused.status == 431:  # noqa: PLR2004
        answer.force_close()
    return answer


def _told(request: web.BaseRequest) -> str:
    return accesslog.clean(f"{request.method} {request.raw_path}")


def _path(target: str) -> str:
    """Return the path of a request's target, which may be a whole URL (RFC 9112, 3.2.2)."""
    path = target.partition("?")[0]
    if path.startswith(("http://", "https://")):
        _scheme, _slashes, rest = path.partition("//")
        return f"/{rest.partition('/')[2]}"
    return path


def _moved(request: web.BaseRequest, match: Match) -> Refusal:
    """Return the redirect to the path with its slash: relative, so that it never leads to another host."""
    name = match.arguments.get("name")
    target = f"{normalised(name)}/" if name and match.route.label == "simple" else match.redirect
    return Refusal(301, "slash", "the path ends with a slash", headers={"Location": target + query(request)})


@functools.cache
def _load(name: str) -> Callable[..., Awaitable[web.StreamResponse]]:
    """Return the function that a route names."""
    module, _, function = name.partition(":")
    found: Callable[..., Awaitable[web.StreamResponse]] = getattr(
        importlib.import_module(f"builder.server.{module}"), function
    )
    return found
