"""``spark-build rerun``: the unit or step at which a build failed, once more, with all that it prints."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from builder.errors import BuildFailed, UsageError

if TYPE_CHECKING:
    import argparse

    from builder.cli.app import App
    from builder.events import Event
    from builder.pipeline.builds import Attempt
    from builder.pipeline.kept import Failed, Room

EXAMPLES = """\
examples:
  spark-build rerun vllm                            the unit at which the newest build of vllm failed
  spark-build rerun 3f9ac1d --step                  the whole build step, of which nothing comes but its output

A REF is a recipe's name, the start of a fingerprint, or ^1 for the newest attempt whose tree is kept. What the unit prints
goes to stdout, what is run to stderr. The exit code is 1 where it fails again."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command."""
    parser.epilog = EXAMPLES
    parser.add_argument(
        "ref", nargs="?", metavar="REF", help="a recipe's name, or which build (default: the newest kept)"
    )
    parser.add_argument("--step", action="store_true", help="the whole build step, not only the unit that failed")
    parser.add_argument("--output", metavar="NAME", help="of this output (default: the one that failed)")
    parser.add_argument("--wheelhouse", metavar="DIR", help="where wheels are kept")
    parser.add_argument("--json", action="store_true", help="print how it ended as JSON; what it prints goes to stderr")
    parser.set_defaults(progress="quiet", color="auto")


def run(args: argparse.Namespace, app: App) -> int:
    """Run it again through the build's own isolation."""
    from builder.cli.resume import kept, reopened  # noqa: PLC0415
    from builder.executor import workspace  # noqa: PLC0415
    from builder.pipeline.kept import failed, output_of, room, space_of  # noqa: PLC0415

    one = kept(app, args.ref)
    if one.phase not in {"build", None}:
        raise UsageError(
            "rerun-phase",
            f"{one.recipe} {one.fingerprint[:10]} stopped in {one.phase}, not in a build step",
            help="resuming runs that again",
            run=(f"spark-build resume {one.fingerprint[:10]}",),
        )
    with reopened(one, args, app) as (world, evaluation):
        unit = None if args.step else failed(one, space_of(one, world))
        output = output_of(evaluation, one, args.output)
        with room(evaluation, one, output, world) as inner:
            code = _unit(unit, inner, app) if unit else _step(inner, app)
            changed = bool(workspace.changed(inner.space))
    name = unit.name if unit else f"the build step of {output.name}"
    return _end(one, name, code, app, changed=changed)


def _unit(unit: Failed, inner: Room, app: App) -> int:
    """Run one unit's command, and return its exit code."""
    cwd = str(inner.space.inside / unit.folder.relative_to(inner.space.root)) if unit.folder else inner.project
    app.stderr.write(f"{cwd}: {unit.argv[2] if unit.argv[0] == 'sh' else shlex.join(unit.argv)}\n")
    return _printed(inner.wrap(unit.argv, cwd=cwd), inner, app)


def _printed(words: list[str], inner: Room, app: App) -> int:
    from builder import proc  # noqa: PLC0415

    stream = app.stderr if app.args.json else app.stdout

    def show(text: str) -> None:
        stream.write(text + "\n")
        stream.flush()

    log = inner.space.logs / "rerun.log"
    return proc.run(words, env=inner.env, cwd=inner.space.root, log=log, on_line=show, sweep=True).code


def _step(inner: Room, app: App) -> int:
    """Call the backend again, and return 0 or 1."""
    from builder.events import Printed  # noqa: PLC0415
    from builder.executor import hooks  # noqa: PLC0415
    from builder.values import replace  # noqa: PLC0415

    stream = app.stderr if app.args.json else app.stdout

    class Shown:
        """A sink that prints what the build prints."""

        def emit(self, event: Event) -> None:
            """Print it."""
            if isinstance(event, Printed):
                stream.write(event.text + "\n")
                stream.flush()

    app.stderr.write(f"{inner.project}: build_wheel\n")
    bench = replace(inner.bench, sink=Shown(), log=inner.space.logs / "rerun.log")
    try:
        hooks.build_wheel(bench)
    except BuildFailed as error:
        app.stderr.write(f"{error.summary}\n")
        return 1
    return 0


def _end(one: Attempt, name: str, code: int, app: App, *, changed: bool) -> int:
    ref = one.fingerprint[:10]
    # Resuming would put a changed source back.
    well = f"spark-build patch save {one.recipe} ID --kept {ref}" if changed else f"spark-build resume {ref}"
    following = f"spark-build shell {ref}" if code else well
    if app.args.json:
        app.print_json({"fingerprint": one.fingerprint, "unit": name, "code": code, "run": [following]})
    else:
        how = f"failed again ({code})" if code else "went well this time"
        app.stderr.write(f"{name} {how}; next: {following}\n")
    return 1 if code else 0
