"""Channels: named, ordered selections of wheels. What a channel lists is changed as a whole or not at all.

Each change is announced as in `announce`: journal ``promote`` with all that the channel will list from then on. A publish
that appends to channels says so in its own entry. `past` reads from both what a channel listed when, and `reindex` what it
lists now.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from builder.errors import UsageError
from builder.wheelhouse import names, past, recovery
from builder.wheelhouse.announce import change, changed

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence

    from builder.stages import Stored
    from builder.wheelhouse.past import Promotion
    from builder.wheelhouse.store import Wheelhouse

__all__ = [
    "LOCAL",
    "RESERVED",
    "append",
    "check",
    "enter",
    "extend",
    "history",
    "lacking",
    "listed",
    "members",
    "promote",
    "put",
    "require",
    "rollback",
    "targets",
]

#: Where every build enters.
LOCAL = "local"

#: Words that stand for something else in the paths of a server, as the first of a channel's name.
RESERVED = frozenset(
    {
        "api",
        "builds",
        "ccache",
        "channels",
        "files",
        "health",
        "legacy",
        "metrics",
        "projects",
        "simple",
        "static",
        "wheels",
    }
)

#: Both words are folders of an export, too.
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}(/[a-z0-9][a-z0-9-]{0,63})?")


def check(name: str) -> None:
    """Raise UsageError ``channel-name`` where `name` can't be that of a channel which somebody promotes to."""
    wrong = ""
    if not _NAME.fullmatch(name):
        wrong = (
            "wanted one or two words of up to 64 lower case letters, digits and `-` (not as the first), joined by `/`"
        )
    elif taken := RESERVED.intersection(name.split("/")):
        wrong = f"`{min(taken)}` stands for something else in the paths of an index"
    elif name == LOCAL:
        wrong = "all that is built here is in `local` already"
    if wrong:
        raise UsageError(
            "channel-name",
            f"`{name}` can't be a channel to promote to",
            cause=wrong,
            help="such a name would do: team/stable",
            run=("spark-build wheels promote --help",),
        )


def members(house: Wheelhouse, name: str) -> tuple[Stored, ...]:
    """Return what a channel lists, in its order. Raises UsageError ``channel-missing``."""
    known = [str(row[0]) for row in house.catalogue.rows("SELECT name FROM channels ORDER BY name")]
    if name not in {*known, LOCAL}:
        raise UsageError(
            "channel-missing",
            f"the wheelhouse has no channel {name}",
            cause=f"its channels: {', '.join(known) or 'none'}",
            run=("spark-build wheels list",),
        )
    order = {sha256: number for number, sha256 in enumerate(listed(house, name) or ())}
    found = house.catalogue.stored("sha256 IN (SELECT sha256 FROM members WHERE channel=?)", (name,))
    return tuple(sorted(found, key=lambda wheel: order.get(wheel.sha256, len(order))))


def promote(house: Wheelhouse, name: str, wheels: Sequence[Stored]) -> bool:
    """Let the channel list exactly `wheels`, in their order; return whether that changed it.

    Raises UsageError ``channel-name``, ``wheel-unpublished`` where one of them isn't published or not whole any more, and
    HostError ``disk-full`` or ``unwritable``; the channel is as it was then.
    """
    check(name)
    _look_at(house, wheels)
    with house.writing():
        recovery.recover(house)
        require(house, wheels)
        return put(house, name, [wheel.sha256 for wheel in wheels])


def append(house: Wheelhouse, name: str, wheels: Sequence[Stored]) -> bool:
    """Let the channel list `wheels`, too, behind what it lists; return whether that changed it.

    What it lists already stays where it is, so that a second time changes nothing. Raises as `promote` does.
    """
    check(name)
    _look_at(house, wheels)
    with house.writing():
        recovery.recover(house)
        require(house, wheels)
        return put(house, name, [*(listed(house, name) or ()), *(wheel.sha256 for wheel in wheels)], how="append")


def history(house: Wheelhouse, name: str) -> tuple[Promotion, ...]:
    """Return all that the channel listed, oldest first. Goes through the journal: some tenths of a second for 10,000 builds.

    Wheels that were removed meanwhile are still named. Raises UsageError ``channel-missing``.
    """
    if listed(house, name) is None:
        members(house, name)  # says which there are
    return tuple(past.read(house).get(name, ()))


def rollback(house: Wheelhouse, name: str, to: int | None = None) -> Promotion:
    """Let the channel list what it did before its last change, or at the number `to`; return that.

    After a rollback the one before is the one before that to which it went, so that each goes one step further back.

    Raises UsageError ``channel-name``, ``channel-missing``, ``nothing-before``, ``promotion-missing``, and
    ``wheel-unpublished`` where a wheel of then is gone, yanked or quarantined: part of a set is never brought back.
    """
    check(name)
    with house.writing():
        recovery.recover(house)
        every = history(house, name)
        now = listed(house, name) or ()
        target = past.before(every, now) if to is None else next((one for one in every if one.number == to), None)
        if target is None:
            raise _nowhere(name, every, to)
        _require_all(house, name, target)
        put(house, name, target.wheels, how="rollback", back=target.number)
    return target


def targets(house: Wheelhouse) -> frozenset[str]:
    """Return the sha256 of all that the next rollback of some channel would bring back."""
    found = (past.before(every, listed(house, name) or ()) for name, every in past.read(house).items())
    return frozenset(sha256 for one in found if one is not None for sha256 in one.wheels)


def put(house: Wheelhouse, name: str, digests: Sequence[str], **about: str | int) -> bool:
    """Let the channel list `digests`, each once; the write lock is held. `about` stands in the journal, too."""
    wanted = list(dict.fromkeys(digests))
    if wanted == listed(house, name):
        return False
    change(
        house, "promote", {"channel": name, "created_ms": int(house.clock() * 1000), "wheels": wanted, **about}, enter
    )
    return True


def enter(db: sqlite3.Connection, entry: Mapping[str, Any]) -> None:
    """Let the catalogue say what the journal's `entry` does, inside a transaction.

    A wheel whose file was lost isn't in the catalogue after a reindex, and keeps its place: it is listed when it is back.
    """
    name = entry["channel"]
    db.execute("INSERT OR IGNORE INTO channels VALUES (?,?)", (name, entry["created_ms"] / 1000))
    db.execute("DELETE FROM members WHERE channel=?", (name,))
    db.executemany(
        "INSERT INTO members VALUES (?,?,?)",
        [(name, sha256, number) for number, sha256 in enumerate(entry["wheels"], 1)],
    )
    changed(db)  # a channel may be new, and empty


def extend(db: sqlite3.Connection, entry: Mapping[str, Any]) -> None:
    """Append what the entry of a publish says to the channels that it names, inside a transaction."""
    for name, digests in entry.get("also", {}).items():
        db.execute("INSERT OR IGNORE INTO channels VALUES (?,?)", (name, entry["created_ms"] / 1000))
        ((last,),) = db.execute("SELECT COALESCE(MAX(position), 0) FROM members WHERE channel=?", (name,))
        db.executemany(
            "INSERT OR IGNORE INTO members SELECT ?, sha256, ? FROM wheels WHERE sha256=?",
            [(name, number, sha256) for number, sha256 in enumerate(digests, last + 1)],
        )


def lacking(house: Wheelhouse, name: str, digests: Sequence[str]) -> list[str]:
    """Return those of `digests` that the channel doesn't list, in their order."""
    rows = house.catalogue.rows("SELECT sha256 FROM members WHERE channel=?", (name,))
    there = {str(row[0]) for row in rows}
    return [sha256 for sha256 in dict.fromkeys(digests) if sha256 not in there]


def listed(house: Wheelhouse, name: str) -> list[str] | None:
    """Return the digests that a channel lists, in its order; None where there is no such channel."""
    if not house.catalogue.rows("SELECT 1 FROM channels WHERE name=?", (name,)):
        return None
    rows = house.catalogue.rows("SELECT sha256 FROM members WHERE channel=? ORDER BY position", (name,))
    return [str(row[0]) for row in rows]


def _look_at(house: Wheelhouse, wheels: Sequence[Stored]) -> None:
    """Read files whose time changed, as in a copied wheelhouse: while the lock is held others wait, and it isn't kept."""
    for wheel in wheels:
        house.is_whole(wheel)


def require(house: Wheelhouse, wheels: Sequence[Stored]) -> None:
    """Raise UsageError ``wheel-unpublished`` where one of them isn't published any more, or not whole."""
    for wheel in wheels:
        (found,) = house.catalogue.stored("sha256=?", (wheel.sha256,)) or (None,)
        if found is None or found.state == "unpublished" or not house.is_whole(wheel):
            raise UsageError(
                "wheel-unpublished",
                f"{wheel.filename} isn't a published wheel of {house.root} any more",
                help="nothing was promoted; build it again",
                run=("spark-build wheels verify",),
            )
        if found.state != "published":
            verb = {"yanked": "yank --undo", "quarantined": "quarantine --release"}[found.state]
            raise UsageError(
                "wheel-unpublished",
                f"{wheel.filename} is {found.state}",
                cause=(house.recall("withheld", wheel.sha256) or {}).get("reason", ""),
                help="nothing was promoted; leave it out, or take that back",
                run=(f"spark-build wheels {verb} {wheel.filename}",),
            )


def _nowhere(name: str, every: Sequence[Promotion], to: int | None) -> UsageError:
    run = (f"spark-build wheels history {name}",)
    if to is None:
        return UsageError(
            "nothing-before",
            f"{name} has nothing to go back to",
            cause="what it lists is the first that it listed" if every else "nothing was ever promoted to it",
            help="name another of its states with --to N, or promote what it should list",
            run=run,
        )
    return UsageError(
        "promotion-missing",
        f"{name} has no state number {to}",
        cause=f"it has 1 to {len(every)}" if every else "nothing was ever promoted to it",
        run=run,
    )


def _require_all(house: Wheelhouse, name: str, target: Promotion) -> None:
    there = {wheel.sha256: wheel for wheel in house.list_wheels(include_unpublished=True)}
    gone = [sha256 for sha256 in target.wheels if sha256 not in there]
    if gone:
        called = names.of(house, gone)
        raise UsageError(
            "wheel-unpublished",
            f"{len(gone)} of the {len(target.wheels)} wheels of number {target.number} of {name} aren't here any more",
            cause="\n".join(called.get(sha256, sha256) for sha256 in gone),
            help="nothing was changed: part of a set is never brought back; add or build those again, or promote others",
            run=(f"spark-build wheels history {name}",),
        )
    require(house, [there[sha256] for sha256 in target.wheels])
