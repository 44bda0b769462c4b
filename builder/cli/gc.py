"""``spark-build gc``: free space by policy."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from builder.errors import HostError, SparkError, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from builder.cli.app import App
    from builder.pipeline.gc import Candidate, Decision, Policy

EXAMPLES = """\
examples:
  spark-build gc --dry-run                          what would go, and how much it takes
  spark-build gc                                    scratch, old build trees, logs beyond the newest
  spark-build gc --older-than 7d --sources          what can be fetched again, too
  spark-build gc --wheels --keep-builds 2           of each output the two newest wheels stay

Without flags nothing goes that couldn't be had back at once: what killed runs left, trees of finished builds,
unfinished ones that nobody resumed for so long, and logs beyond those of the newest attempts of each recipe.
Never: what a running build uses, the newest wheel of an output, a wheel that a channel other than `local`
names or would name after its next rollback, or one that was built elsewhere. Scratch and sources of the last
day stay whatever --older-than says: a run may be at them. uv's cache goes as a whole, when no uv runs and
nothing came in for so long; a cache that UV_CACHE_DIR names is yours: `uv cache prune`. Of the server's folders,
uploads that nobody sends any more go as scratch, and of the objects that it keeps for compilers those that nobody
asked for so long, with --sources. Files with other names than spark-build's are never touched."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command."""
    parser.epilog = EXAMPLES
    parser.add_argument("--dry-run", action="store_true", help="show the same and remove nothing")
    parser.add_argument(
        "--keep-builds",
        type=int,
        default=5,
        metavar="N",
        help="logs of so many attempts, wheels of so many builds stay (5)",
    )
    parser.add_argument(
        "--older-than", default="30d", metavar="AGE", help="for trees, wheels, sources: unused so long (30d)"
    )
    parser.add_argument("--wheels", action="store_true", help="superseded wheels, too: only a build brings them back")
    parser.add_argument("--sources", action="store_true", help="archives, git mirrors and caches, too")
    parser.add_argument("--wheelhouse", metavar="DIR", help="where wheels are kept")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace, app: App) -> int:
    """Print what goes, and take it away."""
    from builder.pipeline import gc, growth  # noqa: PLC0415
    from builder.wheelhouse import locks, store  # noqa: PLC0415

    config, policy = app.config(), _policy(args)
    root = config.wheelhouse
    if not root.is_dir():
        raise store.missing(root)
    with contextlib.ExitStack() as stack:
        if not args.dry_run:
            stack.enter_context(locks.held(root / "locks" / "gc", timeout_s=0))
        found = growth.collect(root, sources=config.sources, stored=_stored(app, root))
        decisions, failed = gc.decide(found, policy, now=app.clock()), tuple[str, ...]()
        if not args.dry_run:
            decisions, failed = gc.sweep(decisions, root, remove_wheel=Path.unlink)
        decisions += _wheels(args, app, root, policy)
    _print(decisions, args, app)
    if failed:
        raise HostError("gc-failed", f"{len(failed)} could not be removed", cause="\n".join(failed))
    return 0


def _policy(args: argparse.Namespace) -> Policy:
    from builder.pipeline.gc import Policy  # noqa: PLC0415
    from builder.recipe.units import parse_seconds  # noqa: PLC0415

    if args.keep_builds < 0:
        raise UsageError("usage", f"--keep-builds {args.keep_builds}: at least 0")
    try:
        older = parse_seconds(args.older_than)
    except ValueError as error:
        raise UsageError("usage", f"--older-than {args.older_than}: {error}") from error
    return Policy(keep_builds=args.keep_builds, older_than_s=older, wheels=args.wheels, sources=args.sources)


def _stored(app: App, root: Path) -> frozenset[str]:
    """Return the fingerprints whose wheels are stored: their trees are finished, also where a kill came between."""
    from builder.wheelhouse import Wheelhouse  # noqa: PLC0415

    try:
        with Wheelhouse.open(root, clock=app.clock, create=False) as house:
            return frozenset(one.fingerprint for one in house.list_wheels() if one.path.is_file())
    except SparkError:  # so full a disk, so damaged a catalogue: what the trees say themselves is enough to begin with
        return frozenset()


def _wheels(args: argparse.Namespace, app: App, root: Path, policy: Policy) -> tuple[Decision, ...]:
    """Decide about wheels, and remove them where that was asked for; this comes last, since it needs the catalogue."""
    from builder import index  # noqa: PLC0415
    from builder.pipeline import gc, growth  # noqa: PLC0415
    from builder.wheelhouse import Wheelhouse  # noqa: PLC0415

    try:
        with Wheelhouse.open(root, clock=app.clock, create=False) as house:
            decisions = gc.decide(growth.wheels(house), policy, now=app.clock())
            if args.wheels and not args.dry_run:
                decisions, _failed = gc.sweep(
                    decisions, root, remove_wheel=lambda path: house.remove(house.get(path.name), named=False)
                )
                index.refresh(house)
            return decisions
    except SparkError:
        if args.wheels:
            raise
        return ()  # the rest is done, and said; a wheelhouse in trouble says so with the next command


def _print(decisions: Sequence[Decision], args: argparse.Namespace, app: App) -> None:
    from builder.pipeline import gc  # noqa: PLC0415
    from builder.recipe.units import show_bytes  # noqa: PLC0415

    if args.json:
        rows = [{**_json(one.candidate), "remove": one.remove, "why": one.why} for one in decisions]
        app.print_json({"dry_run": args.dry_run, "freed_bytes": gc.total(decisions), "items": rows})
        return
    for kind, what in gc.KINDS.items():
        mine = [one for one in decisions if one.candidate.kind == kind and one.remove]
        if not mine:
            continue
        app.print(f"{show_bytes(gc.total(mine)):>9}  {len(mine)} {what}")
        if kind in {"tree", "wheel", *gc.SOURCES} - {"object"}:  # of those there are thousands
            for one in mine:
                app.print(f"{show_bytes(one.candidate.size):>13}  {one.candidate.path} ({one.why})")
    app.print(f"{show_bytes(gc.total(decisions)):>9}  {'would be freed' if args.dry_run else 'freed'}")
    for flag in ("--wheels", "--sources"):
        more = sum(one.candidate.size for one in decisions if one.flag == flag)
        if more:
            app.stderr.write(f"{show_bytes(more)} more with {flag}\n")


def _json(one: Candidate) -> dict[str, object]:
    return {"kind": one.kind, "path": str(one.path), "bytes": one.size, "used": int(one.used)}
