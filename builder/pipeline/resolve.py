"""What has to be found out once for a source: which patches apply, what the build environments hold.

The wheelhouse remembers the answers under everything that they depend on, so the next evaluation asks nobody.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder import digest, pinned, source
from builder.recipe import conditions
from builder.recipe.nested import TOOLKIT
from builder.stages import EnvLock, Locked
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from builder import patches
    from builder.digest import Json
    from builder.host import Machine
    from builder.inputs import AppliedPatch
    from builder.pipeline.select import Facts
    from builder.pipeline.world import World
    from builder.recipe.model import Loaded, Output
    from builder.stages import Host, Nested, Pin, Request, Torch

__all__ = ["Basis", "applied", "dynamic", "locks", "nested", "remember_dynamic"]


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


def applied(
    basis: Basis, outputs: Sequence[Output]
) -> tuple[tuple[patches.Candidate, ...], tuple[AppliedPatch, ...], tuple[str, ...]]:
    """Return the patches to apply, in order, those as inputs, and a line for each of which something has to be said.

    Raises PatchDrift for one that fits neither as it is nor by a merge without a conflict.
    """
    if not basis.loaded.recipe.patch:
        return (), (), ()
    from builder.pipeline import patching  # noqa: PLC0415  # few recipes have any

    return patching.applied(basis, outputs)


def nested(
    basis: Basis, candidates: Sequence[patches.Candidate], machine: Machine, *, bring: bool
) -> tuple[Nested, ...]:
    """Return what the patched tree pulls in, exact; with `bring` archives of which nobody knows a digest are fetched for it.

    Raises RecipeError ``fetch-pin`` where the tree holds no pin, and SourceError as a fetch does.
    """
    recipe, house, request = basis.loaded.recipe, basis.world.house, basis.request
    if not recipe.fetch:
        return ()
    facts = {
        "machine": basis.host.machine,
        "version": basis.pin.version or "",
        "commit": basis.pin.commit or "",
        "cuda": basis.facts.cuda or "",
    }
    toolkit = Path(basis.host.cuda.path) if basis.host.cuda else None
    key = digest.sha256_json(
        {
            "pin": basis.pin.identity(),
            "patches": [one.sha256 for one in candidates],
            "fetch": repr(recipe.fetch),
            "facts": [*facts.values(), basis.facts.arch, basis.facts.torch],
            "paths": {one.path: _put(one.path, toolkit, machine) for one in recipe.fetch if one.path},
            "known": {name: pin.identity() for name, pin in request.nested.items()},
        }
    )
    # A login in a URL is remembered nowhere: it is read again for what may have to be fetched.
    urls = [url for one in recipe.fetch for url in (one.url, *(layout.url for layout in one.layout))]
    private = any(map(source.private, urls))
    known = None if request.relock or private else house.recall("nested", key)
    if known is not None:
        return tuple(pinned.nested_of(one) for one in known["nested"])
    from builder.source import nested as sources  # noqa: PLC0415  # not on the hit path

    found = sources.resolve(
        recipe.fetch,
        read=_reader(basis, candidates),
        holds=lambda condition: conditions.holds(condition, basis.facts),
        facts=facts,
        sources=basis.sources,
        digest=machine.digest,
        known=request.nested,
        toolkit=toolkit,
        bring=bring,
        relock=request.relock,
        owner=f"{recipe.name} {basis.pin.tree}",
        held=request.pinned is not None,
    )
    if all(one.known for one in found):
        house.remember("nested", key, {"nested": [pinned.nested_json(one) for one in found]})
    return found


def _put(path: str, toolkit: Path | None, machine: Machine) -> str:
    """Return the digest of what somebody put in place of a nested source; empty where there is nothing."""
    place = toolkit / path.removeprefix(TOOLKIT) if path.startswith(TOOLKIT) and toolkit else Path(path)
    return machine.digest(place) if place.exists() else ""


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
        _reader(basis, candidates)(_pyproject(output)),
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


def _reader(basis: Basis, candidates: Sequence[patches.Candidate]) -> Callable[[str], bytes | None]:
    """Return what reads a file of the pinned tree as the patches leave it."""
    if not candidates:
        return basis.facts.read
    from builder import patches  # noqa: PLC0415
    from builder.pipeline import patching  # noqa: PLC0415

    objects, commit = patching.history(basis.pin, basis.sources)
    tried = patches.evaluate(
        candidates,
        basis.facts.read,
        scratch=basis.world.builds,
        env=basis.world.env,
        objects=objects,
        commit=commit,
    )

    def read(path: str) -> bytes | None:
        return tried.files.get(path) if path in tried.touched else basis.facts.read(path)  # or deleted

    return read


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
