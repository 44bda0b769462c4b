"""Fetching one file: resumed where it stopped, hashed while it lies beside, in place only when it is right."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import ssl
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from builder.digest import sha256_file
from builder.errors import HostError, SourceError
from builder.events import Fetching, Waiting
from builder.proc import scrubbed
from builder.source.login import of, redirecting
from builder.source.place import without_credentials
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from builder.source.place import Sources

__all__ = ["Got", "fetch_file", "get"]

_CHUNK = 1 << 18
_TIMEOUT_S = 30
_TRIES = 3
_LATER = frozenset((408, 425, 429))  # a client's error that another try may not meet


@dataclass(frozen=True, slots=True, kw_only=True)
class Got:
    """A file that is in place: its digest, and how many bytes came over the network for it."""

    sha256: str
    received: int


class _Short(Exception):  # told as unreachable
    """The connection ended before all bytes were there."""


class _Refused(Exception):  # the transfer begins anew
    """The server can't go on where an earlier transfer stopped."""


_AGAIN = (urllib.error.URLError, TimeoutError, ConnectionError, ssl.SSLError, http.client.HTTPException, _Short)


def get(url: str, sources: Sources, *, headers: Mapping[str, str]) -> tuple[bytes, str, str]:
    """Return body, content type and final URL; a folder of a ``file:`` URL means its ``index.html``.

    Raises SourceError ``not-found``, ``access-denied`` or ``unreachable``.
    """
    if url.startswith("file:") and url.endswith("/"):
        url += "index.html"
    for attempt in range(_TRIES):
        try:
            with _opened(url, sources, headers) as answer:
                return answer.read(), answer.headers.get("Content-Type", ""), answer.url
        except _AGAIN as error:
            if attempt == _TRIES - 1:
                raise _unreachable(url, error, sources) from error
            time.sleep(0.5 * 2**attempt)
    raise AssertionError  # pragma: no cover  # the loop returns or raises


@contextlib.contextmanager
def fetch_file(url: str, dest: Path, sources: Sources, *, sha256: str | None) -> Iterator[Got]:
    """Bring `url` to `dest`; while the block runs no other process does so.

    An earlier ``.part`` goes on by Range where `sha256` can tell whether both halves belong together. One that another
    process brought meanwhile is taken. Raises SourceError ``hash-mismatch`` (nothing is kept then), ``not-found``,
    ``access-denied``, ``unreachable``, ``offline-missing``; HostError ``disk-full`` (what came is kept, and goes on).
    """
    with _alone(dest, sources):
        dest.parent.mkdir(parents=True, exist_ok=True)
        if dest.exists() and (found := sha256_file(dest)) == sha256:
            yield Got(sha256=found, received=0)
            return
        part = dest.with_name(dest.name + ".part")
        if sha256 is None:
            part.unlink(missing_ok=True)
        resumed = part.exists()
        received = _transferred(url, part, sources)
        digest = sha256_file(part)
        if sha256 is not None and digest != sha256 and resumed:
            # What lay here was of another file.
            part.unlink()
            received += _transferred(url, part, sources)
            digest = sha256_file(part)
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


@contextlib.contextmanager
def _alone(dest: Path, sources: Sources) -> Iterator[None]:
    locks = sources.root / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with (locks / f"{dest.parent.name}.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sources.sink.emit(Waiting(what=dest.name, holder="another fetch"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _transferred(url: str, part: Path, sources: Sources) -> int:
    received = 0
    for attempt in range(_TRIES):
        try:
            return received + _transfer(url, part, sources)
        except _Refused:
            part.unlink()
        except _AGAIN as error:
            if attempt == _TRIES - 1:
                raise _unreachable(url, error, sources) from error
            time.sleep(0.5 * 2**attempt)
    return received + _transfer(url, part, sources)


def _transfer(url: str, part: Path, sources: Sources) -> int:
    have = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    with _opened(url, sources, headers) as answer:
        resumed = getattr(answer, "status", 200) == 206  # noqa: PLR2004  # partial content
        if resumed and not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            raise _Refused
        start = have if resumed else 0
        length = answer.headers.get("Content-Length")
        total = int(length) + start if length else None
        try:
            done = _copied(answer, part, "ab" if resumed else "wb", start, total, url, sources)
        except OSError as error:
            if error.errno == 28:  # noqa: PLR2004  # ENOSPC
                summary = f"no space left for {part.name.removesuffix('.part')}"
                raise HostError("disk-full", summary, cause=str(part.parent), run=("spark-build gc",)) from error
            raise
        if total is not None and done < total:
            msg = f"the connection ended after {done} of {total} bytes"
            raise _Short(msg)
        return done - start


def _copied(answer: Any, part: Path, mode: str, start: int, total: int | None, url: str, sources: Sources) -> int:  # noqa: ANN401  # an http or file answer
    done, told, name = start, time.monotonic(), urlsplit(url).path.rsplit("/", 1)[-1]
    with part.open(mode) as target:
        while chunk := answer.read(_CHUNK):
            target.write(chunk)
            done += len(chunk)
            if time.monotonic() - told > 0.25:  # noqa: PLR2004  # four a second
                told = time.monotonic()
                sources.sink.emit(Fetching(name=name, done=done, total=total))
    return done


def _opened(url: str, sources: Sources, headers: Mapping[str, str]) -> Any:  # noqa: ANN401  # http or file
    plain = without_credentials(url)
    scheme = urlsplit(plain).scheme
    if scheme not in {"http", "https", "file"}:
        raise SourceError("url-scheme", f"{plain}: only http, https and file can be fetched")
    if sources.offline and scheme != "file":
        raise SourceError(
            "offline-missing",
            f"{plain} isn't at hand, and --offline forbids to fetch it",
            run=(f"spark-build fetch {sources.recipe}",),
        )
    handlers: list[urllib.request.BaseHandler] = [
        urllib.request.ProxyHandler(_proxies(plain, sources.env)),
        redirecting(),
    ]
    if scheme == "https":
        context = ssl.create_default_context(
            cafile=sources.env.get("SSL_CERT_FILE"), capath=sources.env.get("SSL_CERT_DIR")
        )
        handlers.append(urllib.request.HTTPSHandler(context=context))
    request = urllib.request.Request(plain, headers={"User-Agent": "spark-build", **headers})  # noqa: S310  # checked above
    if login := of(url, sources):
        request.add_header("Authorization", login)
    try:
        return urllib.request.build_opener(*handlers).open(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # noqa: PLR2004  # range not satisfiable
            raise _Refused from error
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


def _proxies(url: str, env: Mapping[str, str]) -> dict[str, str]:
    host = urlsplit(url).hostname or ""
    bypass = [name.strip().lstrip(".") for name in (env.get("no_proxy") or env.get("NO_PROXY") or "").split(",")]
    if any(name and (name in {"*", host} or host.endswith("." + name)) for name in bypass):
        return {}
    every = env.get("all_proxy") or env.get("ALL_PROXY")
    found = {
        scheme: env.get(f"{scheme}_proxy") or env.get(f"{scheme.upper()}_PROXY") or every
        for scheme in ("http", "https")
    }
    return {scheme: value for scheme, value in found.items() if value}


def _unreachable(url: str, error: Exception, sources: Sources) -> SourceError:
    cause = getattr(error, "reason", None) or error
    if isinstance(error, urllib.error.HTTPError):
        cause = f"{error.code} {error.reason}"
    return SourceError(
        "unreachable",
        f"{without_credentials(url)} can't be reached",
        cause=scrubbed(str(cause)),
        help="with what is at hand: --offline; through another host: [mirrors] in the configuration",
        run=(f"spark-build fetch {sources.recipe}",),
    )
