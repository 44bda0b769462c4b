"""The tables of an ELF file: header, segments, sections, texts; nothing in the file is believed beyond its end.

`pyelftools` reads the file header. What stands behind it is unpacked here: a library has 100,000s of symbols, and every
count and offset in the file may lie. What a loader would refuse or what no linker writes is `Damaged`.

Format: the System V ABI's chapter 4 (object files).
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["CHUNK", "HEAD", "LONGEST_NAME", "MAGIC", "Damaged", "Header", "Image", "Section", "machine", "texts"]

MAGIC = b"\x7fELF"
#: How many bytes at the front tell for which machine a file is.
HEAD = 20

#: `e_machine` as platform tags spell it. 190 is device code of its own (a cubin).
_MACHINES = {
    3: "i686",
    20: "ppc",
    22: "s390x",
    40: "armv7l",
    62: "x86_64",
    183: "aarch64",
    190: "cuda",
    258: "loongarch64",
}
_PPC64, _RISCV = 21, 243
_PT_LOAD = 1
_SHT_NULL, _SHT_NOBITS = 0, 8
_SHN_XINDEX = 0xFFFF

#: More than any linker writes; what is above is damage, and would only cost time and memory.
_MOST_SECTIONS = 1 << 17
_MOST_TEXT = 64 << 20
LONGEST_NAME = 1 << 16
CHUNK = 1 << 18


class Damaged(Exception):  # what the file is, not what went wrong here
    """The bytes are no whole ELF file; the text says what doesn't fit."""


class Section(NamedTuple):
    """A section by name, and where its bytes lie in the file. One without bytes there (``.bss``) has the size 0."""

    name: str
    offset: int
    size: int


def machine(head: bytes) -> str:
    """Return the machine of the ELF file that begins with `head` (`HEAD` bytes); empty for another file."""
    if len(head) < HEAD or not head.startswith(MAGIC) or head[4] not in {1, 2} or head[5] not in {1, 2}:
        return ""
    order = "<" if head[5] == 1 else ">"
    return _machine(struct.unpack_from(order + "H", head, 18)[0], order, 32 * head[4])


def _machine(number: int, order: str, bits: int) -> str:
    if number == _PPC64:
        return "ppc64le" if order == "<" else "ppc64"
    if number == _RISCV:
        return f"riscv{bits}"
    return _MACHINES.get(number, f"em-{number}")


class Header(NamedTuple):
    """A section's header with its name."""

    name: str
    type: int
    offset: int
    size: int
    link: int

    @property
    def stored(self) -> int:
        """How many bytes it takes in the file."""
        return 0 if self.type in {_SHT_NULL, _SHT_NOBITS} else self.size


class Segment(NamedTuple):
    type: int
    offset: int
    address: int
    size: int


class Image:
    """An ELF file with its word size, byte order and tables; every read stays within it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.size = stream.seek(0, os.SEEK_END)
        header = _header(stream)
        self.wide: bool = header.elfclass == 64  # noqa: PLR2004  # bits of a word
        self.bits = 64 if self.wide else 32
        self.order = "<" if header.little_endian else ">"
        self.type, self._number = self.unpack("HH", 16)
        self.segments = self._segments(header)
        self.sections = self._sections(header)

    @property
    def machine(self) -> str:
        """The machine as platform tags spell it."""
        return _machine(self._number, self.order, self.bits)

    def bytes(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset`; raise `Damaged` where the file doesn't have them."""
        if offset + size > self.size:
            raise Damaged(f"{size} bytes wanted at {offset}, the file ends at {self.size}")
        self._stream.seek(offset)
        data = self._stream.read(size)
        if len(data) != size:
            raise Damaged(f"{size} bytes wanted at {offset}, {len(data)} are there")
        return data

    def unpack(self, layout: str, offset: int) -> tuple[int, ...]:
        """Return one row from `offset`; `layout` is that of `struct`, in the file's byte order."""
        return struct.unpack(self.order + layout, self.bytes(offset, struct.calcsize(self.order + layout)))

    def rows(self, layout: str, offset: int, count: int) -> Iterator[tuple[int, ...]]:
        """Yield `count` rows from `offset`, read in chunks."""
        one = struct.calcsize(self.order + layout)
        step, end = CHUNK // one * one, offset + count * one
        for at in range(offset, end, step):
            yield from struct.iter_unpack(self.order + layout, self.bytes(at, min(step, end - at)))

    def place(self, address: int) -> int:
        """Return where in the file lies what is loaded at `address`."""
        for one in self.segments:
            if one.type == _PT_LOAD and one.address <= address < one.address + one.size:
                return address - one.address + one.offset
        raise Damaged(f"nothing is loaded at {address:#x}")

    def _segments(self, header: Mapping[str, int]) -> tuple[Segment, ...]:
        offset, row, count = header["e_phoff"], header["e_phentsize"], header["e_phnum"]
        if not offset or not count:
            return ()
        layout = "IIQQQQQQ" if self.wide else "IIIIIIII"
        self._check_table("segments", layout, row, count)
        at, address, size = (2, 3, 5) if self.wide else (1, 2, 4)
        found = tuple(Segment(one[0], one[at], one[address], one[size]) for one in self.rows(layout, offset, count))
        for one in found:
            if one.type == _PT_LOAD and one.offset + one.size > self.size:
                raise Damaged(f"{one.size} bytes to load from {one.offset}, the file ends at {self.size}")
        return found

    def _sections(self, header: Mapping[str, int]) -> tuple[Header, ...]:
        offset, row = header["e_shoff"], header["e_shentsize"]
        if not offset:
            return ()
        layout = "IIQQQQIIQQ" if self.wide else "IIIIIIIIII"
        first = self.unpack(layout, offset)
        # Numbers that two bytes can't hold stand in the first section's header.
        count = header["e_shnum"] or first[5]
        names = first[6] if header["e_shstrndx"] == _SHN_XINDEX else header["e_shstrndx"]
        self._check_table("sections", layout, row, count)
        table = [(one[0], one[1], one[4], one[5], one[6]) for one in self.rows(layout, offset, count)]
        for _name, kind, at, size, _link in table:
            if kind not in {_SHT_NULL, _SHT_NOBITS} and at + size > self.size:
                raise Damaged(f"a section of {size} bytes at {at}, the file ends at {self.size}")
        if names >= max(count, 1):
            raise Damaged(f"section {names} of {count} holds the names")
        names_of = texts(self, table[names][2], table[names][3], [one[0] for one in table]) if names else {}
        return tuple(Header(names_of.get(one[0], ""), *one[1:]) for one in table)

    @staticmethod
    def _check_table(what: str, layout: str, row: int, count: int) -> None:
        if row != struct.calcsize("<" + layout) or count > _MOST_SECTIONS:
            raise Damaged(f"{count} {what} with headers of {row} bytes, wanted {struct.calcsize('<' + layout)}")


def texts(image: Image, offset: int, size: int, places: Iterable[int]) -> Mapping[int, str]:
    """Return the text at each of `places` in a string table of `size` bytes at `offset`.

    Read in windows, in order: a table may be larger than memory.
    """
    if offset + size > image.size:
        raise Damaged(f"names of {size} bytes at {offset}, the file ends at {image.size}")
    found: dict[int, str] = {}
    begin, window, left = 0, b"", _MOST_TEXT
    for place in sorted(set(places)):
        if place >= size:
            raise Damaged(f"a name at {place} of {size} bytes of names")
        end = window.find(b"\0", place - begin) if place - begin < len(window) else -1
        if end < 0:
            begin, window = place, image.bytes(offset + place, min(CHUNK, size - place))
            end = window.find(b"\0", 0, LONGEST_NAME)
        data = window[place - begin : end]
        left -= len(data)
        if end < 0 or left < 0:
            raise Damaged(f"a name without an end at {place}, or too many of them")
        found[place] = data.decode(errors="backslashreplace")
    return found


def _header(stream: BinaryIO) -> Any:  # noqa: ANN401  # an ELFFile: untyped
    from elftools.common.exceptions import ELFError  # noqa: PLC0415  # most wheels have no ELF file
    from elftools.elf.elffile import ELFFile  # noqa: PLC0415

    try:
        return ELFFile(stream)
    except (ELFError, ValueError, KeyError, OverflowError) as error:
        raise Damaged(f"no ELF header: {error}") from error
