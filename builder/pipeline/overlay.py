"""A ``[[patch]]`` entry in a recipe file, written so that all else in the file stays as somebody wrote it."""

from __future__ import annotations

import json
import re
import tomllib
from typing import TYPE_CHECKING, Any

from builder.errors import UsageError
from builder.recipe.lines import lines

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["with_patch"]

#: A key with a text on one line, and what stands behind it.
_VALUE = r"(\s*{key}\s*=\s*)(?:\"(?:[^\"\\]|\\.)*\"|'[^']*')(.*)"


def with_patch(
    text: str, entry: Mapping[str, str], *, recipe: str, file: Path, comment: str = "", variant: str = ""
) -> str:
    """Return the recipe file `text` with the patch `entry`: changed in place where its ``id`` is there, else added.

    With `variant` it is that variant's entry. `comment` goes above an entry that is new. An empty text becomes a whole
    overlay. Raises UsageError ``overlay-edit`` with the entry to write where it stands in a form that isn't edited by the
    line; `file` is only named.
    """
    there = _Entries(text, variant)
    number = there.number(entry["id"])
    block = there.block(entry)
    if number is None:
        head = text.rstrip("\n") + "\n" if text.strip() else f'schema = 1\nname = "{recipe}"\n'
        made = f"{head}\n{f'# {comment}{chr(10)}' if comment else ''}{block}"
    else:
        made = _changed(text, f"{there.path}[{number}]", entry)
    if not _Entries(made, variant).has(entry):
        raise UsageError(
            "overlay-edit",
            f"the entry of the patch {entry['id']} can't be written into {file}",
            cause=block.rstrip(),
            help="its file is written; write the entry by hand, as a table of its own",
            run=(f"${{EDITOR:-vi}} {file}",),
        )
    return made


class _Entries:
    """The patches of a recipe file, or of one variant in it; `path` is where they stand."""

    def __init__(self, text: str, variant: str) -> None:
        self._variant = variant
        self._known = not variant
        self.path = "patch"
        try:
            table: Any = tomllib.loads(text)
        except tomllib.TOMLDecodeError:
            table = {}
        for number, one in enumerate(_tables(table.get("variant")) if variant else ()):
            if one.get("id") == variant:
                self.path, table, self._known = f"variant[{number}].recipe.patch", one.get("recipe", {}), True
                break
        self._found = _tables(table.get("patch")) if self._known else []

    def number(self, name: str) -> int | None:
        return next((number for number, one in enumerate(self._found) if one.get("id") == name), None)

    def has(self, entry: Mapping[str, str]) -> bool:
        number = self.number(entry["id"])
        return number is not None and entry.items() <= self._found[number].items()

    def block(self, entry: Mapping[str, str]) -> str:
        """Return the lines of a new entry; those of its variant first, where that isn't there."""
        head = "" if self._known else f"[[variant]]\nid = {_quoted(self._variant)}\n\n"
        table = "variant.recipe.patch" if self._variant else "patch"
        return f"{head}[[{table}]]\n" + "".join(f"{key} = {_quoted(value)}\n" for key, value in entry.items())


def _tables(value: object) -> list[dict[str, Any]]:
    return [one if isinstance(one, dict) else {} for one in value] if isinstance(value, list) else []


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _changed(text: str, path: str, entry: Mapping[str, str]) -> str:
    """Return `text` with the values of the entry at `path` replaced in their lines, or put behind its ``id``."""
    places = lines(text)
    rows = text.split("\n")
    more = []
    for key, value in entry.items():
        row = places.get(f"{path}.{key}")
        if row is None:
            more.append(f"{key} = {_quoted(value)}")
        elif found := re.fullmatch(_VALUE.format(key=re.escape(key)), rows[row - 1]):
            rows[row - 1] = f"{found[1]}{_quoted(value)}{found[2]}"
    if more:
        at = places.get(f"{path}.id", len(rows))
        rows[at:at] = more
    return "\n".join(rows)
