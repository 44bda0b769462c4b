"""A wheelhouse as the rest of the program sees it."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Any, Self

from builder.errors import HostError, UsageError
from builder.plan import Known
from builder.wheelhouse import filesystem, journal, locks, publish
from builder.wheelhouse.catalogue import Catalogue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from builder.stages import Stored, Wheel

__all__ = ["Wheelhouse"]

#: So many older builds are looked at for the nearest one.
KNOWN_LIMIT = 8


class Wheelhouse:
    """An open wheelhouse. Several processes may have it open; each change of state is one transaction, journal first."""

    def __init__(self, root: Path, catalogue: Catalogue, clock: Callable[[], float], *, read_only: bool) -> None:
        self.root = root
        self.catalogue = catalogue
        self.clock = clock
        self.read_only = read_only

    @classmethod
    def open(
        cls, root: Path, *, clock: Callable[[], float], create: bool = True, read_only: bool = False
    ) -> Wheelhouse:
        """Return the wheelhouse at `root`, made when it isn't there and `create` is set.

        What a killed publish left is completed or undone first. A folder that can't be written is opened immutable when
        it holds a catalogue. Raises HostError ``unwritable``, ``network-filesystem``, ``catalogue-locked``; WheelhouseError
        ``catalogue-damaged``; UsageError ``wheelhouse-missing`` without `create`.
        """
        exists = (root / "catalog.sqlite3").exists()
        if not exists and (read_only or not create):
            raise UsageError(
                "wheelhouse-missing", f"there is no wheelhouse at {root}", run=("spark-build recipe flashinfer",)
            )
        if exists and not os.access(root, os.W_OK):
            read_only = True
        if not read_only:
            filesystem.check(root)
            try:
                (root / "wheels").mkdir(parents=True, exist_ok=True)
                (root / "builds").mkdir(exist_ok=True)
            except OSError as error:
                raise unwritable(root, error) from error
            if not os.access(root, os.W_OK):
                raise unwritable(root, PermissionError(13, "Permission denied"))
        catalogue = Catalogue(root / "catalog.sqlite3", root / "wheels", read_only=read_only)
        house = cls(root, catalogue, clock, read_only=read_only)
        if not read_only:
            publish.recover_if_needed(house)
        return house

    def close(self) -> None:
        """Let go of the catalogue."""
        self.catalogue.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    # --- reading

    def find(self, fingerprint: str) -> tuple[Stored, ...]:
        """Return the published wheels of `fingerprint` whose file is there in full size; of each output the newest."""
        found: dict[str, Stored] = {}
        for wheel in self.catalogue.stored("fingerprint=? AND state='published'", (fingerprint,)):
            with contextlib.suppress(OSError):
                if wheel.path.stat().st_size == wheel.size:
                    found[wheel.output] = wheel
        return tuple(found.values())

    def list_wheels(self, *, project: str | None = None, include_unpublished: bool = False) -> tuple[Stored, ...]:
        """Return wheels, oldest first."""
        where = "1" if include_unpublished else "state IN ('published', 'yanked')"
        return self.catalogue.stored(*((f"{where} AND project=?", (project,)) if project else (where,)))

    def get(self, ref: str) -> Stored:
        """Return the one wheel that `ref` names: file name, or the start of a fingerprint or sha256.

        Raises UsageError ``wheel-ref`` when that is none or several.
        """
        exact = self.catalogue.stored("filename=?", (os.path.basename(ref),))  # noqa: PTH119  # may be a path or not
        if exact:
            return exact[0]
        like = ref.replace("%", "").replace("_", "") + "%"
        found = self.catalogue.stored("fingerprint LIKE ? OR sha256 LIKE ?", (like, like)) if len(like) > 1 else ()
        if len(found) == 1:
            return found[0]
        names = ", ".join(wheel.filename for wheel in found[:5]) or "no wheel has such a name, fingerprint or sha256"
        raise UsageError(
            "wheel-ref", f"{ref} names {len(found) or 'no'} wheels", cause=names, run=("spark-build wheels list",)
        )

    def taken(self, filename: str, sha256: str) -> bool:
        """Whether `filename` stands for other bytes in this wheelhouse, now or ever before."""
        return bool(self.catalogue.rows("SELECT 1 FROM names WHERE filename=? AND sha256<>?", (filename, sha256)))

    def inputs(self, fingerprint: str) -> dict[str, Any] | None:
        """Return the inputs document of a stored build."""
        rows = self.catalogue.rows("SELECT document FROM inputs WHERE fingerprint=?", (fingerprint,))
        return json.loads(rows[0][0]) if rows else None

    def known(self, recipe: str, *, limit: int = KNOWN_LIMIT) -> tuple[Known, ...]:
        """Return the newest stored builds of `recipe`, newest first."""
        rows = self.catalogue.rows(
            "SELECT w.fingerprint, MAX(w.created) AS at, i.document FROM wheels w JOIN inputs i USING (fingerprint) "
            "WHERE w.recipe=? GROUP BY w.fingerprint ORDER BY at DESC LIMIT ?",
            (recipe, limit),
        )
        return tuple(Known(fingerprint=row[0], created=row[1], document=json.loads(row[2])) for row in rows)

    def metadata(self, sha256: str) -> bytes:
        """Return the METADATA of a stored wheel."""
        rows = self.catalogue.rows("SELECT metadata FROM wheels WHERE sha256=?", (sha256,))
        if not rows:
            raise UsageError("wheel-ref", f"no wheel has the sha256 {sha256}")
        return bytes(rows[0][0])

    # --- what plans remember

    def first_planned(self, fingerprint: str) -> float:
        """Return when `fingerprint` was first planned in this wheelhouse, in seconds; that is now when it never was."""
        rows = self.catalogue.rows("SELECT first FROM plans WHERE fingerprint=?", (fingerprint,))
        if rows:
            return float(rows[0][0])
        now = float(int(self.clock()))
        if self.read_only:
            return now
        with self.writing(), self.catalogue.transaction() as db:
            # A plan of another process may have come first, and labels must differ in time where fingerprints do.
            row = db.execute("SELECT first FROM plans WHERE fingerprint=?", (fingerprint,)).fetchone()
            if row:
                return float(row[0])
            latest = db.execute("SELECT MAX(first) FROM plans").fetchone()[0]
            now = max(now, (latest or 0) + 1)
            self.note("plan", fingerprint=fingerprint, first=int(now))
            db.execute("INSERT INTO plans VALUES (?,?)", (fingerprint, now))
        return now

    def recall(self, kind: str, key: str) -> dict[str, Any] | None:
        """Return what was remembered under `kind` and `key`, or None."""
        rows = self.catalogue.rows("SELECT value FROM memory WHERE kind=? AND key=?", (kind, key))
        return json.loads(rows[0][0]) if rows else None

    def remember(self, kind: str, key: str, value: Mapping[str, Any]) -> None:
        """Keep `value`; `reindex` brings it back. Does nothing in a read-only wheelhouse."""
        if self.read_only:
            return
        with self.writing(), self.catalogue.transaction() as db:
            self.note("remember", kind=kind, key=key, value=dict(value))
            db.execute("INSERT OR REPLACE INTO memory VALUES (?,?,?)", (kind, key, json.dumps(value)))

    def forget(self, kind: str, key: str) -> None:
        """Drop what was remembered."""
        with self.writing(), self.catalogue.transaction() as db:
            self.note("forget", kind=kind, key=key)
            db.execute("DELETE FROM memory WHERE kind=? AND key=?", (kind, key))

    # --- changing

    def writing(self) -> AbstractContextManager[None]:
        """Hold the one write lock; the journal has one writer at a time."""
        return locks.held(self.root / "locks" / "write")

    def note(self, op: str, **values: Any) -> None:  # noqa: ANN401  # any JSON
        """Append to the journal; the write lock is held."""
        journal.append(self.root / "journal.jsonl", now=self.clock(), op=op, **values)

    def publish(
        self,
        wheels: Sequence[Wheel],
        *,
        fingerprint: str,
        recipe: str,
        inputs: Mapping[str, Any] | None,
        provenance: Mapping[str, Any],
        channel: str | None = "local",
    ) -> tuple[Stored, ...]:
        """File a set of wheels, all or none, and return them as stored. A wheel that is there already is a hit.

        Raises WheelhouseError ``name-taken``, HostError ``disk-full`` or ``unwritable``; nothing half-done stays.
        """
        return publish.publish(
            self,
            wheels,
            publish.Filing(
                fingerprint=fingerprint, recipe=recipe, inputs=inputs, provenance=provenance, channel=channel
            ),
        )

    def remove(self, wheel: Stored) -> None:
        """Take a wheel and its records out. Its name stays tied to its bytes."""
        with self.writing():
            self.note("remove", filename=wheel.filename, sha256=wheel.sha256)
            with self.catalogue.transaction() as db:
                db.execute("DELETE FROM members WHERE sha256=?", (wheel.sha256,))
                db.execute("DELETE FROM wheels WHERE sha256=?", (wheel.sha256,))
            for file in (wheel.path, publish.sidecar(wheel.path)):
                file.unlink(missing_ok=True)

    # --- locks

    @contextlib.contextmanager
    def build_lock(
        self, fingerprint: str, *, on_wait: Callable[[str], None], timeout_s: float | None = None
    ) -> Iterator[None]:
        """Hold the right to build `fingerprint`; others wait, and find the wheels when they get it."""
        with locks.held(self.root / "locks" / fingerprint, on_wait=on_wait, timeout_s=timeout_s):
            yield

    @contextlib.contextmanager
    def recipe_lock(
        self, recipe: str, *, on_wait: Callable[[str], None], timeout_s: float | None = None
    ) -> Iterator[None]:
        """Hold the right to build any fingerprint of `recipe`, where its tree has no path of its own."""
        with locks.held(self.root / "locks" / f"recipe-{recipe}", on_wait=on_wait, timeout_s=timeout_s):
            yield


def unwritable(root: Path, error: OSError) -> HostError:
    """Return the error for a folder that can't be written."""
    if error.errno == 28:  # noqa: PLR2004  # ENOSPC
        return HostError("disk-full", f"no space left for {root}", run=("spark-build gc",))
    return HostError(
        "unwritable",
        f"{root} can't be written",
        cause=str(error),
        help="choose another folder, or mend its permissions",
        run=("spark-build recipe NAME --wheelhouse DIR", f"ls -ld {root}"),
    )
