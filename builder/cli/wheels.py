"""``spark-build wheels``: what the wheelhouse holds, whether it is whole, what comes in and goes out."""

from __future__ import annotations

import contextlib
import shlex
import sys
from typing import TYPE_CHECKING, Any

from builder.cli import channels
from builder.errors import CheckRefused, SparkError, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence
    from types import ModuleType

    from builder.cli.app import App
    from builder.stages import Stored
    from builder.wheelhouse import Wheelhouse

EXAMPLES = f"""\
examples:
  spark-build wheels list flashinfer-python         its wheels, oldest first
  spark-build wheels list --channel team/nightly    what was promoted there
  spark-build wheels show 3f9ac1d                   all that is known about one
  spark-build wheels diff 3f9ac1d ~/other/flashinfer_python-0.7.2-py3-none-any.whl
  spark-build wheels verify                         every file against the catalogue
  spark-build wheels rm 3f9ac1d --yes
  spark-build wheels add ~/Downloads/torch-2.14.0-cp312-cp312-linux_aarch64.whl
{channels.EXAMPLES}\
  spark-build wheels push --channel team/stable --to-channel team/stable
  spark-build wheels pull flashinfer-python         its newest wheel, from the configured server
  spark-build wheels reindex                        a new catalogue from wheels and journal

A REF is a wheel's file name or path, or the start of its fingerprint or sha256."""

#: The commands among those that are printed to be typed next which take --wheelhouse.
_TAKING = ("spark-build wheels ", "spark-build recipe ", "spark-build audit ")

LIST = """\
The last column says what is yanked or quarantined, and why; which builds a later one of the channel replaced (of
`local` without --channel); and the status of a project that isn't active."""

DIFF = """\
A and B are wheel files, or REFs. Bytes are compared, file by file, libraries section by section, and device code
apart from host code. Two builds of the same inputs are told why they differ, where the cause is known."""

RM = """\
On a terminal it asks first, unless --yes is given. Without a terminal it never asks, and removes nothing
without --yes: exit 2. A wheel that a channel other than `local` names stays. The name of a removed wheel
stands for its bytes for ever: the same bytes may come back under it, others may not."""

ADD = """\
Each is audited first, together with the others and with what the recipe expects that it names; where one is
refused none is added, and the exit code is 5. `spark-build audit FILE` shows all that was found.

The record beside a wheel (<wheel>.provenance.json) and its signature come along. They have to be about the
wheel and to say what it says; with signing.signers in the configuration one of those has to have signed.
What is let pass counts for this command only: a build that finds the wheel here judges and tries it itself."""

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

    listing = verb("list", "one line a wheel: project, version, size, age, recipe, and why it isn't offered", LIST)
    listing.add_argument("project", nargs="?", metavar="PROJECT", help="only this project's")
    listing.add_argument("--channel", metavar="NAME", help="what this channel lists, in its order")
    listing.add_argument("--all", action="store_true", help="unpublished and quarantined ones, too")
    show = verb("show", "all that is known about one wheel")
    show.add_argument("ref", metavar="REF", help="a wheel")
    show.add_argument("--inputs", action="store_true", help="print the inputs document instead, as canonical JSON")
    diff = verb("diff", "inputs, files, device code, metadata and size of two wheels", DIFF)
    diff.add_argument("old", metavar="A", help="a wheel")
    diff.add_argument("new", metavar="B", help="the wheel that is held against it")
    diff.add_argument("--all", action="store_true", help="show every file and header")
    verify = verb("verify", "read wheels again and hold them against the catalogue; exit 5 when something is damaged")
    verify.add_argument("ref", nargs="*", metavar="REF", help="only these (default: all, catalogue and index)")
    rm = verb("rm", "remove wheels", RM)
    rm.add_argument("ref", nargs="+", metavar="REF", help="wheels")
    rm.add_argument("--yes", action="store_true", help="don't ask")
    add = verb("add", "audit wheels from elsewhere and publish them in channel `local`", ADD)
    add.add_argument("file", nargs="+", metavar="FILE", help="wheel files")
    add.add_argument("--target", metavar="C", help="the compute capability (default: 12.1, a GB10)")
    add.add_argument(
        "--accept", action="append", default=[], metavar="ID[=REASON]", help="let this finding pass; may be repeated"
    )
    channels.add_arguments(verb)
    for name, (summary, owner) in _team().items():
        owner.add_arguments(verb(name, summary, owner.EXPLAINED))
    verb("reindex", "make the catalogue anew", REINDEX)


def _team() -> dict[str, tuple[str, ModuleType]]:
    """Return the verbs that talk to a server, each with its line of help and its module."""
    from builder.cli import pull, push  # noqa: PLC0415

    return {"push": ("publish wheels on a server", push), "pull": ("add wheels of a server", pull)}


def run(args: argparse.Namespace, app: App) -> int:
    """Do what the verb says."""
    verbs: dict[str, Callable[[argparse.Namespace, App], int]] = {
        "list": _list,
        "show": _show,
        "diff": _diff,
        "verify": _verify,
        "rm": _rm,
        "add": _add,
        "reindex": _reindex,
        **dict.fromkeys(channels.VERBS, channels.run),
        **{name: owner.run for name, (_summary, owner) in _team().items()},
    }
    try:
        return verbs[args.verb](args, app)
    except SparkError as error:
        error.run = tuple(there(line, args) for line in error.run)
        raise


def there(line: str, args: argparse.Namespace) -> str:
    """Return a command to type next with the wheelhouse that this one was given."""
    if args.wheelhouse is None:
        return line
    where = f"--wheelhouse {shlex.quote(args.wheelhouse)}"
    steps = [
        f"{step} {where}" if step.startswith(_TAKING) and "--wheelhouse" not in step else step
        for step in line.split(" && ")
    ]
    return " && ".join(steps)


def opened(app: App, *, create: bool = False) -> Wheelhouse:
    """Return the wheelhouse that the arguments name; with `create` it is made where there is none."""
    from builder.wheelhouse import Wheelhouse  # noqa: PLC0415

    return Wheelhouse.open(app.config().wheelhouse, clock=app.clock, create=create)


def _list(args: argparse.Namespace, app: App) -> int:
    from builder.ui import wheels as shown  # noqa: PLC0415
    from builder.wheel.read import normalised  # noqa: PLC0415

    with opened(app) as house:
        project = normalised(args.project) if args.project else None
        found = house.list_wheels(project=project, include_unpublished=args.all)
        if args.channel:
            from builder.wheelhouse import channel  # noqa: PLC0415

            known = {wheel.sha256 for wheel in found}
            found = tuple(wheel for wheel in channel.members(house, args.channel) if wheel.sha256 in known)
        told = _told(house, args.channel or "local", found)
        if args.json:
            app.print_json({"wheels": [{**shown.as_json(wheel), **told[wheel.sha256]} for wheel in found]})
            return 0
        notes = {wheel.sha256: shown.note(wheel, told[wheel.sha256]) for wheel in found}
        head, lines = shown.list_lines(found, now=app.clock(), notes=notes)
        app.stderr.write((head if found else f"no such wheels in {house.root}") + "\n")
        app.stderr.flush()
    for line in lines:
        app.print(line)
    return 0


def _told(house: Wheelhouse, name: str, wheels: Sequence[Stored]) -> dict[str, dict[str, Any]]:
    """Return more on the state of each wheel, by sha256; `name` is the channel in which one may be superseded."""
    from builder.index.listing import superseded  # noqa: PLC0415
    from builder.wheelhouse import channel, states  # noqa: PLC0415

    reasons, projects = states.every(house)
    replaced = superseded(channel.members(house, name))
    return {
        wheel.sha256: {
            "reason": reasons[wheel.sha256].reason if wheel.sha256 in reasons else "",
            "superseded": wheel.sha256 in replaced,
            "project_status": projects[wheel.project].state if wheel.project in projects else "active",
        }
        for wheel in wheels
    }


def _show(args: argparse.Namespace, app: App) -> int:
    from builder.ui import wheels as shown  # noqa: PLC0415
    from builder.wheelhouse import foreign  # noqa: PLC0415
    from builder.wheelhouse.publish import sidecar  # noqa: PLC0415

    with opened(app) as house:
        wheel = house.get(args.ref)
        inputs = house.inputs(wheel.fingerprint) if wheel.fingerprint else None
        if args.inputs:
            from builder.digest import canonical_json  # noqa: PLC0415

            if inputs is None:
                raise UsageError("no-inputs", f"{wheel.filename} wasn't built here: nothing is known of its inputs")
            app.print(canonical_json(inputs).decode())
            return 0
        record = shown.load(sidecar(wheel.path))
        kept = foreign.kept(house, wheel.sha256)
        document = shown.details(wheel, house.metadata(wheel.sha256), inputs, record, house.channels(wheel), kept)
        document |= _told(house, "local", [wheel])[wheel.sha256]
    if args.json:
        app.print_json({"wheel": document})
        return 0
    for line in shown.detail_lines(document):
        app.print(line)
    return 0


def _diff(args: argparse.Namespace, app: App) -> int:
    from builder.cli import diff  # noqa: PLC0415

    return diff.run(args, app)


def _verify(args: argparse.Namespace, app: App) -> int:
    from builder.ui import wheels as shown  # noqa: PLC0415
    from builder.wheelhouse.verify import Finding, verify  # noqa: PLC0415

    with opened(app) as house:
        wheels = [house.get(ref) for ref in args.ref] or None
        count = len(wheels or house.list_wheels(include_unpublished=True))
        tell = shown.Progress(app.stderr, app.clock)
        signed = None
        if signers := app.config().signers:
            from builder import signature  # noqa: PLC0415

            signed = signature.checker(signers, env=app.env)
        findings = verify(house, wheels, on_read=tell.read, signed=signed)
        if not args.ref:
            from builder.index import lacking  # noqa: PLC0415

            text, run = "not there as the catalogue says", "spark-build wheels reindex"
            findings += tuple(Finding(kind="index", path=path, text=text, run=run) for path in lacking(house))
    if args.json:
        rows = [
            {"kind": one.kind, "path": str(one.path), "text": one.text, "run": there(one.run, args)} for one in findings
        ]
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
    with opened(app) as house:
        wheels = list({wheel.sha256: wheel for wheel in map(house.get, args.ref)}.values())
        for wheel in wheels:
            _refuse_named(house, wheel)
        if not args.yes and not _asked(wheels, args.ref, app):
            app.stderr.write("nothing was removed\n")
            return 0
        for wheel in wheels:
            if not house.remove(wheel, named=False):  # promoted meanwhile
                _refuse_named(house, wheel)
        refresh_index(house, app)
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
            help="let the channel list others first, or take the wheel off its pages",
            run=(
                f"spark-build wheels list --channel {others[0]}",
                *([f"spark-build wheels yank {wheel.sha256[:12]}"] if wheel.state == "published" else []),
            ),
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
            run=(f"spark-build wheels rm {shlex.join(refs)} --yes",),
        )
    app.stderr.write(f"{names}\nRemove? [y/N] ")
    app.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _add(args: argparse.Namespace, app: App) -> int:
    from builder.cli import add  # noqa: PLC0415

    return add.run(args, app)


def _reindex(args: argparse.Namespace, app: App) -> int:
    from builder.ui import wheels as shown  # noqa: PLC0415
    from builder.wheelhouse.reindex import reindex  # noqa: PLC0415

    tell = shown.Progress(app.stderr, app.clock)
    root = app.config().wheelhouse
    report = reindex(root, clock=app.clock, on_read=tell.read)
    with opened(app) as house:
        refresh_index(house, app)
    if args.json:
        app.print_json({"reindexed": shown.report_json(report)})
        return 0
    for line in shown.report_lines(report):
        app.print(line)
    return 0


def refresh_index(house: Wheelhouse, app: App) -> None:
    """Bring the wheelhouse's own index up to date; what was done to the wheels holds, also where that fails."""
    from builder import index  # noqa: PLC0415

    try:
        index.refresh(house)
    except SparkError as error:
        with contextlib.suppress(OSError):
            app.stderr.write(f"note: the index is behind, the next build brings it up to date: {error.summary}\n")
