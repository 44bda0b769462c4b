"""``spark-build rebuild``: build a stored wheel again from its recorded inputs, and compare the bits."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from builder.cli.request import add_progress
from builder.cli.session import opened
from builder.errors import CheckRefused

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from builder.audit.change import FileChange
    from builder.audit.compare import Comparison
    from builder.audit.signs import Cause
    from builder.cli.app import App
    from builder.pipeline.rebuild import Rebuilt
    from builder.ui.style import Style

EXAMPLES = """\
examples:
  spark-build rebuild 3f9ac1d --check               the build with that fingerprint
  spark-build rebuild 3f9ac1d --check --keep        and leave the new wheel for a look at it

A REF is the name of a stored wheel, the start of its fingerprint or sha256, or the path of a file: that must have the
bytes of a stored wheel (else exit 5), whatever its name. All wheels of that build are built: they were labelled
together. The source is taken at the commit of then, compilers are run anew and not taken from the compile cache, and
nothing is published. Where an input isn't what it was (another gcc, a recipe that was edited or is gone), that is said,
and nothing is built: exit 3. Where bits differ, it says which files, whether device code does, and why where the cause
is known: exit 5."""

#: So many files are named in the error; the screen before it shows more.
_SHOWN = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command."""
    parser.epilog = EXAMPLES
    parser.add_argument("ref", metavar="REF", help="a wheel that was built here")
    parser.add_argument(
        "--check", action="store_true", required=True, help="compare the bits; there is no other way yet"
    )
    parser.add_argument("--keep", action="store_true", help="keep the new wheel beside its tree until the next gc")
    parser.add_argument("--offline", action="store_true", help="never use the network")
    parser.add_argument("--wheelhouse", metavar="DIR", help="where wheels are kept")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    add_progress(parser)


def run(args: argparse.Namespace, app: App) -> int:
    """Print what came out; raise CheckRefused ``rebuild-differs`` where bits differ."""
    with opened(args, app) as world:
        from builder.pipeline import origin  # noqa: PLC0415
        from builder.pipeline.rebuild import rebuild  # noqa: PLC0415

        known = origin.of(world.house, origin.choose(world.house, args.ref, cwd=app.cwd))
        done = rebuild(known, world, offline=args.offline, keep=args.keep)
    if args.json:
        app.print_json(
            {
                "fingerprint": known.fingerprint,
                "identical": done.identical,
                "paths": list(done.paths),
                "kept": str(done.kept) if done.kept else None,
                "wheels": [one.as_json() for one in done.comparisons],
            }
        )
        return 0 if done.identical else CheckRefused.exit_code
    from builder.ui import style  # noqa: PLC0415

    looks = style.of(app.stdout, app.env, args.color)
    for line in _lines(done, looks, style.columns(app.stdout)):
        app.print(looks.fit(line))
    app.stdout.flush()
    if not done.identical:
        raise _refusal(done, args.ref)
    return 0


def _lines(done: Rebuilt, looks: Style, width: int) -> Iterator[str]:
    from builder.ui import diff as shown  # noqa: PLC0415
    from builder.ui import style  # noqa: PLC0415

    for one in done.comparisons:
        yield style.visible(one.old.path.name)
        yield f"  stored   sha256 {one.old.sha256}"
        yield f"  rebuilt  sha256 {one.new.sha256}"
        yield f"  {shown.verdict(one)}"
        if not one.identical:
            yield from (f"  {line}" for line in shown.lines(one, style=looks, width=width - 2))
    if not done.identical and done.paths[0] and done.paths[0] != done.paths[1]:
        yield f"built in {done.paths[1]}, the stored one in {done.paths[0]}: paths can get into the bytes"
    if done.kept:
        yield f"kept in {done.kept}"


def _refusal(done: Rebuilt, ref: str) -> CheckRefused:
    differ = [one for one in done.comparisons if not one.identical]
    causes = list(dict.fromkeys(each.id for one in differ for each in _causes(one)))
    files = [_told(change) for one in differ for change in one.files]
    return CheckRefused(
        "rebuild-differs",
        f"{differ[0].old.path.name} can't be had again bit by bit"
        + (f": {', '.join(causes)}" if causes else ", and no known cause was found"),
        cause="\n".join([*files[:_SHOWN], *([f"and {len(files) - _SHOWN} more"] if len(files) > _SHOWN else [])]),
        help="cure what is named above in the recipe or the project" if causes else "look at both wheels",
        run=() if done.kept else (shlex.join(["spark-build", "rebuild", ref, "--check", "--keep"]),),
    )


def _told(change: FileChange) -> str:
    words = [change.kind, *(each.id for each in change.causes)]
    return f"{change.path}: {', '.join(words)}" + (f"; device code {change.device}" if change.device else "")


def _causes(one: Comparison) -> Iterator[Cause]:
    yield from one.causes
    for change in one.files:
        yield from change.causes
