"""Past attempts at builds, as their own events tell them: what ``log``, ``history`` and estimates read.

Each attempt keeps ``<wheelhouse>/builds/<fingerprint>/logs/<attempt>/events.jsonl``. The first event says what was built;
the last one how it ended. A file without that end belongs to an attempt that runs right now or was killed: the kernel
knows which, since the attempt holds the lock of its fingerprint. Nothing here opens the catalogue, so that logs can be read
while the wheelhouse is in trouble.
"""

from __future__ import annotations

import statistics
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Literal

from builder import events
from builder.errors import UsageError
from builder.values import dataclass, field, replace
from builder.wheelhouse import locks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

__all__ = ["Attempt", "attempts", "choose", "estimate", "read"]

#: How much of the end of an event file is read: the last phases of any build.
_TAIL_BYTES = 1 << 16

#: How many of the newest builds of an output an estimate looks at.
_SAMPLE = 10

Outcome = Literal["ok", "failed", "interrupted", "killed", "running"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt. `started` is in seconds; `ms` is None where the end is missing; `phase` is where it stopped.

    `code` and `summary` are the error's. `peak_bytes` is that of the largest process, where it was measured.
    `built_ms` says how long building each output took that was built to its end.
    """

    fingerprint: str
    recipe: str
    version: str
    label: str
    outputs: tuple[str, ...]
    attempt: int
    logs: Path
    started: float
    outcome: Outcome
    ms: int | None = None
    code: str | None = None
    summary: str = ""
    phase: str | None = None
    peak_bytes: int | None = None
    built_ms: Mapping[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, object]:
        """Return the attempt for programs."""
        from dataclasses import asdict  # noqa: PLC0415  # an estimate does without

        return {**asdict(self), "outputs": list(self.outputs), "logs": str(self.logs)}


def attempts(wheelhouse: Path, *, recipe: str | None = None) -> tuple[Attempt, ...]:
    """Return every attempt whose events are there, newest first; a file that doesn't say what was built is passed over."""
    found = []
    for file in (wheelhouse / "builds").glob("*/logs/*/events.jsonl"):
        folder = file.parent.parent.parent.name
        one = read(file, alive=partial(locks.is_held, wheelhouse / "locks" / folder))
        if one is not None and recipe in {None, one.recipe}:
            found.append(one)
    found.sort(key=lambda one: (one.started, one.attempt), reverse=True)
    return tuple(_only_newest_runs(found))


def read(file: Path, *, alive: Callable[[], bool]) -> Attempt | None:
    """Return the attempt that an event file tells of, or None where its first line is no ``build.started``.

    `alive` is asked only where the end is missing: whether somebody works on this fingerprint now.
    """
    try:
        first, last = _ends(file)
        head, start = events.parse_line(first)
        began = datetime.fromisoformat(str(head["t"])).timestamp()
    except (OSError, ValueError, KeyError):
        return None
    if not isinstance(start, events.BuildStarted):
        return None
    told = [event for line in last if (event := _event(line)) is not None]
    end = next((event for event in reversed(told) if isinstance(event, events.BuildEnded)), None)
    peak = max((event.peak_bytes or 0 for event in told if isinstance(event, events.BuildEnded)), default=0)
    outcome = _outcome(end, alive)
    return Attempt(
        fingerprint=start.fingerprint,
        recipe=start.recipe,
        version=start.version,
        label=start.label,
        outputs=start.outputs,
        attempt=start.attempt,
        logs=file.parent,
        started=began,
        outcome=outcome,
        ms=end.ms if end else None,
        code=end.code if end else None,
        summary=end.summary if end else "",
        phase=(end.phase if end else None) or (None if outcome == "ok" else _stopped_in(told)),
        peak_bytes=peak or None,
        built_ms={
            event.output: event.ms
            for event in told
            if isinstance(event, events.PhaseEnded) and event.phase == "build" and event.status == "ok" and event.output
        },
    )


def estimate(wheelhouse: Path, recipe: str, outputs: Sequence[str]) -> int | None:
    """Return how many seconds building `outputs` takes: the sum of the medians of each one's newest builds.

    None where one of them was never built here.
    """
    newest = attempts(wheelhouse, recipe=recipe)
    took = [[one.built_ms[output] for one in newest if output in one.built_ms][:_SAMPLE] for output in outputs]
    return round(sum(statistics.median(one) for one in took) / 1000) if took and all(took) else None


def _outcome(end: events.BuildEnded | None, alive: Callable[[], bool]) -> Outcome:
    if end is None:
        return "running" if alive() else "killed"
    return "ok" if end.status == "cached" else end.status


def choose(found: Sequence[Attempt], ref: str | None, *, failed: bool = False) -> Attempt:
    """Return the attempt that `ref` means: the newest of a fingerprint's, ``^N`` the N-th newest of all, None the newest.

    With `failed` only those count that didn't end well. Raises UsageError ``build-ref`` with what is there.
    """
    pool = [one for one in found if one.outcome in {"failed", "interrupted", "killed"}] if failed else list(found)
    what = "failed attempt" if failed else "attempt"
    if ref is None or ref.startswith("^"):
        number = 1 if ref is None else int(ref[1:]) if ref[1:].isdigit() else 0
        if 0 < number <= len(pool):
            return pool[number - 1]
        raise _none(f"there is no {what} {ref or ''}".rstrip(), pool or found)
    named = [one for one in pool if one.fingerprint.startswith(ref)]
    if not named:
        raise _none(f"{ref} names no {what}", pool or found)
    if len({one.fingerprint for one in named}) > 1:
        raise _none(f"{ref} names several builds", named)
    return named[0]


def _none(summary: str, there: Sequence[Attempt]) -> UsageError:
    rows = [
        f"{one.fingerprint[:10]}  {one.recipe} {one.version}  attempt {one.attempt}, {one.outcome}" for one in there
    ]
    more = [f"and {len(rows) - 8} more"] if len(rows) > 8 else []  # noqa: PLR2004  # a screen is no catalogue
    return UsageError(
        "build-ref",
        summary,
        cause="\n".join(["there are:", *rows[:8], *more]) if rows else "nothing was built in this wheelhouse yet",
        help="a REF is the start of a fingerprint, or ^1 for the newest attempt",
        run=("spark-build history",) if rows else ("spark-build recipe NAME",),
    )


def _only_newest_runs(found: Sequence[Attempt]) -> list[Attempt]:
    """Let only the newest attempt of a fingerprint be running: the lock belongs to one."""
    seen: set[str] = set()
    kept = []
    for one in found:
        older = one.fingerprint in seen
        seen.add(one.fingerprint)
        kept.append(replace(one, outcome="killed") if older and one.outcome == "running" else one)
    return kept


def _ends(file: Path) -> tuple[str, list[str]]:
    with file.open("rb") as stream:
        first = stream.readline()
        size = stream.seek(0, 2)
        stream.seek(max(0, size - _TAIL_BYTES))
        last = stream.read().decode(errors="replace").splitlines()
    return first.decode(errors="replace"), last


def _event(line: str) -> events.Event | None:
    try:
        return events.parse_line(line)[1]
    except ValueError:  # torn: by a kill at the end, or by where reading began
        return None


def _stopped_in(told: Sequence[events.Event]) -> str | None:
    """Return the phase that failed, or the one that never ended."""
    for event in reversed(told):
        if isinstance(event, events.PhaseEnded):
            return event.phase if event.status in {"failed", "interrupted"} else None
        if isinstance(event, events.PhaseStarted):
            return event.phase
    return None
