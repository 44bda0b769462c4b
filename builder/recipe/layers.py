"""Laying recipe files over each other, and remembering which place set which key.

Tables merge key by key. Arrays of tables merge entry by entry where entries have a name, and grow otherwise, so that a
layer can change or add one thing without repeating the rest. An empty array empties; all other arrays are replaced.
"""

from __future__ import annotations

import contextlib
import tomllib
from typing import TYPE_CHECKING, Any, TypeGuard

from builder.values import dataclass, field, replace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

__all__ = ["NAMED", "UNVARIED", "Layer", "Origin", "assign", "merge", "merge_variant", "nearest", "origin_of"]

#: Arrays of tables whose entries are one thing under one name: a later layer changes the entry instead of adding one.
NAMED = {"output": "name", "patch": "id", "source": "kind", "check": "id", "fetch": "id", "variant": "id"}

#: Arrays of tables without names: a later layer's entries come behind, and the last that matches counts. So do layouts.
_GROWING = frozenset({"arch-map", "resources.classes", "image.companions"})

#: Keys of a recipe that no variant can change: the loader tells it where one says so.
UNVARIED = ("schema", "name", "variant")

#: A source that is changed in one of these is another one: the digest that an earlier layer gave isn't its digest.
_OTHER_SOURCE = frozenset({"version", "project", "url"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One set of values to lay over the others.

    `word` names it (``shipped``, ``site``, ``user``, ``stack``, ``command line``). `prefix` is the dotted place of `values`
    in `file`: a stack file holds them under ``recipe.<name>``. `patches` is the folder of this layer's patch files.
    """

    word: str
    values: Mapping[str, Any]
    file: Path | None = None
    text: str = ""
    prefix: str = ""
    patches: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Which layer set a key, and under which path in it: the layer counts its own array entries.

    `variant` is the one in whose tables that layer says so.
    """

    layer: Layer
    path: str
    variant: str = ""

    @property
    def place(self) -> str:
        """The file with the line, or the layer's word where it has no file."""
        return self.layer.word if self.layer.file is None else f"{self.layer.file}:{self.line() or 1}"

    def line(self) -> int | None:
        """Return the line in the layer's file that set the key, or that of the nearest table around it."""
        from builder.recipe.lines import lines  # noqa: PLC0415  # only messages and `recipes show` ask

        found = lines(self.layer.text)
        return found.get(nearest(f"{self.layer.prefix}.{self.path}".strip("."), found))

    def __str__(self) -> str:
        return f"{self.place} (variant {self.variant})" if self.variant else self.place


def nearest(path: str, known: Mapping[str, object]) -> str:
    """Return the longest part of the dotted `path` that is `known`, else an empty text."""
    while path and path not in known:
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    return path


def origin_of(path: str, origins: Mapping[str, Origin]) -> Origin | None:
    """Return where the dotted `path` was set: what stands in an array that came as a whole is found there, too."""
    known = nearest(path, origins)
    if not known:
        return None
    found = origins[known]
    return replace(found, path=found.path + path.removeprefix(known))


def merge(base: Mapping[str, Any], layer: Layer, origins: dict[str, Origin]) -> dict[str, Any]:
    """Return `base` with `layer` laid on it; `origins` gets the origin of each key that the layer sets."""
    return _Merge(layer=layer, origins=origins).tables(dict(base), layer.values, "", "")


def merge_variant(base: Mapping[str, Any], number: int, origins: dict[str, Origin]) -> dict[str, Any]:
    """Return `base` with its own ``variant[number].recipe`` laid on it; `origins` gets the places that said so."""
    variant = base["variant"][number]
    mine: dict[str, Origin] = {}
    values = {key: value for key, value in variant["recipe"].items() if key not in UNVARIED}
    result = merge(base, Layer(word=f"variant {variant['id']}", values=values), mine)
    for path, origin in mine.items():
        if path.endswith("]") and path in origins:  # an entry that was there is still the other layer's
            continue
        said = origin_of(f"variant[{number}].recipe.{origin.path}", origins)
        origins[path] = replace(said, variant=variant["id"]) if said else origin
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class _Merge:
    """One layer on its way in. `path` is where a key ends up, `local` where it stands in its own layer."""

    layer: Layer
    origins: dict[str, Origin] = field(default_factory=dict)

    def tables(self, base: dict[str, Any], over: Mapping[str, Any], path: str, local: str) -> dict[str, Any]:
        result = dict(base)
        for key, value in over.items():
            where, mine = (f"{path}.{key}", f"{local}.{key}") if path else (key, key)
            old = result.get(key)
            self.origins[where] = Origin(layer=self.layer, path=mine)
            if isinstance(value, dict):
                result[key] = self.tables(old if isinstance(old, dict) else {}, value, where, mine)
            elif (where in NAMED or _grows(where)) and value and _are_tables(value):
                result[key] = self.entries(list(old) if _are_tables(old) else [], value, where, mine)
            else:
                result[key] = value
        return result

    def entries(
        self, result: list[dict[str, Any]], new: list[dict[str, Any]], path: str, local: str
    ) -> list[dict[str, Any]]:
        """Entries of one layer never merge with each other: a name twice in one file stays twice, and is a mistake."""
        key = NAMED.get(path)
        places = {item.get(key or ""): number for number, item in enumerate(result) if _named(item, key)}
        for count, item in enumerate(new):
            number = places.pop(item.get(key or ""), None) if _named(item, key) else None
            if number is None:
                number = len(result)
                result.append({})
            old = result[number]
            if (
                path == "source"
                and "sha256" not in item
                and any(item.get(k, old.get(k)) != old.get(k) for k in _OTHER_SOURCE)
            ):
                old = {k: value for k, value in old.items() if k != "sha256"}
            where, mine = f"{path}[{number}]", f"{local}[{count}]"
            self.origins.setdefault(where, Origin(layer=self.layer, path=mine))
            result[number] = self.tables(old, item, where, mine)
        return result


def _grows(path: str) -> bool:
    return path in _GROWING or (path.startswith("fetch[") and path.endswith("].layout"))


def _named(item: Mapping[str, Any], key: str | None) -> bool:
    return key is not None and isinstance(item.get(key), str)


def _are_tables(value: object) -> TypeGuard[list[dict[str, Any]]]:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def assign(key: str, text: str, mistakes: Callable[[Mapping[str, Any]], int]) -> Layer:
    """Return the layer that ``--set key=text`` is: the value is TOML where that is what the key takes, else the text.

    ``output.NAME.key``, ``source.KIND.key`` and ``fetch.ID.key`` (so for patch, check and variant) reach into the entry of
    that name; a word with dots in it is quoted. `mistakes` counts what is wrong in a table: ``build.env.X=1`` means the
    text "1".
    """
    words = _words(key)
    named = len(words) > 2 and words[0] in NAMED  # noqa: PLR2004  # table.name.key

    def placed(value: Any) -> dict[str, Any]:  # noqa: ANN401  # any TOML value
        for word in reversed(words[2:] if named else words):
            value = {word: value}
        return {words[0]: [{NAMED[words[0]]: words[1], **value}]} if named else value

    choices = [placed(text)]
    with contextlib.suppress(tomllib.TOMLDecodeError):
        choices.insert(0, placed(tomllib.loads(f"value = {text}")["value"]))
    return Layer(word="command line", values=min(choices, key=mistakes))


def _words(key: str) -> list[str]:
    """Return the words of a dotted key as TOML reads them."""
    try:
        table: Any = tomllib.loads(f"{key} = 0")
    except tomllib.TOMLDecodeError:
        return key.split(".")
    words = []
    while isinstance(table, dict):
        ((word, table),) = table.items()
        words.append(word)
    return words
