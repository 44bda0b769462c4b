"""The JSON schema of a recipe file (draft 2020-12), generated from the model, for editors and for whoever writes recipes.

It holds for a whole recipe and for a layer that changes a few keys of one: a file that says ``schema`` has to be whole,
and an entry of a named array needs its name only. Keys, types and words are in it; what a text may hold is the loader's
matter.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import inspect
import types
import typing
from typing import TYPE_CHECKING, Any, Literal

from builder.recipe.convert import hints, key_of
from builder.recipe.layers import NAMED
from builder.recipe.model import OUTSIDE, Recipe

if TYPE_CHECKING:
    from builder.digest import Json

__all__ = ["schema"]

#: Classes of entries that have a name in every layer; checks may have none.
_NAMED = {"Output": "output", "Patch": "patch", "Source": "source", "Fetch": "fetch", "Variant": "variant"}


def schema() -> dict[str, Json]:
    """Return the schema as JSON; the same for the same model."""
    definitions: dict[str, Json] = {}
    top = _table(Recipe, definitions)
    whole = typing.cast("list[Json]", top.pop("required"))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A spark-build recipe",
        **top,
        "dependentRequired": {"schema": list(whole)},
        "$defs": dict(sorted(definitions.items())),
    }


def _table(cls: type, definitions: dict[str, Json]) -> dict[str, Json]:
    properties: dict[str, Json] = {}
    required = []
    for field in dataclasses.fields(cls):
        key = key_of(field.name)
        properties[key] = _field(cls, field, definitions)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            required.append(key)
    table: dict[str, Json] = {
        "type": "object",
        "description": inspect.cleandoc(cls.__doc__ or "").replace("``", "`"),
        "properties": properties,
        "additionalProperties": False,
    }
    # A layer's entry of a named array may hold only its name and what it changes.
    named = _NAMED.get(cls.__name__)
    if named is not None:
        required = [NAMED[named]]
    if required:
        table["required"] = list(required)
    return table


def _field(cls: type, field: dataclasses.Field[Any], definitions: dict[str, Json]) -> dict[str, Json]:
    key = key_of(field.name)
    value = _value(hints(cls)[field.name], definitions)
    text = field.metadata["doc"].replace("``", "`")
    if cls is Recipe and key in OUTSIDE:
        text += " (outside the fingerprint)"
    value["description"] = text
    if isinstance(field.default, str | int | bool):
        value["default"] = field.default
    elif isinstance(field.default, tuple) and field.default:
        value["default"] = list(field.default)
    return value


def _value(  # noqa: PLR0911  # one way out a kind of annotation
    wanted: Any,  # noqa: ANN401  # any annotation
    definitions: dict[str, Json],
) -> dict[str, Json]:
    origin, args = typing.get_origin(wanted), typing.get_args(wanted)
    if dataclasses.is_dataclass(wanted):
        cls = typing.cast("type", wanted)
        if cls.__name__ not in definitions:
            definitions[cls.__name__] = {}  # holds the place of a class that is met again inside
            definitions[cls.__name__] = _table(cls, definitions)
        return {"$ref": f"#/$defs/{cls.__name__}"}
    if origin is Literal:
        return {"enum": list(args)}
    if origin in {typing.Union, types.UnionType}:
        choices = [_value(choice, definitions) for choice in args if choice is not type(None)]
        return choices[0] if len(choices) == 1 else {"anyOf": list[Any](choices)}
    if origin is tuple:
        return {"type": "array", "items": _value(args[0], definitions)}
    if origin is collections.abc.Mapping and args[1] is Any:  # a variant's tables are those of a recipe
        return {"$ref": "#"}
    if origin is collections.abc.Mapping:
        return {"type": "object", "additionalProperties": _value(args[1], definitions)}
    return {"type": {str: "string", int: "integer", bool: "boolean"}[wanted]}
