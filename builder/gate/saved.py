"""What a build would have taken with a fixed number of jobs, and the least that any order could take. Pure."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["JOBS", "Bound", "Ran", "bound", "busy_ms", "saved_ms", "scheduled_ms"]

#: What people set ``MAX_JOBS`` to, so that nothing dies.
JOBS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """One unit of a build: when it asked to run and when it was done (any one clock), and what its good run took."""

    asked_ms: int
    ended_ms: int
    wall_ms: int
    peak_bytes: int = 0
    slots: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """Three reasons why no order can be faster: the cores, memory x time, and the longest unit."""

    cpu_ms: int
    memory_ms: int
    longest_ms: int

    @property
    def ms(self) -> int:
        """The strongest of the three."""
        return max(self.cpu_ms, self.memory_ms, self.longest_ms)


def bound(units: Iterable[Ran], *, cores: int, ceiling_bytes: int) -> Bound:
    """Return the bound of `units` on so many cores below a ceiling of memory; 0 bytes is none."""
    held = tuple(units)
    area = sum(unit.peak_bytes * unit.wall_ms for unit in held)
    return Bound(
        cpu_ms=sum(unit.wall_ms * unit.slots for unit in held) // max(1, cores),
        memory_ms=area // ceiling_bytes if ceiling_bytes else 0,
        longest_ms=max((unit.wall_ms for unit in held), default=0),
    )


def scheduled_ms(units: Sequence[Ran], jobs: int) -> int:
    """Return how long `units` take in the order in which they asked, `jobs` at a time: each starts where one ended."""
    ends = [0] * max(1, jobs)
    for unit in sorted(units, key=lambda one: one.asked_ms):
        heapq.heappush(ends, heapq.heappop(ends) + unit.wall_ms)
    return max(ends)


def busy_ms(units: Iterable[Ran]) -> int:
    """Return how long at least one of `units` waited or ran: the rest of the build's time belongs to other things."""
    total, reached = 0, None
    for asked, ended in sorted((unit.asked_ms, unit.ended_ms) for unit in units):
        if reached is None or asked > reached:
            reached = asked
        if ended > reached:
            total += ended - reached
            reached = ended
    return total


def saved_ms(units: Sequence[Ran], *, cores: int, jobs: int = JOBS) -> int:
    """Return by how much a build with `jobs` jobs would have taken longer than this one did; never less than 0.

    The units' times are those measured here, so on a machine with fewer cores than `jobs` no more than the cores count.
    """
    return max(0, scheduled_ms(units, min(jobs, max(1, cores))) - busy_ms(units))
