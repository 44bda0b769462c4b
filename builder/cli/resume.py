"""``spark-build resume``: go on with a build that didn't come to a good end, at the object where it stopped."""

from __future__ import annotations

import contextlib
import shlex
from typing import TYPE_CHECKING

from builder.cli.request import add_progress
from builder.errors import UsageError
from builder.values import replace

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from builder.cli.app import App
    from builder.pipeline.again import Asked
    from builder.pipeline.builds import Attempt
    from builder.pipeline.evaluate import Evaluation
    from builder.pipeline.world import World

EXAMPLES = """\
examples:
  spark-build resume                                the newest build that was stopped or failed
  spark-build resume 3f9ac1d -j 4                   that one, with at most four compilers
  spark-build resume --detach                       whatever becomes of this terminal

The same inputs are built: a branch that has moved meanwhile is taken at the commit of then."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command."""
    parser.epilog = EXAMPLES
    parser.add_argument("ref", nargs="?", metavar="REF", help="which build (default: the newest that isn't done)")
    how = parser.add_argument_group("how, where it should be otherwise than before")
    how.add_argument("-j", "--jobs", type=int, metavar="N", help="at most so many compilers at once")
    how.add_argument("--memory", metavar="SIZE", help="at most so much memory for compilers")
    how.add_argument("--reserve", metavar="SIZE", help="what stays free for everybody else")
    how.add_argument("--offline", action="store_true", help="never use the network")
    parser.add_argument("--detach", action="store_true", help="build in the background, as `recipe --detach` does")
    parser.add_argument("--wheelhouse", metavar="DIR", help="where wheels are kept")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    add_progress(parser)


def run(args: argparse.Namespace, app: App) -> int:
    """Build what was being built; print the paths of the wheels."""
    if args.detach and "SPARK_BUILD_DETACHED" not in app.env:
        from builder.cli.attach import detached  # noqa: PLC0415

        return detached(app)
    from builder.cli import recipe  # noqa: PLC0415
    from builder.pipeline import again, builds  # noqa: PLC0415

    one = _choose(builds.attempts(app.config().wheelhouse), args.ref)
    asked = again.read(one.logs)
    with _evaluated(one, asked, args, app) as (world, old, evaluations):
        assert asked is not None  # noqa: S101  # it was required
        _tell(one, asked, world)
        # What is kept with this attempt is what is built, so that it can be resumed, too.
        return recipe.build_all(evaluations, replace(world, words=asked.words), old, [])


@contextlib.contextmanager
def _evaluated(
    one: Attempt, asked: Asked | None, args: argparse.Namespace, app: App
) -> Iterator[tuple[World, App, tuple[Evaluation, ...]]]:
    """Give the world in which `one` was asked for, and what it was about; raise UsageError where that is another by now."""
    from builder.cli.request import requests  # noqa: PLC0415
    from builder.cli.session import opened  # noqa: PLC0415

    _require(one, asked)
    assert asked is not None  # noqa: S101  # it was required
    old = replace(app, cwd=asked.cwd, args=_arguments(one, asked, args, app.config().wheelhouse))
    (request,) = requests(old.args, old)
    with opened(old.args, old) as world:
        from builder.pipeline.evaluate import evaluate_all  # noqa: PLC0415

        evaluations = evaluate_all((request,), world)
        _require_same(one, evaluations, asked)
        yield world, old, evaluations


def kept(app: App, word: str | None) -> Attempt:
    """Return the newest attempt whose build tree is kept: of the recipe `word`, or the one that the REF `word` means.

    Raises UsageError where there is none, or another process builds in that tree.
    """
    from builder.pipeline import builds  # noqa: PLC0415

    found = builds.attempts(app.config().wheelhouse)
    trees = [one for one in found if (one.logs.parent.parent / "state" / "patch").exists()]
    mine = [one for one in trees if one.recipe == word]
    if not mine and word in {one.recipe for one in found}:
        raise UsageError(
            "tree-gone",
            f"no build tree of {word} is kept",
            cause="a build that comes to its end leaves its logs alone",
            help="a build that fails or is stopped keeps its tree; for a tree to edit: patch new",
            run=(f"spark-build recipe {word}", f"spark-build patch new {word} ID"),
        )
    one = mine[0] if mine else builds.choose(trees, word)
    if one.outcome == "running":
        text = f"{one.recipe} {one.fingerprint[:10]} is being built by another process"
        raise UsageError("runs-already", text, run=(f"spark-build attach {one.fingerprint[:10]}",))
    return one


@contextlib.contextmanager
def reopened(one: Attempt, args: argparse.Namespace, app: App) -> Iterator[tuple[World, Evaluation]]:
    """Give the world in which a kept build was asked for, and its plan. Raises UsageError as resuming it does."""
    from builder.pipeline import again  # noqa: PLC0415

    for name in ("jobs", "memory", "reserve", "offline"):
        vars(args).setdefault(name, None)
    with _evaluated(one, again.read(one.logs), args, app) as (world, _old, evaluations):
        yield world, next(each for each in evaluations if each.plan.recipe == one.recipe)


def _choose(found: Sequence[Attempt], ref: str | None) -> Attempt:
    """Return the attempt to go on with. Raises UsageError for one that runs, and where none is left to do."""
    from builder.pipeline import again, builds  # noqa: PLC0415

    left = again.unfinished(found)
    if ref is not None and not ref.startswith("^") and not any(one.fingerprint.startswith(ref) for one in left):
        one = builds.choose(found, ref)
        text = f"{one.recipe} {one.fingerprint[:10]} came to its end: there is nothing to resume"
        raise UsageError("nothing-to-resume", text, run=("spark-build history",))
    if found and not left:
        raise UsageError("nothing-to-resume", "every build here came to its end", run=("spark-build history",))
    one = builds.choose(left, ref)
    if one.outcome == "running":
        text = f"{one.recipe} {one.fingerprint[:10]} is being built by another process"
        raise UsageError("runs-already", text, run=(f"spark-build attach {one.fingerprint[:10]}",))
    return one


def _require(one: Attempt, asked: Asked | None) -> None:
    """Raise UsageError where the command line of then or the build tree isn't there any more."""
    what = f"{one.recipe} {one.fingerprint[:10]}"
    if asked is not None and asked.words[:1] == ("stack",):
        text = f"attempt {one.attempt} of {what} was made for a stack"
        again = "give that command again: it goes on where that attempt stopped, and builds the others"
        raise UsageError("not-kept", text, help=again, run=(_command(asked),))
    if asked is None or "recipe" not in asked.words[:1]:
        raise UsageError(
            "not-kept",
            f"the command that made attempt {one.attempt} of {what} wasn't kept",
            help="give it again: it goes on where that attempt stopped",
            run=(f"spark-build recipe {one.recipe}",),
        )
    if not asked.cwd.is_dir():
        raise UsageError("folder-gone", f"{asked.cwd} is gone, where {what} was asked for", run=(_command(asked),))
    if not (one.logs.parent.parent / "state").is_dir():
        raise UsageError(
            "tree-gone",
            f"the build tree of {what} is gone, and with it what was compiled",
            help="build it again from the start",
            run=(_command(asked),),
        )


def _command(asked: Asked) -> str:
    return shlex.join(["spark-build", *asked.words])


def _arguments(one: Attempt, asked: Asked, args: argparse.Namespace, wheelhouse: Path) -> argparse.Namespace:
    """Return the arguments of then, at the commit of then, for this recipe alone; those of now where they are given."""
    from builder.cli.main import build_parser  # noqa: PLC0415  # it imports commands
    from builder.pipeline import again  # noqa: PLC0415

    old = build_parser(["recipe"]).parse_args(asked.words)
    old.name, old.plan, old.force, old.relock, old.keep_going = [one.recipe], False, False, False, False
    old.wheelhouse, old.json, old.progress, old.color = str(wheelhouse), args.json, args.progress, args.color
    commit = again.commit_of(one)
    if commit and not old.source and not old.source_version:
        old.ref = commit
    for name in ("jobs", "memory", "reserve", "offline"):
        if getattr(args, name):
            setattr(old, name, getattr(args, name))
    return old


def _require_same(one: Attempt, evaluations: Sequence[Evaluation], asked: Asked) -> None:
    """Raise UsageError with every input that isn't as it was: its objects belong to another build."""
    from builder.inputs import diff  # noqa: PLC0415
    from builder.pipeline import again  # noqa: PLC0415
    from builder.ui.reasons import reasons  # noqa: PLC0415

    inputs = next(each.plan.inputs for each in evaluations if each.plan.recipe == one.recipe)
    if inputs.fingerprint == one.fingerprint:
        return
    told = reasons(diff(dict(again.document(one)), dict(inputs.document)))
    raise UsageError(
        "inputs-moved",
        f"{one.recipe} {one.fingerprint[:10]} can't be resumed: its inputs are others now ({inputs.fingerprint[:10]})",
        cause="\n".join(told),
        help="put back what has changed, or build what it is now",
        run=(_command(asked),),
    )


def _tell(one: Attempt, asked: Asked, world: World) -> None:
    from builder.events import Note  # noqa: PLC0415

    where = f" in {one.phase}" if one.phase else ""
    ended = {"failed": "failed", "interrupted": "was stopped", "killed": "was killed"}[one.outcome]
    text = f"going on with {one.recipe} {one.fingerprint[:10]}, whose attempt {one.attempt} {ended}{where}"
    world.sink.emit(Note(level="info", text=f"{text}: {_command(asked)}"))
