"""One file of two wheels that differs: which sections, and device code apart from host code."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO, Literal

from builder.audit import causes, elf, fatbin, texts
from builder.audit.causes import DEVICE_SECTIONS, Why
from builder.audit.signs import cause
from builder.audit.stretch import Stretch, differs, first_difference
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from builder.audit.facts import DeviceCode, Image
    from builder.audit.signs import Cause

__all__ = ["FileChange", "Part", "between"]

#: Of the sections that differ the first that says something; these follow from the others.
_FOLLOWS = frozenset({".note.gnu.build-id", ".gnu_debuglink", ""})


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A section that differs, with its sizes in bytes; None where it is missing."""

    name: str
    old: int | None
    new: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChange:
    """A file that differs, by its path without the version in it. Sizes are None where it is missing.

    `device` and `host` say which half of a library differs: `device` is empty where there is no device code, `host` for
    everything else in the file. `at` is where the first byte differs, with what stands there. `cut` are the sections of
    which only the first `texts.LOOK` bytes that differ were looked at for causes; an empty name is the whole file.
    """

    path: str
    kind: Literal["added", "removed", "changed"]
    old: int | None = None
    new: int | None = None
    parts: tuple[Part, ...] = ()
    device: Literal["", "equal", "differs", "unknown"] = ""
    host: Literal["", "equal", "differs"] = ""
    at: tuple[str, int, str, str] | None = None
    causes: tuple[Cause, ...] = ()
    cut: tuple[str, ...] = ()

    def as_json(self) -> dict[str, object]:
        """Return the change for programs."""
        return {
            "path": self.path,
            "kind": self.kind,
            "old_size": self.old,
            "new_size": self.new,
            "sections": [{"name": one.name, "old_size": one.old, "new_size": one.new} for one in self.parts],
            "device": self.device or None,
            "host": self.host or None,
            "first": dict(zip(("section", "offset", "old", "new"), self.at, strict=True)) if self.at else None,
            "causes": [one.as_json() for one in self.causes],
            "searched": {"bytes": texts.LOOK, "of": list(self.cut)} if self.cut else None,
        }


def between(name: str, old: BinaryIO, new: BinaryIO, sizes: tuple[int, int], *, explain: bool) -> FileChange:
    """Return how the file `name` differs between two wheels; `sizes` are those of its two streams in bytes."""
    tables = _sections(old), _sections(new)
    stretches = _stretches(old, new, sizes, tables)
    codes = [_code(*each) for each in zip((old, new), sizes, tables, strict=True)]
    device, elsewhere = _halves(codes, tables, stretches)
    told = next((one for one in stretches if one.name not in _FOLLOWS), stretches[0]) if stretches else None
    at = (told.name, *first_difference(old, new, told)) if told else None
    why = _why(name, old, new, stretches, codes) if explain else Why()
    return FileChange(
        path=name,
        kind="changed",
        old=sizes[0],
        new=sizes[1],
        parts=tuple(_part(one) for one in stretches if one.name),
        device=device,
        host=elsewhere,
        at=at,
        causes=why.causes,
        cut=why.cut,
    )


def _part(one: Stretch) -> Part:
    return Part(
        name=one.name,
        old=one.old[1] if one.old[0] >= 0 else None,
        new=one.new[1] if one.new[0] >= 0 else None,
    )


def _sections(stream: BinaryIO) -> tuple[elf.Section, ...] | None:
    """Return the sections of an ELF file; None for any other file and for one that isn't whole."""
    stream.seek(0)
    if stream.read(4) != b"\x7fELF":
        return None
    stream.seek(0)
    try:
        return elf.sections(stream)
    except elf.Damaged:
        return None


def _stretches(
    old: BinaryIO,
    new: BinaryIO,
    sizes: tuple[int, int],
    tables: tuple[Sequence[elf.Section] | None, Sequence[elf.Section] | None],
) -> list[Stretch]:
    """Return what differs: sections of two ELF files, else the whole."""
    whole = Stretch("", (0, sizes[0]), (0, sizes[1]))
    if tables[0] is None or tables[1] is None:
        return [whole]
    before, after = (_numbered(table) for table in (tables[0], tables[1]))
    found = []
    for key in dict.fromkeys((*before, *after)):
        stretch = Stretch(key[0], before.get(key, (-1, 0)), after.get(key, (-1, 0)))
        if key not in before or key not in after or differs(old, new, stretch):
            found.append(stretch)
    return found or [whole]  # the headers alone


def _numbered(table: Sequence[elf.Section]) -> dict[tuple[str, int], tuple[int, int]]:
    """Return sections by name and number, since a name may stand for several."""
    found: dict[tuple[str, int], tuple[int, int]] = {}
    for one in table:
        if not one.name:
            continue
        number = 0
        while (one.name, number) in found:
            number += 1
        found[one.name, number] = (one.offset, one.size)
    return found


def _code(stream: BinaryIO, size: int, table: Sequence[elf.Section] | None) -> DeviceCode | None:
    stream.seek(0)
    return fatbin.of(stream, size, table, digests=True)


def _halves(
    codes: Sequence[DeviceCode | None],
    tables: tuple[Sequence[elf.Section] | None, Sequence[elf.Section] | None],
    stretches: Sequence[Stretch],
) -> tuple[Literal["", "equal", "differs", "unknown"], Literal["", "equal", "differs"]]:
    """Return whether the device code differs, and whether anything else does."""
    if not any(code and (code.units or code.unknown) for code in codes):
        return "", ""
    if tables[0] is None or tables[1] is None:
        return _compared(codes), ""
    if any(one.name not in DEVICE_SECTIONS for one in stretches):
        return _compared(codes), "differs"
    return _compared(codes), "equal"


def _compared(codes: Sequence[DeviceCode | None]) -> Literal["equal", "differs", "unknown"]:
    digests = [_digests(code) for code in codes]
    if digests[0] != digests[1]:
        return "differs"
    return "unknown" if any(code and code.unknown for code in codes) or not all(digests[0]) else "equal"


def _digests(code: DeviceCode | None) -> list[str]:
    return [unit.sha256 for unit in code.units] if code else []


def _why(
    name: str, old: BinaryIO, new: BinaryIO, stretches: Sequence[Stretch], codes: Sequence[DeviceCode | None]
) -> Why:
    """Return the known causes; device code that differs and can't be looked into is one of them."""
    found = causes.of(old, new, stretches, path=name)
    if _compared(codes) != "differs" or any(one.where in DEVICE_SECTIONS for one in found.causes):
        return found
    for one, other in zip(*map(_digests, codes), strict=False):
        if one != other and any(image.compressed for code in codes for image in _images(code)):
            more = cause("device-compressed", _section(stretches), f"sha256 {one}", f"sha256 {other}")
            return Why(causes=(*found.causes, more), cut=found.cut)
    return found


def _section(stretches: Sequence[Stretch]) -> str:
    return next((one.name for one in stretches if one.name in DEVICE_SECTIONS), "")


def _images(code: DeviceCode | None) -> Iterator[Image]:
    for unit in code.units if code else ():
        yield from unit.images
