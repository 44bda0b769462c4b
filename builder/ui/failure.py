"""The error screen: the last thing printed, and its last line is what to type."""

from __future__ import annotations

import contextlib
import json
import textwrap
from typing import TYPE_CHECKING, TextIO

from builder.ui import style as styles

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from builder.errors import SparkError
    from builder.ui.style import Style

__all__ = ["JSON_VERSION", "color_of", "error_lines", "show"]

JSON_VERSION = 1

_INDENT = "  "
_WIDEST = 100


def show(
    error: SparkError,
    *,
    stdout: TextIO,
    stderr: TextIO,
    env: Mapping[str, str],
    as_json: bool,
    color: str = "auto",
) -> None:
    """Print `error`: as a screen on `stderr`, or with `as_json` as one JSON document on `stdout`."""
    if as_json:
        document = {"version": JSON_VERSION, "error": error.as_json()}
        text, stream = json.dumps(document, indent=2, sort_keys=True), stdout
    else:
        style = styles.of(stderr, env, color)
        lines = error_lines(error, style=style, width=styles.columns(stderr))
        text, stream = "\n".join(style.fit(line) for line in lines), stderr
    with contextlib.suppress(BrokenPipeError):
        stream.write(text + "\n")
        stream.flush()


def color_of(words: Sequence[str]) -> str:
    """Return what ``--color`` says on a command line, which may be one that can't be parsed; ``auto`` without it."""
    for at, word in enumerate(words):
        flag, equals, value = word.partition("=")
        if flag == "--color":
            said = value if equals else "".join(words[at + 1 : at + 2])
            return said if said in {"always", "never"} else "auto"
    return "auto"


def error_lines(error: SparkError, *, style: Style, width: int) -> list[str]:
    """Return the screen: ``error[slug]: summary``, then what there is of cause, help and commands.

    The cause may quote a tool: its lines are only folded, and only on a terminal. Help is prose and is wrapped; a command
    stays on one line.
    """
    head = style.paint(f"error[{error.code}]", "red", "bold") + ": "
    room = max(min(width, _WIDEST) - 9, 20)
    summary, advice = styles.visible(error.summary), styles.visible(error.help)
    first, *rest = _wrapped(summary, width - len(error.code) - 9, width - 2) if style.live else [summary]
    cause = [styles.visible(styles.clean(line)) for line in error.cause.splitlines()]
    if style.live:
        cause = [part for line in cause for part in _folded(line, width - 9)]
    return [
        head + style.paint(first, "bold"),
        *(_INDENT + style.paint(line, "bold") for line in rest),
        *_block("cause", cause, style, "dim"),
        *_block("help", _wrapped(advice, room, room) if advice else [], style, "cyan"),
        *_block("run", [style.paint(styles.visible(command), "bold") for command in error.run], style, "cyan"),
    ]


def _wrapped(text: str, first: int, other: int) -> list[str]:
    """Return prose in lines of at most `other` columns, the first of at most `first`."""
    gap = " " * max(0, other - first)
    lines = textwrap.wrap(gap + text, max(other, 20), break_long_words=False, break_on_hyphens=False)
    return [lines[0].removeprefix(gap), *lines[1:]] if lines else [""]


def _folded(line: str, width: int) -> list[str]:
    """Return a quoted line in pieces of `width` columns; what goes on is set in under it."""
    margin = " " * min(len(line) - len(line.lstrip()) + 4, 20)
    return textwrap.wrap(line, max(width, 40), subsequent_indent=margin, break_on_hyphens=False) or [""]


def _block(name: str, lines: list[str], style: Style, color: str) -> list[str]:
    heads = [style.paint(f"{name + ':':<7}", color), *[" " * 7] * (len(lines) - 1)]
    return [f"{_INDENT}{head}{line}".rstrip() for head, line in zip(heads, lines, strict=False)]
