"""The texts that compilers and build scripts leave in a file: which of them stand in one of two files only, and where.

Each kind is found by a pattern that begins with one fixed character, which `re` looks for at 0.3 ns a byte, where a pattern
that begins with alternatives takes 36; what has to stand before that character is looked at afterwards.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from builder.audit.stretch import pieces
from builder.values import dataclass, field

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from builder.audit.stretch import Window

__all__ = ["KINDS", "LOOK", "Found", "only", "searched"]

#: So many bytes of what differs in one section are searched, on either side. More would say the same again.
LOOK = 64 << 20
#: What is known of the other file reaches further: a text may have moved.
_MOVED = LOOK // 4

#: More different texts of one kind than that in one file are no sign of anything.
_MOST = 100_000

#: Compressed code is full of what looks like short paths.
_SHORTEST, _SHORTEST_NAME = 8, 3
#: Where nothing is built: names of devices and kernel files are parts of programs.
_NO_ROOTS = frozenset({b"dev", b"proc", b"sys"})
#: Where things are built, for paths whose other names are odd.
_ROOTS = frozenset({b"build", b"builds", b"home", b"mnt", b"opt", b"root", b"src", b"tmp", b"usr", b"var", b"work"})
_FOLDER = re.compile(rb"(?=[^/]*[A-Za-z])[\w.+-]{2,}", re.ASCII)

#: Sections of an ELF file that hold machine code, symbols by number, or numbers: no text stands there but by chance.
_NO_TEXT = frozenset(
    {
        ".text",
        ".plt",
        ".plt.got",
        ".plt.sec",
        ".iplt",
        ".init",
        ".fini",
        ".dynsym",
        ".symtab",
        ".hash",
        ".gnu.hash",
        ".gnu.version",
        ".eh_frame",
        ".eh_frame_hdr",
        ".gcc_except_table",
    }
)
_NO_TEXTS = (".text.", ".rel.", ".rela.", ".relr.")


class _Pattern(NamedTuple):
    """What is looked for, and what stands in the `length` bytes before it, which belong to the text as well."""

    text: re.Pattern[bytes]
    length: int = 0
    before: re.Pattern[bytes] = re.compile(b"")


def _pattern(text: bytes, length: int = 0, before: bytes = b"") -> _Pattern:
    return _Pattern(re.compile(text, re.ASCII), length, re.compile(before, re.ASCII | re.DOTALL))


_PATH, _SECONDS = "path", "seconds"
#: C's ``__DATE__`` and ``__TIME__`` (C11, 6.10.8.1), and ISO 8601; seconds since 1970 in a text; ids as in RFC 9562.
KINDS: Mapping[str, tuple[_Pattern, ...]] = {
    "times": (
        _pattern(rb" [ 0-3]\d \d{4}", 3, rb"Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"),
        _pattern(rb":[0-5]\d:[0-5]\d", 2, rb"\d\d"),
        _pattern(rb"-[01]\d-[0-3]\d(?:[T ]\d\d:\d\d)?", 4, rb"\d{4}"),
    ),
    _SECONDS: (_pattern(rb"1[4-9]\d{8}(?:\.\d+)?(?![0-9A-Za-z])"),),
    _PATH: (_pattern(rb"/[\w.+@~%-]+(?:/[\w.+@~%=,-]+)+"),),
    "nvcc-temporary": (_pattern(rb"tmpxft_[0-9a-f]{8}_[0-9a-f]{8}[\w.-]*"),),
    "module-id": (
        _pattern(rb"_GLOBAL__N__[0-9a-f]{8}_\d+_\w+"),
        _pattern(rb"_INTERNAL_[0-9a-f]{8}_\d+_\w+"),
        _pattern(rb"__fatbinwrap_[0-9a-f]{8}_\w+"),
        _pattern(rb"__cudaRegisterLinkedBinary_[0-9a-f]{8}_\w+"),
    ),
    "random-id": (
        _pattern(rb"-[0-9A-Fa-f]{4}-[1-5][0-9A-Fa-f]{3}-[89ABab][0-9A-Fa-f]{3}-[0-9A-Fa-f]{12}", 8, rb"[0-9A-Fa-f]{8}"),
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The texts of one kind that stand in one file only, with their places."""

    old: Mapping[bytes, int] = field(default_factory=dict)
    new: Mapping[bytes, int] = field(default_factory=dict)


def searched(section: str) -> bool:
    """Whether texts can stand in the section of that name; no name is a file without sections."""
    return section not in _NO_TEXT and not section.startswith(_NO_TEXTS)


def only(old: BinaryIO, new: BinaryIO, apart: Sequence[Window]) -> dict[str, Found]:
    """Return by kind which texts stand in the windows of one file only; of each the first `LOOK` bytes are searched."""
    spans = [one.old for one in apart], [one.new for one in apart]
    before, after = (_texts(stream, each) for stream, each in zip((old, new), spans, strict=True))
    ends = [_end(each) for each in spans]
    return {
        kind: Found(
            old={text: at for text, at in before[kind].items() if text not in after[kind] and at < ends[0]},
            new={text: at for text, at in after[kind].items() if text not in before[kind] and at < ends[1]},
        )
        for kind in KINDS
        if len(before[kind]) < _MOST and len(after[kind]) < _MOST
    }


def _texts(stream: BinaryIO, spans: Sequence[tuple[int, int]]) -> dict[str, dict[bytes, int]]:
    """Return the texts of each kind with the place of the first of each, up to `_MOST` of a kind."""
    found: dict[str, dict[bytes, int]] = {kind: {} for kind in KINDS}
    for start, size in _limited(spans, LOOK + _MOVED):
        for at, data in pieces(stream, start, size):
            for kind, patterns in KINDS.items():
                known = found[kind]
                for text, place in _in(data, kind, patterns):
                    if len(known) >= _MOST:
                        break
                    known.setdefault(text, at + place)
    return found


def _in(data: bytes, kind: str, patterns: Sequence[_Pattern]) -> Iterator[tuple[bytes, int]]:
    for text, length, before in patterns:
        for one in text.finditer(data):
            start = one.start() - length
            if length and (start < 0 or not before.fullmatch(data, start, one.start())):
                continue
            whole = data[start : one.end()]
            ahead = data[max(0, start - 1) : start]
            if (kind == _SECONDS and ahead.isalnum()) or (kind == _PATH and not _surely(whole, ahead)):
                continue
            yield whole, start


def _surely(path: bytes, before: bytes) -> bool:
    """Whether that is a path: not the tail of a relative one, longer than what random bytes make, in folders with names."""
    _none, top, *rest = path.split(b"/")
    named = top in _ROOTS or all(_FOLDER.fullmatch(name) for name in (top, rest[0]))
    return (
        not before.isalpha()
        and len(path) >= _SHORTEST
        and len(rest[-1]) >= _SHORTEST_NAME
        and named
        and top not in _NO_ROOTS
    )


def _limited(spans: Sequence[tuple[int, int]], most: int) -> Iterator[tuple[int, int]]:
    for start, size in spans:
        if most <= 0:
            return
        yield start, min(size, most)
        most -= size


def _end(spans: Sequence[tuple[int, int]]) -> int:
    """Return the place up to which `LOOK` bytes of the spans reach."""
    return max((start + size for start, size in _limited(spans, LOOK)), default=0)
