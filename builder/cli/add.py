"""``spark-build wheels add``: what has to hold of a wheel from elsewhere before it is filed."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from builder import signature
from builder.audit.rules import NEVER
from builder.cli import judged
from builder.cli.wheels import opened, refresh_index
from builder.errors import CheckRefused
from builder.wheelhouse import foreign

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from builder.audit.context import Accepted
    from builder.audit.report import Report
    from builder.cli.app import App

__all__ = ["run"]


def run(args: argparse.Namespace, app: App) -> int:
    """Add what the arguments name, all or none of it.

    Raises CheckRefused ``audit-refused``, ``wheel-changed``, and as `foreign.judge`, `foreign.vouch` and `foreign.check` do.
    """
    from builder.ui import wheels as shown  # noqa: PLC0415

    config, accepted = app.config(), judged.accepted(args.accept)
    sign = signature.signer(config.signing_key, env=app.env)
    ours = [foreign.judge(path) for path in (app.cwd / file for file in args.file)]  # all before the first is filed
    for one in ours:
        foreign.vouch(one, _holds(app), required=config.signers is not None)
    audited = _audited(args, app, [one.wheel.path for one in ours], accepted)
    for one, (report, _stamp) in zip(ours, audited, strict=True):
        if one.wheel.sha256 != report.contents.sha256:
            raise CheckRefused("wheel-changed", f"{one.wheel.filename} was changed while it was looked at")
    added = []
    with opened(app, create=True) as house:
        foreign.check(house, ours)
        try:
            for one, (report, stamp) in zip(ours, audited, strict=True):
                wheel, there = foreign.add(house, one, sign=sign, let_pass=_let_pass(report))
                added.append((wheel, there))
                if not there:  # under a stamp of its own: a build that finds it judges it anew
                    house.keep_findings(wheel.sha256, f"added:{stamp}", report.as_json())
        finally:
            refresh_index(house, app)
    if args.json:
        rows = [
            {**shown.as_json(wheel), "cached": there, "findings": [found.as_json() for found in report.findings]}
            for (wheel, there), (report, _stamp) in zip(added, audited, strict=True)
        ]
        app.print_json({"wheels": rows})
        return 0
    for wheel, there in added:
        app.print(str(wheel.path))
        if there:
            app.stderr.write(f"{wheel.filename} was there already, with the same bytes\n")
    return 0


def _holds(app: App) -> Callable[[bytes, bytes], str]:
    """Return what checks a signature: by the configured signers, else whether it is one of these bytes at all."""
    if signers := app.config().signers:
        return signature.checker(signers, env=app.env)
    return lambda record, seal: signature.sound(record, seal, env=app.env)


def _let_pass(report: Report) -> list[dict[str, str]]:
    return [{"id": one.id, "file": one.file, "reason": one.accepted} for one in report.findings if one.accepted]


def _audited(
    args: argparse.Namespace, app: App, paths: Sequence[Path], accepted: Sequence[Accepted]
) -> list[tuple[Report, str]]:
    """Return the reports on wheels that may be handed out, with the digests of their rules; tell their warnings.

    Raises CheckRefused ``audit-refused``.
    """
    from builder.audit.target import Capability  # noqa: PLC0415
    from builder.ui import audit as shown  # noqa: PLC0415

    target = Capability.parse(args.target or judged.TARGET)
    with shown.progress(app.stderr, app.env, app.clock) as tell:
        every = [judged.read(path, tell) for path in paths]
        told = judged.said(every, (), app)
        reports = judged.reports(every, told, target=target, accepted=accepted)
    for report in reports:
        for one in report.open:
            if one.severity == "warning":
                app.stderr.write(f"warning: {shown.short(one, report.contents.filename)}\n")
    if errors := [(report, one) for report in reports for one in report.errors]:
        raise CheckRefused(
            "audit-refused",
            f"{len({report.contents.filename for report, _one in errors})} of {len(paths)} wheels would not run as it should"
            if len(paths) > 1
            else f"{paths[0].name} would not run as it should",
            cause="\n".join(f"{shown.short(one, report.contents.filename)}; {one.why}" for report, one in errors),
            help="what is right all the same can be let pass, with a reason that is kept",
            run=_instead(args, list(dict.fromkeys(one.id for _report, one in errors))),
        )
    return [(report, judged.stamp(report, one)) for report, one in zip(reports, told, strict=True)]


def _instead(args: argparse.Namespace, slugs: Sequence[str]) -> tuple[str, ...]:
    """Return what to type where an audit refused by the findings `slugs`: what shows them all, and what lets them pass."""
    target = ["--target", args.target] if args.target else []
    words = shlex.join([*args.file, *target, *(f"--accept={word}" for word in args.accept)])
    look = f"spark-build audit {words}"
    if not NEVER.isdisjoint(slugs):
        return (look,)
    more = " ".join(f'--accept {slug}="REASON"' for slug in slugs)
    return look, f"spark-build wheels add {words} {more}"
