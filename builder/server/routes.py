"""Which path is answered by what. Pure: a path as the client sent it, in; a name of a function and its arguments, out.

Nothing here touches a file. A path is decoded once and has to fit one of the patterns; all others are unknown.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from builder.server.refusal import Refusal
from builder.values import dataclass
from builder.wheelhouse.channel import RESERVED

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ROUTES", "Match", "Route", "find"]

_WORD = "[a-z0-9-]+"
_CHANNEL = f"(?P<channel>{_WORD}(?:/{_WORD})?)"
_SHA256 = "(?P<sha256>[0-9a-f]{64})"
_FILE = r"(?P<filename>[A-Za-z0-9_.+!~-]+)"
_NAME = r"(?P<name>[A-Za-z0-9._-]+)"
_FINGERPRINT = "(?P<fingerprint>[0-9a-f]{64})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Paths of one form. `methods` says for each method who answers (``module:function``) and which scope it takes.

    `label` is its class in the metrics. `slash` says that the path ends with a slash; one without is redirected.
    """

    label: str
    pattern: re.Pattern[str]
    methods: Mapping[str, tuple[str, str]]
    slash: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """What a path leads to. `redirect` is where the same path with its slash is, or empty."""

    route: Route
    arguments: Mapping[str, str]
    redirect: str = ""

    def of_method(self, method: str) -> tuple[str, str]:
        """Return handler and scope; raise Refusal 405 with ``Allow``."""
        methods = self.route.methods
        found = methods.get(method) or (methods.get("GET") if method == "HEAD" else None)
        if found is None:
            known = {*methods, *(["HEAD"] if "GET" in methods else [])}
            raise Refusal(405, "method", f"{method} isn't answered here", headers={"Allow": ", ".join(sorted(known))})
        return found


def _route(label: str, pattern: str, **methods: str) -> Route:
    """Make a route; methods are given as ``GET="module:function scope"``."""
    parsed = {}
    for method, text in methods.items():
        handler, scope = text.split()
        parsed[method] = (handler, scope)
    slash = pattern.endswith("/")
    if slash and "GET" in parsed:
        pattern += r"(?:index\.html)?"  # as pages say that are read from a folder, too
    return Route(label=label, pattern=re.compile(pattern), methods=parsed, slash=slash)


ROUTES = (
    _route("simple", f"/(?:{_CHANNEL}/)?simple/{_NAME}/", GET="simple:project read"),
    _route("file", f"/files/{_SHA256}/{_FILE}", GET="files:file read"),
    _route("simple-root", f"/(?:{_CHANNEL}/)?simple/", GET="simple:root read"),
    _route(
        "ccache",
        r"/ccache/(?P<key>[A-Za-z0-9._/-]+)",
        GET="ccache:entry read",
        PUT="ccache:entry publish",
        DELETE="ccache:entry publish",
    ),
    _route("legacy", f"/(?:{_CHANNEL}/)?legacy/", POST="upload:legacy publish"),
    _route("staging", f"/api/staging/{_SHA256}/{_FILE}", HEAD="staging:head publish", PUT="staging:put publish"),
    _route("publish", "/api/publish", POST="publish:publish publish"),
    _route("api", f"/api/builds/{_FINGERPRINT}", GET="builds:of_fingerprint read"),
    _route("events", f"/api/builds/{_FINGERPRINT}/events", GET="events:follow read"),
    _route("api", "/api/channels", GET="channels:every read"),
    _route("api", f"/api/channels/{_CHANNEL}", GET="channels:one read"),
    _route("api", "/api/openapi.json", GET="openapi:document read"),
    _route("metrics", "/metrics", GET="metrics:page open"),
    _route("health", "/health", GET="metrics:health open"),
    _route("static", r"/static/(?P<name>[A-Za-z0-9_.-]+)", GET="people:static read"),
    _route("people", "/", GET="people:front read"),
    _route("people", f"/projects/{_NAME}/", GET="people:project read"),
    _route("people", f"/wheels/{_SHA256}/", GET="people:wheel read"),
    _route("people", "/builds/", GET="people:builds read"),
    _route("people", f"/builds/{_FINGERPRINT}/", GET="people:build read"),
    _route("people", "/channels/", GET="people:channels read"),
    _route("people", f"/channels/{_CHANNEL}/", GET="people:channel read"),
)

_STRANGE = re.compile(r"[\x00-\x20\x7f\\]|//|(?:^|/)\.\.?(?:/|$)")


def find(target: str) -> Match:
    """Return what the path of a request target (without its query) leads to.

    Raises Refusal 404 where that is nothing, 400 for a path that isn't UTF-8. Encoded slashes, dot segments, double slashes,
    backslashes and control characters lead nowhere.
    """
    match = _found(target)
    if match is None:
        raise Refusal(404, "path-missing", "there is nothing here")
    return match


def _found(target: str) -> Match | None:
    path = _decoded(target)
    if not path.startswith("/") or _STRANGE.search(path):
        return None
    for route in ROUTES:
        if found := route.pattern.fullmatch(path):
            return _match(route, found)
    for route in ROUTES:
        if route.slash and (found := route.pattern.fullmatch(f"{path}/")):
            return _match(route, found, redirect=f"{path.rpartition('/')[2]}/")
    return None


def _decoded(target: str) -> str:
    """Return the path, decoded once; empty where a slash was hidden in it."""
    if "%" not in target:
        return target
    if "%2f" in target.lower():
        return ""
    try:
        return unquote_to_bytes(target).decode()
    except UnicodeDecodeError:
        raise Refusal(400, "path", "the path isn't UTF-8") from None


def _match(route: Route, found: re.Match[str], *, redirect: str = "") -> Match | None:
    arguments = {name: value for name, value in found.groupdict().items() if value is not None}
    if "channel" in arguments and RESERVED.intersection(arguments["channel"].split("/")):
        return None
    return Match(route=route, arguments=arguments, redirect=redirect)
