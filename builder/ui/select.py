"""Which screen is drawn: by ``--progress``, then SPARK_BUILD_PROGRESS, then plain lines."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Protocol, TextIO

from builder.errors import UsageError
from builder.events import JsonLines

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from builder.events import Event

__all__ = ["CHOICES", "Screen", "screen"]

CHOICES = ("auto", "plain", "json", "quiet")
VARIABLE = "SPARK_BUILD_PROGRESS"


class Screen(Protocol):
    """A sink that has to be closed before anything else is written to its stream."""

    def emit(self, event: Event) -> None:
        """Show `event`."""

    def close(self) -> None:
        """Leave the stream in order."""


def screen(
    progress: str, *, stream: TextIO, env: Mapping[str, str], clock: Callable[[], float], color: str = "auto"
) -> Screen:
    """Return the screen that `progress` names, drawing on `stream`. Raises UsageError for a word in `env` that is none."""
    match _chosen(progress, env):
        case "quiet":
            return Quiet()
        case "json":
            return Json(stream, clock)
    from builder.ui import style  # noqa: PLC0415  # --progress json needs none of it
    from builder.ui.plain import Plain  # noqa: PLC0415

    return Plain(stream, style=style.of(stream, env, color), clock=clock)


def _chosen(progress: str, env: Mapping[str, str]) -> str:
    if progress != "auto" or not (named := env.get(VARIABLE)):
        return progress
    if named not in CHOICES:
        raise UsageError("usage", f"{VARIABLE} is {named!r}", cause=f"wanted: {', '.join(CHOICES)}")
    return named


class Quiet:
    """Shows nothing."""

    def emit(self, event: Event) -> None:
        """Pass over `event`."""

    def close(self) -> None:
        """There is nothing to leave."""


class Json:
    """Writes each event as a JSON line, raw output too: a log of the whole run for a program that reads along."""

    def __init__(self, stream: TextIO, clock: Callable[[], float]) -> None:
        self._lines = JsonLines(stream, build="", clock=clock, printed=True)

    def emit(self, event: Event) -> None:
        """Write `event`; a reader that went away doesn't stop a build."""
        with contextlib.suppress(OSError, ValueError):
            self._lines.emit(event)

    def close(self) -> None:
        """Every line was flushed."""
