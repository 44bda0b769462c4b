"""Reading recipes: files to `Loaded`, with every mistake of every recipe in one report."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.digest import sha256_file
from builder.errors import RecipeError
from builder.recipe import find
from builder.recipe.check import check
from builder.recipe.convert import Mistake, convert
from builder.recipe.layers import Layer, Origin, assign, merge, merge_variant, origin_of
from builder.recipe.model import Loaded, Recipe
from builder.recipe.near import near
from builder.recipe.nested import TOOLKIT
from builder.recipe.texts import NAME
from builder.recipe.variants import chosen, unknown
from builder.values import dataclass, field, replace

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from builder.recipe.find import Folder
    from builder.recipe.model import Patch

__all__ = ["load", "read_all", "report"]


def load(
    name: str,
    folders: Sequence[Folder],
    *,
    settings: Mapping[str, str] | None = None,
    stack: Mapping[str, Layer] | None = None,
    variants: Mapping[str, bool] | None = None,
) -> Loaded:
    """Return the recipe `name`: the files of `folders`, its layer of `stack`, its variants, then `settings` (``--set``).

    `stack` maps names of recipes to what a stack file says about them; `variants` says which are taken in or left out, the
    recipe's `default` decides about the others. Raises RecipeError: ``recipe-missing`` and ``variant-unknown`` name what is
    near, ``recipe-wrong`` every mistake with file and line, ``recipe-cycle`` the way round.
    """
    reader = _Reader(folders=folders, stack=stack or {})
    loaded = reader.load(name, settings or {}, variants or {})
    if loaded is None and not reader.problems:
        raise _missing(name, folders)
    if loaded is None:
        raise report(reader.problems)
    reader.follow(loaded, (name,))
    return loaded


def read_all(
    folders: Sequence[Folder], names: Sequence[str] | None = None
) -> tuple[tuple[Loaded, ...], tuple[str, ...]]:
    """Return the good ones among the recipes (or those of `names`), by name, and every mistake of the others."""
    reader = _Reader(folders=folders, stack={})
    wanted = find.names(folders) if names is None else names
    good = []
    for name in wanted:
        before = len(reader.problems)
        loaded = reader.load(name)
        if loaded is None:
            if len(reader.problems) == before:
                raise _missing(name, folders)
            continue
        for variant in loaded.recipe.variant:  # each the other way round, for nobody may have tried it
            reader.load(name, {}, {variant.id: variant.id not in loaded.variants})
        if len(reader.problems) > before:
            continue
        try:
            reader.follow(loaded, (name,))
        except RecipeError as error:
            if error.code != "recipe-wrong":  # the other recipe's mistakes are told where that one is read
                reader.problems.append(f"{loaded.origins['builds-on']}: builds-on: {error.summary}")
                continue
        good.append(loaded)
    return tuple(good), tuple(dict.fromkeys(reader.problems))


def report(problems: Sequence[str]) -> RecipeError:
    """Return the one error that tells all mistakes."""
    many = f"{len(problems)} mistakes" if len(problems) > 1 else "a mistake"
    return RecipeError(
        "recipe-wrong",
        f"{many} in recipes",
        cause="\n".join(problems),
        help="docs/recipe-reference.md lists every key",
        run=("spark-build recipes lint",),
    )


def _missing(name: str, folders: Sequence[Folder]) -> RecipeError:
    close = near(name, find.names(folders))
    looked = ", ".join(str(folder.recipes) for folder in folders)
    start = (f"spark-build recipes new {name}",) if NAME.fullmatch(name) else ()
    return RecipeError(
        "recipe-missing",
        f"there is no recipe {name}{close}",
        cause=f"looked in {looked}",
        run=("spark-build recipes list", *start),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reader:
    """One reading of recipes: each file once, however many recipes build on it."""

    folders: Sequence[Folder]
    stack: Mapping[str, Layer]
    problems: list[str] = field(default_factory=list)
    known: dict[str, Loaded | None] = field(default_factory=dict)
    sound: set[str] = field(default_factory=set)

    def load(
        self, name: str, settings: Mapping[str, str] | None = None, variants: Mapping[str, bool] | None = None
    ) -> Loaded | None:
        """Return the recipe, or None: with `problems` when it is wrong, without when there is none."""
        if settings or variants:
            return self._load(name, settings or {}, variants or {})
        if name not in self.known:
            self.known[name] = self._load(name, {}, {})
        return self.known[name]

    def follow(self, loaded: Loaded, chain: tuple[str, ...]) -> None:
        """Walk `builds_on` and raise RecipeError where it comes back to itself or names nothing."""
        if loaded.recipe.name in self.sound:
            return
        for name in loaded.recipe.builds_on:
            if name in chain:
                raise RecipeError("recipe-cycle", f"recipes build on each other: {' -> '.join((*chain, name))}")
            before = len(self.problems)
            other = self.load(name)
            if other is None and name in find.names(self.folders):
                raise report(self.problems[before:] or [f"{name}: wrong as told above"])
            if other is None:
                raise _missing(name, self.folders)
            self.follow(other, (*chain, name))
        self.sound.add(loaded.recipe.name)

    def _load(self, name: str, settings: Mapping[str, str], variants: Mapping[str, bool]) -> Loaded | None:
        layers = self._layers(name)
        if not layers or any(layer is None for layer in layers):
            return None
        every = [layer for layer in layers if layer is not None]
        if name in self.stack:
            every.append(self.stack[name])
        given = [assign(key, text, _mistakes) for key, text in settings.items()]
        raw: dict[str, Any] = {}
        origins: dict[str, Origin] = {}
        for layer in every:
            raw = merge(raw, layer, origins)
        strange = list(unknown(raw, given))
        taken = chosen(name, raw, given, variants)
        for number in taken.values():
            raw = merge_variant(raw, number, origins)
        for layer in given:
            raw = merge(raw, layer, origins)
        every += given
        mistakes: list[Mistake] = []
        recipe = convert(Recipe, raw, "", mistakes)
        mistakes.extend(check(recipe, name))
        # What is missing in an entry that isn't there helps nobody.
        roots = tuple(f"{one.path}." for one in strange)
        mistakes = [*strange, *(one for one in mistakes if not one.path.startswith(roots))] if strange else mistakes
        patches: dict[str, Path] = {}
        mistakes.extend(_find_patches(recipe, every, patches))
        if mistakes:
            # A key that is missing or wrong is told once, by the first who saw it.
            first = {mistake.path: mistake for mistake in reversed(mistakes)}
            self.problems.extend(_located(list(first.values()), every, origins))
            return None
        file = every[0].file
        assert file is not None  # noqa: S101  # the first layer is a recipe file
        return Loaded(
            recipe=_placed(recipe, origins),
            path=file,
            patches=patches,
            layers=tuple(every),
            raw=raw,
            origins=origins,
            variants=tuple(taken),
        )

    def _layers(self, name: str) -> list[Layer | None]:
        """Return the recipe's file of each folder that has one; None for one that can't be read, with its problem."""
        if "/" in name:
            return []
        found: list[Layer | None] = []
        for folder in self.folders:
            file = folder.recipes / f"{name}.toml"
            if file.exists() or file.is_symlink():
                found.append(_read(file, folder, self.problems))
        return found


def _mistakes(raw: Mapping[str, Any]) -> int:
    mistakes: list[Mistake] = []
    convert(Recipe, raw, "", mistakes)
    return len(mistakes)


def _read(file: Path, folder: Folder, problems: list[str]) -> Layer | None:
    if file.exists() and not file.is_file():
        problems.append(f"{file}: is no file")
        return None
    text = ""
    try:
        text = file.read_text(encoding="utf-8")
        values = tomllib.loads(text)
    except OSError as error:
        problems.append(f"{file}: can't be read: {error.strerror}")
        return None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        problems.append(f"{file}:{line}: is no UTF-8: byte 0x{error.object[error.start]:02x}")
        return None
    except tomllib.TOMLDecodeError as error:
        problems.append(_syntax(file, text, str(error)))
        return None
    return Layer(word=folder.layer, values=values, file=file, text=text, patches=folder.patches / file.stem)


def _syntax(file: Path, text: str, message: str) -> str:
    """Return ``file:line: is no TOML: …``; the parser says the line at the end of its message."""
    found = re.search(r" \(at line (\d+), column (\d+)\)$", message)
    if found:
        return f"{file}:{found[1]}: is no TOML: {message[: found.start()]} (column {found[2]})"
    return f"{file}:{text.count(chr(10)) + 1}: is no TOML: {message}"


def _located(mistakes: Sequence[Mistake], layers: Sequence[Layer], origins: Mapping[str, Origin]) -> list[str]:
    """Return ``file:line: key: text`` for each, in the order of layers and lines.

    The place is the one that set the key, or the nearest table around it.
    """
    found = []
    for mistake in mistakes:
        origin = origin_of(mistake.path, origins) or Origin(layer=layers[0], path="")
        place = (layers.index(origin.layer), origin.line() or 1)
        where = f" (variant {origin.variant})" if origin.variant else ""
        found.append((place, f"{origin.place}: {mistake.path}: {mistake.text}{where}"))
    return [text for _place, text in sorted(found)]


def _placed(recipe: Recipe, origins: Mapping[str, Origin]) -> Recipe:
    """Return `recipe` with paths made absolute: local sources, and what is put in place of nested ones."""
    source, fetch = list(recipe.source), list(recipe.fetch)
    for number, one in enumerate(source):
        if one.kind == "local":
            source[number] = replace(one, path=_from_file(f"source[{number}].path", one.path or "", origins))
    for number, nested in enumerate(fetch):
        if nested.path and not nested.path.startswith(TOOLKIT):
            path = _from_file(f"fetch[{number}].path", nested.path, origins)
            fetch[number] = replace(nested, path=str(Path(path).absolute()))
    return replace(recipe, source=tuple(source), fetch=tuple(fetch))


def _from_file(key: str, path: str, origins: Mapping[str, Origin]) -> str:
    """Return `path` as seen from the folder of the file that sets `key`; as it is where no file does."""
    path = str(Path(path).expanduser())
    origin = origin_of(key, origins)
    return str(origin.layer.file.parent / path) if origin and origin.layer.file else path


def _find_patches(recipe: Recipe, layers: Sequence[Layer], patches: dict[str, Path]) -> Iterator[Mistake]:
    """Put each patch's file into `patches`: the strongest layer's that has one of that name."""
    folders = [layer.patches for layer in reversed(layers) if layer.patches is not None]
    # What a wrong recipe leaves may be None, and then that is told already.
    given: Sequence[Patch | None] = recipe.patch or ()
    for number, patch in enumerate(given):
        if patch is not None:
            yield from _find_patch(patch.id, patch.file, patch.sha256, f"patch[{number}]", folders, patches)


def _find_patch(
    name: str | None,
    file: str | None,
    sha256: str | None,
    where: str,
    folders: Sequence[Path],
    patches: dict[str, Path],
) -> Iterator[Mistake]:
    if name is None or file is None:
        return
    if not file or "/" in file or file.startswith("."):
        yield Mistake(path=f"{where}.file", text=f"`{file}` must be a plain file name")
        return
    path = next((folder / file for folder in folders if (folder / file).is_file()), None)
    if path is None:
        looked = ", ".join(str(folder) for folder in reversed(folders))
        yield Mistake(path=f"{where}.file", text=f"`{file}` isn't in {looked}")
    elif sha256 is not None and (found := sha256_file(path)) != sha256:
        yield Mistake(path=f"{where}.sha256", text=f"is {sha256[:12]}…, but {path} has {found}")
    else:
        patches[name] = path
