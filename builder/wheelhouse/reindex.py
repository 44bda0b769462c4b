"""Making the catalogue anew, and holding it against the files."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from builder.digest import sha256_bytes, sha256_file
from builder.errors import CheckRefused
from builder.stages import Stored
from builder.wheel import read
from builder.wheelhouse import filesystem, journal, locks
from builder.wheelhouse.catalogue import Catalogue
from builder.wheelhouse.publish import stored_from

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from builder.wheelhouse.store import Wheelhouse

__all__ = ["Finding", "Report", "reindex", "verify"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A file that isn't what the catalogue says."""

    kind: Literal["missing", "changed", "unlisted"]
    path: Path
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a reindex found: wheels that are listed again, and files that came back unpublished or not at all."""

    listed: int
    unpublished: tuple[str, ...]
    left_out: tuple[str, ...]


def verify(house: Wheelhouse) -> tuple[Finding, ...]:
    """Hash every wheel again and return what differs from the catalogue, by path."""
    listed = {wheel.path: wheel for wheel in house.list_wheels(include_unpublished=True)}
    findings = [
        Finding(kind="unlisted", path=path, text="not in the catalogue")
        for path in _files(house.root)
        if path not in listed
    ]
    with ThreadPoolExecutor() as pool:
        for wheel, found in zip(listed.values(), pool.map(_digest, listed), strict=True):
            if found is None:
                findings.append(Finding(kind="missing", path=wheel.path, text="the file isn't there"))
            elif found != wheel.sha256:
                text = f"sha256 is {found}, the catalogue says {wheel.sha256}"
                findings.append(Finding(kind="changed", path=wheel.path, text=text))
    return tuple(sorted(findings, key=lambda one: one.path))


def _digest(path: Path) -> str | None:
    try:
        return sha256_file(path)
    except FileNotFoundError:
        return None


def _files(root: Path) -> Iterator[Path]:
    for folder in sorted((root / "wheels").iterdir()):
        if folder.is_dir() and folder.name != ".incoming":
            yield from sorted(folder.glob("*.whl"))


def reindex(root: Path, *, clock: Callable[[], float]) -> Report:
    """Make the catalogue of `root` anew from wheels and journal, and swap it in.

    Wheels that the journal published come back as they were; one that it doesn't know comes back unpublished; one that
    isn't whole is left out. Raises WheelhouseError ``journal-damaged``; the old catalogue then stays.
    """
    filesystem.check(root)
    with locks.held(root / "locks" / "write"):
        fresh = root / "catalog.new.sqlite3"
        for suffix in ("", "-wal", "-shm"):
            fresh.with_name(fresh.name + suffix).unlink(missing_ok=True)
        catalogue = Catalogue(fresh, root / "wheels")
        try:
            report = _fill(catalogue, root, clock)
            catalogue.rows("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            catalogue.close()
        for suffix in ("-wal", "-shm"):
            (root / f"catalog.sqlite3{suffix}").unlink(missing_ok=True)
        fresh.replace(root / "catalog.sqlite3")
        descriptor = os.open(root, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    return report


@dataclass(slots=True)
class _Replayed:
    """What the journal amounts to."""

    wheels: dict[str, tuple[Stored, dict[str, Any]]]
    plans: dict[str, float]
    memory: dict[tuple[str, str], Any]
    names: dict[str, str]
    positions: list[tuple[str, str]]


def _replay(root: Path) -> _Replayed:
    found = _Replayed({}, {}, {}, {}, [])
    pending: dict[str, dict[str, Any]] = {}
    for entry in journal.read(root / "journal.jsonl"):
        match entry["op"]:
            case "plan":
                found.plans[entry["fingerprint"]] = float(entry["first"])
            case "remember":
                found.memory[entry["kind"], entry["key"]] = entry["value"]
            case "forget":
                found.memory.pop((entry["kind"], entry["key"]), None)
            case "publish.begin":
                pending[entry["id"]] = entry
            case "publish.undo":
                pending.pop(entry["id"], None)
            case "publish.end" if begun := pending.pop(entry["id"], None):
                _take(found, begun, root)
            case "remove":
                found.wheels.pop(entry["filename"], None)
    for entry in pending.values():  # a publish that was killed: what of it is whole is completed here
        _take(found, entry, root)
    return found


def _take(found: _Replayed, entry: dict[str, Any], root: Path) -> None:
    for row in entry["wheels"]:
        wheel = stored_from(root, row)
        found.wheels[wheel.filename] = (wheel, entry)
        found.names[wheel.filename] = wheel.sha256


def _fill(catalogue: Catalogue, root: Path, clock: Callable[[], float]) -> Report:
    import json  # noqa: PLC0415

    replayed = _replay(root)
    unpublished, left_out, listed = [], [], 0
    with catalogue.transaction() as db:
        db.executemany("INSERT INTO plans VALUES (?,?)", replayed.plans.items())
        db.executemany(
            "INSERT INTO memory VALUES (?,?,?)",
            [(kind, key, json.dumps(value)) for (kind, key), value in replayed.memory.items()],
        )
        files = {path.name: path for path in _files(root)}
        for filename, (wheel, entry) in replayed.wheels.items():
            path = files.pop(filename, None)
            if path is None:
                continue
            if _digest(path) != wheel.sha256:
                left_out.append(f"{filename}: other bytes than were published")
                continue
            metadata = read.inspect(path).metadata
            catalogue.insert(db, wheel, metadata=metadata, channel=entry["channel"], inputs=entry["inputs"])
            listed += 1
        for path in files.values():
            try:
                stranger = _stranger(path, clock())
            except CheckRefused as error:
                left_out.append(f"{path.name}: {error.summary}")
                continue
            catalogue.insert(db, stranger[0], metadata=stranger[1], channel=None, inputs=None)
            unpublished.append(path.name)
        db.executemany("INSERT OR IGNORE INTO names VALUES (?,?)", replayed.names.items())
    return Report(listed=listed, unpublished=tuple(unpublished), left_out=tuple(left_out))


def _stranger(path: Path, now: float) -> tuple[Stored, bytes]:
    """Return a wheel that nobody published, unpublished."""
    read.check(path)
    wheel = read.inspect(path)
    stored = Stored(
        output=wheel.output,
        project=wheel.project,
        version=wheel.version,
        filename=wheel.filename,
        path=path,
        sha256=wheel.sha256,
        size=wheel.size,
        fingerprint="",
        recipe="",
        created=now,
        requires_python=wheel.requires_python,
        metadata_sha256=sha256_bytes(wheel.metadata),
    )
    return replace(stored, state="unpublished"), wheel.metadata
