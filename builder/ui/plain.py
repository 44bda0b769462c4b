"""The plain screen: one permanent line a phase, a sign of life for what takes longer, the last lines of what failed.

What runs at the moment is shown on a terminal by one line that is drawn over at most four times a second; elsewhere by
a line when it takes more than two seconds, and another one now and then. `tick` does that; a thread calls it, and since it
and the program both draw, one lock guards all state.

A screen never stops a build: a stream that can't be written any more is left alone.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, TextIO

from builder import events
from builder.ui import lines
from builder.ui.beat import Beat
from builder.ui.style import columns
from builder.ui.teller import LONG_S, Teller

if TYPE_CHECKING:
    from collections.abc import Callable

    from builder.ui.style import Style
    from builder.ui.teller import Task

__all__ = ["Plain"]

#: How often elsewhere than on a terminal.
FETCH_S, PHASE_S = 10.0, 30.0

_CLEAR = "\r\x1b[K"


class Plain:
    """A sink that draws on `stream`. `width` gives its columns now; `clock` is in seconds; `beats` starts the timer."""

    def __init__(
        self,
        stream: TextIO,
        *,
        style: Style,
        clock: Callable[[], float],
        width: Callable[[], int] | None = None,
        beats: bool = True,
    ) -> None:
        self._stream = stream
        self._style = style
        self._clock = clock
        self._width = width or (lambda: columns(stream))
        self._lock = threading.Lock()
        self._beat = Beat(self.tick, period_s=0.25 if style.live else 1.0) if beats else None
        self._teller = Teller(style=style, width=self._width)
        self._drawn = ""
        self._gone = False

    def emit(self, event: events.Event) -> None:
        """Show `event`; one that isn't known is passed over."""
        if isinstance(event, events.Printed) and self._teller.plain_output:
            self._teller.printed(event)  # `tick` shows it: output comes by the thousand lines
            return
        with self._lock:
            self._write(self._teller.take(event, self._clock()))
            if self._beat and self._teller.current:
                self._beat.start()

    def tick(self) -> None:
        """Show what is going on at the moment, when it is time for that."""
        with self._lock:
            now, task = self._clock(), self._teller.current
            if task is None:
                return
            if self._style.live:
                self._draw(self._teller.status(task, now, min(self._width(), lines.WIDEST)))
            elif self._due(task, now):
                first, task.told = task.told is None, now
                words = self._teller.begun if first and task.kind == "phase" else None
                text = words(task) if words else self._teller.going(task, now)
                self._write([self._teller.line(now, "▸", task.name, text)])

    def close(self) -> None:
        """Leave the stream as it should be found: no timer draws after this."""
        if self._beat:
            self._beat.stop()
        with self._lock:
            self._teller.idle()
            self._write([])

    def hang_up(self) -> None:
        """Write nothing more to a terminal, which is gone; a file or a pipe gets its lines as ever."""
        self._gone = self._style.live

    def _due(self, task: Task, now: float) -> bool:
        if task.told is None:
            return now - task.began >= LONG_S
        return now - task.told >= (FETCH_S if task.kind == "fetch" else PHASE_S)

    def _draw(self, text: str) -> None:
        if text != self._drawn:
            self._put(_CLEAR + self._style.fit(text))
            self._drawn = text

    def _write(self, told: list[str]) -> None:
        clear = _CLEAR if self._drawn and (told or not self._teller.current) else ""
        text = clear + "".join(self._style.fit(line) + "\n" for line in told)
        if clear:
            self._drawn = ""
        if text:
            self._put(text)

    def _put(self, text: str) -> None:
        if self._gone:
            return
        with contextlib.suppress(OSError, ValueError):  # nobody there to see it
            self._stream.write(text)
            self._stream.flush()
