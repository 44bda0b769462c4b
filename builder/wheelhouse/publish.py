"""Filing wheels so that a kill at any moment leaves a whole wheelhouse.

Order: files beside (``wheels/.incoming/<id>/``) and synced; journal ``publish.begin`` with all that the catalogue will hold;
renames; one transaction; journal ``publish.end``; the incoming folder goes. An incoming folder therefore means "somebody is
at it, or was killed": the next run that opens the wheelhouse completes what the journal began, and undoes what it didn't.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import shutil
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from builder.digest import sha256_bytes, sha256_file
from builder.errors import HostError, WheelhouseError
from builder.stages import Stored
from builder.wheelhouse import journal, locks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from builder.stages import Wheel
    from builder.wheelhouse.store import Wheelhouse

__all__ = ["Filing", "publish", "recover_if_needed", "sidecar", "stored_from"]


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
    with house.writing():
        known = {wheel.filename: _known(house, wheel) for wheel in wheels}
        fresh = [wheel for wheel in wheels if known[wheel.filename] is None]
        made = {wheel.filename: _stored(house, wheel, filing) for wheel in fresh}
        if fresh:
            number = uuid.uuid4().hex
            incoming = house.root / "wheels" / ".incoming" / number
            try:
                _bring_in(incoming, fresh, filing)
                _begin(house, number, list(made.values()), filing)
                _place(house, incoming, list(made.values()))
                _enter(house, list(made.values()), {w.filename: w.metadata for w in fresh}, filing)
            except OSError as error:
                _undo(house, number, list(made.values()))
                raise _told(house, error) from error
            except HostError:
                _undo(house, number, list(made.values()))
                raise
            house.note("publish.end", id=number)
            shutil.rmtree(incoming, ignore_errors=True)
    return tuple(known[wheel.filename] or made[wheel.filename] for wheel in wheels)


def _known(house: Wheelhouse, wheel: Wheel) -> Stored | None:
    """Return the wheel as stored when the same bytes are there under that name; raise when other bytes are."""
    if house.taken(wheel.filename, wheel.sha256):
        raise WheelhouseError(
            "name-taken",
            f"{wheel.filename} already stands for other bytes",
            cause="a name never gets new bytes: clients keep what they downloaded under it",
            run=("spark-build wheels list",),
        )
    for stored in house.catalogue.stored("sha256=?", (wheel.sha256,)):
        if stored.path.is_file() and stored.path.stat().st_size == stored.size:
            return stored
    return None


def _stored(house: Wheelhouse, wheel: Wheel, filing: Filing) -> Stored:
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
        created=house.clock(),
        requires_python=wheel.requires_python,
        metadata_sha256=sha256_bytes(wheel.metadata),
    )


def _bring_in(incoming: Path, wheels: Sequence[Wheel], filing: Filing) -> None:
    """Copy the files beside, synced, and check that what arrived is what was judged."""
    incoming.mkdir(parents=True)
    for wheel in wheels:
        target = incoming / wheel.filename
        with wheel.path.open("rb") as source, target.open("wb") as copy:
            shutil.copyfileobj(source, copy, 1 << 20)
            copy.flush()
            os.fsync(copy.fileno())
        if sha256_file(target) != wheel.sha256:
            raise WheelhouseError("copy-differs", f"{wheel.filename} changed while it was copied")
        record = {**filing.provenance, "subject": {"name": wheel.filename, "sha256": wheel.sha256}}
        _write_synced(sidecar(target), json.dumps(record, indent=2, sort_keys=True).encode() + b"\n")
    _sync_folder(incoming)


def _begin(house: Wheelhouse, number: str, made: Sequence[Stored], filing: Filing) -> None:
    rows = [{**dataclasses.asdict(wheel), "path": None, "created": int(wheel.created)} for wheel in made]
    inputs = dict(filing.inputs) if filing.inputs is not None else None
    house.note("publish.begin", id=number, wheels=rows, inputs=inputs, channel=filing.channel)


def _place(house: Wheelhouse, incoming: Path, made: Sequence[Stored]) -> None:
    for wheel in made:
        wheel.path.parent.mkdir(exist_ok=True)
        for source, target in (
            (sidecar(incoming / wheel.filename), sidecar(wheel.path)),
            (incoming / wheel.filename, wheel.path),
        ):
            if source.exists():
                source.replace(target)
        _sync_folder(wheel.path.parent)
    _sync_folder(house.root / "wheels")


def _enter(house: Wheelhouse, made: Sequence[Stored], metadata: Mapping[str, bytes], filing: Filing) -> None:
    with house.catalogue.transaction() as db:
        for wheel in made:
            house.catalogue.insert(
                db,
                wheel,
                metadata=metadata[wheel.filename],
                channel=filing.channel,
                inputs=dict(filing.inputs) if filing.inputs is not None else None,
            )


def _undo(house: Wheelhouse, number: str, made: Sequence[Stored]) -> None:
    """Take back what of a set was placed; what the catalogue lists is never touched."""
    for wheel in made:
        if not house.catalogue.rows("SELECT 1 FROM wheels WHERE filename=?", (wheel.filename,)):
            for file in (wheel.path, sidecar(wheel.path)):
                file.unlink(missing_ok=True)
    shutil.rmtree(house.root / "wheels" / ".incoming" / number, ignore_errors=True)
    with contextlib.suppress(OSError):  # on a full disk the next opening finds the open entry and nothing to do for it
        house.note("publish.undo", id=number)


def _told(house: Wheelhouse, error: OSError) -> HostError:
    from builder.wheelhouse.store import unwritable  # noqa: PLC0415  # store imports this module

    if error.errno == errno.ENOSPC:
        return HostError(
            "disk-full",
            f"no space left in {house.root}",
            cause="nothing was published; the finished wheel is kept in its workspace",
            help="free space, then run the same command again: it goes on at the publish",
            run=("spark-build gc",),
        )
    return unwritable(house.root, error)


def recover_if_needed(house: Wheelhouse) -> None:
    """Complete or undo what a killed publish left; costs one folder listing when there is nothing to do.

    While another process publishes, its incoming folder is left alone.
    """
    incoming = house.root / "wheels" / ".incoming"
    try:
        if not any(incoming.iterdir()):
            return
    except FileNotFoundError:
        return
    if locks.is_held(house.root / "locks" / "write"):
        return
    with house.writing():
        _recover(house, incoming)


def _recover(house: Wheelhouse, incoming: Path) -> None:
    open_sets: dict[str, dict[str, Any]] = {}
    for entry in journal.read(house.root / "journal.jsonl"):
        if entry["op"] == "publish.begin":
            open_sets[entry["id"]] = entry
        elif entry["op"] in {"publish.end", "publish.undo"}:
            open_sets.pop(entry["id"], None)
    for number, entry in open_sets.items():
        made = [stored_from(house.root, row) for row in entry["wheels"]]
        folder = incoming / number
        if all(_whole(wheel.path, wheel) or _whole(folder / wheel.filename, wheel) for wheel in made):
            _place(house, folder, made)
            filing = Filing(fingerprint="", recipe="", inputs=entry["inputs"], provenance={}, channel=entry["channel"])
            _enter(house, made, {wheel.filename: _metadata(wheel.path) for wheel in made}, filing)
            house.note("publish.end", id=number)
        else:
            _undo(house, number, made)
    for left in incoming.iterdir():
        shutil.rmtree(left, ignore_errors=True)


def stored_from(root: Path, row: Mapping[str, Any]) -> Stored:
    """Return a wheel from its row in the journal."""
    return Stored(**{**row, "path": root / "wheels" / row["project"] / row["filename"]})


def _whole(file: Path, wheel: Stored) -> bool:
    return file.is_file() and file.stat().st_size == wheel.size and sha256_file(file) == wheel.sha256


def _metadata(path: Path) -> bytes:
    from builder.wheel import read  # noqa: PLC0415  # only after a kill

    return read.inspect(path).metadata


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
