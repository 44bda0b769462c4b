"""Locks and requests: what an evaluation is written down as, and a request that is held to what was written down."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

from builder import lockfile
from builder.errors import UsageError
from builder.lockfile import Lock, LockedRecipe
from builder.pipeline import asked, order
from builder.recipe.layers import Layer
from builder.recipe.model import OUTSIDE
from builder.values import replace

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from builder.pipeline.evaluate import Evaluation
    from builder.pipeline.world import World
    from builder.recipe.model import Loaded
    from builder.stages import Request

__all__ = ["again", "held", "hold", "incomplete", "of", "require", "update"]


def of(evaluations: Sequence[Evaluation], world: World) -> Lock:
    """Return what was found out for recipes as a lock. What has to be known of each nested source is known by then."""
    return Lock(recipes={one.plan.recipe: _entry(one, world) for one in evaluations})


def update(path: Path, new: Lock, *, keep: bool) -> tuple[bool, tuple[str, ...]]:
    """Write `new` to `path`; return whether the file had to be changed, and in words what is otherwise than before.

    With `keep`, recipes of the old lock that `new` doesn't hold stay; several processes may do so at once. Raises UsageError
    ``lock-damaged`` or ``lock-schema`` for one that can't be kept.
    """
    from builder.wheelhouse import locks  # noqa: PLC0415

    with locks.folder_lock(path.parent, shared=False):
        try:
            old = lockfile.read(path)
        except UsageError as error:
            if keep and error.code != "lock-missing":
                raise
            old = Lock()
        lock = Lock(recipes={**old.recipes, **new.recipes}) if keep else new
        return lockfile.write(path, lock), lockfile.differences(old, lock)


def again(path: Path, base: Request, world: World) -> tuple[tuple[Request, ...], World]:
    """Return requests for what the lock at `path` was made of, with the words of `base` where that says something.

    They come in an order in which what is built on comes first. Raises as `lockfile.read` does, and UsageError
    ``lock-stale`` where something has to be given again that isn't written down.
    """
    lock = lockfile.read(path)
    inside = replace(world, stack=_layers(lock, path))
    for name, entry in lock.recipes.items():
        if lacking := [f"{name}: {text}" for text in asked.hidden(entry, base, site=_site(world), layer=True)]:
            raise _stale(lacking, path, [asked.filled(replace(base, recipe=name), entry)])
    wanted = [asked.filled(replace(base, recipe=name), entry) for name, entry in lock.recipes.items()]
    return order.ordered(wanted, inside), inside


# --- an evaluation, written down


def _entry(one: Evaluation, world: World) -> LockedRecipe:
    target, document = dict(one.plan.inputs.document)["target"], one.plan.inputs.document
    assert isinstance(target, dict)  # noqa: S101  # so `inputs.collect` makes it
    env = document["env"]
    assert isinstance(env, dict)  # noqa: S101
    layer = world.stack.get(one.plan.recipe)
    return LockedRecipe(
        name=one.plan.recipe,
        asked=asked.words(one.request, python=world.config.build.get("python")),
        layer=asked.masked(dict(layer.values)) if layer else {},
        tables=_tables(one.loaded),
        target={
            "machine": str(target["machine"]),
            "python": str(target["python"]),
            "arch": str(target["arch"]),
            "cuda": ".".join(str(target["cuda"] or "").split(".")[:2]),
        },
        arch=one.arch,
        torch=one.torch.identity() if one.torch else None,
        source=one.plan.pin,
        nested={nested.id: nested.pin for nested in one.nested if nested.pin},
        replaced={nested.id: nested.digest or "" for nested in one.nested if not nested.pin},
        patches=_patches(document["patches"]),
        env={name: asked.told(name, str(value)) for name, value in env.items()},
        envs={lock.output: lock for lock in one.locks},
        outputs=tuple(output.name for output in one.outputs),
        overrides=tuple(_overrides(one)),
    )


def _patches(listed: Any) -> dict[str, str]:  # noqa: ANN401  # JSON
    return {str(patch["id"]): str(patch["sha256"]) for patch in listed}


def _tables(loaded: Loaded) -> dict[str, str]:
    """Return a digest of each table of the recipe that counts, as it is written: the same on every machine."""
    return {
        name: lockfile.digest_of(json.dumps(table, sort_keys=True, default=str))
        for name, table in sorted(loaded.raw.items())
        if name not in {*OUTSIDE, "schema", "name"}
    }


def _overrides(one: Evaluation) -> Iterator[str]:
    pinned = {output.name for output in one.outputs if output.pinned_by}
    for wheel in one.plan.hits:
        if wheel.output in pinned:
            yield f"{wheel.project}=={wheel.version}"


# --- a request, held to a lock


def hold(
    requests: Sequence[Request], world: World, path: Path, *, frozen: bool
) -> tuple[tuple[Request, ...], World, Lock]:
    """Return the requests with sources and build environments of the lock at `path`, and the world that they hold in.

    Recipes that they build on are held, too. Raises UsageError ``lock-missing``, ``lock-damaged``, ``lock-schema``, or
    ``lock-stale`` where the lock is for something else; with `frozen` only where other words are asked for.
    """
    lock = lockfile.read(path)
    inside = world if world.stack else replace(world, stack=_layers(lock, path))
    done: dict[str, Request] = {}

    def take(request: Request) -> Request:
        if request.recipe not in done:
            entry = _of(lock, request, path)
            filled = asked.filled(request, entry)
            loaded = order.loaded_of(filled, inside)
            lacking = asked.hidden(entry, request, site=_site(world), layer=inside is not world)
            one = held(request, lock, loaded, frozen=frozen, path=path, lacking=tuple(lacking))
            below = {name: take(request.below.get(name) or request.beneath(name)) for name in loaded.recipe.builds_on}
            done[request.recipe] = replace(one, below=below)
        return done[request.recipe]

    return tuple(take(request) for request in requests), inside, lock


def held(
    request: Request, lock: Lock, loaded: Loaded, *, frozen: bool, path: Path, lacking: Sequence[str] = ()
) -> Request:
    """Return `request` with pins, nested sources, build environments and torch of the lock; no remote is asked for them.

    What the request leaves open is as it was when it was locked. Raises UsageError ``lock-stale`` where it asks for
    something else, where something is `lacking` in it, or (unless `frozen`) where the recipe was changed.
    """
    entry = _of(lock, request, path)
    wrong = [*asked.others(request, entry), *lacking]
    if not wrong and not frozen:  # other words may well make another recipe of it
        wrong += _other_tables(entry.tables, _tables(loaded))
    if wrong:
        raise _stale([f"{entry.name}: {text}" for text in wrong], path, (request,))
    one = asked.filled(request, entry)
    torch = request.torch if loaded.recipe.build.torch == "none" else one.torch
    local = entry.source.kind == "local"  # its bytes are kept nowhere: the folder is looked at
    return replace(
        one,
        torch=torch,
        pinned=None if local else entry.source,
        nested=dict(entry.nested),
        locked=dict(entry.envs),
        relock=False,
    )


def require(evaluations: Sequence[Evaluation], lock: Lock, world: World, path: Path) -> None:
    """Raise UsageError ``lock-stale`` where what was found out for locked recipes isn't what the lock says."""
    new = of(evaluations, world)
    old = Lock(recipes={name: lock.recipes[name] for name in new.recipes if name in lock.recipes})
    if wrong := lockfile.differences(old, new):
        raise _stale(list(wrong), path, [one.request for one in evaluations])


def incomplete(one: Evaluation, wanted: Sequence[str]) -> UsageError:
    """Return the error for a backend that asks for requirements which the lock it is held to doesn't have."""
    return UsageError(
        "lock-stale",
        f"the backend of {one.plan.recipe} asks for more than was locked",
        cause=f"it asks for {', '.join(wanted)}, which nobody knew before it was run",
        help="it is known now: lock once more, then build",
        run=(f"spark-build lock {one.plan.recipe}",),
    )


def _site(world: World) -> Mapping[str, str]:
    found: Mapping[str, str] = world.config.build.get("env", {})
    return found


def _layers(lock: Lock, path: Path) -> dict[str, Layer]:
    """Return what the stack file said that was locked."""
    return {
        name: Layer(word="lock", values=entry.layer, file=path) for name, entry in lock.recipes.items() if entry.layer
    }


def _of(lock: Lock, request: Request, path: Path) -> LockedRecipe:
    if request.recipe in lock.recipes:
        return lock.recipes[request.recipe]
    text = f"{path.name} doesn't hold it; it holds {', '.join(sorted(lock.recipes)) or 'nothing'}"
    raise _stale([f"{request.recipe}: {text}"], path, (request,))


def _other_tables(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            yield f"[{name}] of the recipe was changed since"


def _stale(wrong: Sequence[str], path: Path, requests: Sequence[Request]) -> UsageError:
    from builder.ui.plan import command  # noqa: PLC0415  # only for the message

    lines = []
    for request in requests:
        env = {name: asked.told(name, value) for name, value in request.env.items()}
        fresh = replace(request, env=env, offline=False, relock=False, force=False)
        words = shlex.split(command(fresh))
        words[1] = "lock"
        words += ["--lock", str(path)] if path.name != lockfile.NAME else []
        lines.append(shlex.join(words))
    many = f"{len(wrong)} things" if len(wrong) > 1 else "a thing"
    return UsageError(
        "lock-stale",
        f"{path.name} is for something else: {many} differ{'' if len(wrong) > 1 else 's'}",
        cause="\n".join(wrong),
        help="lock what is asked for now, or ask for what is locked",
        run=tuple(dict.fromkeys(lines)),
    )
