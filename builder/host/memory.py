"""Memory and cores that this process may use: of the machine, and of the cgroups above it (version 2).

On a GB10 the GPU takes from the same memory without being charged to a cgroup, so ``MemAvailable`` always counts; a cgroup
can only lower it.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from builder.values import dataclass

__all__ = ["Memory", "cores", "memory"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """In bytes. `total_bytes` and `available_bytes` are the machine's or the cgroup's, whichever is less."""

    total_bytes: int
    available_bytes: int
    swap_total_bytes: int
    swap_free_bytes: int
    cgroup_limit_bytes: int | None


def memory(root: Path = Path("/")) -> Memory:
    """Return the memory that is there now, as ``/proc`` and ``/sys`` below `root` tell."""
    fields = _meminfo(root)
    total, available = fields["MemTotal"], fields.get("MemAvailable", fields.get("MemFree", 0))
    limit: int | None = None
    for folder in _cgroups(root):
        found = _limit(folder)
        if found is None or found >= total:
            continue
        limit = found if limit is None else min(limit, found)
        available = min(available, max(0, found - _used(folder)))
    return Memory(
        total_bytes=total if limit is None else limit,
        available_bytes=available,
        swap_total_bytes=fields.get("SwapTotal", 0),
        swap_free_bytes=fields.get("SwapFree", 0),
        cgroup_limit_bytes=limit,
    )


def cores(root: Path = Path("/")) -> int:
    """Return how many cores may be used at once: affinity and the cgroups' quota, at least 1."""
    count = len(os.sched_getaffinity(0))
    for folder in _cgroups(root):
        quota, _blank, period = _text(folder / "cpu.max").strip().partition(" ")
        if quota.isdigit():
            count = min(count, -(-int(quota) // int(period)))
    return max(1, count)


def _meminfo(root: Path) -> dict[str, int]:
    found = {}
    for line in (root / "proc/meminfo").read_text().splitlines():
        name, _colon, rest = line.partition(":")
        words = rest.split()
        if words:
            found[name] = int(words[0]) * (1024 if words[-1] == "kB" else 1)
    return found


def _cgroups(root: Path) -> list[Path]:
    """Return the folders of this process's cgroup and of all above it (cgroups(7), version 2).

    A container without a cgroup namespace sees its own group as the mounted root and no folder of its path: the root
    counts.
    """
    lines = _text(root / "proc/self/cgroup").splitlines()
    path = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), "")
    steps = [root / "sys/fs/cgroup"]
    for part in path.strip("/").split("/"):
        steps.append(steps[-1] / part)
    return [step for step in dict.fromkeys(steps) if step.is_dir()]


def _limit(folder: Path) -> int | None:
    limits = [_number(folder / name) for name in ("memory.max", "memory.high")]
    return min((one for one in limits if one is not None), default=None)


def _used(folder: Path) -> int:
    """Return what is taken and can't be given back: page cache that nobody has open for writing doesn't count."""
    used = _number(folder / "memory.current") or 0
    for line in _text(folder / "memory.stat").splitlines():
        name, _blank, value = line.partition(" ")
        if name == "inactive_file":
            return max(0, used - int(value))
    return used


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text()
    return ""
