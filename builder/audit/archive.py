"""Reading a static library: which members it has, and where they lie.

Format: ar(5) as of System V, with the long names of GNU (``/12``, and their table ``//``) and of BSD (``#1/12``).
"""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, cast

from builder.audit import elf

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MAGIC", "Damaged", "Member", "is_one", "machines", "members"]

_MAGIC, _THIN = b"!<arch>\n", b"!<thin>\n"
#: How an archive begins, in bytes.
MAGIC = (_MAGIC, _THIN)
_HEADER, _HEADER_END = 60, b"`\n"
_MOST_NAMES = 16 << 20
_LONGEST_NAME = 4096


class Damaged(Exception):  # what the file is, not what went wrong here
    """The bytes are no whole archive; the text says what doesn't fit."""


class Member(NamedTuple):
    """A member by name, and where its bytes lie in the archive."""

    name: str
    offset: int
    size: int

    def open(self, whole: BinaryIO) -> BinaryIO:
        """Return the member as a file of its own; `whole` is the archive, and is read from while it is used."""
        return cast("BinaryIO", io.BufferedReader(_Window(whole, self.offset, self.size)))


def is_one(head: bytes) -> bool:
    """Return whether a file that begins with `head` (8 bytes) is an archive."""
    return head.startswith(MAGIC)


def members(stream: BinaryIO, size: int) -> Iterator[Member]:
    """Yield the members of the archive of `size` bytes in `stream`, without its tables; raise `Damaged` if it isn't whole.

    A thin archive only names other files, so it is never whole here.
    """
    if _read(stream, 0, len(_MAGIC)) != _MAGIC:
        raise Damaged("a thin archive, whose members are other files")
    at, names = len(_MAGIC), b""
    while at < size:
        header = _read(stream, at, _HEADER)
        number = header[48:58].strip()
        # int() alone would take "+1" and "1_0" as well.
        if len(header) < _HEADER or header[58:] != _HEADER_END or not number.isdigit():
            raise Damaged(f"no member of an archive at {at}")
        start, end = at + _HEADER, at + _HEADER + int(number)
        if end > size:
            raise Damaged(f"a member of {int(number)} bytes at {at}, where {size - start} are left")
        label = header[:16].rstrip()
        if label == b"//":
            names = _read(stream, start, min(end - start, _MOST_NAMES))
        elif label not in {b"/", b"/SYM64/"} and not label.startswith(b"__.SYMDEF"):
            name, start = _name(stream, label, names, Member("", start, end - start))
            yield Member(name, start, end - start)
        # A member begins at an even place.
        at = end + end % 2


def machines(stream: BinaryIO, size: int) -> frozenset[str]:
    """Return for which machines the ELF files in an archive are, as far as it can be read."""
    found = set()
    with contextlib.suppress(Damaged):
        for member in members(stream, size):
            head = _read(stream, member.offset, min(member.size, elf.HEAD))
            if machine := elf.machine(head):
                found.add(machine)
    return frozenset(found)


def _read(stream: BinaryIO, offset: int, size: int) -> bytes:
    stream.seek(offset)
    return stream.read(size)


def _name(stream: BinaryIO, label: bytes, names: bytes, place: Member) -> tuple[str, int]:
    """Return a member's name, and where its bytes begin: behind the name, if that is written there."""
    if label.startswith(b"#1/") and label[3:].isdigit():
        size = min(int(label[3:]), place.size)
        return _text(_read(stream, place.offset, min(size, _LONGEST_NAME)).rstrip(b"\0")), place.offset + size
    if label[:1] == b"/" and label[1:].isdigit():
        return _text(names[int(label[1:]) :][:_LONGEST_NAME].split(b"\n", 1)[0].removesuffix(b"/")), place.offset
    return _text(label.removesuffix(b"/")), place.offset


def _text(name: bytes) -> str:
    return name.decode(errors="backslashreplace")


class _Window(io.RawIOBase):
    """A part of a file, as a file."""

    def __init__(self, whole: BinaryIO, start: int, size: int) -> None:
        self._whole, self._start, self._size, self._at = whole, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, into: memoryview) -> int:  # type: ignore[override]
        self._whole.seek(self._start + min(self._at, self._size))
        data = self._whole.read(max(0, min(len(into), self._size - self._at)))
        into[: len(data)] = data
        self._at += len(data)
        return len(data)
