"""The live view: the permanent lines of the plain screen, and below them a small region that is drawn over.

No alternate screen: what is permanent goes into the terminal's own scrollback. A frame is one ``write``: the cursor goes up
to where the region began, what is new and permanent is written there, then the region. It is wrapped in DEC's synchronized
output (mode 2026), which terminals that don't know it pass over. Frames come at most four times a second.

A library to drive the terminal would cost more at start-up than a hit takes, and needs no less care here: all that a frame
uses is going up, erasing and colours. How far up depends on the terminal's width at this moment, which is asked for each
frame: when the window has become narrower, terminals fold the lines of the region, all but those in `_NO_REFLOW`.

A screen never stops a build: a stream that can't be written any more is left alone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, TextIO

from builder import events
from builder.ui import keys as keyboard
from builder.ui import lines
from builder.ui.beat import Beat
from builder.ui.style import size, span
from builder.ui.teller import Teller

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import FrameType

    from builder.ui.controls import Controls
    from builder.ui.style import Style
    from builder.ui.teller import Task

__all__ = ["Live"]

#: Least seconds between two frames.
FRAME_S = 0.25

#: How long a wish by key is shown when the gate doesn't fulfil it.
_WISH_S = 1.0

_BEGIN, _END = "\x1b[?2026h", "\x1b[?2026l"
_LINE, _ROW, _BELOW = "\x1b[K", "\x1b[2K", "\x1b[J"


class Live:
    """A sink that draws on the terminal `stream` and takes keys from `keys`, a descriptor (None: from nowhere).

    `controls` takes what the keys ask for; without it there are only those that change the view. `leave` says what Ctrl-C
    does. `area` gives columns and rows now, `clock` seconds since the epoch. Signal handlers are set where that can be done.
    """

    def __init__(  # noqa: PLR0913  # what is outside of it
        self,
        stream: TextIO,
        *,
        style: Style,
        clock: Callable[[], float],
        env: Mapping[str, str],
        area: Callable[[], tuple[int, int]] | None = None,
        keys: int | None = None,
        controls: Controls | None = None,
        leave: str = "stop and keep",
        beats: bool = True,
    ) -> None:
        self._stream = stream
        self._style = style
        self._clock = clock
        self._area = area or (lambda: size(stream))
        self._reflows = not (env.get("XTERM_VERSION") or env.get("TERM") == "linux")
        self._lock = threading.Lock()
        self._beat = Beat(self.tick, period_s=FRAME_S) if beats else None
        self._teller = Teller(style=style, width=lambda: self._area()[0])
        self._controls = controls
        self._leave = leave
        self._keys = keyboard.Keys(keys, self.key) if keys is not None else None
        self._handled: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}
        self._pending: list[str] = []
        self._drawn: list[str] = []
        self._spans: list[int] = []
        self._framed = float("-inf")
        self._width = 0
        self._tailing = False
        self._wish: tuple[int, float] | None = None
        self._gone = False

    # --- what a sink does

    def emit(self, event: events.Event) -> None:
        """Show `event`; one that isn't known is passed over."""
        if isinstance(event, events.Printed) and self._teller.plain_output:
            self._teller.printed(event)  # `tick` shows it: output comes by the thousand lines
            return
        with self._lock:
            self._pending += self._teller.take(event, self._clock())
            if self._beat and self._teller.current:
                self._beat.start()
            if not self._teller.current or (self._pending and time.monotonic() - self._framed >= FRAME_S):
                self._frame()
        if isinstance(event, events.PhaseStarted) and event.phase == "build":
            self._watch()

    def tick(self) -> None:
        """Draw what has changed."""
        with self._lock:
            self._frame()

    def close(self) -> None:
        """Leave the terminal as it should be found: no region, its mode and the signal handlers as they were."""
        if self._beat:
            self._beat.stop()
        if self._keys:
            self._keys.stop()
        for number, before in self._handled.items():
            if signal.getsignal(number) == self._signalled:
                signal.signal(number, before)
        self._handled.clear()
        with self._lock:
            self._teller.idle()
            self._frame()

    def hang_up(self) -> None:
        """Draw nothing any more and leave the terminal alone: it is gone. Safe in a signal handler."""
        self._gone = True
        if self._keys:
            self._keys.abandon()

    # --- keys and signals

    def key(self, char: str) -> None:
        """Do what the key `char` stands for; one without a meaning is passed over."""
        match char:
            case "+" | "=":
                self._ask_jobs(1)
            case "-" | "_":
                self._ask_jobs(-1)
            case "p":
                self._ask_pause()
            case "l":
                self._tailing = not self._tailing
                self.tick()
            case "q":
                os.kill(os.getpid(), signal.SIGINT)

    def _ask_jobs(self, more: int) -> None:
        gate = self._teller.gate
        if gate is None or self._controls is None:
            return
        jobs = max(1, (self._wish[0] if self._wish else gate.slots) + more)
        with contextlib.suppress(OSError):
            self._controls.change(jobs=jobs)
            self._wish = jobs, self._clock()

    def _ask_pause(self) -> None:
        if (gate := self._teller.gate) is not None and self._controls is not None:
            with contextlib.suppress(OSError):
                self._controls.change(paused=not gate.paused)

    def _watch(self) -> None:
        """Take keys from now on; the terminal is put right before a signal ends or stops this process."""
        if self._keys is None or self._gone:
            return
        self._keys.start()
        if threading.current_thread() is threading.main_thread() and not self._handled:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTSTP):
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._handled[number] = signal.signal(number, self._signalled)

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        before = self._handled.get(number)
        if self._keys:
            if number == signal.SIGTSTP:
                self._keys.restore()
            else:
                self._keys.stop()
        if number == signal.SIGTSTP:
            self._stop_here()
        elif callable(before):
            before(number, frame)
        else:
            signal.signal(number, before)
            os.kill(os.getpid(), number)

    def _stop_here(self) -> None:
        """Take the region away and stop as the terminal asked; go on below whatever the shell wrote meanwhile."""
        if self._lock.acquire(blocking=False):  # else a frame is just being written, by this very thread perhaps
            try:
                self._put(self._top(self._area()[0], erase=True))
                self._drawn, self._spans = [], []
            finally:
                self._lock.release()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self._signalled)
        self._drawn, self._spans = [], []

    # --- drawing

    def _frame(self) -> None:
        """Write what is permanent and new, and the region where it looks different from what is there."""
        width, height = self._area()
        region = self._region(width, height)
        if not self._pending and region == self._drawn:
            return
        parts = [self._top(width, erase=bool(self._pending) or width != self._width)]
        parts += [self._style.fit(line) + "\n" for line in self._pending]
        parts += ["\n".join(line + _LINE for line in region), _BELOW, "\r"]
        self._put("".join(parts))
        self._pending.clear()
        self._drawn, self._spans = region, [span(_unpainted(line)) for line in region]
        self._width, self._framed = width, time.monotonic()

    def _top(self, width: int, *, erase: bool) -> str:
        """Return what moves the cursor from the start of the region's last line to that of its first.

        Rows are erased one by one: tmux keeps in its scrollback what an erasing of the whole screen takes away.
        """
        rows = sum(max(1, -(-one // width)) if self._reflows else 1 for one in self._spans[:-1])
        if erase:
            return "\r" + (_BELOW if rows else "") + f"{_ROW}\x1b[A" * rows + _ROW
        return f"\r\x1b[{rows}A" if rows else "\r"

    def _region(self, width: int, height: int) -> list[str]:
        task, now = self._teller.current, self._clock()
        if task is None or self._hidden():
            return []
        if task.name != "build" or task.kind != "phase":
            return [self._style.fit(self._teller.status(task, now, min(width, lines.WIDEST)))]
        from builder.ui.region import View, region  # noqa: PLC0415  # only for what is built

        teller, gate = self._teller, self._teller.gate
        if self._wish and gate and (self._wish[0] == gate.slots or now - self._wish[1] > _WISH_S):
            self._wish = None
        view = View(
            head=_titles(teller, task, now),
            gate=gate,
            age_ms=int(max(0.0, now - teller.gate_at) * 1000),
            said=teller.detail(),
            left=teller.left(task, now),
            tail=teller.tail() if self._tailing else None,
            log=task.log or "",
            keys=self._offered(gate),
            wanted=self._wish[0] if self._wish else None,
        )
        return region(view, width, height, self._style)

    def _offered(self, gate: events.GateState | None) -> tuple[str, ...]:
        if self._keys is None:
            return ()
        leave = f"^C {self._leave}"
        if gate is None or self._controls is None:
            return ("l log", leave)
        return ("l log", "+/- jobs", "p go on" if gate.paused else "p pause", leave)

    def _hidden(self) -> bool:
        """Whether a shell has the terminal now: a region would be drawn into its prompt."""
        try:
            return keyboard.ours(self._stream.fileno()) is False
        except (OSError, ValueError):  # a stream without a descriptor
            return False

    def _put(self, text: str) -> None:
        if self._gone:
            return
        with contextlib.suppress(OSError, ValueError):  # nobody there to see it
            self._stream.write(_BEGIN + text + _END)
            self._stream.flush()


def _titles(teller: Teller, task: Task, now: float) -> tuple[str, ...]:
    from builder.recipe.units import show_seconds  # noqa: PLC0415

    name = f"{teller.recipe} {teller.version}".strip()
    what = "" if task.what == teller.recipe else task.what
    return name, teller.fingerprint[:10], f"build {what}".strip(), show_seconds(max(0.0, now - task.began))


def _unpainted(line: str) -> str:
    import re  # noqa: PLC0415

    return re.sub(r"\x1b\[[\d;]*m", "", line)
