"""The wheelhouse as a package index that needs no program of ours: a tree of files.

::

    simple/index.html  index.json               the projects
    simple/<project>/index.html  index.json     its wheels (PEP 503; PEP 691)
    files/<sha256>/<wheel>                      the wheel, and beside it <wheel>.metadata (PEP 658, 714)
    .spark-build-index                          what of this folder is ours

All links are relative, so that the tree works from ``file://``, from any web server and from a stick. Digests, sizes and
METADATA come from the catalogue, where the publish stored them; nothing is computed here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.errors import WheelhouseError
from builder.index import manifest
from builder.index.listing import read, state, whole
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from builder.index.listing import House, Listing
    from builder.index.tree import Written

__all__ = ["Exported", "export", "index_url", "lacking", "refresh"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """A tree that was written. `url` is that of its ``simple`` folder; `written` counts what this run did."""

    path: Path
    url: str
    channel: str
    projects: tuple[str, ...]
    wheels: int
    written: Written


def export(house: House, dest: Path, *, channel: str = "local") -> Exported:
    """Make `dest` show exactly what `channel` lists now; files that are right already aren't touched.

    Raises UsageError ``channel-missing``, ``not-an-index`` (the folder holds other things) or ``index-newer``; HostError
    ``unwritable`` or ``disk-full``; WheelhouseError ``wheel-missing`` or ``wheel-changed`` when the
    wheelhouse lacks what its catalogue says. Pages are replaced one by one, each at once, wheels before the pages that
    name them.
    """
    listing, written = _show(house, dest, channel)
    return Exported(
        path=dest,
        url=_url(dest),
        channel=channel,
        projects=tuple(listing.projects),
        wheels=sum(len(files) for files in listing.projects.values()),
        written=written,
    )


def refresh(house: House) -> Path:
    """Bring the wheelhouse's own index up to date and return its folder; two small reads when nothing changed.

    A wheel whose file is gone isn't listed, and looked for again the next time: one lost file must not keep the others
    from being installed. A wheelhouse that can't be written keeps the index that it has. Raises HostError
    ``disk-full`` or ``unwritable``; what was published stays, and the next call repairs the index.
    """
    dest = house.root / "index"
    if not house.read_only and not manifest.shows(dest, state(house, "local")):
        _show(house, dest, "local", whole)
    return dest


def lacking(house: House) -> tuple[Path, ...]:
    """Return what the wheelhouse's own index lacks of what it has to list: existence and size, no reading."""
    from builder.index import tree  # noqa: PLC0415  # not on the hit path

    listing = read(house, "local")
    return tuple(tree.lacking(house.root / "index", listing)) if listing.projects else ()


def _show(
    house: House, dest: Path, channel: str, chosen: Callable[[Listing], Listing] = lambda listing: listing
) -> tuple[Listing, Written]:
    """Make `dest` show what is `chosen` of a channel; a wheel that is removed meanwhile isn't missed."""
    from builder.index import tree  # noqa: PLC0415  # not on the hit path

    with tree.claimed(dest):
        while True:
            listing = read(house, channel)
            try:
                return listing, tree.write(dest, chosen(listing))
            except WheelhouseError:
                if state(house, channel) == listing.state:
                    raise


def index_url(house: House) -> str:
    """Return what clients are given as ``--index-url`` for the wheelhouse's own index."""
    return _url(house.root / "index")


def _url(dest: Path) -> str:
    return f"{(dest.resolve() / 'simple').as_uri()}/"
