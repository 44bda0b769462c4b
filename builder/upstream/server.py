"""One server: where it is, who we are to it, how it is asked. Nothing of a login is ever kept, shown or sent elsewhere."""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import math
import ssl
import time
import urllib.error
import urllib.request
from typing import IO, TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, unquote, urlsplit

from builder.errors import CheckRefused, HostError, SourceError, UsageError, scrubbed
from builder.transfer import Again, words
from builder.upstream import login

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from builder.errors import SparkError

__all__ = ["FIRST", "Answer", "Server", "of", "on_disk", "persistently", "unfit"]

T = TypeVar("T")

#: Seconds that one step of a connection may take: finding the host, connecting, TLS, the next bytes.
TIMEOUT_S = 20.0

#: How often something is tried in a row before a server counts as unreachable: a restart takes some seconds.
TRIES = 8
#: The same before anything was sent or fetched: a wrong URL shall be told at once.
FIRST = 3

#: Bytes that a try has to bring for the next one to be the first again.
_PROGRESS = 1 << 16

#: Bytes of a document: a channel of twenty thousand wheels has half of that. And of what an error says.
_DOCUMENT, _SAID = 32 << 20, 64 << 10

#: Seconds that a document may take in all, however slowly it drips.
_DOCUMENT_S = 60.0

_CHUNK = 1 << 18
_JSON = "application/json"

#: What an answer of ours with that status is an error of; `code` tells more.
_REFUSED: dict[int, type[SparkError]] = {400: UsageError, 409: UsageError, 422: CheckRefused}


class _SameOrigin(urllib.request.HTTPRedirectHandler):
    """Follows redirects on one server; to any other the way is closed: it would get our login, and be trusted like it."""

    def redirect_request(  # urllib's method
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if _origin(newurl) != _origin(req.full_url):
            raise SourceError(
                "upstream-elsewhere",
                f"{'://'.join(urlsplit(req.full_url)[:2])} sends us to another server",
                cause=f"to {scrubbed(newurl)}, which isn't followed: it would be trusted like this one",
                help="name the server itself",
                run=(f"curl -i {scrubbed(req.full_url)}",),
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class Answer:
    """An answer whose body wasn't read yet."""

    def __init__(self, raw: Any) -> None:  # noqa: ANN401  # urllib says no type
        self._raw = raw
        self.status: int = raw.status
        self.headers: Mapping[str, str] = raw.headers

    def readinto(self, buffer: memoryview, /) -> int:
        """Put into `buffer` what came, and return how much that is, 0 at the end; a body that drips comes in drips."""
        data = self._raw.read1(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def chunks(self, *, within_s: float) -> Iterator[bytes]:
        """Yield the body as it comes in; raise TimeoutError when it takes longer than `within_s` seconds in all."""
        end = time.monotonic() + within_s
        while chunk := self._raw.read1(_CHUNK):
            yield chunk
            if time.monotonic() > end:
                msg = f"it takes longer than {within_s:.0f} s"
                raise TimeoutError(msg)


class Server:
    """`url` is what may be shown: without a login, without a slash at its end.

    A step of a connection may take `timeout_s` seconds; what fails is tried `tries` times, and not again when that
    went on for `within_s` seconds; what brought something begins both anew.
    """

    def __init__(
        self,
        url: str,
        *,
        authorization: str | None = None,
        timeout_s: float = TIMEOUT_S,
        tries: int = TRIES,
        within_s: float = math.inf,
    ) -> None:
        self.url = url
        self.timeout_s = timeout_s
        self.tries = tries
        self.within_s = within_s
        self._authorization = authorization
        self._opener = urllib.request.build_opener(_SameOrigin)

    def but(self, *, timeout_s: float | None = None, tries: int | None = None, within_s: float = math.inf) -> Server:
        """Return the same server, with whom more or less patience is had."""
        return Server(
            self.url,
            authorization=self._authorization,
            timeout_s=timeout_s or self.timeout_s,
            tries=tries or self.tries,
            within_s=within_s,
        )

    @contextlib.contextmanager
    def asked(
        self,
        path: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: Any = None,  # noqa: ANN401  # bytes, or an iterable of bytes with a Content-Length
    ) -> Iterator[Answer]:
        """Give the answer to one request; `path` has no slash in front and is made of quoted segments.

        Raises SourceError ``upstream-denied``, ``upstream-missing`` or ``upstream-refused``; UsageError or CheckRefused with
        the server's own code where it says that what was sent can't be taken. What may go better another time is raised as
        it comes: OSError (URLError, TimeoutError, ssl.SSLError, ...) or http.client.HTTPException.
        """
        told = {"User-Agent": "spark-build", "Accept": _JSON, **(headers or {})}
        request = urllib.request.Request(f"{self.url}/{path}", data=body, headers=told, method=method)  # noqa: S310  # http or https, see `of`
        if self._authorization:
            request.add_header("Authorization", self._authorization)
        try:
            # Proxies and certificates are those of the process's environment.
            opened = self._opener.open(request, timeout=self.timeout_s)
        except urllib.error.HTTPError as error:
            with error:
                if error.code >= 500 and error.code not in {501, 507}:  # noqa: PLR2004  # its own trouble: tried again
                    raise
                raise self._refusal(error) from error
        except urllib.error.URLError as error:
            if not isinstance(error.reason, ssl.SSLCertVerificationError):
                raise
            raise SourceError(
                "upstream-untrusted",
                f"{self.url} isn't known to be who it says it is",
                cause=f"its certificate doesn't hold: {error.reason.verify_message}",
                help="SSL_CERT_FILE names a file of authorities, where the site has one of its own",
            ) from error
        with opened:
            yield Answer(opened)

    def document(self, path: str, **how: Any) -> dict[str, Any]:  # noqa: ANN401  # as `asked`
        """Return the JSON object that the server answers; raise as `asked` does, and `unfit` for what is none."""
        with self.asked(path, **how) as answer:
            kind = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
            if kind != _JSON:
                raise unfit(self, f"it answers {kind or 'nothing'} where JSON is wanted: is it a spark-build server?")
            data = bytearray()
            for chunk in answer.chunks(within_s=_DOCUMENT_S):
                data += chunk
                if len(data) > _DOCUMENT:
                    raise unfit(self, f"its answer has more than {_DOCUMENT >> 20} MiB")
        try:
            found = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise unfit(self, f"its answer is no JSON: {error}") from error
        if not isinstance(found, dict):
            raise unfit(self, "its answer is no object")
        return found

    def _refusal(self, error: urllib.error.HTTPError) -> SparkError:
        code, said, help_ = _said(error)
        if error.code in {401, 403, 407}:
            what = "who we are isn't known there" if error.code == 401 else "that isn't allowed to us there"  # noqa: PLR2004
            return SourceError(
                "upstream-denied",
                f"{self.url}: {error.code}, {what}",
                cause=said,
                help="give a token with the scope that it takes: in SPARK_BUILD_TOKEN, or in the file that"
                " wheelhouse.upstream-token-file of the configuration names; the server's owner makes one",
                run=("spark-build index token new NAME --scope read", "export SPARK_BUILD_TOKEN=TOKEN"),
            )
        if code and error.code in _REFUSED:
            return _REFUSED[error.code](code, f"{self.url}: {said}", help=help_)
        summary = f"{self.url}: {error.code} {error.reason}"
        if error.code == 404:  # noqa: PLR2004
            return SourceError("upstream-missing", summary, cause=said, help=help_)
        return SourceError((code and f"upstream-{code}") or "upstream-refused", summary, cause=said, help=help_)


def _said(error: urllib.error.HTTPError) -> tuple[str, str, str]:
    """Return code, text and help of an answer of ours (RFC 9457); of another's the first line of its text."""
    try:
        data = error.read(_SAID)
    except (OSError, http.client.HTTPException):
        data = b""
    kind = str(error.headers.get("Content-Type", "")).partition(";")[0].strip().lower()
    if kind in {"application/problem+json", _JSON}:
        with contextlib.suppress(ValueError, RecursionError):
            found = json.loads(data)
            if isinstance(found, dict):
                code, detail, more = (found.get(name) for name in ("code", "detail", "help"))
                return str(code or ""), str(detail or ""), str(more or "")
    text = data.decode(errors="replace").strip() if kind == "text/plain" else ""
    return "", text.partition("\n")[0][:200], ""


def unfit(server: Server, cause: str) -> SourceError:
    """Return the error for a server that answers what none of ours does."""
    return SourceError(
        "upstream-unfit",
        f"{server.url} doesn't answer as a spark-build server does",
        cause=cause,
        help="the URL is that of `spark-build index serve`, without /simple/ at its end",
        run=(f"curl -i {server.url}/api/channels",),
    )


def persistently(server: Server, action: Callable[[], T], *, done: Callable[[], int] = lambda: 0) -> T:
    """Return what `action` does, tried again while the way there fails; a try that brought something counts as the first.

    `done` says how many bytes are there. Raises SourceError ``upstream-unreachable``, and what `action` raises otherwise.
    """
    tries, before, begun = 0, done(), time.monotonic()
    while True:
        try:
            return action()
        except (OSError, http.client.HTTPException, Again) as error:
            now = done()
            if now - before >= _PROGRESS:
                tries, begun = 0, time.monotonic()
            tries, before = tries + 1, now
            if tries >= server.tries or time.monotonic() - begun >= server.within_s:
                raise SourceError(
                    "upstream-unreachable",
                    f"{server.url} can't be reached",
                    cause=words(error),
                    help="the same command goes on where it stopped, once the server answers",
                    run=(f"curl -i {server.url}/health",),
                ) from error
        time.sleep(min(0.5 * tries, 4.0))


@contextlib.contextmanager
def on_disk(folder: Path) -> Iterator[None]:
    """Tell what our own disk refuses from what fails on the way: HostError ``disk-full`` or ``unwritable``."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise HostError(
                "disk-full",
                f"no space left in {folder}",
                cause=str(error.strerror),
                help="free space, then run the same command again: it goes on where it stopped",
                run=("spark-build gc",),
            ) from error
        raise HostError(
            "unwritable", f"{error.filename or folder} can't be used", cause=str(error), run=(f"ls -ld {folder}",)
        ) from error


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def of(url: str, *, env: Mapping[str, str], token_file: Path | None = None, timeout_s: float = TIMEOUT_S) -> Server:
    """Return the server at `url`, which may have a path and a login.

    Who we are says the login in the URL, else the token in ``SPARK_BUILD_TOKEN``, else that in `token_file`, else
    ``~/.netrc``. Raises UsageError ``upstream-url`` or ``upstream-token``.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError("upstream-url", f"{scrubbed(url)} is no URL", cause=str(error)) from error
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise UsageError(
            "upstream-url",
            f"{scrubbed(url)} is no URL of a server",
            help="wanted http:// or https://, a host, and nothing behind the path",
            run=("spark-build wheels push --help",),
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    plain = f"{parts.scheme}://{host}{f':{port}' if port else ''}{quote(unquote(parts.path), safe='/~')}".rstrip("/")
    authorization = login.of(parts, env=env, token_file=token_file)
    return Server(plain, authorization=authorization, timeout_s=timeout_s)
