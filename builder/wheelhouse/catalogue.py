"""The catalogue: one SQLite file about wheels, inputs, plans and channels. It can always be made anew from the rest."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from typing import TYPE_CHECKING, Any

from builder.errors import WheelhouseError
from builder.stages import Stored
from builder.wheelhouse import connection

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path
    from tempfile import TemporaryDirectory

__all__ = ["VERSION", "Catalogue"]

VERSION = 2
#: How long another process may hold the file before this is an error.
BUSY_S = 10.0

_SCHEMA = """
CREATE TABLE wheels (
    sha256 TEXT PRIMARY KEY, filename TEXT NOT NULL UNIQUE, project TEXT NOT NULL, version TEXT NOT NULL,
    output TEXT NOT NULL, fingerprint TEXT NOT NULL, recipe TEXT NOT NULL, size INTEGER NOT NULL, created REAL NOT NULL,
    state TEXT NOT NULL, requires_python TEXT, metadata BLOB NOT NULL, metadata_sha256 TEXT NOT NULL,
    -- The time of the file when its bytes were last known to be right.
    mtime_ns INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX wheels_fingerprint ON wheels (fingerprint);
CREATE INDEX wheels_recipe ON wheels (recipe, created);
CREATE INDEX wheels_project ON wheels (project);
-- A name keeps its bytes for ever, also when the wheel is gone.
CREATE TABLE names (filename TEXT PRIMARY KEY, sha256 TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE inputs (fingerprint TEXT PRIMARY KEY, recipe TEXT NOT NULL, document TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE plans (fingerprint TEXT PRIMARY KEY, first REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX plans_first ON plans (first);
CREATE TABLE memory (kind TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (kind, key)) WITHOUT ROWID;
CREATE TABLE channels (name TEXT PRIMARY KEY, created REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE members (
    channel TEXT NOT NULL REFERENCES channels, sha256 TEXT NOT NULL, position INTEGER NOT NULL,
    PRIMARY KEY (channel, sha256)
) WITHOUT ROWID;
CREATE TABLE findings (
    sha256 TEXT NOT NULL, rules TEXT NOT NULL, document TEXT NOT NULL, PRIMARY KEY (sha256, rules)
) WITHOUT ROWID;
CREATE TABLE locks (name TEXT PRIMARY KEY, document TEXT NOT NULL, created REAL NOT NULL) WITHOUT ROWID;
-- Which catalogue this is, and a number that grows with every change that an index page could show.
CREATE TABLE state (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
INSERT INTO state VALUES ('id', lower(hex(randomblob(16)))), ('generation', 0);
"""
_SCHEMA += "".join(
    f"CREATE TRIGGER {table}_{change} AFTER {change} ON {table} BEGIN "  # noqa: S608  # two closed lists
    "UPDATE state SET value=value+1 WHERE key='generation'; END;\n"
    for table in ("wheels", "members")
    for change in ("insert", "update", "delete")
)

_COLUMNS = (
    "output, project, version, filename, sha256, size, fingerprint, recipe, created, state, requires_python, "
    "metadata_sha256"
)


class Catalogue:
    """An open catalogue. Every method raises WheelhouseError when the file is damaged, HostError when it stays locked.

    `path` must exist, see `make`. `read_only` is for a folder that can't be written.
    """

    def __init__(self, path: Path, wheels: Path, *, read_only: bool = False, busy_s: float = BUSY_S) -> None:
        self._path = path
        self._wheels = wheels
        self._busy_s = busy_s
        self._read_only = read_only
        self._copy: TemporaryDirectory[str] | None = None
        self._identity: tuple[int, int] | None = None
        with self._told():
            self._open()
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            raise connection.damaged(path, "it is empty, or was cut off")
        if version != VERSION:
            raise WheelhouseError(
                "catalogue-version",
                f"{path} has version {version}, this spark-build knows {VERSION}",
                help="another spark-build wrote it; use that one, or make the catalogue anew with this one",
                run=("spark-build wheels reindex",),
            )

    @staticmethod
    def make(path: Path) -> None:
        """Leave an empty catalogue at `path`, whole or not at all. The caller holds the write lock."""
        beside = path.with_name(f"{path.name}.making")
        for tail in ("", "-wal", "-shm", "-journal"):
            beside.with_name(beside.name + tail).unlink(missing_ok=True)
        with connection.told(beside, busy_s=0), contextlib.closing(sqlite3.connect(beside, isolation_level=None)) as db:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("BEGIN")
            for statement in _SCHEMA.split(";\n"):
                if statement.strip():
                    db.execute(statement)
            db.execute(f"PRAGMA user_version={VERSION}")
            db.execute("COMMIT")
        connection.swap(beside, path)

    def _open(self) -> None:
        # A swap between the two would leave an older identity, and the next writer opens once more: harmless.
        self._identity = connection.identity(self._path)
        if self._read_only:
            self._db, self._copy = connection.open_read_only(self._path)
        else:
            self._db = connection.open_shared(self._path, busy_s=self._busy_s)

    def refresh(self) -> None:
        """Open the file again when a reindex has put another in its place; costs one ``stat`` when it hasn't.

        Every writer does this under the write lock, and who reads for long before it asks.
        """
        if self._identity != connection.identity(self._path):
            self.close()
            with self._told():
                self._open()

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()
        if self._copy is not None:
            self._copy.cleanup()

    def _told(self) -> AbstractContextManager[None]:
        return connection.told(self._path, busy_s=self._busy_s)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Give the connection inside one transaction: all of it happens, or nothing."""
        with self._told():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):  # a full disk has rolled it back already
                    self._db.execute("ROLLBACK")
                raise

    def sound(self) -> str:
        """Return what is wrong with the file by SQLite's own check, or an empty text."""
        try:
            rows = [str(row[0]) for row in self._db.execute("PRAGMA integrity_check(5)")]
        except sqlite3.DatabaseError as error:
            rows = [str(error)]
        return "" if rows == ["ok"] else "; ".join(rows)

    def document(self, text: str) -> dict[str, Any]:
        """Return a JSON object that a column holds."""
        try:
            value = json.loads(text)
        except ValueError as error:
            raise connection.damaged(self._path, f"a document in it is no JSON: {error}") from error
        if not isinstance(value, dict):
            raise connection.damaged(self._path, "a document in it is no object")
        return value

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of a query."""
        try:  # a context manager costs a third of a small query
            return self._db.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise connection.retold(error, self._path, busy_s=self._busy_s) from error

    def stored(self, where: str, values: Sequence[Any] = ()) -> tuple[Stored, ...]:
        """Return the wheels that match an SQL condition, oldest first."""
        sql = f"SELECT {_COLUMNS} FROM wheels WHERE {where} ORDER BY created, filename"  # noqa: S608  # ours
        return tuple(
            Stored(
                output=row[0],
                project=row[1],
                version=row[2],
                filename=row[3],
                path=self._wheels.joinpath(row[1], row[3]),
                sha256=row[4],
                size=row[5],
                fingerprint=row[6],
                recipe=row[7],
                created=row[8],
                state=row[9],
                requires_python=row[10],
                metadata_sha256=row[11],
            )
            for row in self.rows(sql, values)
        )

    def insert(  # a row's columns
        self,
        db: sqlite3.Connection,
        wheel: Stored,
        *,
        metadata: bytes,
        channel: str | None,
        inputs: dict[str, Any] | None,
    ) -> None:
        """Add one wheel inside a transaction, to `channel` too, with its inputs document; its file is there, and right."""
        db.execute(
            f"INSERT OR REPLACE INTO wheels ({_COLUMNS}, metadata, mtime_ns) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)",  # noqa: S608  # ours
            (
                wheel.output,
                wheel.project,
                wheel.version,
                wheel.filename,
                wheel.sha256,
                wheel.size,
                wheel.fingerprint,
                wheel.recipe,
                wheel.created,
                wheel.state,
                wheel.requires_python,
                wheel.metadata_sha256,
                metadata,
                wheel.path.stat().st_mtime_ns,
            ),
        )
        db.execute("INSERT OR IGNORE INTO names VALUES (?,?)", (wheel.filename, wheel.sha256))
        if inputs is not None:
            self.keep_inputs(db, wheel.fingerprint, wheel.recipe, inputs)
        if channel:
            db.execute("INSERT OR IGNORE INTO channels VALUES (?,?)", (channel, wheel.created))
            db.execute(
                "INSERT OR IGNORE INTO members SELECT ?,?,1+COALESCE(MAX(position),0) FROM members WHERE channel=?",
                (channel, wheel.sha256, channel),
            )

    def keep_inputs(self, db: sqlite3.Connection, fingerprint: str, recipe: str, inputs: dict[str, Any]) -> None:
        """Keep an inputs document inside a transaction."""
        text = json.dumps(inputs, sort_keys=True)
        db.execute("INSERT OR REPLACE INTO inputs VALUES (?,?,?)", (fingerprint, recipe, text))
