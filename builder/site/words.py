"""Sizes, durations, times and digests as pages show them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from builder.recipe.units import show_bytes
from builder.site.html import h

if TYPE_CHECKING:
    from collections.abc import Mapping

    from builder.site.html import Html

__all__ = ["MARKS", "bytes_", "count", "digest", "duration", "mark", "moment", "percent", "when"]

_MINUTE, _HOUR, _DAY = 60, 3600, 86400

#: How a build ended, as a sign and a word. The sign is for the eye, the word for everybody.
MARKS: Mapping[str, tuple[str, str]] = {
    "ok": ("✓", "built"),
    "failed": ("✗", "failed"),
    "interrupted": ("\N{EN DASH}", "interrupted"),
    "killed": ("✗", "killed"),
    "running": ("●", "running"),
}


def bytes_(size: float) -> str:
    """Return a size such as ``321 MiB``, which isn't parted at the blank."""
    return show_bytes(round(size)).replace(" ", "\N{NO-BREAK SPACE}")


def duration(ms: float) -> str:
    """Return a duration in its two largest units: ``850 ms``, ``4.2 s``, ``12 min 30 s``, ``1 h 05 min``."""
    seconds, gap = ms / 1000, "\N{NO-BREAK SPACE}"
    if seconds < 1:
        return f"{ms:.0f}{gap}ms"
    if seconds < 10:  # noqa: PLR2004  # two digits
        return f"{seconds:.1f}{gap}s"
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole}{gap}s"
    if whole < _HOUR:
        return f"{whole // _MINUTE}{gap}min" + (f"{gap}{whole % _MINUTE:02}{gap}s" if whole % _MINUTE else "")
    if whole < _DAY:
        minutes = whole % _HOUR // _MINUTE
        return f"{whole // _HOUR}{gap}h" + (f"{gap}{minutes:02}{gap}min" if minutes else "")
    return f"{whole // _DAY}{gap}d{gap}{whole % _DAY // _HOUR}{gap}h"


def moment(seconds: float) -> datetime | None:
    """Return a time that a record states, or None for one that no calendar has."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return None


def when(seconds: float) -> Html:
    """Return a moment for people and for programs; the script makes an age of it, with the date as a hint."""
    found = moment(seconds)
    if found is None:
        return h("span", "unknown")
    shown = f"{found.day} {found:%b %Y, %H:%M} UTC".replace(" ", "\N{NO-BREAK SPACE}")
    return h("time", shown, datetime=found.strftime("%Y-%m-%dT%H:%M:%SZ"))


def count(number: int, word: str) -> str:
    """Return ``1 wheel``, ``1,204 wheels``."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def percent(part: float, whole: float) -> str:
    """Return a share as people write it: all is 100 %, and nothing else is."""
    share = round(100 * part / whole) if whole else 0
    if 0 < part < whole and share in {0, 100}:
        return "<1\N{NO-BREAK SPACE}%" if not share else ">99\N{NO-BREAK SPACE}%"
    return f"{share}\N{NO-BREAK SPACE}%"


def digest(text: str, *, length: int = 10) -> Html:
    """Return the start of a digest, as one types it."""
    return h("code", text[:length], class_="digest", title=text if len(text) > length else None)


def mark(outcome: str) -> Html:
    """Return how a build ended."""
    sign, word = MARKS.get(outcome, ("?", outcome))
    return h(
        "span",
        h("span", sign, aria_hidden="true"),
        " ",
        word,
        class_=f"mark {outcome if outcome in MARKS else ''}".strip(),
    )
