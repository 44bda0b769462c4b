"""What a shared library exports, read the way that the dynamic loader reads it.

A library of torch has 200,000 symbols and more. Whether it has some of them is told by its own hash table, which touches a
few pages of the file a symbol; all of them are listed in a fraction of a second.

Format: the dynamic section, symbol table and hash table of the System V ABI (chapter 5), ``DT_GNU_HASH`` as binutils write
it. Only 64-bit little-endian libraries are read: all that CUDA runs on.
"""

from __future__ import annotations

import contextlib
import mmap
import struct
from typing import TYPE_CHECKING

from builder.audit.elf import Damaged
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = ["defined", "exported"]

_IDENT = b"\x7fELF\x02\x01"
_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_HASH, _DT_STRTAB, _DT_SYMTAB, _DT_STRSZ, _DT_GNU_HASH = 4, 5, 6, 10, 0x6FFFFEF5
_SEGMENT, _TAG, _SYMBOL = struct.Struct("<IIQQQQQQ"), struct.Struct("<QQ"), struct.Struct("<IBBHQQ")
_NUMBER = struct.Struct("<I")
_STB_LOCAL = 0
#: Above it no linker goes; a table that says so is damaged.
_MOST_SYMBOLS = 1 << 26


def defined(path: Path, names: Iterable[str]) -> frozenset[str]:
    """Return those of `names` that the library at `path` exports; raise `Damaged` when it can't be read.

    Without a GNU hash table all symbols are looked at.
    """
    with _opened(path) as library:
        if library.gnu_hash is None:
            return frozenset(library.names()) & frozenset(names)
        found = library.table()
        return frozenset(name for name in names if found.has(name.encode()))


def exported(path: Path) -> frozenset[str]:
    """Return the names of all symbols that the library at `path` exports; raise `Damaged` when it can't be read."""
    with _opened(path) as library:
        return frozenset(library.names())


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[_Library]:
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield _library(data)
    except OSError as error:
        raise Damaged(f"{path.name} can't be read: {error}") from error
    except (struct.error, ValueError, IndexError, OverflowError) as error:  # every offset in the file may lie
        raise Damaged(f"{path.name} is no whole library: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Library:
    """Where the tables lie in the file, as offsets; a table that isn't there is None."""

    data: mmap.mmap
    symbols: int
    texts: int
    texts_size: int
    gnu_hash: int | None
    hash: int | None

    def text(self, place: int) -> bytes:
        if place >= self.texts_size:
            msg = f"a name at {place} of {self.texts_size} bytes of names"
            raise ValueError(msg)
        end = self.data.find(b"\0", self.texts + place, self.texts + self.texts_size)
        return self.data[self.texts + place : end if end >= 0 else self.texts + self.texts_size]

    def symbol(self, index: int) -> tuple[int, int, int]:
        """Return the place of its name, its bind, and the section it is defined in (0: none)."""
        place, info, _other, section, _value, _size = _SYMBOL.unpack_from(
            self.data, self.symbols + index * _SYMBOL.size
        )
        return place, info >> 4, section

    def table(self) -> _GnuHash:
        assert self.gnu_hash is not None  # noqa: S101  # for type checkers
        return _GnuHash(self, self.gnu_hash)

    def names(self) -> Iterator[str]:
        for index in range(*self._span()):
            place, bind, section = self.symbol(index)
            if section and bind != _STB_LOCAL:
                yield self.text(place).decode(errors="backslashreplace")

    def _span(self) -> tuple[int, int]:
        """Return the first symbol that may be defined, and the one behind the last."""
        if self.gnu_hash is not None:
            return self.table().span()
        if self.hash is None:
            msg = "it has no hash table of its symbols"
            raise ValueError(msg)
        count: int = _NUMBER.unpack_from(self.data, self.hash + 4)[0]  # nchain is the number of symbols
        if count > _MOST_SYMBOLS:
            msg = f"{count} symbols"
            raise ValueError(msg)
        return 0, count


class _GnuHash:
    """The hash table: a Bloom filter of 64-bit words, buckets with the first symbol of a chain, chains of hashes."""

    def __init__(self, library: _Library, at: int) -> None:
        self._library, self._data = library, library.data
        self._buckets, self._first, self._words, self._shift = struct.unpack_from("<IIII", self._data, at)
        self._filter_at = at + 16
        self._buckets_at = self._filter_at + 8 * self._words
        self._chains_at = self._buckets_at + 4 * self._buckets

    def has(self, name: bytes) -> bool:
        if not self._buckets or not self._words:
            return False
        wanted = _hash(name)
        (word,) = struct.unpack_from("<Q", self._data, self._filter_at + 8 * (wanted // 64 % self._words))
        if not (word >> (wanted % 64)) & (word >> ((wanted >> self._shift) % 64)) & 1:
            return False
        (index,) = _NUMBER.unpack_from(self._data, self._buckets_at + 4 * (wanted % self._buckets))
        if index < self._first:
            return False
        while True:
            chained = self._chain(index)
            if chained | 1 == wanted | 1:
                place, _bind, section = self._library.symbol(index)
                if section and self._library.text(place) == name:
                    return True
            if chained & 1:
                return False
            index += 1

    def span(self) -> tuple[int, int]:
        """Return the first symbol in the table and the one behind the last."""
        layout = f"<{self._buckets}I"
        last = max(struct.unpack_from(layout, self._data, self._buckets_at), default=0)
        if last < self._first:
            return 0, 0
        while not self._chain(last) & 1:
            last += 1
        return self._first, last + 1

    def _chain(self, index: int) -> int:
        value: int = _NUMBER.unpack_from(self._data, self._chains_at + 4 * (index - self._first))[0]
        return value


def _hash(name: bytes) -> int:
    found = 5381
    for byte in name:
        found = found * 33 + byte & 0xFFFFFFFF
    return found


def _library(data: mmap.mmap) -> _Library:
    if data[:6] != _IDENT:
        msg = "it is no 64-bit little-endian ELF file"
        raise ValueError(msg)
    (at,) = struct.unpack_from("<Q", data, 32)
    row, count = struct.unpack_from("<HH", data, 54)
    segments = [_SEGMENT.unpack_from(data, at + row * one) for one in range(count)]
    loaded = [(address, offset, size) for kind, _flags, offset, address, _, size, *_ in segments if kind == _PT_LOAD]

    def place(address: int) -> int:
        for start, offset, size in loaded:
            if start <= address < start + size:
                return int(address - start + offset)
        msg = f"nothing of the file is at address {address:#x}"
        raise ValueError(msg)

    tags = _tags(data, segments)
    if _DT_SYMTAB not in tags or _DT_STRTAB not in tags:
        msg = "it has no dynamic symbols"
        raise ValueError(msg)
    return _Library(
        data=data,
        symbols=place(tags[_DT_SYMTAB]),
        texts=place(tags[_DT_STRTAB]),
        texts_size=tags.get(_DT_STRSZ, 0),
        gnu_hash=place(tags[_DT_GNU_HASH]) if _DT_GNU_HASH in tags else None,
        hash=place(tags[_DT_HASH]) if _DT_HASH in tags else None,
    )


def _tags(data: mmap.mmap, segments: list[tuple[int, ...]]) -> dict[int, int]:
    found: dict[int, int] = {}
    for kind, _flags, offset, _address, _physical, size, *_rest in segments:
        if kind != _PT_DYNAMIC:
            continue
        for at in range(offset, offset + size - _TAG.size + 1, _TAG.size):
            tag, value = _TAG.unpack_from(data, at)
            if not tag:  # DT_NULL ends it
                return found
            found.setdefault(tag, value)
    return found
