"""``spark-build audit``: what a wheel really holds, and whether it runs on the target."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from builder.audit.rules import NEVER
from builder.cli.judged import torch_folder, wheel_paths
from builder.errors import CheckRefused, UsageError
from builder.pipeline import judged

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from builder.audit.report import Report
    from builder.audit.rules import Finding
    from builder.audit.target import Capability
    from builder.cli.app import App
    from builder.pipeline.judged import Said

EXAMPLES = """\
examples:
  spark-build audit vllm-0.33.0-cp38-abi3-manylinux_2_28_aarch64.whl
  spark-build audit triton --run --gpu              the newest wheel of a project in the wheelhouse
  spark-build audit 3f9ac1d --target 12.0           a wheel in the wheelhouse, for an RTX 50 card
  spark-build audit dist/*.whl --recipe vllm        with what a recipe expects of them
  spark-build audit new.whl --torch ~/serve/.venv   against the torch of an environment
  spark-build audit --env ~/serve/.venv             what is installed there
  spark-build audit new.whl --accept rpath-absolute="found by dlopen"

A file of a name goes before a project of that name, and a project before the start of a fingerprint. For 12.1 a wheel
has to be one that Linux on aarch64 installs; for other targets no machine is asked for.
Nothing is unpacked or run, and no GPU is needed, unless --run asks for it. Several wheels are judged as a set.
Expectations are those of --recipe, else of the recipe that a wheel of ours names.
Exit code 5 when a wheel is refused; warnings don't count. docs/findings.md explains every finding."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command."""
    parser.epilog = EXAMPLES
    parser.add_argument(
        "wheel",
        nargs="*",
        metavar="WHEEL",
        help="wheel files; of the wheelhouse a project, whose newest wheel is meant, or a REF as `wheels show` takes it",
    )
    what = parser.add_argument_group("what it has to fit")
    what.add_argument(
        "--target", default=judged.TARGET, metavar="C", help="the compute capability (default: 12.1, a GB10)"
    )
    what.add_argument(
        "--recipe",
        action="append",
        default=[],
        metavar="NAME",
        help="a recipe that says what is expected; may be repeated",
    )
    what.add_argument(
        "--torch", metavar="DIR", help="the torch that it has to fit: an environment, or its package folder"
    )
    what.add_argument("--beside", nargs="+", action="extend", default=[], metavar="WHEEL", help="others of its set")
    what.add_argument(
        "--accept", action="append", default=[], metavar="ID[=REASON]", help="let this finding pass; may be repeated"
    )
    more = parser.add_argument_group("what else is looked at")
    more.add_argument("--env", metavar="DIR", help="an environment, instead of wheels: all that is installed in it")
    more.add_argument("--ours", action="store_true", help="with --env: refuse for our own wheels only; others are told")
    more.add_argument("--cross-check", action="store_true", help="ask cuobjdump for its opinion on the device code")
    more.add_argument(
        "--signers",
        metavar="FILE",
        help="require a signature by one of these (ssh's allowed_signers;"
        " default: signing.signers in the configuration, where a statement lies beside the wheel)",
    )
    more.add_argument("--run", action="store_true", help="install, import and run it here, with the network cut")
    more.add_argument("--gpu", action="store_true", help="with --run: what needs a GPU, too")
    more.add_argument("--python", metavar="P", help="with --run: the interpreter, a path or 3.12")
    parser.add_argument("--all", action="store_true", help="show every file and note")
    parser.add_argument("--wheelhouse", metavar="DIR", help="where wheels are kept")
    parser.add_argument("--json", action="store_true", help="print the reports as JSON")
    parser.add_argument("--color", choices=("auto", "always", "never"), default="auto")


def run(args: argparse.Namespace, app: App) -> int:
    """Print a report on each wheel; raise CheckRefused ``audit-refused`` where one is refused."""
    from builder.audit.target import Capability  # noqa: PLC0415
    from builder.ui import audit as shown  # noqa: PLC0415
    from builder.ui import style  # noqa: PLC0415

    _check(args)
    target = Capability.parse(args.target)
    with shown.progress(app.stderr, app.env, app.clock, args.color) as tell:
        reports = (_installed if args.env else _wheels)(args, app, target, tell)
    if args.json:
        rows = [{**one.as_json(), "path": str(one.contents.where)} for one in reports]
        app.print_json({"target": str(target), "reports": rows})
        return CheckRefused.exit_code if any(one.refused for one in _counted(reports, args)) else 0
    looks, width = style.of(app.stdout, app.env, args.color), style.columns(app.stdout)
    listed = reports
    if args.env:
        from builder.audit.report import together  # noqa: PLC0415

        listed = [together(reports, reports[0].contents.where, args.env)] if reports else []
        if not reports:
            app.stderr.write(f"nothing is installed in {args.env}\n")
    for number, report in enumerate(listed):
        for line in [*([""] if number else []), *shown.lines(report, style=looks, width=width, every=args.all)]:
            app.print(looks.fit(line))
    app.stdout.flush()
    others = [one.contents.project for one in reports if one.refused and args.ours and one.contents.inputs is None]
    if others:
        app.stderr.write(f"not ours, so only told: {', '.join(others)}\n")
    _refuse(_counted(reports, args), args)
    return 0


def _counted(reports: Sequence[Report], args: argparse.Namespace) -> list[Report]:
    """Return the reports that decide: with ``--ours``, on what spark-build made, which has its inputs in it."""
    return [one for one in reports if one.contents.inputs is not None or not args.ours]


def _check(args: argparse.Namespace) -> None:
    if not args.wheel and not args.env:
        raise UsageError(
            "usage",
            "there is nothing to audit",
            help="name wheels, or an environment",
            run=("spark-build audit WHEEL", "spark-build audit --env .venv"),
        )
    asked = [
        word for word, value in (("wheels", args.wheel), ("--run", args.run), ("--signers", args.signers)) if value
    ]
    if args.env and asked:
        raise UsageError("usage", f"--env doesn't go together with {asked[0]}", help="audit them one after the other")
    if args.ours and not args.env:
        raise UsageError("usage", "--ours is about an environment", run=("spark-build audit --env .venv --ours",))
    if args.gpu and not args.run:
        raise UsageError("usage", "--gpu says how to --run", run=(_again(args).replace(" --gpu", " --run --gpu", 1),))


def _wheels(args: argparse.Namespace, app: App, target: Capability, tell: Callable[[str], None]) -> list[Report]:
    """Return the reports on all wheels."""
    accepted = judged.accepted(args.accept)
    torch = torch_folder(args.torch, app) if args.torch else None
    paths = wheel_paths(args.wheel, app)
    own = {path.resolve() for path in paths}
    others = [path for path in wheel_paths(args.beside, app) if path.resolve() not in own]
    beside = [judged.read(path, tell) for path in others]
    every = [judged.read(path, tell) for path in paths]
    told = judged.said(every, args.recipe, app.config().recipe_layers)
    reports = judged.reports(every, told, target=target, accepted=accepted, beside=beside, torch=torch)
    files = [one.where for one in (*every, *beside)]
    return [one.plus(_more(one, about, args, app, tell, files)) for one, about in zip(reports, told, strict=True)]


def _installed(args: argparse.Namespace, app: App, target: Capability, tell: Callable[[str], None]) -> list[Report]:
    from builder.audit import installed  # noqa: PLC0415

    accepted = judged.accepted(args.accept)
    place = app.cwd / args.env
    every = installed.read(place, on_read=lambda done, total: tell(f"{done} of {total} packages of {args.env} read"))
    sites = installed.folders(place)
    torch = torch_folder(args.torch, app) if args.torch else None
    torch = torch or next((site / "torch" for site in sites if (site / "torch" / "lib").is_dir()), None)
    told = judged.said(every, args.recipe, app.config().recipe_layers)
    reports = judged.reports(every, told, target=target, accepted=accepted, torch=torch)
    return [one.plus(_more(one, about, args, app, tell, ())) for one, about in zip(reports, told, strict=True)]


def _more(
    report: Report,
    about: Said,
    args: argparse.Namespace,
    app: App,
    tell: Callable[[str], None],
    every: Sequence[Path],
) -> Iterator[Finding]:
    """Yield what is found out by other means than reading; a wheel that is refused already isn't run."""
    from builder.cli import tried  # noqa: PLC0415

    if args.cross_check:
        from builder.audit import crosscheck  # noqa: PLC0415

        tool = crosscheck.find(app.env)
        yield from crosscheck.check(
            report.contents, tool, env=app.env, on_file=lambda path: tell(f"cuobjdump reads {path}")
        )
    if signers := _signers(report, args, app):
        yield from tried.signed(report.contents, signers, app)
    if args.run and not report.refused:
        tell(f"running {report.contents.filename}")
        yield from tried.ran(report, about, args, app, [path for path in every if path != report.contents.where])


def _signers(report: Report, args: argparse.Namespace, app: App) -> Path | None:
    """Return the file of those whose signature counts: the configured one where somebody made a statement."""
    from builder.wheelhouse import publish  # noqa: PLC0415

    if args.signers:
        return app.cwd / str(args.signers)
    if not report.contents.filename or not publish.sidecar(report.contents.where).exists():
        return None
    return app.config().signers


def _refuse(reports: Sequence[Report], args: argparse.Namespace) -> None:
    """Raise CheckRefused ``audit-refused`` where one is refused; its last line lets pass what may be right."""
    refused = [one for one in reports if one.refused]
    if not refused:
        return
    names = [one.contents.filename or one.contents.project for one in refused]
    errors = [list(dict.fromkeys(found.id for found in one.errors)) for one in refused]
    things = "packages" if args.env else "wheels"
    open_to = [slug for slugs in errors for slug in slugs if slug not in NEVER]
    raise CheckRefused(
        "audit-refused",
        f"{names[0]} is refused"
        if len(reports) == 1
        else f"{len(refused)} of {len(reports)} {things} {'is' if len(refused) == 1 else 'are'} refused",
        cause="\n".join(f"{name}: {', '.join(slugs)}" for name, slugs in zip(names, errors, strict=True)),
        help="what is right all the same can be let pass, with a reason that is kept" if open_to else "",
        run=(f'{_again(args)} --accept {open_to[0]}="REASON"',) if open_to else (),
    )


def _again(args: argparse.Namespace) -> str:
    """Return the command line that asked for this, less what only changes how it is shown."""
    words = ["spark-build", "audit", *args.wheel]
    for name in ("target", "torch", "env", "signers", "python", "wheelhouse"):
        value = getattr(args, name)
        words += [f"--{name}", value] if value and not (name == "target" and value == judged.TARGET) else []
    words += [word for name in args.recipe for word in ("--recipe", name)]
    words += ["--beside", *args.beside] if args.beside else []
    words += [f"--{name.replace('_', '-')}" for name in ("ours", "cross_check", "run", "gpu") if getattr(args, name)]
    return shlex.join([*words, *(f"--accept={word}" for word in args.accept)])
