"""``spark-build lock``: write down every source and requirement, exact."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder import lockfile
from builder.cli.request import add_progress, add_request, nameless, requests
from builder.cli.session import opened
from builder.errors import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from pathlib import Path

    from builder.cli.app import App
    from builder.pipeline.evaluate import Evaluation
    from builder.pipeline.world import World

EXAMPLES = """\
examples:
  spark-build lock triton --ref main                then: spark-build recipe triton --locked
  spark-build lock stack.toml                       all of a stack, and nothing else
  spark-build lock                                  the same recipes once more, as they are now
  spark-build lock --check                          exit 2 where that would change the lock

Remotes are asked for what moves (branches, tags); build requirements stay as they are known, --relock resolves them
again. Recipes of the lock that aren't named stay in it. What a backend asks for while it builds is known after the
first build: lock once more then."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command."""
    parser.epilog = EXAMPLES
    add_request(parser, optional=True)
    parser.add_argument("--lock", metavar="FILE", help="where it is written (default: spark-build.lock in this folder)")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 2 where the lock would change")
    parser.add_argument("--wheelhouse", metavar="DIR", help="where wheels are kept")
    add_progress(parser)


def run(args: argparse.Namespace, app: App) -> int:
    """Print the lock's path; what has changed in it goes to stderr."""
    path = app.cwd / (args.lock or lockfile.NAME)
    if not path.parent.is_dir():
        raise UsageError("usage", f"--lock {args.lock}: there is no folder {path.parent}")
    file = _stack_file(args, path, app)
    asked = (nameless(args, app),) if file or not args.name else requests(args, app)
    with opened(args, app) as world:
        from builder.pipeline import locking  # noqa: PLC0415  # after the arguments were found good
        from builder.pipeline.evaluate import evaluate_all  # noqa: PLC0415

        wanted, inside = asked, world
        if file is not None:
            from builder.pipeline import stack  # noqa: PLC0415

            wanted, inside = stack.requests(stack.load(app.cwd / file), asked[0], world)
        elif not args.name:
            wanted, inside = locking.again(path, asked[0], world)
        evaluations = evaluate_all(wanted, inside, purpose="fetch")
        new = locking.of(evaluations, inside)
        if args.check:
            locking.require(evaluations, lockfile.read(path), inside, path)
            changed = False
        else:
            changed, told = locking.update(path, new, keep=file is None)
            _tell(evaluations, told, inside)
    if args.json:
        app.print_json({"lock": {"path": str(path), "changed": changed, "recipes": sorted(new.recipes)}})
    else:
        app.print(str(path))
    return 0


def _stack_file(args: argparse.Namespace, path: Path, app: App) -> str | None:
    """Return the stack file that is meant: one that is named, or ``stack.toml`` where neither name nor lock is there.

    Raises UsageError where words for one recipe are given and none is named, or nothing says what is to be locked.
    """
    found = next((name for name in args.name if name.endswith(".toml")), None)
    if found and len(args.name) > 1:
        raise UsageError("usage", f"{found} says which recipes are meant; name it alone")
    if not args.name and not path.exists():
        found = "stack.toml"
        if not (app.cwd / found).exists():
            text = f"there is neither {path.name} nor {found} here"
            raise UsageError("lock-missing", text, run=("spark-build lock NAME", "spark-build lock STACK.toml"))
    single = {"--ref": args.ref, "--pr": args.pr, "--repo": args.repo, "--version": args.source_version}
    single |= {"--source": args.source, "--output": args.output, "--set": args.settings, "--env": args.env}
    single |= {"--with": args.taken, "--without": args.left}
    if (found or not args.name) and (given := [flag for flag, value in single.items() if value]):
        raise UsageError("usage", f"{given[0]} is about one recipe; name it, or say it in the stack file")
    return found


def _tell(evaluations: Sequence[Evaluation], told: Sequence[str], world: World) -> None:
    """Say what is otherwise than before, and which environments may not be whole yet."""
    from builder.events import Note  # noqa: PLC0415

    for text in told:
        world.sink.emit(Note(level="info", text=text))
    for one in evaluations:
        if one.plan.pin.stale:
            text = f"{one.plan.recipe}: the remote wasn't asked; this is what was last known"
            world.sink.emit(Note(level="warning", text=text))
        if not one.plan.hits:
            text = f"{one.plan.recipe} wasn't built here yet: what its backend asks for beyond its static requirements"
            world.sink.emit(Note(level="info", text=f"{text} is known after the first build; lock once more then"))
