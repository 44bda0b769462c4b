"""``spark-build stack``: build a set in dependency order and promote it as one."""

from __future__ import annotations

import contextlib
import itertools
import shlex
from typing import TYPE_CHECKING

from builder.cli.request import add_how, add_lock, add_progress, add_target, held, nameless
from builder.cli.session import opened
from builder.errors import UsageError
from builder.values import replace

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from builder.cli.app import App
    from builder.pipeline.stack import Made
    from builder.pipeline.world import World
    from builder.recipe.stack import Loaded

EXAMPLES = """\
examples:
  spark-build stack                                 what stack.toml says
  spark-build stack team.toml --plan                what would be built
  spark-build stack --locked                        at the sources of `spark-build lock stack.toml`
  spark-build wheels list --channel team/nightly    what was promoted

All members are built, then looked at as a set: what they require of each other, one torch, FlashInfer's versions, torch's
pin of Triton. Only when all of that is right does the channel list them, all at once. Wheels that were built stay in the
wheelhouse either way. docs/examples/stack.toml is a stack file to start from."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command."""
    parser.epilog = EXAMPLES
    parser.add_argument("file", nargs="?", metavar="FILE", default="stack.toml", help="default: stack.toml")
    parser.add_argument("--channel", metavar="NAME", help="promote to this one instead of the file's")
    parser.add_argument(
        "--plan", action="store_true", help="stop after the plan; exit 10 when something would be built"
    )
    parser.add_argument(
        "--detach", action="store_true", help="build in the background; `spark-build attach` follows each member"
    )
    add_target(parser)
    add_how(parser)
    add_lock(parser)
    parser.add_argument("--wheelhouse", metavar="DIR", help="where wheels are kept")
    add_progress(parser)


def run(args: argparse.Namespace, app: App) -> int:
    """Print the paths of the members' wheels; with ``--plan`` the plans."""
    from builder.pipeline import fit, stack  # noqa: PLC0415

    loaded = _loaded(args, app)
    base = nameless(args, app)
    if args.detach and not args.plan and "SPARK_BUILD_DETACHED" not in app.env:
        from builder.cli.attach import detached  # noqa: PLC0415  # rarely wanted

        return detached(app)
    with opened(args, app) as world:
        from builder.cli.recipe import build_one, mend_index, show_plans  # noqa: PLC0415
        from builder.pipeline.evaluate import evaluate_all  # noqa: PLC0415

        asked, inside = stack.requests(loaded, base, world)
        with _lockable(args):
            wanted, inside, look = held(asked, inside, args)
        evaluations = evaluate_all(wanted, inside, purpose="plan" if args.plan else "build")
        with _lockable(args):
            look(evaluations)
        if args.plan:
            return show_plans(evaluations, inside, app, as_json=args.json)
        made = stack.build(evaluations, inside, build_one)
        mend_index(inside)
        fit.check(loaded, made, inside)
        changed = stack.promote(loaded, made, inside) if loaded.stack.channel else False
        _print(loaded, made, inside, app, changed=changed)
    return 0


@contextlib.contextmanager
def _lockable(args: argparse.Namespace) -> Iterator[None]:
    """Let a lock that is for something else be mended by locking the stack, not one of its recipes alone."""
    try:
        yield
    except UsageError as error:
        if error.code == "lock-stale":
            where = ["--lock", args.lock] if args.lock else []
            error.run = (shlex.join(["spark-build", "lock", args.file, *where]),)
        raise


def _loaded(args: argparse.Namespace, app: App) -> Loaded:
    """Return the stack with the channel that is meant; raise UsageError for a finding that nobody can let pass."""
    from builder.pipeline import stack  # noqa: PLC0415
    from builder.wheelhouse import channel  # noqa: PLC0415

    loaded = stack.load(app.cwd / args.file)
    for slug in itertools.chain.from_iterable(one.findings for one in loaded.stack.check.accept):
        from builder.pipeline.judged import unacceptable  # noqa: PLC0415

        if wrong := unacceptable(slug):
            raise UsageError(
                "accept-unknown", f"{args.file}: check.accept: {wrong}", help="docs/findings.md has all of them"
            )
    if args.channel is None:
        return loaded
    channel.check(args.channel)
    return replace(loaded, stack=replace(loaded.stack, channel=args.channel))


def _print(loaded: Loaded, made: Sequence[Made], world: World, app: App, *, changed: bool) -> None:
    name, wheels = loaded.stack.channel, [wheel for one in made for wheel in one.wheels]
    if app.args.json:
        from builder.cli.recipe import row  # noqa: PLC0415  # as in `run`

        rows = [row(one.one, wheel, cached=one.cached) for one in made for wheel in one.wheels]
        app.print_json({"stack": {"name": loaded.stack.name, "channel": name, "changed": changed, "wheels": rows}})
        return
    for wheel in wheels:
        app.print(str(wheel.path))
    if app.args.progress == "quiet":
        return
    from builder.index import index_url  # noqa: PLC0415
    from builder.ui.install import install_line  # noqa: PLC0415

    what = f"{len(wheels)} wheel{'' if len(wheels) == 1 else 's'}"
    done = (
        f"{what} promoted to {name}" if changed else f"{name} lists {what} already" if name else f"{what}, no channel"
    )
    pinned_by = {output.name: output.pinned_by for one in made for output in one.one.outputs}
    app.stderr.write(f"{done}\n{install_line(wheels, index_url(world.house), pinned_by=pinned_by)}\n")
