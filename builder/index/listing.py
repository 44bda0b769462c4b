"""What a channel lists, read from the catalogue in one go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from builder.errors import UsageError
from builder.values import dataclass, replace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

__all__ = ["File", "House", "Listing", "read", "state", "whole"]

#: States of wheels that pages list; the others are in the wheelhouse, and nobody is offered them.
_LISTED = frozenset(["published", "yanked"])


class Rows(Protocol):
    """Answers queries."""

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of a query."""


class House(Protocol):
    """What the index needs of a wheelhouse."""

    def is_whole(self, wheel: File, /) -> bool:
        """Whether the file has the bytes that were published."""

    @property
    def root(self) -> Path:
        """Its folder."""

    @property
    def read_only(self) -> bool:
        """Whether it can't be written."""

    @property
    def catalogue(self) -> Rows:
        """Its catalogue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A wheel as pages show it. `path` is where its bytes lie, `uploaded` is in whole seconds."""

    project: str
    filename: str
    version: str
    path: Path
    sha256: str
    size: int
    uploaded: int
    yanked: bool
    requires_python: str | None
    metadata_sha256: str
    metadata_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Projects by name, each with its wheels in the channel's order.

    A project all of whose wheels are withheld is there with none: an index that answered "unknown" for it would send the
    client on to the next index, where anybody may have put that name. `state` identifies the catalogue, its generation
    and the channel; it is empty for a listing that isn't all that the catalogue says. `metadata` gives a wheel's METADATA,
    `is_whole` whether its file has the bytes that were published.
    """

    state: str
    projects: Mapping[str, tuple[File, ...]]
    metadata: Callable[[File], bytes]
    is_whole: Callable[[File], bool]


def state(house: House, channel: str) -> str:
    """Return what changes whenever the channel's pages may have to."""
    values = dict(house.catalogue.rows("SELECT key, value FROM state"))
    return f"{values['id']}:{values['generation']}:{channel}"


def read(house: House, channel: str) -> Listing:
    """Return what `channel` lists; raise UsageError ``channel-missing`` when the wheelhouse has no such channel."""
    before = state(house, channel)  # asked first: a change in between makes the listing newer than it says, never older
    known = [row[0] for row in house.catalogue.rows("SELECT name FROM channels ORDER BY name")]
    if channel not in {*known, "local"}:  # the one that is always there, also before the first wheel
        raise UsageError(
            "channel-missing",
            f"the wheelhouse has no channel {channel}",
            cause=f"its channels: {', '.join(known) or 'none'}",
            run=("spark-build wheels list",),
        )
    rows = house.catalogue.rows(
        "SELECT w.project, w.filename, w.version, w.sha256, w.size, w.created, w.state, w.requires_python, "
        "w.metadata_sha256, length(w.metadata) FROM members m JOIN wheels w USING (sha256) WHERE m.channel=? "
        "ORDER BY w.project, m.position, w.filename",
        (channel,),
    )
    projects: dict[str, list[File]] = {}
    for row in rows:
        files = projects.setdefault(row[0], [])
        if row[6] in _LISTED:
            files.append(_file(house, row))

    def metadata(file: File) -> bytes:
        found = house.catalogue.rows("SELECT metadata FROM wheels WHERE sha256=?", (file.sha256,))
        return bytes(found[0][0]) if found else b""

    found = {name: tuple(files) for name, files in projects.items()}
    return Listing(state=before, projects=found, metadata=metadata, is_whole=house.is_whole)


def _file(house: House, row: tuple[Any, ...]) -> File:
    return File(
        project=row[0],
        filename=row[1],
        version=row[2],
        path=house.root / "wheels" / row[0] / row[1],
        sha256=row[3],
        size=row[4],
        uploaded=int(row[5]),
        yanked=row[6] == "yanked",
        requires_python=row[7],
        metadata_sha256=row[8],
        metadata_size=row[9],
    )


def whole(listing: Listing) -> Listing:
    """Return the listing without the wheels whose file isn't as it was published; then its `state` is empty."""
    there = {name: tuple(filter(listing.is_whole, files)) for name, files in listing.projects.items()}
    return listing if there == listing.projects else replace(listing, state="", projects=there)
