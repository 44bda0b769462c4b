"""Taking wheels out. Order: an empty incoming folder; journal ``remove``; one transaction; the files go; the folder goes."""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING, Any

from builder import durable
from builder.digest import sha256_file
from builder.wheelhouse import recovery
from builder.wheelhouse.announce import claimed
from builder.wheelhouse.channel import LOCAL
from builder.wheelhouse.records import FOREIGN, sidecar, signature

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping
    from pathlib import Path

    from builder.stages import Stored
    from builder.wheelhouse.store import Wheelhouse

__all__ = ["delete", "drop", "remove", "settle"]


def remove(house: Wheelhouse, wheel: Stored, *, named: bool = True) -> bool:
    """See `Wheelhouse.remove`."""
    with house.writing():
        recovery.recover(house)
        if not named and any(name != LOCAL for name in house.channels(wheel)):
            return False
        with claimed(house) as folder:
            announced = False
            try:
                with house.catalogue.transaction() as db:
                    house.note("remove", id=folder.name, filename=wheel.filename, sha256=wheel.sha256)
                    announced = True
                    _unlist(db, wheel.sha256)
                delete(wheel)
            except OSError as error:
                raise house.cannot_write(error) from error  # the next opening completes it
            finally:
                if not announced:
                    shutil.rmtree(folder, ignore_errors=True)
            shutil.rmtree(folder, ignore_errors=True)
    return True


def settle(house: Wheelhouse, folder: Path, entry: Mapping[str, Any]) -> None:
    """Complete a removal that was announced; the write lock is held."""
    for wheel in house.catalogue.stored("sha256=? AND filename=?", (entry["sha256"], entry["filename"])):
        with house.catalogue.transaction() as db:
            _unlist(db, wheel.sha256)
    for path in (house.root / "wheels").glob(f"*/{entry['filename']}"):
        if sha256_file(path) == entry["sha256"]:
            drop(signature(path))
            drop(sidecar(path))
            path.unlink()
    shutil.rmtree(folder, ignore_errors=True)


def _unlist(db: sqlite3.Connection, sha256: str) -> None:
    """Take a wheel out of the catalogue; that it was withheld is remembered, and holds again when its bytes come back."""
    for table in ("members", "findings", "wheels"):
        db.execute(f"DELETE FROM {table} WHERE sha256=?", (sha256,))  # noqa: S608  # a closed list
    db.execute("DELETE FROM memory WHERE kind=? AND key=?", (FOREIGN, sha256))  # they may be built here one day


def delete(wheel: Stored) -> None:
    """Leave neither file nor record, nor their names after a power cut."""
    for file in (signature(wheel.path), sidecar(wheel.path), wheel.path):  # the wheel last: a recovery goes by it
        drop(file)
    with contextlib.suppress(FileNotFoundError):
        durable.sync_folder(wheel.path.parent)


def drop(file: Path) -> None:
    """Leave nothing under the name of one of our files, also where somebody put a folder in its place."""
    if file.is_dir() and not file.is_symlink():
        shutil.rmtree(file)
    else:
        file.unlink(missing_ok=True)
