"""A wheelhouse as the rest of the program sees it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from typing import TYPE_CHECKING, Any, Protocol, Self

from builder.errors import HostError, UsageError, WheelhouseError
from builder.plan import Known
from builder.wheelhouse import filesystem, journal, locks, records
from builder.wheelhouse.catalogue import BUSY_S, Catalogue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from builder.stages import Stored, Wheel

__all__ = ["CATALOGUE", "Wheelhouse", "missing", "unwritable"]

CATALOGUE = "catalog.sqlite3"

#: How long a change of state waits for others, whose changes take moments; a reindex reads the wheels beforehand.
WRITE_WAIT_S = 120.0

#: So many older builds are looked at for the nearest one.
KNOWN_LIMIT = 8


class Kept(Protocol):
    """A file that was published."""

    @property
    def path(self) -> Path:
        """Where it lies."""

    @property
    def sha256(self) -> str:
        """The digest of its bytes, in hex."""

    @property
    def size(self) -> int:
        """How many they are."""


class Wheelhouse:
    """An open wheelhouse. Several processes may have it open; each change of state is one transaction, journal first."""

    def __init__(self, root: Path, catalogue: Catalogue, clock: Callable[[], float], *, read_only: bool) -> None:
        self.root = root
        self.catalogue = catalogue
        self.clock = clock
        self.read_only = read_only

    @classmethod
    def open(
        cls,
        root: Path,
        *,
        clock: Callable[[], float],
        create: bool = True,
        read_only: bool = False,
        busy_s: float = BUSY_S,
    ) -> Wheelhouse:
        """Return the wheelhouse at `root`, made when it isn't there and `create` is set.

        What a killed publish or removal left is completed or undone first. A folder that can't be written is opened for
        reading when it holds a catalogue. `busy_s` is how long another process may hold the catalogue.

        Raises HostError ``unwritable``, ``disk-full``, ``network-filesystem``, ``catalogue-locked``; WheelhouseError
        ``catalogue-damaged``, ``catalogue-missing`` (the journal tells of wheels); UsageError ``wheelhouse-missing`` without
        `create`.
        """
        path = root / CATALOGUE
        try:
            exists = path.exists()
            if not exists and _begun(root):
                raise WheelhouseError(
                    "catalogue-missing",
                    f"{root} has wheels and no catalogue",
                    help="wheels, their records and the journal hold all that it held; make it anew",
                    run=("spark-build wheels reindex",),
                )
            if not exists and (read_only or not create):
                raise missing(root)
            read_only = read_only or (exists and not os.access(root, os.W_OK))
            if not read_only:
                _prepare(root)
        except OSError as error:
            raise unwritable(root, error) from error
        catalogue = Catalogue(path, root / "wheels", read_only=read_only, busy_s=busy_s)
        house = cls(root, catalogue, clock, read_only=read_only)
        try:
            if not read_only:
                _recover_if_needed(house)
        except BaseException:
            house.close()
            raise
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
        """Return the published wheels of `fingerprint` whose file is as it was published; of each output the newest.

        Those of a quarantined project aren't among them.
        """
        found: dict[str, Stored] = {}
        for wheel in self.catalogue.stored("fingerprint=? AND state='published'", (fingerprint,)):
            status = self.recall(records.PROJECT, wheel.project) or {}
            if status.get("status") != "quarantined" and self.is_whole(wheel):
                found[wheel.output] = wheel
        return tuple(found.values())

    def is_whole(self, wheel: Kept) -> bool:
        """Whether the file has the bytes that were published; read only where its time isn't the one that was kept."""
        try:
            found = wheel.path.stat()
            if found.st_size != wheel.size:
                return False
            rows = self.catalogue.rows("SELECT mtime_ns FROM wheels WHERE sha256=?", (wheel.sha256,))
            return rows == [(found.st_mtime_ns,)] or self._reread(wheel, found.st_mtime_ns)
        except OSError:
            return False

    def _reread(self, wheel: Kept, mtime_ns: int) -> bool:
        from builder.digest import sha256_file  # noqa: PLC0415  # hardly ever

        if sha256_file(wheel.path) != wheel.sha256:
            return False
        if not self.read_only:  # who holds the lock, or finds it held, reads once more the next time
            with contextlib.suppress(HostError), self.writing(timeout_s=0), self.catalogue.transaction() as db:
                db.execute("UPDATE wheels SET mtime_ns=? WHERE sha256=?", (mtime_ns, wheel.sha256))
        return True

    def lost(self, fingerprint: str, found: Sequence[Stored]) -> tuple[str, ...]:
        """Return what became of wheels of `fingerprint` that `find` found no more, one line a wheel."""
        from builder.wheelhouse import missed  # noqa: PLC0415  # a hit misses none

        return tuple(missed.told(self, wheel) for wheel in missed.newest(self, fingerprint, found))

    def list_wheels(self, *, project: str | None = None, include_unpublished: bool = False) -> tuple[Stored, ...]:
        """Return wheels, oldest first."""
        where = "1" if include_unpublished else "state IN ('published', 'yanked')"
        return self.catalogue.stored(*((f"{where} AND project=?", (project,)) if project else (where,)))

    def get(self, ref: str) -> Stored:
        """Return the one wheel that `ref` names: a path, a file name, or the start of a fingerprint or sha256.

        A path counts by its bytes, whatever its name. Raises UsageError ``wheel-ref`` when that is none or several,
        ``wheel-missing`` for a path where nothing is; CheckRefused ``wheel-other`` where it leads to other bytes.
        """
        if "/" in ref:
            from pathlib import Path  # noqa: PLC0415  # most name one otherwise

            from builder.wheelhouse import named  # noqa: PLC0415

            return named.of_file(self.list_wheels(include_unpublished=True), Path(ref))
        exact = self.catalogue.stored("filename=?", (ref,))
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
        return self.catalogue.document(rows[0][0]) if rows else None

    def known(self, recipe: str, *, limit: int = KNOWN_LIMIT) -> Iterator[Known]:
        """Yield the newest stored builds of `recipe`, newest first."""
        rows = self.catalogue.rows(
            "SELECT fingerprint, MAX(created) AS at FROM wheels WHERE recipe=? GROUP BY fingerprint "
            "ORDER BY at DESC LIMIT ?",
            (recipe, limit),
        )
        for fingerprint, created in rows:  # documents are large, and the first ones mostly settle it
            if (document := self.inputs(fingerprint)) is not None:
                yield Known(fingerprint=fingerprint, created=created, document=document)

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

    def planned_as(self, fingerprint: str, first: float) -> None:
        """Let `first` be when `fingerprint` was first planned: whose wheel was taken in has the label of that time."""
        with self.writing(), self.catalogue.transaction() as db:
            self.note("plan", fingerprint=fingerprint, first=int(first))
            db.execute("INSERT OR REPLACE INTO plans VALUES (?,?)", (fingerprint, float(int(first))))

    def recall(self, kind: str, key: str) -> dict[str, Any] | None:
        """Return what was remembered under `kind` and `key`, or None."""
        rows = self.catalogue.rows("SELECT value FROM memory WHERE kind=? AND key=?", (kind, key))
        return self.catalogue.document(rows[0][0]) if rows else None

    def remember(self, kind: str, key: str, value: Mapping[str, Any]) -> None:
        """Keep `value`; `reindex` brings it back. Does nothing in a read-only wheelhouse."""
        if self.read_only:
            return
        with self.writing(), self.catalogue.transaction() as db:
            self.note("remember", kind=kind, key=key, value=dict(value))
            db.execute("INSERT OR REPLACE INTO memory VALUES (?,?,?)", (kind, key, json.dumps(value, sort_keys=True)))

    # --- what the audit found

    def findings(self, sha256: str, rules: str) -> dict[str, Any] | None:
        """Return what was found out about a wheel by `rules` (a stamp), or None where those weren't applied yet."""
        rows = self.catalogue.rows("SELECT document FROM findings WHERE sha256=? AND rules=?", (sha256, rules))
        return self.catalogue.document(rows[0][0]) if rows else None

    def keep_findings(self, sha256: str, rules: str, document: Mapping[str, Any]) -> None:
        """Keep what was found out by `rules`, in place of what other rules said. Nothing in a read-only wheelhouse.

        Not in the journal: a wheel without findings is judged again.
        """
        if self.read_only:
            return
        with self.writing(), self.catalogue.transaction() as db:
            db.execute("DELETE FROM findings WHERE sha256=?", (sha256,))
            db.execute("INSERT INTO findings VALUES (?,?,?)", (sha256, rules, json.dumps(document, sort_keys=True)))

    # --- changing

    @contextlib.contextmanager
    def writing(self, *, timeout_s: float = WRITE_WAIT_S) -> Iterator[None]:
        """Hold the one write lock; the journal has one writer at a time, and writes to the catalogue that is in place."""
        with locks.held(self.root / "locks" / "write", timeout_s=timeout_s):
            self.catalogue.refresh()
            yield

    def note(self, op: str, **values: Any) -> None:  # noqa: ANN401  # any JSON
        """Append to the journal; the write lock is held. Raises HostError ``disk-full`` or ``unwritable``."""
        try:
            journal.append(self.root / "journal.jsonl", now=self.clock(), op=op, **values)
        except OSError as error:
            raise self.cannot_write(error) from error

    def cannot_write(self, error: OSError) -> HostError:
        """Return what the system said, in our words."""
        return unwritable(self.root, error)

    def publish(
        self,
        wheels: Sequence[Wheel],
        *,
        fingerprint: str,
        recipe: str,
        inputs: Mapping[str, Any] | None,
        provenance: Mapping[str, Any],
        channel: str | None = "local",
        also: Sequence[str] = (),
        sign: Callable[[bytes], bytes] | None = None,
    ) -> tuple[Stored, ...]:
        """File a set of wheels, all or none, and return them as stored. A wheel that is there already is a hit.

        All of them are appended to the channels `also` in the same step, but for those that are yanked or quarantined.
        `sign` makes the signature of each record; without it there is none.

        Raises UsageError ``name-taken``, HostError ``disk-full`` or ``unwritable``; nothing half-done stays.
        """
        from builder.wheelhouse import publish  # noqa: PLC0415  # not on the hit path

        return publish.publish(
            self,
            wheels,
            publish.Filing(
                fingerprint=fingerprint,
                recipe=recipe,
                inputs=inputs,
                provenance=provenance,
                channel=channel,
                also=tuple(also),
                sign=sign,
            ),
        )

    def channels(self, wheel: Stored) -> tuple[str, ...]:
        """Return the channels that name a wheel, by name."""
        rows = self.catalogue.rows("SELECT channel FROM members WHERE sha256=? ORDER BY channel", (wheel.sha256,))
        return tuple(str(row[0]) for row in rows)

    def remove(self, wheel: Stored, *, named: bool = True) -> bool:
        """Take a wheel and its records out. Its name stays tied to its bytes, and these to the state that they had.

        Without `named` one stays that a channel other than ``local`` names; then this returns False.
        """
        from builder.wheelhouse import removal  # noqa: PLC0415

        return removal.remove(self, wheel, named=named)

    @contextlib.contextmanager
    def build_lock(self, name: str, *, on_wait: Callable[[str], None]) -> Iterator[None]:
        """Hold the right to build a fingerprint, or all of a recipe; others wait, and find the wheels when they get it."""
        with locks.held(self.root / "locks" / name, on_wait=on_wait):
            yield


def _recover_if_needed(house: Wheelhouse) -> None:
    with contextlib.suppress(FileNotFoundError):
        if any((house.root / "wheels" / ".incoming").iterdir()):
            from builder.wheelhouse import recovery  # noqa: PLC0415  # not on the hit path

            recovery.recover_if_needed(house)


def _begun(root: Path) -> bool:
    journal_file = root / "journal.jsonl"
    return journal_file.exists() and journal_file.stat().st_size > 0


def _prepare(root: Path) -> None:
    """Leave folders and a catalogue; raise OSError or HostError when that can't be."""
    filesystem.check(root)
    (root / "wheels").mkdir(parents=True, exist_ok=True)
    (root / "builds").mkdir(exist_ok=True)
    if not os.access(root, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(root))
    path = root / CATALOGUE
    if not path.exists():
        with locks.held(root / "locks" / "write", timeout_s=WRITE_WAIT_S):
            if not path.exists():  # another process may have been quicker
                Catalogue.make(path)


def missing(root: Path) -> UsageError:
    """Return the error for a wheelhouse that isn't there."""
    return UsageError(
        "wheelhouse-missing",
        f"there is no wheelhouse at {root}",
        help="the first build makes it; --wheelhouse names another place",
        run=("spark-build recipe flashinfer",),
    )


def unwritable(root: Path, error: OSError) -> HostError:
    """Return the error for a folder that can't be written."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return HostError(
            "disk-full",
            f"no space left in {root}",
            cause=f"{error.strerror}: nothing half-done was left",
            help="free space, then run the same command again: it goes on where it stopped",
            run=("spark-build gc",),
        )
    return HostError(
        "unwritable",
        f"{root} can't be written",
        cause=str(error),
        help="choose another folder, or mend its permissions",
        run=("spark-build recipe NAME --wheelhouse DIR", f"ls -ld {root}"),
    )
