"""Memory and swap. On a GB10 a build shares both with the GPU and whatever model it serves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.host import jobs
from builder.host import memory as measured
from builder.host.checks.finding import Finding
from builder.recipe.units import parse_bytes, show_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from builder.host.checks.finding import Subject

__all__ = ["memory", "swap"]

#: What a unit takes where no recipe says more: CUTLASS kernels have been seen with 8 GiB, ordinary ones with 2.
_ORDINARY = 4 << 30

#: Below this swap isn't "in use": pages that nobody wanted for days.
_IDLE_SWAP = 256 << 20

_WHO = "ps -eo rss,pid,comm --sort=-rss | head"


def memory(subject: Subject) -> Iterator[Finding]:
    """Whether the largest compilation fits into what is free now, and whether a cgroup takes some away."""
    found = measured.memory(subject.root)
    text = f"{show_bytes(found.available_bytes)} of {show_bytes(found.total_bytes)} free"
    unit = max((largest_unit(subject), _ORDINARY))
    wanted = unit + jobs.reserve_bytes(found.available_bytes)
    if found.available_bytes >= wanted:
        yield Finding(id="memory", status="ok", found=text)
    else:
        yield Finding(
            id="memory",
            status="warn",
            found=text,
            wanted=f"{show_bytes(wanted)}: {show_bytes(unit)} for one compilation, and a reserve",
            why="one compiler at a time, and that one may be killed; stop what holds the memory, a model server mostly",
            run=(_WHO,),
        )
    if found.cgroup_limit_bytes is not None:
        yield Finding(
            id="cgroup",
            status="info",
            found=f"memory limited to {show_bytes(found.cgroup_limit_bytes)}",
            why="the limit counts, not what the machine has; a container's is set by --memory",
        )


def largest_unit(subject: Subject) -> int:
    """Return the peak of the largest unit that the recipes hint at, in bytes."""
    hints = [recipe.resources for recipe in subject.recipes]
    return max(
        (
            parse_bytes(text)
            for hint in hints
            for text in (hint.mem_per_job, hint.link_mem, *(one.mem for one in hint.classes))
        ),
        default=0,
    )


def swap(subject: Subject) -> Iterator[Finding]:
    """Whether the machine swaps: then a build takes hours and the desktop stands still."""
    found = measured.memory(subject.root)
    used = found.swap_total_bytes - found.swap_free_bytes
    if not found.swap_total_bytes:
        yield Finding(id="swap", status="ok", found="none")
    elif used <= _IDLE_SWAP:
        yield Finding(id="swap", status="ok", found=f"{show_bytes(found.swap_total_bytes)}, not in use")
    else:
        fits = found.available_bytes > used + jobs.reserve_bytes(found.available_bytes)
        yield Finding(
            id="swap",
            status="warn",
            found=f"{show_bytes(used)} of {show_bytes(found.swap_total_bytes)} in use",
            wanted="none in use while building",
            why="a machine that swaps under a build stands still for minutes; a GB10 may have to be restarted",
            run=("sudo swapoff -a && sudo swapon -a",) if fits else (_WHO,),
        )
