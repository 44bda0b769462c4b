"""Past builds: what each phase took, for estimates and for ``spark-build history``.

A SQLite file of its own beside the catalogue. It may be lost without harm: a damaged one is set aside under the name
``<file>.damaged-<n>`` and a new one is begun, so that no build fails because of it.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from builder.values import dataclass, fields

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

__all__ = ["Past", "estimate", "past", "record"]

#: How many of the newest successful builds an estimate looks at.
SAMPLE = 10

_BUSY_S = 5.0

_SCHEMA = """
create table if not exists past (
    id integer primary key,
    recipe text not null,
    output text not null,
    phase text not null,
    ms integer not null,
    peak_bytes integer,
    status text not null,
    "when" real not null,
    fingerprint text not null,
    host text not null
) strict;
create index if not exists past_by_recipe on past (recipe, output, phase, status, "when");
pragma user_version = 1;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """One phase of one attempt: it took `ms`, ended with `status` at `when` (seconds), its largest process had `peak_bytes`.

    `host` is the machine's kind (``aarch64``): times of another kind aren't comparable.
    """

    recipe: str
    output: str
    phase: str
    ms: int
    peak_bytes: int | None
    status: str
    when: float
    fingerprint: str
    host: str


_COLUMNS = tuple(field.name for field in fields(Past))
_QUOTED = ", ".join(f'"{name}"' for name in _COLUMNS)


def record(path: Path, one: Past, *, note: Callable[[str], None] = lambda _text: None, busy_s: float = _BUSY_S) -> None:
    """Add `one` to the file at `path`, which is made where it isn't there.

    Never raises because of the file: one that is damaged is set aside, one that can't be written (or is locked for longer
    than `busy_s`) is left; `note` is told.
    """
    values = tuple(getattr(one, name) for name in _COLUMNS)
    marks = ", ".join("?" * len(_COLUMNS))

    def insert(database: sqlite3.Connection) -> None:
        database.executescript(_SCHEMA)
        with database:
            database.execute(f"insert into past ({_QUOTED}) values ({marks})", values)  # noqa: S608  # our own names

    _guarded(path, insert, note, writes=True, busy_s=busy_s)


def estimate(path: Path, recipe: str, outputs: Sequence[str], *, host: str | None = None) -> int | None:
    """Return how many seconds building `outputs` one after the other takes, or None where one was never built.

    It is the sum of each output's median over its last `SAMPLE` successful build phases, on machines of the kind `host`
    where that is given.
    """
    import statistics  # noqa: PLC0415  # not on the hit path

    total = 0.0
    for output in outputs:
        rows = _query(
            path,
            "select ms from past where recipe = ?1 and output = ?2 and phase = 'build' and status = 'ok' "
            'and (?3 is null or host = ?3) order by "when" desc, id desc limit ?4',
            (recipe, output, host, SAMPLE),
        )
        if not rows:
            return None
        total += statistics.median(float(str(row[0])) for row in rows) / 1000
    return round(total) if outputs else None


def past(path: Path, *, recipe: str | None = None, limit: int) -> tuple[Past, ...]:
    """Return the newest `limit` phases, newest first, of all recipes or of one."""
    rows = _query(
        path,
        f'select {_QUOTED} from past where ?1 is null or recipe = ?1 order by "when" desc, id desc limit ?2',  # noqa: S608
        (recipe, limit),
    )
    return tuple(Past(**dict(zip(_COLUMNS, row, strict=True))) for row in rows)  # type: ignore[arg-type]


def _query(path: Path, sql: str, values: tuple[object, ...]) -> list[tuple[object, ...]]:
    """Return rows; none where the file isn't there, is damaged or can't be read."""
    if not path.exists():
        return []
    found: list[tuple[object, ...]] = []

    def select(database: sqlite3.Connection) -> None:
        found.extend(database.execute(sql, values))

    _guarded(path, select, lambda _text: None, writes=False)
    return found


def _guarded(
    path: Path,
    work: Callable[[sqlite3.Connection], None],
    note: Callable[[str], None],
    *,
    writes: bool,
    busy_s: float = _BUSY_S,
) -> None:
    import sqlite3  # noqa: PLC0415  # not on the hit path

    for _attempt in range(2):
        before = _inode(path)
        try:
            with _opened(path, writes=writes, busy_s=busy_s) as database:
                work(database)
        except sqlite3.OperationalError as error:  # locked for long, read-only, full: not the file's fault
            note(f"the history {path} can't be {'written' if writes else 'read'}: {error}")
            return
        except sqlite3.DatabaseError as error:
            if not writes:
                return
            if _inode(path) == before:  # else another process has just done it
                aside = _set_aside(path)
                note(f"the history {path} was damaged ({error}) and is now {aside}; estimates begin anew")
        except OSError as error:
            note(f"the history {path} can't be used: {error}")
            return
        else:
            return


@contextlib.contextmanager
def _opened(path: Path, *, writes: bool, busy_s: float) -> Iterator[sqlite3.Connection]:
    import sqlite3  # noqa: PLC0415

    place: Path | str = path
    if writes:
        path.parent.mkdir(parents=True, exist_ok=True)
    else:
        # WAL needs a file for its index, which can't be made on read-only media; there nobody writes, either.
        fixed = os.statvfs(path).f_flag & os.ST_RDONLY
        place = f"{path.absolute().as_uri()}?{'immutable=1' if fixed else 'mode=ro'}"
    database = sqlite3.connect(place, timeout=busy_s, uri=not writes)
    try:
        if writes:
            database.execute("pragma journal_mode = wal")
        yield database
    finally:
        database.close()


def _inode(path: Path) -> int:
    return path.stat().st_ino if path.exists() else 0


def _set_aside(path: Path) -> Path:
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    path.rename(aside)
    for tail in ("-wal", "-shm"):
        path.with_name(path.name + tail).unlink(missing_ok=True)
    return aside
