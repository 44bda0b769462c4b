"""Wheels that no index has for a target, built by the recipe that makes them: where this machine is like the target.

Mostly these are projects that publish source archives only.
"""

from __future__ import annotations

import contextlib
import platform
from typing import TYPE_CHECKING, TypeVar

from builder.bundle.resolve import Unavailable
from builder.errors import SparkError
from builder.stages import Request
from builder.wheel.read import normalised

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from builder.bundle.target import Target
    from builder.pipeline.evaluate import Evaluation
    from builder.pipeline.world import World

__all__ = ["planned"]

T = TypeVar("T")

#: By whether this machine is like the target.
_HELP = {
    True: "a recipe makes it: an export from the channel local builds it first, unless it is a dry run",
    False: "a recipe makes it. What is pure Python can be built here; all else on a machine like the target, {machine} "
    "with glibc 2.{glibc} or older, where the bundle is made then, too",
}


def planned(
    plan: Callable[[], T], target: Target, world: World, *, build: Callable[[Evaluation, World], object] | None
) -> T:
    """Return what `plan` does, after each wheel that it misses was built, if one recipe makes it.

    `build` builds an evaluation; with None nothing is built, and nothing is where this machine isn't of the target's kind.
    Raises as `plan` does for what stays missing, with the recipes that make it; as `evaluate_all` and `build` do.
    """
    tried = set[str]()
    while True:
        try:
            return plan()
        except Unavailable as error:
            made = list(_makers(error.project, world))
            error.run = tuple(map(_words, made)) or error.run
            alike = _alike(target)
            if made:
                error.help = _HELP[alike].format(machine=target.machine, glibc=target.glibc)
            if build is None or not alike or len(made) != 1 or error.project in tried:
                raise
            tried.add(error.project)
            _make(made[0], error.summary, target, world, build)


def _alike(target: Target) -> bool:
    """Whether what is built here runs on the target: its machine, and a C library that isn't newer than the target's."""
    name, version = platform.libc_ver()
    numbers = [int(part) for part in version.split(".") if part.isdecimal()]
    return platform.machine() == target.machine and name == "glibc" and numbers <= [2, target.glibc]


def _words(request: Request) -> str:
    """Return the command that asks for it."""
    return " ".join(["spark-build recipe", request.recipe, *(f"--output {name}" for name in request.outputs)])


def _makers(project: str, world: World) -> Iterator[Request]:
    """Yield what to ask of each recipe that makes a wheel of `project`."""
    from builder.recipe import find, load  # noqa: PLC0415

    folders = find.folders(world.config.recipe_layers)
    for name in find.names(folders):
        with contextlib.suppress(SparkError):  # one with mistakes makes nothing
            found = [one for one in load.load(name, folders).recipe.output if normalised(one.name) == project]
            if found:  # two of one name are for two targets
                by_itself = any(one.default for one in found)
                yield Request(recipe=name, outputs=() if by_itself else (found[0].name,))


def _make(
    request: Request, why: str, target: Target, world: World, build: Callable[[Evaluation, World], object]
) -> None:
    from builder.events import Note  # noqa: PLC0415
    from builder.index import refresh  # noqa: PLC0415
    from builder.pipeline.evaluate import evaluate_all  # noqa: PLC0415
    from builder.values import replace  # noqa: PLC0415

    world.sink.emit(Note(level="info", text=f"{why}: the recipe {request.recipe} builds it first"))
    for one in evaluate_all([replace(request, python=target.python)], world):
        if one.plan.misses:
            build(one, world)
    refresh(world.house)
