r"""Reading one container of a fat binary, from its headers alone.

The layout is NVIDIA's own and undocumented. All numbers are little-endian, all offsets in bytes. How each was established
is in brackets: [m] by compiling one kernel for 80, 90a, 12.0 and 12.1 (plain, ``a``, ``f``, PTX) with one thing changed at
a time, by nvcc 13.0.88 and 13.5.37; [12] the same images packed by nvFatbin 12.9.82; [c] by comparing with what
``cuobjdump`` 13.5 prints for it.

A section (``.nv_fatbin`` for linked code, ``__nv_relfatbin`` for relocatable code of ``-rdc=true`` [m]) holds containers one
after the other at multiples of 8, with zeros between them [m]. A file of ``nvcc -fatbin`` is a container without a section.

    ======== ====  =======================================================================================
    container      16 bytes
    ======== ====  =======================================================================================
    +0       u32   0xBA55ED50
    +4       u16   1 (layout)
    +6       u16   16 (length of this header)
    +8       u64   length of the entries behind it
    ======== ====  =======================================================================================

    ======== ====  =======================================================================================
    entry          64 bytes, then texts, then the payload
    ======== ====  =======================================================================================
    +0       u16   kind: 1 PTX, 2 cubin, 8 LTO-IR [m: ``code=lto_121a``], 0x80 Tile IR [m: ``--enable-tile``; taken for
                   unknown, as nothing is known about which driver takes it], 0x100 a group, see below [m: ``--concat``, c]
    +2       u16   0x0101
    +4       u32   length of this header with the texts, a multiple of 8; the payload follows
    +8       u64   length of the payload as stored, with padding; a multiple of 8
    +16      u32   length of the payload when compressed, without padding; else 0
    +20      u32   where two u32 lie: place and length of options (PTX, LTO-IR: the compiler's; cubin for 10.0 and up: a
                   copy of its ``.nv.compat``); 0 for none [m]
    +24      u16   minor \ PTX: version of the PTX ISA, 9.0 of nvcc 13.0, 9.5 of 13.5 [m]. cubin: ABI, 1.7 (CUDA 12 for chips
    +26      u16   major / below 10.0) or 1.8, which ``cuobjdump`` calls code version [12, c]. LTO-IR: 1.65, 1.67. Never the
                   toolkit's
    +28      u32   SM: 121
    +32      u32   \ place and length of the source file's name, with ``-G`` or ``-lineinfo`` [m]
    +36      u32   /
    +40      u64   flags: bit 0 64-bit, 1 debug (``-G``), 4 Linux, 13 compressed by lz4 (``--compress-mode=speed``, and all
                   of CUDA 12), 15 by zstd (the others of CUDA 13), 12 in another way (by public readers of older files;
                   not seen), 16 LTO-IR, 20 ``a``, 21 ``f``, 24 of cubins for 10.0 and
                   up with intermediate code of their own (``.nv.capmerc``) [m]
    +56      u64   length of the payload unpacked, if compressed
    ======== ====  =======================================================================================

Texts end in a zero byte, then comes padding to a multiple of 8. ``--compress-mode=none`` and ``--no-compress`` write the
same; without either, nvcc compresses PTX, debug code and relocatable code and leaves other cubins as they are [m].

A group (seen from nvcc 13.5 with ``--concat``) packs several images into one payload. At +64 of its header are two u32, the
number of images and the length of this index with these 8 bytes; then an entry's header for each, with its texts, where +4
is the place in the unpacked payload and +8 the unpacked length. The group's own SM is 0.

Nothing here is guessed: another kind, magic, length or flag is a doubt, beside whatever could be read.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, BinaryIO, Literal, NamedTuple

from builder.audit.facts import Image

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MAGIC", "START", "Container", "read"]

MAGIC = b"\x50\xed\x55\xba"
_VERSION, _ENTRY_VERSION = 1, 0x0101
_CONTAINER = struct.Struct("<4sHHQ")
#: How every container of the one known layout begins.
START = _CONTAINER.pack(MAGIC, _VERSION, _CONTAINER.size, 0)[:8]
_ENTRY = struct.Struct("<HHIQIIHHIIIQQQ")
_PAIR = struct.Struct("<II")
_PTX, _CUBIN, _LTO, _TILE, _GROUP = 1, 2, 8, 0x80, 0x100
_KINDS: dict[int, Literal["cubin", "ptx", "lto-ir"]] = {_PTX: "ptx", _CUBIN: "cubin", _LTO: "lto-ir"}
_COMPRESSED = 1 << 12 | 1 << 13 | 1 << 15
_ACCELERATED, _FAMILY = 1 << 20, 1 << 21
#: Bits 16 to 31 say for what the code is; a bit there that isn't known may be a new letter behind the SM number.
_CODE_BITS, _KNOWN_CODE_BITS = 0xFFFF0000, 1 << 16 | _ACCELERATED | _FAMILY | 1 << 24
_LOWEST_SM, _HIGHEST_SM = 10, 999
#: More than any compiler writes; what is above is damage, and would only cost time and memory.
_LONGEST_HEADER = 1 << 20
_MOST_IMAGES = 1 << 16


class Container(NamedTuple):
    """A container's images, where it ends, and what couldn't be read, as texts.

    `end` is None where that isn't known; `whole` is False where the file, or the section, ends before it does.
    """

    images: tuple[Image, ...] = ()
    end: int | None = None
    whole: bool = False
    doubts: tuple[str, ...] = ()


def read(stream: BinaryIO, at: int, end: int) -> Container:
    """Return the container that lies at `at`, with all that could be read of it before `end`."""
    header = _bytes(stream, at, min(_CONTAINER.size, end - at))
    if len(header) < _CONTAINER.size or not header.startswith(MAGIC):
        return Container(doubts=(f"no container at {at}: {header[:8].hex()}",))
    _, version, length, size = _CONTAINER.unpack(header)
    if not header.startswith(START):
        return Container(doubts=(f"a container of layout {version} with a header of {length} bytes at {at}",))
    stop = min(at + length + size, end)
    images, doubts = _read_entries(stream, at + length, stop)
    if stop < at + length + size:
        doubts.append(f"a container of {size} bytes at {at}, where {end - at - length} are left")
        return Container(images=tuple(images), doubts=tuple(doubts))
    return Container(images=tuple(images), end=stop, whole=True, doubts=tuple(doubts))


def _bytes(stream: BinaryIO, offset: int, size: int) -> bytes:
    stream.seek(offset)
    return stream.read(size)


class _Entry(NamedTuple):
    """An entry's header. In a group's index `header` is the place in the payload, and `size` the unpacked length."""

    kind: int
    version: int
    header: int
    size: int
    packed: int
    options: int
    minor: int
    major: int
    sm: int
    name: int
    name_size: int
    flags: int
    zero: int
    unpacked: int


def _read_entries(stream: BinaryIO, start: int, end: int) -> tuple[list[Image], list[str]]:
    """Return the images between `start` and `end`, and what couldn't be read."""
    images: list[Image] = []
    doubts: list[str] = []
    at = start
    while at < end:
        header = _bytes(stream, at, min(_ENTRY.size, end - at))
        if len(header) < _ENTRY.size:
            doubts.append(f"{len(header)} bytes at {at}, too few for an entry")
            break
        entry = _Entry._make(_ENTRY.unpack(header))
        if wrong := _wrong(entry, end - at):
            doubts.append(f"an entry at {at}: {wrong}")
            break
        if len(images) > _MOST_IMAGES:
            doubts.append(f"more than {_MOST_IMAGES} images in one container")
            break
        found, wrong = _group(_bytes(stream, at, entry.header), entry) if entry.kind == _GROUP else _single(entry)
        images += found
        if wrong:
            doubts.append(f"an entry at {at}: {wrong}")
        at += entry.header + entry.size
    return images, doubts


def _wrong(entry: _Entry, left: int) -> str:
    """Return why the reading can't go on behind `entry`, which has `left` bytes; empty when it can."""
    if entry.version != _ENTRY_VERSION:
        return f"layout {entry.version:#06x}"
    if not _ENTRY.size <= entry.header <= _LONGEST_HEADER or entry.header % 8:
        return f"a header of {entry.header} bytes"
    if entry.size % 8 or entry.header + entry.size > left:
        return f"{entry.header} + {entry.size} bytes, where {left} are left"
    if entry.flags & _COMPRESSED and entry.packed > entry.size:
        return f"{entry.packed} compressed bytes in {entry.size}"
    return ""


def _single(entry: _Entry) -> tuple[list[Image], str]:
    image, wrong = _image(entry, size=entry.size, compressed=bool(entry.flags & _COMPRESSED))
    return [image], wrong


def _image(entry: _Entry, *, size: int, compressed: bool) -> tuple[Image, str]:
    """Return the image, and what isn't known of it."""
    kind = _KINDS.get(entry.kind)
    variant: Literal["", "a", "f"] = "a" if entry.flags & _ACCELERATED else "f" if entry.flags & _FAMILY else ""
    version = f"{entry.major}.{entry.minor}" if kind == "ptx" else ""
    wrong = ""
    if kind is None:
        wrong = "Tile IR" if entry.kind == _TILE else f"kind {entry.kind:#x}"
    elif not _LOWEST_SM <= entry.sm <= _HIGHEST_SM:
        wrong = f"SM {entry.sm}"
    elif entry.flags & _CODE_BITS & ~_KNOWN_CODE_BITS or (entry.flags & _ACCELERATED and entry.flags & _FAMILY):
        wrong = f"flags {entry.flags:#x}"
    image = Image(
        kind=kind if kind and not wrong else "unknown",
        sm=entry.sm,
        variant=variant,
        size=size,
        compressed=compressed,
        version=version,
    )
    return image, wrong


def _group(index: bytes, group: _Entry) -> tuple[list[Image], str]:
    """Return the images of a group. Of its payload each gets the share that its unpacked length has in all of them."""
    members = list(_members(index))
    whole = [one for one in members if one is not None]
    total = sum(one.size for one in whole) or 1
    compressed = bool(group.flags & _COMPRESSED)
    found = [_image(one, size=group.size * one.size // total, compressed=compressed) for one in whole]
    wrong = "a group whose index doesn't fit" if len(whole) < len(members) else ""
    return [image for image, _ in found], wrong or next((wrong for _, wrong in found if wrong), "")


def _members(index: bytes) -> Iterator[_Entry | None]:
    """Yield the headers in a group's header; None at last when they don't fill it."""
    if len(index) < _ENTRY.size + _PAIR.size:
        yield None
        return
    count, size = _PAIR.unpack_from(index, _ENTRY.size)
    at = _ENTRY.size + _PAIR.size
    for _ in range(count):
        if at + _ENTRY.size > len(index):
            break
        entry = _Entry._make(_ENTRY.unpack_from(index, at))
        if entry.version != _ENTRY_VERSION or entry.kind == _GROUP:
            break
        yield entry
        at += _header_size(entry, index[at:])
    else:
        if count and at == len(index) == _ENTRY.size + size:
            return
    yield None


def _header_size(entry: _Entry, data: bytes) -> int:
    """Return how long a header is with its texts, for one that doesn't say; more than `data` has where that doesn't fit."""
    end = _ENTRY.size
    if entry.name:
        end = max(end, entry.name + entry.name_size + 1)
    if entry.options:
        if entry.options + _PAIR.size > len(data):
            return len(data) + 1
        place, size = _PAIR.unpack_from(data, entry.options)
        end = max(end, entry.options + _PAIR.size, place + size + 1)
    return -(-end // 8) * 8
