"""The tables of docs/recipes.md and docs/recipe.schema.json, generated from the model."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from builder.recipe import model
from builder.recipe.convert import hints, key_of, wanted_text
from builder.recipe.schema import schema

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["page", "schema_text"]

#: The tables of the page: heading, class, whether its keys count in the fingerprint.
_TABLES: tuple[tuple[str, type, str], ...] = (
    ("The file itself", model.Recipe, ""),
    ("`[about]`", model.About, "out"),
    ("`[[source]]`", model.Source, "by what it comes to: commit, tree, hashes"),
    ("`[version]`", model.Version, "in"),
    ("`[system]`", model.System, "in, and so is the version of what was found"),
    ("`[build]`", model.Build, "in"),
    ("`[[output]]`", model.Output, "in, for the outputs that are built"),
    ("`[[patch]]`", model.Patch, "the content and order of what applies"),
    ("`[[arch-map]]`", model.ArchRule, "the list that comes out"),
    ("`[resources]`", model.Resources, "out"),
    ("`[[resources.classes]]`", model.MemoryClass, "out"),
    ("`[[check]]`", model.Check, "out; kept with what was found"),
    ("Conditions: `when`", model.Condition, ""),
    ("Conditions on a file: `when.file`", model.FileCondition, ""),
)

#: Keys that count otherwise than their table.
_OTHERWISE: dict[tuple[type, str], str] = {
    (model.Build, "jobs-env"): "out",
    (model.Output, "default"): "out",
    (model.Output, "when"): "out",
    **{(model.Recipe, key): "in" for key in ("name", "version", "system", "build", "output")},
    **{(model.Recipe, key): "out" for key in ("schema", "about", "resources", "check")},
    **{(model.Recipe, key): "by what it comes to" for key in ("source", "patch", "arch-map", "builds-on")},
}

#: Behind this line the page is generated; what stands before it is written by hand.
_MARK = "<!-- What follows is generated from builder/recipe/model.py; run: python -m builder.cli.reference -->\n"


def page(written: str) -> str:
    """Return docs/recipes.md: what is `written` by hand there, and the tables as the model has them now."""
    lines = [written.partition(_MARK)[0] + _MARK]
    for heading, cls, counts in _TABLES:
        lines += [f"## {heading}", "", (cls.__doc__ or "").replace("``", "`"), "", *_table(cls, counts), ""]
    return "\n".join(lines)


def schema_text() -> str:
    """Return docs/recipe.schema.json."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def _table(cls: type, counts: str) -> Iterator[str]:
    judged = bool(counts) or cls is model.Recipe
    yield "| key | type | default | meaning | example |" + (" in the fingerprint |" if judged else "")
    yield "|---|---|---|---|---|" + ("---|" if judged else "")
    for field in dataclasses.fields(cls):
        key = key_of(field.name)
        cells = [
            f"`{key}`",
            wanted_text(hints(cls)[field.name]).replace("|", "\\|"),
            _default(field),
            field.metadata["doc"].replace("``", "`"),
            f"`{field.metadata['example']}`",
        ]
        if judged:
            cells.append(_OTHERWISE.get((cls, key), counts))
        yield "| " + " | ".join(cell.replace("\n", " ") for cell in cells) + " |"


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is dataclasses.MISSING:
        return "none" if field.default_factory is not dataclasses.MISSING else "**required**"
    if field.default is None or field.default in ((), "") or dataclasses.is_dataclass(field.default):
        return "none"
    value = list(field.default) if isinstance(field.default, tuple) else field.default
    return f"`{json.dumps(value)}`"
