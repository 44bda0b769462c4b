"""What became of patches, as a table for people. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.ui.style import span
from builder.ui.table import table
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from builder.patch.values import Verdict

__all__ = ["Row", "status_json", "status_lines"]

_HEAD = ("", "recipe", "patch", "verdict", "why")

_SYMBOLS = {
    "applies": "✔",
    "3-way": "✔",
    "upstream": "▲",
    "reverted": "▲",
    "drifted": "✘",
    "moved": "✘",
    "elsewhere": "·",
}

_WORDS = {
    "3-way": "applies by 3-way",
    "upstream": "upstream already",
    "reverted": "reverted upstream",
    "elsewhere": "not for this source",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The patches of one recipe on one source. `trouble` says why nothing is known of them, where that is so.

    `refused` are patches that the source has already and whose recipe lets no build go on with that.
    """

    recipe: str
    source: str = ""
    verdicts: tuple[Verdict, ...] = ()
    refused: frozenset[str] = frozenset()
    trouble: str = ""

    @property
    def misfits(self) -> tuple[str, ...]:
        """The patches with which no build can go on."""
        return tuple(one.id for one in self.verdicts if one.misfit or one.id in self.refused)


def status_lines(rows: Sequence[Row], *, width: int) -> list[str]:
    """Return the table of all patches, and below it the hunks of those that don't fit."""
    cells = [cell for row in rows for cell in _cells(row)]
    if not cells:
        return ["no patches"]
    cut = [(*cell[:4], cell[4].split("\n")[0]) for cell in cells]
    found = table(_HEAD, cut, width=max(width, 60), shrink=(4,), drop=(4,))
    for row in rows:
        for one in row.verdicts:
            found += _details(row, one, width)
    return found


def _cells(row: Row) -> Iterator[tuple[str, str, str, str, str]]:
    if row.trouble:
        yield "✘", row.recipe, "", "unknown", row.trouble
    for one in row.verdicts:
        symbol, text = _SYMBOLS[one.kind], one.text
        if one.id in row.refused:
            symbol, text = "✘", f'on-upstream = "fail": {text}'
        yield symbol, row.recipe, one.id, _WORDS.get(one.kind, one.kind), text


def _details(row: Row, one: Verdict, width: int) -> Iterator[str]:
    """Yield the places that a patch misses, or a text that the table had no room for."""
    if one.hunks:
        yield ""
        yield f"{row.recipe} {one.id}, on {row.source}:"
        for hunk in one.hunks:
            yield from (f"  {text}" for text in hunk.lines())
        yield from (f"  {text}" for text in one.text.splitlines())
    elif one.misfit and ("\n" in one.text or span(one.text) > width // 2):
        yield ""
        yield f"{row.recipe} {one.id}, on {row.source}:"
        yield from (f"  {text}" for text in one.text.splitlines())


def status_json(rows: Sequence[Row]) -> list[dict[str, object]]:
    """Return the rows for programs."""
    return [
        {
            "recipe": row.recipe,
            "source": row.source,
            "trouble": row.trouble,
            "patches": [{**one.as_json(), "refused": one.id in row.refused} for one in row.verdicts],
        }
        for row in rows
    ]
