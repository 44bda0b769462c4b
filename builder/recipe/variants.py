"""Which of a recipe's variants are in, found before its tables have types; and ``--set`` of entries that aren't there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from builder.errors import RecipeError
from builder.recipe.convert import Mistake
from builder.recipe.layers import NAMED, merge
from builder.recipe.near import near

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from builder.recipe.layers import Layer

__all__ = ["chosen", "unknown"]


def chosen(
    recipe: str, raw: Mapping[str, Any], settings: Sequence[Layer], variants: Mapping[str, bool]
) -> dict[str, int]:
    """Return the variants that are in, by id, with their place in the array.

    Those are in that `variants` asks for, and those in by default that it doesn't leave out; `settings` may change the
    default. Raises RecipeError ``variant-unknown``.
    """
    ids = _named(raw, "variant")
    for word in variants:
        if word not in ids:
            raise RecipeError(
                "variant-unknown",
                f"the recipe {recipe} has no variant {word}{near(word, ids)}",
                cause=f"its variants: {', '.join(ids)}" if ids else "it has none",
                run=(f"spark-build recipes show {recipe}",),
            )
    for layer in settings if ids else ():
        raw = merge(raw, layer, {})
    tables = raw.get("variant")
    found = {}
    for word, number in ids.items():
        table = tables[number] if isinstance(tables, list) else {}
        # What is of a wrong type is told when the tables get their types.
        if isinstance(table.get("recipe"), dict) and variants.get(word, table.get("default")) is True:
            found[word] = number
    return found


def unknown(raw: Mapping[str, Any], settings: Sequence[Layer]) -> Iterator[Mistake]:
    """Yield where `settings` reach into a `fetch` or `variant` entry that isn't there: one ``--set`` can't make one."""
    for layer in settings:
        for table in ("fetch", "variant"):
            known = _named(raw, table)
            for word in _named(layer.values, table):
                if word not in known:
                    hint = near(word, known) or f"; known: {', '.join(known) or 'none'}"
                    yield Mistake(path=f"{table}[{len(known)}]", text=f"there is no {table} `{word}`{hint}")


def _named(raw: Mapping[str, Any], table: str) -> dict[str, int]:
    """Return the names of a named array's entries with their places; of one that is there twice the first."""
    entries = raw.get(table)
    found: dict[str, int] = {}
    for number, entry in enumerate(entries if isinstance(entries, list) else ()):
        if isinstance(entry, dict) and isinstance(name := entry.get(NAMED[table]), str):
            found.setdefault(name, number)
    return found
