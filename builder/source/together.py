"""Several transfers at once, told as one."""

from __future__ import annotations

import queue
import threading
import time
from typing import TYPE_CHECKING, TypeVar

from builder.errors import HostError, SparkError
from builder.events import Fetching, Note
from builder.source.place import refusals
from builder.values import replace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from builder.events import Event, Sink
    from builder.source.place import Sources

__all__ = ["run"]

T = TypeVar("T")

_TOLD_S = 0.25  # four a second


class _Over(SystemExit):
    """Nobody waits for this transfer any more; raised in its threads, which end without a word."""


class _Sum:
    """What all of them have brought so far. Safe for threads; raises `_Over` in those that nobody waits for any more."""

    def __init__(self, sink: Sink, name: str, expected: Mapping[str, int | None]) -> None:
        self._sink = sink
        self._name = name
        self._expected = expected
        self._lock = threading.Lock()
        self._seen: dict[tuple[str, str], Fetching] = {}
        self._told = 0.0
        self._over = False

    def emit(self, job: str, event: Event) -> None:
        with self._lock:
            if self._over:
                raise _Over
            if not isinstance(event, Fetching):
                self._sink.emit(event)
                return
            self._seen[job, event.name] = event
            if time.monotonic() - self._told >= _TOLD_S:
                self._told = time.monotonic()
                self._sink.emit(Fetching(name=self._name, done=self._done(), total=self._total()))

    def end(self) -> None:
        """Say that all is there, or that nobody waits: no event comes after this."""
        with self._lock:
            if self._told and not self._over:
                self._sink.emit(Fetching(name=self._name, done=self._done(), total=self._done()))
            self._over = True

    def _done(self) -> int:
        return sum(event.done for event in self._seen.values())

    def _total(self) -> int | None:
        """Return how much comes in all, where that is known of each, and isn't wrong already."""
        if None in self._expected.values():
            return None
        total = sum(size or 0 for size in self._expected.values())
        return total if total > self._done() else None


class _Part:
    """The sink of one transfer."""

    def __init__(self, job: str, whole: _Sum) -> None:
        self._job = job
        self._whole = whole

    def emit(self, event: Event) -> None:
        self._whole.emit(self._job, event)


def run(
    jobs: Mapping[str, Callable[[Sources], T]],
    sources: Sources,
    *,
    at_once: int,
    what: str,
    expected: Mapping[str, int | None] | None = None,
) -> dict[str, T]:
    """Return what each job returns, in their order; `at_once` of them run at a time, with sources whose sink adds up.

    `expected` holds the bytes that each is to bring. An error doesn't stop the others, since all that comes now needn't
    come again: the first is raised at the end and names the rest; a full disk stops them. When the caller is interrupted,
    running transfers end as soon as they say something, or with this process.
    """
    if len(jobs) < 2 or at_once < 2:  # noqa: PLR2004  # nothing beside it
        return {name: _guarded(job, sources) for name, job in jobs.items()}
    whole = _Sum(sources.sink, f"{len(jobs)} {what}", expected or dict.fromkeys(jobs))
    pending: queue.SimpleQueue[str] = queue.SimpleQueue()
    ended: queue.SimpleQueue[tuple[str, T | None, BaseException | None]] = queue.SimpleQueue()
    for name in jobs:
        pending.put(name)

    def work() -> None:
        while True:
            try:
                name = pending.get_nowait()
            except queue.Empty:
                return
            try:
                ended.put((name, _guarded(jobs[name], replace(sources, sink=_Part(name, whole))), None))
            except BaseException as error:  # noqa: BLE001  # it is raised where it is waited for
                ended.put((name, None, error))

    for number in range(min(at_once, len(jobs))):
        threading.Thread(target=work, name=f"fetch-{number}", daemon=True).start()
    try:
        return _gathered(jobs, ended, pending, whole)
    finally:
        _drained(pending)
        whole.end()


def _gathered(
    jobs: Mapping[str, Callable[[Sources], T]],
    ended: queue.SimpleQueue[tuple[str, T | None, BaseException | None]],
    pending: queue.SimpleQueue[str],
    whole: _Sum,
) -> dict[str, T]:
    made: dict[str, T] = {}
    failed: list[SparkError] = []
    left = len(jobs)
    while left:
        name, value, error = ended.get()
        left -= 1
        if error is None:
            made[name] = value  # type: ignore[assignment]  # None where T holds it
            continue
        if not isinstance(error, SparkError):
            raise error
        failed.append(error)
        if isinstance(error, HostError):
            left -= _drained(pending)
        if left:
            text = f"{error.summary} ({error.code}); going on with the others"
            whole.emit(name, Note(level="warning", text=text))
    if failed:
        for other in failed[1:]:
            failed[0].cause += f"\nalso: {other.summary}"
        failed[0].cause = failed[0].cause.strip()
        raise failed[0]
    return {name: made[name] for name in jobs}


def _drained(pending: queue.SimpleQueue[str]) -> int:
    """Start no more of them; return how many that are."""
    count = 0
    while True:
        try:
            pending.get_nowait()
        except queue.Empty:
            return count
        count += 1


def _guarded(job: Callable[[Sources], T], sources: Sources) -> T:
    with refusals():
        return job(sources)
