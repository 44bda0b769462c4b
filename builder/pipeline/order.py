"""Requests in an order in which what is built on comes first, each knowing how the others are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.recipe import find, load
from builder.values import replace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from builder.pipeline.world import World
    from builder.recipe.model import Loaded
    from builder.stages import Request

__all__ = ["loaded_of", "ordered"]


def ordered(requests: Sequence[Request], world: World) -> tuple[Request, ...]:
    """Return `requests` in an order of building; a recipe that one of them builds on is asked for as among them.

    What doesn't depend on each other keeps its order. Raises RecipeError as `load.load` does, also for a circle.
    """
    asked = {request.recipe: request for request in requests}
    done: dict[str, Request] = {}
    on: dict[str, Sequence[str]] = {}

    def below(name: str, like: Request) -> Sequence[str]:
        """Return what a recipe builds on; one that nobody asked for itself, as `_built_on` asks for it."""
        if name not in on:
            request = asked.get(name) or replace(like, recipe=name, settings={}, variants={})
            on[name] = loaded_of(request, world).recipe.builds_on
        return on[name]

    def take(name: str, like: Request) -> dict[str, Request]:
        """Put what `name` builds on before it, and return how that is asked for."""
        found: dict[str, Request] = {}
        for other in below(name, like):
            found |= take(other, like)
            if other in asked:
                found[other] = done[other]
        if name in asked:
            done.setdefault(name, replace(asked[name], below=found))
        return found

    for request in requests:
        take(request.recipe, request)
    return tuple(done.values())


def loaded_of(request: Request, world: World) -> Loaded:
    """Return the recipe of a request as an evaluation would read it."""
    folders = find.folders(world.config.recipe_layers)
    return load.load(request.recipe, folders, settings=request.settings, stack=world.stack, variants=request.variants)
