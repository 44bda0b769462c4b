"""The page of traps names only what exists: keys, checks, patches, findings, failures, tests."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from builder.executor import failures
from builder.recipe import find, load

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "traps.md").read_text(encoding="utf-8")
FINDINGS = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")  # made from the rules
ROWS = re.findall(r"^\| (.+?) \| (.+) \|$", PAGE, re.MULTILINE)
TRAPS = [row for row in ROWS if row[0] not in {"trap", "---"}]

SHIPPED = {name: load.load(name, (find.Folder(layer="shipped", recipes=ROOT / "recipes", patches=ROOT / "patches"),)).recipe
           for name in ("triton", "flashinfer", "vllm")}  # fmt: skip


def keys() -> frozenset[str]:
    """Return every key of the recipe format, dotted."""
    schema = json.loads((ROOT / "docs" / "recipe.schema.json").read_text(encoding="utf-8"))

    def resolved(table: dict[str, Any]) -> dict[str, Any]:
        table = table.get("items", table)
        return schema["$defs"][table["$ref"].rsplit("/", 1)[1]] if "/" in table.get("$ref", "") else table

    def below(table: dict[str, Any], path: str) -> Iterator[str]:
        for name, inner in resolved(table).get("properties", {}).items():
            yield (dotted := f"{path}.{name}".strip("."))
            if dotted.count(".") < 2:  # no key lies deeper than that here
                yield from below(inner, dotted)

    return frozenset(below(schema, ""))


KEYS = keys()


def exists(name: str) -> bool:
    kind, _blank, what = name.partition(" ")
    if kind == "key":
        return what in KEYS
    if kind == "failure":
        return what in {one.id for one in failures.load()}
    if kind == "finding":
        return f"\n| `{what}` | " in FINDINGS
    if kind in {"check", "patch"}:
        recipe, _slash, wanted = what.partition("/")
        return wanted in {one.id for one in getattr(SHIPPED[recipe], kind)}
    if re.fullmatch(r"tests/\w+\.py|recipes/(\w+\.toml|seeds/)", name):
        return (ROOT / name).exists()
    return any(name in (ROOT / "recipes" / f"{recipe}.toml").read_text(encoding="utf-8") for recipe in SHIPPED)


@pytest.mark.parametrize(("trap", "handled"), TRAPS, ids=[row[0][:50] for row in TRAPS])
def test_what_handles_a_trap_exists(trap: str, handled: str) -> None:
    names = [name for name in re.findall(r"`([^`]+)`", handled) if not name.startswith("spark-build ")]
    assert names or "nothing: " in handled, trap
    assert [name for name in names if not exists(name)] == []


@pytest.mark.parametrize("recipe", SHIPPED)
def test_a_key_that_handles_a_trap_of_a_project_is_in_its_recipe(recipe: str) -> None:
    section = re.split(r"^## ", PAGE, flags=re.MULTILINE)[2 + list(SHIPPED).index(recipe)]
    assert section.lower().startswith(recipe)
    text = (ROOT / "recipes" / f"{recipe}.toml").read_text(encoding="utf-8")
    said = frozenset(used(tomllib.loads(text)))
    named = re.findall(r"`key ([^`]+)`", section)
    assert named
    assert [name for name in named if name not in said and f"${{{name.rsplit('.', 1)[-1]}}}" not in text] == []


def used(table: dict[str, Any], path: str = "") -> Iterator[str]:
    """Yield every key of a recipe, dotted; those that a variant brings, too."""
    for name, value in table.items():
        yield (dotted := f"{path}.{name}".strip("."))
        inside = "" if dotted == "variant.recipe" else dotted
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, dict):
                yield from used(one, inside)


def test_no_trap_stands_there_twice() -> None:
    assert len({trap for trap, _handled in TRAPS}) == len(TRAPS) > 75  # those that were found


def test_what_doesnt_exist_would_be_told() -> None:
    assert not any(
        map(exists, ("key nothing.such", "failure none", "finding none", "tests/test_none.py", "check triton/x"))
    )
