"""Where recipes lie: shipped ones first, then a site's, then a user's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from builder import config
from builder.errors import RecipeError
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Sequence

    from builder.recipe.model import Recipe

__all__ = ["Folder", "folders", "names", "scripts", "shipped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """A folder of recipes, the folder of their patches, and the layer's word."""

    layer: str
    recipes: Path
    patches: Path


def shipped() -> Folder:
    """Return the recipes that come with spark-build: those of the checkout in use, else the installed package's."""
    root = config.checkout() or Path(__file__).resolve().parent.parent / "data"
    return Folder(layer="shipped", recipes=root / "recipes", patches=root / "patches")


def folders(layers: Sequence[tuple[str, Path]]) -> tuple[Folder, ...]:
    """Return the shipped folder and those of `layers` that exist, weakest first."""
    found = [Folder(layer=word, recipes=path, patches=path / "patches") for word, path in layers if path.is_dir()]
    return (shipped(), *found)


def names(where: Sequence[Folder]) -> tuple[str, ...]:
    """Return the names of all recipes, sorted. Hidden files are some editor's."""
    found = {file.stem for folder in where for file in folder.recipes.glob("*.toml") if file.name[0] != "."}
    return tuple(sorted(found))


def scripts(recipe: Recipe, where: Sequence[Folder]) -> dict[str, Path]:
    """Return the files of the scripts that the checks name: ``checks/<script>`` in the strongest folder that has it.

    Raises RecipeError ``check-script`` for one that none has.
    """
    found: dict[str, Path] = {}
    for name in {check.script for check in recipe.check if check.script}:
        files = [folder.recipes / "checks" / name for folder in where]
        file = next((file for file in reversed(files) if file.is_file()), None)
        if file is None:
            raise RecipeError(
                "check-script",
                f"the recipe {recipe.name} names the script {name}, which isn't there",
                cause="looked for " + ", ".join(map(str, files)),
                help="put it into the folder checks/ beside the recipe",
            )
        found[name] = file
    return found
