"""The start of a new recipe: every table that most recipes need."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from builder.errors import UsageError
from builder.recipe.texts import NAME

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["skeleton", "source_of"]

#: The schema's file beside the recipes, for editors.
SCHEMA = "recipe.schema.json"

_START = """\
#:schema ./{schema}
# {name}: what it is, and why it is built from source.
# What a key means: docs/recipe-reference.md. Check this file with:  spark-build recipes lint {name}
schema = 1
name = "{name}"

# For people; never counts.
[about]
summary = "{project}"

[[source]]
{source}

# What the machine has to offer: apt, cuda, gcc, rust, tools, headers.
[system]

# How it is built: hook, requires-add, requires-remove, requires-pin, torch, jobs-env, strip.
[build]

[build.env]

# What the tree downloads while it is built, and where its exact pin stands: [[fetch]] with id, kind, url, pin, place.
# What can be taken in or left out (--with ID, --without ID): [[variant]] with id, about, recipe.

# One table a wheel.
[[output]]
name = "{project}"

# Hints for memory, disk and time: mem-per-job, disk, jobs, build-timeout; never count.
[resources]

# Changes to the source, from patches/{name}/: [[patch]] with id, file, sha256, about.

[[check]]
kind = "import"
run = "import {module}"
"""

_ARCHIVES = (".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".zip")


def skeleton(name: str, source: Mapping[str, str]) -> str:
    """Return a recipe that loads: `source` filled in, and the tables that most recipes need.

    Raises UsageError ``recipe-name`` for a name that recipes can't have.
    """
    if not NAME.fullmatch(name):
        raise UsageError("recipe-name", f"{name} can't be a recipe's name", help="lower case words joined by -")
    project = source.get("project", name)
    return _START.format(
        schema=SCHEMA,
        name=name,
        project=project,
        module=re.sub(r"[-.]+", "_", project),
        source="\n".join(f'{key} = "{value}"' for key, value in source.items()),
    )


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
