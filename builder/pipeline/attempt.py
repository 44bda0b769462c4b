"""One attempt at a build: its events go to its own file and to the screen, its end, too."""

from __future__ import annotations

import contextlib
import shutil
import time
from typing import TYPE_CHECKING

from builder import digest
from builder.errors import Interrupted, SparkError
from builder.events import BuildEnded, BuildStarted, JsonLines, PhaseEnded, PhaseStarted, Tee
from builder.values import dataclass, field

if TYPE_CHECKING:
    from collections.abc import Iterator

    from builder.events import PhaseName, Sink, Status
    from builder.executor.isolation import Isolation
    from builder.pipeline.evaluate import Evaluation
    from builder.pipeline.world import World
    from builder.stages import Workspace

__all__ = ["AskedForMore", "Attempt", "phase", "recorded"]


class AskedForMore(Exception):  # a turn of the loop, not an error
    """The backend wants requirements that the lock doesn't hold; they are remembered by now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What every phase gets. `peaks` takes the largest process of each output that was built, in bytes."""

    one: Evaluation
    world: World
    space: Workspace
    sink: Sink
    level: Isolation
    peaks: list[int] = field(default_factory=list)


@contextlib.contextmanager
def recorded(one: Evaluation, world: World, space: Workspace, level: Isolation) -> Iterator[Attempt]:
    """Keep the events of an attempt in its workspace; the last one says how it ended, whatever ended it."""
    plan, started = one.plan, time.monotonic()
    space.logs.mkdir(parents=True, exist_ok=True)
    (space.logs / "inputs.json").write_bytes(digest.canonical_json(dict(plan.inputs.document)))
    with (space.logs / "events.jsonl").open("a") as stream:
        sink = Tee(JsonLines(stream, build=plan.inputs.fingerprint[:12], clock=world.clock), world.sink)
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
        status: Status = "failed"
        code: str | None = "bug"
        summary = ""
        attempt = Attempt(one=one, world=world, space=space, sink=sink, level=level)
        try:
            yield attempt
            status, code = "ok", None
        except AskedForMore:
            status, code, summary = "interrupted", None, "planned again with what the backend asked for"
            raise
        except SparkError as error:
            status = "interrupted" if isinstance(error, Interrupted) else "failed"
            code, summary = error.code, error.summary
            raise
        finally:
            elapsed = int((time.monotonic() - started) * 1000)
            peak = max(attempt.peaks, default=0) or None
            sink.emit(BuildEnded(status=status, ms=elapsed, code=code, summary=summary, peak_bytes=peak))
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
