"""How much there is in a wheelhouse, in numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

    from builder.index.listing import House

__all__ = ["Totals", "read"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """`wheels` by state; `bytes` is what they take together; `generation` grows with each change that a page could show."""

    wheels: Mapping[str, int]
    bytes: int
    projects: int
    channels: int
    generation: int


def read(house: House) -> Totals:
    """Return the numbers as they are now."""
    rows = house.catalogue.rows("SELECT state, count(*), sum(size) FROM wheels GROUP BY state ORDER BY state")
    numbers = house.catalogue.rows(
        "SELECT (SELECT count(DISTINCT project) FROM wheels), (SELECT count(*) FROM channels), "
        "(SELECT value FROM state WHERE key='generation')"
    )[0]
    return Totals(
        wheels={row[0]: row[1] for row in rows},
        bytes=sum(row[2] for row in rows),
        projects=numbers[0],
        channels=numbers[1],
        generation=numbers[2],
    )
