"""``spark-build plan``: what would be built, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.cli.recipe import show_plans
from builder.cli.request import add_lock, add_progress, add_request, held, requests
from builder.cli.session import opened

if TYPE_CHECKING:
    import argparse

    from builder.cli.app import App

EXAMPLES = """\
examples:
  spark-build plan flashinfer
  spark-build plan triton --ref main --offline      what the last known main would need

Exit code 10 when something would be built, 0 when all is there."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command."""
    parser.epilog = EXAMPLES
    add_request(parser)
    add_lock(parser)
    parser.add_argument("--wheelhouse", metavar="DIR", help="where wheels are kept")
    add_progress(parser)


def run(args: argparse.Namespace, app: App) -> int:
    """Print the plans."""
    asked = requests(args, app)
    with opened(args, app) as world:
        from builder.pipeline.evaluate import evaluate_all  # noqa: PLC0415  # after the arguments were found good

        wanted, inside, look = held(asked, world, args)
        evaluations = evaluate_all(wanted, inside, purpose="plan")
        look(evaluations)
        return show_plans(evaluations, inside, app, as_json=args.json)
