"""Writing merged recipes as TOML again, each key with the place that set it where that is asked for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from builder.recipe.convert import key_of
from builder.recipe.model import Recipe
from builder.values import fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["toml"]

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def toml(raw: Mapping[str, Any], comment: Callable[[str], str | None] = lambda _path: None) -> str:
    """Return `raw` as TOML that reads back to the same values, tables in the model's order.

    `comment` gets each key's dotted path and returns what is written behind it.
    """
    order = {key_of(field.name): number for number, field in enumerate(fields(Recipe))}
    top = dict(sorted(raw.items(), key=lambda item: order.get(item[0], len(order))))
    return "\n".join(_table(top, (), "", comment)).strip("\n") + "\n"


def _table(
    table: Mapping[str, Any], words: tuple[str, ...], path: str, comment: Callable[[str], str | None]
) -> Iterator[str]:
    """Yield the lines of a table: its own keys first, then the tables in it."""
    inner = []
    for key, value in table.items():
        where = f"{path}.{key}" if path else key
        if isinstance(value, dict) or _are_tables(value):
            inner.append((key, value, where))
        else:
            yield from _pair(key, value, comment(where))
    for key, value, where in inner:
        header = (*words, key)
        name = ".".join(_key(word) for word in header)
        if isinstance(value, dict):
            lines = list(_table(value, header, where, comment))
            if not value or not all(isinstance(item, dict) for item in value.values()):
                yield from ("", f"[{name}]")
            yield from lines
            continue
        for number, entry in enumerate(value):
            yield from ("", f"[[{name}]]")
            yield from _table(entry, header, f"{where}[{number}]", comment)


def _are_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _key(word: str) -> str:
    import tomli_w  # noqa: PLC0415  # only to quote

    return word if _BARE.fullmatch(word) else tomli_w.dumps({word: 0}).removesuffix(" = 0\n")


def _pair(key: str, value: object, comment: str | None) -> list[str]:
    import tomli_w  # noqa: PLC0415  # only `recipes show` writes TOML

    first, *rest = tomli_w.dumps({key: value}).rstrip("\n").split("\n")
    if comment is None:
        return [first, *rest]
    if rest and ('"""' in first or "'''" in first):  # the first line belongs to the text
        return [f"# {comment}", first, *rest]
    return [f"{first}  # {comment}", *rest]
