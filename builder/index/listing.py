"""What a channel lists, read from the catalogue: all of it in one go, or what one page shows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal, Protocol
from weakref import WeakKeyDictionary

from builder.errors import UsageError
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

__all__ = [
    "Entry",
    "File",
    "House",
    "Listing",
    "Project",
    "Superseded",
    "by_sha256",
    "channels",
    "generation",
    "is_owned",
    "metadata",
    "owned",
    "project",
    "projects",
    "read",
    "state",
    "superseded",
]

#: What becomes of builds that a later one replaced: they aren't on pages, or they are.
Superseded = Literal["hide", "list"]

#: States of wheels that pages list; the others are in the wheelhouse, and nobody is offered them.
_LISTED = frozenset(["published", "yanked"])

_COLUMNS = (
    "w.project, w.filename, w.version, w.sha256, w.size, w.created, w.state, w.requires_python, w.metadata_sha256, "
    "length(w.metadata), CASE w.state WHEN 'published' THEN NULL ELSE "
    "(SELECT value FROM memory WHERE kind='withheld' AND key=w.sha256) END"
)


class Rows(Protocol):
    """Answers queries."""

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of a query."""

    def refresh(self) -> None:
        """Open the file again when another was put in its place."""


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


class Placed(Protocol):
    """A wheel of a channel, as far as it can supersede another."""

    @property
    def project(self) -> str:
        """Its project's canonical name."""

    @property
    def sha256(self) -> str:
        """The digest of its bytes."""

    @property
    def version(self) -> str:
        """Its version, with the local part."""

    @property
    def filename(self) -> str:
        """Its name."""

    @property
    def state(self) -> str:
        """Its state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A wheel as pages show it. `path` is where its bytes lie, `uploaded` is in whole seconds.

    `yanked_reason` is None for one that isn't yanked, and empty where nobody gave a reason.
    """

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
    yanked_reason: str | None = None

    @property
    def state(self) -> str:
        """Its state: pages show those that are published, and those that are yanked."""
        return "yanked" if self.yanked else "published"


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """What a project's page shows. `status` is one of PEP 792, `reason` why; a quarantined project has no files."""

    name: str
    files: tuple[File, ...] = ()
    status: str = "active"
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A wheel by its bytes, whatever channel it is in.

    `state` is that of the wheel, or ``quarantined`` where its project is; `reason` is why it isn't offered. `mtime_ns` is
    the file's time when its bytes were last known to be right.
    """

    project: str
    filename: str
    path: Path
    sha256: str
    size: int
    mtime_ns: int
    state: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Projects by name, each with its wheels in the channel's order.

    A project all of whose wheels are withheld is there with none: an index that answered "unknown" for it would send the
    client on to the next index, where anybody may have put that name. `state` identifies the catalogue, its generation
    and the channel.
    """

    state: str
    projects: Mapping[str, Project]


def generation(house: House) -> str:
    """Return what changes with every change that a page could show, of any channel. Sees a reindex, too."""
    house.catalogue.refresh()
    (identity,), (number,) = house.catalogue.rows("SELECT value FROM state ORDER BY key DESC")
    return f"{identity}:{number}"


def state(house: House, channel: str, superseded: Superseded = "hide") -> str:
    """Return what changes whenever the channel's pages may have to."""
    return f"{generation(house)}:{channel}{'' if superseded == 'hide' else f':{superseded}'}"


def channels(house: House) -> tuple[str, ...]:
    """Return the names of all channels; ``local`` is always there."""
    return tuple(sorted({"local", *(str(row[0]) for row in house.catalogue.rows("SELECT name FROM channels"))}))


def projects(house: House, channel: str) -> tuple[str, ...]:
    """Return the projects that have a wheel in `channel`, whatever its state, by name."""
    rows = house.catalogue.rows(
        # By the index over projects: the rows of wheels are large, and need not be read.
        "SELECT name FROM (SELECT DISTINCT project AS name FROM wheels) WHERE EXISTS (SELECT 1 FROM wheels w JOIN "
        "members m ON m.channel=? AND m.sha256=w.sha256 WHERE w.project=name) ORDER BY name",
        (channel,),
    )
    return tuple(row[0] for row in rows)


def project(house: House, channel: str, name: str, superseded: Superseded = "hide") -> Project | None:
    """Return what `channel` lists of the project with the canonical `name`; None where nobody ever published that name.

    A name that was published anywhere in the wheelhouse has a page in every channel, if an empty one: see `Listing`.
    """
    rows = house.catalogue.rows(
        f"SELECT {_COLUMNS} FROM wheels w CROSS JOIN members m ON m.channel=? AND m.sha256=w.sha256 "  # noqa: S608  # ours
        "WHERE w.project=? ORDER BY m.position, w.filename",
        (channel, name),
    )
    if not rows and not is_owned(house, name):
        return None
    told = house.catalogue.rows("SELECT value FROM memory WHERE kind='project' AND key=?", (name,))
    return _project(house, name, rows, told[0][0] if told else None, superseded)


def by_sha256(house: House, sha256: str) -> Entry | None:
    """Return the wheel with these bytes, also one that no page lists; None where there is none."""
    rows = house.catalogue.rows(
        "SELECT w.project, w.filename, w.size, w.mtime_ns, w.state, m.value, p.value FROM wheels w "
        "LEFT JOIN memory m ON m.kind='withheld' AND m.key=w.sha256 "
        "LEFT JOIN memory p ON p.kind='project' AND p.key=w.project WHERE w.sha256=?",
        (sha256,),
    )
    if not rows:
        return None
    name, filename, size, mtime_ns, own, withheld, told = rows[0]
    whole_project = json.loads(told) if told else {}
    barred = own != "unpublished" and whole_project.get("status") == "quarantined"
    reason = json.loads(withheld).get("reason", "") if withheld and own != "published" else ""
    return Entry(
        project=name,
        filename=filename,
        path=house.root / "wheels" / name / filename,
        sha256=sha256,
        size=size,
        mtime_ns=mtime_ns,
        state="quarantined" if barred else own,
        reason=whole_project.get("reason", "") if barred and own != "quarantined" else reason,
    )


def metadata(house: House, sha256: str) -> bytes:
    """Return the METADATA of a wheel; empty where there is no such wheel."""
    found = house.catalogue.rows("SELECT metadata FROM wheels WHERE sha256=?", (sha256,))
    return bytes(found[0][0]) if found else b""


_OWNED: WeakKeyDictionary[House, tuple[str, frozenset[str]]] = WeakKeyDictionary()


def owned(house: House) -> frozenset[str]:
    """Return the canonical names of all projects that ever had a wheel here, also of those that have none any more."""
    now = generation(house)
    known = _OWNED.get(house)
    if known is None or known[0] != now:
        from builder.wheel.read import normalised  # noqa: PLC0415  # not on the hit path

        rows = house.catalogue.rows("SELECT DISTINCT substr(filename, 1, instr(filename, '-') - 1) FROM names")
        listed = house.catalogue.rows("SELECT DISTINCT project FROM wheels")
        known = (now, frozenset([*(normalised(row[0]) for row in rows), *(row[0] for row in listed)]))
        _OWNED[house] = known
    return known[1]


def is_owned(house: House, name: str, reserve: Sequence[str] = ()) -> bool:
    """Whether the canonical `name` ever had a wheel here, or matches a pattern of `reserve` (as ``flashinfer-*``)."""
    if house.catalogue.rows("SELECT 1 FROM wheels WHERE project=? LIMIT 1", (name,)) or name in owned(house):
        return True
    return bool(reserve) and _reserved(name, reserve)


def _reserved(name: str, reserve: Sequence[str]) -> bool:
    from fnmatch import fnmatchcase  # noqa: PLC0415  # not on the hit path

    from builder.wheel.read import normalised  # noqa: PLC0415

    return any(fnmatchcase(name, normalised(pattern)) for pattern in reserve)


def read(house: House, channel: str, superseded: Superseded = "hide") -> Listing:
    """Return what `channel` lists; raise UsageError ``channel-missing`` when the wheelhouse has no such channel."""
    # Asked first: a change in between makes the listing newer than it says, never older.
    before = state(house, channel, superseded)
    if channel not in (known := channels(house)):
        raise UsageError(
            "channel-missing",
            f"the wheelhouse has no channel {channel}",
            cause=f"its channels: {', '.join(known)}",
            run=("spark-build wheels list",),
        )
    rows = house.catalogue.rows(
        f"SELECT {_COLUMNS} FROM members m JOIN wheels w USING (sha256) WHERE m.channel=? "  # noqa: S608  # ours
        "ORDER BY w.project, m.position, w.filename",
        (channel,),
    )
    told = dict(house.catalogue.rows("SELECT key, value FROM memory WHERE kind='project'"))
    by_name: dict[str, list[tuple[Any, ...]]] = {}
    for row in rows:
        by_name.setdefault(row[0], []).append(row)
    found = {name: _project(house, name, some, told.get(name), superseded) for name, some in by_name.items()}
    return Listing(state=before, projects=found)


def superseded(wheels: Iterable[Placed]) -> frozenset[str]:
    """Return the sha256 of those of a channel's wheels, given in its order, that a later one of them replaced.

    Only builds of ours replace each other: those that differ in nothing but our label, of which the last *published* one
    counts. One that is withheld replaces nothing, so that the build before it is offered again.
    """
    return _superseded([(one.project, one.version, one.filename, one.sha256, one.state) for one in wheels])


def _superseded(rows: Iterable[tuple[str, str, str, str, str]]) -> frozenset[str]:
    from builder.wheel.label import unlabelled  # noqa: PLC0415  # not on the hit path

    gone: set[str] = set()
    before: dict[tuple[str, str, str], list[str]] = {}
    for name, version, filename, sha256, state in rows:
        plain = unlabelled(version)
        if plain is None:
            continue
        build_and_tags = filename.split("-", 2)[2]
        same = before.setdefault((name, plain, build_and_tags), [])
        if state == "published":
            gone.update(same)
            same.clear()
        same.append(sha256)
    return frozenset(gone)


def _project(
    house: House, name: str, rows: Sequence[tuple[Any, ...]], told: str | None, superseded: Superseded
) -> Project:
    said = json.loads(told) if told else {}
    status = said.get("status", "active")
    hidden = _superseded((name, row[2], row[1], row[3], row[6]) for row in rows) if superseded == "hide" else ()
    folder = house.root / "wheels" / name
    files = (_file(folder, row) for row in rows if row[6] in _LISTED and row[3] not in hidden)
    return Project(
        name=name,
        files=() if status == "quarantined" else tuple(files),
        status=status,
        reason=said.get("reason", ""),
    )


def _file(folder: Path, row: tuple[Any, ...]) -> File:
    yanked = row[6] == "yanked"
    return File(
        project=row[0],
        filename=row[1],
        version=row[2],
        path=folder / row[1],
        sha256=row[3],
        size=row[4],
        uploaded=int(row[5]),
        yanked=yanked,
        requires_python=row[7],
        metadata_sha256=row[8],
        metadata_size=row[9],
        yanked_reason=(json.loads(row[10]).get("reason", "") if row[10] else "") if yanked else None,
    )
