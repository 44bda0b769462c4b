"""Filing wheels, and taking them out, so that a kill at any moment leaves a whole wheelhouse.

Order of a publish: files beside (``wheels/.incoming/<id>/``), synced; journal ``publish.begin`` with all that the catalogue
will hold; renames; one transaction; journal ``publish.end``; the incoming folder goes. Of a removal: an empty incoming
folder; journal ``remove``; one transaction; the files go; the incoming folder goes. So an incoming folder means "somebody is
at it, or was killed", and who is at it holds the folder's lock. The next run that opens the wheelhouse completes what the
journal announced and the files allow, and undoes the rest. Copying takes long and needs only the folder's lock; the
wheelhouse's write lock is held for the moments in which its state changes.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from typing import TYPE_CHECKING, Any

from builder import durable
from builder.digest import sha256_bytes, sha256_file
from builder.errors import HostError, SparkError, UsageError, WheelhouseError
from builder.stages import Stored
from builder.values import dataclass, fields
from builder.wheelhouse import journal, locks

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from builder.stages import Wheel
    from builder.wheelhouse.store import Wheelhouse

__all__ = ["Filing", "metadata_of", "publish", "recover", "recover_if_needed", "remove", "sidecar", "stored_from"]

#: How long an opening waits for the write lock before it leaves a killed publish to the next one.
RECOVER_WAIT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Filing:
    """What a set of wheels is filed under."""

    fingerprint: str
    recipe: str
    inputs: Mapping[str, Any] | None
    provenance: Mapping[str, Any]
    channel: str | None


def sidecar(wheel: Path) -> Path:
    """Return where the record of a wheel's making lies: beside it."""
    return wheel.with_name(f"{wheel.name}.provenance.json")


def publish(house: Wheelhouse, wheels: Sequence[Wheel], filing: Filing) -> tuple[Stored, ...]:
    """See `Wheelhouse.publish`."""
    with contextlib.ExitStack() as claim:
        with house.writing():
            known = {wheel.filename: _known(house, wheel) for wheel in wheels}
            if None not in known.values():
                return tuple(stored for stored in known.values() if stored is not None)
            folder = claim.enter_context(_claimed(house))
        with _undoing(house, lambda: shutil.rmtree(folder, ignore_errors=True)):
            _bring_in(folder, [wheel for wheel in wheels if known[wheel.filename] is None], filing)
        with house.writing():
            return _file(house, folder, wheels, filing)


def _file(house: Wheelhouse, folder: Path, wheels: Sequence[Wheel], filing: Filing) -> tuple[Stored, ...]:
    """Announce, place and list what was brought in; another process may have filed some of it by now."""
    with _undoing(house, lambda: shutil.rmtree(folder, ignore_errors=True)):
        known = {wheel.filename: _known(house, wheel) for wheel in wheels}
    fresh = [wheel for wheel in wheels if known[wheel.filename] is None]
    made = {wheel.filename: _stored(house, wheel, filing) for wheel in fresh}
    sets = list(made.values())
    with _undoing(house, lambda: _undo(house, folder, sets)):
        if sets:
            inputs = dict(filing.inputs) if filing.inputs is not None else None
            rows = [_row(wheel) for wheel in sets]
            house.note("publish.begin", id=folder.name, wheels=rows, inputs=inputs, channel=filing.channel)
            _place(house, folder, sets)
            metadata = {wheel.filename: wheel.metadata for wheel in fresh}
            _enter(house, sets, metadata, inputs=inputs, channel=filing.channel)
    _end(house, folder, "publish.end" if sets else None)
    return tuple(known[wheel.filename] or made[wheel.filename] for wheel in wheels)


@contextlib.contextmanager
def _claimed(house: Wheelhouse) -> Iterator[Path]:
    """Give an incoming folder, on the disk and locked by us. The write lock is held when this begins."""
    incoming = house.root / "wheels" / ".incoming"
    folder = incoming / os.urandom(16).hex()
    try:
        folder.mkdir(parents=True)
        descriptor = locks.claim(folder, wait=True)
        durable.sync_folder(incoming)
        durable.sync_folder(incoming.parent)
    except OSError as error:
        raise house.cannot_write(error) from error
    assert descriptor is not None  # noqa: S101  # it was waited for
    try:
        yield folder
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _undoing(house: Wheelhouse, undo: Callable[[], None]) -> Iterator[None]:
    """Take back what was done when it goes wrong; where even that can't be done, the next opening does it."""
    try:
        yield
    except Exception as error:
        with contextlib.suppress(SparkError, OSError):
            undo()
        if isinstance(error, OSError):
            raise house.cannot_write(error) from error
        raise


def _known(house: Wheelhouse, wheel: Wheel) -> Stored | None:
    """Return the wheel as stored when the same bytes are there and listed; raise when the name stands for others."""
    if house.taken(wheel.filename, wheel.sha256):
        raise UsageError(
            "name-taken",
            f"{wheel.filename} already stands for other bytes",
            cause="a name never gets new bytes: clients keep what they downloaded under it",
            help="give the wheel another version or build number",
            run=(f"spark-build wheels list {wheel.project} --all",),
        )
    for stored in house.catalogue.stored("sha256=? AND state<>'unpublished'", (wheel.sha256,)):
        if house.is_whole(stored):
            return stored
    return None


def _stored(house: Wheelhouse, wheel: Wheel, filing: Filing) -> Stored:
    """Return what will be listed: what is listed already where only the file was lost, so that it stays yanked, say."""
    for stored in house.catalogue.stored("filename=? AND state<>'unpublished'", (wheel.filename,)):
        return stored
    return Stored(
        output=wheel.output,
        project=wheel.project,
        version=wheel.version,
        filename=wheel.filename,
        path=house.root / "wheels" / wheel.project / wheel.filename,
        sha256=wheel.sha256,
        size=wheel.size,
        fingerprint=filing.fingerprint,
        recipe=filing.recipe,
        created=int(house.clock() * 1000) / 1000,
        requires_python=wheel.requires_python,
        metadata_sha256=sha256_bytes(wheel.metadata),
    )


def _bring_in(folder: Path, wheels: Sequence[Wheel], filing: Filing) -> None:
    """Copy the files beside, synced, and check that what arrives is what was judged."""
    for wheel in wheels:
        if durable.copy_synced(wheel.path, folder / wheel.sha256) != wheel.sha256:
            raise WheelhouseError(
                "copy-differs",
                f"{wheel.path} isn't what it was when it was checked",
                help="something else writes there; build it again",
            )
        record = {**filing.provenance, "subject": {"name": wheel.filename, "sha256": wheel.sha256}}
        text = json.dumps(record, indent=2, sort_keys=True) + "\n"
        durable.write_synced(folder / f"{wheel.sha256}.json", text.encode())
    durable.sync_folder(folder)


def _place(house: Wheelhouse, folder: Path, made: Sequence[Stored]) -> None:
    for wheel in made:
        wheel.path.parent.mkdir(exist_ok=True)
        for source, target in (
            (folder / f"{wheel.sha256}.json", sidecar(wheel.path)),
            (folder / wheel.sha256, wheel.path),
        ):
            with contextlib.suppress(FileNotFoundError):  # placed before the kill
                source.replace(target)
        durable.sync_folder(wheel.path.parent)
    durable.sync_folder(house.root / "wheels")


def _enter(
    house: Wheelhouse,
    made: Sequence[Stored],
    metadata: Mapping[str, bytes],
    *,
    inputs: dict[str, Any] | None,
    channel: str | None,
) -> None:
    with house.catalogue.transaction() as db:
        for wheel in made:
            data = metadata[wheel.filename]
            house.catalogue.insert(db, wheel, metadata=data, channel=channel, inputs=inputs)


def _undo(house: Wheelhouse, folder: Path, made: Sequence[Stored]) -> None:
    """Take back what of a set was placed; what the catalogue lists is never touched, and a listed set is a filed one."""
    listed = {wheel.filename: _listed(house, wheel) for wheel in made}
    if all(state not in {"", "unpublished"} for state in listed.values()):
        _end(house, folder, "publish.end")
        return
    for wheel in made:
        if not listed[wheel.filename]:
            _delete(wheel)
    for left in folder.iterdir():
        left.unlink()
    _end(house, folder, "publish.undo")


def _listed(house: Wheelhouse, wheel: Stored) -> str:
    rows = house.catalogue.rows("SELECT state FROM wheels WHERE filename=?", (wheel.filename,))
    return str(rows[0][0]) if rows else ""


def _end(house: Wheelhouse, folder: Path, op: str | None) -> None:
    """Close a set. While the journal can't be told, as on a full disk, the folder stays, and the next opening tells it."""
    with contextlib.suppress(HostError):
        if op is not None:
            house.note(op, id=folder.name)
        shutil.rmtree(folder, ignore_errors=True)


def remove(house: Wheelhouse, wheel: Stored) -> None:
    """See `Wheelhouse.remove`."""
    with house.writing(), _claimed(house) as folder:
        announced = False
        try:
            with house.catalogue.transaction() as db:
                house.note("remove", id=folder.name, filename=wheel.filename, sha256=wheel.sha256)
                announced = True
                _unlist(db, wheel.sha256)
            _delete(wheel)
        except OSError as error:
            raise house.cannot_write(error) from error  # the next opening completes it
        finally:
            if not announced:
                shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)


def _unlist(db: sqlite3.Connection, sha256: str) -> None:
    for table in ("members", "findings", "wheels"):
        db.execute(f"DELETE FROM {table} WHERE sha256=?", (sha256,))  # noqa: S608  # a closed list


def _delete(wheel: Stored) -> None:
    """Leave neither file nor record, nor their names after a power cut."""
    for file in (sidecar(wheel.path), wheel.path):  # the wheel last: it is what a recovery goes by
        file.unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        durable.sync_folder(wheel.path.parent)


def recover_if_needed(house: Wheelhouse) -> None:
    """Complete or undo what a killed process left; costs one folder listing when there is nothing to do.

    Folders of processes that are at it are left alone. What can't be done now, for lack of space or of the write lock, is
    left to the next opening. Raises WheelhouseError ``journal-damaged``.
    """
    incoming = house.root / "wheels" / ".incoming"
    try:
        left = any(not locks.is_claimed(entry) for entry in incoming.iterdir())
    except FileNotFoundError:
        return
    if left:
        with contextlib.suppress(HostError), house.writing(timeout_s=RECOVER_WAIT_S):
            recover(house)


def recover(house: Wheelhouse) -> None:
    """Complete or undo what killed processes left. The write lock is held."""
    with contextlib.ExitStack() as claims:
        folders: dict[str, Path] = {}
        try:
            for entry in (house.root / "wheels" / ".incoming").iterdir():
                if not entry.is_dir():
                    entry.unlink()
                elif (descriptor := locks.claim(entry, wait=False)) is not None:
                    claims.callback(os.close, descriptor)
                    folders[entry.name] = entry
            for number, announced in _announced(house.root, folders).items():
                _settle(house, folders[number], announced)
                del folders[number]
        except FileNotFoundError:
            return
        except OSError as error:
            raise house.cannot_write(error) from error
        for folder in folders.values():  # nothing was announced, or all was done
            shutil.rmtree(folder, ignore_errors=True)


def _announced(root: Path, folders: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """Return the entries that began something and didn't end it, by the name of their folder."""
    found: dict[str, dict[str, Any]] = {}
    if not folders:
        return found
    for entry in journal.read(root / "journal.jsonl"):
        number = entry.get("id", "")
        match entry["op"]:
            case "publish.begin":
                names = {row["filename"] for row in entry["wheels"]}
                for other in [key for key, one in found.items() if one.get("filename") in names]:
                    del found[other]  # removed, and published again since
                if number in folders:
                    found[number] = entry
            case "remove" if number in folders:
                found[number] = entry
            case "publish.end" | "publish.undo":
                found.pop(number, None)
    return found


def _settle(house: Wheelhouse, folder: Path, entry: Mapping[str, Any]) -> None:
    if entry["op"] == "remove":
        for wheel in house.catalogue.stored("sha256=? AND filename=?", (entry["sha256"], entry["filename"])):
            with house.catalogue.transaction() as db:
                _unlist(db, wheel.sha256)
        for path in (house.root / "wheels").glob(f"*/{entry['filename']}"):
            if sha256_file(path) == entry["sha256"]:
                sidecar(path).unlink(missing_ok=True)
                path.unlink()
        shutil.rmtree(folder, ignore_errors=True)
        return
    made = [stored_from(house.root, row) for row in entry["wheels"]]
    if not all(_whole(wheel.path, wheel) or _whole(folder / wheel.sha256, wheel) for wheel in made):
        _undo(house, folder, made)
        return
    _place(house, folder, made)
    missing = [wheel for wheel in made if _listed(house, wheel) in {"", "unpublished"}]
    metadata = {wheel.filename: metadata_of(wheel.path) for wheel in missing}
    _enter(house, missing, metadata, inputs=entry["inputs"], channel=entry["channel"])
    _end(house, folder, "publish.end")


def _row(wheel: Stored) -> dict[str, Any]:
    """Return a wheel as the journal keeps it: without its place, its time in milliseconds (canonical JSON has no floats)."""
    row: dict[str, Any] = {one.name: getattr(wheel, one.name) for one in fields(wheel) if one.name != "path"}
    row["created_ms"] = round(row.pop("created") * 1000)
    return row


def stored_from(root: Path, row: Mapping[str, Any]) -> Stored:
    """Return a wheel from its row in the journal."""
    values = dict(row)
    created = values.pop("created_ms") / 1000
    return Stored(**values, created=created, path=root / "wheels" / row["project"] / row["filename"])


def _whole(file: Path, wheel: Stored) -> bool:
    return file.is_file() and file.stat().st_size == wheel.size and sha256_file(file) == wheel.sha256


def metadata_of(path: Path) -> bytes:
    """Return the METADATA of a wheel whose bytes are known to be right."""
    import zipfile  # noqa: PLC0415  # only after a kill, and where every wheel is read

    from builder.wheel import read  # noqa: PLC0415

    with zipfile.ZipFile(path) as archive:
        return archive.read(f"{read.dist_info(archive, path.name)}/METADATA")
