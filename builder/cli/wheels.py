"""``spark-build wheels``: what the wheelhouse holds, whether it is whole, what comes in and goes out."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

from builder.errors import CheckRefused, SparkError, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from builder.cli.app import App
    from builder.stages import Stored
    from builder.wheelhouse import Wheelhouse

EXAMPLES = """\
examples:
  spark-build wheels list flashinfer-python         its wheels, oldest first
  spark-build wheels show 3f9ac1d                   all that is known about one
  spark-build wheels verify                         every file against the catalogue
  spark-build wheels rm 3f9ac1d --yes
  spark-build wheels add ~/Downloads/torch-2.14.0-cp312-cp312-linux_aarch64.whl
  spark-build wheels reindex                        a new catalogue from wheels and journal

A REF is a wheel's file name or path, or the start of its fingerprint or sha256."""

RM = """\
On a terminal it asks first, unless --yes is given. Without a terminal it never asks, and removes nothing
without --yes: exit 2. A wheel that a channel other than `local` names stays. The name of a removed wheel
stands for its bytes for ever: the same bytes may come back under it, others may not."""

REINDEX = """\
Reads every wheel, then makes a new catalogue from wheels, records and journal and puts it in the place of the
old one at once. Others may have the old one open meanwhile: they go on reading what it held, and open the new
one before they next write. Wheels that the journal doesn't know come back unpublished: `wheels add` publishes."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command and its verbs."""
    parser.epilog = EXAMPLES
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)

    def verb(name: str, summary: str, epilog: str = "") -> argparse.ArgumentParser:
        own = [line for line in EXAMPLES.splitlines() if line.startswith(f"  spark-build wheels {name}")]
        text = "\n".join([*([epilog, ""] if epilog else []), "example:", *own])
        child = verbs.add_parser(
            name, help=summary, description=summary, epilog=text, formatter_class=parser.formatter_class
        )
        child.add_argument("--wheelhouse", metavar="DIR", help="where wheels are kept")
        child.add_argument("--json", action="store_true", help="print the result as JSON")
        return child

    listing = verb("list", "one line a wheel: project, version, size, age, recipe, and its state unless published")
    listing.add_argument("project", nargs="?", metavar="PROJECT", help="only this project's")
    listing.add_argument("--all", action="store_true", help="unpublished and quarantined ones, too")
    show = verb("show", "all that is known about one wheel")
    show.add_argument("ref", metavar="REF", help="a wheel")
    show.add_argument("--inputs", action="store_true", help="print the inputs document instead, as canonical JSON")
    verify = verb("verify", "read wheels again and hold them against the catalogue; exit 5 when something is damaged")
    verify.add_argument("ref", nargs="*", metavar="REF", help="only these (default: all, catalogue and index)")
    rm = verb("rm", "remove wheels", RM)
    rm.add_argument("ref", nargs="+", metavar="REF", help="wheels")
    rm.add_argument("--yes", action="store_true", help="don't ask")
    add = verb("add", "check wheels from elsewhere and publish them in channel `local`")
    add.add_argument("file", nargs="+", metavar="FILE", help="wheel files")
    verb("reindex", "make the catalogue anew", REINDEX)


def run(args: argparse.Namespace, app: App) -> int:
    """Do what the verb says."""
    verbs: dict[str, Callable[[argparse.Namespace, App], int]] = {
        "list": _list,
        "show": _show,
        "verify": _verify,
        "rm": _rm,
        "add": _add,
        "reindex": _reindex,
    }
    return verbs[args.verb](args, app)


def _open(app: App, *, create: bool = False) -> Wheelhouse:
    from builder.wheelhouse import Wheelhouse  # noqa: PLC0415

    return Wheelhouse.open(app.config().wheelhouse, clock=app.clock, create=create)


def _list(args: argparse.Namespace, app: App) -> int:
    from builder.ui import wheels as shown  # noqa: PLC0415
    from builder.wheel.read import normalised  # noqa: PLC0415

    with _open(app) as house:
        project = normalised(args.project) if args.project else None
        found = house.list_wheels(project=project, include_unpublished=args.all)
        if args.json:
            app.print_json({"wheels": [shown.as_json(wheel) for wheel in found]})
            return 0
        head, lines = shown.list_lines(found, now=app.clock())
        app.stderr.write((head if found else f"no such wheels in {house.root}") + "\n")
        app.stderr.flush()
    for line in lines:
        app.print(line)
    return 0


def _show(args: argparse.Namespace, app: App) -> int:
    from builder.ui import wheels as shown  # noqa: PLC0415
    from builder.wheelhouse.publish import sidecar  # noqa: PLC0415

    with _open(app) as house:
        wheel = house.get(args.ref)
        inputs = house.inputs(wheel.fingerprint) if wheel.fingerprint else None
        if args.inputs:
            from builder.digest import canonical_json  # noqa: PLC0415

            if inputs is None:
                raise UsageError("no-inputs", f"{wheel.filename} wasn't built here: nothing is known of its inputs")
            app.print(canonical_json(inputs).decode())
            return 0
        record = shown.load(sidecar(wheel.path))
        document = shown.details(wheel, house.metadata(wheel.sha256), inputs, record, house.channels(wheel))
    if args.json:
        app.print_json({"wheel": document})
        return 0
    for line in shown.detail_lines(document):
        app.print(line)
    return 0


def _verify(args: argparse.Namespace, app: App) -> int:
    from builder.ui import wheels as shown  # noqa: PLC0415
    from builder.wheelhouse.verify import Finding, verify  # noqa: PLC0415

    with _open(app) as house:
        wheels = [house.get(ref) for ref in args.ref] or None
        count = len(wheels or house.list_wheels(include_unpublished=True))
        tell = shown.Progress(app.stderr, app.clock)
        findings = verify(house, wheels, on_read=tell.read)
        if not args.ref:
            from builder.index import lacking  # noqa: PLC0415

            text, run = "not there as the catalogue says", "spark-build wheels reindex"
            findings += tuple(Finding(kind="index", path=path, text=text, run=run) for path in lacking(house))
    if args.json:
        rows = [{"kind": one.kind, "path": str(one.path), "text": one.text, "run": one.run} for one in findings]
        app.print_json({"verified": count, "findings": rows})
        return CheckRefused.exit_code if findings else 0
    if findings:
        things = "1 thing" if len(findings) == 1 else f"{len(findings)} things"
        raise CheckRefused(
            "wheels-damaged",
            f"{things} in {house.root} {'isn' if len(findings) == 1 else 'aren'}'t what the catalogue says",
            cause="\n".join(f"{one.path}: {one.text}" for one in findings),
            help="what can't be mended from the journal has to be removed and built again",
            run=tuple(dict.fromkeys(one.run for one in findings)),
        )
    app.print(f"{count} wheel{'' if count == 1 else 's'} whole")
    return 0


def _rm(args: argparse.Namespace, app: App) -> int:
    with _open(app) as house:
        wheels = list({wheel.sha256: wheel for wheel in map(house.get, args.ref)}.values())
        for wheel in wheels:
            _refuse_named(house, wheel)
        if not args.yes and not _asked(wheels, args.ref, app):
            app.stderr.write("nothing was removed\n")
            return 0
        for wheel in wheels:
            house.remove(wheel)
        _refresh_index(house, app)
    if args.json:
        app.print_json({"removed": [wheel.filename for wheel in wheels], "bytes": sum(wheel.size for wheel in wheels)})
        return 0
    for wheel in wheels:
        app.print(str(wheel.path))
    return 0


def _refuse_named(house: Wheelhouse, wheel: Stored) -> None:
    others = [name for name in house.channels(wheel) if name != "local"]
    if others:
        raise UsageError(
            "wheel-in-channel",
            f"{wheel.filename} is in channel {', '.join(others)}",
            cause="others install it from there",
            help="take it out of the channel first",
        )


def _asked(wheels: Sequence[Stored], refs: Sequence[str], app: App) -> bool:
    """Return the answer of a person; raise UsageError where there is none to ask."""
    names = "\n".join(wheel.filename for wheel in wheels)
    if not (sys.stdin and sys.stdin.isatty() and app.stderr.isatty()):
        raise UsageError(
            "not-confirmed",
            f"{len(wheels)} wheel{'s' if len(wheels) > 1 else ''} would be removed, and --yes wasn't given",
            cause=names,
            help="there is no terminal to ask on",
            run=(f"spark-build wheels rm {' '.join(refs)} --yes",),
        )
    app.stderr.write(f"{names}\nRemove? [y/N] ")
    app.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _add(args: argparse.Namespace, app: App) -> int:
    from builder.ui import wheels as shown  # noqa: PLC0415
    from builder.wheelhouse import foreign  # noqa: PLC0415

    judged = [foreign.judge(app.cwd / file) for file in args.file]  # all of them before the first is filed
    with _open(app, create=True) as house:
        added = [foreign.add(house, one) for one in judged]
        _refresh_index(house, app)
    if args.json:
        app.print_json({"wheels": [{**shown.as_json(wheel), "cached": there} for wheel, there in added]})
        return 0
    for wheel, there in added:
        app.print(str(wheel.path))
        if there:
            app.stderr.write(f"{wheel.filename} was there already, with the same bytes\n")
    return 0


def _reindex(args: argparse.Namespace, app: App) -> int:
    from builder.ui import wheels as shown  # noqa: PLC0415
    from builder.wheelhouse.reindex import reindex  # noqa: PLC0415

    tell = shown.Progress(app.stderr, app.clock)
    root = app.config().wheelhouse
    report = reindex(root, clock=app.clock, on_read=tell.read)
    with _open(app) as house:
        _refresh_index(house, app)
    if args.json:
        app.print_json({"reindexed": shown.report_json(report)})
        return 0
    for line in shown.report_lines(report):
        app.print(line)
    return 0


def _refresh_index(house: Wheelhouse, app: App) -> None:
    """Bring the wheelhouse's own index up to date; what was done to the wheels holds, also where that fails."""
    from builder import index  # noqa: PLC0415

    try:
        index.refresh(house)
    except SparkError as error:
        with contextlib.suppress(OSError):
            app.stderr.write(f"note: the index is behind, the next build brings it up to date: {error.summary}\n")
