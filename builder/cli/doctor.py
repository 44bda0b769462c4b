"""``spark-build doctor``: this machine, what's wrong and the command that mends it."""

from __future__ import annotations

import tempfile
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from builder.errors import CheckRefused

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from builder.cli.app import App
    from builder.host.checks import Finding, Place, Subject
    from builder.ui.style import Style

__all__ = ["table"]

EXAMPLES = """\
examples:
  spark-build doctor
  spark-build doctor --python 3.12                  with the interpreter that wheels are built for
  spark-build doctor --python ./venv                the torch of an environment, too

Exit code 5 when something blocks building; warnings don't count."""

_MARKS = {"ok": ("✔", "green"), "info": ("·", "dim"), "warn": ("▲", "yellow"), "problem": ("✘", "red")}

#: Columns before the text.
_INDENT = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command."""
    parser.epilog = EXAMPLES
    parser.add_argument("--python", metavar="P", help="the interpreter that wheels are built for: a path or 3.12")
    parser.add_argument("--cuda", metavar="C", help="a toolkit: path or version")
    parser.add_argument("--wheelhouse", metavar="DIR", help="where wheels are kept")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument("--color", choices=("auto", "always", "never"), default="auto")


def run(args: argparse.Namespace, app: App) -> int:
    """Print what was found; return 5 where there is a problem."""
    from builder.host import checks  # noqa: PLC0415  # after the arguments were found good
    from builder.ui import style  # noqa: PLC0415

    found = tuple(checks.look(_subject(args, app)))
    problems = sum(one.status == "problem" for one in found)
    if args.json:
        warnings = sum(one.status == "warn" for one in found)
        app.print_json({"findings": [one.as_json() for one in found], "problems": problems, "warnings": warnings})
    else:
        looks, width = style.of(app.stdout, app.env, args.color), style.columns(app.stdout)
        for line in table(found, style=looks, width=width):
            app.print(looks.fit(line))
    return CheckRefused.exit_code if problems else 0


def _subject(args: argparse.Namespace, app: App) -> Subject:
    from builder import config  # noqa: PLC0415
    from builder.executor import isolation  # noqa: PLC0415
    from builder.host.checks import Subject  # noqa: PLC0415
    from builder.recipe import find, load  # noqa: PLC0415

    settings, mistakes = config.inspect(app.env, wheelhouse=args.wheelhouse, cwd=app.cwd)
    recipes, _mistakes = load.read_all(find.folders(settings.recipe_layers))  # `recipes lint` tells those
    return Subject(
        env=app.env,
        cwd=app.cwd,
        recipes=tuple(one.recipe for one in recipes),
        python=args.python or settings.build.get("python"),
        cuda=args.cuda,
        wheelhouse=_place(settings.wheelhouse),
        sources=_place(settings.sources),
        temporary=Path(app.env.get("TMPDIR") or tempfile.gettempdir()),
        files=settings.files,
        mistakes=mistakes,
        isolation=lambda: isolation.probe(app.env, wanted=settings.build.get("isolation", "auto")),
    )


def _place(path: Path) -> Place:
    from builder.host.checks import Place  # noqa: PLC0415
    from builder.wheelhouse import filesystem  # noqa: PLC0415

    kind = filesystem.type_of(path.resolve(), Path("/proc/self/mountinfo").read_text(errors="replace"))
    return Place(path=path, network=kind if kind in filesystem.NETWORK else "")


def table(found: Sequence[Finding], *, style: Style, width: int) -> list[str]:
    """Return one entry a finding: mark, name, what was found; for what isn't right wanted, why and fix below it.

    Text is wrapped at `width`; commands never are, so that they can be copied.
    """
    lines: list[str] = []
    for one in found:
        mark, colour = _MARKS[one.status]
        head, *more = _wrapped(one.found, width)
        lines.append(f" {style.paint(mark, colour)} {one.id:<{_INDENT - 4}} {head}")
        lines += [" " * _INDENT + line for line in more]
        if one.status == "ok":
            continue
        told = [("wanted", one.wanted), ("why", one.why)]
        for word, text in told if one.status != "info" else told[1:]:
            for number, line in enumerate(_wrapped(text, width - 8) if text else ()):
                lines.append(f"{'':<{_INDENT}}{word if not number else '':<8}{line}")
        lines += [f"{'':<{_INDENT}}{'fix' if not number else '':<8}{run}" for number, run in enumerate(one.run)]
    problems = sum(one.status == "problem" for one in found)
    warnings = sum(one.status == "warn" for one in found)
    said = (
        f"{_count(problems, 'problem')} block{'s' if problems == 1 else ''} building" if problems else "ready to build"
    )
    tail = f", {_count(warnings, 'warning')}" if warnings else ""
    return [*lines, f" {style.paint(said, 'bold')}{tail}.  Machine-readable: spark-build doctor --json"]


def _wrapped(text: str, width: int) -> list[str]:
    room = max(20, width - _INDENT)
    wrap = textwrap.TextWrapper(room, break_long_words=False, break_on_hyphens=False).wrap
    lines = [line for part in text.splitlines() for line in wrap(part)]
    return lines or [""]


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
