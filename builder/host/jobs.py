"""How many compilers run at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from builder.recipe.model import Resources

__all__ = ["jobs", "reserve_bytes"]

_LEAST_RESERVE = 4 << 30


def reserve_bytes(available_bytes: int) -> int:
    """Return what is left to everything else: a tenth, at least 4 GiB."""
    return max(_LEAST_RESERVE, available_bytes // 10)


def jobs(resources: Resources, *, cores: int, asked: int | None) -> int:
    """Return how many compilers may run at once, at least 1. Memory isn't asked: the gate admits by what each one needs."""
    return max(1, min(limit for limit in (cores, resources.jobs, asked) if limit is not None))
