"""What recipes need of the system where they build, as packages of Debian and Ubuntu.

Each recipe says it in ``[system]``, and in ``[image]`` which parts of the CUDA toolkit its build uses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.host import compilers, floors
from builder.recipe import find, load
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from builder.recipe.find import Folder
    from builder.recipe.model import Loaded, System

__all__ = ["Needs", "Rusty", "needs", "packages"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rusty:
    """A variant that asks for Rust."""

    recipe: str
    variant: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What an image has to have so that all of `recipes` build in it, each list sorted.

    `packages` are Debian's. `rust_packages` come on top for the variants in `rusty`, together with a Rust toolchain.
    `cuda_parts` are the vendor's packages without the toolkit's version (``cuda-nvcc``).
    """

    recipes: tuple[str, ...]
    packages: tuple[str, ...]
    rust_packages: tuple[str, ...]
    rusty: tuple[Rusty, ...]
    cuda_parts: tuple[str, ...]


def needs(folders: Sequence[Folder]) -> Needs:
    """Return what all recipes of `folders` need, with every variant of them; raise RecipeError for one that is wrong."""
    names = find.names(folders)
    plain: set[str] = set()
    with_rust: set[str] = set()
    rusty: list[Rusty] = []
    parts: set[str] = set()
    for name in names:
        for variant, loaded in _forms(name, folders):
            recipe = loaded.recipe
            parts |= set(recipe.image.cuda)
            if recipe.system.rust is None:
                plain |= set(packages(recipe.system))
            else:
                with_rust |= set(packages(recipe.system))
                rusty.append(Rusty(recipe=name, variant=variant))
    return Needs(
        recipes=names,
        packages=tuple(sorted(plain)),
        rust_packages=tuple(sorted(with_rust - plain)),
        rusty=tuple(rusty),
        cuda_parts=tuple(sorted(parts)),
    )


def _forms(name: str, folders: Sequence[Folder]) -> Iterator[tuple[str, Loaded]]:
    """Yield the recipe without its variants, then with each of them alone: together they may contradict each other."""
    ids = [one.id for one in load.load(name, folders).recipe.variant]
    without = dict.fromkeys(ids, False)
    yield "", load.load(name, folders, variants=without)
    for one in ids:
        yield one, load.load(name, folders, variants={**without, one: True})


def packages(system: System) -> tuple[str, ...]:
    """Return the packages that bring what `system` names, but for CUDA and Rust, which come in other ways."""
    found = set(system.apt) | {floors.package(program) for program in system.tools}
    if compilers.wants_compilers(system):
        found.add("g++")
    if system.clang:
        found |= {"clang", "lld"}
    if system.headers:
        found.add("python3-dev")
    return tuple(sorted(found))
