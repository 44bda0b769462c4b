"""``spark-build history``: past builds."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from builder.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from builder.cli.app import App
    from builder.pipeline.builds import Attempt

_HEAD = ("", "when", "recipe", "version", "build", "try", "outcome", "took", "memory")
_RECIPE, _VERSION, _OUTCOME = 2, 3, 6

#: Left out on narrow terminals, in this order; the symbol tells the outcome, too.
_DROP = (8, 7, 5, _VERSION, _OUTCOME)

_SYMBOLS = {"ok": "✔", "failed": "✘", "interrupted": "■", "killed": "✘", "running": "▸"}

EXAMPLES = """\
examples:
  spark-build history                               the newest attempts of all recipes
  spark-build history flashinfer --limit 5          then: spark-build log REF
  spark-build history vllm --units >vllm.json       what its compilers needed, for another machine
  spark-build history --import vllm.json            there; a wheel's .provenance.json does as well

`memory` is the most that all its compilers held at once."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command."""
    parser.epilog = EXAMPLES
    parser.add_argument("name", nargs="?", metavar="NAME", help="only this recipe")
    parser.add_argument("--limit", type=int, default=20, metavar="N", help="so many of the newest (default: 20)")
    parser.add_argument("--units", action="store_true", help="print what the units of NAME needed, as a JSON document")
    parser.add_argument("--import", dest="taken", type=Path, metavar="FILE", help="take such a document from elsewhere")
    parser.add_argument("--wheelhouse", metavar="DIR", help="where wheels are kept")
    parser.add_argument("--json", action="store_true", help="print the attempts as JSON")


def run(args: argparse.Namespace, app: App) -> int:
    """Print a table of attempts, newest first."""
    from builder.pipeline import builds  # noqa: PLC0415  # after the arguments were found good
    from builder.ui.style import columns  # noqa: PLC0415
    from builder.ui.table import table  # noqa: PLC0415

    if args.units or args.taken:
        return _units(args, app)
    root = app.config().wheelhouse
    found = builds.attempts(root, recipe=args.name)
    shown = found[: max(0, args.limit)]
    if args.json:
        app.print_json({"attempts": [one.as_json() for one in shown]})
        return 0
    if not found:
        names = sorted({one.recipe for one in builds.attempts(root)}) if args.name else []
        known = f"no build of {args.name} is known in {root}, only of {', '.join(names)}"
        app.stderr.write((known if names else f"nothing was built in {root} yet") + "\n")
        return 0
    rows, cut = [_row(one) for one in shown], (_RECIPE, _VERSION, _OUTCOME)
    for line in table(_HEAD, rows, width=columns(app.stdout), shrink=cut, drop=_DROP):
        app.print(line)
    if more := len(found) - len(shown):
        app.stderr.write(f"and {more} older: --limit {len(found)}\n")
    return 0


def _units(args: argparse.Namespace, app: App) -> int:
    """Hand out what is known of a recipe's units, or take what another machine knew."""
    import json  # noqa: PLC0415

    from builder.cli.session import opened  # noqa: PLC0415
    from builder.pipeline import gated  # noqa: PLC0415
    from builder.wheelhouse.statement import facts  # noqa: PLC0415

    if args.units and not args.name:
        raise UsageError("usage", "--units wants the NAME of a recipe", run=("spark-build history NAME --units",))
    with opened(args, app) as world:
        kept = gated.history(world)
        if args.units:
            app.stdout.write(kept.export(args.name).decode() + "\n")
            return 0
        try:
            document = json.loads((app.cwd / args.taken).read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise UsageError("history-document", f"{args.taken} can't be read", cause=str(error)) from error
        inner = facts(document).get("units")  # a wheel's record holds one
        count = kept.import_document(json.dumps(inner if isinstance(inner, dict) else document).encode())
    app.stderr.write(f"{count} runs taken\n")
    return 0


def _outcome(one: Attempt) -> str:
    if one.outcome == "ok":
        return "taken" if one.summary else "ok"  # from upstream; `log` says from where
    return f"{one.outcome} in {one.phase}" if one.phase else one.outcome


def _row(one: Attempt) -> tuple[str, ...]:
    from builder.recipe.units import show_bytes, show_seconds  # noqa: PLC0415

    return (
        _SYMBOLS[one.outcome],
        time.strftime("%m-%d %H:%M", time.localtime(one.started)),
        one.recipe,
        one.version or "·",
        one.fingerprint[:10],
        str(one.attempt),
        _outcome(one),
        "·" if one.ms is None else show_seconds(one.ms / 1000),
        show_bytes(one.peak_bytes) if one.peak_bytes else "·",
    )
