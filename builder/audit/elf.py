"""What the headers of an ELF file say, whatever its bytes are.

Format: the System V ABI's chapter 5 (dynamic linking); symbol versions as in the Linux Standard Base.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, BinaryIO, Literal

from builder.audit.facts import Elf
from builder.audit.tables import CHUNK, HEAD, LONGEST_NAME, MAGIC, Damaged, Image, Section, machine, texts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from builder.audit.tables import Header

__all__ = ["HEAD", "MAGIC", "Damaged", "Section", "machine", "read", "sections"]

_ET_REL, _ET_EXEC, _ET_DYN = 1, 2, 3
_PT_DYNAMIC, _PT_INTERP, _PT_NOTE = 2, 3, 4
_SHT_SYMTAB, _SHT_NOTE, _SHT_DYNSYM = 2, 7, 11
_DT_NULL, _DT_NEEDED, _DT_STRTAB, _DT_STRSZ, _DT_SONAME, _DT_RPATH, _DT_RUNPATH = 0, 1, 5, 10, 14, 15, 29
_DT_FLAGS_1, _DT_VERNEED, _DT_VERNEEDNUM = 0x6FFFFFFB, 0x6FFFFFFE, 0x6FFFFFFF
_DF_1_PIE = 0x08000000
_NT_GNU_BUILD_ID = 3
_STB_LOCAL, _STB_WEAK = 0, 2

#: How the functions begin by which Python starts an extension module.
_ENTRY = re.compile(rb"PyInitU?_|PyModExportU?_")
_LONGEST_ENTRY = 16

#: More than any linker writes; what is above is damage, and would only cost time and memory.
_MOST_ENTRIES = 1 << 14
_MOST_UNDEFINED = 1 << 18
_LARGEST_NOTE = 1 << 20


def sections(stream: BinaryIO) -> tuple[Section, ...]:
    """Return the sections of the ELF file in `stream`; raise `Damaged` when it isn't whole."""
    return tuple(Section(one.name, one.offset, one.stored) for one in Image(stream).sections)


def read(stream: BinaryIO) -> Elf:
    """Return what the headers of the ELF file in `stream` say; raise `Damaged` when it isn't whole."""
    image = Image(stream)
    dynamic = _Dynamic(image)
    undefined, weak, defined, inits = _symbols(image)
    soname, interpreter = "".join(dynamic.texts(_DT_SONAME)[:1]), _interpreter(image)
    return Elf(
        machine=image.machine,
        bits=image.bits,
        kind=_kind(image, program=dynamic.pie or bool(interpreter and not soname)),
        soname=soname,
        needed=dynamic.texts(_DT_NEEDED),
        rpath=tuple(one for text in dynamic.texts(_DT_RPATH, _DT_RUNPATH) for one in text.split(":")),
        versions=_versions(image, dynamic),
        undefined=undefined,
        weak=weak,
        defined=defined,
        inits=inits,
        debug_size=sum(one.stored for one in image.sections if one.name.startswith((".debug_", ".zdebug_"))),
        symbols_size=_symbols_size(image),
        build_id=_build_id(image),
        compilers=_compilers(image),
        interpreter=interpreter,
    )


class _Dynamic:
    """What the dynamic section says, read as the loader does: by segments, not by sections."""

    def __init__(self, image: Image) -> None:
        layout, named = "qQ" if image.wide else "iI", []
        self.numbers: dict[int, int] = {}
        for tag, value in _entries(image, layout):
            self.numbers[tag] = value
            if tag in {_DT_NEEDED, _DT_SONAME, _DT_RPATH, _DT_RUNPATH}:
                named.append((tag, value))
        self.pie = bool(self.numbers.get(_DT_FLAGS_1, 0) & _DF_1_PIE)
        found = self.names(image, [value for _tag, value in named])
        self._named = [(tag, found[value]) for tag, value in named]

    def names(self, image: Image, places: Sequence[int]) -> Mapping[int, str]:
        """Return the text at each of `places` in the dynamic string table."""
        if not places:
            return {}
        if _DT_STRTAB not in self.numbers or _DT_STRSZ not in self.numbers:
            raise Damaged("names in the dynamic section, and no table of them")
        return texts(image, image.place(self.numbers[_DT_STRTAB]), self.numbers[_DT_STRSZ], places)

    def texts(self, *tags: int) -> tuple[str, ...]:
        return tuple(text for wanted in tags for tag, text in self._named if tag == wanted)


def _entries(image: Image, layout: str) -> Iterator[tuple[int, ...]]:
    found = next((one for one in image.segments if one.type == _PT_DYNAMIC), None)
    if not found or not found.size:
        return
    most = found.size // struct.calcsize("<" + layout)
    for number, entry in enumerate(image.rows(layout, found.offset, min(most, _MOST_ENTRIES + 1))):
        if entry[0] == _DT_NULL:
            return
        if number == _MOST_ENTRIES:
            raise Damaged(f"a dynamic section of {found.size} bytes")
        yield entry


def _symbols(image: Image) -> tuple[frozenset[str], frozenset[str], int, frozenset[str]]:
    """Return the dynamic symbols that are wanted, those of them that may be missing, how many it offers, and its `inits`."""
    table = next((one for one in image.sections if one.type == _SHT_DYNSYM and one.stored), None)
    if not table:
        return frozenset(), frozenset(), 0, frozenset()
    if not 0 < table.link < len(image.sections):
        raise Damaged(f"section {table.link} holds the names of symbols")
    layout, wide = "IBBHQQ" if image.wide else "IIIBBH", image.wide
    names = image.sections[table.link]
    entries, inits = set(_found(image, names, _ENTRY)), set()
    wanted, weak, defined = set(), set(), 0
    for row in image.rows(layout, table.offset, table.size // struct.calcsize("<" + layout)):
        name, info, where = (row[0], row[1], row[3]) if wide else (row[0], row[3], row[5])
        bind = info >> 4
        if bind == _STB_LOCAL:
            continue
        if where:
            defined += 1
            if name in entries:
                inits.add(name)
            continue
        wanted.add(name)
        if bind == _STB_WEAK:
            weak.add(name)
        if len(wanted) > _MOST_UNDEFINED:
            raise Damaged("more undefined symbols than any library has")
    named = texts(image, names.offset, names.stored, wanted | inits)
    return (
        frozenset(named[one] for one in wanted) - {""},
        frozenset(named[one] for one in weak) - {""},
        defined,
        frozenset(named[one] for one in inits),
    )


def _found(image: Image, table: Header, text: re.Pattern[bytes]) -> Iterator[int]:
    """Yield where `text` stands in a string table: sooner told than the names of all symbols."""
    kept = b""
    for at in range(0, table.stored, CHUNK):
        data = kept + image.bytes(table.offset + at, min(CHUNK, table.stored - at))
        yield from (at - len(kept) + one.start() for one in text.finditer(data))
        kept = data[-_LONGEST_ENTRY:]


def _versions(image: Image, dynamic: _Dynamic) -> Mapping[str, tuple[str, ...]]:
    """Return the symbol versions wanted of each library, in the file's order."""
    if _DT_VERNEED not in dynamic.numbers:
        return {}
    start = image.place(dynamic.numbers[_DT_VERNEED])
    pairs: list[tuple[int, int]] = []
    at, left = start, min(dynamic.numbers.get(_DT_VERNEEDNUM, 0), _MOST_ENTRIES)
    while left:
        _version, count, file, first, step = image.unpack("HHIII", at)
        aux = at + first
        for _ in range(count):
            _hash, _flags, _other, name, onward = image.unpack("IHHII", aux)
            pairs.append((file, name))
            if not onward:
                break
            aux += onward
        if len(pairs) > _MOST_ENTRIES:
            raise Damaged("more symbol versions than any library wants")
        left = left - 1 if step else 0
        at += step
    named = dynamic.names(image, [one for pair in pairs for one in pair])
    found: dict[str, dict[str, None]] = {}
    for file, name in pairs:
        found.setdefault(named[file], {})[named[name]] = None
    return {file: tuple(names) for file, names in found.items()}


def _kind(image: Image, *, program: bool) -> Literal["shared", "program", "object", "other"]:
    if image.machine == "cuda":
        return "other"
    if image.type == _ET_REL:
        return "object"
    if image.type == _ET_EXEC or (image.type == _ET_DYN and program):
        return "program"
    return "shared" if image.type == _ET_DYN else "other"


def _symbols_size(image: Image) -> int:
    if image.type == _ET_REL:  # a linker needs them
        return 0
    tables = [one for one in image.sections if one.type == _SHT_SYMTAB]
    names = {one.link for one in tables if 0 < one.link < len(image.sections)}
    return sum(one.stored for one in tables) + sum(image.sections[one].stored for one in names)


def _interpreter(image: Image) -> str:
    found = next((one for one in image.segments if one.type == _PT_INTERP), None)
    if not found:
        return ""
    if found.size > LONGEST_NAME:
        raise Damaged(f"a loader with a name of {found.size} bytes")
    return image.bytes(found.offset, found.size).rstrip(b"\0").decode(errors="backslashreplace")


def _build_id(image: Image) -> str:
    places = [(one.offset, one.size) for one in image.segments if one.type == _PT_NOTE]
    places = places or [(one.offset, one.size) for one in image.sections if one.type == _SHT_NOTE]
    for offset, size in places[:64]:
        data = image.bytes(offset, min(size, _LARGEST_NOTE))
        at = 0
        while at + 12 <= len(data):  # three numbers before each note
            name_size, size_, kind = struct.unpack_from(image.order + "III", data, at)
            text = at + 12 + (name_size + 3 & ~3)
            if kind == _NT_GNU_BUILD_ID and data[at + 12 : at + 12 + name_size] == b"GNU\0":
                return data[text : text + min(size_, 64)].hex()
            at = text + (size_ + 3 & ~3)
    return ""


def _compilers(image: Image) -> tuple[str, ...]:
    """Return what compilers left in ``.comment``, each once."""
    found = next((one for one in image.sections if one.name == ".comment"), None)
    if not found:
        return ()
    data = image.bytes(found.offset, min(found.stored, _LARGEST_NOTE))
    return tuple(dict.fromkeys(one.decode(errors="backslashreplace") for one in data.split(b"\0") if one))
