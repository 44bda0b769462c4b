"""What was meant by a word that the command line doesn't know."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

__all__ = ["explain"]


def explain(parser: argparse.ArgumentParser, message: str) -> str:
    """Return argparse's `message`, with the near command, choice or option where it complains of an unknown word."""
    if found := re.match(r"argument ([^:]+): invalid choice: '?([^' ]+)'? \(choose from (.*)\)$", message):
        known = [word.strip("'") for word in found[3].split(", ")]
        kind = {"COMMAND": "command", "ACTION": "action", "VERB": "action"}.get(found[1], f"value for {found[1]}:")
        return f"there is no {kind} {found[2]}{_near(found[2], known)}"
    if found := re.match(r"unrecognized arguments: (--[^\s=]+)", message):
        close = difflib.get_close_matches(found[1], set(_options(parser)), 1)
        return f"{message}, did you mean {close[0]}?" if close else message
    return message


def _near(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, 1)
    return f", did you mean {close[0]}?" if close else f"; known: {', '.join(known)}"


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield the options of every command that was declared in full: that of the one in use."""
    from builder.cli.reference import children  # noqa: PLC0415  # imports main, which is being imported with this

    for action in parser._actions:  # noqa: SLF001  # argparse has no public way to walk its tree
        yield from action.option_strings
    for _name, child in children(parser):
        yield from _options(child)
