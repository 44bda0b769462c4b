"""A stretch of two files that differs, read in pieces: the files may be larger than memory."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["CHUNK", "Stretch", "Window", "differs", "excerpt", "first", "first_difference", "pieces", "read", "windows"]

CHUNK = 1 << 16

#: What is read around bytes that differ, so that a text that begins before them is seen whole.
_MARGIN = 512

#: How much of a text is shown before a place, and from there on.
_BEFORE, _AFTER = 64, 256

_PRINTABLE = re.compile(rb"[\t\x20-\x7e]{4,}")


class Stretch(NamedTuple):
    """What differs: a section of both files by name, or all of them (no name), as offset and size of each."""

    name: str
    old: tuple[int, int]
    new: tuple[int, int]


class Window(NamedTuple):
    """A piece of a stretch with bytes that differ, and a margin of equal ones."""

    old: tuple[int, int]
    new: tuple[int, int]


def differs(old: BinaryIO, new: BinaryIO, stretch: Stretch) -> bool:
    """Whether the bytes of a stretch differ."""
    return stretch.old[1] != stretch.new[1] or next(windows(old, new, stretch), None) is not None


def windows(old: BinaryIO, new: BinaryIO, stretch: Stretch) -> Iterator[Window]:
    """Yield what differs in pieces: of stretches of one size each run of chunks, else all between the equal ends."""
    (at_old, size_old), (at_new, size_new) = stretch.old, stretch.new
    if size_old == size_new:
        run: list[int] = []
        for at in (*range(0, size_old, CHUNK), None):
            if at is not None and read(old, at_old + at, min(CHUNK, size_old - at)) != read(
                new, at_new + at, min(CHUNK, size_old - at)
            ):
                run.append(at)
            elif run:
                start, end = max(0, run[0] - _MARGIN), min(size_old, run[-1] + CHUNK + _MARGIN)
                yield Window((at_old + start, end - start), (at_new + start, end - start))
                run = []
        return
    size = min(size_old, size_new)
    head = max(0, first(old, new, stretch) - _MARGIN)
    tail = 0
    while tail + CHUNK <= size - head and read(old, at_old + size_old - tail - CHUNK, CHUNK) == read(
        new, at_new + size_new - tail - CHUNK, CHUNK
    ):
        tail += CHUNK
    tail = max(0, tail - _MARGIN)
    yield Window((at_old + head, size_old - head - tail), (at_new + head, size_new - head - tail))


def pieces(stream: BinaryIO, start: int, size: int) -> Iterator[tuple[int, bytes]]:
    """Yield a window in pieces that overlap, so that no text is cut in two everywhere."""
    step = 16 * CHUNK
    for at in range(start, start + size, step):
        yield at, read(stream, at, min(step + _MARGIN, start + size - at))


def first_difference(old: BinaryIO, new: BinaryIO, stretch: Stretch) -> tuple[int, str, str]:
    """Return where in the stretch the first byte differs, and what stands there on both sides."""
    at = first(old, new, stretch)
    return (
        at,
        excerpt(old, stretch.old[0] + at, limit=sum(stretch.old)),
        excerpt(new, stretch.new[0] + at, limit=sum(stretch.new)),
    )


def first(old: BinaryIO, new: BinaryIO, stretch: Stretch) -> int:
    """Return where in a stretch the first byte differs: the smaller size, where one side goes on."""
    size = min(stretch.old[1], stretch.new[1])
    for at in range(0, size, CHUNK):
        pair = [
            read(stream, start + at, min(CHUNK, size - at))
            for stream, (start, _size) in ((old, stretch.old), (new, stretch.new))
        ]
        if pair[0] != pair[1]:
            return at + _common(*pair)
    return size


def _common(one: bytes, other: bytes) -> int:
    """Return how many bytes two pieces share at their beginning."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[:middle] == other[:middle] else (low, middle - 1)
    return low


def excerpt(stream: BinaryIO, at: int, *, limit: int) -> str:
    """Return the readable text around the place `at`, else its bytes in hex; nothing is read from `limit` on."""
    start = max(0, at - _BEFORE)
    data = read(stream, start, min(limit, at + _AFTER) - start)
    for run in _PRINTABLE.finditer(data):
        if run.start() <= at - start < run.end():
            return run[0].decode("ascii").strip()
    return data[at - start : at - start + 16].hex(" ")


def read(stream: BinaryIO, at: int, size: int) -> bytes:
    """Return `size` bytes from the place `at` on, or as many as there are."""
    stream.seek(at)
    return stream.read(max(0, size))
