"""Memory and cores that this process may use: of the machine, and of the cgroups above it (v1, v2 or both).

On a GB10 the GPU takes from the same memory without being charged to a cgroup, so ``MemAvailable`` always counts; a cgroup
can only lower it.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from builder.values import dataclass

__all__ = ["Memory", "cores", "memory"]

#: Limits at or above this mean "none" in cgroup v1 (the largest page-aligned number).
_NO_LIMIT = 1 << 62

_PERIOD_US = 100_000


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
    for folder, version in _cgroups(root, "memory"):
        found = _limit(folder, version)
        if found is None or found >= total:
            continue
        limit = found if limit is None else min(limit, found)
        available = min(available, max(0, found - _used(folder, version)))
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
    for folder, version in _cgroups(root, "cpu"):
        if version == 1:
            quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
        else:
            words = _text(folder / "cpu.max").split()
            quota = int(words[0]) if words and words[0].isdigit() else None
            period = int(words[1]) if len(words) > 1 else _PERIOD_US
        if quota and quota > 0 and period:
            count = min(count, -(-quota // period))
    return max(1, count)


def _meminfo(root: Path) -> dict[str, int]:
    found = {}
    for line in (root / "proc/meminfo").read_text().splitlines():
        name, _colon, rest = line.partition(":")
        words = rest.split()
        if words:
            found[name] = int(words[0]) * (1024 if words[-1] == "kB" else 1)
    return found


def _cgroups(root: Path, controller: str) -> list[tuple[Path, int]]:
    """Return the folders of this process's cgroup and all above it, with the version of their hierarchy."""
    mounts = _mounts(root, controller)
    found: list[tuple[Path, int]] = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _colon, rest = line.partition(":")
        names, _colon, path = rest.partition(":")
        version = 2 if number == "0" and not names else 1
        if (version == 1 and controller not in names.split(",")) or version not in mounts:
            continue
        point, below = mounts[version]
        inside = path[len(below) :] if below != "/" and path.startswith(below) else path
        folder = root / point.lstrip("/")
        steps = [folder]
        for part in inside.strip("/").split("/"):
            if part and part != "..":
                steps.append(steps[-1] / part)
        found.extend((step, version) for step in steps if step.is_dir())
    return found


def _mounts(root: Path, controller: str) -> dict[int, tuple[str, str]]:
    """Return {version: (mount point, the cgroup that is mounted there)} from mountinfo (proc(5))."""
    found: dict[int, tuple[str, str]] = {}
    for line in _text(root / "proc/self/mountinfo").splitlines():
        left, _dash, right = line.partition(" - ")
        fields, kind = left.split(" "), right.split(" ")
        if kind[0] == "cgroup2":
            found.setdefault(2, (fields[4], fields[3]))
        elif kind[0] == "cgroup" and controller in kind[-1].split(","):
            found.setdefault(1, (fields[4], fields[3]))
    return found


def _limit(folder: Path, version: int) -> int | None:
    if version == 1:
        found = _number(folder / "memory.limit_in_bytes")
        return found if found is not None and found < _NO_LIMIT else None
    limits = [_number(folder / name) for name in ("memory.max", "memory.high")]
    return min((one for one in limits if one is not None), default=None)


def _used(folder: Path, version: int) -> int:
    """Return what is taken and can't be given back: page cache that nobody has open for writing doesn't count."""
    used = _number(folder / ("memory.usage_in_bytes" if version == 1 else "memory.current")) or 0
    wanted = "total_inactive_file" if version == 1 else "inactive_file"
    for line in _text(folder / "memory.stat").splitlines():
        name, _blank, value = line.partition(" ")
        if name == wanted:
            return max(0, used - int(value))
    return used


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.lstrip("-").isdigit() else None


def _text(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text()
    return ""
