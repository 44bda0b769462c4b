"""The JSON schema says what the loader says."""

from __future__ import annotations

import dataclasses
import re
import tomllib
import typing
from typing import TYPE_CHECKING, Any

import fastjsonschema
import jsonschema
import pytest

from builder.errors import RecipeError
from builder.recipe import model
from builder.recipe.convert import convert, key_of
from builder.recipe.load import load
from builder.recipe.reference import page
from builder.recipe.schema import schema
from builder.recipe.skeleton import skeleton, source_of
from tests.recipe_kit import GOOD, SHIPPED, Layers

if TYPE_CHECKING:
    from pathlib import Path

#: The classes that TOML tables become.
TABLES = [
    getattr(model, name)
    for name in model.__all__
    if isinstance(getattr(model, name), type) and dataclasses.is_dataclass(getattr(model, name))
]

WRONG = {
    "unknown key": GOOD + "[resources]\nmax-job = 1\n",
    "unknown table": GOOD + "[bulid]\n",
    "wrong type": GOOD + "[resources]\njobs = '4'\n",
    "true is no number": GOOD + "[resources]\njobs = true\n",
    "unknown word": GOOD + "[build]\nhook = 'bazel'\n",
    "no kind": GOOD + "[[source]]\nurl = 'x'\n",
    "no name of an output": GOOD + "[[output]]\npath = 'x'\n",
    "nothing to build": 'schema = 1\nname = "demo"\n[[output]]\nname = "demo"\n',
    "another schema": GOOD.replace("schema = 1", "schema = 2"),
    "not a text": GOOD + "[build.env]\nX = 1\n",
    "not an array": GOOD + "[build]\nrequires-add = 'wheel'\n",
}


def good_for_schema(raw: dict[str, Any]) -> bool:
    made = schema()
    errors = list(jsonschema.Draft202012Validator(made).iter_errors(raw))
    return not errors


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("file", sorted(SHIPPED.glob("*.toml")), ids=lambda file: file.stem)
def test_shipped_recipes_hold(file: Path) -> None:
    raw = tomllib.loads(file.read_text())
    jsonschema.Draft202012Validator(schema()).validate(raw)
    fastjsonschema.compile(schema())(raw)


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_recipes_are_refused_by_schema_and_loader(kind: str, tmp_path: Path) -> None:
    layers = Layers(tmp_path)
    layers.write(GOOD)
    assert good_for_schema(tomllib.loads(GOOD))
    assert layers.load().recipe.name == "demo"
    layers.write(WRONG[kind])
    assert not good_for_schema(tomllib.loads(WRONG[kind]))
    with pytest.raises(RecipeError, match="in recipes"):
        layers.load()


def test_a_layer_that_changes_one_key_holds() -> None:
    assert good_for_schema(tomllib.loads("[resources]\njobs = 4\n[[output]]\nname = 'demo'\npath = 'x'\n"))


@pytest.mark.parametrize("source", [None, "https://example.org/d.git", "https://example.org/d-1.tar.gz", "d==1.0"])
def test_the_skeleton_loads_and_holds(source: str | None, tmp_path: Path) -> None:
    layers = Layers(tmp_path)
    text = skeleton("demo", source_of(source, "demo"))
    layers.write(text)
    assert layers.load().recipe.name == "demo"
    assert good_for_schema(tomllib.loads(text))


def test_every_key_is_documented_with_an_example_that_holds() -> None:
    for cls in TABLES:
        for field in dataclasses.fields(cls):
            key, example = key_of(field.name), field.metadata["example"]
            assert field.metadata["doc"], (cls, key)
            assert example, (cls, key)
            if cls is model.Recipe and example.startswith("["):
                assert example.strip("[]") == key
                continue
            raw = tomllib.loads(example)
            assert list(raw) == [key], (cls, key)
            mistakes: list[Any] = []
            convert(cls, raw, "", mistakes)
            assert not [one for one in mistakes if "is missing" not in one.text], (cls, key, mistakes)


def test_every_key_is_in_the_page_with_its_example() -> None:
    text = page()
    for cls in TABLES:
        for field in dataclasses.fields(cls):
            key, example = key_of(field.name), field.metadata["example"]
            assert re.search(rf"^\| `{key}` \|.*\| `{re.escape(example)}` \|", text, re.MULTILINE), (cls, key)


def test_every_class_of_the_model_is_in_the_schema() -> None:
    names = {cls.__name__ for cls in TABLES} - {"Recipe"}
    assert names == set(typing.cast("dict[str, object]", schema()["$defs"]))


def test_every_interpolated_name_is_explained() -> None:
    text = (SHIPPED.parent / "docs" / "recipe-reference.md").read_text()
    wanted = {f"| `${{{name}}}` |" for name in (*model.INTERPOLATED, *model.FETCH_NAMES)}
    assert wanted == set(re.findall(r"^\| `\$\{\w+\}` \|", text, re.MULTILINE))


def test_a_recipe_of_every_example_loads(tmp_path: Path) -> None:
    layers = Layers(tmp_path)
    text = GOOD
    for title, cls in (("about", model.About), ("system", model.System), ("resources", model.Resources)):
        text += f"[{title}]\n" + "".join(f"{field.metadata['example']}\n" for field in dataclasses.fields(cls))
    layers.write(text)
    assert load("demo", layers.folders).recipe.system.rust == ">=1.95"
