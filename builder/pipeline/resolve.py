"""What has to be found out once for a source: which patches apply, what the build environments hold.

The wheelhouse remembers the answers under everything that they depend on, so the next evaluation asks nobody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from builder import digest
from builder.inputs import AppliedPatch
from builder.recipe import conditions
from builder.stages import EnvLock, Locked
from builder.values import dataclass, replace

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from builder import patches, source
    from builder.digest import Json
    from builder.pipeline.select import Facts
    from builder.pipeline.world import World
    from builder.recipe.model import Loaded, Output
    from builder.stages import Host, Pin, Request, Torch

__all__ = ["Basis", "applied", "dynamic", "locks", "remember_dynamic"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """What is known of an evaluation before patches and environments are.

    `provided` names the projects that come from recipes which this one builds on; the index is never asked for them.
    """

    loaded: Loaded
    request: Request
    world: World
    pin: Pin
    host: Host
    torch: Torch | None
    facts: Facts
    sources: source.Sources
    provided: tuple[str, ...] = ()


def applied(basis: Basis, outputs: Sequence[Output]) -> tuple[tuple[patches.Candidate, ...], tuple[AppliedPatch, ...]]:
    """Return the patches to apply, in order; raise PatchDrift for one that applies neither forwards nor backwards.

    The tree is one for all `outputs`: a patch that asks for an output applies where one of them matches.
    """
    recipe, facts, house = basis.loaded.recipe, basis.facts, basis.world.house
    if not recipe.patch:
        return (), ()
    from builder import patches  # noqa: PLC0415  # few recipes have any

    key = digest.sha256_json(
        {
            "pin": basis.pin.identity(),
            "patches": [[patch.id, patch.sha256, patch.on_upstream, repr(patch.when)] for patch in recipe.patch],
            "facts": [facts.arch, facts.cuda, facts.torch],
            "outputs": [output.name for output in outputs],
        }
    )
    by_id = {
        patch.id: patches.Candidate(
            id=patch.id, file=basis.loaded.patches[patch.id], sha256=patch.sha256, on_upstream=patch.on_upstream
        )
        for patch in recipe.patch
    }
    known = house.recall("patches", key)
    if known is None:
        each = [replace(facts, output=output.name) for output in outputs]
        wanted = [by_id[patch.id] for patch in recipe.patch if any(conditions.holds(patch.when, one) for one in each)]
        tried = patches.evaluate(wanted, facts.read, scratch=basis.world.builds, env=basis.world.env)
        known = {"applied": [patch.id for patch in tried.applied], "skipped": list(tried.skipped)}
        house.remember("patches", key, known)
    chosen = tuple(by_id[name] for name in known["applied"])
    return chosen, tuple(AppliedPatch(id=one.id, sha256=one.sha256) for one in chosen)


def locks(
    basis: Basis, outputs: Sequence[Output], candidates: Sequence[patches.Candidate]
) -> tuple[tuple[EnvLock, ...], dict[str, str]]:
    """Return the build environment of each output, and the key under which `remember_dynamic` adds to it."""
    found, keys = [], {}
    for output in outputs:
        source = _source_key(basis, output, candidates)
        keys[output.name] = digest.sha256_json(source)
        if taken := basis.request.locked.get(output.name):
            found.append(taken)
            continue
        more = dynamic(basis.world, keys[output.name])
        # A patch that leaves the requirements alone leaves the lock alone: nobody has to be asked again.
        key = digest.sha256_json(source | {"patches": _touching(_pyproject(output), candidates), "more": list(more)})
        known = None if basis.request.relock else basis.world.house.recall("lock", key)
        if known is None:
            lock = _resolve(basis, output, candidates, more)
            basis.world.house.remember("lock", key, _as_json(lock))
        else:
            lock = _from_json(output.name, known)
        found.append(lock)
    return tuple(found), keys


def dynamic(world: World, key: str) -> tuple[str, ...]:
    """Return what a backend asked for before, beyond its static requirements."""
    return tuple((world.house.recall("dynamic", key) or {}).get("requires", ()))


def remember_dynamic(world: World, key: str, requires: Sequence[str]) -> None:
    """Keep what a backend asked for beyond its static requirements (PEP 517); the next evaluation locks it too."""
    world.house.remember("dynamic", key, {"requires": [*dynamic(world, key), *requires]})


def _source_key(basis: Basis, output: Output, candidates: Sequence[patches.Candidate]) -> dict[str, Json]:
    """Return all that may change what an output's build asks for."""
    build, python = basis.loaded.recipe.build, basis.host.interpreter
    return {
        "pin": basis.pin.identity(),
        "patches": [one.sha256 for one in candidates],
        "path": output.path,
        "add": [*build.requires_add, *output.requires_add],
        "remove": [*build.requires_remove, *basis.provided],
        "pin-requires": list(build.requires_pin),
        "python": [python.version, python.tag, basis.host.machine, basis.host.libc],
        "torch": basis.torch.identity() if basis.torch else None,
    }


def _pyproject(output: Output) -> str:
    return f"{output.path}/pyproject.toml".removeprefix("./")


def _touching(path: str, candidates: Sequence[patches.Candidate]) -> list[Json]:
    """Return the digests of the patches that may change `path`: those that name it."""
    return [one.sha256 for one in candidates if path.encode() in one.file.read_bytes()]


def _resolve(basis: Basis, output: Output, candidates: Sequence[patches.Candidate], more: Sequence[str]) -> EnvLock:
    from builder import buildenv  # noqa: PLC0415  # not on the hit path

    build, world = basis.loaded.recipe.build, basis.world
    wanted = buildenv.requires(
        _patched(_pyproject(output), basis, candidates),
        add=(*build.requires_add, *output.requires_add, *more),
        remove=(*build.requires_remove, *basis.provided),
        torch=basis.torch,
    )
    return buildenv.resolve(
        wanted,
        output=output.name,
        constraints=build.requires_pin,
        python=basis.host.interpreter.path,
        index_url=world.config.index_url,
        env=world.uv_env,
        scratch=world.builds,
        torch=basis.torch,
        offline=basis.request.offline,
        recipe=basis.loaded.recipe.name,
    )


def _patched(path: str, basis: Basis, candidates: Sequence[patches.Candidate]) -> bytes | None:
    """Return a file of the pinned tree as the patches leave it."""
    if candidates:
        from builder import patches  # noqa: PLC0415

        tried = patches.evaluate(candidates, basis.facts.read, scratch=basis.world.builds, env=basis.world.env)
        if path in tried.touched:  # or deleted
            return tried.files.get(path)
    return basis.facts.read(path)


def _as_json(lock: EnvLock) -> dict[str, Json]:
    return {
        "text": lock.text,
        "packages": [{"name": p.name, "version": p.version, "sha256": list(p.sha256)} for p in lock.packages],
    }


def _from_json(output: str, value: Mapping[str, Any]) -> EnvLock:
    packages = (
        Locked(name=one["name"], version=one["version"], sha256=tuple(one["sha256"])) for one in value["packages"]
    )
    return EnvLock(output=output, text=value["text"], packages=tuple(packages))
