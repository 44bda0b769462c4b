"""Reading along while an attempt is being made: its events, and what its phases print."""

from __future__ import annotations

import os
import time
from datetime import datetime
from typing import TYPE_CHECKING

from builder import events
from builder.pipeline import again, builds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from builder.pipeline.builds import Attempt

__all__ = ["events_of", "successor"]

_POLL_S = 0.1

#: How much of what a phase has printed before is shown: far more than its last lines.
_TAIL_BYTES = 1 << 14

#: How long a build may take to plan anew, between two attempts of one process.
_PLAN_S = 60.0


class _Lines:
    """Whole lines of a file that grows; what has no end yet waits for it."""

    def __init__(self, file: Path, *, last: int | None = None) -> None:
        self._stream = file.open("rb")
        self._rest = b""
        if last is not None:
            size = os.fstat(self._stream.fileno()).st_size
            if size > last:
                self._stream.seek(size - last)
                self._stream.readline()

    def new(self) -> Iterator[str]:
        *whole, self._rest = (self._rest + self._stream.read()).split(b"\n")
        for line in whole:
            yield line.decode(errors="replace")

    def close(self) -> None:
        self._stream.close()


def events_of(one: Attempt, *, alive: Callable[[], bool]) -> Iterator[tuple[float | None, events.Event]]:
    """Yield each event of the attempt with its time, those that are there at once, until the last one or its death.

    What the phase at hand prints comes as `Printed` with no time. `alive` says whether somebody still works on it.
    """
    file, output = _Lines(one.logs / "events.jsonl"), None
    try:
        while True:
            there = alive()  # asked first: what is written before the death is read after it
            for moment, event in _parsed(file):
                if output and isinstance(event, events.PhaseEnded | events.PhaseStarted):
                    yield from _printed(*output)
                    output[0].close()
                    output = None
                yield moment, event
                if isinstance(event, events.BuildEnded):
                    return
                if isinstance(event, events.PhaseStarted):
                    output = _output(one, event)
            if output:
                yield from _printed(*output)
            if not there:
                return
            time.sleep(_POLL_S)
    finally:
        file.close()
        if output:
            output[0].close()


def _parsed(file: _Lines) -> Iterator[tuple[float, events.Event]]:
    for line in file.new():
        try:
            raw, event = events.parse_line(line)
            moment = datetime.fromisoformat(str(raw["t"])).timestamp()
        except (ValueError, KeyError):  # torn
            continue
        if event is not None:
            yield moment, event


def _output(one: Attempt, event: events.PhaseStarted) -> tuple[_Lines, events.PhaseName] | None:
    """Return the log of a phase; it lies beside the events, wherever the wheelhouse is seen from."""
    log = one.logs / f"{event.phase}.log"
    try:
        return (_Lines(log, last=_TAIL_BYTES), event.phase) if event.log else None
    except FileNotFoundError:  # nothing was printed yet
        log.touch()
        return _Lines(log), event.phase


def _printed(log: _Lines, phase: events.PhaseName) -> Iterator[tuple[None, events.Event]]:
    for line in log.new():
        yield None, events.Printed(phase=phase, text=line)


def successor(wheelhouse: Path, one: Attempt) -> Attempt | None:
    """Return the attempt of the same process after `one` gave way to a better plan; waits for it while it may come."""
    asked = again.read(one.logs)
    deadline = time.monotonic() + _PLAN_S
    while asked and time.monotonic() < deadline:
        for other in builds.attempts(wheelhouse, recipe=one.recipe):
            mine = again.read(other.logs)
            if other.started > one.started and mine and mine.pid == asked.pid:
                return other
        if not _runs(asked.pid):
            return None
        time.sleep(5 * _POLL_S)
    return None


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
