"""``spark-build recipe``: build, or take from the wheelhouse."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.cli.request import add_progress, add_request, requests
from builder.cli.session import opened
from builder.errors import FOUND_WORK, HostError, SparkError

if TYPE_CHECKING:
    import argparse

    from builder.cli.app import App
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

Wheel paths go to stdout, one a line; everything else to stderr."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command."""
    parser.epilog = EXAMPLES
    add_request(parser)
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
        evaluations = evaluate_all(asked, world, failed=failed)
        if args.plan:
            code = show_plans(evaluations, world, app, as_json=args.json)
            if failed:
                raise failed[0]
            return code
        return build_all(evaluations, world, app, failed or [])


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
                app.print(line)
    return FOUND_WORK if any(one.plan.misses for one in evaluations) else 0


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
                wheels.append((*_build_one(one, world), False))
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
    _mend_index(world)
    _print(wheels, world.house, app)
    if failed:
        raise failed[0]
    return 0


def _mend_index(world: World) -> None:
    """Let the index list what a killed run had filed and not yet listed; where it can't be written, a hit is still one."""
    from builder.events import Note  # noqa: PLC0415
    from builder.index import refresh  # noqa: PLC0415  # after the arguments were found good

    try:
        refresh(world.house)
    except HostError as error:
        world.sink.emit(Note(level="warning", text=f"the index is behind: {error.summary}"))


def _build_one(one: Evaluation, world: World) -> tuple[Evaluation, tuple[Stored, ...]]:
    from builder.events import PlanMade  # noqa: PLC0415  # not needed for a hit
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
    return build(one, world)


def _print(wheels: list[tuple[Evaluation, tuple[Stored, ...], bool]], house: Wheelhouse, app: App) -> None:
    if app.args.json:
        app.print_json(
            {
                "wheels": [
                    {
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
                    for one, stored, cached in wheels
                    for wheel in stored
                ]
            }
        )
        return
    for _one, stored, _cached in wheels:
        for wheel in stored:
            app.print(str(wheel.path))
    for _one, stored, cached in wheels:
        if not cached and app.args.progress != "quiet":
            from builder.index import index_url  # noqa: PLC0415  # not needed for a hit
            from builder.ui.install import install_line  # noqa: PLC0415

            app.stderr.write(install_line(stored, index_url(house)) + "\n")
