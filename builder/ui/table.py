"""Tables for people: columns as wide as they need to be, rows never wider than a terminal. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.ui.style import clip

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["table"]

_GAP = 2


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, width: int, shrink: Sequence[int], drop: Sequence[int] = ()
) -> list[str]:
    """Return a head and one line a row. Where they are wider than `width`, the columns `shrink` are cut, widest first.

    Where even that is too wide, the columns `drop` are left out, the first of them first.
    """
    sizes = [max(len(row[at]) for row in (head, *rows)) for at in range(len(head))]
    least = [len(head[at]) if at in shrink else size for at, size in enumerate(sizes)]
    shown = list(range(len(head)))
    for at in drop:
        if sum(least[at] for at in shown) + _GAP * (len(shown) - 1) <= width:
            break
        shown.remove(at)
    head, rows, sizes = (
        [head[at] for at in shown],
        [[row[at] for at in shown] for row in rows],
        [sizes[at] for at in shown],
    )
    shrink = [shown.index(at) for at in shrink if at in shown]
    while sum(sizes) + _GAP * (len(sizes) - 1) > width:
        widest = max(shrink, key=lambda at: sizes[at] - len(head[at]))
        if sizes[widest] <= len(head[widest]):
            break
        sizes[widest] -= 1
    gap = " " * _GAP
    return [
        gap.join(f"{clip(cell, size):<{size}}" for cell, size in zip(row, sizes, strict=True)).rstrip()
        for row in (head, *rows)
    ]
