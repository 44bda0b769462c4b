"""What isn't wrong in a recipe and will still be regretted. Mistakes are `check`'s matter."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from builder.recipe.model import Loaded, Recipe

__all__ = ["warnings"]


def warnings(loaded: Loaded) -> tuple[str, ...]:
    """Return ``file:line: key: text`` for everything in a good recipe that will cost its users time."""
    found = []
    for path, text in (*_conditions(loaded.recipe), *_values(loaded.recipe), *_about(loaded.recipe)):
        place = path
        while place and place not in loaded.origins:
            place = place[: max(place.rfind("."), place.rfind("["), 0)]
        where = str(loaded.origins[place]) if place else f"{loaded.path}:1"
        found.append(f"{where}: {path}: {text}")
    return (*found, *_unused(loaded))


def _conditions(recipe: Recipe) -> Iterator[tuple[str, str]]:
    kinds = {one.kind for one in recipe.source}
    for table in ("output", "patch", "arch_map"):
        for number, item in enumerate(getattr(recipe, table)):
            path = f"{table.replace('_', '-')}[{number}].when"
            if item.when is None:
                continue
            if item.when.version is not None and recipe.source[0].kind == "git":
                yield (
                    f"{path}.version",
                    "a branch has no version, so this never holds there; use contains, lacks or file",
                )
            if (item.when.contains or item.when.lacks) and "git" not in kinds:
                yield path, "asks for commits, and no source of this recipe has any"
            if item.when.source is not None and item.when.source not in kinds | {"local"}:
                yield f"{path}.source", f"no source of this recipe is {item.when.source}"


def _values(recipe: Recipe) -> Iterator[tuple[str, str]]:
    build = recipe.build
    if build.torch_version is not None and build.torch != "pinned":
        yield "build.torch-version", 'has no effect unless torch = "pinned"'
    texts = [*build.env.values(), *(text for output in recipe.output for text in output.env.values())]
    if any("${torch}" in text for text in texts) and build.torch == "none":
        yield "build.env", '${torch} is empty while torch = "none"'
    if any("${cuda}" in text for text in texts) and recipe.system.cuda is None:
        yield "build.env", "${cuda} is empty where system.cuda asks for no toolkit"
    if not any(output.default for output in recipe.output):
        yield "output", "no output is built unless --output names one"


def _about(recipe: Recipe) -> Iterator[tuple[str, str]]:
    for key in ("summary", "homepage", "license"):
        if not getattr(recipe.about, key):
            yield f"about.{key}", "is missing; `recipes list` and whoever gets the wheel want it"
    if not recipe.check:
        yield "check", "is missing: nothing looks at the wheel; an import is the least"
    for number, patch in enumerate(recipe.patch):
        if patch.upstream is None:
            yield f"patch[{number}].upstream", "is missing: nobody can tell whether this is still needed"


def _unused(loaded: Loaded) -> Iterator[str]:
    used = {path.name for path in loaded.patches.values()}
    for layer in loaded.layers:
        if layer.patches is not None and layer.patches.is_dir():
            for file in sorted(layer.patches.glob("*.patch")):
                if file.name not in used:
                    yield f"{file}: no [[patch]] of {loaded.recipe.name} names it"
