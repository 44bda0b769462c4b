"""Fetching one file: resumed where it stopped, hashed while it lies beside, in place only when it is right."""

from __future__ import annotations

import contextlib
import http.client
import ssl
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from builder.digest import sha256_file
from builder.errors import SourceError
from builder.events import Fetching
from builder.source import login, partial
from builder.source.place import locked, revealed, without_credentials, without_login
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from builder.source.place import Sources

__all__ = ["Got", "fetch_file", "get", "length"]

T = TypeVar("T")

_CHUNK = 1 << 18
_TIMEOUT_S = 30
_TRIES = 3
_UNSATISFIABLE = 416  # the range that was asked for isn't there
_LATER = frozenset((408, 425, 429, _UNSATISFIABLE))  # a client's error that another try may not meet


@dataclass(frozen=True, slots=True, kw_only=True)
class Got:
    """A file that is in place: its digest, and how many bytes came over the network for it."""

    sha256: str
    received: int


class _Short(Exception):  # told as unreachable
    """What came isn't what is wanted, and another try may bring it."""


_AGAIN = (urllib.error.URLError, TimeoutError, ConnectionError, ssl.SSLError, http.client.HTTPException, _Short)


def get(url: str, sources: Sources, *, headers: Mapping[str, str]) -> tuple[bytes, str, str]:
    """Return body, content type and final URL; a folder of a ``file:`` URL means its ``index.html``.

    Raises SourceError ``not-found``, ``access-denied`` or ``unreachable``.
    """
    if url.startswith("file:") and url.endswith("/"):
        url += "index.html"

    def read() -> tuple[bytes, str, str]:
        with _opened(url, sources, headers) as answer:
            return answer.read(), answer.headers.get("Content-Type", ""), answer.url

    return _tried(read, url, sources)


def _tried(action: Callable[[], T], url: str, sources: Sources) -> T:
    """Return what `action` does at its first, second or third attempt."""
    last: Exception | None = None
    for attempt in range(_TRIES):
        time.sleep(0.5 * attempt)
        try:
            return action()
        except _AGAIN as error:
            last = error
    cause = getattr(last, "reason", None) or last
    if isinstance(last, urllib.error.HTTPError):
        cause = f"{last.code} {last.reason}"
    raise SourceError(
        "unreachable",
        f"{without_credentials(url)} can't be reached",
        cause=str(cause),
        help="with what is at hand: --offline; through another host: [mirrors] in the configuration",
        run=(f"spark-build fetch {sources.recipe}",),
    ) from last


@contextlib.contextmanager
def fetch_file(url: str, dest: Path, sources: Sources, *, sha256: str | None) -> Iterator[Got]:
    """Bring `url` to `dest`; while the block runs no other process does so.

    An earlier ``.part`` goes on by Range where something can tell whether both halves belong together: `sha256`, else what
    the server said of the first (an ``ETag`` or ``Last-Modified``, beside it). One that another process brought meanwhile is
    taken. Raises SourceError ``hash-mismatch`` (nothing is kept then), ``not-found``,
    ``access-denied``, ``unreachable``, ``offline-missing``. On a full disk what came is kept, and goes on.
    """
    with locked(sources.root / "locks" / f"{dest.parent.name}.lock", sources, what=dest.name):
        dest.parent.mkdir(parents=True, exist_ok=True)
        if dest.exists() and (found := sha256_file(dest)) == sha256:
            yield Got(sha256=found, received=0)
            return
        part = dest.with_name(dest.name + ".part")
        resumed = part.exists()
        received = _tried(lambda: _transfer(url, part, sources, known=sha256 is not None), url, sources)
        digest = sha256_file(part)
        if sha256 is not None and digest != sha256 and resumed:
            # What lay here was of another file.
            part.unlink()
            received += _tried(lambda: _transfer(url, part, sources, known=True), url, sources)
            digest = sha256_file(part)
        partial.mark(part).unlink(missing_ok=True)
        if sha256 is not None and digest != sha256:
            part.unlink()
            raise SourceError(
                "hash-mismatch",
                f"{without_credentials(url)} isn't what was pinned",
                cause=f"sha256 {digest}, wanted {sha256}",
                help="the file upstream or on the mirror changed, or the way there damages it; nothing was kept",
                run=(f"spark-build fetch {sources.recipe}", f"spark-build recipes show {sources.recipe} --origin"),
            )
        part.replace(dest)
        yield Got(sha256=digest, received=received)


def length(url: str, sources: Sources) -> int | None:
    """Return how many bytes a download of `url` has, as the server says; None where it doesn't or can't be asked."""
    try:
        with _opened(url, sources, {}, method="HEAD") as answer:
            told = answer.headers.get("Content-Length")
            return int(told) if told else None
    except (SourceError, OSError, http.client.HTTPException, ValueError):
        return None


def _transfer(url: str, part: Path, sources: Sources, *, known: bool) -> int:
    """Add to `part` what it lacks, and return how much that was; `known` says that its digest shows a wrong half."""
    have = part.stat().st_size if part.exists() else 0
    condition = partial.condition(part)
    have = have if known or condition else 0
    headers = {"Range": f"bytes={have}-", **condition} if have else {}
    try:
        opened = _opened(url, sources, headers)
    except urllib.error.HTTPError as error:
        if error.code == _UNSATISFIABLE:  # what lies here is of another file, or all of it
            part.unlink()
        raise
    with opened as answer:
        resumed = getattr(answer, "status", 200) == 206  # noqa: PLR2004  # partial content
        if resumed and not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            part.unlink()
            msg = "the server doesn't go on where an earlier transfer stopped"
            raise _Short(msg)
        if not resumed:
            partial.keep_mark(part, answer.headers)
        start = have if resumed else 0
        length = answer.headers.get("Content-Length")
        total = int(length) + start if length else None
        done, told = start, time.monotonic()
        with part.open("ab" if resumed else "wb") as target:
            while chunk := answer.read(_CHUNK):
                target.write(chunk)
                done += len(chunk)
                if time.monotonic() - told > 0.25:  # noqa: PLR2004  # four a second
                    told = time.monotonic()
                    sources.sink.emit(Fetching(name=part.name.removesuffix(".part"), done=done, total=total))
        if total is not None and done < total:
            msg = f"the connection ended after {done} of {total} bytes"
            raise _Short(msg)
        return done - start


def _opened(  # http or file
    url: str, sources: Sources, headers: Mapping[str, str], *, method: str = "GET"
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
