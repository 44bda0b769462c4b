"""``spark-build wheels add``: wheels from elsewhere, named on a command line."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from builder import signature
from builder.audit.rules import NEVER
from builder.cli.wheels import opened, refresh_index
from builder.pipeline import intake, judged

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from builder.audit.context import Accepted
    from builder.audit.report import Report
    from builder.cli.app import App

__all__ = ["run"]


def run(args: argparse.Namespace, app: App) -> int:
    """Add what the arguments name, all or none of it. Raises as `intake.examine` and `intake.file` do."""
    from builder.ui import wheels as shown  # noqa: PLC0415

    accepted = judged.accepted(args.accept)
    sign = signature.signer(app.config().signing_key, env=app.env)
    examined = _examined(args, app, accepted)
    with opened(app, create=True) as house:
        try:
            taken = intake.file(house, examined, sign=sign)
        finally:
            refresh_index(house, app)
    if args.json:
        rows = [
            {
                **shown.as_json(one.wheel),
                "cached": one.there,
                "findings": [found.as_json() for found in one.report.findings],
            }
            for one in taken
        ]
        app.print_json({"wheels": rows})
        return 0
    for one in taken:
        app.print(str(one.wheel.path))
        if one.there:
            app.stderr.write(f"{one.wheel.filename} was there already, with the same bytes\n")
        if one.wheel.state != "published":  # it was withheld, and removed; its bytes come back as what they were
            app.stderr.write(f"{one.wheel.filename} is {one.wheel.state} still\n")
    return 0


def _examined(args: argparse.Namespace, app: App, accepted: Sequence[Accepted]) -> list[intake.Examined]:
    """Return what was found good; tell the warnings, also those of what is refused."""
    from builder.ui import audit as shown  # noqa: PLC0415

    try:
        with shown.progress(app.stderr, app.env, app.clock) as tell:
            examined = intake.examine(
                [app.cwd / file for file in args.file],
                config=app.config(),
                env=app.env,
                target=args.target or judged.TARGET,
                accepted=accepted,
                tell=tell,
            )
    except intake.Refused as error:
        _warn(error.reports, app)
        error.run = _instead(args, error.slugs)
        raise
    _warn([each.report for each in examined], app)
    return examined


def _warn(reports: Sequence[Report], app: App) -> None:
    from builder.ui import audit as shown  # noqa: PLC0415

    for report in reports:
        for one in report.open:
            if one.severity == "warning":
                app.stderr.write(f"warning: {shown.short(one, report.contents.filename)}\n")


def _instead(args: argparse.Namespace, slugs: Sequence[str]) -> tuple[str, ...]:
    """Return what to type where an audit refused by the findings `slugs`: what shows them all, and what lets them pass."""
    target = ["--target", args.target] if args.target else []
    words = shlex.join([*args.file, *target, *(f"--accept={word}" for word in args.accept)])
    look = f"spark-build audit {words}"
    if not NEVER.isdisjoint(slugs):
        return (look,)
    more = " ".join(f'--accept {slug}="REASON"' for slug in slugs)
    return look, f"spark-build wheels add {words} {more}"
