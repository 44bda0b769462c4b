"""Changes of the catalogue alone, each whole or not at all, and the folders by which a kill in the middle is seen.

Order: an empty incoming folder (``wheels/.incoming/<id>``), locked by who is at it; a line in the journal that says all that
will hold; one transaction; the folder goes. What a kill left is settled by the next opening, and before the next change
(`recovery`), so that changes are in the catalogue in the order in which the journal has them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING, Any

from builder import durable
from builder.wheelhouse import locks

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from builder.wheelhouse.store import Wheelhouse

__all__ = ["change", "changed", "claimed"]


@contextlib.contextmanager
def claimed(house: Wheelhouse) -> Iterator[Path]:
    """Give an incoming folder, on the disk and locked by us. The write lock is held when this begins."""
    incoming = house.root / "wheels" / ".incoming"
    folder = incoming / os.urandom(16).hex()
    try:
        folder.mkdir(parents=True)
        descriptor = locks.claim(folder, wait=True)
        durable.sync_folder(incoming)
        durable.sync_folder(incoming.parent)
    except OSError as error:
        raise house.cannot_write(error) from error
    assert descriptor is not None  # noqa: S101  # it was waited for
    try:
        yield folder
    finally:
        os.close(descriptor)


def change(
    house: Wheelhouse, op: str, entry: Mapping[str, Any], enter: Callable[[sqlite3.Connection, Mapping[str, Any]], None]
) -> None:
    """Let the journal say `entry`, then the catalogue by `enter`. The write lock is held, and `recovery.recover` was called.

    Raises HostError ``disk-full`` or ``unwritable``, and nothing changed; where the catalogue can't be written any more once
    the journal says it, the next opening completes it.
    """
    with claimed(house) as folder:
        announced = False
        try:
            with house.catalogue.transaction() as db:
                house.note(op, id=folder.name, **entry)
                announced = True
                enter(db, entry)
        finally:
            if not announced:
                shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)


def changed(db: sqlite3.Connection) -> None:
    """Let the generation grow: what a page shows changed, and no wheel or member did, which do so by themselves."""
    db.execute("UPDATE state SET value=value+1 WHERE key='generation'")
