"""A stack: its members asked for with one torch, built in order, and promoted as one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.pipeline import order
from builder.pipeline.evaluate import evaluate
from builder.recipe import stack as files
from builder.recipe.layers import Layer
from builder.values import dataclass, replace
from builder.wheelhouse import channel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from builder.pipeline.evaluate import Evaluation
    from builder.pipeline.world import World
    from builder.recipe.stack import Loaded
    from builder.stages import Request, Stored

__all__ = ["Made", "build", "load", "promote", "requests"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A member with its wheels; `cached` is whether they were there."""

    one: Evaluation
    wheels: tuple[Stored, ...]
    cached: bool


def load(path: Path) -> Loaded:
    """Return the stack of a file. Raises as `recipe.stack.load`, and UsageError ``channel-name``."""
    loaded = files.load(path)
    if loaded.stack.channel is not None:
        channel.check(loaded.stack.channel)
    return loaded


def requests(loaded: Loaded, base: Request, world: World) -> tuple[tuple[Request, ...], World]:
    """Return the requests for the members in the order of building, and the world in which the stack file counts.

    `base` has the words of the command line, which go before those of the file. Raises RecipeError as recipes do.
    """
    stack = loaded.stack
    silent = {member.recipe: Layer(word="stack", values={}, file=loaded.path) for member in stack.member}
    inside = replace(world, stack={**silent, **loaded.layers})
    wanted = []
    for member in stack.member:
        request = replace(
            base,
            recipe=member.recipe,
            ref=member.ref,
            pulls=member.pr,
            repo=member.repo,
            version=member.version,
            outputs=member.outputs,
            variants=dict(member.variants),
            python=base.python or stack.python,
            arch=base.arch or stack.arch,
        )
        recipe = order.loaded_of(request, inside).recipe
        torch = (base.torch or stack.torch) if recipe.build.torch != "none" else None
        cuda = (base.cuda or stack.cuda) if recipe.system.cuda else None
        wanted.append(replace(request, torch=torch, cuda=cuda))
    return order.ordered(wanted, inside), inside


def build(
    evaluations: Sequence[Evaluation],
    world: World,
    make: Callable[[Evaluation, World], tuple[Evaluation, tuple[Stored, ...]]],
) -> tuple[Made, ...]:
    """Build what the plans miss, by `make`, and return all members with their wheels.

    One whose plan was made for a wheel that then was built from more (a backend that asks for requirements) is planned anew.
    """
    made: dict[str, Made] = {}
    for planned in evaluations:
        stale = any(made[other.plan.recipe].one is not other for other in planned.depends)
        one = evaluate(planned.request, world) if stale else planned
        if one.plan.misses:
            one, wheels = make(one, world)
            made[one.plan.recipe] = Made(one=one, wheels=wheels, cached=False)
        else:
            from builder.pipeline import proof  # noqa: PLC0415  # not where all is built

            proof.renew(one, world, one.plan.hits)
            made[one.plan.recipe] = Made(one=one, wheels=one.plan.hits, cached=True)
    return tuple(made.values())


def promote(loaded: Loaded, made: Sequence[Made], world: World) -> bool:
    """Let the stack's channel list exactly the members' wheels; return whether that changed it."""
    assert loaded.stack.channel is not None  # noqa: S101  # the caller asked
    members = {member.recipe for member in loaded.stack.member}
    wheels = [wheel for one in made if one.one.plan.recipe in members for wheel in one.wheels]
    return channel.promote(world.house, loaded.stack.channel, wheels)
