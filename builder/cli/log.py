"""``spark-build log``: what a build printed."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from builder.cli.app import App
    from builder.pipeline.builds import Attempt

EXAMPLES = """\
examples:
  spark-build log                                   all phases of the newest attempt
  spark-build log 3f9ac1d --failed                  the phase that failed, of that build's last failed attempt
  spark-build log ^2 --phase build                  one phase of the newest attempt but one
  spark-build log --events | jq .kind               what happened, as JSON lines

A REF is the start of a fingerprint, or ^1 for the newest attempt. The log goes to stdout, whose it is to stderr."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command."""
    parser.epilog = EXAMPLES
    parser.add_argument("ref", nargs="?", metavar="REF", help="which build (default: the newest attempt)")
    parser.add_argument(
        "--failed", action="store_true", help="the last attempt that didn't end well, and only where it stopped"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--phase", metavar="P", help="only this phase: env, build, ...")
    what.add_argument("--events", action="store_true", help="the events instead, as JSON lines")
    parser.add_argument("--wheelhouse", metavar="DIR", help="where wheels are kept")
    parser.add_argument("--json", action="store_true", help="print what there is as JSON: attempts and paths of logs")


def run(args: argparse.Namespace, app: App) -> int:
    """Print the logs of one attempt."""
    from builder.pipeline import builds  # noqa: PLC0415  # after the arguments were found good

    one = builds.choose(builds.attempts(app.config().wheelhouse), args.ref, failed=args.failed)
    if args.events:
        return _copy(one.logs / "events.jsonl", app)
    logs = _logs(one, args.phase, failed=args.failed)
    if args.json:
        app.print_json({"attempt": one.as_json(), "logs": {name: str(path) for name, path in logs.items()}})
        return 0
    _head(one, logs, app)
    for name, path in logs.items():
        if len(logs) > 1:
            app.stderr.write(f"── {name}: {path}\n")
            app.stderr.flush()
        _copy(path, app)
    return 0


def _logs(one: Attempt, phase: str | None, *, failed: bool) -> dict[str, Path]:
    """Return the log of each phase, in the order in which they were begun."""
    from builder.errors import UsageError  # noqa: PLC0415

    there = sorted(one.logs.glob("*.log"), key=lambda path: (path.stat().st_mtime_ns, path.name))
    logs = {path.stem: path for path in there}
    if phase is None:
        # A phase without output of its own has no log: all there is may show what came before.
        return {one.phase: logs[one.phase]} if failed and one.phase in logs else logs
    if phase not in logs:
        raise UsageError(
            "log-phase",
            f"attempt {one.attempt} of {one.recipe} {one.fingerprint[:10]} kept no log of a phase {phase}",
            cause=f"there are: {', '.join(logs) or 'none'}",
            run=(f"spark-build log {one.fingerprint[:10]} --events",),
        )
    return {phase: logs[phase]}


def _head(one: Attempt, logs: dict[str, Path], app: App) -> None:
    where = f" in {one.phase}" if one.phase else ""
    why = f": {one.summary}" if one.summary else ""
    app.stderr.write(
        f"{one.recipe} {one.version} {one.fingerprint[:10]}, attempt {one.attempt}: {one.outcome}{where}{why}\n"
    )
    if not logs:
        app.stderr.write(f"no phase printed anything; what happened: {one.logs / 'events.jsonl'}\n")
    elif len(logs) == 1:
        app.stderr.write(f"{next(iter(logs.values()))}\n")
    app.stderr.flush()


def _copy(path: Path, app: App) -> int:
    with path.open(errors="replace") as stream:
        shutil.copyfileobj(stream, app.stdout)
    app.stdout.flush()
    return 0
