"""``spark-build doctor``: this machine, what's wrong and the command that mends it."""

from __future__ import annotations

import tempfile
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from builder.cli import doctor_runtime
from builder.errors import CheckRefused

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from builder.cli.app import App
    from builder.host.checks import Finding, Place, Subject
    from builder.recipe.find import Folder
    from builder.recipe.model import Recipe
    from builder.ui.style import Style

__all__ = ["count", "rows", "table"]

EXAMPLES = """\
examples:
  spark-build doctor
  spark-build doctor --python 3.12                  with the interpreter that wheels are built for
  spark-build doctor --python ./venv                the torch of an environment, too
  spark-build doctor --recipe vllm --without rust   only whether compilers and packages do for that build
  spark-build doctor --env ~/serve/.venv            an environment: torch, ptxas, kernels, versions, imports
  spark-build doctor --image spark/vllm:1           the one in an image
  docker logs vllm 2>&1 | spark-build doctor --log -

Exit code 5 when something blocks building or serving; warnings don't count."""

_MARKS = {"ok": ("✔", "green"), "info": ("·", "dim"), "warn": ("▲", "yellow"), "problem": ("✘", "red")}

#: The word for a toolkit that isn't there yet, such as one that is mounted into a container.
NO_CUDA = "none"

#: Columns before the text.
_INDENT = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command."""
    parser.epilog = EXAMPLES
    parser.add_argument("--python", metavar="P", help="the interpreter that wheels are built for: a path or 3.12")
    parser.add_argument("--cuda", metavar="C", help="a toolkit: path or version; with --recipe `none`: it comes later")
    parser.add_argument(
        "--recipe", action="append", metavar="NAME", help="judge compilers, programs and packages for this recipe alone"
    )
    parser.add_argument("--without", action="append", metavar="VARIANT", help="with --recipe: without its variant")
    parser.add_argument("--wheelhouse", metavar="DIR", help="where wheels are kept")
    doctor_runtime.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument("--color", choices=("auto", "always", "never"), default="auto")


def run(args: argparse.Namespace, app: App) -> int:
    """Print what was found; return 5 where there is a problem."""
    if doctor_runtime.asked(args):
        return doctor_runtime.run(args, app)
    from builder.host import checks  # noqa: PLC0415  # after the arguments were found good
    from builder.ui import style  # noqa: PLC0415

    wanted = checks.CHECKS
    if args.recipe:
        wanted = tuple(one for one in checks.TOOLCHAIN if args.cuda != NO_CUDA or one[0] != "nvcc")
    found = tuple(checks.look(_subject(args, app), wanted))
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
    folders = find.folders(settings.recipe_layers)
    every = () if args.recipe else load.read_all(folders)[0]  # `recipes lint` tells their mistakes
    return Subject(
        env=app.env,
        cwd=app.cwd,
        recipes=_asked(args, folders) if args.recipe else tuple(one.recipe for one in every),
        python=args.python or settings.build.get("python"),
        cuda=None if args.recipe and args.cuda == NO_CUDA else args.cuda,
        wheelhouse=_place(settings.wheelhouse),
        sources=_place(settings.sources),
        temporary=Path(app.env.get("TMPDIR") or tempfile.gettempdir()),
        files=settings.files,
        mistakes=mistakes,
        isolation=lambda: isolation.probe(app.env, wanted=settings.build.get("isolation", "auto")),
    )


def _asked(args: argparse.Namespace, folders: Sequence[Folder]) -> tuple[Recipe, ...]:
    """Return the recipes that are named, without the variants that each of them has of those named."""
    from builder.recipe import load  # noqa: PLC0415
    from builder.values import replace  # noqa: PLC0415

    every = {name: {one.id for one in load.load(name, folders).recipe.variant} for name in args.recipe}
    unknown = dict.fromkeys(set(args.without or ()).difference(*every.values()), False)
    asked = []
    for name, known in every.items():
        without = unknown | dict.fromkeys(known.intersection(args.without or ()), False)
        recipe = load.load(name, folders, variants=without).recipe
        system = replace(recipe.system, cuda=None) if args.cuda == NO_CUDA else recipe.system
        asked.append(replace(recipe, system=system))
    return tuple(asked)


def _place(path: Path) -> Place:
    from builder.host.checks import Place  # noqa: PLC0415
    from builder.wheelhouse import filesystem  # noqa: PLC0415

    kind = filesystem.type_of(path.resolve(), Path("/proc/self/mountinfo").read_text(errors="replace"))
    return Place(path=path, network=kind if kind in filesystem.NETWORK else "")


def table(found: Sequence[Finding], *, style: Style, width: int) -> list[str]:
    """Return one entry a finding: mark, name, what was found; for what isn't right wanted, why and fix below it.

    Text is wrapped at `width`; commands never are, so that they can be copied.
    """
    problems = sum(one.status == "problem" for one in found)
    warnings = sum(one.status == "warn" for one in found)
    said = (
        f"{count(problems, 'problem')} block{'s' if problems == 1 else ''} building" if problems else "ready to build"
    )
    tail = f", {count(warnings, 'warning')}" if warnings else ""
    last = f" {style.paint(said, 'bold')}{tail}.  Machine-readable: spark-build doctor --json"
    return [*rows(found, style=style, width=width), last]


def rows(found: Sequence[Finding], *, style: Style, width: int) -> list[str]:
    """Return `table` without its last line."""
    from builder.ui.style import visible  # noqa: PLC0415

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
        lines += [
            f"{'':<{_INDENT}}{'fix' if not number else '':<8}{visible(run)}" for number, run in enumerate(one.run)
        ]
    return lines


def _wrapped(text: str, width: int) -> list[str]:
    from builder.ui.style import visible  # noqa: PLC0415

    room = max(20, width - _INDENT)
    wrap = textwrap.TextWrapper(room, break_long_words=False, break_on_hyphens=False).wrap
    lines = [line for part in text.splitlines() for line in wrap(visible(part))]  # a log's, a package's own words
    return lines or [""]


def count(number: int, word: str) -> str:
    """Return ``1 problem``, ``2 problems``."""
    return f"{number} {word}{'' if number == 1 else 's'}"
