"""The plain screen: one permanent line a phase, a sign of life for what takes longer, the last lines of what failed.

What runs at the moment is shown on a terminal by one line that is drawn over at most four times a second; elsewhere by
a line when it takes more than two seconds, and another one now and then. `tick` does that; a thread calls it, and since it
and the program both draw, one lock guards all state.

A screen never stops a build: a stream that can't be written any more is left alone.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from typing import TYPE_CHECKING, TextIO

from builder import events
from builder.recipe.units import show_bytes, show_seconds
from builder.ui import lines
from builder.ui.beat import Beat
from builder.ui.style import clean, clip, columns

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

    from builder.ui.style import Style

__all__ = ["Plain"]

#: What takes longer than this is shown while it runs.
LONG_S = 2.0
#: How often elsewhere than on a terminal.
FETCH_S, PHASE_S = 10.0, 30.0
#: How many lines of a failed phase are shown.
TAIL = 20
#: How many reasons of a rebuild are shown; `spark-build why` has all.
REASONS = 4
#: Phases that every call goes through, hits too: told only when they took long. An error of theirs has its own screen.
UNTOLD = frozenset({"pin", "host", "lock"})

_CLEAR = "\r\x1b[K"
_ENDINGS = {"ok": "✔", "cached": "✔", "failed": "✘", "interrupted": "■"}


class _Task:
    """What is going on: the words for it, since when, and when it was last told."""

    def __init__(  # a record that changes; as a dataclass of the library it would cost every hit 5 ms
        self,
        kind: Literal["phase", "fetch", "wait"],
        name: str,
        what: str,
        began: float,
        *,
        told: float | None = None,
        log: str | None = None,
        detail: str = "",
        first: int = 0,
    ) -> None:
        self.kind = kind
        self.name = name
        self.what = what
        self.began = began
        self.told = told
        self.log = log
        self.detail = detail
        self.first = first
        self.done = 0
        self.total: int | None = None
        self.seen = 0.0


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
        self._phase: _Task | None = None
        self._fetch: _Task | None = None
        self._wait: _Task | None = None
        self._tail: deque[str] = deque(maxlen=TAIL)
        self._recipe = ""
        self._fingerprint = ""
        self._estimate_s: int | None = None
        self._spent_s = 0.0
        self._drawn = ""

    def emit(self, event: events.Event) -> None:
        """Show `event`; one that isn't known is passed over."""
        with self._lock:
            now = self._clock()
            told = [*self._leave(event, now), *self._take(event, now)]
            self._write(told)
            if self._beat and self._current():
                self._beat.start()

    def tick(self) -> None:
        """Show what is going on at the moment, when it is time for that."""
        with self._lock:
            now, task = self._clock(), self._current()
            if task is None:
                return
            if self._style.live:
                self._draw(self._status(task, now))
            elif self._due(task, now):
                first, task.told = task.told is None, now
                text = self._begun(task) if first and task.kind == "phase" else self._going(task, now)
                self._write([self._line(now, "▸", task.name, text)])

    def close(self) -> None:
        """Leave the stream as it should be found: no timer draws after this."""
        if self._beat:
            self._beat.stop()
        with self._lock:
            self._phase = self._fetch = self._wait = None
            self._write([])

    # --- what an event changes

    def _current(self) -> _Task | None:
        return self._wait or self._fetch or self._phase

    def _leave(self, event: events.Event, now: float) -> list[str]:
        """End what `event` shows to be over: waiting, and a transfer that nobody says the end of."""
        self._wait = None
        task = self._fetch
        same = isinstance(event, events.Fetching) and task is not None and event.name == task.what
        if task is None or same:
            return []
        self._fetch = None
        return self._fetched(task, now)

    def _take(self, event: events.Event, now: float) -> list[str]:  # noqa: C901, PLR0911  # one case an event
        match event:
            case events.SourcePinned():
                return [self._pinned(event, now)]
            case events.Fetching():
                return self._fetching(event, now)
            case events.PlanMade():
                return self._planned(event, now)
            case events.BuildStarted():
                return self._started(event, now)
            case events.PhaseStarted():
                self._tail.clear()
                self._phase = _Task("phase", event.phase, event.output or "", now, log=event.log)
            case events.Printed():
                self._printed(event)
            case events.PhaseEnded():
                return self._ended(event, now)
            case events.Waiting():
                self._wait = _Task("wait", "waiting", event.what, now, told=now, detail=event.holder)
                return [self._line(now, "◌", "waiting", f"for {event.what}, held by {clean(event.holder)}")]
            case events.Note():
                symbol = "▲" if event.level == "warning" else "·"
                return [self._line(now, symbol, event.level.replace("info", "note"), event.text)]
            case events.Stored():
                text = f"{event.output}, {show_bytes(event.size)}, sha256 {event.sha256[:16]}…"
                return [self._line(now, "✔", "stored", text)]
            case events.BuildEnded():
                return self._finished(event, now)
        return []

    def _pinned(self, event: events.SourcePinned, now: float) -> str:
        text = f"{event.recipe}: {event.text}"
        if event.stale_s is None:
            return self._line(now, "✔", "source", text)
        return self._line(
            now, "▲", "source", f"{text}, as of {show_seconds(event.stale_s)} ago: the remote wasn't asked"
        )

    def _fetching(self, event: events.Fetching, now: float) -> list[str]:
        task = self._fetch
        if task is None:
            task = self._fetch = _Task("fetch", "fetch", event.name, now, first=event.done)
        task.done, task.total, task.seen = event.done, event.total, now
        if event.done != event.total:
            return []
        self._fetch = None
        return self._fetched(task, now)

    def _fetched(self, task: _Task, now: float) -> list[str]:
        took = (task.seen or now) - task.began
        if took < LONG_S:
            return []
        return [self._line(now, "✔", "fetch", f"{task.what}, {_amount(task)}", took_s=took)]

    def _planned(self, event: events.PlanMade, now: float) -> list[str]:
        self._recipe, self._fingerprint, self._estimate_s = event.recipe, event.fingerprint, event.estimate_s
        about = f"; about {show_seconds(event.estimate_s)}" if event.estimate_s is not None else ""
        head = f"{event.recipe} {event.fingerprint[:10]}: build {', '.join(event.misses)}{about}"
        reasons = [f"because {reason}" for reason in event.reasons[:REASONS]]
        if more := len(event.reasons) - len(reasons):
            reasons.append(f"and {more} more: spark-build why {event.recipe}")
        return [self._line(now, "●", "plan", head), *(self._line(now, "·", "", reason) for reason in reasons)]

    def _started(self, event: events.BuildStarted, now: float) -> list[str]:
        self._recipe, self._fingerprint, self._spent_s = event.recipe, event.fingerprint, 0.0
        name = f"{event.recipe} {event.version}" if event.version else event.recipe
        attempt = f", attempt {event.attempt}" if event.attempt > 1 else ""
        text = f"{name} as {event.label}{attempt}"
        if event.isolation == "none":
            return [self._line(now, "▲", "start", f"{text}; isolation none: the build can reach the network")]
        return [self._line(now, "●", "start", text)]

    def _printed(self, event: events.Printed) -> None:
        text = clean(event.text)
        self._tail.append(text)
        if self._phase and text.strip():
            self._phase.detail = text.strip()

    def _ended(self, event: events.PhaseEnded, now: float) -> list[str]:
        task, self._phase = self._phase, None
        took = event.ms / 1000
        if event.phase == "build" and event.status == "ok":
            self._spent_s += took
        if event.phase in UNTOLD and took < LONG_S:
            return []
        text = ": ".join(part for part in (event.output, event.text) if part)
        told = [self._line(now, _ENDINGS[event.status], event.phase, text, took_s=took)]
        if event.status == "failed" and task:
            if self._tail:
                title = f"last lines of {lines.label(event.phase, event.output)}"
                told += lines.quoted(title, tuple(self._tail), style=self._style, width=self._width())
            if task.log:
                told.append(f"log: {task.log}")
        return told

    def _finished(self, event: events.BuildEnded, now: float) -> list[str]:
        self._phase = None
        peak = f", peak {show_bytes(event.peak_bytes)}" if event.peak_bytes else ""
        name = {"ok": "done", "cached": "done", "failed": "failed", "interrupted": "stopped"}[event.status]
        text = f"{self._recipe} {self._fingerprint[:10]}{peak}"
        if event.status == "interrupted" and event.summary:
            text += f": {event.summary}"
        return [self._line(now, _ENDINGS[event.status], name, text, took_s=event.ms / 1000)]

    # --- what is going on

    def _due(self, task: _Task, now: float) -> bool:
        if task.told is None:
            return now - task.began >= LONG_S
        return now - task.told >= (FETCH_S if task.kind == "fetch" else PHASE_S)

    def _begun(self, task: _Task) -> str:
        parts = [task.what, self._expected(task), f"log: {task.log}" if task.log else ""]
        return ", ".join(part for part in parts if part) or "running"

    def _expected(self, task: _Task) -> str:
        known = self._estimate_s is not None and task.name == "build"
        return f"about {show_seconds(self._estimate_s)}" if known and self._estimate_s is not None else ""

    def _going(self, task: _Task, now: float) -> str:
        elapsed = max(0.0, now - task.began)
        match task.kind:
            case "wait":
                return f"for {task.what}, {show_seconds(elapsed)} by now"
            case "fetch":
                rate = (task.done - task.first) / elapsed if elapsed > 0 else 0
                return f"{task.what}, {_amount(task)}, {show_bytes(int(rate))}/s"
        words = f"{task.what} {show_seconds(elapsed)}".strip()
        if task.name == "build" and self._estimate_s is not None:
            left = self._estimate_s - self._spent_s - elapsed
            words += f", about {show_seconds(left)} left" if left >= 1 else ", longer than usual"
        return f"{words} · {task.detail}" if task.detail else words

    def _status(self, task: _Task, now: float) -> str:
        symbol = "◌" if task.kind == "wait" else "▸"
        width = min(self._width(), lines.WIDEST)
        room = max(width - lines.INDENT - 1, 10)
        return lines.permanent(
            now,
            symbol,
            task.name,
            clip(self._going(task, now), room),
            style=self._style,
            width=width,
        )

    # --- drawing

    def _line(self, now: float, symbol: str, name: str, text: str, *, took_s: float | None = None) -> str:
        return lines.permanent(now, symbol, name, text, style=self._style, width=self._width(), took_s=took_s)

    def _draw(self, text: str) -> None:
        if text != self._drawn:
            self._put(_CLEAR + self._style.fit(text))
            self._drawn = text

    def _write(self, told: list[str]) -> None:
        clear = _CLEAR if self._drawn and (told or not self._current()) else ""
        text = clear + "".join(self._style.fit(line) + "\n" for line in told)
        if clear:
            self._drawn = ""
        if text:
            self._put(text)

    def _put(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # nobody there to see it
            self._stream.write(text)
            self._stream.flush()


def _amount(task: _Task) -> str:
    if task.total is None or task.done == task.total:
        return show_bytes(task.done)
    percent = f" ({100 * task.done // task.total}%)" if task.total else ""
    return f"{show_bytes(task.done)} of {show_bytes(task.total)}{percent}"
