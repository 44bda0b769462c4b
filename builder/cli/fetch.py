"""``spark-build fetch``: bring in everything that a build reads, so that it can run offline."""

from __future__ import annotations

import shlex
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from builder.cli.request import add_lock, add_progress, add_request, held, requests
from builder.cli.session import opened
from builder.errors import SourceError
from builder.events import Note

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from builder.cli.app import App
    from builder.digest import Json
    from builder.pipeline.evaluate import Evaluation
    from builder.pipeline.world import World
    from builder.source import Sources
    from builder.ui.fetched import Row, State

EXAMPLES = """\
examples:
  spark-build fetch flashinfer
  spark-build fetch vllm --dry-run                  what is missing, and how much that is
  spark-build fetch triton --ref main               then: spark-build recipe triton --ref main --offline

What the tree itself pulls in while it is built is read out of that very tree, brought in at several at a time, and
checked: by the digest in the tree or the recipe, else by that of the first fetch. One that was stopped goes on where it was.

Exit code 4 when something is missing."""

#: What a command line has that only looks.
_LOOKING = frozenset({"--dry-run", "--offline", "--json"})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command."""
    parser.epilog = EXAMPLES
    add_request(parser)
    add_lock(parser)
    parser.add_argument("--dry-run", action="store_true", help="only tell what is missing, and its size")
    parser.add_argument("--wheelhouse", metavar="DIR", help="where wheels are kept")
    add_progress(parser)


def run(args: argparse.Namespace, app: App) -> int:
    """Print a table of all sources; nothing is built."""
    asked = requests(args, app)
    with opened(args, app) as world:
        from builder.pipeline.evaluate import evaluate_all  # noqa: PLC0415

        wanted, inside, look = held(asked, world, args)
        planned = evaluate_all(wanted, inside, purpose="plan")
        look(planned)
        act = _look if args.dry_run or args.offline else _fetch
        found = [act(one, inside) for one in planned]
        rows = [row for _one, some in found for row in some]
        if args.json:
            told = [one | {"sources": [row.as_json() for row in some]} for one, some in found]
            app.print_json({"fetched": told})
        else:
            _print(rows, app)
        missing = sum(row.state == "missing" for row in rows)
        if missing:
            words = [word for word in world.words if word not in _LOOKING]
            world.sink.emit(Note(level="warning", text=f"{missing} missing: {shlex.join(['spark-build', *words])}"))
    return SourceError.exit_code if missing else 0


def _print(rows: Sequence[Row], app: App) -> None:
    from builder.ui import fetched, style  # noqa: PLC0415

    width = style.columns(app.stdout) if app.stdout.isatty() else 10_000  # a file holds what it is given
    for line in fetched.lines(rows, width=width):
        app.print(style.fit(line, app.stdout.encoding))


def _look(one: Evaluation, world: World) -> tuple[dict[str, Json], list[Row]]:
    """Return what is at hand and what isn't; nothing is fetched."""
    from builder import source  # noqa: PLC0415
    from builder.ui import fetched  # noqa: PLC0415

    recipe, sources = one.plan.recipe, _sources(one, world)
    state: State = "missing" if source.lacks(one.plan.pin, sources) else "at hand"
    rows = [fetched.source_row(recipe, one.plan.pin, state), *_nested(one, sources, fetching=False)]
    return _told(one, 0), rows


def _fetch(one: Evaluation, world: World) -> tuple[dict[str, Json], list[Row]]:
    from builder import source  # noqa: PLC0415
    from builder.pipeline import advice  # noqa: PLC0415
    from builder.pipeline.evaluate import told  # noqa: PLC0415
    from builder.ui import fetched  # noqa: PLC0415

    recipe, sources = one.plan.recipe, _sources(one, world)
    with advice.exact(one.request, world), told(world, "fetch", recipe):
        received = source.fetch(one.plan.pin, sources)
    rows = [fetched.source_row(recipe, one.plan.pin, "fetched" if received else "at hand")]
    if one.nested:
        rows += _nested_fetched(one, world, sources)
    _fill_cache(one, world)
    return _told(one, received), rows


def _nested_fetched(one: Evaluation, world: World, sources: Sources) -> list[Row]:
    from builder.pipeline import advice  # noqa: PLC0415
    from builder.pipeline.evaluate import evaluate, told  # noqa: PLC0415
    from builder.source import nested  # noqa: PLC0415

    lacked = {each.id for each in nested.missing(one.nested, sources)}
    if one.request.relock or not all(each.known for each in one.nested):
        one = evaluate(one.request, world, purpose="fetch")  # what nobody knows a digest of comes for that
    with advice.exact(one.request, world), told(world, "fetch", one.plan.recipe):
        nested.fetch(one.nested, sources, read=partial(_read, one, sources))
    return _nested(one, sources, fetching=True, lacked=lacked)


def _read(one: Evaluation, sources: Sources, path: str) -> bytes | None:
    from builder import source  # noqa: PLC0415

    return source.read(one.plan.pin, path, sources)


def _nested(one: Evaluation, sources: Sources, *, fetching: bool, lacked: set[str] | None = None) -> list[Row]:
    """Return a row for all that the tree pulls in, `lacked` those that were missing before."""
    if not one.nested:
        return []
    from builder.source import nested, together  # noqa: PLC0415
    from builder.ui import fetched  # noqa: PLC0415

    gone = lacked if lacked is not None else {each.id for each in nested.missing(one.nested, sources)}
    jobs = {each.id: partial(nested.size, each) for each in one.nested}
    sizes = together.run(jobs, sources, at_once=nested.JOBS, what="sizes")
    rows = []
    for each in one.nested:
        state: State = "in place" if each.pin is None else "at hand"
        if each.id in gone:
            state = "fetched" if fetching else "missing"
        rows.append(fetched.nested_row(one.plan.recipe, each, state, sizes[each.id]))
    return rows


def _sources(one: Evaluation, world: World) -> Sources:
    return world.sources(offline=one.request.offline, recipe=one.plan.recipe)


def _told(one: Evaluation, received: int) -> dict[str, Json]:
    return {
        "recipe": one.plan.recipe,
        "source": one.plan.pin.filename or one.plan.pin.commit or one.plan.pin.url,
        "bytes": received,
        "requirements": sum(len(lock.packages) for lock in one.locks),
    }


def _fill_cache(one: Evaluation, world: World) -> None:
    """Fill each build environment once, which brings its files into uv's cache."""
    from builder import buildenv  # noqa: PLC0415
    from builder.events import Printed  # noqa: PLC0415
    from builder.pipeline.evaluate import told  # noqa: PLC0415

    world.builds.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".fetch-", dir=world.builds))
    try:
        for lock in one.locks:
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
