"""``spark-build attach``: follow a build that another process makes; and the start of one that nobody has to watch."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from builder.cli.request import add_progress
from builder.errors import Interrupted, SparkError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from builder.cli.app import App
    from builder.events import BuildEnded, Event, Sink
    from builder.pipeline.builds import Attempt

EXAMPLES = """\
examples:
  spark-build recipe flashinfer --detach            build, whatever becomes of this terminal
  spark-build attach                                follow the build that runs, or see how the newest ended
  spark-build attach 3f9ac1d                        that one

Ctrl-C leaves the build alone. The exit code is the build's; paths of wheels go to stdout."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command."""
    parser.epilog = EXAMPLES
    parser.add_argument(
        "ref", nargs="?", metavar="REF", help="which build (default: the one that runs, else the newest)"
    )
    parser.add_argument("--wheelhouse", metavar="DIR", help="where wheels are kept")
    parser.add_argument("--json", action="store_true", help="print how it ended as JSON")
    add_progress(parser)


def run(args: argparse.Namespace, app: App) -> int:
    """Show what the build does until it ends; return its exit code."""
    from builder.pipeline import builds, follow  # noqa: PLC0415  # after the arguments were found good

    wheelhouse = app.config().wheelhouse
    one: Attempt | None = _choose(builds.attempts(wheelhouse), args.ref)
    while one is not None:
        try:
            end, wheels = _shown(one, wheelhouse, app)
        except Interrupted:
            app.stderr.write(
                f"left alone: {one.recipe} {one.fingerprint[:10]} goes on; spark-build attach {one.fingerprint[:10]}\n"
            )
            return 130
        if end is not None and end.status == "interrupted" and end.code is None:
            one = follow.successor(wheelhouse, one)
            continue
        return _ended(one, end, wheels, app)
    raise _died("a process that planned anew", "")


def _choose(found: Sequence[Attempt], ref: str | None) -> Attempt:
    from builder.pipeline import builds  # noqa: PLC0415

    running = [one for one in found if one.outcome == "running"] if ref is None else []
    return running[0] if running else builds.choose(found, ref)


def _shown(one: Attempt, wheelhouse: Path, app: App) -> tuple[BuildEnded | None, list[str]]:
    """Show the attempt to its end; return that, None where there is none, and the wheels that came of it."""
    from functools import partial  # noqa: PLC0415

    from builder import events  # noqa: PLC0415
    from builder.pipeline import follow  # noqa: PLC0415
    from builder.ui import select  # noqa: PLC0415
    from builder.wheelhouse import locks  # noqa: PLC0415

    clock = _Moment(app.clock)
    screen = select.screen(
        app.args.progress,
        stream=app.stderr,
        env=app.env,
        clock=clock,
        color=app.args.color,
        keys=0,
        leave="leave it running",
    )
    end, wheels = None, []
    alive = partial(locks.is_held, wheelhouse / "locks" / one.fingerprint)
    try:
        for moment, event in follow.events_of(one, alive=alive):
            _tell(screen, clock, moment, event)
            if isinstance(event, events.BuildEnded):
                end = event
            elif isinstance(event, events.Stored):
                wheels.append(event.path)
    finally:
        screen.close()
    return end, wheels


def _tell(screen: Sink, clock: _Moment, moment: float | None, event: Event) -> None:
    clock.moment = moment
    screen.emit(event)
    clock.moment = None


class _Moment:
    """A clock that shows when an event happened while that one is told, else the time."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.moment: float | None = None

    def __call__(self) -> float:
        return self.moment or self._clock()


def _ended(one: Attempt, end: BuildEnded | None, wheels: list[str], app: App) -> int:
    """Print what came of it; raise the build's error again where there is one."""
    if end is None:
        raise _died(f"{one.recipe} {one.fingerprint[:10]}", one.fingerprint[:10])
    if app.args.json:
        told = {"status": end.status, "code": end.code, "summary": end.summary, "wheels": wheels, "ms": end.ms}
        app.print_json({"recipe": one.recipe, "fingerprint": one.fingerprint, "attempt": one.attempt, **told})
    elif end.status in {"ok", "cached"}:
        for path in wheels:
            app.print(path)
    if end.status in {"ok", "cached"}:
        return 0
    code = end.exit_code if end.exit_code is not None else {"interrupted": 130}.get(end.status, 1)
    if not app.args.json:
        ref = one.fingerprint[:10]
        error = SparkError(
            end.code or "failed",
            end.summary or f"{one.recipe} {ref} {end.status}",
            run=(f"spark-build log {ref} --failed", f"spark-build resume {ref}"),
        )
        error.exit_code = code  # type: ignore[misc]  # that of the build's own error, whose class isn't known here
        raise error
    return code


def _died(what: str, ref: str) -> SparkError:
    from builder.errors import BuildFailed  # noqa: PLC0415

    run = (f"spark-build resume {ref}",) if ref else ("spark-build history",)
    return BuildFailed("build-killed", f"{what} was killed: its events have no end", run=run)


def detached(app: App) -> int:
    """Start this process's command line in a session of its own; return when its plan is made, or with its code at its end.

    Prints the start of the fingerprint that is being built.
    """
    from builder.pipeline import detach  # noqa: PLC0415  # rarely wanted

    away = detach.start(sys.argv[1:], env=app.env, cwd=app.cwd)
    ref, code = detach.follow(away, app.stderr)
    if code is not None:  # a hit, or a mistake
        app.stdout.write((away.folder / "out").read_text())
        return code
    if app.args.json:
        app.print_json({"ref": ref, "pid": away.pid, "log": str(away.folder / "log")})
    else:
        app.print(ref)
        app.stderr.write(f"it goes on without this terminal: spark-build attach {ref}\nlog: {away.folder / 'log'}\n")
    return 0
