"""How many compilers run at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.recipe.units import parse_bytes

if TYPE_CHECKING:
    from builder.recipe.model import Resources

__all__ = ["jobs", "reserve_bytes"]

_LEAST_RESERVE = 4 << 30


def reserve_bytes(available_bytes: int) -> int:
    """Return what is left to everything else: a tenth, at least 4 GiB."""
    return max(_LEAST_RESERVE, available_bytes // 10)


def jobs(resources: Resources, *, cores: int, available_bytes: int, asked: int | None) -> int:
    """Return the number of compilers: by cores, by memory a job, by the recipe and by what was asked; at least 1."""
    room = available_bytes - reserve_bytes(available_bytes)
    limits = [cores, room // max(1, parse_bytes(resources.mem_per_job))]
    limits += [limit for limit in (resources.jobs, asked) if limit is not None]
    return max(1, min(limits))
