"""Opening the catalogue's file, and SQLite's errors in our words.

A reindex swaps the file under its name. SQLite finds ``-wal`` and ``-shm`` by name, too, so the swap and every opening
exclude each other by a lock on the wheelhouse's folder, held for moments; what was opened before goes on with the old file,
whole and alone, and SQLite leaves the new one's ``-wal`` alone when it closes a file that has lost its name.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

from builder import durable
from builder.errors import HostError, WheelhouseError
from builder.wheelhouse import locks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from tempfile import TemporaryDirectory

    from builder.errors import SparkError

__all__ = ["damaged", "identity", "open_read_only", "open_shared", "retold", "swap", "told"]


def open_shared(path: Path, *, busy_s: float) -> sqlite3.Connection:
    """Return a connection that reads and writes; `path` exists. A process that holds it is waited for `busy_s` seconds."""
    with locks.folder_lock(path.parent, shared=True):
        database = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=busy_s, isolation_level=None
        )
        try:
            # Opens -wal and -shm by name, here and now.
            database.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
            database.execute("PRAGMA synchronous=FULL")
        except sqlite3.Error:
            database.close()
            raise
    return database


def open_read_only(path: Path) -> tuple[sqlite3.Connection, TemporaryDirectory[str] | None]:
    """Return a connection for a file in a folder that can't be written, and the folder of its copy where one was needed.

    While another process writes, its ``-wal`` and ``-shm`` are there, and are read. Where they can't be used, nobody writes:
    a left ``-wal`` holds the newest changes, which an immutable opening would not see, so both are copied and opened there;
    without one the file is opened immutable, as a stick or a CD asks for.
    """
    uri, wal = path.absolute().as_uri(), path.with_name(f"{path.name}-wal")
    try:
        return _probed(f"{uri}?mode=ro"), None
    except sqlite3.OperationalError:
        if not wal.exists() or not wal.stat().st_size:
            return _probed(f"{uri}?immutable=1"), None
    import shutil  # noqa: PLC0415  # hardly ever
    import tempfile  # noqa: PLC0415

    folder = tempfile.TemporaryDirectory(prefix="spark-build-catalogue-")
    copy = Path(folder.name) / path.name
    shutil.copyfile(path, copy)
    shutil.copyfile(wal, copy.with_name(wal.name))
    return _probed(f"{copy.as_uri()}?mode=rw"), folder


def _probed(uri: str) -> sqlite3.Connection:
    database = sqlite3.connect(uri, uri=True, isolation_level=None)
    try:
        database.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
    except sqlite3.Error:
        database.close()
        raise
    return database


def swap(fresh: Path, path: Path) -> None:
    """Put the closed file `fresh` in the place of `path`, with nothing of the old one's ``-wal`` beside it."""
    with locks.folder_lock(path.parent, shared=False):
        for tail in ("-wal", "-shm", "-journal"):
            path.with_name(path.name + tail).unlink(missing_ok=True)
        fresh.replace(path)
        durable.sync_folder(path.parent)


def identity(path: Path) -> tuple[int, int] | None:
    """Return what tells the file now at `path` from one that was there before."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


@contextlib.contextmanager
def told(path: Path, *, busy_s: float) -> Iterator[None]:
    """Retell SQLite's errors about the catalogue at `path`."""
    try:
        yield
    except sqlite3.Error as error:
        raise retold(error, path, busy_s=busy_s) from error


def retold(error: sqlite3.Error, path: Path, *, busy_s: float) -> SparkError:
    """Return SQLite's error in our words; the names are those of sqlite.org/rescode.html."""
    name = getattr(error, "sqlite_errorname", "") or ""
    text = f"{error} ({name})" if name else str(error)
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return HostError(
            "catalogue-locked",
            f"{path} stays locked by another process",
            cause=f"waited {busy_s:g} s: {text}",
            help="see who has it open, and wait for it or end it",
            run=(f"fuser -v {path}",),
        )
    host = name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM", "SQLITE_IOERR", "SQLITE_FULL"))
    if name == "SQLITE_FULL" or (host and _is_full(path.parent)):
        return HostError("disk-full", f"no space left for {path}", cause=text, run=("spark-build gc",))
    if name.startswith("SQLITE_IOERR"):
        return HostError("catalogue-io", f"{path} can't be read or written", cause=text, run=("dmesg | tail",))
    if host:
        return HostError("unwritable", f"{path} can't be opened or written", cause=text, run=(f"ls -l {path}*",))
    return damaged(path, text)


def damaged(path: Path, text: str) -> WheelhouseError:
    """Return the error for a catalogue that can't be trusted."""
    return WheelhouseError(
        "catalogue-damaged",
        f"{path} is damaged",
        cause=text,
        help="wheels, their records and the journal hold all that it held; make it anew",
        run=("spark-build wheels reindex",),
    )


def _is_full(folder: Path) -> bool:
    try:
        found = os.statvfs(folder)
    except OSError:
        return False
    return found.f_bavail * found.f_frsize < 1 << 16  # SQLite's shared memory begins with 32 KiB
