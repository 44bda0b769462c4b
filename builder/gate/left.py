"""How long the rest of a build takes: from what its units took before, as a range. Values in, values out."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from builder.gate.units import Unit

__all__ = ["Pace", "left_ms"]

#: How far the truth lies from a good estimate: units repeat their times within 15 %.
_KNOWN = 0.15
#: And from one of units that nobody has measured.
_UNKNOWN = 0.6
_ENOUGH = 5
_SOME_MS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Where a build stands. `jobs` ran in the mean lately; `done` of `edges` are what the build tool says, 0 when nothing.

    `ended` holds (what was expected, what it took) of the units that ended, in milliseconds; `running` how long each of
    those that run still needs, as far as that is known.
    """

    jobs: float
    done: int = 0
    edges: int = 0
    ended: Sequence[tuple[int, int]] = ()
    running: Sequence[int] = ()
    waiting: int = 0


def left_ms(open_units: Mapping[Unit, int], pace: Pace) -> tuple[int, int] | None:
    """Return the least and the most that is left; None while nothing is known.

    `open_units` are those that were seen in earlier builds and haven't ended in this one. Some of them never come: they lie
    in the tree already, or come from the cache. The build tool's count says how many do; the heaviest went first, so what
    is left are the lighter ones.
    """
    times = sorted(open_units.values())
    count = max(0, pace.edges - pace.done) if pace.edges else max(len(times), pace.waiting + len(pace.running))
    if not count:
        return (0, 0) if pace.edges else None
    if not times and not pace.ended:
        return None
    mean = statistics.fmean(times) if times else statistics.fmean(took for _expected, took in pace.ended)
    known = times[:count]
    work = (sum(known) + (count - len(known)) * mean) * _drift(pace.ended)
    longest = max(pace.running, default=0)
    middle = max(work / max(1.0, pace.jobs), longest)
    spread = _KNOWN + _UNKNOWN * (1 - len(known) / count)
    return round(max(middle * (1 - spread), longest)), round(middle * (1 + spread))


def _drift(ended: Sequence[tuple[int, int]]) -> float:
    """Return by how much units take longer today than they did; short ones are noise."""
    ratios = [took / expected for expected, took in ended if expected >= _SOME_MS]
    return statistics.median(ratios) if len(ratios) >= _ENOUGH else 1.0
