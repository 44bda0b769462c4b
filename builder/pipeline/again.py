"""The command line that made an attempt, kept beside its events: for going on with it, and for finding who runs it.

``<wheelhouse>/builds/<fingerprint>/logs/<attempt>/request.json``: ``version``, ``words`` (without the program), ``cwd`` and
``pid``. Passwords in URLs are left out of the words, as everywhere.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from builder.errors import scrubbed
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Sequence

    from builder.digest import Json
    from builder.pipeline.builds import Attempt

__all__ = ["Asked", "commit_of", "document", "keep", "read", "unfinished"]

_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What was typed, and in which folder; `pid` is the process that did it then."""

    words: tuple[str, ...]
    cwd: Path
    pid: int


def keep(logs: Path, *, words: Sequence[str], cwd: Path) -> None:
    """Keep the command line `words` of this process in the folder of an attempt."""
    told = {"version": _VERSION, "words": [scrubbed(word) for word in words], "cwd": str(cwd), "pid": os.getpid()}
    (logs / "request.json").write_text(json.dumps(told) + "\n")


def read(logs: Path) -> Asked | None:
    """Return what made the attempt with the folder `logs`, or None where that wasn't kept."""
    try:
        told = json.loads((logs / "request.json").read_bytes())
        return Asked(words=tuple(map(str, told["words"])), cwd=Path(told["cwd"]), pid=int(told["pid"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def unfinished(found: Sequence[Attempt]) -> list[Attempt]:
    """Return the newest attempt of each build that hasn't come to a good end; `found` is newest first.

    One that gave way to a better plan isn't among them: what it was about goes on under another fingerprint.
    """
    seen: set[str] = set()
    kept = []
    for one in found:
        replanned = one.outcome == "interrupted" and one.code is None
        if one.fingerprint not in seen and one.outcome != "ok" and not replanned:
            kept.append(one)
        seen.add(one.fingerprint)
    return kept


def commit_of(one: Attempt) -> str | None:
    """Return the commit that the stored inputs of `one` name; None for a source that isn't git."""
    source = document(one).get("source")
    commit = source.get("commit") if isinstance(source, dict) and source.get("kind") == "git" else None
    return commit if isinstance(commit, str) else None


def document(one: Attempt) -> dict[str, Json]:
    """Return the inputs that `one` was made from; empty where they can't be read."""
    try:
        loaded = json.loads((one.logs / "inputs.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return loaded if isinstance(loaded, dict) else {}
