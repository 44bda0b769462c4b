"""Channels: named, ordered selections of wheels. What a channel lists is changed as a whole or not at all.

Order of a promotion: an empty incoming folder, as in `publish`; journal ``promote`` with all that the channel will list; one
transaction; the folder goes. The next opening completes what a kill left, and `reindex` replays it.
"""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING, Any

from builder.errors import UsageError
from builder.wheelhouse import publish

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence

    from builder.stages import Stored
    from builder.wheelhouse.store import Wheelhouse

__all__ = ["LOCAL", "RESERVED", "check", "enter", "members", "promote", "settle"]

#: Where every build enters.
LOCAL = "local"

#: Words that stand for something else in the paths of a server.
RESERVED = frozenset({"simple", "files", "legacy", "ccache", "metrics", "health"})

_NAME = re.compile(r"[a-z0-9-]+(/[a-z0-9-]+)?")


def check(name: str) -> None:
    """Raise UsageError ``channel-name`` where `name` can't be that of a channel which somebody promotes to."""
    wrong = ""
    if not _NAME.fullmatch(name):
        wrong = "wanted one or two words of lower case letters, digits and `-`, joined by `/`"
    elif taken := RESERVED.intersection(name.split("/")):
        wrong = f"`{min(taken)}` stands for something else in the paths of an index"
    elif name == LOCAL:
        wrong = "all that is built here is in `local` already"
    if wrong:
        raise UsageError("channel-name", f"`{name}` can't be a channel to promote to", cause=wrong)


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
    rows = house.catalogue.rows("SELECT sha256 FROM members WHERE channel=? ORDER BY position", (name,))
    order = {str(row[0]): number for number, row in enumerate(rows)}
    listed = house.catalogue.stored("sha256 IN (SELECT sha256 FROM members WHERE channel=?)", (name,))
    return tuple(sorted(listed, key=lambda wheel: order.get(wheel.sha256, len(order))))


def promote(house: Wheelhouse, name: str, wheels: Sequence[Stored]) -> bool:
    """Let the channel list exactly `wheels`, in their order; return whether that changed it.

    Raises UsageError ``channel-name``, ``wheel-unpublished`` where one of them isn't published or not whole any more, and
    HostError ``disk-full`` or ``unwritable``; the channel is as it was then.
    """
    check(name)
    digests = list(dict.fromkeys(wheel.sha256 for wheel in wheels))
    with house.writing():
        _require(house, wheels)
        if digests == _listed(house, name):
            return False
        with publish.claimed(house) as folder:
            announced = False
            try:
                with house.catalogue.transaction() as db:
                    entry = {"channel": name, "created_ms": int(house.clock() * 1000), "wheels": digests}
                    house.note("promote", id=folder.name, **entry)
                    announced = True
                    enter(db, entry)
            finally:
                if not announced:
                    shutil.rmtree(folder, ignore_errors=True)
            shutil.rmtree(folder, ignore_errors=True)
    return True


def settle(house: Wheelhouse, entry: Mapping[str, Any]) -> None:
    """Complete a promotion that was announced; the write lock is held."""
    with house.catalogue.transaction() as db:
        enter(db, entry)


def enter(db: sqlite3.Connection, entry: Mapping[str, Any]) -> None:
    """Let the catalogue say what the journal's `entry` does, inside a transaction; wheels that are gone are left out."""
    name = entry["channel"]
    db.execute("INSERT OR IGNORE INTO channels VALUES (?,?)", (name, entry["created_ms"] / 1000))
    db.execute("DELETE FROM members WHERE channel=?", (name,))
    db.executemany(
        "INSERT INTO members SELECT ?, sha256, ? FROM wheels WHERE sha256=?",
        [(name, number, sha256) for number, sha256 in enumerate(entry["wheels"], 1)],
    )


def _listed(house: Wheelhouse, name: str) -> list[str] | None:
    """Return the digests that a channel lists, in its order; None where there is no such channel."""
    if not house.catalogue.rows("SELECT 1 FROM channels WHERE name=?", (name,)):
        return None
    rows = house.catalogue.rows("SELECT sha256 FROM members WHERE channel=? ORDER BY position", (name,))
    return [str(row[0]) for row in rows]


def _require(house: Wheelhouse, wheels: Sequence[Stored]) -> None:
    for wheel in wheels:
        if not house.catalogue.stored("sha256=? AND state='published'", (wheel.sha256,)) or not house.is_whole(wheel):
            raise UsageError(
                "wheel-unpublished",
                f"{wheel.filename} isn't a published wheel of {house.root} any more",
                help="nothing was promoted; build it again",
                run=("spark-build wheels verify",),
            )
