"""What each unit took when it ran: ``units.sqlite3`` in the wheelhouse, written as units end, outside of any build tree.

Several processes write at once. Losing it costs time and no build: a file that is damaged, locked or can't be written is
told once, with how to mend it, and the build goes on without. Commits aren't synced (WAL, ``synchronous=NORMAL``), so a
power cut may take the last rows, and never the file.

Peaks hold on every machine, times only on the one that took them: a time from elsewhere is multiplied by what this machine
needed for the units that both have measured.
"""

from __future__ import annotations

import contextlib
import sqlite3
import statistics
import threading
from typing import TYPE_CHECKING, Any

from builder.events import Note
from builder.gate import document
from builder.gate.file import FORMAT, UnknownFormat, is_busy, is_refusal, mending, opened
from builder.gate.units import HERE, SEED, Estimate, Run, machine_class

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from builder.events import Sink
    from builder.gate.seeds import Seed
    from builder.gate.units import Unit

__all__ = ["FORMAT", "KEPT", "History"]

#: Runs that are kept of one unit with one set of flags; newer ones push older ones out.
KEPT = 8

#: Runs of one unit that a prediction rests on.
_SAMPLES = 3

#: How long a lock is waited for once that was in vain.
_IMPATIENT_S = 0.2

_FEW = 3
_SECOND = 1000

_COLUMNS = (
    "recipe, source, object, kind, flags, toolchain, peak_bytes, largest_bytes, wall_ms, cpu_ms, curve, attempts, outcome, "
    "cached, machine, version, build, time, origin"
)
_MARKS = ",".join("?" * len(_COLUMNS.split(",")))
_KEY = "recipe=? AND source=? AND object=? AND kind=? AND flags=?"


class History:
    """The runs of all recipes of a wheelhouse. Safe to use from several threads; no method raises for a bad file.

    `clock` gives seconds since 1970.
    """

    def __init__(self, path: Path, *, sink: Sink, clock: Callable[[], float], busy_s: float = 5.0) -> None:
        self._path = path
        self._sink = sink
        self._clock = clock
        self._busy_s = busy_s
        self._lock = threading.RLock()
        self._database: sqlite3.Connection | None = None
        self._writable = True
        self._told = False
        self._off = False

    def record(self, run: Run) -> None:
        """Keep one run, and of its unit and flags only the newest `KEPT` from here (or from elsewhere, where it is from)."""
        self._try("kept", lambda database: _insert(database, [run]), writes=True)

    def rows(self, recipe: str, toolchain: str | None = None) -> tuple[Run, ...]:
        """Return the runs of a recipe, newest first; only those by `toolchain` when it is given."""
        where, values = (
            ("recipe=?", [recipe]) if toolchain is None else ("recipe=? AND toolchain=?", [recipe, toolchain])
        )
        found = self._try("read", lambda database: _select(database, where, values))
        return found or ()

    def failed(self, build: str) -> tuple[Unit, ...]:
        """Return the units whose last run failed in builds whose id begins with `build`, in the order of their failing."""
        found = self._try("read", lambda database: _select(database, "substr(build, 1, ?)=?", [len(build), build]))
        last: dict[Unit, Run] = {}
        for run in found or ():
            last.setdefault(run.unit, run)
        return tuple(unit for unit, run in reversed(last.items()) if run.outcome == "failed")

    def speed(self, recipe: str, seeds: Iterable[Seed] = ()) -> Mapping[str, float]:
        """Return by how much times from elsewhere have to be multiplied: {machine class, or `SEED`: factor}.

        Each factor is the median over the units that were measured both here and there. One that has nothing in common
        with this machine is missing.
        """
        return _speed(self.rows(recipe), tuple(seeds))

    def predictions(
        self,
        recipe: str,
        *,
        hints: Sequence[tuple[str, int]] = (),
        plain: Mapping[str, int] | None = None,
        seeds: Iterable[Seed] = (),
        speed: Mapping[str, float] | None = None,
        toolchain: str | None = None,
        first: Iterable[Unit] = (),
    ) -> bytes:
        """Return all that is known of a recipe's units as lines for the broker (``launcher/broker/predict.hpp``).

        `hints` are (shell pattern on the source, bytes), the last match counts; `plain` is an ordinary unit's peak by kind.
        A seed is left out once its unit has been measured here. `first` names units that should go before all others:
        a line ``first``, source, object.
        """
        held = tuple(seeds)
        runs = [run for run in self.rows(recipe) if run.outcome == "ok" and not run.cached]
        factors = speed if speed is not None else _speed(runs, held)
        sources, objects = {run.unit.source for run in runs}, {_tail(run.unit.object) for run in runs}
        lines = [
            _line(seed.unit, seed.peak_bytes, seed.cpu_ms * factors.get(SEED, 1.0), ())
            for seed in held
            if (seed.unit.source not in sources if seed.unit.source else _tail(seed.unit.object) not in objects)
        ]
        for chosen in _chosen(runs, toolchain):
            for run in reversed(chosen):
                factor = 1.0 if run.origin == HERE else factors.get(run.machine, factors.get(SEED, 1.0))
                lines.append(_line(run.unit, run.peak_bytes, run.wall_ms * factor, run.curve))
        lines += [f"hint\t{_word(pattern)}\t{size}" for pattern, size in hints]
        lines += [f"plain\t{kind}\t{size}" for kind, size in (plain or {}).items()]
        lines += [f"first\t{_word(unit.source)}\t{_word(unit.object)}" for unit in first]
        return "".join(line + "\n" for line in lines).encode(errors="surrogateescape")

    def estimate(self, recipe: str, units: Iterable[Unit] | None = None, seeds: Iterable[Seed] = ()) -> Estimate:
        """Return what is known of `units`, or of all that the recipe ever had: times of this machine."""
        held = tuple(seeds)
        runs = [run for run in self.rows(recipe) if run.outcome == "ok" and not run.cached]
        factors = _speed(runs, held)
        known: dict[Unit, int] = {}
        for run in runs:  # newest first
            factor = 1.0 if run.origin == HERE else factors.get(run.machine, factors.get(SEED, 1.0))
            known.setdefault(run.unit.bare, round(run.wall_ms * factor))
        sources, objects = {unit.source for unit in known}, {_tail(unit.object) for unit in known}
        for seed in held:
            if seed.unit.source not in sources if seed.unit.source else _tail(seed.unit.object) not in objects:
                known.setdefault(seed.unit.bare, round(seed.cpu_ms * factors.get(SEED, 1.0)))
        if units is None:
            return Estimate(times=known, wanted=len(known))
        asked = tuple(dict.fromkeys(unit.bare for unit in units))
        return Estimate(times={unit: known[unit] for unit in asked if unit in known}, wanted=len(asked))

    def export(self, what: str) -> bytes:
        """Return what is known of a recipe, or of one build (the start of its id), as a canonical JSON document.

        The newest good run of each unit and set of flags is in it. Without any there is a document without units.
        """

        def select(database: sqlite3.Connection) -> tuple[Run, ...]:
            runs = _select(database, "recipe=?", [what])
            return runs or _select(database, "substr(build, 1, ?)=?", [len(what), what])

        runs = self._try("read", select) or ()
        newest: dict[Unit, Run] = {}
        for run in runs:
            if run.outcome == "ok" and not run.cached and run.origin == HERE:
                newest.setdefault(run.unit, run)
        return document.write(tuple(newest.values()))

    def import_document(self, data: bytes) -> int:
        """Take the runs of a document that `export` made, here or on another machine, and return how many were new.

        Raises UsageError ``history-document`` when it is none; nothing of it is taken then.
        """
        runs = document.read(data)
        return self._try("kept", lambda database: _insert(database, runs, once=True), writes=True) or 0

    def close(self) -> None:
        """Leave the file; the next call opens it again."""
        with self._lock:
            if self._database is not None:
                with contextlib.suppress(sqlite3.Error):
                    self._database.close()
            self._database = None

    def _try(self, verb: str, work: Callable[[sqlite3.Connection], Any], *, writes: bool = False) -> Any:  # noqa: ANN401
        """Return what `work` returns, or None after a note when the file doesn't let it."""
        with self._lock:
            if self._off or (writes and not self._writable):
                return None
            try:
                if self._database is None:
                    self._database = opened(self._path, busy_s=self._busy_s)
                return work(self._database)
            except (sqlite3.Error, OSError, UnknownFormat) as error:
                self._give_up(error, writes=writes)
                self._tell(f"what units need isn't {verb}: {mending(error, self._path)}")
                return None

    def _give_up(self, error: Exception, *, writes: bool) -> None:
        """Do without what failed: a lock that is held too long costs this call, a file that only reads all writing."""
        self.close()
        if is_busy(error):
            self._busy_s = min(self._busy_s, _IMPATIENT_S)  # units go on ending meanwhile
        elif writes and is_refusal(error):
            self._writable = False
        else:
            self._off = True

    def _tell(self, text: str) -> None:
        if not self._told:
            self._told = True
            self._sink.emit(Note(level="warning", text=text))


def _insert(database: sqlite3.Connection, runs: Sequence[Run], *, once: bool = False) -> int:
    """Insert the runs in one transaction, without those that are there already when `once`; return how many were."""
    count = 0
    database.execute("BEGIN IMMEDIATE")
    try:
        for run in runs:
            row = run.row()
            if once and _there(database, run):
                continue
            database.execute(f"INSERT INTO runs ({_COLUMNS}) VALUES ({_MARKS})", row)  # noqa: S608  # constants
            key = row[:5]
            database.execute(
                f"DELETE FROM runs WHERE {_KEY} AND origin=? AND id NOT IN "  # noqa: S608  # constants
                f"(SELECT id FROM runs WHERE {_KEY} AND origin=? ORDER BY time DESC, id DESC LIMIT ?)",
                (*key, run.origin, *key, run.origin, KEPT),
            )
            count += 1
        database.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            database.execute("ROLLBACK")
        raise
    return count


def _there(database: sqlite3.Connection, run: Run) -> bool:
    row = run.row()
    found = database.execute(
        f"SELECT 1 FROM runs WHERE {_KEY} AND machine=? AND time=? AND build=?",  # noqa: S608  # constants
        (*row[:5], run.machine, run.time, run.build),
    )
    return found.fetchone() is not None


def _select(database: sqlite3.Connection, where: str, values: Sequence[object]) -> tuple[Run, ...]:
    """Return runs, newest first. What was measured on a machine of another class is from elsewhere, wherever it was kept."""
    query = f"SELECT {_COLUMNS} FROM runs WHERE {where} ORDER BY time DESC, id DESC"  # noqa: S608  # constants
    mine = machine_class()
    return tuple(Run.parse(row, mine) for row in database.execute(query, values))


def _chosen(runs: Sequence[Run], toolchain: str | None) -> list[tuple[Run, ...]]:
    """Return the runs that count for each unit and set of flags, newest first; those from here before all others.

    Of them, those of this toolchain where there are any.
    """
    by_unit: dict[Unit, list[Run]] = {}
    for run in runs:
        by_unit.setdefault(run.unit, []).append(run)
    chosen = []
    for group in by_unit.values():
        here = [run for run in group if run.origin == HERE] or group
        same = [run for run in here if run.toolchain == toolchain] or here
        chosen.append(tuple(same[:_SAMPLES]))
    return chosen


def _speed(runs: Sequence[Run], seeds: Sequence[Seed]) -> dict[str, float]:
    mine: dict[Unit, int] = {}
    for run in runs:
        if run.origin == HERE and run.outcome == "ok" and not run.cached and run.wall_ms > 0:
            mine.setdefault(run.unit.bare, run.wall_ms)
    sources = {unit.source: ms for unit, ms in mine.items()}
    objects = {_tail(unit.object): ms for unit, ms in mine.items()}
    pairs: dict[str, list[tuple[int, int]]] = {}
    for seed in seeds:
        took = sources.get(seed.unit.source) if seed.unit.source else objects.get(_tail(seed.unit.object))
        if took and seed.cpu_ms > 0 and seed.measured:
            pairs.setdefault(SEED, []).append((took, seed.cpu_ms))
    for run in runs:
        if run.origin != HERE and run.outcome == "ok" and run.wall_ms > 0 and (took := mine.get(run.unit.bare)):
            pairs.setdefault(run.machine, []).append((took, run.wall_ms))
    return {origin: _factor(found) for origin, found in pairs.items()}


def _factor(pairs: Sequence[tuple[int, int]]) -> float:
    """Return the median ratio; of units that take a second or more where there are a few, since short ones are noise."""
    long = [(here, there) for here, there in pairs if there >= _SECOND]
    return statistics.median(here / there for here, there in (long if len(long) >= _FEW else pairs))


def _line(unit: Unit, peak_bytes: int, ms: float, curve: Sequence[int]) -> str:
    names = "\t".join(_word(word) for word in (unit.source, unit.object, unit.kind, unit.flags))
    return f"unit\t{names}\t{peak_bytes}\t{round(ms)}\t{','.join(map(str, curve)) or '-'}"


def _word(text: str) -> str:
    """Return a name that fits into a field; no file that a build compiles has such characters, and a line is a line."""
    return text.replace("\t", " ").replace("\n", " ")


def _tail(path: str) -> str:
    return "/".join(path.split("/")[-2:])
