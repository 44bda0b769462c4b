"""Which screen is drawn: by ``--progress``, then SPARK_BUILD_PROGRESS, then by whether somebody sits before it."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Protocol, TextIO

from builder.errors import UsageError
from builder.events import JsonLines

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from builder.events import Event
    from builder.ui.controls import Controls

__all__ = ["CHOICES", "Screen", "screen"]

CHOICES = ("auto", "live", "plain", "json", "quiet")
VARIABLE = "SPARK_BUILD_PROGRESS"


class Screen(Protocol):
    """A sink that has to be closed before anything else is written to its stream."""

    def emit(self, event: Event) -> None:
        """Show `event`."""

    def hang_up(self) -> None:
        """Know that a terminal is gone: from now on nothing is drawn on it. Safe in a signal handler."""

    def close(self) -> None:
        """Leave the stream in order."""


def screen(
    progress: str,
    *,
    stream: TextIO,
    env: Mapping[str, str],
    clock: Callable[[], float],
    color: str = "auto",
    keys: int | None = None,
    controls: Controls | None = None,
    leave: str = "stop and keep",
) -> Screen:
    """Return the screen that `progress` names, drawing on `stream`. Raises UsageError for a word in `env` that is none.

    ``auto`` is the live view where `stream` and the descriptor `keys` are terminals that can be drawn over and no CI, else
    plain lines; ``live`` needs only the first. `controls` takes what is asked for by key, `leave` says what Ctrl-C does.
    """
    chosen = _chosen(progress, env)
    match chosen:
        case "quiet":
            return Quiet()
        case "json":
            return Json(stream, clock)
    from builder.ui import style as styles  # noqa: PLC0415  # --progress json needs none of it

    style = styles.of(stream, env, color)
    keys = keys if keys is not None and os.isatty(keys) else None
    if style.live and (chosen == "live" or (chosen == "auto" and keys is not None)):
        from builder.ui.live import Live  # noqa: PLC0415

        return Live(stream, style=style, clock=clock, env=env, keys=keys, controls=controls, leave=leave)
    from builder.ui.plain import Plain  # noqa: PLC0415

    return Plain(stream, style=style, clock=clock)


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

    def hang_up(self) -> None:
        """Nothing was shown before, either."""

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

    def hang_up(self) -> None:
        """Go on: whoever reads along isn't a terminal, and a reader that went away is passed over."""

    def close(self) -> None:
        """Every line was flushed."""
