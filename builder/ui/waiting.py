"""One line on stderr about work that may say nothing for minutes: what it does, since when, and what it said last."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, TextIO

from builder.recipe.units import show_seconds
from builder.ui import audit
from builder.ui.beat import Beat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["waiting"]

#: How often the line is brought up to date though nothing was said: on a terminal, and in a log, where each one stays.
_LIVE_S, _LOG_S = 1.0, 10.0


@contextlib.contextmanager
def waiting(
    stream: TextIO, env: Mapping[str, str], clock: Callable[[], float], doing: str
) -> Iterator[Callable[[str], None]]:
    """Give what takes note of what is said; from two seconds on a line tells `doing`, the time it took, and that.

    On a terminal nothing is left of it afterwards.
    """
    began, lock, last = clock(), threading.Lock(), ""
    with audit.progress(stream, env, clock) as write:

        def show() -> None:
            with lock:
                write(f"{doing}, {show_seconds(clock() - began)}" + (f": {last}" if last else ""))

        def tell(text: str) -> None:
            nonlocal last
            last = text
            show()

        beat = Beat(show, period_s=_LIVE_S if stream.isatty() else _LOG_S)
        beat.start()
        try:
            yield tell
        finally:
            beat.stop()
