"""``spark-build why``: the difference between two stored inputs documents."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.cli.request import add_progress, add_request, requests
from builder.cli.session import opened
from builder.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from builder.cli.app import App
    from builder.pipeline.world import World
    from builder.plan import Known

EXAMPLES = """\
examples:
  spark-build why flashinfer                        against the nearest stored build
  spark-build why flashinfer --against 3f9ac1d      against one build"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command."""
    parser.epilog = EXAMPLES
    add_request(parser, several=False)
    parser.add_argument(
        "--against", metavar="REF", help="a fingerprint's first characters, or ^1 for the newest stored"
    )
    parser.add_argument("--wheelhouse", metavar="DIR", help="where wheels are kept")
    add_progress(parser)


def run(args: argparse.Namespace, app: App) -> int:
    """Print each input that differs."""
    (asked,) = requests(args, app)
    with opened(args, app) as world:
        from builder.inputs import diff  # noqa: PLC0415
        from builder.pipeline.evaluate import evaluate  # noqa: PLC0415
        from builder.ui import plan as shown  # noqa: PLC0415

        plan = evaluate(asked, world, purpose="plan").plan
        document = dict(plan.inputs.document)
        known = [one for one in world.house.known(plan.recipe) if one.fingerprint != plan.inputs.fingerprint]
        if args.against:
            older: Known | None = _find(world, plan.recipe, args.against)
        else:
            older = min(known, key=lambda one: len(diff(dict(one.document), document)), default=None)
        changes = diff(dict(older.document), document) if older else ()
        if args.json:
            app.print_json(
                {
                    "recipe": plan.recipe,
                    "fingerprint": plan.inputs.fingerprint,
                    "stored": not plan.misses,
                    "against": older.fingerprint if older else None,
                    "changes": [
                        {"path": one.path, "kind": one.kind, "old": one.old, "new": one.new} for one in changes
                    ],
                }
            )
            return 0
        lines = shown.why_lines(
            plan.recipe,
            plan.inputs.fingerprint,
            older.fingerprint if older else None,
            older.created if older else None,
            changes,
            world.clock(),
        )
        if not plan.misses:
            app.print(f"{plan.recipe} {plan.inputs.fingerprint[:10]} is in the wheelhouse")
        for line in lines:
            app.print(line)
        return 0


def _find(world: World, recipe: str, ref: str) -> Known:
    known = tuple(world.house.known(recipe))
    if ref.startswith("^") and ref[1:].isdigit() and 0 < int(ref[1:]) <= len(known):
        return known[int(ref[1:]) - 1]
    found = [one for one in known if one.fingerprint.startswith(ref)]
    if len(found) == 1:
        return found[0]
    raise UsageError(
        "build-ref",
        f"{ref} names {len(found) or 'no'} stored build{'s' if len(found) > 1 else ''} of {recipe}",
        cause="stored: " + (", ".join(one.fingerprint[:10] for one in known) or "none"),
        run=("spark-build wheels list",),
    )
