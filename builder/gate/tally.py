"""What the gate did for one build, counted up as it happens. Not safe for threads: its owner holds a lock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from builder.events import GateState
from builder.gate import packets
from builder.gate.left import Pace, left_ms
from builder.gate.saved import Ran, saved_ms
from builder.values import dataclass, replace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from builder.events import UnitEnded, UnitRequeued
    from builder.gate.units import Run, Unit

__all__ = ["Summary", "Tally"]

#: What is slow to find out is found out this often, in seconds.
_SLOW_S = 1.0
#: The mean of running jobs reaches back so far.
_MEMORY_S = 10.0
#: Two states that are farther apart have a pause between them, about which nothing is known.
_GAP_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What the gate did for a build. `peak_bytes` is the largest sum over all its compilers.

    `waited_s` is how long something waited for memory while cores were free; `saved_s` by how much a build with
    ``MAX_JOBS=4`` would have taken longer, by simulation from the units that were measured.
    """

    units: int = 0
    failed: int = 0
    peak_bytes: int = 0
    requeues: int = 0
    kernel_kills: int = 0
    waited_s: float = 0.0
    hits: int = 0
    saved_s: float = 0.0


class Tally:
    """Counts of one build, and the last state of the gate."""

    def __init__(self, hits: Callable[[], int]) -> None:
        self._ask_hits = hits
        self._hits = 0
        self._asked_at = 0.0
        self._cores = 1
        self._state = GateState(
            used_bytes=0,
            promised_bytes=0,
            ceiling_bytes=0,
            peak_bytes=0,
            available_bytes=0,
            total_bytes=0,
            jobs=0,
            slots=0,
            waiting=0,
            bound="idle",
        )
        self._state_at = 0.0
        self._emitted_at = 0.0
        self._jobs = 0.0
        self._ran: list[Ran] = []
        self._failed = 0
        self._requeues = {"gate": 0, "kernel": 0}
        self._waited_s = 0.0
        self._open: dict[Unit, int] = {}
        self._took: list[tuple[int, int]] = []
        self._left: tuple[int, int] | None = None
        self._edges = (0, 0)

    def expect(self, times: Mapping[Unit, int]) -> None:
        """Take the units that the build may hold, with the milliseconds that each takes."""
        self._open = dict(times)

    def opened(self, fields: Mapping[str, str]) -> None:
        """Take what the broker answered when the build was opened."""
        self._cores = max(1, packets.number(fields, "cores"))
        total, room = packets.number(fields, "total"), packets.number(fields, "room")
        self._state = replace(self._state, total_bytes=total, ceiling_bytes=room, slots=self._cores)

    def progress(self, done: int, total: int) -> None:
        """Take what the build tool says."""
        self._edges = (done, total)

    def state(self, raw: Mapping[str, Any], now: float) -> GateState:
        """Take a state of the gate, and return it with what only the build knows."""
        state = packets.state_of(raw, peak_bytes=self._state.peak_bytes)
        passed = now - self._state_at if self._state_at else 0.0
        if self._state.bound in {"memory", "pressure"} and self._state.waiting and passed < _GAP_S:
            self._waited_s += passed
        share = min(1.0, passed / _MEMORY_S) if self._jobs else 1.0
        self._jobs += (state.jobs - self._jobs) * share
        self._state, self._state_at = state, now
        return self._told(now)

    def overdue(self, now: float, seconds: float) -> GateState | None:
        """Return the state as it is, when none was given out for `seconds`."""
        return self._told(now) if now - self._emitted_at >= seconds else None

    def requeued(self, event: UnitRequeued) -> None:
        """Count a unit that runs again."""
        self._requeues[event.by] += 1

    def ended(self, run: Run, event: UnitEnded, now: float) -> None:
        """Count a unit that ended for good."""
        ms = round(now * 1000)
        asked = ms - event.ms - event.wait_ms
        self._ran.append(Ran(asked_ms=asked, ended_ms=ms, wall_ms=event.ms, peak_bytes=event.peak_bytes))
        self._failed += not event.ok
        if event.peak_bytes > self._state.peak_bytes:  # between two states
            self._state = replace(self._state, peak_bytes=event.peak_bytes)
        expected = self._open.pop(run.unit.bare, None)
        if expected and event.ok:
            self._took.append((expected, event.ms))

    def summary(self) -> Summary:
        """Return the counts as they are."""
        self._hits = max(self._hits, self._ask_hits())
        return Summary(
            units=len(self._ran),
            failed=self._failed,
            peak_bytes=self._state.peak_bytes,
            requeues=self._requeues["gate"],
            kernel_kills=self._requeues["kernel"],
            waited_s=round(self._waited_s, 1),
            hits=self._hits,
            saved_s=saved_ms(self._ran, cores=self._cores) / 1000,
        )

    def _told(self, now: float) -> GateState:
        self._emitted_at = now
        if now - self._asked_at >= _SLOW_S or not self._asked_at:
            self._asked_at = now
            self._hits = max(self._hits, self._ask_hits())
            self._left = self._estimate()
        done, edges = self._edges
        self._state = replace(
            self._state,
            done=done,
            edges=edges,
            hits=self._hits,
            requeues=sum(self._requeues.values()),
            left_ms=self._left,
        )
        return self._state

    def _estimate(self) -> tuple[int, int] | None:
        state, (done, edges) = self._state, self._edges
        if not (self._ran or state.running or state.waiting or edges):
            return None  # an output that compiles nothing never asks for the units that the recipe is known for
        rest = [max(0, last - since) for _name, _used, since, last, _basis in state.running if last]
        pace = Pace(jobs=self._jobs, done=done, edges=edges, ended=self._took, running=rest, waiting=state.waiting)
        return left_ms(self._open, pace)
