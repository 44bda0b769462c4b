"""What happens during a run, as values; the one stream that screens, logs, history and pages read.

An event is a frozen dataclass with a `kind`. A `Sink` takes events. On disk an event is one JSON line: the fields, plus
``v`` (version of this format), ``t`` (UTC, milliseconds), ``build`` (first twelve of the fingerprint, may be empty)
and ``seq``. Within one ``v`` fields are only ever added.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, TextIO

from builder.values import dataclass, fields

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "VERSION",
    "BuildEnded",
    "BuildStarted",
    "Event",
    "Fetching",
    "GateState",
    "JsonLines",
    "Note",
    "PhaseEnded",
    "PhaseName",
    "PhaseStarted",
    "PlanMade",
    "Printed",
    "Sink",
    "SourcePinned",
    "Stored",
    "Tee",
    "UnitEnded",
    "UnitRequeued",
    "Waiting",
    "parse_line",
]

VERSION = 1

PhaseName = Literal["pin", "host", "lock", "fetch", "patch", "env", "build", "pack", "audit", "publish"]
Status = Literal["ok", "failed", "interrupted", "cached"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of all events."""

    kind: ClassVar[str] = "event"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcePinned(Event):
    """A source was made exact; `stale_s` is the age of a pin that was taken without asking the remote, else None."""

    kind: ClassVar[str] = "source.pinned"
    recipe: str
    text: str
    commit: str | None = None
    stale_s: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetching(Event):
    """Bytes are coming in; `total` is None when the other side didn't say. Repeated at most four times a second."""

    kind: ClassVar[str] = "fetch.progress"
    name: str
    done: int
    total: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanMade(Event):
    """The plan of one recipe: what is there, what has to be built and why (`reasons` as printed)."""

    kind: ClassVar[str] = "plan.made"
    recipe: str
    fingerprint: str
    label: str
    hits: tuple[str, ...]
    misses: tuple[str, ...]
    reasons: tuple[str, ...]
    estimate_s: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildStarted(Event):
    """First event of a build's file."""

    kind: ClassVar[str] = "build.started"
    recipe: str
    version: str
    fingerprint: str
    label: str
    outputs: tuple[str, ...]
    attempt: int
    isolation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseStarted(Event):
    """A phase began; its raw output goes to `log` (a path, or None)."""

    kind: ClassVar[str] = "phase.started"
    phase: PhaseName
    output: str | None = None
    log: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Printed(Event):
    """The build printed a line. Not kept in ``events.jsonl``: the phase log has it; screens may show the last ones."""

    kind: ClassVar[str] = "phase.printed"
    phase: PhaseName
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseEnded(Event):
    """A phase ended after `ms` milliseconds."""

    kind: ClassVar[str] = "phase.ended"
    phase: PhaseName
    status: Status
    ms: int
    output: str | None = None
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateState(Event):
    """What the gate sees of one build at a moment; screens get it four times a second, ``events.jsonl`` less often.

    `used_bytes` is the memory of this build's compilers, `promised_bytes` what they may still take, `ceiling_bytes` what
    they may take in all at this moment, `available_bytes` and `total_bytes` the machine's (or the tighter group's). `jobs`
    run, `slots` may run by cores and ``-j``, `waiting` wait. `running` holds the heaviest units, each as ``(name, used
    bytes, milliseconds since its start, milliseconds that it took last time or 0, how that is known)``. `done` and
    `edges` are what the build tool says of its progress, 0 when it says nothing; `hits` come from the compile cache.
    """

    kind: ClassVar[str] = "gate.state"
    used_bytes: int
    promised_bytes: int
    ceiling_bytes: int
    peak_bytes: int
    available_bytes: int
    total_bytes: int
    jobs: int
    slots: int
    waiting: int
    bound: Literal["memory", "cpu", "idle", "pressure"]
    paused: bool = False
    running: tuple[tuple[str, int, int, int, str], ...] = ()
    done: int = 0
    edges: int = 0
    hits: int = 0
    requeues: int = 0
    left_ms: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitEnded(Event):
    """One compiler or linker run ended for good. `peak_bytes` is the largest sum over its processes."""

    kind: ClassVar[str] = "unit.ended"
    name: str
    unit: str
    ok: bool
    peak_bytes: int
    reserved_bytes: int
    ms: int
    wait_ms: int
    attempts: int = 1
    code: int = 0
    beside: int = 0
    available_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitRequeued(Event):
    """A unit was stopped for memory, by spark-build or by the kernel, and runs again with `next_bytes`."""

    kind: ClassVar[str] = "unit.requeued"
    name: str
    by: Literal["gate", "kernel"]
    used_bytes: int
    next_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting(Event):
    """Another process holds what this one needs."""

    kind: ClassVar[str] = "lock.waiting"
    what: str
    holder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Note(Event):
    """Something a user should know. `level` decides how loud it is."""

    kind: ClassVar[str] = "note"
    level: Literal["info", "warning"]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored(Event):
    """A wheel is in the wheelhouse and visible."""

    kind: ClassVar[str] = "wheel.stored"
    output: str
    path: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildEnded(Event):
    """Last event of a build's file; `code` and `exit_code` are the error's when it failed."""

    kind: ClassVar[str] = "build.ended"
    status: Status
    ms: int
    code: str | None = None
    phase: PhaseName | None = None
    summary: str = ""
    peak_bytes: int | None = None
    exit_code: int | None = None


KINDS: dict[str, type[Event]] = {cls.kind: cls for cls in Event.__subclasses__()}


class Sink(Protocol):
    """Takes events; must not raise for one that it doesn't know."""

    def emit(self, event: Event) -> None:
        """Take `event`."""


class Tee:
    """A sink that passes each event to several others, in order."""

    def __init__(self, *sinks: Sink) -> None:
        self.sinks = sinks

    def emit(self, event: Event) -> None:
        """Pass `event` on."""
        for sink in self.sinks:
            sink.emit(event)


class JsonLines:
    """A sink that writes one JSON line an event and flushes it."""

    def __init__(self, stream: TextIO, *, build: str, clock: Callable[[], float], printed: bool = False) -> None:
        self._stream = stream
        self._build = build
        self._clock = clock
        self._printed = printed
        self._seq = 0

    def emit(self, event: Event) -> None:
        """Write `event`, unless it is raw output and this sink leaves that to the logs."""
        if isinstance(event, Printed) and not self._printed:
            return
        if isinstance(event, BuildStarted):
            self._build = event.fingerprint[:12]
        self._seq += 1
        moment = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        head = {"v": VERSION, "t": moment, "build": self._build, "seq": self._seq, "kind": event.kind}
        told = {one.name: getattr(event, one.name) for one in fields(event)}
        self._stream.write(json.dumps(head | told, ensure_ascii=False) + "\n")
        self._stream.flush()


def parse_line(line: str) -> tuple[dict[str, object], Event | None]:
    """Return the JSON of one line and its event; None for a kind or a shape that this version doesn't know.

    Raises ValueError when `line` is no JSON object, as the last line of a file is after a power cut.
    """
    raw = json.loads(line)
    if not isinstance(raw, dict):
        msg = f"an event is a JSON object, not {line[:40]!r}"
        raise ValueError(msg)  # noqa: TRY004  # one error for all bad lines
    cls = KINDS.get(str(raw.get("kind")))
    if cls is None:
        return raw, None
    names = {field.name for field in fields(cls)}
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items() if key in names}
    try:
        return raw, cls(**values)
    except TypeError:
        return raw, None
