"""Laying recipe files over each other, and remembering which file set which key."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Any, TypeGuard

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["assign", "line_of", "merge"]

#: Arrays of tables whose entries are one thing under one name: a later layer changes the entry instead of adding one.
_NAMED = {"output": "name", "patch": "id", "source": "kind"}


def merge(
    base: dict[str, Any], over: Mapping[str, Any], origin: str, origins: dict[str, str], path: str = ""
) -> dict[str, Any]:
    """Return `base` with `over` laid on it; `origins` gets `origin` for each key that `over` sets.

    Tables merge key by key; entries of ``output``, ``patch`` and ``source`` by name, id and kind; other arrays are replaced.
    """
    result = dict(base)
    for key, value in over.items():
        where = f"{path}.{key}" if path else key
        old = result.get(key)
        if isinstance(value, dict):
            result[key] = merge(old if isinstance(old, dict) else {}, value, origin, origins, where)
        elif not path and key in _NAMED and _are_tables(value):
            result[key] = _merge_named(old if _are_tables(old) else [], value, _NAMED[key], origin, origins, where)
        else:
            result[key] = value
            origins[where] = origin
    return result


def _are_tables(value: object) -> TypeGuard[list[dict[str, Any]]]:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _merge_named(  # the same walk as merge, one level down
    old: list[dict[str, Any]], new: list[dict[str, Any]], key: str, origin: str, origins: dict[str, str], path: str
) -> list[dict[str, Any]]:
    """Entries of one file never merge with each other: a name twice in one file stays twice, and is a mistake later."""
    result = list(old)
    places = {item.get(key): number for number, item in enumerate(old)}
    for item in new:
        number = places.pop(item.get(key), None)
        if number is None:
            number = len(result)
            result.append({})
        elif path == "source":
            result[number] = {}  # half of one source and half of another would be neither
        result[number] = merge(result[number], item, origin, origins, f"{path}[{number}]")
    return result


def assign(raw: dict[str, Any], key: str, text: str) -> dict[str, Any]:
    """Return what ``--set key=text`` lays over `raw`: the value is TOML where it parses, else the text itself.

    ``output.NAME.key`` and ``patch.ID.key`` reach into the entry of that name.
    """
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    words = key.split(".")
    if len(words) > 2 and words[0] in _NAMED and isinstance(raw.get(words[0]), list):  # noqa: PLR2004  # table.name.key
        return {words[0]: [{_NAMED[words[0]]: words[1], **_nested(words[2:], value)}]}
    return _nested(words, value)


def _nested(words: list[str], value: Any) -> dict[str, Any]:  # noqa: ANN401  # any TOML value
    for word in reversed(words):
        value = {word: value}
    result: dict[str, Any] = value
    return result


def line_of(file: Path, path: str) -> int:
    """Return the line of `file` (from 1) that sets the dotted `path`, or that of the table around it; 1 when unknown.

    Enough of TOML to find a key for a message; the values were read by a real parser.
    """
    best, table, counts = 1, "", dict[str, int]()
    for number, line in enumerate(file.read_text(errors="replace").splitlines(), 1):
        text = line.strip()
        if found := re.match(r"\[\[\s*([^\]]+?)\s*\]\]", text):
            name = found[1]
            counts[name] = counts.get(name, -1) + 1
            table = f"{name}[{counts[name]}]"
        elif found := re.match(r"\[\s*([^\[\]]+?)\s*\]", text):
            table = found[1]
        elif found := re.match(r"([A-Za-z0-9_.\"'-]+)\s*=", text):
            key = found[1].replace('"', "").replace("'", "")
            full = f"{table}.{key}" if table else key
            if path == full:
                return number
            if path.startswith((f"{full}.", f"{full}[")):
                best = number
            continue
        if table and (path == table or path.startswith(f"{table}.")):
            best = number if text.startswith("[") else best
    return best
