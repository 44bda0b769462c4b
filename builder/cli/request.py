"""The arguments that say what to build; shared by recipe, plan, why and fetch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from builder.errors import UsageError
from builder.recipe.units import ARCH, parse_bytes
from builder.stages import Request

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from builder.cli.app import App
    from builder.pipeline.evaluate import Evaluation
    from builder.pipeline.world import World

__all__ = [
    "add_how",
    "add_lock",
    "add_progress",
    "add_request",
    "add_target",
    "add_variants",
    "held",
    "nameless",
    "pairs",
    "repository",
    "requests",
    "variants",
]


def add_request(parser: argparse.ArgumentParser, *, several: bool = True, optional: bool = False) -> None:
    """Declare recipe names and everything that chooses source, target and inputs."""
    if optional:
        parser.add_argument("name", nargs="*", metavar="NAME", help="recipes, or a stack file")
    elif several:
        parser.add_argument("name", nargs="+", metavar="NAME", help="recipes, as `spark-build recipes list` shows them")
    else:
        parser.add_argument("name", nargs=1, metavar="NAME", help="a recipe")
    what = parser.add_argument_group("what to build")
    what.add_argument("--ref", help="git: a branch, tag, commit, or refs/pull/N/head")
    what.add_argument(
        "--pr",
        type=int,
        action="append",
        default=[],
        metavar="N",
        help="lay the diff of this pull request onto --ref; may be repeated",
    )
    what.add_argument("--repo", metavar="URL", help="another git repository, a fork for instance")
    what.add_argument("--version", dest="source_version", metavar="V", help="a released source by version")
    what.add_argument("--source", type=Path, metavar="DIR", help="a local folder as it is, uncommitted changes too")
    what.add_argument(
        "--output",
        action="append",
        default=[],
        metavar="NAME",
        help="one output instead of the default ones; may be repeated; `all` for all",
    )
    add_target(parser)
    change = parser.add_argument_group("changes to the recipe")
    change.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a recipe key, dotted: build.requires-pin='[\"cmake<4\"]'",
    )
    change.add_argument(
        "--env",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a variable of the build step; counts in the fingerprint and is kept with the wheel: no secrets",
    )
    add_variants(change)
    add_how(parser)


def add_target(parser: argparse.ArgumentParser) -> None:
    """Declare what is built for."""
    target = parser.add_argument_group("what for")
    target.add_argument("--python", metavar="P", help="the interpreter that wheels are built for: a path or 3.12")
    target.add_argument("--arch", metavar="A", help="the GPU architecture in the user's words (default: 12.1a, a GB10)")
    target.add_argument(
        "--torch", metavar="T", help="`existing` (that of --python), an interpreter's path, or a version"
    )
    target.add_argument("--cuda", metavar="C", help="a toolkit: path or version")


def add_how(parser: argparse.ArgumentParser) -> None:
    """Declare how it is built."""
    how = parser.add_argument_group("how")
    how.add_argument(
        "-j", "--jobs", type=int, metavar="N", help="at most so many compilers at once (default: the cores)"
    )
    how.add_argument(
        "--memory",
        metavar="SIZE",
        help="at most so much memory for compilers: 60G (default: what is free, less the reserve)",
    )
    how.add_argument(
        "--reserve",
        metavar="SIZE",
        help="what stays free for everybody else (default: 6G or a twentieth of the machine's, whichever is more)",
    )
    how.add_argument(
        "--compile-cache",
        metavar="URL",
        help="share compiled objects by this HTTP store, or file:///FOLDER, as well; `off` compiles everything",
    )
    how.add_argument(
        "--isolation",
        choices=("auto", "namespace", "none"),
        default="auto",
        help="how the build's network is cut (default: auto)",
    )
    how.add_argument(
        "--offline", action="store_true", help="never use the network; take what is at hand and say how old it is"
    )
    how.add_argument(
        "--relock",
        action="store_true",
        help="resolve build requirements again, ask again where nested tags and branches are, and take what changed of "
        "archives that were trusted at their first fetch",
    )
    how.add_argument("--json", action="store_true", help="print the result as JSON")


def add_variants(parser: argparse._ActionsContainer) -> None:
    """Declare which variants are taken in and left out."""
    for flag, dest, text in (
        ("--with", "taken", "take in a variant of the recipe, as `spark-build recipes show NAME` shows them"),
        ("--without", "left", "leave out a variant that is in by default"),
    ):
        parser.add_argument(flag, dest=dest, action="append", default=[], metavar="ID", help=f"{text}; may be repeated")


def variants(args: argparse.Namespace) -> dict[str, bool]:
    """Return what ``--with`` and ``--without`` say; raise UsageError where both name the same."""
    if both := sorted(set(args.taken) & set(args.left)):
        raise UsageError("variant-twice", f"--with and --without both name {both[0]}; give one of them")
    return dict.fromkeys(args.taken, True) | dict.fromkeys(args.left, False)


def add_lock(parser: argparse.ArgumentParser) -> None:
    """Declare how a request is held to a lock."""
    group = parser.add_argument_group("from a lock")
    either = group.add_mutually_exclusive_group()
    either.add_argument(
        "--locked",
        action="store_true",
        help="what spark-build.lock holds; refused where the lock is for something else",
    )
    either.add_argument("--frozen", action="store_true", help="the same, without a look at what has changed since")
    group.add_argument("--lock", metavar="FILE", help="another lock (default: spark-build.lock in this folder)")


def add_progress(parser: argparse.ArgumentParser) -> None:
    """Declare how progress is shown."""
    shown = parser.add_argument_group("what is shown")
    shown.add_argument(
        "--progress",
        choices=("auto", "live", "plain", "json", "quiet"),
        default="auto",
        help="a live view, lines, events as JSON lines, or nothing, on stderr (default: SPARK_BUILD_PROGRESS, else "
        "live on a terminal, plain elsewhere)",
    )
    shown.add_argument(
        "--color",
        choices=("auto", "always", "never"),
        default="auto",
        help="default: NO_COLOR, then FORCE_COLOR, then whether stderr is a terminal",
    )


def requests(args: argparse.Namespace, app: App, *, force: bool = False) -> tuple[Request, ...]:
    """Return one request a name; raise UsageError where the arguments don't fit together."""
    single = {
        "--ref": args.ref,
        "--pr": args.pr,
        "--repo": args.repo,
        "--version": args.source_version,
        "--source": args.source,
    }
    for flag, value in {**single, "--python": args.python, "--arch": args.arch, "--torch": args.torch}.items():
        if value is not None and not str(value).strip():  # an unset variable in a script: never the default instead
            raise UsageError("usage", f"{flag} is empty")
    if args.arch and not ARCH.fullmatch(args.arch):
        cause = "wanted capabilities with one digit behind the dot, such as 12.1a or 12.0f"
        raise UsageError("arch-unknown", f"--arch {args.arch} is no architecture", cause=cause)
    used = [flag for flag, value in single.items() if value]
    if used and len(args.name) > 1:
        raise UsageError("one-recipe", f"{used[0]} chooses the source of one recipe, and {len(args.name)} were named")
    if (args.source and len(used) > 1) or (args.source_version and len(used) > 1):
        raise UsageError("source-twice", f"{' and '.join(used)} each choose the source; give one of them")
    if args.source and not (app.cwd / args.source).is_dir():
        raise UsageError("source-folder", f"--source {args.source}: no such folder")
    if args.jobs is not None and args.jobs < 1:
        raise UsageError("usage", f"-j {args.jobs}: at least 1")
    return tuple(
        Request(
            recipe=name,
            ref=args.ref,
            pulls=tuple(args.pr),
            repo=repository(args.repo, app),
            version=args.source_version,
            source=(app.cwd / args.source).resolve() if args.source else None,
            outputs=tuple(args.output),
            python=args.python,
            arch=args.arch,
            torch=args.torch,
            cuda=args.cuda,
            settings=pairs(args.settings, "--set"),
            env=_variables(args.env),
            jobs=args.jobs,
            memory_bytes=_size(args.memory, "--memory"),
            reserve_bytes=_size(args.reserve, "--reserve"),
            compile_cache=_cache(args.compile_cache),
            offline=args.offline,
            relock=args.relock,
            force=force,
            isolation=args.isolation,
            variants=variants(args),
        )
        for name in dict.fromkeys(args.name)
    )


def nameless(args: argparse.Namespace, app: App) -> Request:
    """Return a request with the words of arguments that name no recipe, or don't declare all words of one."""
    import argparse  # noqa: PLC0415

    parser = argparse.ArgumentParser(add_help=False)
    add_request(parser)
    words = vars(parser.parse_args(["-"]))
    words |= {key: value for key, value in vars(args).items() if key in words and key != "name"}
    return requests(argparse.Namespace(**words), app)[0]


def held(
    asked: Sequence[Request], world: World, args: argparse.Namespace
) -> tuple[Sequence[Request], World, Callable[[Sequence[Evaluation]], None]]:
    """Return requests held to the lock that the arguments name, their world, and what looks at evaluations afterwards.

    Without ``--locked`` and ``--frozen`` they come back as they are. Raises UsageError ``lock-missing``, ``lock-stale``,
    ``lock-damaged``, ``lock-schema``, or ``usage`` where the arguments don't fit together.
    """
    if not (args.locked or args.frozen):
        if args.lock:
            raise UsageError("usage", f"--lock {args.lock}: wanted --locked or --frozen with it")
        return asked, world, lambda _evaluations: None
    if any(one.relock for one in asked):
        text = "--relock asks again for what a lock holds"
        raise UsageError("usage", text, run=("spark-build lock --relock",))
    from builder import lockfile  # noqa: PLC0415  # few have one
    from builder.pipeline import locking  # noqa: PLC0415

    path = world.cwd / (args.lock or lockfile.NAME)
    asked, world, lock = locking.hold(asked, world, path, frozen=args.frozen)

    def look(evaluations: Sequence[Evaluation]) -> None:
        if args.locked:
            locking.require(evaluations, lock, world, path)

    return asked, world, look


def _size(word: str | None, flag: str) -> int | None:
    if word is None:
        return None
    try:
        size = parse_bytes(word)
    except ValueError as error:
        raise UsageError("usage", f"{flag}: {error}") from None
    if not size:
        raise UsageError("usage", f"{flag} {word}: the gate can't be turned off; leave {flag} out for the default")
    return size


def _cache(word: str | None) -> str | None:
    if word is not None:
        from builder.gate import ccache  # noqa: PLC0415  # rarely asked for

        ccache.choose(word)
    return word


def repository(given: str | None, app: App) -> str | None:
    """Return a repository's URL; a folder by its whole path, since nobody else knows our working folder."""
    return str((app.cwd / given).resolve()) if given and (app.cwd / given).is_dir() else given


def _variables(words: Sequence[str]) -> dict[str, str]:
    found = pairs(words, "--env")
    for name in found:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise UsageError("usage", f"--env {name}: no name of a variable")
    return found


def pairs(words: Sequence[str], flag: str) -> dict[str, str]:
    """Return ``KEY=VALUE`` words as a mapping; raise UsageError for one without ``=`` or with an empty key."""
    found = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key.strip():
            raise UsageError("usage", f"{flag} {word}: wanted KEY=VALUE")
        found[key.strip()] = value
    return found
