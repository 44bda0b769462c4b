"""The first lines of ``.spark-build-index``: whether a tree shows what the wheelhouse holds. All that a hit asks of it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["FORMAT", "HEAD", "MANIFEST", "shows"]

MANIFEST = ".spark-build-index"
HEAD = "spark-build index, format "
#: Grows when pages or the layout change: trees of an older format are written anew.
FORMAT = 1


def shows(dest: Path, state: str) -> bool:
    """Whether the tree at `dest` was written whole, and for `state`."""
    with contextlib.suppress(OSError, ValueError), (dest / MANIFEST).open() as stream:
        return bool(state) and [stream.readline(), stream.readline()] == [f"{HEAD}{FORMAT}\n", f"{state}\n"]
    return False
