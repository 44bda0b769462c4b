"""Units and their runs, as values."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Literal

from builder.values import dataclass, replace

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["CURVE", "ELSEWHERE", "HERE", "KINDS", "SEED", "Estimate", "Run", "Unit", "machine_class"]

#: What a unit is: the language of a compile, a link, or something else that a launcher stood before.
KINDS = ("cu", "cxx", "c", "rust", "link", "other")

#: Points of a memory curve: sixteenths of a unit's time.
CURVE = 16

#: Origins of a run: measured on this machine, or brought from another.
HERE, ELSEWHERE = "here", "elsewhere"

#: The machine class of what ships with recipes.
SEED = "seed"

Outcome = Literal["ok", "failed", "stopped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """Who a unit is. `source` is relative to the source tree, `object` the object's last two parts, `flags` a digest."""

    source: str = ""
    object: str = ""
    kind: str = "other"
    flags: str = ""

    @property
    def bare(self) -> Unit:
        """The unit, whatever its flags."""
        return replace(self, flags="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of a unit, all attempts in one. `peak_bytes` is its processes' largest sum, `largest_bytes` the largest one's.

    `curve` holds `CURVE` percentages of the peak, or nothing. `outcome` is ``stopped`` when a signal or the memory policy
    ended it, which says nothing about the unit. `machine` is a `machine_class`, `time` seconds since 1970.
    """

    recipe: str
    unit: Unit
    peak_bytes: int
    wall_ms: int
    largest_bytes: int = 0
    cpu_ms: int = 0
    curve: tuple[int, ...] = ()
    attempts: int = 1
    outcome: Outcome = "ok"
    cached: bool = False
    toolchain: str = ""
    machine: str
    version: str = ""
    build: str = ""
    time: int
    origin: str = HERE

    def row(self) -> tuple[object, ...]:
        """Return the values in the order of the table's columns."""
        unit = self.unit
        return (
            *(self.recipe, unit.source, unit.object, unit.kind, unit.flags, self.toolchain),
            *(self.peak_bytes, self.largest_bytes, self.wall_ms, self.cpu_ms, ",".join(map(str, self.curve))),
            *(self.attempts, self.outcome, int(self.cached), self.machine, self.version, self.build, self.time),
            self.origin,
        )

    @classmethod
    def parse(cls, row: Sequence[object], mine: str) -> Run:
        """Return the run that `row` made; it is from elsewhere when its machine isn't `mine`."""
        recipe, source, obj, kind, flags, toolchain, peak, largest, wall, cpu, curve, attempts, outcome, *rest = row
        cached, machine, version, build, time, origin = rest
        return cls(
            recipe=str(recipe),
            unit=Unit(source=str(source), object=str(obj), kind=str(kind), flags=str(flags)),
            toolchain=str(toolchain),
            peak_bytes=_int(peak),
            largest_bytes=_int(largest),
            wall_ms=_int(wall),
            cpu_ms=_int(cpu),
            curve=tuple(int(one) for one in str(curve).split(",") if one.isdigit()),
            attempts=_int(attempts),
            outcome="ok" if outcome == "ok" else "failed" if outcome == "failed" else "stopped",
            cached=bool(cached),
            machine=str(machine),
            version=str(version),
            build=str(build),
            time=_int(time),
            origin=HERE if origin == HERE and machine == mine else ELSEWHERE,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What is known of some units: {unit without flags: milliseconds here}, out of `wanted` that were asked for."""

    times: Mapping[Unit, int]
    wanted: int

    @property
    def work_ms(self) -> int:
        """The time of all units one after the other; unknown ones count as the mean of the others."""
        known = sum(self.times.values())
        return round(known * self.wanted / len(self.times)) if self.times else 0

    @property
    def longest_ms(self) -> int:
        """The time of the longest known unit."""
        return max(self.times.values(), default=0)


@functools.cache
def machine_class() -> str:
    """Return what decides about a unit's time and hardly ever about its peak: architecture, cores, page size."""
    return f"{os.uname().machine}/{os.cpu_count() or 1}/{os.sysconf('SC_PAGESIZE')}"


def _int(value: object) -> int:
    return value if isinstance(value, int) else int(float(str(value)))
