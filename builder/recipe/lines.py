"""On which line of a TOML file a key stands. `tomllib` keeps no places, and a message without a line is half a message.

Line by line, for text that `tomllib` has accepted: headers and keys at the start of a line. What stands inside of a value
has the line of its key.
"""

from __future__ import annotations

import re

__all__ = ["lines"]

_WORD = r"(?:\"(?:[^\"\\]|\\.)*\"|'[^']*'|[A-Za-z0-9_-]+)"
_QUOTES = "\"'"
_DOTTED = rf"{_WORD}(?:\s*\.\s*{_WORD})*"
_LINE = re.compile(rf"\s*(?:(?P<open>\[\[?)\s*(?P<table>{_DOTTED})\s*\]|(?P<key>{_DOTTED})\s*=)")


def lines(text: str) -> dict[str, int]:
    """Return dotted key -> line (from 1) for the keys, tables and table entries of `text`.

    Entries of arrays are ``output[0]``, in the order of this text; of one key that comes twice, the first place counts.
    """
    found: dict[str, int] = {}
    counts: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.split("\n"), 1):
        if not (match := _LINE.match(line)):
            continue
        path = table if match["key"] else ""
        words = re.findall(_WORD, match["table"] or match["key"])
        for place, word in enumerate(words, 1):
            path = f"{path}.{word.strip(_QUOTES)}".removeprefix(".")
            found.setdefault(path, number)
            if match["open"] == "[[" and place == len(words):
                counts[path] = counts.get(path, -1) + 1
            if path in counts:
                path = f"{path}[{counts[path]}]"
                found.setdefault(path, number)
        table = table if match["key"] else path
    return found
