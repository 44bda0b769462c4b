"""Holding the files of a wheelhouse against its catalogue."""

from __future__ import annotations

import shlex
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Literal

from builder.digest import sha256_bytes, sha256_file
from builder.errors import CheckRefused
from builder.values import dataclass
from builder.wheel import read
from builder.wheelhouse import statement
from builder.wheelhouse.publish import metadata_of, sidecar, signature
from builder.wheelhouse.reindex import files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from builder.stages import Stored
    from builder.wheelhouse.store import Wheelhouse

__all__ = ["Finding", "verify"]

Kind = Literal["catalogue", "missing", "changed", "refused", "metadata", "sidecar", "signature", "unlisted", "index"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that isn't what the catalogue says. `run` is the command that mends it."""

    kind: Kind
    path: Path
    text: str
    run: str


def verify(
    house: Wheelhouse,
    wheels: Sequence[Stored] | None = None,
    *,
    on_read: Callable[[int, int], None] = lambda _done, _total: None,
    signed: Callable[[Path, Path], str] | None = None,
) -> tuple[Finding, ...]:
    """Read every wheel of `wheels` again and return what is wrong, by path; `on_read` is told how many were read.

    A wheel must have the catalogue's sha256, be what it says (`wheel.read.check`), hold the METADATA that pages give out,
    and have its record beside it. `signed` is given the paths of a record and of its signature, and raises CheckRefused
    where the signature isn't there or doesn't hold; without it nobody asks for signatures. Without `wheels` all are read,
    and what isn't listed or damaged in the catalogue is found, too.
    """
    findings: list[Finding] = []
    chosen = house.list_wheels(include_unpublished=True) if wheels is None else tuple(wheels)
    with ThreadPoolExecutor() as pool:
        for number, found in enumerate(pool.map(lambda wheel: _examine(wheel, signed), chosen), 1):
            findings += found
            on_read(number, len(chosen))
    if wheels is None:
        findings += _around(house, {wheel.path for wheel in chosen})
    return tuple(sorted(findings, key=lambda one: (one.path, one.kind)))


def _examine(wheel: Stored, signed: Callable[[Path, Path], str] | None) -> list[Finding]:
    rebuild = f"spark-build wheels rm {shlex.quote(wheel.filename)} --yes" + (
        f" && spark-build recipe {shlex.quote(wheel.recipe)}" if wheel.recipe else ""
    )
    try:
        found = sha256_file(wheel.path)
    except FileNotFoundError:
        return [Finding(kind="missing", path=wheel.path, text="the file isn't there", run=rebuild)]
    except OSError as error:
        return [Finding(kind="missing", path=wheel.path, text=f"can't be read: {error.strerror}", run=rebuild)]
    if found != wheel.sha256:
        text = f"its sha256 is {found}, the catalogue says {wheel.sha256}"
        return [Finding(kind="changed", path=wheel.path, text=text, run=rebuild)]
    return [*_inside(wheel, rebuild), *(_signature(wheel, rebuild, signed) if signed else ())]


def _inside(wheel: Stored, rebuild: str) -> Iterator[Finding]:
    try:
        read.check(wheel.path)
        if sha256_bytes(metadata_of(wheel.path)) != wheel.metadata_sha256:
            text = "its METADATA isn't what the catalogue gives out"
            yield Finding(kind="metadata", path=wheel.path, text=text, run="spark-build wheels reindex")
    except CheckRefused as error:
        yield Finding(kind="refused", path=wheel.path, text=error.summary, run=rebuild)
    if wheel.state == "unpublished":
        return
    record = sidecar(wheel.path)
    try:
        subject = statement.subject(statement.load(record)[1])
    except FileNotFoundError:
        yield Finding(kind="sidecar", path=record, text="the record of its making isn't there", run=rebuild)
    except ValueError as error:
        text = f"the record of its making can't be read: {error}"
        yield Finding(kind="sidecar", path=record, text=text, run=rebuild)
    else:
        if subject != wheel.sha256:
            text = "the record of its making is about other bytes"
            yield Finding(kind="sidecar", path=record, text=text, run=rebuild)


def _signature(wheel: Stored, rebuild: str, signed: Callable[[Path, Path], str]) -> Iterator[Finding]:
    record, seal = sidecar(wheel.path), signature(wheel.path)
    if wheel.state == "unpublished" or not record.is_file():
        return
    try:
        signed(record, seal)
    except CheckRefused as error:
        names = [shlex.quote(str(file)) for file in (seal, record)]
        by_hand = {
            "signature-missing": f"ssh-keygen -Y sign -n spark-build -f KEY {names[1]}",
            "signer-unknown": f"ssh-keygen -Y check-novalidate -n spark-build -s {names[0]} < {names[1]}",
        }
        text = f"{error.summary}; {error.help}" if error.code == "signer-unknown" else error.summary
        yield Finding(kind="signature", path=seal, text=text, run=by_hand.get(error.code, rebuild))


def _around(house: Wheelhouse, listed: set[Path]) -> Iterator[Finding]:
    """Yield what no single wheel shows: damage in the catalogue, and files that it doesn't list."""
    for path in files(house.root):
        if path not in listed:
            text = "not in the catalogue"
            yield Finding(kind="unlisted", path=path, text=text, run="spark-build wheels reindex")
    if wrong := house.catalogue.sound():
        path = house.root / "catalog.sqlite3"
        yield Finding(kind="catalogue", path=path, text=wrong, run="spark-build wheels reindex")
    rows = house.catalogue.rows("SELECT filename, metadata, metadata_sha256 FROM wheels")
    for filename, metadata, digest in rows:
        if not isinstance(metadata, bytes) or sha256_bytes(metadata) != digest:
            path = house.root / "catalog.sqlite3"
            text = f"the METADATA that it gives out for {filename} was changed"
            yield Finding(kind="catalogue", path=path, text=text, run="spark-build wheels reindex")
