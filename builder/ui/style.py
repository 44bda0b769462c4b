"""How text gets onto a stream: colour, width, and what to write where the encoding lacks a symbol.

All texts of `builder.ui` are written with the symbols of `SYMBOLS`; `fit` replaces what a stream can't carry. No state is
told by colour alone.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, TextIO

from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Style", "clean", "clip", "columns", "fit", "of", "size", "span", "visible"]

#: Columns taken for a stream that is no terminal: what fits an ordinary one, a mail and a CI page.
DEFAULT_WIDTH = 80
DEFAULT_HEIGHT = 24

#: Symbol and its stand-in for an encoding that lacks it.
SYMBOLS = {
    "✔": "+",
    "✘": "x",
    "●": "*",
    "▸": ">",
    "▲": "!",
    "◌": "~",
    "■": "#",
    "·": "-",
    "─": "-",
    "→": "->",
    "█": "#",
    "▒": "=",
    "░": ".",
    "▪": "#",
    "…": "...",
    "│": "|",
    "\N{MULTIPLICATION SIGN}": "x",
    "\u2018": "'",  # the quotes of gcc and git
    "\u2019": "'",
}

_TABLE = str.maketrans(SYMBOLS)
_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-_])")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """What a stream can do. `live` says whether a line may be drawn over."""

    color: bool
    live: bool
    encoding: str

    def paint(self, text: str, *names: str) -> str:
        """Return `text` in the named colours, or as it is where there are none."""
        if not self.color or not names or not text:
            return text
        return f"\x1b[{';'.join(_CODES[name] for name in names)}m{text}\x1b[0m"

    def fit(self, text: str) -> str:
        """Return `text` so that the stream's encoding can carry it."""
        return fit(text, self.encoding)


def of(stream: TextIO, env: Mapping[str, str], color: str = "auto") -> Style:
    """Return the style of `stream`: ``--color``, then NO_COLOR, then FORCE_COLOR, then whether it is a terminal."""
    terminal = _is_terminal(stream) and env.get("TERM", "") not in {"", "dumb"}
    if color != "auto":
        colored = color == "always"
    elif env.get("NO_COLOR"):
        colored = False
    elif forced := env.get("FORCE_COLOR"):
        colored = forced != "0"
    else:
        colored = terminal
    return Style(color=colored, live=terminal and not env.get("CI"), encoding=stream.encoding or "utf-8")


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


def columns(stream: TextIO) -> int:
    """Return the width of the terminal behind `stream`, or `DEFAULT_WIDTH`."""
    return size(stream)[0]


def size(stream: TextIO) -> tuple[int, int]:
    """Return columns and rows of the terminal behind `stream` as they are now, or those of a small one."""
    try:
        found = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):  # no terminal, no file descriptor, closed
        return DEFAULT_WIDTH, DEFAULT_HEIGHT
    return found.columns or DEFAULT_WIDTH, found.lines or DEFAULT_HEIGHT


def fit(text: str, encoding: str) -> str:
    """Return `text` so that `encoding` can carry it: symbols by their stand-ins, the rest as escapes."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(_TABLE).encode(encoding, "backslashreplace").decode(encoding)
    return text


def clean(text: str) -> str:
    """Return a line of somebody else's output without colours, cursor moves and other control characters.

    Of a line that was drawn over with carriage returns the last state stays.
    """
    last = next((part for part in reversed(text.rstrip("\r\n").split("\r")) if part.strip()), "")
    return _CONTROLS.sub(" ", _ESCAPES.sub("", last).expandtabs(8)).rstrip()


def visible(text: str) -> str:
    """Return somebody else's text with all that a terminal would act on spelled out: escapes, line breaks, directions."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def clip(text: str, width: int) -> str:
    """Return `text` shortened to `width` terminal columns; a cut is shown by ``…``."""
    if width <= 0:
        return ""
    if text.isascii() and len(text) <= width:
        return text
    sizes = _sizes(text)
    if sum(sizes) <= width:
        return text
    room, kept = width, len(text)
    for at, one in enumerate(sizes):
        if room - one < 1:
            kept = at
            break
        room -= one
    return text[:kept] + "…"


def span(text: str) -> int:
    """Return how many terminal columns `text` takes; it holds no control characters."""
    return len(text) if text.isascii() else sum(_sizes(text))


def _sizes(text: str) -> list[int]:
    from unicodedata import combining, east_asian_width  # noqa: PLC0415  # most lines are ASCII

    return [0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in text]
