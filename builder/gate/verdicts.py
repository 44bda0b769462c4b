"""What the broker says of a build that goes wrong, in words for a user."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from builder.errors import MemoryStopped
from builder.gate import packets
from builder.recipe.units import show_bytes, show_seconds

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

__all__ = ["hung", "stopped"]

_TAKERS = 3


def hung(raw: Mapping[str, Any]) -> str:
    """Return the line about a compiler that takes too long: name, time, memory, command."""
    name, command = packets.text(raw, "name"), packets.text(raw, "command")
    since = show_seconds(packets.number(raw, "since_ms") / 1000)
    return f"{name} has been compiling for {since}, with {show_bytes(packets.number(raw, 'used'))}: {command}"


def stopped(raw: Mapping[str, Any], resume: tuple[str, ...]) -> MemoryStopped:
    """Return the error of a build that memory ended: the unit, what it needs, what there is, and who holds the rest."""
    unit, told = packets.text(raw, "unit"), packets.text(raw, "text")
    peak, total = packets.number(raw, "peak"), packets.number(raw, "total")
    takers = ", ".join(_takers())
    free = f"; the largest are {takers}" if takers else ""
    if unit and peak > total > 0:
        return MemoryStopped(
            "unit-too-large",
            f"{unit} needs {show_bytes(peak)} of memory, and no more than {show_bytes(total)} can ever be had here",
            cause=told,
            help=f"raise the limit or the machine's memory, or end what holds {show_bytes(peak - total)}{free}",
            run=resume,
        )
    return MemoryStopped(
        "memory-short",
        f"memory was short for too long{f' for {unit}' if unit else ''}",
        cause=told,
        help=f"what was built so far is kept; end what takes the memory{free}, and go on",
        run=resume,
    )


def _takers() -> list[str]:
    """Return the processes that hold most of the memory now, as ``name (pid, size)``."""
    page = os.sysconf("SC_PAGESIZE")
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            size = int((folder / "statm").read_text().split()[1]) * page
            found.append((size, int(folder.name), (folder / "comm").read_text().strip()))
    return [f"{name} ({pid}, {show_bytes(size)})" for size, pid, name in sorted(found, reverse=True)[:_TAKERS]]
