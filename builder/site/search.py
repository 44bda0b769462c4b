"""Search: a small index of names, and what is found in it. The script of the pages looks in the same way."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from builder.values import dataclass
from builder.wheel.label import unlabelled

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from builder.site.model import Attempt
    from builder.stages import Stored
    from builder.wheelhouse.overview import Channel, Project

__all__ = ["NEWEST", "Hit", "entries", "find", "script"]

#: So many wheels and builds are looked through, the newest: all packages and channels are.
NEWEST = 2000
#: What is shown of what was found.
_SHOWN = 50
#: From so many characters on a word may be the start of a key.
_KEY = 4
#: What comes first where names fit alike: the other kinds have the same names many times.
_FIRST = frozenset({"package", "channel"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """Something that can be found: `kind` in words, `title` and `text` as shown, `folder` of its page.

    `keys` are what it can be found by from their start: digests, and the whole version.
    """

    kind: str
    title: str
    text: str
    folder: str
    keys: tuple[str, ...] = ()


def entries(
    projects: Iterable[Project], channels: Iterable[Channel], wheels: Sequence[Stored], attempts: Sequence[Attempt]
) -> list[Hit]:
    """Return all that can be found; `wheels` and `attempts` come newest first."""
    found = [
        Hit(kind="package", title=one.name, text=one.version.partition("+")[0], folder=f"projects/{one.name}/")
        for one in projects
    ]
    found += [Hit(kind="channel", title=one.name, text="", folder=f"channels/{one.name}/") for one in channels]
    found += [
        Hit(
            kind="wheel",
            title=one.project,
            text=_build(one.version),
            folder=f"wheels/{one.sha256}/",
            keys=tuple(key for key in (one.sha256, one.fingerprint, one.version) if key),
        )
        for one in wheels[:NEWEST]
    ]
    builds = {one.fingerprint: one for one in reversed(attempts[:NEWEST])}
    found += [
        Hit(
            kind="build" if one.outcome == "ok" else f"build, {one.outcome}",
            title=one.recipe,
            text=f"{one.version} {one.fingerprint[:10]}",
            folder=f"builds/{one.fingerprint}/",
            keys=(one.fingerprint,),
        )
        for one in reversed(builds.values())
    ]
    return found


def _build(version: str) -> str:
    """Return a version with that part of our label which tells builds apart."""
    plain = unlabelled(version)
    return version if plain is None else f"{plain} {version.partition('+')[2].split('.')[1]}"


def find(found: Iterable[Hit], query: str) -> list[Hit]:
    """Return what fits all words of a query, the best first: names that begin with it before those that hold it."""
    wanted = query.lower().split()
    if not wanted:
        return []
    scored = [(score, at, one) for at, one in enumerate(found) if (score := _score(one, wanted)) is not None]
    return [one for _score_, _at, one in sorted(scored, key=lambda each: each[:2])[:_SHOWN]]


def _score(one: Hit, wanted: Sequence[str]) -> int | None:
    """Return how far something is from what is wanted; None where it doesn't fit. Dashes and underscores are one."""
    name = one.title.lower().replace("_", "-")
    text = f"{name} {one.text.lower()}"
    late = 0 if one.kind in _FIRST else 1
    worst = 0
    for word in wanted:
        plain = word.replace("_", "-")
        if name == plain:
            score = late
        elif name.startswith(plain):
            score = 1 + late
        elif plain in text:
            score = 2 + late
        elif len(word) >= _KEY and any(key.startswith(word) for key in one.keys):
            score = 0
        else:
            return None
        worst = max(worst, score)
    return worst


def script(found: Iterable[Hit]) -> bytes:
    """Return the index as the script of the pages takes it: a script, since pages from ``file://`` may load nothing else."""
    rows = [[one.kind, one.title, one.text, one.folder, *one.keys] for one in found]
    return f"sparkIndex({json.dumps(rows, separators=(',', ':'))});\n".encode()
