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
import os
import shutil
from typing import TYPE_CHECKING, Any

from builder import durable
from builder.digest import sha256_bytes, sha256_file
from builder.errors import HostError, SparkError, WheelhouseError
from builder.stages import Stored
from builder.values import dataclass, field
from builder.wheelhouse import journal, locks, names, statement

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Container, Iterator, Mapping, Sequence
    from pathlib import Path

    from builder.stages import Wheel
    from builder.wheelhouse.store import Wheelhouse

__all__ = [
    "FOREIGN",
    "Filing",
    "metadata_of",
    "publish",
    "recover",
    "recover_if_needed",
    "remove",
    "sidecar",
    "signature",
]

#: Under this word the wheelhouse remembers what came from elsewhere, by sha256; the journal keeps that.
FOREIGN = "added"

#: How long an opening waits for the write lock before it leaves a killed publish to the next one.
RECOVER_WAIT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Filing:
    """What a set of wheels is filed under.

    `provenance` becomes the record of each wheel, signed by `sign` where that is given. `brought` are records that came with
    wheels, by the wheel's sha256, each with its signature or None: they are kept as they are, and signed by `sign` where
    nobody did. A `foreign` wheel wasn't made here: it is refused where one that was, or came before it, has its fingerprint.
    """

    fingerprint: str
    recipe: str
    inputs: Mapping[str, Any] | None
    provenance: Mapping[str, Any]
    channel: str | None
    sign: Callable[[bytes], bytes] | None = None
    brought: Mapping[str, tuple[bytes, bytes | None]] = field(default_factory=dict)
    foreign: bool = False


def sidecar(wheel: Path) -> Path:
    """Return where the record of a wheel's making lies: beside it."""
    return wheel.with_name(f"{wheel.name}.provenance.json")


def signature(wheel: Path) -> Path:
    """Return where the signature of that record lies, if it has one."""
    return wheel.with_name(f"{wheel.name}.provenance.json.sig")


def publish(house: Wheelhouse, wheels: Sequence[Wheel], filing: Filing) -> tuple[Stored, ...]:
    """See `Wheelhouse.publish`."""
    with contextlib.ExitStack() as claim:
        with house.writing():
            there = {wheel.filename: names.known(house, wheel, filing) for wheel in wheels}
            if None not in there.values():
                return tuple(stored for stored in there.values() if stored is not None)
            folder = claim.enter_context(claimed(house))
        with _undoing(house, lambda: shutil.rmtree(folder, ignore_errors=True)):
            signed = _bring_in(folder, [wheel for wheel in wheels if there[wheel.filename] is None], filing)
        with house.writing():
            return _file(house, folder, wheels, filing, signed)


def _file(
    house: Wheelhouse, folder: Path, wheels: Sequence[Wheel], filing: Filing, signed: Container[str]
) -> tuple[Stored, ...]:
    """Announce, place and list what was brought in; another process may have filed some of it by now."""
    with _undoing(house, lambda: shutil.rmtree(folder, ignore_errors=True)):
        there = {wheel.filename: names.known(house, wheel, filing) for wheel in wheels}
    fresh = [wheel for wheel in wheels if there[wheel.filename] is None]
    made = {wheel.filename: _stored(house, wheel, filing) for wheel in fresh}
    sets = list(made.values())
    with _undoing(house, lambda: _undo(house, folder, sets)):
        if sets:
            inputs = dict(filing.inputs) if filing.inputs is not None else None
            rows = [journal.row(wheel) for wheel in sets]
            sealed = [wheel.sha256 for wheel in sets if wheel.sha256 in signed]
            begun = {"wheels": rows, "inputs": inputs, "channel": filing.channel, "signed": sealed}
            house.note("publish.begin", id=folder.name, **begun)
            _place(house, folder, sets, sealed)
            metadata = {wheel.filename: wheel.metadata for wheel in fresh}
            _enter(house, sets, metadata, inputs=inputs, channel=filing.channel)
    _end(house, folder, "publish.end" if sets else None)
    return tuple(there[wheel.filename] or made[wheel.filename] for wheel in wheels)


@contextlib.contextmanager
def claimed(house: Wheelhouse) -> Iterator[Path]:
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


def _bring_in(folder: Path, wheels: Sequence[Wheel], filing: Filing) -> frozenset[str]:
    """Copy the files beside, synced, and check that what arrives is what was judged; return the sha256 of the signed."""
    signed = set()
    for wheel in wheels:
        if durable.copy_synced(wheel.path, folder / wheel.sha256) != wheel.sha256:
            raise WheelhouseError(
                "copy-differs",
                f"{wheel.path} isn't what it was when it was checked",
                help="something else writes there; build it again",
            )
        record, seal = _record(wheel, filing)
        durable.write_synced(folder / f"{wheel.sha256}.json", record)
        if seal is not None:
            durable.write_synced(folder / f"{wheel.sha256}.sig", seal)
            signed.add(wheel.sha256)
    durable.sync_folder(folder)
    return frozenset(signed)


def _record(wheel: Wheel, filing: Filing) -> tuple[bytes, bytes | None]:
    """Return the record of a wheel and its signature."""
    if wheel.sha256 in filing.brought:
        record, seal = filing.brought[wheel.sha256]
        return record, filing.sign(record) if seal is None and filing.sign else seal
    record = statement.text(statement.about(filing.provenance, wheel.filename, wheel.sha256))
    return record, filing.sign(record) if filing.sign else None


def _place(house: Wheelhouse, folder: Path, made: Sequence[Stored], signed: Container[str]) -> None:
    for wheel in made:
        wheel.path.parent.mkdir(exist_ok=True)
        if wheel.sha256 not in signed:  # it may lie there from a publish whose wheel was lost
            _drop(signature(wheel.path))
        for source, target in (
            (folder / f"{wheel.sha256}.sig", signature(wheel.path)),
            (folder / f"{wheel.sha256}.json", sidecar(wheel.path)),
            (folder / wheel.sha256, wheel.path),
        ):
            with contextlib.suppress(FileNotFoundError):  # placed before the kill, or never signed
                if target.is_dir():
                    _drop(target)
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
    with house.writing(), claimed(house) as folder:
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
    db.execute("DELETE FROM memory WHERE kind=? AND key=?", (FOREIGN, sha256))  # they may be built here one day


def _delete(wheel: Stored) -> None:
    """Leave neither file nor record, nor their names after a power cut."""
    for file in (signature(wheel.path), sidecar(wheel.path), wheel.path):  # the wheel last: a recovery goes by it
        _drop(file)
    with contextlib.suppress(FileNotFoundError):
        durable.sync_folder(wheel.path.parent)


def _drop(file: Path) -> None:
    """Leave nothing under the name of one of our files, also where somebody put a folder in its place."""
    if file.is_dir() and not file.is_symlink():
        shutil.rmtree(file)
    else:
        file.unlink(missing_ok=True)


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
                filed = {row["filename"] for row in entry["wheels"]}
                for other in [key for key, one in found.items() if one.get("filename") in filed]:
                    del found[other]  # removed, and published again since
                if number in folders:
                    found[number] = entry
            case "promote":  # of a channel's the last one counts
                about = ("promote", entry["channel"])
                found = {key: one for key, one in found.items() if (one["op"], one.get("channel")) != about}
                found |= {number: entry} if number in folders else {}
            case "remove" if number in folders:
                found[number] = entry
            case "publish.end" | "publish.undo":
                found.pop(number, None)
    return found


def _settle(house: Wheelhouse, folder: Path, entry: Mapping[str, Any]) -> None:
    if entry["op"] == "promote":
        from builder.wheelhouse import channel  # noqa: PLC0415  # hardly ever

        channel.settle(house, entry)
        shutil.rmtree(folder, ignore_errors=True)
        return
    if entry["op"] == "remove":
        for wheel in house.catalogue.stored("sha256=? AND filename=?", (entry["sha256"], entry["filename"])):
            with house.catalogue.transaction() as db:
                _unlist(db, wheel.sha256)
        for path in (house.root / "wheels").glob(f"*/{entry['filename']}"):
            if sha256_file(path) == entry["sha256"]:
                _drop(signature(path))
                _drop(sidecar(path))
                path.unlink()
        shutil.rmtree(folder, ignore_errors=True)
        return
    made = [journal.stored(house.root, row) for row in entry["wheels"]]
    if not all(_whole(wheel.path, wheel) or _whole(folder / wheel.sha256, wheel) for wheel in made):
        _undo(house, folder, made)
        return
    _place(house, folder, made, entry.get("signed", ()))
    missing = [wheel for wheel in made if _listed(house, wheel) in {"", "unpublished"}]
    metadata = {wheel.filename: metadata_of(wheel.path) for wheel in missing}
    _enter(house, missing, metadata, inputs=entry["inputs"], channel=entry["channel"])
    _end(house, folder, "publish.end")


def _whole(file: Path, wheel: Stored) -> bool:
    return file.is_file() and file.stat().st_size == wheel.size and sha256_file(file) == wheel.sha256


def metadata_of(path: Path) -> bytes:
    """Return the METADATA of a wheel whose bytes are known to be right."""
    import zipfile  # noqa: PLC0415  # only after a kill, and where every wheel is read

    from builder.wheel import read  # noqa: PLC0415

    with zipfile.ZipFile(path) as archive:
        return archive.read(f"{read.dist_info(archive, path.name)}/METADATA")
