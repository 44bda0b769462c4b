"""The catalogue: one SQLite file about wheels, inputs, plans and channels. It can always be made anew from the rest."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from typing import TYPE_CHECKING, Any

from builder.errors import HostError, WheelhouseError
from builder.stages import Stored

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = ["VERSION", "Catalogue"]

VERSION = 1
BUSY_MS = 10_000

_SCHEMA = """
CREATE TABLE wheels (
    sha256 TEXT PRIMARY KEY, filename TEXT NOT NULL UNIQUE, project TEXT NOT NULL, version TEXT NOT NULL,
    output TEXT NOT NULL, fingerprint TEXT NOT NULL, recipe TEXT NOT NULL, size INTEGER NOT NULL, created REAL NOT NULL,
    state TEXT NOT NULL, requires_python TEXT, metadata BLOB NOT NULL, metadata_sha256 TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX wheels_fingerprint ON wheels (fingerprint);
CREATE INDEX wheels_recipe ON wheels (recipe, created);
CREATE INDEX wheels_project ON wheels (project);
-- A name keeps its bytes for ever, also when the wheel is gone.
CREATE TABLE names (filename TEXT PRIMARY KEY, sha256 TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE inputs (fingerprint TEXT PRIMARY KEY, recipe TEXT NOT NULL, document TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE plans (fingerprint TEXT PRIMARY KEY, first REAL NOT NULL) WITHOUT ROWID;
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
"""

_COLUMNS = (
    "output, project, version, filename, sha256, size, fingerprint, recipe, created, state, requires_python, "
    "metadata_sha256"
)


class Catalogue:
    """An open catalogue. Every method raises WheelhouseError when the file is damaged, HostError when it stays locked."""

    def __init__(self, path: Path, wheels: Path, *, read_only: bool = False) -> None:
        self._path = path
        self._wheels = wheels
        with self.told():
            if read_only:
                # Immutable: a stick or a CD has no room for SQLite's shared memory.
                self._db = sqlite3.connect(f"file:{path}?immutable=1", uri=True, isolation_level=None)
            else:
                self._db = sqlite3.connect(path, timeout=BUSY_MS / 1000, isolation_level=None)
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0 and not read_only:
                self._create()
            elif version != VERSION:
                raise WheelhouseError(
                    "catalogue-version",
                    f"{path} has version {version}, this spark-build knows {VERSION}",
                    help="a newer spark-build wrote it; use that one, or make the catalogue anew with this one",
                    run=("spark-build wheels reindex",),
                )
            if not read_only:
                self._db.execute("PRAGMA synchronous=FULL")

    def _create(self) -> None:
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("BEGIN IMMEDIATE")
        if self._db.execute("PRAGMA user_version").fetchone()[0] == 0:  # another process may have been quicker
            for statement in _SCHEMA.split(";\n"):
                if statement.strip():
                    self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version={VERSION}")
        self._db.execute("COMMIT")

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """Retell SQLite's errors in our words."""
        try:
            yield
        except sqlite3.OperationalError as error:
            text = str(error)
            if "locked" in text or "busy" in text:
                raise HostError(
                    "catalogue-locked",
                    f"{self._path} stays locked by another process",
                    cause=f"waited {BUSY_MS // 1000} s: {text}",
                    help="see who has it open",
                    run=(f"fuser {self._path}",),
                ) from error
            if "full" in text:
                raise HostError("disk-full", f"no space left for {self._path}", run=("spark-build gc",)) from error
            if "unable to open" in text or "readonly" in text:
                raise HostError("unwritable", f"{self._path} can't be written", cause=text) from error
            raise self._damaged(text) from error
        except sqlite3.DatabaseError as error:
            raise self._damaged(str(error)) from error

    def _damaged(self, text: str) -> WheelhouseError:
        return WheelhouseError(
            "catalogue-damaged",
            f"{self._path} is damaged",
            cause=text,
            help="wheels, their records and the journal hold all that it held; make it anew",
            run=("spark-build wheels reindex",),
        )

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Give the connection inside one transaction: all of it happens, or nothing."""
        with self.told():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                with contextlib.suppress(sqlite3.Error):  # a full disk has rolled it back already
                    self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of a query."""
        with self.told():
            return self._db.execute(sql, values).fetchall()

    def stored(self, where: str, values: Sequence[Any] = ()) -> tuple[Stored, ...]:
        """Return the wheels that match an SQL condition, oldest first."""
        sql = f"SELECT {_COLUMNS} FROM wheels WHERE {where} ORDER BY created, filename"  # noqa: S608  # ours
        return tuple(
            Stored(
                output=row[0],
                project=row[1],
                version=row[2],
                filename=row[3],
                path=self._wheels / row[1] / row[3],
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
        """Add one wheel inside a transaction, to `channel` too, with its inputs document."""
        db.execute(
            f"INSERT OR REPLACE INTO wheels ({_COLUMNS}, metadata) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)",  # noqa: S608  # ours
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
            ),
        )
        db.execute("INSERT OR REPLACE INTO names VALUES (?,?)", (wheel.filename, wheel.sha256))
        if inputs is not None:
            text = json.dumps(inputs, sort_keys=True)
            db.execute("INSERT OR REPLACE INTO inputs VALUES (?,?,?)", (wheel.fingerprint, wheel.recipe, text))
        if channel:
            db.execute("INSERT OR IGNORE INTO channels VALUES (?,?)", (channel, wheel.created))
            db.execute(
                "INSERT OR IGNORE INTO members SELECT ?,?,1+COALESCE(MAX(position),0) FROM members WHERE channel=?",
                (channel, wheel.sha256, channel),
            )
