"""Fetching one file: resumed where it stopped, hashed while it comes, in place only when it is right."""

from __future__ import annotations

import contextlib
import http.client
import os
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from builder import transfer
from builder.digest import sha256_file
from builder.errors import SourceError
from builder.events import Fetching
from builder.source import login
from builder.source.place import locked, revealed, without_credentials, without_login
from builder.transfer import Again, Got
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from builder.connections import Connections
    from builder.source.place import Sources

__all__ = ["Way", "fetch_file", "get", "length"]

T = TypeVar("T")

_TIMEOUT_S = 30
_TRIES = 3
_LATER = frozenset((408, 416, 425, 429))  # a client's error that another try may not meet


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How a file is brought.

    `tell` gets bytes that are there, bytes that there will be, and bytes that just came; else the sources' sink is told.
    `tries` in a row may bring nothing, and `wait` waits between them. `connections` are used again.
    """

    tell: Callable[[int, int | None, int], None] | None = None
    tries: int = _TRIES
    wait: Callable[[float], object] = time.sleep
    connections: Connections | None = None


def get(url: str, sources: Sources, *, headers: Mapping[str, str]) -> tuple[bytes, str, str]:
    """Return body, content type and final URL; a folder of a ``file:`` URL means its ``index.html``.

    Raises SourceError ``not-found``, ``access-denied`` or ``unreachable``.
    """
    if url.startswith("file:") and url.endswith("/"):
        url += "index.html"

    def read() -> tuple[bytes, str, str]:
        try:
            with _opened(url, sources, headers) as answer:
                return answer.read(), answer.headers.get("Content-Type", ""), answer.url
        except (OSError, http.client.HTTPException) as error:
            raise Again from error

    with _reached(url, sources):
        return transfer.persistently(read, tries=_TRIES)


@contextlib.contextmanager
def _reached(url: str, sources: Sources) -> Iterator[None]:
    """Tell that a server can't be reached, by the last thing that went wrong."""
    try:
        yield
    except Again as error:
        raise SourceError(
            "unreachable",
            f"{without_credentials(url)} can't be reached",
            cause=str(error),
            help="with what is at hand: --offline; through another host: [mirrors] in the configuration",
            run=(f"spark-build fetch {sources.recipe}",),
        ) from error


@contextlib.contextmanager
def fetch_file(
    url: str, dest: Path, sources: Sources, *, sha256: str | None, size: int | None = None, way: Way | None = None
) -> Iterator[Got]:
    """Bring `url` to `dest`; while the block runs no other process does so.

    An earlier ``.part`` goes on by Range where something can tell whether both halves belong together: `sha256`, else what
    the server said of the first (an ``ETag`` or ``Last-Modified``, beside it). One that another process brought meanwhile is
    taken. Raises SourceError ``hash-mismatch`` (nothing is kept then; more bytes than `size` are one, too), ``not-found``,
    ``access-denied``, ``unreachable``, ``offline-missing``. On a full disk what came is kept, and goes on.
    """
    way = way or Way()
    with locked(sources.root / "locks" / f"{dest.parent.name}.lock", sources, what=dest.name):
        dest.parent.mkdir(parents=True, exist_ok=True)
        if dest.exists() and (found := sha256_file(dest)) == sha256:
            with contextlib.suppress(OSError):
                os.utime(dest)  # last used, for gc
            if way.tell:
                way.tell(there := dest.stat().st_size, there, 0)
            yield Got(sha256=found, received=0)
            return
        got = _brought(url, dest, sources, sha256=sha256, size=size, way=way)
        if sha256 not in (None, got.sha256):
            raise SourceError(
                "hash-mismatch",
                f"{without_credentials(url)} isn't what was pinned",
                cause=f"sha256 {got.sha256}, wanted {sha256}" if got.sha256 else f"it has more than {size} bytes",
                help="the file upstream or on the mirror changed, or the way there damages it; nothing was kept",
                run=(f"spark-build fetch {sources.recipe}", f"spark-build recipes show {sources.recipe} --origin"),
            )
        yield got


def _brought(url: str, dest: Path, sources: Sources, *, sha256: str | None, size: int | None, way: Way) -> Got:
    """Leave the file at `dest`; one with other bytes isn't kept, and what is returned says so."""
    part = dest.with_name(f"{dest.name}.part")

    def persist(action: Callable[[], str]) -> str:
        return transfer.persistently(action, tries=way.tries, done=lambda: transfer.size_of(part), wait=way.wait)

    with _reached(url, sources):
        got = transfer.complete(
            part,
            lambda headers: _opened(url, sources, headers, connections=way.connections),
            sha256=sha256,
            size=size,
            tell=way.tell or _Telling(dest.name, sources),
            persist=persist,
        )
    if sha256 in (None, got.sha256):
        part.replace(dest)
    return got


def length(url: str, sources: Sources) -> int | None:
    """Return how many bytes a download of `url` has, as the server says; None where it doesn't or can't be asked."""
    try:
        with _opened(url, sources, {}, method="HEAD") as answer:
            told = answer.headers.get("Content-Length")
            return int(told) if told else None
    except (SourceError, OSError, http.client.HTTPException, ValueError):
        return None


class _Telling:
    """Tells the sink how far a file is, four times a second."""

    def __init__(self, name: str, sources: Sources) -> None:
        self._name, self._sink, self._told = name, sources.sink, time.monotonic()

    def __call__(self, done: int, total: int | None, came: int) -> None:
        if came and time.monotonic() - self._told > 0.25:  # noqa: PLR2004
            self._told = time.monotonic()
            self._sink.emit(Fetching(name=self._name, done=done, total=total))


def _opened(  # http or file
    url: str,
    sources: Sources,
    headers: Mapping[str, str],
    *,
    method: str = "GET",
    connections: Connections | None = None,
) -> Any:  # noqa: ANN401
    plain, url = without_credentials(url), revealed(url)
    scheme = urlsplit(plain).scheme
    if scheme not in {"http", "https", "file"}:
        raise SourceError("url-scheme", f"{plain}: only http, https and file can be fetched")
    if sources.offline and scheme != "file":
        raise SourceError(
            "offline-missing",
            f"{plain} isn't at hand, and --offline forbids to fetch it",
            run=(f"spark-build fetch {sources.recipe}",),
        )
    told = {"User-Agent": "spark-build", **headers}
    request = urllib.request.Request(without_login(url), headers=told, method=method)  # noqa: S310  # checked above
    if authorization := login.of(url, sources):
        request.add_header("Authorization", authorization)
    try:
        if connections is not None:
            return connections.open(request, timeout=_TIMEOUT_S)
        # Proxies and certificates are those of the process's environment.
        return urllib.request.build_opener(login.Redirects).open(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code < 500 and error.code not in _LATER:  # noqa: PLR2004  # a server's own trouble is tried again
            raise _refusal(plain, error, sources) from error
        raise
    except urllib.error.URLError as error:
        if scheme == "file":
            raise SourceError("not-found", f"{plain}: no such file", run=(f"ls -l {urlsplit(plain).path}",)) from error
        raise


def _refusal(plain: str, error: urllib.error.HTTPError, sources: Sources) -> SourceError:
    summary, host = f"{plain}: {error.code} {error.reason}", urlsplit(plain).hostname
    if error.code in {401, 403, 407}:
        return SourceError(
            "access-denied",
            summary,
            help=f"put a login for {host} into ~/.netrc, or into the URL in [index] or [mirrors] of the configuration",
            run=(f"spark-build fetch {sources.recipe}",),
        )
    return SourceError("not-found", summary, run=(f"curl -I {plain}",))
