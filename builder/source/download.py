"""Fetching one file: resumed where it stopped, hashed while it comes, in place only when it is right."""

from __future__ import annotations

import hashlib
import ssl
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

from builder.errors import HostError, SourceError
from builder.events import Fetching
from builder.source.place import without_credentials

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from builder.source.place import Sources

__all__ = ["fetch_file", "get"]

_CHUNK = 1 << 18
_TIMEOUT_S = 30
_TRIES = 3


def get(url: str, sources: Sources, *, headers: Mapping[str, str], command: str) -> tuple[bytes, str, str]:
    """Return body, content type and final URL; raise SourceError ``not-found`` or ``unreachable``."""
    for attempt in range(_TRIES):
        try:
            with _opened(url, sources, headers, command) as answer:
                return answer.read(), answer.headers.get("Content-Type", ""), answer.url
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            if attempt == _TRIES - 1:
                raise _unreachable(url, error, command) from error
            time.sleep(0.5 * 2**attempt)
    raise AssertionError  # pragma: no cover  # the loop returns or raises


def fetch_file(url: str, dest: Path, sources: Sources, *, sha256: str | None, command: str) -> tuple[str, int]:
    """Bring `url` to `dest` and return its sha256 and the number of bytes that came over the network.

    An earlier ``.part`` goes on by Range. Raises SourceError ``hash-mismatch`` (nothing is kept then), ``not-found``,
    ``unreachable``, ``download-short``; HostError ``disk-full``.
    """
    part = dest.with_name(dest.name + ".part")
    dest.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(_TRIES):
        try:
            received = _transfer(url, part, sources, command)
            break
        except (urllib.error.URLError, TimeoutError, ConnectionError, _Short) as error:
            if attempt == _TRIES - 1:
                raise _unreachable(url, error, command) from error
            time.sleep(0.5 * 2**attempt)
    else:  # pragma: no cover  # the loop ends by break or raise
        raise AssertionError
    digest = _sha256(part)
    if sha256 is not None and digest != sha256:
        part.unlink()
        raise SourceError(
            "hash-mismatch",
            f"{without_credentials(url)} isn't what was pinned",
            cause=f"sha256 {digest}, wanted {sha256}",
            help="the file upstream or on the mirror changed, or the way there damages it; nothing was kept",
            run=(command,),
        )
    part.replace(dest)
    return digest, received


class _Short(Exception):  # told as unreachable
    """The connection ended before all bytes were there."""


def _transfer(url: str, part: Path, sources: Sources, command: str) -> int:
    have = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    try:
        answer = _opened(url, sources, headers, command)
    except SourceError as error:
        if have and error.code == "range-refused":
            part.unlink()
            return _transfer(url, part, sources, command)
        raise
    with answer:
        resumed = getattr(answer, "status", 200) == 206  # noqa: PLR2004  # partial content
        length = answer.headers.get("Content-Length")
        total = int(length) + (have if resumed else 0) if length else None
        done, told = (have if resumed else 0), 0.0
        start = done
        try:
            with part.open("ab" if resumed else "wb") as target:
                while chunk := answer.read(_CHUNK):
                    target.write(chunk)
                    done += len(chunk)
                    if time.monotonic() - told > 0.25:  # noqa: PLR2004  # four a second
                        told = time.monotonic()
                        sources.sink.emit(Fetching(name=url.rsplit("/", 1)[-1], done=done, total=total))
        except OSError as error:
            if error.errno == 28:  # noqa: PLR2004  # ENOSPC
                summary = f"no space left for {url.rsplit('/', 1)[-1]}"
                raise HostError("disk-full", summary, cause=str(part.parent), run=("spark-build gc",)) from error
            raise
        if total is not None and done < total:
            msg = f"{done} of {total} bytes"
            raise _Short(msg)
        return done - start


def _opened(url: str, sources: Sources, headers: Mapping[str, str], command: str) -> Any:  # noqa: ANN401  # http or file
    if sources.offline and not url.startswith("file:"):
        raise SourceError(
            "offline-missing",
            f"{without_credentials(url)} isn't at hand, and --offline forbids to fetch it",
            run=(command,),
        )
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler(_proxies(sources.env))]
    if url.startswith("https:"):
        context = ssl.create_default_context(
            cafile=sources.env.get("SSL_CERT_FILE"), capath=sources.env.get("SSL_CERT_DIR")
        )
        handlers.append(urllib.request.HTTPSHandler(context=context))
    if "@" in url.partition("://")[2].partition("/")[0]:
        url, headers = _with_auth(url, headers)
    request = urllib.request.Request(url, headers={"User-Agent": "spark-build", **headers})  # noqa: S310  # see below
    if request.type not in {"http", "https", "file"}:
        raise SourceError("url-scheme", f"{url}: only http, https and file can be fetched")
    try:
        return urllib.request.build_opener(*handlers).open(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # noqa: PLR2004  # range not satisfiable
            raise SourceError("range-refused", "the server refuses to go on where this stopped") from error
        if error.code < 500:  # noqa: PLR2004  # ours; a server's own trouble is tried again
            raise SourceError(
                "not-found", f"{without_credentials(url)}: {error.code} {error.reason}", run=(command,)
            ) from error
        raise
    except urllib.error.URLError as error:
        if isinstance(error.reason, FileNotFoundError) or "No such file" in str(error.reason):
            raise SourceError("not-found", f"{without_credentials(url)}: no such file") from error
        raise


def _with_auth(url: str, headers: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    import base64  # noqa: PLC0415
    from urllib.parse import unquote  # noqa: PLC0415

    user = url.partition("://")[2].partition("/")[0].rpartition("@")[0]
    token = base64.b64encode(unquote(user).encode()).decode()
    return without_credentials(url), {**headers, "Authorization": f"Basic {token}"}


def _proxies(env: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for scheme in ("http", "https"):
        value = env.get(f"{scheme}_proxy") or env.get(f"{scheme.upper()}_PROXY") or env.get("ALL_PROXY")
        if value:
            found[scheme] = value
    return found


def _unreachable(url: str, error: Exception, command: str) -> SourceError:
    reason = getattr(error, "reason", None) or error
    return SourceError(
        "unreachable",
        f"{without_credentials(url)} can't be reached",
        cause=str(reason),
        help="with what is at hand: --offline; through another host: [mirrors] in the configuration",
        run=(command,),
    )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
