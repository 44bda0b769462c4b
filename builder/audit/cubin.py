"""Reading for what a cubin is: device code as an ELF file of its own (machine 190).

Flags as in LLVM's ``BinaryFormat/ELF.h`` (``EF_CUDA_*``), checked with ptxas 12.9.86, 13.0.88 and 13.5.37:

- ABI version up to 7 (CUDA 12 below 10.0, OS ABI 0x33): the SM is the lowest byte of ``e_flags``; 0x800 means ``a``.
- ABI version 8 (OS ABI 0x41): the SM is the second byte. 0x8 means ``a`` in 12.9, and isn't set any more in 13.0. ``f`` and
  plain code have the same flags.

So the letter is taken from the command line that ``.note.nv.tkinfo`` keeps (``-arch sm_121f``): one note of type 2000 for
each tool (``nvlink``, ``ptxas``), which ends in four texts: tool, version, build, options. ``.note.nv.cuinfo`` (type 1000)
holds three u16: 2, SM, toolkit (130 for 13.0).
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, BinaryIO, Literal, NamedTuple

from builder.audit.facts import Image

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from builder.audit.elf import Section

__all__ = ["is_one", "length", "read"]

_MACHINE = 190
_OS_ABI_OLD, _OS_ABI_NEW = 0x33, 0x41
_ABI_OLD, _ABI_NEW = 7, 8
_ACCELERATED_OLD, _ACCELERATED_NEW = 0x800, 0x8
#: Code before 9.0 has no letters.
_FIRST_LETTER = 90
_LOWEST_SM = 10

_TKINFO, _CUINFO = ".note.nv.tkinfo", ".note.nv.cuinfo"
_TKINFO_TYPE, _CUINFO_TYPE = 2000, 1000
_OWNER = b"NVIDIA Corp\0"
_NOTE = struct.Struct("<III")
#: A note holds a command line.
_LARGEST_NOTES = 1 << 20
_ARCH = re.compile(rb"(?:^|\s|\0)-{1,2}(?:arch|gpu-name)[ =]sm_(\d{2,3})([af]?)(?=[\s\0]|$)")
_RELEASE = re.compile(rb"release (\d+\.\d+)\b")

_Letter = Literal["", "a", "f", "?"]


def is_one(head: bytes) -> bool:
    """Return whether an ELF file that begins with `head` (64 bytes) is a cubin."""
    return len(head) >= 20 and head[5] == 1 and struct.unpack_from("<H", head, 18)[0] == _MACHINE  # noqa: PLR2004


def length(head: bytes, sections: Sequence[Section]) -> int:
    """Return how many bytes the cubin takes that begins with `head` (64 bytes): up to the end of what it names."""
    segments, table = struct.unpack_from("<QQ", head, 32)
    segment_size, segment_count, row, rows = struct.unpack_from("<HHHH", head, 54)
    ends: list[int] = [one.offset + one.size for one in sections if one.size]
    ends += [64, segments + segment_size * segment_count, table + row * rows]
    return max(ends)


def read(stream: BinaryIO, size: int, sections: Sequence[Section]) -> tuple[Image, str]:
    """Return the image that the cubin of `size` bytes in `stream` is, and why it isn't known, else an empty text.

    One whose SM isn't known, or whose flags and notes contradict each other, has the kind ``unknown``, since nothing can be
    said about what loads it. Where only the letter isn't noted, as in those that CUPTI brings, the variant is ``?``.
    """
    header = _read(stream, 0, 64)
    notes = _notes(stream, sections)
    sm, flag, wrong = _flags(header)
    letter: _Letter = ""
    if not wrong:
        letter, wrong = _letter(sm, flag, notes, old=header[8] <= _ABI_OLD)
    return Image(
        kind="unknown" if wrong else "cubin", sm=sm, variant=letter, size=size, version=notes.toolkit
    ), f"a cubin: {wrong}" if wrong else ""


def _read(stream: BinaryIO, offset: int, size: int) -> bytes:
    stream.seek(offset)
    return stream.read(size)


def _flags(header: bytes) -> tuple[int, bool, str]:
    """Return SM, whether a flag says ``a``, and what is wrong."""
    if len(header) < 64:  # noqa: PLR2004  # the header of a 64-bit ELF file
        return 0, False, "too short"
    os_abi, abi = header[7], header[8]
    flags: int = struct.unpack_from("<I", header, 48 if header[4] == 2 else 36)[0]  # noqa: PLR2004
    if (os_abi, abi <= _ABI_OLD) == (_OS_ABI_OLD, True):
        sm, accelerated = flags & 0xFF, bool(flags & _ACCELERATED_OLD)
    elif (os_abi, abi) == (_OS_ABI_NEW, _ABI_NEW):
        sm, accelerated = flags >> 8 & 0xFF, bool(flags & _ACCELERATED_NEW)
    else:
        return 0, False, f"ABI {os_abi:#x} version {abi}"
    return sm, accelerated, "" if sm >= _LOWEST_SM else f"SM {sm}"


class _Notes(NamedTuple):
    """Which architectures the tools were told, as (SM, letter), and the toolkit that they are from; empty when not told."""

    told: frozenset[tuple[int, str]]
    toolkit: str


def _letter(sm: int, flag: bool, notes: _Notes, *, old: bool) -> tuple[_Letter, str]:  # noqa: FBT001  # a bit
    """Return the letter, and why it isn't known."""
    if len(notes.told) > 1 or any(number != sm for number, _ in notes.told):
        told = ", ".join(sorted(f"sm_{number}{letter}" for number, letter in notes.told))
        return "", f"made for SM {sm} by tools that were told {told}"
    letter: str | None = next((letter for _, letter in notes.told), None)
    if letter is None:
        return ("a" if flag else "" if old or sm < _FIRST_LETTER else "?"), ""
    if flag and letter != "a":
        return "", f"its flags say sm_{sm}a, its notes sm_{sm}{letter}"
    return "a" if letter == "a" else "f" if letter == "f" else "", ""


def _notes(stream: BinaryIO, sections: Sequence[Section]) -> _Notes:
    told: set[tuple[int, str]] = set()
    toolkit = ""
    for section in sections:
        # One without bytes may lie anywhere.
        if section.name not in {_TKINFO, _CUINFO} or not 0 < section.size <= _LARGEST_NOTES:
            continue
        for kind, text in _each(_read(stream, section.offset, section.size)):
            if kind == _TKINFO_TYPE:
                told |= {(int(one[1]), one[2].decode()) for one in _ARCH.finditer(text)}
                release = _RELEASE.search(text)
                toolkit = toolkit or (release[1].decode() if release else "")
            elif kind == _CUINFO_TYPE and len(text) >= 6 and not toolkit:  # noqa: PLR2004
                number: int = struct.unpack_from("<H", text, 4)[0]
                toolkit = f"{number // 10}.{number % 10}" if number else ""
    return _Notes(told=frozenset(told), toolkit=toolkit)


def _each(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and description of NVIDIA's notes in `data`; stop at what isn't one."""
    at = 0
    while at + _NOTE.size <= len(data):
        owner, size, kind = _NOTE.unpack_from(data, at)
        start = at + _NOTE.size
        text = start + (owner + 3) // 4 * 4
        if data[start : start + owner] != _OWNER or text + size > len(data):
            return
        yield kind, data[text : text + size]
        at = text + (size + 3) // 4 * 4
