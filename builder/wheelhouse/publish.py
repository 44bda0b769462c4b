"""Filing wheels so that a kill at any moment leaves a whole wheelhouse.

Order: files beside (``wheels/.incoming/<id>/``), synced; journal ``publish.begin`` with all that the catalogue will hold;
renames; one transaction; journal ``publish.end``; the incoming folder goes. So an incoming folder means "somebody is at it,
or was killed", and who is at it holds the folder's lock. The next run that opens the wheelhouse completes what the journal
announced and the files allow, and undoes the rest. Copying takes long and needs only the folder's lock; the wheelhouse's
write lock is held for the moments in which its state changes.
"""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING, Any

from builder import durable
from builder.digest import sha256_bytes, sha256_file
from builder.errors import HostError, SparkError, WheelhouseError
from builder.stages import Stored
from builder.values import dataclass, field
from builder.wheelhouse import channel, journal, names, recovery, removal, statement
from builder.wheelhouse.announce import claimed
from builder.wheelhouse.records import FOREIGN, WITHHELD, sidecar, signature

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Mapping, Sequence
    from pathlib import Path

    from builder.stages import Wheel
    from builder.wheelhouse.store import Wheelhouse

__all__ = [
    "FOREIGN",
    "Filing",
    "documents",
    "metadata_of",
    "publish",
    "publish_sets",
    "settle",
    "sidecar",
    "signature",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Filing:
    """What a set of wheels is filed under.

    `provenance` becomes the record of each wheel, signed by `sign` where that is given. `brought` are records that came with
    wheels, by the wheel's sha256, each with its signature or None: they are kept as they are, and signed by `sign` where
    nobody did. A `foreign` wheel wasn't made here: it is refused where one that was, or came before it, has its fingerprint.
    The wheels enter `channel` as they are filed; `also` are channels to which all of the set are appended, those that were
    there already, too.
    """

    fingerprint: str
    recipe: str
    inputs: Mapping[str, Any] | None
    provenance: Mapping[str, Any]
    channel: str | None
    also: tuple[str, ...] = ()
    sign: Callable[[bytes], bytes] | None = None
    brought: Mapping[str, tuple[bytes, bytes | None]] = field(default_factory=dict)
    foreign: bool = False


def publish(house: Wheelhouse, wheels: Sequence[Wheel], filing: Filing) -> tuple[Stored, ...]:
    """See `Wheelhouse.publish`."""
    return publish_sets(house, [(wheels, filing)])


def publish_sets(house: Wheelhouse, sets: Sequence[tuple[Sequence[Wheel], Filing]]) -> tuple[Stored, ...]:
    """File wheels of several makings in one step, all or none; return them as stored, in their order.

    All filings name the same channel. Raises as `Wheelhouse.publish` does.
    """
    each = [(wheel, filing) for wheels, filing in sets for wheel in wheels]
    for name in dict.fromkeys(name for _wheel, filing in each for name in filing.also):
        channel.check(name)
    with contextlib.ExitStack() as claim:
        with house.writing():
            there = _there(house, each)
            if all(there.values()) and not _also(house, each, there):
                return tuple(stored for stored in there.values() if stored is not None)
            folder = claim.enter_context(claimed(house))
        with _undoing(house, lambda: shutil.rmtree(folder, ignore_errors=True)):
            signed = _bring_in(folder, [(wheel, filing) for wheel, filing in each if not there[wheel.filename]])
        with house.writing():
            return _file(house, folder, each, signed)


def _there(house: Wheelhouse, each: Sequence[tuple[Wheel, Filing]]) -> dict[str, Stored | None]:
    return {wheel.filename: names.known(house, wheel, filing) for wheel, filing in each}


def _also(
    house: Wheelhouse, each: Sequence[tuple[Wheel, Filing]], there: Mapping[str, Stored | None]
) -> dict[str, list[str]]:
    """Return what is appended to which channels: what they don't list yet, and what isn't withheld."""
    found: dict[str, list[str]] = {}
    for wheel, filing in each:
        stored = there[wheel.filename]
        for name in filing.also:
            if stored is None or stored.state == "published":
                found.setdefault(name, []).append(wheel.sha256)
    return {name: new for name, digests in found.items() if (new := channel.lacking(house, name, digests))}


def _file(
    house: Wheelhouse, folder: Path, each: Sequence[tuple[Wheel, Filing]], signed: Container[str]
) -> tuple[Stored, ...]:
    """Announce, place and list what was brought in; another process may have filed some of it by now."""
    with _undoing(house, lambda: shutil.rmtree(folder, ignore_errors=True)):
        recovery.recover(house)
        there = _there(house, each)
        made = {wheel.filename: _stored(house, wheel, filing) for wheel, filing in each if not there[wheel.filename]}
        also = _also(house, each, {**there, **made})
    fresh = list(made.values())
    with _undoing(house, lambda: _undo(house, folder, fresh, also)):
        if fresh or also:
            sealed = [wheel.sha256 for wheel in fresh if wheel.sha256 in signed]
            begun = {
                "wheels": [journal.row(wheel) for wheel in fresh],
                "documents": {
                    made[wheel.filename].fingerprint: dict(filing.inputs)
                    for wheel, filing in each
                    if wheel.filename in made and filing.inputs is not None
                },
                "channel": each[0][1].channel,
                "also": also,
                "created_ms": int(house.clock() * 1000),
                "signed": sealed,
            }
            house.note("publish.begin", id=folder.name, **begun)
            _place(house, folder, fresh, sealed)
            metadata = {wheel.filename: wheel.metadata for wheel, _filing in each}
            _enter(house, fresh, metadata, begun)
    _end(house, folder, "publish.end" if fresh or also else None)
    return tuple(there[wheel.filename] or made[wheel.filename] for wheel, _filing in each)


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
    withheld = house.recall(WITHHELD, wheel.sha256) or {}
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
        state=withheld.get("state", "published"),  # a bad one that was removed comes back as what it is
        requires_python=wheel.requires_python,
        metadata_sha256=sha256_bytes(wheel.metadata),
    )


def _bring_in(folder: Path, each: Sequence[tuple[Wheel, Filing]]) -> frozenset[str]:
    """Copy the files beside, synced, and check that what arrives is what was judged; return the sha256 of the signed."""
    signed = set()
    for wheel, filing in each:
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
            removal.drop(signature(wheel.path))
        for source, target in (
            (folder / f"{wheel.sha256}.sig", signature(wheel.path)),
            (folder / f"{wheel.sha256}.json", sidecar(wheel.path)),
            (folder / wheel.sha256, wheel.path),
        ):
            with contextlib.suppress(FileNotFoundError):  # placed before the kill, or never signed
                if target.is_dir():
                    removal.drop(target)
                source.replace(target)
        durable.sync_folder(wheel.path.parent)
    durable.sync_folder(house.root / "wheels")


def _enter(house: Wheelhouse, made: Sequence[Stored], metadata: Mapping[str, bytes], entry: Mapping[str, Any]) -> None:
    given = documents(entry)
    with house.catalogue.transaction() as db:
        for wheel in made:
            data, inputs = metadata[wheel.filename], given.get(wheel.fingerprint)
            house.catalogue.insert(db, wheel, metadata=data, channel=entry["channel"], inputs=inputs)
        channel.extend(db, entry)


def documents(entry: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the inputs documents that a ``publish.begin`` of the journal holds, by fingerprint."""
    if "documents" in entry:
        found: dict[str, dict[str, Any]] = entry["documents"]
        return found
    # One for all, as entries had it before sets could come from several builds.
    return {row["fingerprint"]: entry["inputs"] for row in entry["wheels"] if entry["inputs"] is not None}


def _undo(house: Wheelhouse, folder: Path, made: Sequence[Stored], also: Mapping[str, Sequence[str]]) -> None:
    """Take back what of a set was placed; what the catalogue lists is never touched, and a listed set is a filed one."""
    listed = {wheel.filename: _listed(house, wheel) for wheel in made}
    appended = not any(channel.lacking(house, name, digests) for name, digests in also.items())
    if appended and all(state not in {"", "unpublished"} for state in listed.values()):
        _end(house, folder, "publish.end")
        return
    for wheel in made:
        if not listed[wheel.filename]:
            removal.delete(wheel)
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


def settle(house: Wheelhouse, folder: Path, entry: Mapping[str, Any]) -> None:
    """Complete a publish that was announced, or undo it where files are missing; the write lock is held."""
    made = [journal.stored(house.root, row) for row in entry["wheels"]]
    if not all(_whole(wheel.path, wheel) or _whole(folder / wheel.sha256, wheel) for wheel in made):
        _undo(house, folder, made, entry.get("also", {}))
        return
    _place(house, folder, made, entry.get("signed", ()))
    missing = [wheel for wheel in made if _listed(house, wheel) in {"", "unpublished"}]
    metadata = {wheel.filename: metadata_of(wheel.path) for wheel in missing}
    _enter(house, missing, metadata, entry)
    _end(house, folder, "publish.end")


def _whole(file: Path, wheel: Stored) -> bool:
    return file.is_file() and file.stat().st_size == wheel.size and sha256_file(file) == wheel.sha256


def metadata_of(path: Path) -> bytes:
    """Return the METADATA of a wheel whose bytes are known to be right."""
    import zipfile  # noqa: PLC0415  # only after a kill, and where every wheel is read

    from builder.wheel import read  # noqa: PLC0415

    with zipfile.ZipFile(path) as archive:
        return archive.read(f"{read.dist_info(archive, path.name)}/METADATA")
