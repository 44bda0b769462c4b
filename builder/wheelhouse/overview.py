"""What pages for people ask the catalogue, in few queries: counts, summaries, and what the audit said of many wheels."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from builder.stages import Stored
    from builder.wheelhouse.store import Wheelhouse

__all__ = [
    "Audited",
    "Channel",
    "Project",
    "audited",
    "channels",
    "documents",
    "findings",
    "memberships",
    "newest",
    "offered",
    "project_of",
    "projects",
    "projects_of",
    "wheels",
]

#: The headers that a list needs stand at the start.
_HEAD = 4096
#: Fewer characters of a digest name too much.
_LEAST = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A project in a list: its newest wheel's version and the start of its METADATA, and sums over all of them."""

    name: str
    version: str
    head: bytes
    wheels: int
    size: int
    newest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """A channel in a list. `created` is in seconds, `newest` that of its newest wheel."""

    name: str
    created: float
    wheels: int
    projects: int
    newest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """What the audit said of a wheel: what its device code offers `target`, in bytes, and how many findings are open."""

    target: str
    native: int
    jit: int
    other: int
    refused: bool
    errors: int
    warnings: int


def projects(house: Wheelhouse) -> tuple[Project, ...]:
    """Return every project with a wheel that is shown, by name."""
    rows = house.catalogue.rows(
        # SQLite takes the other columns from the row with the maximum.
        "SELECT project, version, substr(metadata, 1, ?), COUNT(*), SUM(size), MAX(created) FROM wheels "
        "WHERE state IN ('published', 'yanked', 'quarantined') GROUP BY project ORDER BY project",
        (_HEAD,),
    )
    return tuple(
        Project(name=row[0], version=row[1], head=bytes(row[2]), wheels=row[3], size=row[4], newest=row[5])
        for row in rows
    )


def channels(house: Wheelhouse) -> tuple[Channel, ...]:
    """Return every channel, by name."""
    rows = house.catalogue.rows(
        "SELECT c.name, c.created, COUNT(w.sha256), COUNT(DISTINCT w.project), MAX(w.created) FROM channels c "
        "LEFT JOIN members m ON m.channel=c.name LEFT JOIN wheels w USING (sha256) GROUP BY c.name ORDER BY c.name"
    )
    return tuple(
        Channel(name=row[0], created=row[1], wheels=row[2], projects=row[3], newest=row[4] or row[1]) for row in rows
    )


def memberships(house: Wheelhouse, project: str | None = None) -> Mapping[str, tuple[str, ...]]:
    """Return the channels of every wheel that is in one, or of those of one project, by sha256."""
    if project is None:
        rows = house.catalogue.rows("SELECT sha256, channel FROM members ORDER BY channel")
    else:  # members are found by channel and sha256 only
        rows = house.catalogue.rows(
            "SELECT m.sha256, m.channel FROM wheels w CROSS JOIN channels c CROSS JOIN members m ON m.channel=c.name "
            "AND m.sha256=w.sha256 WHERE w.project=? ORDER BY m.channel",
            (project,),
        )
    found: dict[str, tuple[str, ...]] = {}
    for sha256, name in rows:
        found[sha256] = (*found.get(sha256, ()), name)
    return found


def offered(house: Wheelhouse, channel: str, project: str = "", ref: str = "") -> tuple[str, ...]:
    """Return the sha256 of the wheels of a channel that are handed out, in its order.

    All, those of a project, or those that `ref` names: a file name, or the start of a fingerprint or sha256 of at least four
    digits. What is withheld isn't there, nor what is of a quarantined project.
    """
    start = ref if len(ref) >= _LEAST else "-"
    rows = house.catalogue.rows(
        "SELECT w.sha256 FROM members m CROSS JOIN wheels w USING (sha256) WHERE m.channel=? AND ? IN ('', w.project) "
        "AND (? IN ('', w.filename) OR substr(w.fingerprint, 1, ?)=? OR substr(w.sha256, 1, ?)=?) "
        "AND w.state IN ('published', 'yanked') AND NOT EXISTS (SELECT 1 FROM memory p WHERE p.kind='project' "
        "AND p.key=w.project AND json_extract(p.value, '$.status')='quarantined') ORDER BY m.position, w.filename",
        (channel, project, ref, len(start), start, len(start), start),
    )
    return tuple(str(row[0]) for row in rows)


def wheels(house: Wheelhouse, digests: Sequence[str]) -> list[Stored]:
    """Return the wheels with these sha256, some hundreds at most, in this order; of those that are gone none."""
    found = house.catalogue.stored(f"sha256 IN ({','.join('?' * len(digests))})", digests)
    by_digest = {one.sha256: one for one in found}
    return [by_digest[sha256] for sha256 in digests if sha256 in by_digest]


def newest(house: Wheelhouse, limit: int) -> tuple[Stored, ...]:
    """Return the published wheels that came last, the newest first."""
    found = house.catalogue.stored(
        "sha256 IN (SELECT sha256 FROM wheels WHERE state='published' ORDER BY created DESC, filename DESC LIMIT ?)",
        (limit,),
    )
    return found[::-1]


def project_of(house: Wheelhouse, sha256: str) -> str | None:
    """Return the project of a wheel, or None where there is no such wheel."""
    rows = house.catalogue.rows("SELECT project FROM wheels WHERE sha256=?", (sha256,))
    return str(rows[0][0]) if rows else None


def projects_of(house: Wheelhouse, fingerprint: str) -> tuple[str, ...]:
    """Return the projects of the wheels that a build made."""
    rows = house.catalogue.rows(
        "SELECT DISTINCT project FROM wheels WHERE fingerprint=? ORDER BY project", (fingerprint,)
    )
    return tuple(str(row[0]) for row in rows)


def audited(house: Wheelhouse, project: str | None = None) -> Mapping[str, Audited]:
    """Return what the audit said of every wheel that it saw, or of those of one project, by sha256."""
    wanted = (
        "SELECT f.sha256, json_extract(f.document, '$.target', '$.total.bytes', '$.refused'), (SELECT json_group_array("
        "json_extract(value, '$.severity')) FROM json_each(f.document, '$.findings') WHERE "
        "json_extract(value, '$.accepted') IS NULL) FROM "
    )
    if project is None:
        rows = house.catalogue.rows(f"{wanted} findings f WHERE json_valid(f.document)")
    else:
        of = "wheels w CROSS JOIN findings f USING (sha256) WHERE w.project=? AND json_valid(f.document)"
        rows = house.catalogue.rows(wanted + of, (project,))
    found = {}
    for sha256, text, severities in rows:
        target, held, refused = json.loads(text)
        held, counts = held if isinstance(held, dict) else {}, json.loads(severities)
        found[sha256] = Audited(
            target=str(target),
            native=int(held.get("native", 0)),
            jit=int(held.get("jit", 0)),
            other=int(held.get("other", 0)),
            refused=bool(refused),
            errors=counts.count("error"),
            warnings=counts.count("warning"),
        )
    return found


def findings(house: Wheelhouse, sha256: str) -> dict[str, Any] | None:
    """Return what the audit found in a wheel, by whichever rules it was last judged; None where it wasn't."""
    rows = house.catalogue.rows("SELECT document FROM findings WHERE sha256=? LIMIT 1", (sha256,))
    return house.catalogue.document(rows[0][0]) if rows else None


def documents(house: Wheelhouse) -> str:
    """Return what changes when a report of the audit comes, or takes another's place: the catalogue's generation doesn't."""
    rows = house.catalogue.rows("SELECT rules, COUNT(*) FROM findings GROUP BY rules ORDER BY rules")
    return " ".join(f"{rules}:{count}" for rules, count in rows)
