"""The start of a new recipe: every table that most recipes need, each key with its documentation."""

from __future__ import annotations

import dataclasses
import re
import textwrap
from typing import TYPE_CHECKING

from builder.errors import UsageError
from builder.recipe import model
from builder.recipe.check import NAME
from builder.recipe.convert import key_of

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["skeleton", "source_of"]

#: The schema's file beside the recipes, for editors.
SCHEMA = "recipe.schema.json"

#: Where the meaning of a short key starts, and how wide a line may be.
_COLUMN, _WIDTH = 32, 100

_ARCHIVES = (".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".zip")


def skeleton(name: str, source: Mapping[str, str]) -> str:
    """Return a recipe that loads: `source` filled in, all else explained in comments.

    Raises UsageError ``recipe-name`` for a name that recipes can't have.
    """
    if not NAME.fullmatch(name):
        raise UsageError("recipe-name", f"{name} can't be a recipe's name", help="lower case words joined by -")
    project = source.get("project", name)
    head = [
        f"#:schema ./{SCHEMA}",
        f"# {name}: what it is, and why it is built from source.",
        "# What a key means: docs/recipes.md. Check this file with:  spark-build recipes lint " + name,
        "schema = 1",
        f'name = "{name}"',
        "",
        "# For people; never counts.",
        "[about]",
        f'summary = "{project}"',
        "",
        "[[source]]",
        *(f'{key} = "{value}"' for key, value in source.items()),
    ]
    outputs = ["", "# One table a wheel.", "[[output]]", f'name = "{project}"', *_hints(model.Output)]
    rest = [
        *_section("system", model.System, "What the machine has to offer."),
        *_section("build", model.Build, "How it is built."),
        *outputs,
        *_section("resources", model.Resources, "Hints for memory, disk and time; never count."),
        *(
            "",
            "# [[patch]]                    # changes to the source, from patches/" + name + "/",
            *_hints(model.Patch),
        ),
        *("", "[[check]]", 'kind = "import"', f'run = "import {re.sub(r"[-.]+", "_", project)}"'),
    ]
    return "\n".join([*head, *_hints(model.Source, without=source), *rest, ""])


def _section(title: str, cls: type, text: str) -> list[str]:
    return ["", f"# {text}", f"[{title}]", *_hints(cls)]


def _hints(cls: type, without: Mapping[str, str] | None = None) -> list[str]:
    """Return a commented example of each key that has a default."""
    lines = []
    for field in dataclasses.fields(cls):
        if (
            field.default is dataclasses.MISSING
            and field.default_factory is dataclasses.MISSING
            and cls is not model.Patch
        ):
            continue
        if without is not None and (key_of(field.name) in without or not _fits(field.metadata["doc"], without)):
            continue
        example, meaning = f"# {field.metadata['example']}", field.metadata["doc"].replace("``", "`")
        if len(example) < _COLUMN - 1 and len(meaning) < _WIDTH - _COLUMN:
            lines.append(f"{example:<{_COLUMN}}# {meaning}")
        else:
            lines += [*textwrap.wrap(meaning, _WIDTH, initial_indent="# ", subsequent_indent="# "), example]
    return lines


def _fits(meaning: str, source: Mapping[str, str]) -> bool:
    """Whether the documentation of a source's key says that this kind has it."""
    kinds, _colon, _rest = meaning.partition(":")
    return source["kind"] in kinds.split(", ")


def source_of(text: str | None, name: str) -> dict[str, str]:
    """Return the keys of the source that ``--from`` names; without it an sdist of the recipe's name.

    A URL is an archive by its ending, else a git repository; ``project==1.0`` is an sdist. Raises UsageError.
    """
    if text is None or text == "sdist":
        return {"kind": "sdist", "project": name, "version": "1.0"}
    if found := re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9.!+]+)", text):
        return {"kind": "sdist", "project": found[1], "version": found[2]}
    if "://" in text or text.startswith(("git@", "/")):
        if text.endswith(_ARCHIVES):
            return {"kind": "archive", "url": text}
        return {"kind": "git", "url": text, "ref": "main"}
    raise UsageError(
        "recipe-from",
        f"--from {text}: wanted a repository, an archive or PROJECT==VERSION",
        run=(f"spark-build recipes new {name} --from https://example.org/{name}.git",),
    )
