"""Our dataclasses do what the standard library's do, for everybody who asks them."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import typing
from typing import Any, ClassVar

import pytest

from builder import values
from builder.recipe.model import Recipe, Source, System
from builder.stages import Pin, Request, Tool


@values.dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    kind: ClassVar[str] = "base"
    first: int


@values.dataclass(frozen=True, slots=True, kw_only=True)
class Child(Base):
    kind: ClassVar[str] = "child"
    second: str = "two"
    third: dict[str, int] = values.field(default_factory=dict, metadata={"doc": "a table"})

    @property
    def doubled(self) -> int:
        return self.first * 2


def library(cls: type) -> type:
    """The same fields as the standard library would make of them."""
    fields: list[Any] = []
    for one in dataclasses.fields(cls):
        again: Any = dataclasses.field(default=one.default, default_factory=one.default_factory, metadata=one.metadata)  # type: ignore[call-overload,unused-ignore]
        fields.append((one.name, one.type, again))
    return dataclasses.make_dataclass(cls.__name__, fields, frozen=True, slots=True, kw_only=True)


def test_values_come_from_keywords_and_defaults() -> None:
    one = Child(first=3)
    assert (one.first, one.second, one.third, one.kind, one.doubled) == (3, "two", {}, "child", 6)
    assert Child(first=3).third is not one.third
    assert typing.get_type_hints(Child)["third"] == dict[str, int]


@pytest.mark.parametrize(
    ("positional", "named", "told"),
    [((), {}, "first"), ((), {"first": 1, "fourth": 4}, "fourth"), ((1,), {}, "positional")],
)
def test_wrong_arguments_are_type_errors(positional: tuple[int, ...], named: dict[str, int], told: str) -> None:
    cls: Any = Child
    with pytest.raises(TypeError, match=told):
        cls(*positional, **named)


def test_nothing_can_be_changed_or_added() -> None:
    one: Any = Child(first=3)
    for name in ("first", "new"):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(one, name, 4)
    with pytest.raises(dataclasses.FrozenInstanceError):
        del one.first
    assert not hasattr(one, "__dict__")


def test_equal_are_those_of_one_class_with_equal_values() -> None:
    assert Child(first=1) == Child(first=1)
    assert Child(first=1) != Child(first=2)
    assert Base(first=1) != Child(first=1)
    assert len({Base(first=1), Base(first=1), Base(first=2)}) == 2


def test_copies_and_pickles_are_equal() -> None:
    one = Child(first=1, third={"a": 1})
    assert copy.deepcopy(one) == one
    assert pickle.loads(pickle.dumps(one)) == one  # noqa: S301  # ours


def test_the_library_takes_them_for_its_own() -> None:
    one = Child(first=1)
    assert dataclasses.is_dataclass(one)
    assert dataclasses.is_dataclass(Child)
    assert [field.name for field in dataclasses.fields(Child)] == ["first", "second", "third"]
    assert [field.name for field in dataclasses.fields(Base)] == ["first"]
    assert dataclasses.fields(Child)[2].metadata["doc"] == "a table"
    assert dataclasses.fields(Child)[0].default is dataclasses.MISSING
    assert (
        dataclasses.replace(one, second="zwei") == values.replace(one, second="zwei") == Child(first=1, second="zwei")
    )
    assert dataclasses.asdict(one) == {"first": 1, "second": "two", "third": {}}


@pytest.mark.parametrize("cls", [Recipe, Source, System, Pin, Request, Tool])
def test_classes_of_the_program_look_like_the_library_s(cls: type) -> None:
    twin, given = library(cls), {field.name: f"<{field.name}>" for field in dataclasses.fields(cls)}
    assert repr(cls(**given)) == repr(twin(**given))
    required = [name for name in given if not is_optional(cls, name)]
    ours, theirs = (made(**dict.fromkeys(required, 1)) for made in (cls, twin))
    assert [getattr(ours, name) for name in given] == [getattr(theirs, name) for name in given]


def is_optional(cls: type, name: str) -> bool:
    one = next(field for field in dataclasses.fields(cls) if field.name == name)
    return one.default is not dataclasses.MISSING or one.default_factory is not dataclasses.MISSING
