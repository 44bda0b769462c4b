"""Files by digest: several at a time, each hashed while it comes, resumed where it stopped, kept only when it is right.

They lie in the sources' cache, ``files/<sha256>/<name>`` as archives do. What is there isn't fetched again, whoever brought
it: a second bundle fetches what the first one lacks. A file that stopped halfway lies in ``files/.incoming/<sha256>/`` with
what the server said of it, and goes on by Range and If-Range (RFC 9110, 13.1.5, 14); the digest of what is there is made
anew then. A kill takes nothing of what is finished.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import hashlib
import http.client
import os
import ssl
import threading
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from builder.bundle import JOBS
from builder.digest import sha256_file
from builder.errors import SourceError, scrubbed
from builder.source import login, partial
from builder.source.place import locked, refusals, revealed, without_login
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from hashlib import _Hash
    from pathlib import Path

    from builder.bundle.resolve import Piece
    from builder.source import Sources

__all__ = ["Progress", "bring", "held", "place_of"]

#: What a kill may lose of a connection; larger ones gain nothing.
_CHUNK = 1 << 18
_TIMEOUT_S = 30
#: Attempts in a row that brought nothing; a connection that breaks now and then is none of them.
_TRIES = 4
_UNSATISFIABLE = 416
_LATER = frozenset((408, 425, 429, _UNSATISFIABLE))
_LONGEST_WAIT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far it is: files that are right, bytes that are here, bytes that came over the network, since `seconds`."""

    files: int
    of_files: int
    here: int
    of_bytes: int
    received: int
    seconds: float


class _Again(Exception):
    """What came isn't what is wanted, and another try may bring it."""


class _Stopped(Exception):
    """Somebody else failed or the user stopped it; what came so far is kept."""


_TRANSIENT = (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException, _Again)


def place_of(piece: Piece, sources: Sources) -> Path:
    """Return where the file lies, or would."""
    return sources.root / "files" / piece.sha256 / piece.filename


def held(piece: Piece, sources: Sources) -> bool:
    """Whether the file is there in full size; its bytes are looked at when it is used."""
    with contextlib.suppress(OSError):
        found = place_of(piece, sources).stat()
        return piece.size in (None, found.st_size)
    return False


def bring(
    pieces: Sequence[Piece],
    sources: Sources,
    *,
    jobs: int = JOBS,
    tell: Callable[[Progress], None] = lambda _progress: None,
) -> Progress:
    """Leave all files at their places, each with the bytes that its digest names; return what that took.

    Raises SourceError ``files-missing`` with every file that can't be had, after all others came; HostError ``disk-full`` or
    ``unwritable``. After an error or a kill the same call goes on where it stopped.
    """
    tally = _Tally(pieces, tell)
    failed: dict[str, SourceError] = {}
    pool = concurrent.futures.ThreadPoolExecutor(jobs, thread_name_prefix="bring")
    with refusals():
        # The largest first: else the last connection is alone with it at the end.
        order = sorted(pieces, key=lambda piece: -(piece.size or 0))
        waiting = {pool.submit(_one, piece, sources, tally): piece for piece in order}
        try:
            for done in concurrent.futures.as_completed(waiting):
                try:
                    done.result()
                except SourceError as error:
                    failed[waiting[done].sha256] = error
        except BaseException:
            tally.stop.set()
            pool.shutdown(wait=False, cancel_futures=True)  # who waits for a server ends with the process
            raise
    pool.shutdown()
    if failed:
        raise _missing(failed, len(pieces))
    return tally.progress()


class _Tally:
    """Counts for all threads; tells four times a second."""

    def __init__(self, pieces: Iterable[Piece], tell: Callable[[Progress], None]) -> None:
        every = list(pieces)
        self.stop = threading.Event()
        self._lock = threading.Lock()
        self._tell, self._began, self._next = tell, time.monotonic(), 0.0
        self._files = self._here = self._received = 0
        self._of_files, self._of_bytes = len(every), sum(piece.size or 0 for piece in every)

    def add(self, *, here: int, received: int = 0, files: int = 0) -> None:
        """Count; raise `_Stopped` where all is to end."""
        with self._lock:
            self._here += here
            self._received += received
            self._files += files
            now = time.monotonic()
            if now >= self._next or self._files == self._of_files:
                self._next = now + 0.25
                self._tell(self.progress())
        if self.stop.is_set():
            raise _Stopped

    def progress(self) -> Progress:
        """Return what was counted so far."""
        return Progress(
            files=self._files,
            of_files=self._of_files,
            here=self._here,
            of_bytes=self._of_bytes,
            received=self._received,
            seconds=time.monotonic() - self._began,
        )


def _one(piece: Piece, sources: Sources, tally: _Tally) -> None:
    """Leave one file at its place."""
    target = place_of(piece, sources)
    with locked(sources.root / "locks" / f"{piece.sha256}.lock", sources, what=piece.filename):
        if _whole(target, piece, tally):
            return
        part = sources.root / "files" / ".incoming" / piece.sha256 / f"{piece.filename}.part"
        part.parent.mkdir(parents=True, exist_ok=True)
        _fetch(piece, part, sources, tally)
        target.parent.mkdir(parents=True, exist_ok=True)
        part.replace(target)
        partial.mark(part).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            part.parent.rmdir()
        tally.add(here=0, files=1)


def _whole(target: Path, piece: Piece, tally: _Tally) -> bool:
    """Whether the file lies there with the right bytes; one with others is taken away."""
    try:
        if sha256_file(target) == piece.sha256:
            with contextlib.suppress(OSError):
                os.utime(target)  # last used, for gc
            tally.add(here=target.stat().st_size, files=1)
            return True
        target.unlink()
    except FileNotFoundError:
        pass
    return False


def _fetch(piece: Piece, part: Path, sources: Sources, tally: _Tally) -> None:
    """Leave all of the file in `part`, with the right digest."""
    idle, fresh = 0, False
    while True:
        before = _size(part)
        try:
            digest = _transfer(piece, part, sources, tally)
        except _TRANSIENT as error:
            idle = 0 if _size(part) > before else idle + 1
            if idle >= _TRIES:
                raise _unreachable(piece, error) from error
            _wait(error, idle, tally)
            continue
        if digest == piece.sha256:
            return
        # Of what lay here before this call, nobody knows whether it belonged to it; what comes in one go does.
        tally.add(here=-_size(part))
        part.unlink()
        partial.mark(part).unlink(missing_ok=True)
        if fresh:
            raise SourceError(
                "hash-mismatch",
                f"{scrubbed(piece.url)} isn't what the index says",
                cause=f"sha256 {digest}, wanted {piece.sha256}",
                help="the file on the index or on the mirror changed, or the way there damages it; nothing was kept",
            )
        fresh = True


def _size(part: Path) -> int:
    try:
        return part.stat().st_size
    except FileNotFoundError:
        return 0


def _wait(error: Exception, idle: int, tally: _Tally) -> None:
    told = getattr(error, "headers", None)
    asked = told.get("Retry-After", "") if told is not None else ""
    seconds = min(float(asked), _LONGEST_WAIT_S) if asked.isdecimal() else 0.25 * 2**idle
    if tally.stop.wait(seconds):
        raise _Stopped


def _transfer(piece: Piece, part: Path, sources: Sources, tally: _Tally) -> str:
    """Add to `part` what it lacks; return the digest of all of it. Raises what is worth another try, or SourceError."""
    have, digest = _size(part), hashlib.sha256()
    if have and have == piece.size:
        return sha256_file(part)
    headers = {"Range": f"bytes={have}-", **partial.condition(part)} if have else {}
    try:
        answer = _opened(piece, sources, headers)
    except urllib.error.HTTPError as error:
        if error.code == _UNSATISFIABLE:  # what lies here is of another file, or longer
            part.unlink(missing_ok=True)
        raise
    with answer:
        resumed = _resumed(answer, have, part)
        if resumed:
            _digest_of(part, digest)
        else:
            partial.keep_mark(part, answer.headers)
        have = have if resumed else 0
        tally.add(here=have)
        done = _copy(answer, part, digest, tally, append=resumed)
        length = answer.headers.get("Content-Length")
        if length is not None and done < int(length):
            tally.add(here=-(have + done))
            msg = f"the connection ended after {have + done} of {have + int(length)} bytes"
            raise _Again(msg)
    return digest.hexdigest()


def _resumed(answer: Any, have: int, part: Path) -> bool:  # noqa: ANN401  # http or file
    """Whether the answer goes on where `part` ends; raise `_Again` where it goes on somewhere else."""
    if getattr(answer, "status", 200) != 206:  # noqa: PLR2004  # partial content
        return False
    if answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
        return True
    part.unlink(missing_ok=True)
    msg = "the server doesn't go on where an earlier transfer stopped"
    raise _Again(msg)


def _digest_of(part: Path, digest: _Hash) -> None:
    with part.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)


def _copy(answer: Any, part: Path, digest: _Hash, tally: _Tally, *, append: bool) -> int:  # noqa: ANN401
    """Write what comes, and return how much that was."""
    buffer = memoryview(bytearray(_CHUNK))
    done = 0
    with part.open("ab" if append else "wb", buffering=0) as target:
        while size := answer.readinto(buffer):
            digest.update(buffer[:size])
            target.write(buffer[:size])
            done += size
            tally.add(here=size, received=size)
    return done


def _opened(piece: Piece, sources: Sources, headers: Mapping[str, str]) -> Any:  # noqa: ANN401  # http or file
    url = sources.mirrored(revealed(piece.url))
    plain, scheme = scrubbed(without_login(url)), urlsplit(url).scheme
    if scheme not in {"http", "https", "file"}:
        raise SourceError("url-scheme", f"{plain}: only http, https and file can be fetched")
    if sources.offline and scheme != "file":
        raise SourceError("offline-missing", f"{plain} isn't at hand, and --offline forbids to fetch it")
    told = {"User-Agent": "spark-build", **headers}
    request = urllib.request.Request(without_login(url), headers=told)  # noqa: S310  # checked above
    if authorization := login.of(url, sources):
        request.add_header("Authorization", authorization)
    try:
        return _opener().open(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code < 500 and error.code not in _LATER:  # noqa: PLR2004  # a server's own trouble is tried again
            raise _refused(plain, error) from error
        raise
    except urllib.error.URLError as error:
        if scheme == "file":
            raise SourceError("not-found", f"{plain}: no such file") from error
        raise


@functools.cache
def _opener() -> urllib.request.OpenerDirector:
    """Return what opens URLs, with the proxies and certificates of the process's environment, which are read once."""
    secure = urllib.request.HTTPSHandler(context=ssl.create_default_context())
    return urllib.request.build_opener(login.Redirects, secure)


def _refused(plain: str, error: urllib.error.HTTPError) -> SourceError:
    if error.code in {401, 403, 407}:
        host = urlsplit(plain).hostname
        return SourceError(
            "access-denied",
            f"{plain}: {error.code} {error.reason}",
            help=f"put a login for {host} into ~/.netrc, or into the URL in [index] or [mirrors] of the configuration",
        )
    return SourceError("not-found", f"{plain}: {error.code} {error.reason}")


def _unreachable(piece: Piece, error: Exception) -> SourceError:
    cause = getattr(error, "reason", None) or error
    if isinstance(error, urllib.error.HTTPError):
        cause = f"{error.code} {error.reason}"
    return SourceError("unreachable", f"{scrubbed(piece.url)} can't be reached", cause=str(cause))


def _missing(failed: Mapping[str, SourceError], total: int) -> SourceError:
    if len(failed) == 1:
        error = next(iter(failed.values()))
        error.help = error.help or "run the same command again: it goes on where it stopped"
        return error
    told = [f"{error.summary}{f': {error.cause}' if error.cause else ''}" for error in failed.values()]
    return SourceError(
        "files-missing",
        f"{len(failed)} of {total} files can't be had",
        cause="\n".join(told),
        help="the others are kept; run the same command again: it goes on where it stopped",
    )
