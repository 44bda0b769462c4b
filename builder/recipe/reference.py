"""docs/recipe-reference.md and docs/recipe.schema.json, generated from the model."""

from __future__ import annotations

import dataclasses
import inspect
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
    ("`[[about.advice]]`", model.Advice, "out"),
    ("`[[source]]`", model.Source, "by what it comes to: commit, tree, hashes"),
    ("`[version]`", model.Version, "in"),
    ("`[system]`", model.System, "in, and so is the version of what was found"),
    ("`[build]`", model.Build, "in"),
    ("`[[output]]`", model.Output, "in, for the outputs that are built"),
    ("`[[patch]]`", model.Patch, "the content and order of what applies"),
    ("`[[fetch]]`", model.Fetch, "by what it comes to"),
    ("`[[fetch.pin]]`", model.Reading, "by what it comes to"),
    ("`[[fetch.layout]]`", model.Layout, "by what it comes to"),
    ("`[[variant]]`", model.Variant, "what its tables change, where it is in"),
    ("`[[arch-map]]`", model.ArchRule, "the list that comes out"),
    ("`[resources]`", model.Resources, "out"),
    ("`[[resources.classes]]`", model.MemoryClass, "out"),
    ("`[image]`", model.Image, "out"),
    ("`[[image.companions]]`", model.Companion, "out"),
    ("`[[check]]`", model.Check, "out; kept with what was found"),
    ("Conditions: `when`", model.Condition, ""),
    ("Conditions on a file: `when.file`", model.FileCondition, ""),
)

#: Keys that count otherwise than their table.
_OTHERWISE: dict[tuple[type, str], str] = {
    (model.Build, "jobs-env"): "out",
    (model.Output, "default"): "out",
    (model.Output, "when"): "out",
    (model.Output, "pinned-by"): "out",
    **{(cls, "about"): "out" for cls in (model.Patch, model.Fetch, model.Variant)},
    **{(model.Variant, key): "out" for key in ("id", "default")},
    **{(model.Recipe, key): "in" for key in ("name", "version", "system", "build", "output")},
    **{(model.Recipe, key): "out" for key in ("schema", "about", "resources", "image", "check")},
    **{
        (model.Recipe, key): "by what it comes to"
        for key in ("source", "patch", "fetch", "variant", "arch-map", "builds-on")
    },
}

_HEAD = """\
# Recipe reference

<!-- Generated from builder/recipe/model.py. Change it there, then run: python -m builder.cli.reference -->

Every key of a recipe, with an example. [recipes.md](recipes.md) says how recipes are written, laid over each other and
used. [recipe.schema.json](recipe.schema.json) holds the same for editors.
"""

_NAMES = (
    ("`${names}`", "In values of `env`, `config-settings` and `version.value`:", model.INTERPOLATED),
    (
        "`${names}` in `[[fetch]]`",
        "Beside the names that its own `pin` gives. The first five are known everywhere, the others where things are laid.",
        model.FETCH_NAMES,
    ),
)


def page() -> str:
    """Return docs/recipe-reference.md."""
    lines = [_HEAD]
    for heading, cls, counts in _TABLES:
        lines += [f"## {heading}", "", _prose(cls), "", *_table(cls, counts), ""]
    for heading, text, known in _NAMES:
        lines += [f"## {heading}", "", text, "", "| name | what it stands for |", "|---|---|"]
        lines += [*(f"| `${{{name}}}` | {meaning} |" for name, meaning in known.items()), ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def schema_text() -> str:
    """Return docs/recipe.schema.json."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def _prose(cls: type) -> str:
    return inspect.cleandoc(cls.__doc__ or "").replace("``", "`")


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
