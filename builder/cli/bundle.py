"""``spark-build bundle``: a stack and all that it needs, carried to where no network is."""

from __future__ import annotations

import contextlib
import re
import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.cli.session import opened
from builder.errors import UsageError, scrubbed
from builder.values import replace

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from builder.bundle.download import Progress
    from builder.bundle.export import Made, Planned
    from builder.bundle.target import Target
    from builder.cli.app import App
    from builder.pipeline.world import World
    from builder.source import Sources

__all__ = ["asked", "fetching", "warn", "writing"]

EXAMPLES = """\
examples:
  spark-build bundle export stick/vllm vllm --dry-run          how many files, how many bytes; nothing is fetched
  spark-build bundle export stick/vllm vllm                    for a GB10: aarch64, glibc 2.39, Python 3.12
  spark-build bundle export stick/team --stack stack.toml      exactly what the stack's channel lists, and what it needs
  spark-build bundle export stick/new vllm --since old/manifest.json      only what the other side lacks
  spark-build bundle verify stick/vllm
  sh stick/vllm/install.sh /opt/vllm                           on the other side, with python3 and nothing else

A bundle is a folder: wheels, a package index of them, pylock.toml, hashed requirements, an SBOM, a signed manifest of all
files, and install.sh, which brings the target's uv along. docs/bundles.md has all of it."""

EXPORT = """\
examples:
  spark-build bundle export stick/vllm vllm
  spark-build bundle export stick/vllm 'vllm>=0.33' flashinfer-python --dry-run
  spark-build bundle export stick/team --stack stack.toml --split 4GiB      parts that a FAT stick can hold
  spark-build bundle export stick/x86 torch --platform x86_64-manylinux_2_39 --target-python 3.13
  spark-build bundle export stick/new vllm --since stick/vllm/manifest.json

The wheelhouse is asked first, and alone for every name that it has: a bundle never holds somebody else's wheel of that
name. The answer has to be the newest that has a wheel for the target; where something holds it back, that is told, and
nothing is written (exit code 5) without --allow-older. What no index has a wheel of is built first, where a recipe makes it
and this machine is of the target's kind.

Stopped or killed, the same command goes on where it was; no finished file is fetched again."""


#: Options, hashes and lines that go on; URLs and files.
_ODD = re.compile(r"^[-.~]|\s-|[/@\\\r\n]")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command."""
    from builder.cli.mixed import Mixed  # noqa: PLC0415

    parser.epilog = EXAMPLES
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=Mixed)

    def verb(name: str, summary: str, about: str, epilog: str = EXAMPLES) -> argparse.ArgumentParser:
        made = verbs.add_parser(
            name, help=summary, description=about, epilog=epilog, formatter_class=parser.formatter_class
        )
        made.add_argument("--json", action="store_true", help="print the result as JSON")
        return made

    _export_arguments(
        verb("export", "resolve, fetch and write a bundle", "Write all that a target needs into one folder.", EXPORT)
    )
    check = verb("verify", "whether a bundle is as it was made", "Read every file of a bundle; nothing is changed.")
    taken = verb(
        "import",
        "take a bundle in: our wheels into the wheelhouse, others into the cache",
        "File the wheels of a bundle that spark-build made, each audited as one that is added; keep all others.",
    )
    put = verb("install", "install a bundle, without a network", "Verify a bundle, then install exactly what it holds.")
    for each in (check, taken, put):
        each.add_argument("bundle", metavar="BUNDLE", help="the folder of a bundle, or of its parts")
        each.add_argument("--signers", metavar="FILE", help="who may have signed it (default: signing.signers)")
        if each is not check:
            each.add_argument("--base", metavar="BUNDLE", help="the earlier bundle that a delta was made against")
            each.add_argument("--unpack", metavar="DIR", help="where to put a bundle that comes in parts")
    taken.add_argument("--channel", metavar="NAME", action="append", default=[], help="append our wheels to it, too")
    taken.add_argument("--wheelhouse", metavar="DIR", help="where wheels are kept")
    put.add_argument("venv", nargs="?", metavar="VENV", help="a new environment, or one to add to")
    put.add_argument("--python", metavar="PATH", help="install into this interpreter instead")


def _export_arguments(export: argparse.ArgumentParser) -> None:
    from builder.bundle import JOBS  # noqa: PLC0415
    from builder.bundle.target import GB10, PYTHON  # noqa: PLC0415

    add = export.add_argument
    add("folder", metavar="DIR", help="a new or empty folder, or an earlier bundle to bring up to date")
    add(
        "name",
        nargs="*",
        default=[],
        metavar="NAME",
        help="what is to be installed there, as pip takes it: vllm, 'torch>=2.14'",
    )
    add("-r", "--requirements", metavar="FILE", action="append", default=[], help="further names, one a line")
    add("--stack", metavar="FILE", help="exactly what this stack's channel lists")
    add("--channel", metavar="NAME", help="whose wheels of ours are taken (default: local, all that was built here)")
    add("--public", metavar="NAME", action="append", default=[], help="take this one from the index, not from us")
    add("--platform", metavar="PLATFORM", default=GB10, help=f"of the target, with its glibc (default: {GB10})")
    add("--target-python", metavar="X.Y", default=PYTHON, help=f"Python of the target (default: {PYTHON})")
    add("--allow-older", action="store_true", help="take an older release where something holds the newest back")
    add("--since", metavar="MANIFEST", help="leave out every file that the bundle of this manifest.json has")
    add("--with-sources", action="store_true", help="add what our wheels were built from, to build them again there")
    add("--split", metavar="SIZE", help="write parts of this size instead, for small media: 4GiB")
    add("--dry-run", action="store_true", help="only tell how many files and bytes; nothing is fetched or written")
    add("-j", "--jobs", metavar="N", type=int, default=JOBS, help=f"downloads at once (default: {JOBS})")
    add("--wheelhouse", metavar="DIR", help="where wheels are kept")


def run(args: argparse.Namespace, app: App) -> int:
    """Do what the verb says."""
    if args.verb == "export":
        return _export(args, app)
    from builder.cli import bundle_there  # noqa: PLC0415  # the other side

    verbs = {"verify": bundle_there.verify, "import": bundle_there.take, "install": bundle_there.install}
    return verbs[args.verb](args, app)


def _export(args: argparse.Namespace, app: App) -> int:
    """Write a bundle and print its folder, or its parts."""
    from builder import signature  # noqa: PLC0415
    from builder.bundle import export, layout, target  # noqa: PLC0415

    wanted = target.parse(args.platform, args.target_python)
    size = _size(args.split)
    dest = (app.cwd / args.folder).resolve()  # its last part names the parts: of `..` it has to be known
    with opened(args, app) as world:
        sign = signature.signer(world.config.signing_key, env=app.env)
        since = app.cwd / args.since if args.since else None
        planned = resolved(args, app, world, wanted, since=since, with_sources=args.with_sources)
        if not planned.closure.pieces:
            raise UsageError(
                "nothing-asked",
                f"nothing of that is for {wanted.platform}, Python {wanted.python}",
                help="the markers of what was asked for (after `;`) don't hold there",
                run=(f"spark-build bundle export {shlex.quote(args.folder)} vllm",),
            )
        sources = world.sources(offline=False, recipe="NAME")
        warn(planned, app)
        if args.dry_run:
            return _show_plan(export.sized(planned, sources), sources, app)
        if not size:
            layout.claim(dest)  # before hours of downloading
        with fetching(app) as tell:
            progress = export.bring(planned, sources, jobs=max(1, args.jobs), tell=tell)
        with writing(app) as write:
            if size:
                return _show(*_cut(planned, dest, size, sources, sign=sign, progress=progress), app)
            made = export.make(planned, dest, sources, sign=sign, progress=progress, tell=write)
        return _show(made, (), app)


def resolved(
    args: argparse.Namespace,
    app: App,
    world: World,
    wanted: Target,
    *,
    since: Path | None = None,
    with_sources: bool = False,
) -> Planned:
    """Return what the target needs for what the command line asks for, after what has no wheel was built, if that may be."""
    from builder.bundle import export, making  # noqa: PLC0415
    from builder.cli.recipe import build_one  # noqa: PLC0415

    channel, names = asked(args, app, world)
    app.stderr.write(f"resolving for {wanted.platform}, Python {wanted.python}\n")

    def plan() -> Planned:
        return export.plan(
            names,
            wanted,
            world,
            channel=channel,
            public=args.public,
            words=("spark-build", *world.words),
            allow_older=args.allow_older,
            since=since,
            with_sources=with_sources,
        )

    # Another channel lists what was promoted to it, and nothing else.
    builds = build_one if channel == "local" and not args.dry_run else None
    return making.planned(plan, wanted, world, build=builds)


def _cut(
    planned: Planned,
    dest: Path,
    size: int,
    sources: Sources,
    *,
    sign: Callable[[bytes], bytes] | None,
    progress: Progress,
) -> tuple[Made, tuple[str, ...]]:
    """Write a bundle as parts; its folder is made where links into the cache are possible, and goes."""
    from builder.bundle import export, layout, parts  # noqa: PLC0415

    sources.root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".bundle-", dir=sources.root) as scratch:
        folder = Path(scratch, dest.name)
        layout.claim(folder)
        made = export.make(planned, folder, sources, sign=sign, progress=progress)
        return replace(made, path=dest), parts.cut(folder, dest, name=dest.name, size=size, sign=sign)


def _size(text: str | None) -> int:
    from builder.recipe.units import parse_bytes  # noqa: PLC0415

    try:
        return parse_bytes(text) if text else 0
    except ValueError as error:
        raise UsageError("part-size", str(error), run=("spark-build bundle export DIR NAME --split 4GiB",)) from error


def asked(args: argparse.Namespace, app: App, world: World) -> tuple[str, tuple[str, ...]]:
    """Return the channel and the requirements that the command line means."""
    from builder.bundle import ours  # noqa: PLC0415

    names = [name for text in args.name for name in _names([text], text)]
    for file in args.requirements:
        names += _names(_lines(app.cwd / file), file)
    channel = args.channel
    if args.stack:
        own, exact = ours.of_stack(world.house, app.cwd / args.stack)
        channel, names = channel or own, [*exact, *names]
    if not names:
        raise UsageError(
            "nothing-asked",
            "nothing to put into the bundle",
            help="name packages, -r FILE or --stack FILE",
            run=(f"spark-build bundle export {shlex.quote(args.folder)} vllm",),
        )
    return channel or "local", tuple(names)


def _lines(file: Path) -> list[str]:
    """Return the requirements of a file."""
    try:
        lines = [line.partition(" #")[0].strip() for line in file.read_text().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            "requirements-missing",
            f"{file} can't be read",
            cause=str(error.strerror if isinstance(error, OSError) else error),
            help="a text file of names, one a line",
            run=("spark-build bundle export DIR -r FILE",),
        ) from error
    return [line for line in lines if line and not line.startswith("#")]


def _names(lines: list[str], where: str) -> list[str]:
    """Return requirements; options among them are errors, since they would ask another index, and so are URLs.

    What a URL leads to is on no index, so that nobody holds it against the newest; and it may have a login in it.
    """
    odd = [line for line in lines if _ODD.search(line)]
    if odd:
        raise UsageError(
            "requirements-odd",
            f"{scrubbed(where)} holds more than names and versions"
            if where not in odd
            else "that is no name of a package",
            cause=scrubbed("\n".join(odd)),
            help="hashes, options and other files are the bundle's own business: one requirement a line. A wheel from a URL "
            "or a folder goes into the wheelhouse first, then it is taken by its name",
            run=("spark-build wheels add FILE.whl", "spark-build bundle export DIR NAME"),
        )
    return lines


def warn(planned: Planned, app: App) -> None:
    """Tell on stderr what is older than the newest, and what else somebody should know."""
    for one in planned.closure.older:
        app.stderr.write(f"warning: {one.project} {one.version}, not {one.newest}: {one.why}\n")
    for note in planned.closure.notes:
        app.stderr.write(f"warning: {note}\n")


def _show_plan(planned: Planned, sources: Sources, app: App) -> int:
    from builder.bundle import download  # noqa: PLC0415
    from builder.recipe.units import show_bytes  # noqa: PLC0415

    wanted = planned.wanted
    missing = [one for one in planned.pieces if not download.held(one, sources)]
    size, fetch = (sum(one.size or 0 for one in some) for some in (wanted, missing))
    if app.args.json:
        rows = [
            {
                "project": one.project,
                "wheel_version": one.version,
                "filename": one.filename,
                "sha256": one.sha256,
                "size": one.size,
                "ours": one.sha256 in planned.ours.wheels,
                "left_out": one.sha256 in planned.since[1],
                "at_hand": download.held(one, sources),
            }
            for one in planned.pieces
        ]
        told = {"target": planned.target.as_json(), "wheels": rows, "files": len(wanted), "bytes": size, "fetch": fetch}
        app.print_json({"plan": told})
        return 0
    for one in wanted:
        mark = " (ours)" if one.sha256 in planned.ours.wheels else ""
        app.print(f"{show_bytes(one.size) if one.size else '?':>9}  {one.project} {one.version}{mark}")
    left = len(planned.pieces) - len(wanted)
    app.stderr.write(
        f"{len(wanted)} wheels for {planned.target.platform}, Python {planned.target.python}: {show_bytes(size)}"
        f"{f'; {left} more are there already' if left else ''}; {show_bytes(fetch)} to fetch\n"
    )
    return 0


@contextlib.contextmanager
def fetching(app: App) -> Iterator[Callable[[Progress], None]]:
    """Give what is told how far the downloads are."""
    from builder.recipe.units import show_bytes, show_seconds  # noqa: PLC0415
    from builder.ui import audit as shown  # noqa: PLC0415

    with shown.progress(app.stderr, app.env, app.clock) as tell:

        def told(now: Progress) -> None:
            rate = now.received / now.seconds if now.seconds else 0
            size, left = show_bytes(now.here), ""
            if now.of_bytes >= now.here:  # else the index doesn't say how large its files are
                size += f" of {show_bytes(now.of_bytes)}"
                left = f", {show_seconds((now.of_bytes - now.here) / rate)} left" if rate else ""
            tell(f"{now.files} of {now.of_files} files, {size}, {show_bytes(int(rate))}/s{left}")

        yield told


@contextlib.contextmanager
def writing(app: App) -> Iterator[Callable[[int, int], None]]:
    """Give what is told how many bytes of a bundle are in place, of how many."""
    from builder.recipe.units import show_bytes  # noqa: PLC0415
    from builder.ui import audit as shown  # noqa: PLC0415

    with shown.progress(app.stderr, app.env, app.clock) as tell:
        yield lambda done, total: tell(f"writing {show_bytes(done)} of {show_bytes(total)}")


def _show(made: Made, cut: tuple[str, ...], app: App) -> int:
    from builder.recipe.units import show_bytes  # noqa: PLC0415

    where = made.path
    lies = len(made.manifest.files) - len(made.manifest.lacks) + 1
    if app.args.json:
        told: dict[str, Any] = {
            "path": str(where),
            "target": dict(made.manifest.target),
            "wheels": [dict(one) for one in made.manifest.wheels],
            "files": lies,
            "bytes": made.size,
            "received": made.progress.received,
            "seconds": round(made.progress.seconds, 3),
            "left_out": len(made.manifest.lacks),
            "parts": list(cut),
        }
        app.print_json({"bundle": told})
        return 0
    for part in cut:
        app.print(str(where / part))
    if not cut:
        app.print(str(where))
    came = f"{show_bytes(made.progress.received)} fetched" if made.progress.received else "nothing had to be fetched"
    app.stderr.write(f"{len(made.manifest.wheels)} wheels, {lies} files, {show_bytes(made.size)}; {came}\n")
    folder = shlex.quote(where.name if cut else str(where))
    unpack = f"cat {folder}.tar.* | tar x && " if cut else ""
    # A delta is installed by the script of its base, which has one.
    words = (
        f"BASE/install.sh --delta {folder}"
        if made.manifest.since
        else shlex.quote(f"{where.name if cut else where}/install.sh")
    )
    app.stderr.write(f"there: {unpack}sh {words} VENV\n")
    return 0
