"""Making a bundle: resolved, reckoned, brought here, written."""

from __future__ import annotations

import concurrent.futures
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from builder.bundle import JOBS, companions, download, layout, manifest, newer, origins, ours, resolve
from builder.recipe import find
from builder.values import dataclass, replace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from builder.bundle.companions import Known
    from builder.bundle.download import Progress
    from builder.bundle.manifest import Manifest
    from builder.bundle.origins import Origins
    from builder.bundle.ours import Ours
    from builder.bundle.resolve import Closure, Piece
    from builder.bundle.target import Target
    from builder.pipeline.world import World
    from builder.source import Sources
    from builder.stages import Stored

__all__ = ["Made", "Planned", "bring", "make", "plan", "sized"]


def _piece(one: Stored) -> Piece:
    return resolve.Piece(
        project=one.project,
        version=one.version,
        filename=one.filename,
        url=one.path.as_uri(),
        sha256=one.sha256,
        size=one.size,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What a bundle will hold.

    `known` is what no metadata says of the wheels; `since` has what names the other side's bundle, and its digests;
    `origins` is what ours were built from.
    """

    target: Target
    requirements: tuple[str, ...]
    closure: Closure
    ours: Ours
    known: Known
    since: tuple[str, frozenset[str]] = ("", frozenset())
    origins: Origins | None = None

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """All wheels, those that install the others and those of build environments last."""
        more = (*self.origins.wheels, *map(_piece, self.origins.below)) if self.origins else ()
        every = (*self.closure.pieces, *self.closure.tools, *more)
        return tuple({piece.sha256: piece for piece in every}.values())

    @property
    def wanted(self) -> tuple[Piece, ...]:
        """The wheels that the other side lacks."""
        return tuple(piece for piece in self.pieces if piece.sha256 not in self.since[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A bundle that was written: where, its manifest and that one's bytes, and what came over the network."""

    path: Path
    manifest: Manifest
    text: bytes
    progress: Progress

    @property
    def size(self) -> int:
        """The bytes of all files that lie in the folder."""
        left = frozenset(self.manifest.lacks)
        return len(self.text) + sum(one.size for path, one in self.manifest.files.items() if path not in left)


def plan(  # noqa: PLR0913  # what is asked for, and how
    requirements: Sequence[str],
    target: Target,
    world: World,
    *,
    channel: str = "local",
    public: Sequence[str] = (),
    words: Sequence[str] = (),
    allow_older: bool = False,
    since: Path | None = None,
    with_sources: bool = False,
) -> Planned:
    """Return what a bundle for `requirements` would hold. Raises as `resolve` does, and as `manifest.load` for `since`.

    Wheels that `channel` lists are taken before all others, and alone for their names but for `public`.
    """
    have: tuple[str, frozenset[str]] = ("", frozenset())
    if since is not None:
        base, data = manifest.load(since)
        have = manifest.identity(data), base.digests()
    mine = ours.of_channel(world.house, channel)
    known = companions.read(find.folders(world.config.recipe_layers))
    with tempfile.TemporaryDirectory(prefix="spark-build-ours-") as folder:
        asked = resolve.Asked(
            requirements=tuple(requirements),
            target=target,
            overrides=mine.overrides(requirements, world.config),
            ours=mine.index(Path(folder), public=public) if mine.projects else None,
            words=tuple(words),
            known=known,
        )
        closure = resolve.resolve(asked, env=world.uv_env, index_url=world.config.index_url, allow_older=allow_older)
    public_ones = {one.project: one for one in closure.pieces if one.sha256 not in mine.wheels}
    told = (*_unread(known), *newer.notes(requirements, public_ones, world.sources(offline=False, recipe="NAME")))
    closure = replace(closure, notes=(*closure.notes, *told))
    sized = tuple(_sized(piece, mine) for piece in closure.pieces)
    built = [mine.wheels[piece.sha256] for piece in sized if piece.sha256 in mine.wheels]
    return Planned(
        target=target,
        requirements=tuple(requirements),
        closure=replace(closure, pieces=sized),
        ours=mine,
        known=known,
        since=have,
        origins=origins.gather(built, world, target) if with_sources else None,
    )


def _unread(known: Known) -> Iterator[str]:
    for name in known.problems:
        yield f"the recipe {name} has mistakes, so what its wheels need isn't known; spark-build recipes lint {name}"


def _sized(piece: Piece, mine: Ours) -> Piece:
    stored = mine.wheels.get(piece.sha256)
    return replace(piece, size=stored.size) if stored and piece.size is None else piece


def sized(planned: Planned, sources: Sources) -> Planned:
    """Return the plan with the sizes that the index didn't say, as far as the files' servers do."""
    from builder.source.download import length  # noqa: PLC0415

    def with_size(piece: Piece) -> Piece:
        return piece if piece.size is not None else replace(piece, size=length(piece.url, sources))

    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        pieces, tools = (tuple(pool.map(with_size, some)) for some in (planned.closure.pieces, planned.closure.tools))
    return replace(planned, closure=replace(planned.closure, pieces=pieces, tools=tools))


def bring(planned: Planned, sources: Sources, *, jobs: int, tell: Callable[[Progress], None]) -> Progress:
    """Bring in every wheel that isn't at hand, those that a delta leaves out, too: its pages name them.

    Raises as `download.bring` does.
    """
    return download.bring(planned.pieces, sources, jobs=jobs, tell=tell)


def make(
    planned: Planned,
    dest: Path,
    sources: Sources,
    *,
    sign: Callable[[bytes], bytes] | None,
    progress: Progress,
    tell: Callable[[int, int], None] = lambda _done, _total: None,
) -> Made:
    """Write the bundle, whose wheels are all at hand. Raises as `layout.contents`, `claim` and `write` do."""
    below = planned.origins.below if planned.origins else ()
    what = layout.contents(
        planned.closure.pieces,
        planned.closure.tools,
        planned.pieces,
        lambda piece: download.place_of(piece, sources),
        target=planned.target,
        asked=planned.requirements,
        built={**planned.ours.wheels, **{one.sha256: one for one in below}},
        below=[_piece(one) for one in below],
        more=planned.origins.files if planned.origins else {},
        known=planned.known,
    )
    identity, known = planned.since
    if identity:
        lacks = tuple(path for path, one in what.manifest.files.items() if one.sha256 in known)
        what = replace(what, manifest=replace(what.manifest, since=identity, lacks=lacks))
    text = layout.write(dest, what, sign=sign, tell=tell)
    return Made(path=dest, manifest=what.manifest, text=text, progress=progress)
