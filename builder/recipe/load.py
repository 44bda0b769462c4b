"""Reading recipes: files to `Loaded`, with every mistake of every recipe in one report."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Any

from builder.digest import sha256_file
from builder.errors import RecipeError
from builder.recipe import find, interpolate
from builder.recipe.convert import Mistake, convert
from builder.recipe.layers import assign, line_of, merge
from builder.recipe.model import INTERPOLATED, Loaded, Recipe
from builder.recipe.units import parse_bytes, parse_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from builder.recipe.find import Folder
    from builder.recipe.model import Condition

__all__ = ["load", "load_all", "report"]

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def load(name: str, folders: Sequence[Folder], *, settings: Mapping[str, str] | None = None) -> Loaded:
    """Return the recipe `name` with its layers and `settings` (``--set``) laid over it.

    Raises RecipeError: ``recipe-missing`` names what is near, ``recipe-wrong`` every mistake with file and line.
    """
    problems: list[str] = []
    loaded = _load(name, folders, settings or {}, problems)
    if loaded is None and not problems:
        raise _missing(name, folders)
    if problems or loaded is None:
        raise report(problems)
    _follow(loaded, folders, (name,))
    return loaded


def load_all(folders: Sequence[Folder]) -> tuple[Loaded, ...]:
    """Return every recipe, by name; raise RecipeError with every mistake of all of them."""
    problems: list[str] = []
    found = [_load(name, folders, {}, problems) for name in find.names(folders)]
    good = tuple(one for one in found if one is not None)
    for one in good:
        try:
            _follow(one, folders, (one.recipe.name,))
        except RecipeError as error:
            if error.code in {"recipe-cycle", "recipe-missing"}:
                problems.append(f"{one.path}: builds-on: {error.summary}")
    if problems:
        raise report(problems)
    return good


def report(problems: Sequence[str]) -> RecipeError:
    """Return the one error that tells all mistakes."""
    many = f"{len(problems)} mistakes" if len(problems) > 1 else "a mistake"
    return RecipeError(
        "recipe-wrong",
        f"{many} in recipes",
        cause="\n".join(problems),
        help="docs/recipes.md lists every key",
        run=("spark-build recipes lint",),
    )


def _missing(name: str, folders: Sequence[Folder]) -> RecipeError:
    import difflib  # noqa: PLC0415  # only for the message

    known = find.names(folders)
    close = difflib.get_close_matches(name, known, 3)
    looked = ", ".join(str(folder.recipes) for folder in folders)
    near = f"; near: {', '.join(close)}" if close else ""
    return RecipeError(
        "recipe-missing",
        f"there is no recipe {name}{near}",
        cause=f"looked in {looked}",
        run=("spark-build recipes list", f"spark-build recipes new {name}"),
    )


def _follow(loaded: Loaded, folders: Sequence[Folder], chain: tuple[str, ...]) -> None:
    """Walk `builds_on` and raise RecipeError where it comes back to itself or names nothing."""
    for name in loaded.recipe.builds_on:
        if name in chain:
            raise RecipeError("recipe-cycle", f"recipes build on each other: {' -> '.join((*chain, name))}")
        problems: list[str] = []
        other = _load(name, folders, {}, problems)
        if other is None:
            raise report(problems) if problems else _missing(name, folders)
        _follow(other, folders, (*chain, name))


def _load(name: str, folders: Sequence[Folder], settings: Mapping[str, str], problems: list[str]) -> Loaded | None:
    """Return the recipe, or None: with `problems` when it is wrong, without when there is none."""
    raw: dict[str, Any] = {}
    origins: dict[str, str] = {}
    files: list[tuple[Path, Path]] = []
    for folder in folders:
        file = folder.recipes / f"{name}.toml"
        if not file.is_file():
            continue
        try:
            over = tomllib.loads(file.read_text())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            problems.append(f"{file}: {error}")
            return None
        raw = merge(raw, over, str(file), origins)
        files.append((file, folder.patches / name))
    if not files:
        return None
    for key, text in settings.items():
        raw = merge(raw, assign(raw, key, text), "command line", origins)
    mistakes: list[Mistake] = []
    recipe = convert(Recipe, raw, "", mistakes)
    if recipe is not None:
        mistakes.extend(_check(recipe, name))
        mistakes.extend(_check_patches(recipe, files))
    if recipe is None or mistakes:
        problems.extend(_located(mistake, files[-1][0], origins) for mistake in mistakes)
        return None
    patches = next((where for _file, where in reversed(files) if _holds_patches(recipe, where)), files[0][1])
    return Loaded(recipe=recipe, path=files[-1][0], patches=patches, origins=origins)


def _holds_patches(recipe: Recipe, where: Path) -> bool:
    return any((where / patch.file).is_file() for patch in recipe.patch)


def _located(mistake: Mistake, file: Path, origins: Mapping[str, str]) -> str:
    """Return ``file:line: key: text`` with the file of the layer that set the key, or of the nearest key around it."""
    path = mistake.path
    while path and path not in origins:
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    origin = origins.get(path) or next(
        (where for key, where in origins.items() if key.startswith(mistake.path.split(".")[0])), str(file)
    )
    if origin == "command line":
        return f"command line: {mistake.path}: {mistake.text}"
    source = file if origin == str(file) else file.__class__(origin)
    return f"{source}:{line_of(source, mistake.path)}: {mistake.path}: {mistake.text}"


def _check(recipe: Recipe, name: str) -> Iterator[Mistake]:
    """Yield what types can't say."""
    if recipe.name != name:
        yield Mistake(path="name", text=f"is `{recipe.name}`, and the file is called {name}.toml")
    if not _NAME.fullmatch(recipe.name):
        yield Mistake(path="name", text=f"`{recipe.name}` must be lower case words joined by `-`")
    for table, word in (("output", "name"), ("patch", "id")):
        seen: set[str] = set()
        for number, item in enumerate(getattr(recipe, table)):
            value = getattr(item, word)
            if value in seen:
                yield Mistake(path=f"{table}[{number}].{word}", text=f"`{value}` is there twice")
            seen.add(value)
    yield from _check_sources(recipe)
    yield from _check_values(recipe)
    yield from _check_conditions(recipe)


def _check_sources(recipe: Recipe) -> Iterator[Mistake]:
    needed = {"git": ("url", "ref"), "sdist": ("project", "version"), "archive": ("url",), "local": ("path",)}
    if not recipe.source:
        yield Mistake(path="source", text="is empty, wanted at least one [[source]]")
    if not recipe.output:
        yield Mistake(path="output", text="is empty, wanted at least one [[output]]")
    for number, one in enumerate(recipe.source):
        for key in needed[one.kind]:
            if getattr(one, key) is None:
                yield Mistake(path=f"source[{number}].{key}", text=f"`{key}` is missing: a {one.kind} source needs it")
        if one.sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", one.sha256):
            yield Mistake(path=f"source[{number}].sha256", text="is no sha256: wanted 64 hex digits")
    for number, output in enumerate(recipe.output):
        if output.path.startswith("/") or ".." in output.path.split("/"):
            yield Mistake(path=f"output[{number}].path", text=f"`{output.path}` leaves the source tree")


def _check_values(recipe: Recipe) -> Iterator[Mistake]:
    texts = [(f"build.env.{key}", text) for key, text in recipe.build.env.items()]
    texts += [(f"output[{n}].env.{k}", t) for n, output in enumerate(recipe.output) for k, t in output.env.items()]
    if recipe.version.value is not None:
        texts.append(("version.value", recipe.version.value))
    for path, text in texts:
        for name in interpolate.names(text):
            if name not in INTERPOLATED:
                known = ", ".join(INTERPOLATED)
                yield Mistake(path=path, text=f"${{{name}}} is no known name; known: {known}")
    resources = recipe.resources
    sizes = {"mem-per-job": resources.mem_per_job, "link-mem": resources.link_mem, "disk": resources.disk}
    sizes |= {f"classes[{number}].mem": one.mem for number, one in enumerate(resources.classes)}
    spans = {"unit-timeout": resources.unit_timeout, "build-timeout": resources.build_timeout}
    for parse, values in ((parse_bytes, sizes), (parse_seconds, spans)):
        for key, value in values.items():
            try:
                parse(value or "0")
            except ValueError as error:
                yield Mistake(path=f"resources.{key}", text=str(error))
    if resources.jobs is not None and resources.jobs < 1:
        yield Mistake(path="resources.jobs", text=f"is {resources.jobs}, wanted at least 1")


def _check_conditions(recipe: Recipe) -> Iterator[Mistake]:
    for table in ("output", "patch"):
        for number, item in enumerate(getattr(recipe, table)):
            if item.when is not None:
                yield from _check_condition(item.when, f"{table}[{number}].when")
    for key in ("cuda", "gcc", "clang", "rust"):
        yield from _check_range(getattr(recipe.system, key), f"system.{key}")


def _check_condition(condition: Condition, path: str) -> Iterator[Mistake]:
    for key in ("version", "cuda", "torch"):
        yield from _check_range(getattr(condition, key), f"{path}.{key}")
    if condition.file is not None and condition.file.matches is not None:
        try:
            re.compile(condition.file.matches)
        except re.error as error:
            yield Mistake(path=f"{path}.file.matches", text=f"is no regular expression: {error}")


def _check_range(text: str | None, path: str) -> Iterator[Mistake]:
    if text is None or re.fullmatch(r"(\s*(>=|<=|==|!=|~=|<|>)\s*[0-9][0-9A-Za-z.*+!-]*\s*,?)+", text):
        return
    yield Mistake(path=path, text=f"`{text}` is no version range; write >=3.5,<3.7")


def _check_patches(recipe: Recipe, files: Sequence[tuple[Path, Path]]) -> Iterator[Mistake]:
    for number, patch in enumerate(recipe.patch):
        where = f"patch[{number}]"
        if "/" in patch.file or patch.file.startswith("."):
            yield Mistake(path=f"{where}.file", text=f"`{patch.file}` must be a plain file name")
            continue
        file = next((path / patch.file for _f, path in reversed(files) if (path / patch.file).is_file()), None)
        if file is None:
            looked = ", ".join(str(path) for _f, path in files)
            yield Mistake(path=f"{where}.file", text=f"`{patch.file}` isn't in {looked}")
        elif (found := sha256_file(file)) != patch.sha256:
            yield Mistake(path=f"{where}.sha256", text=f"is {patch.sha256[:12]}…, but the file has {found}")
