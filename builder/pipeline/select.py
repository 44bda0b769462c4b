"""What a request means for a recipe: which source, which outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder import source
from builder.errors import RecipeError, UsageError
from builder.recipe import conditions
from builder.recipe.model import Source
from builder.values import dataclass, replace

if TYPE_CHECKING:
    from builder.recipe.model import Loaded, Output
    from builder.stages import Pin, Request

__all__ = ["Facts", "choose_source", "select_outputs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What conditions may ask about; reads from the tree only when one does."""

    pin: Pin
    sources: source.Sources
    arch: str
    cuda: str | None
    torch: str | None
    output: str | None = None

    @property
    def version(self) -> str | None:
        """The source's version, or None where only a commit is known."""
        return self.pin.version

    @property
    def source(self) -> str:
        """The kind of source."""
        return self.pin.kind

    def contains(self, commit: str) -> bool:
        """Whether `commit` is an ancestor of the pinned one, or that itself."""
        return source.contains(self.pin, commit, self.sources)

    def read(self, path: str) -> bytes | None:
        """Return a file of the pinned tree as it is before patches, or None."""
        return source.read(self.pin, path, self.sources)


def choose_source(loaded: Loaded, request: Request) -> Source:
    """Return the source that the request means: ``--ref``, ``--pr`` and ``--repo`` take git, ``--version`` an sdist."""
    if request.source is not None:
        return Source(kind="local", path=str(request.source))
    if request.ref or request.pulls or request.repo:
        wanted: tuple[str, ...] = ("git",)
        flag = "--ref" if request.ref else "--pr" if request.pulls else "--repo"
    elif request.version:
        wanted, flag = ("sdist", "archive"), "--version"
    else:
        return loaded.recipe.source[0]
    for one in loaded.recipe.source:
        if one.kind in wanted:
            return one
    kinds = ", ".join(one.kind for one in loaded.recipe.source)
    raise UsageError(
        "source-kind",
        f"{flag} needs a {' or '.join(wanted)} source, and the recipe {loaded.recipe.name} has none",
        cause=f"its sources: {kinds}",
        run=(f"spark-build recipes show {loaded.recipe.name}",),
    )


def select_outputs(loaded: Loaded, request: Request, facts: Facts) -> tuple[Output, ...]:
    """Return the outputs to build: those asked for, else the default ones whose conditions hold.

    Raises UsageError for a name that the recipe doesn't have or whose condition doesn't hold for this source.
    """
    recipe = loaded.recipe
    names = [output.name for output in recipe.output]
    asked = names if request.outputs == ("all",) else list(request.outputs)
    if unknown := [name for name in asked if name not in names]:
        raise UsageError(
            "output-missing",
            f"the recipe {recipe.name} has no output {unknown[0]}",
            cause=f"its outputs: {', '.join(names)}",
            run=(f"spark-build recipes show {recipe.name}",),
        )
    chosen = []
    for output in recipe.output:
        if output.name not in asked if asked else not output.default:
            continue
        if conditions.holds(output.when, replace(facts, output=output.name)):
            chosen.append(output)
        elif asked and request.outputs != ("all",):
            raise UsageError(
                "output-condition",
                f"{output.name} can't be built from this source",
                cause=f"it has a condition that {facts.pin.kind} {facts.pin.version or facts.pin.commit or ''} doesn't meet",
                run=(f"spark-build recipes show {recipe.name}",),
            )
    if not chosen:
        raise RecipeError("no-output", f"no output of {recipe.name} can be built from this source")
    return tuple(chosen)
