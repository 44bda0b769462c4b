"""What a line has to hold so that a pattern may match it: looking for plain text is ten times as fast."""

from __future__ import annotations

import re

__all__ = ["literal"]

#: The parts of a pattern: an escape, a class, the beginning of a group, how often, anything else.
_PART = re.compile(
    r"""
      \\(?P<escaped>\W) | \\\w
    | \[\^?\]?(?:\\.|[^\]\\])*\]
    | (?P<open>\((?:\?(?:P<\w+>|[:=!]|<[=!]))?)
    | (?P<close>\))
    | (?P<either>\|)
    | (?P<maybe>[?*]|\{[\d,]+\})\??
    | [+^$.]
    | (?P<plain>.)
    """,
    re.VERBOSE | re.DOTALL,
)


def literal(pattern: str) -> str:
    """Return the longest text that is in whatever `pattern` matches; empty where it can't be told.

    Only what stands outside of groups counts. Patterns with flags, such as ``(?i)``, aren't understood, and give nothing.
    """
    runs, depth = [""], 0
    for part in _PART.finditer(pattern):
        depth += bool(part["open"]) - bool(part["close"])
        if depth:
            runs.append("")
        elif part["either"] or part["open"] == "(?":
            return ""
        elif part["maybe"]:
            runs[-1:] = [runs[-1][:-1], ""]
        elif one := part["plain"] or part["escaped"]:
            runs[-1] += one
        else:
            runs.append("")
    return "" if "(?i" in pattern else max(runs, key=len)
