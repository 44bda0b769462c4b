"""Making the catalogue anew from wheels and journal.

Others may have the old one open meanwhile: they go on reading what it held, and open the new one before they next write
(`Catalogue.refresh`). The wheels are read before the write lock is taken, so that builds wait for moments only.
"""

from __future__ import annotations

import contextlib
import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from builder.digest import sha256_bytes, sha256_file
from builder.errors import CheckRefused, SparkError
from builder.stages import Stored
from builder.values import dataclass, replace
from builder.wheel import read
from builder.wheelhouse import channel as channels
from builder.wheelhouse import connection, filesystem, journal, locks, publish, records, recovery, store
from builder.wheelhouse.catalogue import Catalogue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["Report", "files", "reindex"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a reindex found.

    `listed` wheels are there again as they were; `unpublished` are files that the journal doesn't know; `left_out` are files
    that can't be listed, each with the reason; `missing` were published and their files are gone.
    """

    listed: int
    unpublished: tuple[str, ...]
    left_out: tuple[str, ...]
    missing: tuple[str, ...]


def files(root: Path) -> Iterator[Path]:
    """Yield every wheel file, by project and name."""
    for folder in sorted((root / "wheels").iterdir()):
        if folder.is_dir() and folder.name != ".incoming":
            yield from sorted(folder.glob("*.whl"))


def reindex(
    root: Path,
    *,
    clock: Callable[[], float],
    on_read: Callable[[int, int], None] = lambda _done, _total: None,
) -> Report:
    """Make the catalogue of `root` anew and swap it in; the old one stays when that fails.

    What the journal published comes back as it was, with its inputs, plans, channels and what was remembered; what a killed
    process left is settled; a wheel that the journal doesn't know comes back unpublished; one that isn't whole is left out.
    `on_read` is told how many of all wheels were read.

    Raises UsageError ``wheelhouse-missing``, WheelhouseError ``journal-damaged``, HostError.
    """
    if not (root / "wheels").is_dir():
        raise store.missing(root)
    filesystem.check(root)
    digests = _Digests()
    digests.read(list(files(root)), on_read)
    try:
        with locks.held(root / "locks" / "write", timeout_s=store.WRITE_WAIT_S):
            return _rebuild(root, digests, clock)
    except OSError as error:
        raise store.unwritable(root, error) from error


def _rebuild(root: Path, digests: _Digests, clock: Callable[[], float]) -> Report:
    _settle_in_old(root, clock)
    replayed = _replay(root)
    fresh = root / "catalog.new.sqlite3"
    try:
        Catalogue.make(fresh)
        catalogue = Catalogue(fresh, root / "wheels")
        try:
            missing, wrong = _restore(catalogue, replayed, digests)
            # A set that was begun and not ended is neither listed nor a stranger: it is completed or undone.
            recovery.recover(store.Wheelhouse(root, catalogue, clock, read_only=False))
            unpublished, left_out = _take_in_strangers(catalogue, root, digests, clock, wrong)
            listed = catalogue.rows("SELECT COUNT(*) FROM wheels WHERE state<>'unpublished'")[0][0]
            catalogue.rows("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            catalogue.close()
        connection.swap(fresh, root / store.CATALOGUE)
    finally:
        for left in root.glob(f"{fresh.name}*"):
            left.unlink()
    return Report(
        listed=listed,
        unpublished=tuple(unpublished),
        left_out=tuple(left_out),
        missing=tuple(missing),
    )


def _settle_in_old(root: Path, clock: Callable[[], float]) -> None:
    """Settle what a killed process left in the old catalogue, where it works: this run may be killed before the swap."""
    with contextlib.suppress(SparkError):
        catalogue = Catalogue(root / store.CATALOGUE, root / "wheels")
        with contextlib.closing(catalogue):
            recovery.recover(store.Wheelhouse(root, catalogue, clock, read_only=False))


class _Digests:
    """sha256 of files, each read once while its stat stays the same."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[tuple[int, ...], str]] = {}

    def read(self, paths: list[Path], on_read: Callable[[int, int], None]) -> None:
        """Read all of `paths` in parallel."""
        with ThreadPoolExecutor() as pool:
            for number, _found in enumerate(pool.map(self.of, paths), 1):
                on_read(number, len(paths))

    def of(self, path: Path) -> str | None:
        """Return the digest, or None when the file isn't there."""
        try:
            found = path.stat()
            mark = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
            if path not in self._known or self._known[path][0] != mark:
                self._known[path] = (mark, sha256_file(path))
        except FileNotFoundError:
            return None
        return self._known[path][1]


class _Replayed:
    """What the journal amounts to: ended publishes less removals, by file name in their order.

    `members` are the digests of each channel in its order.
    """

    def __init__(self) -> None:
        self.wheels: dict[str, Stored] = {}
        self.inputs: dict[str, tuple[str, dict[str, Any]]] = {}
        self.plans: dict[str, float] = {}
        self.memory: dict[tuple[str, str], Any] = {}
        self.names: dict[str, str] = {}
        self.channels: dict[str, float] = {}
        self.members: dict[str, dict[str, None]] = {}


def _replay(root: Path) -> _Replayed:
    found = _Replayed()
    pending: dict[str, dict[str, Any]] = {}
    for entry in journal.read(root / "journal.jsonl"):
        match entry["op"]:
            case "plan":
                found.plans[entry["fingerprint"]] = float(entry["first"])
            case "remember":
                found.memory[entry["kind"], entry["key"]] = entry["value"]
            case "publish.begin":
                pending[entry["id"]] = entry
            case "publish.undo":
                pending.pop(entry["id"], None)
            case "publish.end" if begun := pending.pop(entry["id"], None):
                _take(found, begun, root)
            case "promote":
                _join(found, entry["channel"], entry["created_ms"] / 1000)
                found.members[entry["channel"]] = dict.fromkeys(entry["wheels"])
            case "state" | "project":
                _judge(found, entry)
            case "remove":
                _drop(found, entry)
    return found


def _take(found: _Replayed, entry: Mapping[str, Any], root: Path) -> None:
    given = publish.documents(entry)
    for row in entry["wheels"]:
        wheel = journal.stored(root, row)
        # One that is published again, since its file was lost, keeps its place in the channel.
        found.wheels[wheel.filename] = wheel
        found.names.setdefault(wheel.filename, wheel.sha256)
        if entry["channel"]:
            _join(found, entry["channel"], wheel.created, [wheel.sha256])
        if wheel.fingerprint in given:
            found.inputs[wheel.fingerprint] = (wheel.recipe, given[wheel.fingerprint])
    for name, digests in entry.get("also", {}).items():
        _join(found, name, entry["created_ms"] / 1000, digests)


def _join(found: _Replayed, name: str, created: float, digests: Sequence[str] = ()) -> None:
    """Let a channel, made then if it isn't there, hold `digests` behind what it holds."""
    found.channels.setdefault(name, created)
    found.members.setdefault(name, {}).update(dict.fromkeys(digests))


def _drop(found: _Replayed, entry: Mapping[str, Any]) -> None:
    found.wheels.pop(entry["filename"], None)
    found.memory.pop((records.FOREIGN, entry["sha256"]), None)
    for members in found.members.values():
        members.pop(entry["sha256"], None)


def _judge(found: _Replayed, entry: Mapping[str, Any]) -> None:
    """Take in the state of wheels, or the status of a project."""
    if entry["op"] == "project":
        kept = {name: entry[name] for name in ("status", "reason", "time")}
        found.memory[records.PROJECT, entry["project"]] = kept if entry["status"] != "active" else None
        return
    kept = {name: entry[name] for name in ("state", "reason", "time")}
    for one in entry["wheels"]:
        found.memory[records.WITHHELD, one["sha256"]] = kept if entry["state"] != "published" else None
        if wheel := found.wheels.get(one["filename"]):
            found.wheels[one["filename"]] = replace(wheel, state=entry["state"])


def _restore(catalogue: Catalogue, replayed: _Replayed, digests: _Digests) -> tuple[list[str], dict[Path, str]]:
    """List what the journal published; return the names whose files are gone, and files with other bytes."""
    missing: list[str] = []
    wrong: dict[Path, str] = {}
    with catalogue.transaction() as db:
        db.executemany("INSERT INTO plans VALUES (?,?)", replayed.plans.items())
        db.executemany("INSERT INTO names VALUES (?,?)", replayed.names.items())
        db.executemany("INSERT INTO channels VALUES (?,?)", replayed.channels.items())
        told = ((kind, key, value) for (kind, key), value in replayed.memory.items() if value is not None)
        memory = [(kind, key, json.dumps(value, sort_keys=True)) for kind, key, value in told]
        db.executemany("INSERT INTO memory VALUES (?,?,?)", memory)
        for fingerprint, (recipe, document) in replayed.inputs.items():
            catalogue.keep_inputs(db, fingerprint, recipe, document)
        for filename, wheel in replayed.wheels.items():
            found = digests.of(wheel.path)
            if found is None:
                missing.append(filename)
            elif found != wheel.sha256:
                wrong[wheel.path] = f"{filename}: other bytes than were published"
            else:
                metadata = publish.metadata_of(wheel.path)
                catalogue.insert(db, wheel, metadata=metadata, channel=None, inputs=None)
        for name, members in replayed.members.items():
            entry = {"channel": name, "created_ms": round(replayed.channels[name] * 1000), "wheels": list(members)}
            channels.enter(db, entry)
    return missing, wrong


def _take_in_strangers(
    catalogue: Catalogue, root: Path, digests: _Digests, clock: Callable[[], float], wrong: Mapping[Path, str]
) -> tuple[list[str], list[str]]:
    """List files that nobody published, unpublished; return their names, and the reasons for those that can't be."""
    unpublished: list[str] = []
    left_out = list(wrong.values())
    listed = {wheel.path for wheel in catalogue.stored("1")}
    strangers: Iterable[Path] = [path for path in files(root) if path not in listed and path not in wrong]
    with catalogue.transaction() as db:
        for path in strangers:
            try:
                wheel, metadata = _stranger(path, catalogue, digests, clock())
            except CheckRefused as error:
                left_out.append(f"{path.name}: {error.summary}")
                continue
            catalogue.insert(db, wheel, metadata=metadata, channel=None, inputs=None)
            unpublished.append(path.name)
    return unpublished, left_out


def _stranger(path: Path, catalogue: Catalogue, digests: _Digests, now: float) -> tuple[Stored, bytes]:
    read.check(path)
    wheel = read.inspect(path)
    sha256 = digests.of(path) or wheel.sha256
    reason = ""
    if path.parent.name != wheel.project:
        reason = f"lies in {path.parent.name}/, not in {wheel.project}/"
    for row in catalogue.rows("SELECT sha256 FROM names WHERE filename=?", (path.name,)):
        if row[0] != sha256:
            reason = "its name stands for other bytes"
    for other in catalogue.stored("sha256=?", (sha256,)):
        reason = f"holds the same bytes as {other.filename}"
    if reason:
        raise CheckRefused("wheel-stranger", reason)
    stored = Stored(
        output=wheel.output,
        project=wheel.project,
        version=wheel.version,
        filename=wheel.filename,
        path=path,
        sha256=sha256,
        size=wheel.size,
        fingerprint="",
        recipe="",
        created=int(now * 1000) / 1000,
        requires_python=wheel.requires_python,
        metadata_sha256=sha256_bytes(wheel.metadata),
    )
    return replace(stored, state="unpublished"), wheel.metadata
