"""``${name}`` in recipe values, from a closed list of names."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from builder.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["expand", "names"]

_NAME = re.compile(r"\$\{([^}]*)\}")


def names(text: str) -> tuple[str, ...]:
    """Return the names that `text` uses, in order."""
    return tuple(_NAME.findall(text))


def expand(text: str, values: Mapping[str, str]) -> str:
    """Return `text` with each ``${name}`` replaced; raise RecipeError for a name that isn't in `values`."""

    def value(found: re.Match[str]) -> str:
        if found[1] not in values:
            known = ", ".join(sorted(values))
            raise RecipeError(
                "interpolation", f"${{{found[1]}}} is not a name that recipes know", cause=f"known: {known}"
            )
        return values[found[1]]

    return _NAME.sub(value, text)
