"""Everything that can change a wheel's bytes, as one document; its digest is the fingerprint.

Pure: values in, values out. Nothing here reads a file, a clock or the environment. The document is canonical JSON with a
schema version; it is kept with the wheel, and `diff` of two of them is the only source of reasons for a rebuild.
"""

from __future__ import annotations

import marshal
from typing import TYPE_CHECKING, Literal

from builder.digest import canonical_json, sha256_json
from builder.recipe.model import OUTSIDE
from builder.values import dataclass, fields, is_dataclass, replace

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from builder.digest import Json
    from builder.recipe.model import Recipe
    from builder.stages import EnvLock, Host, Nested, Pin, Target

__all__ = ["SCHEMA", "AppliedPatch", "Change", "Inputs", "collect", "diff", "recipe_identity"]

#: Raised whenever the same inputs would give other bytes because spark-build itself changed: packing, rewriting, layout.
SCHEMA = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedPatch:
    """A patch whose conditions hold and which the tree doesn't have yet.

    `result` is the digest of what it makes of the files that it touches, where only a 3-way merge lays it on.
    """

    id: str
    sha256: str
    result: str | None = None

    def identity(self) -> dict[str, Json]:
        """Return what changes the wheel's bytes."""
        return {"id": self.id, "sha256": self.sha256, **({"result": self.result} if self.result else {})}


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The document and its digest."""

    document: Mapping[str, Json]
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One difference between two documents. `path` is dotted; `old` and `new` are None where the key is missing."""

    path: str
    kind: Literal["added", "removed", "changed"]
    old: Json
    new: Json


def recipe_identity(recipe: Recipe, outputs: Sequence[str]) -> dict[str, Json]:
    """Return the tables of `recipe` that count for `outputs`.

    Sources are left out (the pins say it), patches, variants and arch rules too (what applies counts).

    Job counts are set from `build.jobs_env` by us and never change bytes; the names of the variables don't count either.
    """
    # Whether an output is built unasked, and on which condition, changes nothing in it.
    selected = tuple(
        replace(output, default=True, when=None, pinned_by=()) for output in recipe.output if output.name in outputs
    )
    tables = _plain(replace(recipe, output=selected))
    assert isinstance(tables, dict)  # noqa: S101  # a dataclass becomes a dict
    for name in (*OUTSIDE, "schema", "source", "patch", "fetch", "variant", "builds_on", "arch_map"):
        tables.pop(name, None)
    build = tables["build"]
    assert isinstance(build, dict)  # noqa: S101
    build.pop("jobs_env", None)
    return tables


def _plain(value: object) -> Json:
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    msg = f"a recipe can't hold {value!r}"
    raise TypeError(msg)


def collect(  # noqa: PLR0913  # one argument an input: that is the point of this function
    *,
    recipe: Recipe,
    outputs: Sequence[str],
    pin: Pin,
    patches: Sequence[AppliedPatch],
    target: Target,
    arch: Sequence[str],
    host: Host,
    locks: Sequence[EnvLock],
    torch: Mapping[str, Json] | None,
    env: Mapping[str, str],
    paths: Mapping[str, str],
    builds_on: Mapping[str, str],
    nested: Sequence[Nested] = (),
) -> Inputs:
    """Return the inputs of one evaluation of `recipe` and their fingerprint.

    `arch` is the effective list that the project will be given; `torch` names version and C++ ABI, None where the build
    doesn't use it; `env` holds what site and user set (the recipe's own variables are in its tables); `paths` the
    digests of files and folders that any variable names; `builds_on` the fingerprints of other recipes; `nested` what the
    tree pulls in. Only the outputs in `outputs` count: they are built and labelled together.
    """
    document: dict[str, Json] = {
        "schema": SCHEMA,
        "name": recipe.name,
        "source": pin.identity(),
        "patches": [patch.identity() for patch in patches],
        "recipe": recipe_identity(recipe, outputs),
        "target": target.identity(),
        "arch": list(arch),
        "host": host.identity(),
        "requires": {lock.output: lock.identity() for lock in locks},
        "torch": dict(torch) if torch is not None else None,
        "env": dict(env),
        "paths": dict(paths),
        "builds-on": dict(builds_on),
    }
    if nested:
        document["nested"] = [one.identity() for one in nested]
    return Inputs(document=document, fingerprint=sha256_json(document))


def diff(old: Json, new: Json) -> tuple[Change, ...]:
    """Return every difference between two documents, in the order of their paths; lists of named things match by name."""
    return tuple(_diff("", old, new))


def _diff(path: str, old: Json, new: Json) -> Iterator[Change]:
    # Most of two documents is equal; true and 1 are, too, for Python, and aren't the same in a document.
    if old == new and (marshal.dumps(old, 2) == marshal.dumps(new, 2) or canonical_json(old) == canonical_json(new)):
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            where = f"{path}.{key}" if path else key
            if key not in old:
                yield Change(path=where, kind="added", old=None, new=new[key])
            elif key not in new:
                yield Change(path=where, kind="removed", old=old[key], new=None)
            else:
                yield from _diff(where, old[key], new[key])
        return
    if isinstance(old, list) and isinstance(new, list) and (named := _by_name(old, new)):
        yield from _diff_named(path, *named)
        return
    yield Change(path=path, kind="changed", old=old, new=new)


def _by_name(old: list[Json], new: list[Json]) -> tuple[dict[str, Json], dict[str, Json]] | None:
    """Return both lists keyed by ``name``, ``id`` or ``path``, or None where they aren't lists of such things."""
    for key in ("name", "id", "path"):
        pair = []
        for items in (old, new):
            keyed: dict[str, Json] = {str(item[key]): item for item in items if isinstance(item, dict) and key in item}
            if len(keyed) == len(items):
                pair.append(keyed)
        if len(pair) == 2:  # noqa: PLR2004  # both sides
            return pair[0], pair[1]
    return None


def _diff_named(path: str, old: dict[str, Json], new: dict[str, Json]) -> Iterator[Change]:
    for key in sorted(old.keys() | new.keys()):
        where = f"{path}[{key}]"
        if key not in old:
            yield Change(path=where, kind="added", old=None, new=new[key])
        elif key not in new:
            yield Change(path=where, kind="removed", old=old[key], new=None)
        else:
            yield from _diff(where, old[key], new[key])
    common_old = [key for key in old if key in new]
    common_new = [key for key in new if key in old]
    if common_old != common_new:
        yield Change(path=f"{path}.order", kind="changed", old=list(common_old), new=list(common_new))
