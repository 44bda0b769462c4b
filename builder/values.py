"""Frozen dataclasses that cost little to declare.

The standard library writes and compiles six functions for each dataclass, and imports ``inspect`` to do so. A hit imports
some sixty of them, and spent a quarter of its time on that. Here all classes share their methods. For everybody else they
are dataclasses: type checkers are shown the standard library's decorator, and its `fields`, `replace`, `asdict` and
`is_dataclass` work on them.

Only the one kind that this program uses is made: ``@dataclass(frozen=True, slots=True, kw_only=True)``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace

__all__ = ["MISSING", "dataclass", "field", "fields", "is_dataclass", "replace"]

_UNWANTED = frozenset({"__dict__", "__weakref__"})


class _Missing:
    """Stands where no default was given."""


_MISSING = _Missing()


class _Field:
    """A field: name, annotation as written, default and factory of one (else `_MISSING`), metadata, and how it is set."""

    __slots__ = ("default", "default_factory", "metadata", "name", "put", "type")

    def __init__(
        self,
        *,
        default: object = _MISSING,
        default_factory: object = _MISSING,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = self.type = ""
        self.default = default
        self.default_factory: Any = default_factory
        self.metadata = metadata or {}
        self.put: Callable[[object, object], None]


class _LibraryFields:
    """What the functions of `dataclasses` look for; made when the first of them looks."""

    def __get__(self, _instance: object, cls: Any) -> Mapping[str, object]:  # noqa: ANN401  # a class made below
        library = _library()

        def known(value: object) -> object:
            return library.MISSING if value is _MISSING else value

        def twin(one: _Field) -> object:
            return library.field(
                default=known(one.default), default_factory=known(one.default_factory), metadata=one.metadata
            )

        made = library.make_dataclass(
            cls.__name__, [(one.name, one.type, twin(one)) for one in cls.__values__], kw_only=True
        )
        cls.__dataclass_fields__ = made.__dataclass_fields__
        found: Mapping[str, object] = made.__dataclass_fields__
        return found


def _dataclass(*, frozen: bool, slots: bool, kw_only: bool) -> Callable[[type], type]:
    """Return the decorator; all three have to be True."""
    if not (frozen and slots and kw_only):
        raise TypeError("this dataclass is frozen, has slots and takes keywords only")
    return _made


def _fields(cls: Any) -> tuple[_Field, ...]:  # noqa: ANN401  # a class or an instance
    """Return the fields of a class or of one of its instances, those of its bases first."""
    found: tuple[_Field, ...] = cls.__values__
    return found


def _is_dataclass(cls: object) -> bool:
    """Whether `cls` is such a class, or an instance of one."""
    return hasattr(cls, "__values__")


def _replace(value: Any, /, **changes: object) -> object:  # noqa: ANN401  # an instance of any of them
    """Return a copy of `value` with other values in the fields that are named."""
    for one in value.__values__:
        if one.name not in changes:
            changes[one.name] = getattr(value, one.name)
    return type(value)(**changes)


def _made(cls: Any) -> type:  # noqa: ANN401
    """Return `cls` again with slots and the shared methods; what it defines itself stays."""
    inherited: tuple[_Field, ...] = getattr(cls, "__values__", ())
    own = dict(_own(cls))
    together = {one.name: one for one in inherited} | own
    kept = {name: value for name, value in vars(cls).items() if name not in own and name not in _UNWANTED}
    kept["__slots__"] = tuple(name for name in own if all(name != one.name for one in inherited))
    kept["__values__"] = tuple(together.values())
    kept["__dataclass_fields__"] = _LIBRARY_FIELDS
    for name, method in _METHODS.items():
        kept.setdefault(name, method)
    made: type = type(cls)(cls.__name__, cls.__bases__, kept)
    made.__qualname__ = cls.__qualname__
    for name, one in own.items():
        one.put = getattr(made, name).__set__
    return made


def _own(cls: type) -> Iterator[tuple[str, _Field]]:
    for name, annotation in vars(cls).get("__annotations__", {}).items():
        if annotation.startswith("ClassVar"):
            continue
        given = vars(cls).get(name, _MISSING)
        one = given if isinstance(given, _Field) else _Field(default=given)
        one.name, one.type = name, annotation
        yield name, one


def _init(self: Any, /, **given: object) -> None:  # noqa: ANN401
    for one in self.__values__:
        if one.name in given:
            one.put(self, given.pop(one.name))
        elif one.default is not _MISSING:
            one.put(self, one.default)
        elif one.default_factory is not _MISSING:
            one.put(self, one.default_factory())
        else:
            msg = f"{type(self).__qualname__}() misses the keyword argument {one.name!r}"
            raise TypeError(msg)
    if given:
        msg = f"{type(self).__qualname__}() got an unexpected keyword argument {next(iter(given))!r}"
        raise TypeError(msg)


def _values(self: Any) -> tuple[object, ...]:  # noqa: ANN401
    return tuple([getattr(self, one.name) for one in self.__values__])


def _eq(self: object, other: object) -> bool:
    return _values(self) == _values(other) if type(self) is type(other) else NotImplemented


def _hash(self: object) -> int:
    return hash(_values(self))


def _repr(self: Any) -> str:  # noqa: ANN401
    inside = ", ".join(f"{one.name}={getattr(self, one.name)!r}" for one in self.__values__)
    return f"{type(self).__qualname__}({inside})"


def _refuse(_self: object, name: str, *_value: object) -> None:
    raise _library().FrozenInstanceError(f"cannot change field {name!r}")


def _restore(self: Any, state: tuple[object, ...]) -> None:  # noqa: ANN401
    for one, value in zip(self.__values__, state, strict=True):
        one.put(self, value)


def _library() -> Any:  # noqa: ANN401  # a module
    import dataclasses  # noqa: PLC0415  # what this module is there to spare

    return dataclasses


_LIBRARY_FIELDS = _LibraryFields()
_METHODS: dict[str, Any] = {
    "__init__": _init,
    "__eq__": _eq,
    "__hash__": _hash,
    "__repr__": _repr,
    "__setattr__": _refuse,
    "__delattr__": _refuse,
    "__getstate__": _values,
    "__setstate__": _restore,
}

if not TYPE_CHECKING:
    MISSING = _MISSING
    dataclass, field, fields, is_dataclass, replace = _dataclass, _Field, _fields, _is_dataclass, _replace
