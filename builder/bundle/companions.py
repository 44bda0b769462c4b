"""What packages need at run time and no metadata says: other wheels, things of the system, variables.

Recipes say it of their wheels in their ``[image]`` table; a few packages that no recipe makes stand here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from builder.recipe.outside import Image
from builder.values import dataclass, field
from builder.wheel.read import normalised

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from builder.recipe.find import Folder
    from builder.recipe.model import Recipe
    from builder.recipe.outside import Companion

__all__ = ["NEEDS", "OTHERS", "Known", "Need", "known", "read"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Something of the system; `id` is what recipes and install.sh know it by.

    `packages` bring it on Debian and Ubuntu; of the CUDA toolkit they are called as the vendor does, without the toolkit's
    version behind. `run` is what a user types.
    """

    id: str
    what: str
    why: str
    packages: tuple[str, ...]
    run: str


#: By id. Triton compiles a C launcher for each kernel at run time (triton/runtime/build.py), FlashInfer C++ and CUDA, which
#: it links against the toolkit's libraries (flashinfer/jit/cpp_ext.py).
NEEDS = {
    one.id: one
    for one in (
        Need(
            id="compiler",
            what="a C compiler",
            why="kernels are compiled at run time",
            packages=("gcc", "g++"),
            run="sudo apt install gcc g++",
        ),
        Need(
            id="headers",
            what="Python's headers",
            why="what is compiled at run time includes Python.h",
            packages=("python3-dev",),
            run="sudo apt install python3-dev",
        ),
        Need(
            id="nvcc",
            what="the CUDA compiler",
            why="kernels that no wheel holds are compiled at run time",
            packages=("cuda-nvcc", "cuda-cudart-dev", "cuda-driver-dev"),
            run="sudo apt install cuda-toolkit",
        ),
    )
}

#: Packages that no shipped recipe makes.
OTHERS: Mapping[str, Image] = {
    "tilelang": Image(needs=("compiler", "headers", "nvcc")),
    "torch": Image(imports=("torch",)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known of packages: tables, each with the projects that it is about. Later ones count before earlier ones.

    `problems` are recipes that couldn't be read, so that nothing is known of their wheels.
    """

    tables: Sequence[tuple[frozenset[str], Image]]
    problems: Sequence[str] = field(default=())

    def companions(self, packages: Iterable[str]) -> tuple[Companion, ...]:
        """Return the companions of `packages` that aren't among them."""
        names = _names(packages)
        found = {
            (normalised(one.of), normalised(one.name)): one for image in self._of(names) for one in image.companions
        }
        return tuple(one for (of, name), one in found.items() if of in names and name not in names)

    def needs(self, packages: Iterable[str]) -> tuple[Need, ...]:
        """Return what the system has to have for `packages`, in the order of `NEEDS`."""
        wanted = {name for image in self._of(_names(packages)) for name in image.needs}
        return tuple(one for one in NEEDS.values() if one.id in wanted)

    def env(self, packages: Iterable[str]) -> dict[str, str]:
        """Return the variables that `packages` want where they run, by name."""
        found = {key: value for image in self._of(_names(packages)) for key, value in image.env.items()}
        return dict(sorted(found.items()))

    def imports(self, packages: Iterable[str]) -> tuple[str, ...]:
        """Return the modules that have to import where `packages` are installed."""
        return tuple(dict.fromkeys(name for image in self._of(_names(packages)) for name in image.imports))

    def run(self, packages: Collection[str]) -> dict[str, Any]:
        """Return what a manifest says of how `packages` run."""
        return {"env": self.env(packages), "imports": list(self.imports(packages))}

    def _of(self, names: frozenset[str]) -> Iterator[Image]:
        return (image for projects, image in self.tables if projects & names)


def _names(packages: Iterable[str]) -> frozenset[str]:
    return frozenset(map(normalised, packages))


def known(recipes: Iterable[Recipe], problems: Sequence[str] = ()) -> Known:
    """Return what is known of packages: the table here, then the ``[image]`` tables of `recipes`.

    A recipe's table is about the outputs that are built without ``--output``.
    """
    rows = [(frozenset([name]), image) for name, image in OTHERS.items()]
    rows += [(_names(one.name for one in recipe.output if one.default), recipe.image) for recipe in recipes]
    return Known(tables=rows, problems=tuple(problems))


def read(folders: Sequence[Folder]) -> Known:
    """Return what the recipes of `folders` say, and of those that have mistakes that they do."""
    from builder.errors import SparkError  # noqa: PLC0415
    from builder.recipe import find, load  # noqa: PLC0415

    recipes, problems = [], []
    for name in find.names(folders):
        try:
            recipes.append(load.load(name, folders).recipe)
        except SparkError:  # `recipes lint` tells them
            problems.append(name)
    return known(recipes, problems)
