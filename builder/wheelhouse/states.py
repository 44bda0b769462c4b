"""What isn't offered any more, and why: wheels that are yanked or quarantined, and the status of whole projects.

A yanked wheel is on pages, and installers take it only where it is pinned (PEP 592). A quarantined one is on none, and isn't
given out. A project's status is one of PEP 792. Each change is announced as in `announce`; the reason is remembered by the
catalogue, and the state of a wheel holds for its bytes: also when it is removed and comes back.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

from builder.errors import UsageError
from builder.values import dataclass
from builder.wheelhouse import recovery
from builder.wheelhouse.announce import change, changed
from builder.wheelhouse.records import PROJECT, WITHHELD

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence

    from builder.stages import Stored
    from builder.wheelhouse.store import Wheelhouse

__all__ = [
    "PROJECT_STATUS",
    "State",
    "Status",
    "Withheld",
    "enter",
    "enter_status",
    "every",
    "set",
    "status",
    "status_of",
    "unknown",
    "withheld",
]

State = Literal["published", "yanked", "quarantined"]
Status = Literal["active", "archived", "quarantined", "deprecated"]

PROJECT_STATUS: tuple[Status, ...] = ("active", "archived", "quarantined", "deprecated")


@dataclass(frozen=True, slots=True, kw_only=True)
class Withheld:
    """Why a wheel or a project isn't offered as others are: `state` is its state or status, `time` in seconds."""

    state: str
    reason: str
    time: float


def set(house: Wheelhouse, wheels: Sequence[Stored], state: State, reason: str = "") -> tuple[Stored, ...]:  # noqa: A001
    """Give all of `wheels` the state, in one step, and return those that it changed; the same again changes nothing.

    Raises UsageError ``wheel-unpublished`` for one that was never published, or is gone; HostError ``disk-full`` or
    ``unwritable``.
    """
    reason = "" if state == "published" else _clean(reason)
    with house.writing():
        recovery.recover(house)
        changes = [wheel for wheel in dict.fromkeys(wheels) if _differs(house, wheel, state, reason)]
        if changes:
            about = [{"sha256": wheel.sha256, "filename": wheel.filename} for wheel in changes]
            entry = {"wheels": about, "state": state, "reason": reason, "time": int(house.clock())}
            change(house, "state", entry, enter)
    return tuple(changes)


def status(house: Wheelhouse, project: str, status: Status, reason: str = "") -> bool:
    """Give the project with the canonical name `project` a status; return whether that changed anything.

    Raises UsageError ``project-missing`` where no wheel of it was ever here; HostError ``disk-full`` or ``unwritable``.
    """
    reason = "" if status == "active" else _clean(reason)
    with house.writing():
        recovery.recover(house)
        known = status_of(house, project)
        if known is None:
            raise unknown(project)
        if (known.state, known.reason) == (status, reason):
            return False
        entry = {"project": project, "status": status, "reason": reason, "time": int(house.clock())}
        change(house, "project", entry, enter_status)
    return True


def unknown(project: str) -> UsageError:
    """Return the error for a project that never was here."""
    return UsageError(
        "project-missing",
        f"no wheel of a project {project} was ever here",
        help="a name that should never be taken from elsewhere is reserved in the configuration: [index] reserve",
        run=("spark-build wheels list --all",),
    )


def every(house: Wheelhouse) -> tuple[dict[str, Withheld], dict[str, Withheld]]:
    """Return why wheels aren't offered, by sha256, and the status of projects that aren't active, by name."""
    found = []
    for kind, name in ((WITHHELD, "state"), (PROJECT, "status")):
        rows = house.catalogue.rows("SELECT key, value FROM memory WHERE kind=?", (kind,))
        told = ((key, _told(house.catalogue.document(value), name)) for key, value in rows)
        found.append({str(key): one for key, one in told if one is not None})
    return found[0], found[1]


def withheld(house: Wheelhouse, sha256: str) -> Withheld | None:
    """Return why a wheel isn't offered; None for one that is, and where nobody said why."""
    return _told(house.recall(WITHHELD, sha256), "state")


def status_of(house: Wheelhouse, project: str) -> Withheld | None:
    """Return the status of a project; None where no wheel of it was ever here."""
    found = _told(house.recall(PROJECT, project), "status")
    if found is None and _is_known(house, project):
        return Withheld(state="active", reason="", time=0.0)
    return found


def enter(db: sqlite3.Connection, entry: Mapping[str, Any]) -> None:
    """Let the catalogue say what the journal's ``state`` does, inside a transaction."""
    kept = {name: entry[name] for name in ("state", "reason", "time")}
    for one in entry["wheels"]:
        db.execute("UPDATE wheels SET state=? WHERE sha256=?", (entry["state"], one["sha256"]))
        _keep(db, WITHHELD, one["sha256"], None if entry["state"] == "published" else kept)


def enter_status(db: sqlite3.Connection, entry: Mapping[str, Any]) -> None:
    """Let the catalogue say what the journal's ``project`` does, inside a transaction."""
    kept = {name: entry[name] for name in ("status", "reason", "time")}
    _keep(db, PROJECT, entry["project"], None if entry["status"] == "active" else kept)
    changed(db)


def _keep(db: sqlite3.Connection, kind: str, key: str, value: Mapping[str, Any] | None) -> None:
    if value is None:
        db.execute("DELETE FROM memory WHERE kind=? AND key=?", (kind, key))
    else:
        db.execute("INSERT OR REPLACE INTO memory VALUES (?,?,?)", (kind, key, json.dumps(value, sort_keys=True)))


def _differs(house: Wheelhouse, wheel: Stored, state: State, reason: str) -> bool:
    (found,) = house.catalogue.stored("sha256=?", (wheel.sha256,)) or (None,)
    if found is None or found.state == "unpublished":
        raise UsageError(
            "wheel-unpublished",
            f"{wheel.filename} was never published" if found else f"{wheel.filename} isn't here any more",
            help="nobody is offered it" if found else "somebody removed it",
            run=("spark-build wheels list --all",),
        )
    told = withheld(house, wheel.sha256)
    return found.state != state or (told.reason if told else "") != reason


def _told(value: Mapping[str, Any] | None, name: str) -> Withheld | None:
    return Withheld(state=value[name], reason=value["reason"], time=float(value["time"])) if value else None


def _is_known(house: Wheelhouse, project: str) -> bool:
    if house.catalogue.rows("SELECT 1 FROM wheels WHERE project=? LIMIT 1", (project,)):
        return True
    from builder.wheel.read import normalised  # noqa: PLC0415  # only where all of its wheels are gone

    rows = house.catalogue.rows("SELECT DISTINCT substr(filename, 1, instr(filename, '-') - 1) FROM names")
    return any(normalised(row[0]) == project for row in rows)


def _clean(reason: str) -> str:
    """Return a reason as one line: it goes into attributes, headers and tables."""
    return " ".join("".join(one if one.isprintable() else " " for one in reason).split())
