"""``spark-build recipe``: build, or take from the wheelhouse."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.cli.request import add_lock, add_progress, add_request, held, requests
from builder.cli.session import opened
from builder.errors import FOUND_WORK, HostError, SparkError

if TYPE_CHECKING:
    import argparse

    from builder.cli.app import App
    from builder.digest import Json
    from builder.pipeline.evaluate import Evaluation
    from builder.pipeline.world import World
    from builder.stages import Stored
    from builder.wheelhouse import Wheelhouse

EXAMPLES = """\
examples:
  spark-build recipe flashinfer                     the version that the recipe names
  spark-build recipe triton --ref main --plan       what main is now, and what would be built
  spark-build recipe flashinfer --source ~/src/fi   a folder as it is
  spark-build recipe flashinfer --set build.env.X=1 the recipe, changed for this once
  spark-build recipe triton --locked                what `spark-build lock triton --ref main` wrote down

Wheel paths go to stdout, one a line; everything else to stderr."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command."""
    parser.epilog = EXAMPLES
    add_request(parser)
    add_lock(parser)
    parser.add_argument(
        "--plan", action="store_true", help="stop after the plan; exit 10 when something would be built"
    )
    parser.add_argument("--force", action="store_true", help="build although the wheel is there, and compare")
    parser.add_argument(
        "--detach", action="store_true", help="build in the background; `spark-build attach` follows it"
    )
    parser.add_argument("--keep-going", action="store_true", help="build the other recipes when one fails")
    parser.add_argument("--wheelhouse", metavar="DIR", help="where wheels are kept")
    add_progress(parser)


def run(args: argparse.Namespace, app: App) -> int:
    """Print the paths of the wheels; with ``--plan`` the plan."""
    asked = requests(args, app, force=args.force)
    if args.detach and not args.plan and "SPARK_BUILD_DETACHED" not in app.env:
        from builder.cli.attach import detached  # noqa: PLC0415  # rarely wanted

        return detached(app)
    with opened(args, app) as world:
        from builder.pipeline.evaluate import evaluate_all  # noqa: PLC0415  # after the arguments were found good

        failed: list[SparkError] | None = [] if args.keep_going else None
        wanted, inside, look = held(asked, world, args)
        evaluations = evaluate_all(wanted, inside, purpose="plan" if args.plan else "build", failed=failed)
        look(evaluations)
        if args.plan:
            code = show_plans(evaluations, inside, app, as_json=args.json)
            if failed:
                raise failed[0]
            return code
        return build_all(evaluations, inside, app, failed or [])


def show_plans(evaluations: tuple[Evaluation, ...], world: World, app: App, *, as_json: bool) -> int:
    """Print the plans; return 10 when one found work."""
    from builder.ui import plan as shown  # noqa: PLC0415  # not needed for a hit

    if as_json:
        app.print_json({"plans": [shown.plan_json(one.plan) for one in evaluations]})
    else:
        for one in evaluations:
            for line in shown.plan_lines(
                one.plan,
                wheelhouse=world.house.root,
                wheelhouse_from=world.config.wheelhouse_from,
                now=world.clock(),
                request=one.request,
            ):
                app.print(_to_type(line, app.args))
    return FOUND_WORK if any(one.plan.misses for one in evaluations) else 0


def _to_type(line: str, args: argparse.Namespace) -> str:
    """Return a plan's line; the command to type next is one for the stack where that was asked for, and has its lock."""
    if not line.startswith("  Run: spark-build recipe "):
        return line
    import shlex  # noqa: PLC0415

    words = (
        ["spark-build", "stack", args.file] if args.command == "stack" else shlex.split(line.removeprefix("  Run: "))
    )
    words += [flag for flag in ("--locked", "--frozen") if getattr(args, flag[2:], False)]
    words += ["--lock", args.lock] if getattr(args, "lock", None) else []
    return f"  Run: {shlex.join(words)}"


def build_all(evaluations: tuple[Evaluation, ...], world: World, app: App, failed: list[SparkError]) -> int:
    """Build what the plans miss and print the path of every wheel; `failed` are errors of others, the first is raised."""
    from builder.events import Note  # noqa: PLC0415  # after the arguments were found good
    from builder.pipeline import proof  # noqa: PLC0415

    args, wheels, bad = app.args, [], set[str]()
    for one in evaluations:
        if below := bad.intersection(other.plan.recipe for other in one.depends):
            bad.add(one.plan.recipe)
            text = f"{one.plan.recipe} isn't built: it builds on {', '.join(sorted(below))}"
            world.sink.emit(Note(level="warning", text=text))
            continue
        try:
            if one.plan.misses:
                wheels.append((*build_one(one, world), False))
            else:
                proof.renew(one, world, one.plan.hits)
                wheels.append((one, one.plan.hits, True))
        except SparkError as error:
            if not args.keep_going or error.exit_code >= 128:  # noqa: PLR2004  # interrupted
                raise
            failed.append(error)
            bad.add(one.plan.recipe)
            text = f"{one.plan.recipe}: {error.summary} ({error.code}); going on with the others"
            world.sink.emit(Note(level="warning", text=text))
    mend_index(world)
    _print(wheels, world.house, app)
    if failed:
        raise failed[0]
    return 0


def mend_index(world: World) -> None:
    """Let the index list what a killed run had filed and not yet listed; where it can't be written, a hit is still one."""
    from builder.events import Note  # noqa: PLC0415
    from builder.index import refresh  # noqa: PLC0415  # after the arguments were found good

    try:
        refresh(world.house)
    except HostError as error:
        world.sink.emit(Note(level="warning", text=f"the index is behind: {error.summary}"))


def build_one(one: Evaluation, world: World) -> tuple[Evaluation, tuple[Stored, ...]]:
    """Tell the plan and build what it misses; see `pipeline.build.build`."""
    from builder.events import Note, PlanMade  # noqa: PLC0415  # not needed for a hit
    from builder.pipeline.build import build  # noqa: PLC0415
    from builder.ui.plan import plan_reasons  # noqa: PLC0415

    plan = one.plan
    world.sink.emit(
        PlanMade(
            recipe=plan.recipe,
            fingerprint=plan.inputs.fingerprint,
            label=plan.label,
            hits=tuple(wheel.output for wheel in plan.hits),
            misses=plan.misses,
            reasons=plan_reasons(plan),
            estimate_s=plan.estimate_s,
        )
    )
    for text, run in plan.advice:
        world.sink.emit(Note(level="info", text=f"{plan.recipe}: {text}{run and f': {run}'}"))
    return build(one, world)


def row(one: Evaluation, wheel: Stored, *, cached: bool) -> dict[str, Json]:
    """Return what ``--json`` tells of a wheel; `cached` is whether it was there."""
    return {
        "recipe": one.plan.recipe,
        "output": wheel.output,
        "project": wheel.project,
        "wheel_version": wheel.version,
        "path": str(wheel.path),
        "sha256": wheel.sha256,
        "size": wheel.size,
        "fingerprint": wheel.fingerprint,
        "commit": one.plan.pin.commit,
        "cached": cached,
    }


def _print(wheels: list[tuple[Evaluation, tuple[Stored, ...], bool]], house: Wheelhouse, app: App) -> None:
    if app.args.json:
        app.print_json(
            {"wheels": [row(one, wheel, cached=cached) for one, stored, cached in wheels for wheel in stored]}
        )
        return
    for _one, stored, _cached in wheels:
        for wheel in stored:
            app.print(str(wheel.path))
    for one, stored, cached in wheels:
        if not cached and app.args.progress != "quiet":
            from builder.index import index_url  # noqa: PLC0415  # not needed for a hit
            from builder.ui.install import install_line  # noqa: PLC0415

            pinned_by = {output.name: output.pinned_by for output in one.outputs}
            app.stderr.write(install_line(stored, index_url(house), pinned_by=pinned_by) + "\n")
