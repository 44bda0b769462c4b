"""Sixty compile units that take memory and time on cue, and the ninja project that builds them."""

from __future__ import annotations

import math
import random
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 1 << 20
COUNT, LEAST_MIB, MOST_MIB, MEAN_MIB = 60, 25, 600, 128
SLOTS, LIMIT_MIB, BUDGET_MIB = 20, 1600, 1536
CPU_S, MEMORY_S = 7.1, 17.2
#: Memory grows to the peak over this part of a unit's time.
RAMP = 0.7


@dataclass(frozen=True)
class Fake:
    """One unit."""

    name: str
    mib: int
    seconds: float


def units() -> tuple[Fake, ...]:
    """Return the units, always the same: sizes with a heavy tail, the heavy ones side by side, bounds as above."""
    dice = random.Random(60)  # noqa: S311  # a workload, not a secret
    power = _solve(lambda power: sum(_sizes(power)) / COUNT, MEAN_MIB, 0.5, 8.0)
    sizes = _sizes(power)
    noise = [dice.uniform(0.75, 1.3) for _ in sizes]

    def times(rise: float) -> list[float]:
        raw = [n * size**rise for n, size in zip(noise, sizes, strict=True)]
        return [value * CPU_S * SLOTS / sum(raw) for value in raw]

    def integral(rise: float) -> float:
        return -sum(t * size for t, size in zip(times(rise), sizes, strict=True)) / BUDGET_MIB

    seconds = times(_solve(integral, -MEMORY_S, -1.0, 2.0))
    light = list(zip(sizes, seconds, strict=True))
    heavy = [light.pop() for _ in range(12)]
    dice.shuffle(light)
    dice.shuffle(heavy)
    return tuple(Fake(f"unit_{n:02}", size, time) for n, (size, time) in enumerate([*light[:30], *heavy, *light[30:]]))


def _sizes(power: float) -> list[int]:
    spread = math.log(MOST_MIB / LEAST_MIB)
    return [round(LEAST_MIB * math.exp(spread * (n / (COUNT - 1)) ** power)) for n in range(COUNT)]


def _solve(falling: Callable[[float], float], goal: float, low: float, high: float) -> float:
    """Return where a falling function reaches `goal`."""
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > goal else (low, middle)
    return (low + high) / 2


def bound_s(these: tuple[Fake, ...], *, slots: int = SLOTS, budget_mib: float = BUDGET_MIB) -> float:
    """Return the least time when each unit holds its peak for its whole life: by slots, by memory, by the longest."""
    by_slots = sum(one.seconds for one in these) / slots
    by_memory = sum(one.mib * one.seconds for one in these) / budget_mib
    return max(by_slots, by_memory, *(one.seconds for one in these))


def true_integral_s(these: tuple[Fake, ...], budget_mib: float = BUDGET_MIB) -> float:
    """Return the least time by the memory that they really hold."""
    return sum(one.mib * one.seconds for one in these) * (1 - RAMP / 2) / budget_mib


def compiler(folder: Path) -> Path:
    """Compile the fake compiler into `folder`, by the name of a real one, so that it is taken for one."""
    program = folder / "g++"
    source = Path(__file__).with_name("fake_compiler.c")
    words = ["gcc", "-O1", "-D_GNU_SOURCE", "-std=c11", "-Wall", "-Wextra", "-Werror", "-o", str(program), str(source)]
    subprocess.run(words, check=True)
    return program


def project(folder: Path, program: Path, launcher: Path | None, these: tuple[Fake, ...], *, prefix: str = "") -> None:
    """Write a ninja project of `these` into `folder`; every compile goes through `launcher` where there is one."""
    (folder / "src").mkdir(parents=True)
    front = f"{launcher} " if launcher else ""
    lines = ["rule cc", f"  command = {front}{program} -c $in -o $out", ""]
    for one in these:
        name = prefix + one.name
        (folder / "src" / f"{name}.cc").write_text(f"// fake {one.mib} {one.seconds:.3f}\n")
        lines.append(f"build obj/{name}.o: cc src/{name}.cc")
    (folder / "build.ninja").write_text("\n".join(lines) + "\n")


def built(folder: Path) -> int:
    """Return how many objects are there."""
    return len(list((folder / "obj").glob("*.o")))
