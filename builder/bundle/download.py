"""Files by digest: several at a time, each hashed while it comes, resumed where it stopped, kept only when it is right.

They lie in the sources' cache, ``files/<sha256>/<name>`` as archives do. What is there isn't fetched again, whoever brought
it: a second bundle fetches what the first one lacks. A file that stopped halfway lies beside its place, and goes on there.
A kill takes nothing of what is finished.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
import time
from typing import TYPE_CHECKING

from builder.bundle import JOBS
from builder.connections import Connections
from builder.errors import SourceError, scrubbed
from builder.source import login
from builder.source.download import Way, fetch_file
from builder.source.place import refusals
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from builder.bundle.resolve import Piece
    from builder.source import Sources

__all__ = ["Progress", "bring", "held", "place_of"]

#: Attempts in a row that brought nothing; a connection that breaks now and then is none of them.
_TRIES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far it is: files that are right, bytes that are here, bytes that came over the network, since `seconds`."""

    files: int
    of_files: int
    here: int
    of_bytes: int
    received: int
    seconds: float


class _Stopped(Exception):
    """Somebody else failed or the user stopped it; what came so far is kept."""


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
    with refusals(), Connections(login.Redirects) as connections:
        # The largest first: else the last connection is alone with it at the end.
        order = sorted(pieces, key=lambda piece: -(piece.size or 0))
        waiting = {pool.submit(_one, piece, sources, tally, connections): piece for piece in order}
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

    def add(self, *, here: int = 0, received: int = 0, files: int = 0) -> None:
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

    def wait(self, seconds: float) -> None:
        """Wait; raise `_Stopped` where all is to end."""
        if self.stop.wait(seconds):
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


def _one(piece: Piece, sources: Sources, tally: _Tally, connections: Connections) -> None:
    """Leave one file at its place."""
    target, before = place_of(piece, sources), 0

    def tell(done: int, _total: int | None, came: int) -> None:
        nonlocal before
        here, before = done - before, done
        tally.add(here=here, received=came)

    way = Way(tell=tell, tries=_TRIES, wait=tally.wait, connections=connections)
    try:
        with fetch_file(sources.mirrored(piece.url), target, sources, sha256=piece.sha256, size=piece.size, way=way):
            pass
    except SourceError as error:
        raise _named(error, piece) from error
    tally.add(files=1)


def _named(error: SourceError, piece: Piece) -> SourceError:
    """Return the error in the words of a bundle: what it wants comes from the index, by no recipe."""
    if error.code == "hash-mismatch":
        error = SourceError(
            error.code,
            f"{scrubbed(piece.url)} isn't what the index says",
            cause=error.cause,
            help="the file on the index or on the mirror changed, or the way there damages it; nothing was kept",
        )
    elif error.code == "unreachable":
        error.help = ""  # as for every file that is missing
    error.run = ()
    return error


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
