"""The file of the history: making it, opening it, and saying what is wrong with it."""

from __future__ import annotations

import sqlite3
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["FORMAT", "UnknownFormat", "is_busy", "is_refusal", "mending", "opened"]

#: The schema's version, in SQLite's ``user_version``.
FORMAT = 1

_SCHEMA = """
CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    recipe TEXT NOT NULL, source TEXT NOT NULL, object TEXT NOT NULL, kind TEXT NOT NULL, flags TEXT NOT NULL,
    toolchain TEXT NOT NULL, peak_bytes INTEGER NOT NULL, largest_bytes INTEGER NOT NULL,
    wall_ms INTEGER NOT NULL, cpu_ms INTEGER NOT NULL, curve TEXT NOT NULL, attempts INTEGER NOT NULL,
    outcome TEXT NOT NULL, cached INTEGER NOT NULL, machine TEXT NOT NULL, version TEXT NOT NULL, build TEXT NOT NULL,
    time INTEGER NOT NULL, origin TEXT NOT NULL
);
CREATE INDEX runs_unit ON runs (recipe, source, object, kind, flags);
CREATE INDEX runs_build ON runs (build);
"""


class UnknownFormat(Exception):
    """The file is a database, and not one that this version knows; its argument says what was found."""


def opened(path: Path, *, busy_s: float) -> sqlite3.Connection:
    """Return a connection to the file, made when it isn't there; one that can only be read comes back, too.

    Raises sqlite3.Error, OSError and `UnknownFormat`.
    """
    uri = path.absolute().as_uri()
    try:
        database = _connect(f"{uri}?mode=rwc", busy_s)
        try:
            _prepare(database, busy_s)
        except BaseException:
            database.close()
            raise
    except sqlite3.OperationalError as error:
        if not is_refusal(error) or not path.is_file():
            raise
        return _read_only(uri, busy_s)
    return database


def _connect(uri: str, busy_s: float) -> sqlite3.Connection:
    # Transactions are ours to begin; threads take turns by the caller's lock.
    database = sqlite3.connect(uri, uri=True, timeout=busy_s, isolation_level=None, check_same_thread=False)
    try:
        database.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
    except sqlite3.Error:
        database.close()
        raise
    return database


def _read_only(uri: str, busy_s: float) -> sqlite3.Connection:
    """Return a connection that reads; without a ``-wal`` beside a file that nobody can write, as an immutable one."""
    try:
        database = _connect(f"{uri}?mode=ro", busy_s)
    except sqlite3.OperationalError:
        database = _connect(f"{uri}?immutable=1", busy_s)
    try:
        _require(database)
    except BaseException:
        database.close()
        raise
    return database


def _prepare(database: sqlite3.Connection, busy_s: float) -> None:
    """Leave the file with our tables, whoever makes them first."""
    _to_wal(database, busy_s)
    database.execute("PRAGMA synchronous=NORMAL")
    if _version(database) == FORMAT:
        return
    database.execute("BEGIN IMMEDIATE")
    try:
        if _version(database) == 0 and not _tables(database):
            for statement in _SCHEMA.split(";"):
                database.execute(statement)
            database.execute(f"PRAGMA user_version={FORMAT}")
        database.execute("COMMIT")
    except BaseException:
        database.execute("ROLLBACK")
        raise
    _require(database)


def _to_wal(database: sqlite3.Connection, busy_s: float) -> None:
    """Switch to WAL; another process that does so too makes SQLite answer "locked" at once, whatever its time-out."""
    limit = time.monotonic() + busy_s
    while True:
        try:
            database.execute("PRAGMA journal_mode=WAL").fetchone()
        except sqlite3.OperationalError as error:
            if "lock" not in str(error) or time.monotonic() > limit:
                raise
            time.sleep(0.02)
        else:
            return


def _require(database: sqlite3.Connection) -> None:
    if (found := _version(database)) != FORMAT:
        raise UnknownFormat(f"format {found}, and this version of spark-build knows {FORMAT}")


def _version(database: sqlite3.Connection) -> int:
    return int(database.execute("PRAGMA user_version").fetchone()[0])


def _tables(database: sqlite3.Connection) -> int:
    return int(database.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0])


def is_refusal(error: Exception) -> bool:
    """Whether the system lets nobody write here. The names are those of sqlite.org/rescode.html."""
    return _name(error).startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM")) or isinstance(error, OSError)


def is_busy(error: Exception) -> bool:
    """Whether another process holds the file."""
    return _name(error).startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


def _name(error: Exception) -> str:
    return getattr(error, "sqlite_errorname", "") or ""


def mending(error: Exception, path: Path) -> str:
    """Return what is wrong with the file, and what to type."""
    if is_refusal(error):
        return f"{path} can't be written; see: ls -ld {path.parent} {path}"
    if is_busy(error):
        return f"{path} stays locked by another process; see: fuser -v {path}"
    if _name(error).startswith("SQLITE_FULL"):
        return f"no space left for {path}; run: spark-build gc"
    aside = f"put it aside, and a new one is made: mv {path} {path}.old; rm -f {path}-wal {path}-shm"
    if isinstance(error, UnknownFormat):
        return f"{path} was made by another version ({error}); {aside}"
    return f"{path} is damaged ({error}); {aside}"
