"""Pins and nested sources as JSON, for what remembers them: the wheelhouse's memory, lock files."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from builder.stages import Given, Nested, Pin, PullDiff, Submodule
from builder.values import fields

if TYPE_CHECKING:
    from collections.abc import Mapping

    from builder.digest import Json

__all__ = ["nested_json", "nested_of", "pin_json", "pin_of"]

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_TREE = re.compile(r"(\w+:)?\w*")


def pin_json(pin: Pin) -> dict[str, Json]:
    """Return everything that `pin` says but when its remote was asked."""
    plain: dict[str, Json] = {
        one.name: getattr(pin, one.name)
        for one in fields(Pin)
        if one.name not in {"submodules", "pulls", "asked_at", "stale"}
    }
    plain["submodules"] = [{"path": sub.path, "url": sub.url, "commit": sub.commit} for sub in pin.submodules]
    plain["pulls"] = [
        {"number": pull.number, "base": pull.base, "head": pull.head, "sha256": pull.sha256} for pull in pin.pulls
    ]
    return {key: value for key, value in plain.items() if value is not None and value != []}


def pin_of(value: Mapping[str, Any]) -> Pin:
    """Return the pin that `pin_json` wrote. Raises KeyError, TypeError or ValueError for what is none.

    A lock may come from anybody: what becomes a path or a word of git has to look as it does when we write it.
    """
    more = dict(value)
    more["submodules"] = subs = tuple(Submodule(**one) for one in value.get("submodules", ()))
    more["pulls"] = pulls = tuple(PullDiff(**one) for one in value.get("pulls", ()))
    pin = Pin(**more)
    commits = [
        pin.commit,
        *(sub.commit for sub in subs),
        *(commit for pull in pulls for commit in (pull.base, pull.head)),
    ]
    paths = [PurePosixPath(sub.path) for sub in subs]
    if (
        any(commit is not None and not _COMMIT.fullmatch(commit) for commit in commits)
        or any(path.is_absolute() or not path.parts or ".." in path.parts for path in paths)
        or (pin.filename is not None and PurePosixPath(pin.filename).parts != (pin.filename,))
        or pin.filename == ".."
        or not _TREE.fullmatch(pin.tree)
        or not isinstance(pin.time, int)
    ):
        msg = f"no pin of a source: {pin.url}"
        raise ValueError(msg)
    return pin


def nested_json(nested: Nested) -> dict[str, Json]:
    """Return everything that `nested` says."""
    return {
        "id": nested.id,
        "kind": nested.kind,
        "origin": nested.origin,
        "given": nested.given.identity(),
        "pin": pin_json(nested.pin) if nested.pin else None,
        "path": str(nested.path) if nested.path else None,
        "digest": nested.digest,
        "about": nested.about,
    }


def nested_of(value: Mapping[str, Any]) -> Nested:
    """Return the nested source that `nested_json` wrote. Raises KeyError or TypeError for what is none."""
    more = dict(value)
    submodules = value["given"]["submodules"]
    given = {**value["given"], "submodules": submodules if isinstance(submodules, str) else tuple(submodules)}
    more["given"] = Given(**given)
    more["pin"] = pin_of(value["pin"]) if value["pin"] else None
    more["path"] = Path(value["path"]) if value["path"] else None
    return Nested(**more)
