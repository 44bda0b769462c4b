"""From TOML values to the model's types, collecting every mistake on the way."""

from __future__ import annotations

import collections.abc
import functools
import types
import typing
from pathlib import Path
from typing import Any, Literal, TypeVar

from builder.values import MISSING, dataclass, fields, is_dataclass

if typing.TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Mistake", "convert", "hints", "key_of", "shown", "wanted_text"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """Something that the model doesn't allow: where (dotted path), and what was found and wanted, in one sentence."""

    path: str
    text: str


def key_of(field: str) -> str:
    """Return the key in TOML for a field's name."""
    return field.replace("_", "-")


@functools.cache
def hints(cls: type) -> dict[str, Any]:
    """Return the resolved annotations of a model class; once a class, since resolving costs more than reading a recipe."""
    return typing.get_type_hints(cls, localns={"Mapping": collections.abc.Mapping, "Path": Path})


@functools.cache
def _fields(cls: type) -> dict[str, tuple[str, Any, bool]]:
    """Return key -> (field, type, required)."""
    known = hints(cls)
    return {
        key_of(field.name): (
            field.name,
            known[field.name],
            field.default is MISSING and field.default_factory is MISSING,
        )
        for field in fields(cls)
    }


def convert(cls: type[T], raw: Mapping[str, Any], path: str, mistakes: list[Mistake]) -> T:
    """Return `raw` as `cls`; `mistakes` gets all that is wrong.

    With mistakes, what comes back only serves to look for more of them: wrong and missing values are None in it.
    """
    known = _fields(typing.cast("type", cls))
    values: dict[str, Any] = {}
    for key, value in raw.items():
        where = f"{path}.{key}" if path else key
        if key not in known:
            mistakes.append(Mistake(path=where, text=f"unknown key `{key}`{_near(key, known)}"))
            continue
        name, wanted, _required = known[key]
        values[name] = _value(wanted, value, where, mistakes)
    for key, (name, wanted, required) in known.items():
        if required and name not in values:
            where = f"{path}.{key}" if path else key
            mistakes.append(Mistake(path=where, text=f"`{key}` is missing, wanted {wanted_text(wanted)}"))
            values[name] = () if typing.get_origin(wanted) is tuple else None
    return cls(**values)


def _near(key: str, known: Mapping[str, object]) -> str:
    """Return what to say after an unknown key: the key that was meant."""
    import difflib  # noqa: PLC0415  # only for messages

    plain = key.replace("_", "-").lower()
    if close := difflib.get_close_matches(plain, known, 1):
        return f", did you mean `{close[0]}`?"
    return f"; known: {', '.join(known)}"


def _value(  # noqa: PLR0911  # one way out a kind of annotation
    wanted: Any,  # noqa: ANN401  # TOML holds anything
    value: Any,  # noqa: ANN401
    path: str,
    mistakes: list[Mistake],
) -> Any:  # noqa: ANN401
    """Return `value` as the annotation `wanted` asks for."""
    if wanted is Any:
        return value
    if is_dataclass(wanted):
        if isinstance(value, dict):
            return convert(typing.cast("type[Any]", wanted), value, path, mistakes)
        return _wrong(wanted, value, path, mistakes)
    origin = typing.get_origin(wanted)
    if origin in {typing.Union, types.UnionType}:
        return _union(wanted, value, path, mistakes)
    if origin is tuple:
        if not isinstance(value, list):
            return _wrong(wanted, value, path, mistakes)
        item = typing.get_args(wanted)[0]
        return tuple(_value(item, one, f"{path}[{number}]", mistakes) for number, one in enumerate(value))
    if origin is collections.abc.Mapping:
        if not isinstance(value, dict):
            return _wrong(wanted, value, path, mistakes)
        item = typing.get_args(wanted)[1]
        return {key: _value(item, one, f"{path}.{key}", mistakes) for key, one in value.items()}
    if _fits(wanted, value):
        return value
    return _wrong(wanted, value, path, mistakes)


def _union(wanted: Any, value: Any, path: str, mistakes: list[Mistake]) -> Any:  # noqa: ANN401
    choices = [choice for choice in typing.get_args(wanted) if choice is not type(None)]
    for choice in choices:
        trial: list[Mistake] = []
        found = _value(choice, value, path, trial)
        if not trial:
            return found
        if len(choices) == 1:
            mistakes.extend(trial)
            return None
    return _wrong(wanted, value, path, mistakes)


def _fits(wanted: Any, value: Any) -> bool:  # noqa: ANN401
    if typing.get_origin(wanted) is Literal:
        return any(type(value) is type(choice) and value == choice for choice in typing.get_args(wanted))
    if wanted is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(wanted, type) and isinstance(value, wanted)


def _wrong(wanted: Any, value: Any, path: str, mistakes: list[Mistake]) -> None:  # noqa: ANN401
    mistakes.append(Mistake(path=path, text=f"is {shown(value)}, wanted {wanted_text(wanted)}"))


def shown(value: object) -> str:
    """Return a value as TOML writes it, cut to fit a line."""
    if isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, str):
        text = f'"{value}"'
    elif isinstance(value, dict):
        text = "a table"
    else:
        text = str(value) if not isinstance(value, list) else repr(value)
    return text if len(text) < 60 else text[:57] + "…"  # noqa: PLR2004  # fits a line


def wanted_text(wanted: Any) -> str:  # noqa: ANN401
    """Return a type in words."""
    if is_dataclass(wanted):
        return "a table"
    origin, args = typing.get_origin(wanted), typing.get_args(wanted)
    if origin is Literal:
        return " or ".join(f"`{choice}`" for choice in args)
    if origin in {typing.Union, types.UnionType}:
        return " or ".join(wanted_text(choice) for choice in args if choice is not type(None))
    if origin is tuple:
        item = wanted_text(args[0])
        words = typing.get_origin(args[0]) is Literal
        return f"an array of {item}" if words else f"an array of {item.removeprefix('a ')}s"
    if origin is collections.abc.Mapping:
        return "a table"
    return {str: "a string", int: "an integer", bool: "true or false"}.get(wanted, str(wanted))
