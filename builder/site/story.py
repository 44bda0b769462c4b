"""What the events of one attempt tell, counted up. Pure: lines in, values out."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from builder import events
from builder.values import dataclass, field

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Phase", "Sample", "Story", "tell"]

#: So many units are shown of those that took most.
_HEAVIEST = 12
#: So many states of the gate make a curve; more aren't seen.
_SAMPLES = 240
#: So many warnings are kept.
_NOTES = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A phase; `ms` is None for one that never ended."""

    name: str
    output: str | None
    status: str
    ms: int | None
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The gate at a moment, `s` seconds after the start."""

    s: float
    used_bytes: int
    ceiling_bytes: int
    jobs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What happened. `lines` is how many lines were read; `heaviest` and `slowest` are units by memory and by time."""

    lines: int = 0
    isolation: str = ""
    phases: tuple[Phase, ...] = ()
    units: int = 0
    failed: int = 0
    requeues: int = 0
    hits: int = 0
    heaviest: tuple[events.UnitEnded, ...] = ()
    slowest: tuple[events.UnitEnded, ...] = ()
    broken: tuple[events.UnitEnded, ...] = ()
    samples: tuple[Sample, ...] = ()
    state: events.GateState | None = None
    notes: tuple[str, ...] = ()
    stored: tuple[events.Stored, ...] = ()
    end: events.BuildEnded | None = None
    exit_code: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Notebook:
    phases: list[Phase] = field(default_factory=list)
    units: list[events.UnitEnded] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    stored: list[events.Stored] = field(default_factory=list)
    requeued: list[str] = field(default_factory=list)

    def take(self, event: events.Event | None, at: float) -> None:
        """Note what pages show of an event."""
        match event:
            case events.PhaseStarted():
                self.phases.append(Phase(name=event.phase, output=event.output, status="running", ms=None))
            case events.PhaseEnded(ms=int()):
                ended = Phase(name=event.phase, output=event.output, status=event.status, ms=event.ms, text=event.text)
                if self.phases and self.phases[-1].name == event.phase and self.phases[-1].ms is None:
                    self.phases.pop()
                self.phases.append(ended)
            case events.UnitEnded(name=str(), peak_bytes=int(), ms=int(), wait_ms=int()):
                self.units.append(event)
            case events.UnitRequeued():
                self.requeued.append(event.name)
            case events.GateState(used_bytes=int(), ceiling_bytes=int()):
                sample = Sample(s=at, used_bytes=event.used_bytes, ceiling_bytes=event.ceiling_bytes, jobs=event.jobs)
                self.samples.append(sample)
            case events.Note(level="warning"):
                self.notes.append(event.text)
            case events.Stored():
                self.stored.append(event)
            case _:
                pass


def tell(lines: Iterable[str]) -> Story:
    """Return the story of an attempt from the lines of its file; what is torn, or of another version, is passed over."""
    book, began, number, isolation = _Notebook(), None, 0, ""
    state: events.GateState | None = None
    end: events.BuildEnded | None = None
    for number, line in enumerate(lines, 1):  # noqa: B007  # counted
        try:
            raw, event = events.parse_line(line)
            moment = datetime.fromisoformat(str(raw["t"])).timestamp()
            began = moment if began is None else began
            book.take(event, moment - began)
        except (ValueError, KeyError, TypeError, OverflowError):
            continue
        if isinstance(event, events.GateState):
            state = event
        elif isinstance(event, events.BuildEnded):
            end = event
        elif isinstance(event, events.BuildStarted):
            isolation = event.isolation
    units = book.units
    return Story(
        lines=number,
        isolation=isolation,
        phases=tuple(book.phases),
        units=len(units),
        failed=sum(not one.ok for one in units),
        requeues=len(book.requeued),
        hits=state.hits if state else 0,
        heaviest=tuple(sorted(units, key=lambda one: -one.peak_bytes)[:_HEAVIEST]),
        slowest=tuple(sorted(units, key=lambda one: -one.ms)[:_HEAVIEST]),
        broken=tuple(one for one in units if not one.ok)[:_HEAVIEST],
        samples=tuple(_thinned(book.samples)),
        state=state,
        notes=tuple(dict.fromkeys(book.notes))[:_NOTES],
        stored=tuple(book.stored),
        end=end,
        exit_code=end.exit_code if end else None,
    )


def _thinned(samples: Sequence[Sample]) -> Sequence[Sample]:
    """Return at most so many samples as a curve shows: of each stretch the one with most memory, so that no peak is lost."""
    step = -(-len(samples) // _SAMPLES)
    if step <= 1:
        return samples
    return [max(samples[at : at + step], key=lambda one: one.used_bytes) for at in range(0, len(samples), step)]
