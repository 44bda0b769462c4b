"""``.spark-build-index``: which files of a folder are ours, and whether a tree shows what the wheelhouse holds.

Line 1 names the format, line 2 the state that the tree shows, the rest are paths. It is written twice: before the work with
the old files and the new ones, so that a run that is killed leaves nothing unknown behind; after it with the new ones and
the state. The first two lines are all that a hit asks of it.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["FORMAT", "HEAD", "MANIFEST", "is_ours", "paths", "shows", "text"]

MANIFEST = ".spark-build-index"
HEAD = "spark-build index, format "
#: Grows when pages or the layout change: trees of an older format are written anew.
FORMAT = 2

#: The manifest lies in a folder that others may write: what is deleted on its word has to look like ours. Format 1 had
#: ``index.json`` where there is ``index.v1_json`` now.
_OURS = (
    r"(?:[a-z0-9-]+/){0,2}simple/(?:[^/\n]+/)?index\.(?:html|json|v1_json)(?:\.gz)?"
    r"|files/[0-9a-f]{64}/[^/\n]+|nginx\.conf|(?:index|404)\.html|(?:projects|wheels|builds|channels|static)/[^\0\n]+"
)


def shows(dest: Path, state: str) -> bool:
    """Whether the tree at `dest` was written whole, and for `state`."""
    with contextlib.suppress(OSError, ValueError), (dest / MANIFEST).open() as stream:
        return bool(state) and [stream.readline(), stream.readline()] == [f"{HEAD}{FORMAT}\n", f"{state}\n"]
    return False


def is_ours(path: str) -> bool:
    """Whether a path below the tree's root is one that an export writes."""
    import re  # noqa: PLC0415  # a hit needs none

    return re.fullmatch(_OURS, path) is not None and not {"", ".", ".."} & {*path.split("/")}


def paths(dest: Path) -> frozenset[str]:
    """Return what `dest` calls ours in its manifest; none where there is no manifest. Ask `is_ours` before deleting any.

    Raises UsageError ``index-newer`` for a format that is not known here.
    """
    try:
        lines = (dest / MANIFEST).read_text().split("\n")
    except FileNotFoundError:
        return frozenset()
    number = lines[0].removeprefix(HEAD)
    if lines[0] == number or not number.isdecimal() or int(number) > FORMAT:
        from builder.errors import UsageError  # noqa: PLC0415  # a hit needs none

        raise UsageError(
            "index-newer",
            f"{dest / MANIFEST} has a format that this spark-build doesn't know",
            cause=lines[0][:60],
            help="a newer spark-build wrote this index: use that one, or name another folder",
        )
    return frozenset(lines[2:-1])


def text(state: str, ours: Iterable[str]) -> bytes:
    """Return a manifest."""
    return "\n".join([f"{HEAD}{FORMAT}", state, *sorted(ours), ""]).encode()
