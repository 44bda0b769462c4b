"""docs/cli.md, generated from the argument parsers; and the one command that writes every generated file.

``python -m builder.cli.reference`` rewrites docs/cli.md, docs/failures.md, docs/findings.md, docs/recipe-reference.md,
docs/recipe.schema.json and Dockerfile.builder of a source checkout.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from builder.cli.main import COMMANDS, build_parser

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["children", "files", "page", "pages"]

_HEAD = """\
# Command line

<!-- Generated from builder/cli. Change it there, then run: python -m builder.cli.reference -->

Results go to stdout, everything else to stderr. With `--json` the result is one JSON document with a `version` key, and so
is an error.

| exit code | meaning |
|---|---|
| 0 | done, or it was there already |
| 1 | the project's own build failed |
| 2 | wrong usage, a mistake in a recipe, a patch that doesn't fit any more |
| 3 | this machine can't: compiler too old, disk full, folder not writable, lock not to be had |
| 4 | a source is missing, or the network is |
| 5 | a check refused |
| 6 | the wheelhouse or an index is damaged |
| 7 | stopped by the memory policy; the same command goes on |
| 10 | `--plan`: something would be built |
| 70 | a bug in spark-build |
| 130, 143 | interrupted by Ctrl-C or SIGTERM; the same command goes on |
"""


def pages() -> dict[str, str]:
    """Return every generated page by its name in docs/."""
    from builder.cli import findings  # noqa: PLC0415
    from builder.executor import failures  # noqa: PLC0415
    from builder.recipe import reference  # noqa: PLC0415  # completion needs only `children`

    return {
        "cli.md": page(),
        "failures.md": failures.page(),
        "findings.md": findings.page(),
        "recipe-reference.md": reference.page(),
        "recipe.schema.json": reference.schema_text(),
    }


def files() -> dict[str, str]:
    """Return every generated file by its path in a source checkout."""
    from builder.image import builder_file  # noqa: PLC0415  # as above

    return {f"docs/{name}": text for name, text in pages().items()} | {builder_file.FILE: builder_file.text()}


def page() -> str:
    """Return docs/cli.md."""
    parser = build_parser(list(COMMANDS))
    lines = [_HEAD]
    for name, child in children(parser):
        lines += _command(f"spark-build {name}", child, "##")
    return "\n".join(lines).rstrip("\n") + "\n"


def children(parser: argparse.ArgumentParser) -> tuple[tuple[str, argparse.ArgumentParser], ...]:
    """Return the parsers of a parser's commands, by name; not those that are only listed."""
    for action in parser._actions:  # noqa: SLF001  # argparse has no public way to walk its tree
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            return tuple((name, child) for name, child in action.choices.items() if child is not None)
    return ()


def _command(name: str, parser: argparse.ArgumentParser, mark: str) -> Iterator[str]:
    inner = children(parser)
    actions = [action for action in parser._actions if _shown(action)]  # noqa: SLF001
    words = [_word(action) for action in actions if not action.option_strings]
    usage = " ".join([name, "ACTION" if inner else "[options]", *words])
    yield from (f"{mark} {name.removeprefix('spark-build ')}", "", (parser.description or "").strip(), "")
    yield from ("```text", usage, "```", "")
    if actions:
        yield from ("| argument | meaning |", "|---|---|")
        yield from (f"| {_names(action)} | {_meaning(action)} |" for action in actions)
        yield ""
    if parser.epilog:
        yield from ("```text", parser.epilog.strip(), "```", "")
    for word, child in inner:
        yield from _command(f"{name} {word}", child, f"{mark}#")


def _shown(action: argparse.Action) -> bool:
    hidden = isinstance(action, argparse._HelpAction | argparse._SubParsersAction)  # noqa: SLF001
    return not hidden and action.help != argparse.SUPPRESS


def _word(action: argparse.Action) -> str:
    shown = _metavar(action)
    return {"+": f"{shown}…", "*": f"[{shown}…]", "?": f"[{shown}]"}.get(str(action.nargs), shown)


def _metavar(action: argparse.Action) -> str:
    if isinstance(action.metavar, str):
        return action.metavar
    if action.choices is not None:
        return "|".join(str(choice) for choice in action.choices)
    return action.dest.upper()


def _names(action: argparse.Action) -> str:
    if not action.option_strings:
        return f"`{_metavar(action)}`"
    value = "" if action.nargs == 0 else f" {_metavar(action)}"
    return ", ".join(f"`{option}{value}`" for option in action.option_strings).replace("|", "\\|")


def _meaning(action: argparse.Action) -> str:
    text = (action.help or "").replace("%%", "%").replace("|", "\\|")
    return text if action.option_strings or not action.choices else f"{text} ({_metavar(action)})".replace("|", "\\|")


if __name__ == "__main__":
    root = Path(__file__).resolve().parents[2]
    for file, text in files().items():
        (root / file).write_text(text, encoding="utf-8")
        sys.stdout.write(f"{file}\n")
