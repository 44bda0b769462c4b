"""``--with-sources``: what a build of our wheels reads, so that the other side can build them again.

All of it lies in the bundle as it lies in the cache, below ``sources/``: archives by digest with what is known of them, git
mirrors, vendored crates. The wheels of build environments are on the bundle's index with all others.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from builder.bundle import admit, resolve
from builder.errors import CheckRefused, UsageError
from builder.values import dataclass, replace

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from builder.bundle.resolve import Piece
    from builder.bundle.target import Target
    from builder.pipeline.evaluate import Evaluation
    from builder.pipeline.origin import Origin
    from builder.pipeline.world import World
    from builder.source import Sources
    from builder.stages import EnvLock, Pin, Stored

__all__ = ["Origins", "gather"]

#: What of a mirror is needed to read from it, and what its refs were last known to be.
_MIRROR = ("HEAD", "config", "packed-refs", "shallow", "refs", "objects", "spark-build.json", "info/attributes")

#: Folders of the cache that say what is known of archives.
_RECORDS = ("archives", "sdists")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origins:
    """Files of the cache by their path in the bundle, wheels of build environments, and ours that ours were built on."""

    files: dict[str, Path]
    wheels: tuple[Piece, ...]
    below: tuple[Stored, ...]


def gather(stored: Iterable[Stored], world: World, target: Target) -> Origins:
    """Bring in and return what was read to build `stored`, and what they were built on. Raises as `rebuild` and `fetch` do.

    Raises UsageError ``no-inputs`` for one that wasn't built by spark-build, ``source-local`` for one of a folder;
    CheckRefused ``requirement-changed`` where the index has other files of a build requirement than were used.
    """
    from builder.pipeline import origin  # noqa: PLC0415

    files: dict[str, Path] = {}
    wheels: dict[str, Piece] = {}
    below: dict[str, Stored] = {}
    # A wheel from elsewhere has no fingerprint: nobody knows how it was made. What is built on is found on the way.
    waiting = list(dict.fromkeys(one.fingerprint for one in stored if one.fingerprint))
    for fingerprint in waiting:
        known = origin.of(world.house, origin.choose(world.house, fingerprint, cwd=Path("/")))
        for one in (each for other in known.inputs.get("builds-on", {}).values() for each in world.house.find(other)):
            below[one.sha256] = one
            waiting += [one.fingerprint] if one.fingerprint not in waiting else []
        evaluation, locks = _evaluated(known, world)
        sources = world.sources(offline=False, recipe=known.recipe)
        _fetch(evaluation, sources)
        files |= _kept([evaluation.plan.pin, *(each.pin for each in evaluation.nested if each.pin)], sources)
        builder = replace(target, python=_dotted(str(known.inputs["host"]["python"]["tag"])))
        for lock in locks:
            wheels |= {piece.sha256: piece for piece in _required(lock, builder, world)}
    return Origins(files=files, wheels=tuple(wheels[digest] for digest in sorted(wheels)), below=tuple(below.values()))


def _dotted(tag: str) -> str:
    """Return ``3.12`` for ``cp312``."""
    digits = tag.removeprefix("cp").rstrip("t")
    return f"{digits[0]}.{digits[1:]}"


def _evaluated(known: Origin, world: World) -> tuple[Evaluation, tuple[EnvLock, ...]]:
    """Return the evaluation of the recorded request, and the build environments of then."""
    from builder.pipeline import evaluate, origin  # noqa: PLC0415

    if known.inputs["source"]["kind"] == "local":
        raise UsageError(
            "source-local",
            f"{known.recipe} {known.fingerprint[:10]} was built from a folder",
            help="a bundle with sources wants those that have a commit or a digest: build it from one",
            run=(f"spark-build recipe {known.recipe}",),
        )
    if layer := origin.layer(known):
        world = replace(world, stack={known.recipe: layer})
    locks = dict(origin.locks(known.inputs["requires"]))
    request = replace(origin.request(known, offline=False), locked=locks)
    return evaluate.evaluate(request, world, purpose="fetch"), tuple(locks.values())


def _fetch(one: Evaluation, sources: Sources) -> None:
    from builder import source  # noqa: PLC0415
    from builder.source import nested  # noqa: PLC0415

    source.fetch(one.plan.pin, sources)
    nested.fetch(one.nested, sources, read=lambda path: source.read(one.plan.pin, path, sources))


def _kept(pins: Sequence[Pin], sources: Sources) -> dict[str, Path]:
    """Return what of the cache holds `pins`, by its path in a bundle."""
    digests = [pin.tree.removeprefix("sha256:") for pin in pins if pin.tree.startswith("sha256:")]
    found = [file for pin in pins for file in _of(pin, sources)]
    for folder in _RECORDS:
        records = sorted((sources.root / folder).rglob("*.json"))
        found += [file for file in records if any(digest in file.read_text() for digest in digests)]
    named = {str(file.relative_to(sources.root)): file for file in found}
    return {f"sources/{inner}": file for inner, file in named.items() if admit.carried(inner)}


def _of(pin: Pin, sources: Sources) -> Iterator[Path]:
    from builder.source import archive, crates, mirror  # noqa: PLC0415

    if pin.kind == "crates":
        folder = crates.folder_of(pin, sources)
        yield folder.with_name(f"{folder.name}.lock")
        yield from (file for file in sorted(folder.rglob("*")) if file.is_file())
    elif pin.kind in {"archive", "sdist"}:
        yield archive.file_of(pin, sources)
    elif pin.kind == "git":
        for url in dict.fromkeys([pin.url, *(one.url for one in pin.submodules)]):
            for name in _MIRROR:
                place = mirror.Mirror(url, sources).path / name
                yield from [place] if place.is_file() else (one for one in sorted(place.rglob("*")) if one.is_file())


def _required(lock: EnvLock, target: Target, world: World) -> Iterator[Piece]:
    """Yield the wheels that fill a build environment on the target."""
    if not lock.packages:
        return
    wanted = [f"{one.name}=={one.version}" for one in lock.packages]
    allowed = {one.name: one.sha256 for one in lock.packages}
    for piece in resolve.exact(wanted, target, env=world.uv_env, index_url=world.config.index_url):
        if piece.sha256 not in allowed.get(piece.project, ()):
            raise CheckRefused(
                "requirement-changed",
                f"{piece.filename} isn't a file that {lock.output} was built with",
                cause=f"the index has sha256 {piece.sha256}",
                help="the index gained a file for this release; build it again, then the bundle",
                run=("spark-build recipe NAME --relock",),
            )
        yield piece
