"""The permanent lines of the plain screen: time, symbol, phase, what, how long. Pure."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from builder.recipe.units import show_seconds
from builder.ui.style import clip

if TYPE_CHECKING:
    from builder.ui.style import Style

__all__ = ["COLORS", "INDENT", "WIDEST", "label", "permanent", "quoted"]

#: Where the text of a line begins: after time, symbol and phase.
INDENT = 20

#: Beyond this a duration at the right edge is too far from what it belongs to.
WIDEST = 100

COLORS = {
    "✔": ("green",),
    "✘": ("red", "bold"),
    "■": ("yellow",),
    "▲": ("yellow",),
    "●": ("cyan",),
    "▸": ("cyan",),
    "◌": ("yellow",),
    "·": ("dim",),
}


def label(phase: str, output: str | None) -> str:
    """Return what is going on in a phase, in short."""
    return f"{phase} {output}" if output else phase


def permanent(  # the columns of a line
    now: float,
    symbol: str,
    name: str,
    text: str,
    *,
    style: Style,
    width: int,
    took_s: float | None = None,
) -> str:
    """Return a permanent line, without its end.

    On a terminal it is wrapped at spaces and goes on under its text; elsewhere it stays one line, for `grep`.
    """
    head = time.strftime("%H:%M:%S", time.localtime(now))
    took = "" if took_s is None else show_seconds(took_s)
    edge = min(width, WIDEST)
    room = edge - INDENT - (len(took) + 2 if took else 0)
    parts = [text]
    if style.live:
        import textwrap  # noqa: PLC0415  # few texts are that long

        # Only a line with a duration has to keep its right edge; elsewhere a path stays whole for copying.
        parts = textwrap.wrap(text, max(room, 10), break_long_words=bool(took), break_on_hyphens=False) or [""]
    first, *rest = parts
    gap = " " * max(2, edge - INDENT - len(first) - len(took)) if took else ""
    lines = [
        f"{style.paint(head, 'dim')} {style.paint(symbol, *COLORS[symbol])} {style.paint(f'{name:<8}', 'bold')} "
        f"{first}{gap}{style.paint(took, 'dim')}".rstrip()
    ]
    return "\n".join([*lines, *(" " * INDENT + part for part in rest)])


def quoted(title: str, lines: tuple[str, ...], *, style: Style, width: int) -> list[str]:
    """Return somebody else's output under a rule that names it. A terminal gets one row a line; the log has all of it."""
    edge = min(width, WIDEST)
    rule = clip(f"── {title} ", edge)
    rule += "─" * (edge - len(rule))
    shown = (clip(line, width - 2) for line in lines) if style.live else lines
    return [style.paint(rule, "dim"), *(f"  {line}".rstrip() for line in shown)]
