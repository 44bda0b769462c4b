"""docs/recipes.md and docs/recipe.schema.json, generated from the model."""

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

_INTRODUCTION = """\
# Recipes

<!-- Generated from builder/recipe/model.py. Change it there, then run: python -m builder.cli.reference -->

A recipe is one TOML file that says how one project is fetched, patched, built and checked. It holds data only: there is no
code in it and no templating. Start one with `spark-build recipes new NAME`, see them with `spark-build recipes list`, check
them with `spark-build recipes lint`. For an editor that knows JSON schemas, [recipe.schema.json](recipe.schema.json) says
the same as this page.

The smallest useful recipe:

```toml
schema = 1
name = "example"

[[source]]
kind = "sdist"
project = "example"
version = "1.0"

[[output]]
name = "example"
```

## Strict

An unknown key is an error, and so is a wrong type, a size without meaning, a range that is none, a patch file that isn't
there or isn't the one whose digest is given. All mistakes of all recipes come in one report, each with file, line, key, what
was found and what was wanted.

## Layers

The same recipe may be said in several places. Later ones are laid over earlier ones, key by key:

1. the recipe that comes with spark-build (in a source checkout: `recipes/`)
2. the site's: `/etc/spark-build/recipes/NAME.toml`
3. yours: `~/.config/spark-build/recipes/NAME.toml`
4. a stack file's table `[recipe.NAME]`
5. the command line: `--set key=value`, `--env K=V`

So a layer's file holds only what it changes, and leaves `schema` out:

```toml
# ~/.config/spark-build/recipes/flashinfer.toml
[resources]
jobs = 4

[build.env]
FLASHINFER_EXTRA_CUDAFLAGS = "-lineinfo"
```

- Tables merge key by key.
- `[[output]]`, `[[patch]]`, `[[source]]` and `[[check]]` merge by `name`, `id`, `kind` and `id`: an entry of a name that is
  there changes that entry, another one is added behind. A source that gets another version or URL loses the `sha256` that an
  earlier layer gave.
- `[[arch-map]]`, `[[resources.classes]]` and checks without an `id` are added behind; the last that matches counts.
- All other arrays are replaced. An empty array empties.
- Patch files lie in `patches/NAME/` beside the recipes of their layer; one recipe may take files of several layers.

On the command line a name reaches into such an entry: `--set output.triton.path=python`, `--set source.git.ref=main`. What
is no TOML value for the key is taken as text.

`spark-build recipes show NAME --origin` prints the merged recipe and, behind each key, the file and line that set it.

## What counts

A wheel is found again by its fingerprint: the digest of everything that can change its bytes. `[about]`, `[resources]` and
`[check]` never count: more memory, a better summary or another check builds nothing anew. All else does; the tables below
say how. Comments and the order of keys count nowhere. `spark-build why NAME` shows what differs from a stored build.

## `${names}`

In values of `env`, `config-settings` and `version.value`:
"""

_NAMES = {
    "arch": "what the project gets as its architecture list, blank-separated (see `[[arch-map]]`)",
    "cuda": "the toolkit's version, empty without one",
    "torch": "torch's version, empty where the build doesn't use it",
    "version": "the source's version, empty for a commit that no version names",
    "commit": "the commit, empty for an archive",
    "label": "our local version part, without `+`; stands in the fingerprint as itself",
    "src": "the source tree as the build sees it",
    "jobs": "how many compilers may run at once; what it comes to doesn't count",
}

_CONDITIONS = """\
A condition is data. Of what it names, all must hold; a condition that names nothing always holds. A version that nobody
knows is in no range: a commit on a branch has no version, so for branches ask by `contains`, `lacks` or `file`.

```toml
when = { version = ">=3.5,<3.7", cuda = ">=13.0" }
when = { lacks = "50b2f739ab", file = { path = "setup.py", matches = "abi3" } }
```
"""


def page() -> str:
    """Return docs/recipes.md."""
    names = [f"| `${{{name}}}` | {_NAMES[name]} |" for name in model.INTERPOLATED]
    lines = [_INTRODUCTION, "| name | what it stands for |", "|---|---|", *names, ""]
    for heading, cls, counts in _TABLES:
        lines += [f"## {heading}", "", (cls.__doc__ or "").replace("``", "`"), ""]
        if cls is model.Condition:
            lines += [_CONDITIONS]
        lines += _table(cls, counts)
        lines.append("")
    return "\n".join(lines).rstrip("\n") + "\n"


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
