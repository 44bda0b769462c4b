"""One attempt at a build: its events go to its own file and to the screen, its end, too."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from typing import TYPE_CHECKING

from builder import digest
from builder.errors import Interrupted, SparkError
from builder.events import BuildEnded, BuildStarted, GateState, JsonLines, PhaseEnded, PhaseStarted, Tee
from builder.pipeline import again
from builder.values import dataclass, field

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from builder.audit.report import Report
    from builder.events import Event, PhaseName, Sink, Status
    from builder.executor.isolation import Isolation
    from builder.gate.ccache import Statistics
    from builder.gate.tally import Summary
    from builder.pipeline.evaluate import Evaluation
    from builder.pipeline.world import World
    from builder.stages import Workspace

__all__ = ["Account", "AskedForMore", "Attempt", "phase", "recorded"]

#: How often the gate's state is kept: a build of six hours makes some megabytes of it.
STATES_S = 2.0


class AskedForMore(Exception):  # a turn of the loop, not an error
    """The backend wants requirements that the lock doesn't hold; they are remembered by now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What the gate and the compile cache did for one output, and the most memory that its compilers held at once."""

    gate: Summary
    cache: Statistics
    peak_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What every phase gets.

    `accounts` takes what the gate did for each output that was built, `reports` what the audit found, by the wheel's sha256,
    `given` the variables by which the build finds its nested sources, `taken` a line where the wheels weren't built here.
    """

    one: Evaluation
    world: World
    space: Workspace
    sink: Sink
    level: Isolation
    accounts: dict[str, Account] = field(default_factory=dict)
    reports: dict[str, Report] = field(default_factory=dict)
    given: dict[str, str] = field(default_factory=dict)
    taken: list[str] = field(default_factory=list)


class Kept:
    """The attempt's file as a sink: several threads may write to it, and of the gate's states it takes one now and then."""

    def __init__(self, lines: Sink, *, clock: Callable[[], float]) -> None:
        self._lines = lines
        self._clock = clock
        self._lock = threading.Lock()
        self._next = 0.0

    def emit(self, event: Event) -> None:
        """Write `event`, unless it is a state that comes too soon after the last one."""
        with self._lock:
            if isinstance(event, GateState):
                if self._clock() < self._next:
                    return
                self._next = self._clock() + STATES_S
            self._lines.emit(event)


@contextlib.contextmanager
def recorded(one: Evaluation, world: World, space: Workspace, level: Isolation) -> Iterator[Attempt]:
    """Keep the events of an attempt in its workspace; the last one says how it ended, whatever ended it."""
    plan, started = one.plan, time.monotonic()
    space.logs.mkdir(parents=True, exist_ok=True)
    (space.logs / "inputs.json").write_bytes(digest.canonical_json(dict(plan.inputs.document)))
    with (space.logs / "events.jsonl").open("a") as stream:
        lines = JsonLines(stream, build=plan.inputs.fingerprint[:12], clock=world.clock)
        sink = Tee(Kept(lines, clock=time.monotonic), world.sink)
        sink.emit(
            BuildStarted(
                recipe=plan.recipe,
                version=plan.pin.version or plan.pin.ref or "",
                fingerprint=plan.inputs.fingerprint,
                label=plan.label,
                outputs=tuple(output.name for output in one.outputs),
                attempt=space.attempt,
                isolation=level.level,
            )
        )
        again.keep(space.logs, words=world.words, cwd=world.cwd)
        status: Status = "failed"
        code: str | None = "bug"
        exit_code = 70
        summary = ""
        attempt = Attempt(one=one, world=world, space=space, sink=sink, level=level)
        try:
            yield attempt
            status, code, exit_code = "cached" if attempt.taken else "ok", None, 0
            summary = "; ".join(attempt.taken)
        except AskedForMore:
            status, code, summary = "interrupted", None, "planned again with what the backend asked for"
            raise
        except SparkError as error:
            status = "interrupted" if isinstance(error, Interrupted) else "failed"
            code, summary, exit_code = error.code, error.summary, error.exit_code
            raise
        finally:
            elapsed = int((time.monotonic() - started) * 1000)
            peak = max((account.peak_bytes for account in attempt.accounts.values()), default=0) or None
            sink.emit(
                BuildEnded(status=status, ms=elapsed, code=code, summary=summary, peak_bytes=peak, exit_code=exit_code)
            )
            shutil.rmtree(space.root / "tmp", ignore_errors=True)


@contextlib.contextmanager
def phase(attempt: Attempt, name: PhaseName, output: str | None = None, *, log: bool = False) -> Iterator[list[str]]:
    """Emit the phase's start and end; what is appended to the list becomes the end's text."""
    path = str(attempt.space.logs / f"{name}.log") if log else None
    attempt.sink.emit(PhaseStarted(phase=name, output=output, log=path))
    started = time.monotonic()
    text: list[str] = []
    status: Status = "failed"
    try:
        yield text
        status = "ok"
    except (Interrupted, AskedForMore):
        status = "interrupted"
        raise
    finally:
        elapsed = int((time.monotonic() - started) * 1000)
        attempt.sink.emit(PhaseEnded(phase=name, output=output, status=status, ms=elapsed, text="; ".join(text)))
