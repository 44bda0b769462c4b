"""What was meant by a name that isn't there."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["near"]


def near(word: str, known: Iterable[str]) -> str:
    """Return what to say behind the unknown `word`: the known names that are like it, if any."""
    import difflib  # noqa: PLC0415  # only for messages

    close = difflib.get_close_matches(word.lower(), tuple(known), 3)
    return f"; near: {', '.join(close)}" if close else ""
