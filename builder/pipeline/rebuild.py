"""A stored wheel, built again from what was recorded of its inputs, and held against the one that is stored.

Nothing is asked of a moving ref and nothing is published. The tree is one of its own, ``builds/.rebuild-<fingerprint>/``:
the kept one could hand over objects of the first build. The compile cache is an empty one for the same reason; that there is
one is kept, since compilers may be called in another way for it.
"""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING

from builder import events
from builder.audit import compare
from builder.errors import BuildFailed, CheckRefused, HostError, UsageError
from builder.executor import isolation, workspace
from builder.host import floors
from builder.inputs import diff
from builder.pipeline import build
from builder.pipeline import evaluate as evaluation
from builder.pipeline import origin as origins
from builder.pipeline.attempt import AskedForMore, phase, recorded
from builder.values import dataclass, replace

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from builder.audit.compare import Comparison
    from builder.pipeline.attempt import Attempt
    from builder.pipeline.evaluate import Evaluation
    from builder.pipeline.origin import Origin
    from builder.pipeline.world import World
    from builder.stages import Wheel

__all__ = ["PREFIX", "Rebuilt", "rebuild"]

#: What folders of rebuilds are called, followed by the fingerprint. Such a tree is never resumed.
PREFIX = ".rebuild-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilt:
    """The comparisons, stored wheel first. `paths` are where the stored and the new tree lay for their compilers.

    `kept` is the folder with the new wheels, where they were to be kept.
    """

    comparisons: tuple[Comparison, ...]
    paths: tuple[str | None, str]
    kept: Path | None = None

    @property
    def identical(self) -> bool:
        """Whether every wheel came out bit by bit the same."""
        return all(one.identical for one in self.comparisons)


def rebuild(origin: Origin, world: World, *, offline: bool = False, keep: bool = False) -> Rebuilt:
    """Build again what `origin` tells of, and return how the wheels compare. Nothing is published.

    With `keep` the new tree stays, and its wheels. Raises HostError ``inputs-moved`` where the inputs of then can't be had
    any more, ``unwritable`` where the wheelhouse has no place for a tree, and what a build raises; the tree of a failed
    build is kept for a look at it.
    """
    _require_place(origin, world)
    if layer := origins.layer(origin):
        world = replace(world, stack={origin.recipe: layer})
    for _round in range(2):
        one = _evaluated(origin, world, offline=offline)
        _require_same(origin, one)
        _require_depends(one, world)
        world.sink.emit(
            events.PlanMade(
                recipe=origin.recipe,
                fingerprint=origin.fingerprint,
                label=origin.label,
                hits=(),
                misses=tuple(output.name for output in one.outputs),
                reasons=("built again to compare the bits; nothing is published",),
                estimate_s=one.plan.estimate_s,
            )
        )
        with contextlib.suppress(AskedForMore):  # remembered by now, as it was when the wheel was built
            return _rebuild(origin, one, world, keep=keep)
    raise HostError("inputs-moved", f"the backend of {origin.recipe} asks for other requirements than it did")


def _evaluated(origin: Origin, world: World, *, offline: bool) -> Evaluation:
    """Return the evaluation of the recorded request; where only the build environments differ, with those of then."""
    request = origins.request(origin, offline=offline)
    try:
        one = evaluation.evaluate(request, world)
        changes = diff(dict(origin.inputs), dict(one.plan.inputs.document))
        if changes and all(change.path.startswith("requires.") for change in changes):
            return evaluation.evaluate(replace(request, locked=dict(origins.locks(origin.inputs["requires"]))), world)
    except UsageError as error:  # what is asked for was right then: a recipe is gone, or wrong by now
        raise HostError(
            "inputs-moved",
            f"{_name(origin)} can't be built again: {error.summary}",
            cause=error.cause,
            help="put back what has changed: the recipe, and the source folder if it has one, as they were",
            run=_look(origin),
        ) from error
    return one


def _rebuild(origin: Origin, one: Evaluation, world: World, *, keep: bool) -> Rebuilt:
    folder = world.builds / f"{PREFIX}{origin.fingerprint}"
    floors.require(one.loaded.recipe.system, one.plan.host)
    level = isolation.probe(world.env, wanted=one.request.isolation)
    if level.level == "seccomp":
        text = f"no namespaces here ({level.reason}): the tree isn't where the stored wheel's was, paths may differ"
        world.sink.emit(events.Note(level="warning", text=text))
    with contextlib.ExitStack() as held:
        held.enter_context(_locked(folder.name, world))
        if not level.fixed_path:
            held.enter_context(_locked(f"recipe-{origin.recipe}", world))
        workspace.require_space(world.builds, one.plan.disk_bytes)
        shutil.rmtree(folder, ignore_errors=True)
        space = workspace.open_tree(folder, origin.fingerprint, origin.recipe, fixed=level.fixed_path, fresh=True)
        cache = {"path": str(folder / "ccache")}
        apart = replace(world, config=replace(world.config, compile_cache=cache if origin.cached else {}))
        try:
            with recorded(one, apart, space, level) as attempt:
                wheels = build.make(attempt, name=origin.label)
                comparisons = _compared(attempt, origin, wheels)
        except BuildFailed as error:
            error.help = (
                f"it was built from the same inputs before: something else has changed; the tree is {space.root}"
            )
            error.run = (f"less {space.logs / 'build.log'}",)
            raise
        if not keep:
            shutil.rmtree(folder)
        return Rebuilt(
            comparisons=comparisons,
            paths=(_path(origin, world), str(space.inside)),
            kept=space.root / "wheels" if keep else None,
        )


def _path(origin: Origin, world: World) -> str | None:
    """Return where the tree of the stored build lay for its compilers, where that is known."""
    return origin.path or (str(world.builds / origin.fingerprint) if origin.asked.get("level") else None)


def _locked(name: str, world: World) -> contextlib.AbstractContextManager[None]:
    def waiting(holder: str) -> None:
        world.sink.emit(events.Waiting(what="the same build", holder=holder))

    return world.house.build_lock(name, on_wait=waiting)


def _compared(attempt: Attempt, origin: Origin, wheels: Sequence[Wheel]) -> tuple[Comparison, ...]:
    made = {wheel.output: wheel for wheel in wheels}
    with phase(attempt, "audit") as text:
        found = tuple(_pairs(origin, made, attempt.space.root / "tmp"))
        same = sum(one.identical for one in found)
        text.append(f"{same} of {len(found)} bit by bit the same")
    return found


def _pairs(origin: Origin, made: Mapping[str, Wheel], scratch: Path) -> Iterator[Comparison]:
    for stored in origin.wheels:
        wheel = made.get(stored.output)
        if wheel is None:
            raise CheckRefused("rebuild-differs", f"the build made no wheel of {stored.output} this time")
        yield compare.compare(stored.path, wheel.path, explain=True, scratch=scratch)


# --- what has to be as it was


def _name(origin: Origin) -> str:
    return f"{origin.recipe} {origin.fingerprint[:10]}"


def _look(origin: Origin) -> tuple[str, ...]:
    return (f"spark-build wheels show {origin.wheels[0].sha256[:12]} --inputs",)


def _require_place(origin: Origin, world: World) -> None:
    """Raise HostError where the tree of a rebuild can't be made."""
    if world.house.read_only:
        root = world.house.root
        raise HostError(
            "unwritable",
            f"{root} can't be written, and a rebuild needs a place for its tree there",
            help="rebuild in a copy of the wheelhouse, times kept",
            run=(f"cp -a {root} COPY", f"spark-build rebuild {origin.wheels[0].sha256[:12]} --check --wheelhouse COPY"),
        )


def _require_same(origin: Origin, one: Evaluation) -> None:
    """Raise HostError with every input that isn't as it was."""
    if one.plan.inputs.fingerprint == origin.fingerprint:
        return
    from builder.ui.reasons import reasons  # noqa: PLC0415  # only then

    told = reasons(diff(dict(origin.inputs), dict(one.plan.inputs.document)))
    raise HostError(
        "inputs-moved",
        f"{_name(origin)} can't be built again: {len(told)} of its inputs"
        f" {'is' if len(told) == 1 else 'are'} not what it was built from",
        cause="\n".join(told),
        help="put back what has changed: on a host with the tools of then, with the recipe of then",
        run=_look(origin),
    )


def _require_depends(one: Evaluation, world: World) -> None:
    """Raise HostError where a wheel that this was built on is gone."""
    for other in one.depends:
        if not world.house.find(other.plan.inputs.fingerprint):
            name = other.plan.recipe
            text = f"the wheels of {name} {other.plan.inputs.fingerprint[:10]} are gone, on which it was built"
            raise HostError("depends-gone", text, run=(f"spark-build recipe {name}",))
