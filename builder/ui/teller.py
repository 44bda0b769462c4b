"""What the screens have in common: events become permanent lines, and what goes on at the moment becomes words.

A teller draws nothing. It keeps what a screen needs to know between two events: the phase, a transfer, a wait, the last
lines of output, what the gate said last.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from builder import events
from builder.recipe.units import show_bytes, show_seconds
from builder.ui import lines
from builder.ui.style import clean, clip, visible

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

    from builder.ui.style import Style

__all__ = ["LONG_S", "TAIL", "Task", "Teller", "amount"]

#: What takes longer than this is shown while it runs.
LONG_S = 2.0
#: How many lines of a failed phase are shown.
TAIL = 20
#: How many reasons of a rebuild are shown; `spark-build why` has all.
REASONS = 4
#: Phases that every call goes through, hits too: told only when they took long. An error of theirs has its own screen.
UNTOLD = frozenset({"pin", "host", "lock"})
#: How long the machine has to be well before being short of memory is told again.
PRESSURE_S = 30.0

_ENDINGS = {"ok": "✔", "cached": "✔", "failed": "✘", "interrupted": "■"}


class Task:
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
        first: int = 0,
    ) -> None:
        self.kind = kind
        self.name = name
        self.what = what
        self.began = began
        self.told = told
        self.log = log
        self.first = first
        self.done = 0
        self.total: int | None = None
        self.seen = 0.0


class Teller:
    """Takes events in order, gives lines. Not for several threads at once, except `printed`."""

    def __init__(self, *, style: Style, width: Callable[[], int]) -> None:
        self._style = style
        self._width = width
        self._fetch: Task | None = None
        self._wait: Task | None = None
        self._tail: deque[str] = deque(maxlen=TAIL)
        self._spent_s = 0.0
        self._pressed = float("-inf")
        self.phase: Task | None = None
        self.recipe = ""
        self.version = ""
        self.fingerprint = ""
        self.estimate_s: int | None = None
        self.gate: events.GateState | None = None
        self.gate_at = 0.0
        self.requeues = 0

    @property
    def current(self) -> Task | None:
        """What to show as going on, if anything."""
        return self._wait or self._fetch or self.phase

    @property
    def plain_output(self) -> bool:
        """Whether a printed line changes nothing but the tail: thousands of them may come in a second."""
        return self._wait is None and self._fetch is None

    def printed(self, event: events.Printed) -> None:
        """Keep a line of output; it is cleaned when somebody wants to see it. Safe beside any other call."""
        self._tail.append(event.text)

    def tail(self) -> tuple[str, ...]:
        """Return the last lines of output of this phase, cleaned."""
        return tuple(clean(text) for text in self._tail.copy())

    def idle(self) -> None:
        """Forget what goes on: the screen is being closed."""
        self.phase = self._fetch = self._wait = None

    def take(self, event: events.Event, now: float) -> list[str]:
        """Return the permanent lines that `event` makes, without line ends; none for one that isn't known."""
        return [*self._leave(event, now), *self._take(event, now)]

    # --- what an event changes

    def _leave(self, event: events.Event, now: float) -> list[str]:
        """End what `event` shows to be over: waiting, and a transfer that nobody says the end of."""
        self._wait = None
        task = self._fetch
        same = isinstance(event, events.Fetching) and task is not None and event.name == task.what
        if task is None or same:
            return []
        self._fetch = None
        return self._fetched(task, now)

    def _take(self, event: events.Event, now: float) -> list[str]:  # noqa: C901, PLR0911, PLR0912  # one case an event
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
                self.gate = None
                self.phase = Task("phase", event.phase, event.output or "", now, log=event.log)
            case events.Printed():
                self.printed(event)
            case events.PhaseEnded():
                return self._ended(event, now)
            case events.Waiting():
                self._wait = Task("wait", "waiting", event.what, now, told=now)
                return [self.line(now, "◌", "waiting", f"for {event.what}, held by {clean(event.holder)}")]
            case events.Note():
                symbol = "▲" if event.level == "warning" else "·"
                return [self.line(now, symbol, event.level.replace("info", "note"), visible(event.text))]
            case events.Stored():
                text = f"{event.output}, {show_bytes(event.size)}, sha256 {event.sha256[:16]}…"
                return [self.line(now, "✔", "stored", text)]
            case events.GateState():
                return self._gated(event, now)
            case events.UnitEnded():
                return self._unit(event, now)
            case events.UnitRequeued():
                return [self._requeued(event, now)]
            case events.BuildEnded():
                return self._finished(event, now)
        return []

    def _pinned(self, event: events.SourcePinned, now: float) -> str:
        text = f"{event.recipe}: {event.text}"
        if event.stale_s is None:
            return self.line(now, "✔", "source", text)
        return self.line(
            now, "▲", "source", f"{text}, as of {show_seconds(event.stale_s)} ago: the remote wasn't asked"
        )

    def _fetching(self, event: events.Fetching, now: float) -> list[str]:
        task = self._fetch
        if task is None:
            task = self._fetch = Task("fetch", "fetch", event.name, now, first=event.done)
        task.done, task.total, task.seen = event.done, event.total, now
        if event.done != event.total:
            return []
        self._fetch = None
        return self._fetched(task, now)

    def _fetched(self, task: Task, now: float) -> list[str]:
        took = (task.seen or now) - task.began
        if took < LONG_S:
            return []
        return [self.line(now, "✔", "fetch", f"{task.what}, {amount(task)}", took_s=took)]

    def _planned(self, event: events.PlanMade, now: float) -> list[str]:
        self.recipe, self.fingerprint, self.estimate_s = event.recipe, event.fingerprint, event.estimate_s
        about = f"; about {show_seconds(event.estimate_s)}" if event.estimate_s is not None else ""
        head = f"{event.recipe} {event.fingerprint[:10]}: build {', '.join(event.misses)}{about}"
        reasons = [f"because {reason}" for reason in event.reasons[:REASONS]]
        if more := len(event.reasons) - len(reasons):
            reasons.append(f"and {more} more: spark-build why {event.recipe}")
        return [self.line(now, "●", "plan", head), *(self.line(now, "·", "", reason) for reason in reasons)]

    def _started(self, event: events.BuildStarted, now: float) -> list[str]:
        self.recipe, self.version, self.fingerprint = event.recipe, event.version, event.fingerprint
        self._spent_s, self.requeues, self.gate = 0.0, 0, None
        name = f"{event.recipe} {event.version}" if event.version else event.recipe
        attempt = f", attempt {event.attempt}" if event.attempt > 1 else ""
        text = f"{name} as {event.label}{attempt}"
        if event.isolation == "none":
            return [self.line(now, "▲", "start", f"{text}; isolation none: the build can reach the network")]
        return [self.line(now, "●", "start", text)]

    def _gated(self, event: events.GateState, now: float) -> list[str]:
        before, self.gate, self.gate_at = self.gate, event, now
        told = []
        if event.paused != (before is not None and before.paused):
            text = "nothing new is started until it goes on" if event.paused else "going on"
            told.append(self.line(now, "■" if event.paused else "●", "pause", text))
        if event.bound == "pressure":
            if now - self._pressed >= PRESSURE_S:
                free = f"{show_bytes(event.available_bytes)} of {show_bytes(event.total_bytes)} are free"
                told.append(self.line(now, "▲", "memory", f"the machine is short of it: {free}; {event.jobs} jobs run"))
            self._pressed = now
        return told

    def _unit(self, event: events.UnitEnded, now: float) -> list[str]:
        if event.ok:
            return []
        why = f"signal {-event.code}" if event.code < 0 else f"exit {event.code}"
        text = f"{clean(event.name)} failed ({why}), peak {show_bytes(event.peak_bytes)}"
        return [self.line(now, "✘", "unit", text, took_s=event.ms / 1000)]

    def _requeued(self, event: events.UnitRequeued, now: float) -> str:
        self.requeues += 1
        who = "stopped" if event.by == "gate" else "killed by the kernel"
        again = f"runs again with {show_bytes(event.next_bytes)}"
        return self.line(
            now, "▲", "requeue", f"{clean(event.name)} was {who} at {show_bytes(event.used_bytes)}: {again}"
        )

    def _ended(self, event: events.PhaseEnded, now: float) -> list[str]:
        task, self.phase = self.phase, None
        took = event.ms / 1000
        if event.phase == "build" and event.status == "ok":
            self._spent_s += took
        if event.phase in UNTOLD and took < LONG_S:
            return []
        text = ": ".join(part for part in (event.output, event.text) if part)
        told = [self.line(now, _ENDINGS[event.status], event.phase, text, took_s=took)]
        if event.status == "failed" and task:
            if tail := self.tail():
                title = f"last lines of {lines.label(event.phase, event.output)}"
                told += lines.quoted(title, tail, style=self._style, width=self._width())
            if task.log:
                told.append(f"log: {task.log}")
        return told

    def _finished(self, event: events.BuildEnded, now: float) -> list[str]:
        self.phase = None
        peak = f", peak {show_bytes(event.peak_bytes)}" if event.peak_bytes else ""
        again = f", {self.requeues} requeued" if self.requeues else ""
        name = {"ok": "done", "cached": "done", "failed": "failed", "interrupted": "stopped"}[event.status]
        text = f"{self.recipe} {self.fingerprint[:10]}{peak}{again}"
        if event.status == "interrupted" and event.summary:
            text += f": {event.summary}"
        return [self.line(now, _ENDINGS[event.status], name, text, took_s=event.ms / 1000)]

    # --- what is going on

    def begun(self, task: Task) -> str:
        """Return the words for a phase that turned out to be a long one."""
        parts = [task.what, self._expected(task), f"log: {task.log}" if task.log else ""]
        return ", ".join(part for part in parts if part) or "running"

    def _expected(self, task: Task) -> str:
        known = self.estimate_s is not None and task.name == "build"
        return f"about {show_seconds(self.estimate_s)}" if known and self.estimate_s is not None else ""

    def going(self, task: Task, now: float) -> str:
        """Return the words for `task` as it stands."""
        elapsed = max(0.0, now - task.began)
        match task.kind:
            case "wait":
                return f"for {task.what}, {show_seconds(elapsed)} by now"
            case "fetch":
                rate = (task.done - task.first) / elapsed if elapsed > 0 else 0
                return f"{task.what}, {amount(task)}, {show_bytes(int(rate))}/s"
        words = f"{task.what} {show_seconds(elapsed)}".strip()
        if task.name == "build" and self.gate:
            from builder.ui.region import summary  # noqa: PLC0415  # a hit and most phases have none

            return " · ".join([words, *summary(self.gate)])
        if left := self.left(task, now):
            words += f", {left}"
        detail = self.detail()
        return f"{words} · {detail}" if detail else words

    def left(self, task: Task, now: float) -> str:
        """Return how long the build takes from here as earlier builds tell, or an empty text."""
        if task.name != "build" or self.estimate_s is None:
            return ""
        left = self.estimate_s - self._spent_s - max(0.0, now - task.began)
        return f"about {show_seconds(left)} left" if left >= 1 else "longer than usual"

    def detail(self) -> str:
        """Return the last line of output that says something, or an empty text."""
        return next((text.strip() for text in reversed(self.tail()) if text.strip()), "")

    def status(self, task: Task, now: float, width: int) -> str:
        """Return `task` as the one line of a terminal that is drawn over; it takes less than `width` columns."""
        symbol = "◌" if task.kind == "wait" else "▸"
        text = clip(self.going(task, now), max(width - lines.INDENT - 1, 10))
        return lines.permanent(now, symbol, task.name, text, style=self._style, width=width)

    def line(self, now: float, symbol: str, name: str, text: str, *, took_s: float | None = None) -> str:
        """Return a permanent line for this screen."""
        return lines.permanent(now, symbol, name, text, style=self._style, width=self._width(), took_s=took_s)


def amount(task: Task) -> str:
    """Return how much of a transfer is done."""
    if task.total is None or task.done == task.total:
        return show_bytes(task.done)
    percent = f" ({100 * task.done // task.total}%)" if task.total else ""
    return f"{show_bytes(task.done)} of {show_bytes(task.total)}{percent}"
