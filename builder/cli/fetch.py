"""``spark-build fetch``: bring in everything that a build reads, so that it can run offline."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.cli.request import add_progress, add_request, requests
from builder.cli.session import opened

if TYPE_CHECKING:
    import argparse

    from builder.cli.app import App
    from builder.pipeline.evaluate import Evaluation
    from builder.pipeline.world import World

EXAMPLES = """\
examples:
  spark-build fetch flashinfer
  spark-build fetch triton --ref main               then: spark-build recipe triton --ref main --offline"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command."""
    parser.epilog = EXAMPLES
    add_request(parser)
    parser.add_argument("--wheelhouse", metavar="DIR", help="where wheels are kept")
    add_progress(parser)


def run(args: argparse.Namespace, app: App) -> int:
    """Print a line for each source; nothing is built."""
    asked = requests(args, app)
    with opened(args, app) as world:
        from builder.pipeline.evaluate import evaluate_all  # noqa: PLC0415
        from builder.recipe.units import show_bytes  # noqa: PLC0415

        rows = [_fetch(one, world) for one in evaluate_all(asked, world)]
        if args.json:
            app.print_json({"fetched": rows})
        else:
            for row in rows:
                state = f"{show_bytes(row['bytes'])} fetched" if row["bytes"] else "at hand"
                app.print(
                    f"{row['recipe']}: {row['source']}: {state}; {row['requirements']} build requirements at hand"
                )
        return 0


def _fetch(one: Evaluation, world: World) -> dict[str, Any]:
    from builder import buildenv, source  # noqa: PLC0415
    from builder.events import Printed  # noqa: PLC0415
    from builder.pipeline.evaluate import told  # noqa: PLC0415

    with told(world, "fetch", one.plan.recipe):
        fetched = source.fetch(one.plan.pin, world.sources(offline=one.request.offline, recipe=one.plan.recipe))
    world.builds.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".fetch-", dir=world.builds))
    try:
        for lock in one.locks:  # filling an environment once brings its files into uv's cache
            with told(world, "env", lock.output):
                buildenv.create(
                    lock,
                    scratch / lock.output,
                    python=one.plan.host.interpreter.path,
                    index_url=world.config.index_url,
                    env=world.uv_env,
                    offline=one.request.offline,
                    log=scratch / "env.log",
                    on_line=lambda line: world.sink.emit(Printed(phase="env", text=line)),
                    recipe=one.plan.recipe,
                )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return {
        "recipe": one.plan.recipe,
        "source": one.plan.pin.filename or one.plan.pin.commit or one.plan.pin.url,
        "bytes": fetched,
        "requirements": sum(len(lock.packages) for lock in one.locks),
    }
