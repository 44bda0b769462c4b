"""Why two builds of the same inputs differ: the known causes, each with what was found on both sides and what cures it.

Only the stretches of a file that differ are read, in pieces and up to a bound, so that a library of any size takes little
memory and time. What is looked for are the texts that compilers and build scripts leave: times, paths, names made of process
ids and of paths. They were found by building the same code twice with nvcc 13.0 and gcc 12, in one folder and in two.
"""

from __future__ import annotations

import hashlib
import re
import struct
import time
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from builder.audit import texts
from builder.audit.signs import cause
from builder.audit.stretch import CHUNK, excerpt, first, read, windows
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from builder.audit.signs import Cause
    from builder.audit.stretch import Stretch
    from builder.audit.texts import Found

__all__ = ["DEVICE_SECTIONS", "Why", "of"]

#: Where nvcc puts device code into a host's object file.
DEVICE_SECTIONS = frozenset({".nv_fatbin", "__nv_relfatbin"})

_AR, _GZIP = b"!<arch>\n", b"\x1f\x8b"
_PYC_TIME, _PYC_HASHED = 8, 0b01
#: The end of the year 9999.
_LAST = 253402300799

#: Names that Python's tempfile, gcc and pip give to what they throw away.
_RANDOM_NAME = re.compile(rb"te?mp[\w-]{6,}|cc[A-Za-z0-9]{6}(?:\.\w+)?|pip-[\w-]+")
#: What an absolute path means by the section that it stands in.
_PATHS = {
    "line-info": (*DEVICE_SECTIONS, ".nv_debug"),
    "debug-path": (".debug_", ".zdebug_", ".symtab", ".strtab"),
    "file-macro": (".rodata", ".data", ".rdata"),
}
#: Sections that hold texts, which may come in any order.
_NAMES = frozenset({".rodata", ".data", ".data.rel.ro", ".strtab", ".dynstr"})
#: To tell an order takes a digest of each word, so it isn't looked for in more than that.
_ORDERED = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """The known causes, and the sections of which only the first `texts.LOOK` bytes that differ were looked at."""

    causes: tuple[Cause, ...] = ()
    cut: tuple[str, ...] = ()


def of(old: BinaryIO, new: BinaryIO, stretches: Sequence[Stretch], *, path: str) -> Why:
    """Return the causes that are known for what differs in two builds of the file `path`; none where none is.

    `stretches` are what differs. One cause is told once a file, where it was seen first.
    """
    if path.endswith(".pyc") and (found := _pyc(old, new)):
        return Why(causes=(found,))
    told: dict[str, Cause] = {}
    for each in _stamped(old, new):
        told.setdefault(each.id, each)
    cut = []
    for stretch in stretches:
        if texts.searched(stretch.name):
            apart = list(windows(old, new, stretch))
            for each in _in_stretch(old, new, stretch, texts.only(old, new, apart)):
                told.setdefault(each.id, each)
            if max(sum(one.old[1] for one in apart), sum(one.new[1] for one in apart)) > texts.LOOK:
                cut.append(stretch.name)
    if "archive-time" in told:
        told.pop("clock", None)  # an archive's own times are such numbers
    if not told and stretches and all(one.name == ".note.gnu.build-id" for one in stretches):
        one = stretches[0]
        told["build-id"] = cause("build-id", one.name, _build_id(old, one.old), _build_id(new, one.new))
    if not told and (order := _order(old, new, stretches)):
        told["order"] = order
    return Why(causes=tuple(told.values()), cut=tuple(cut))


def _build_id(stream: BinaryIO, span: tuple[int, int]) -> str:
    """Return the id behind the 16 bytes of the note's header."""
    return read(stream, span[0], min(span[1], 36))[16:].hex()


# --- what stands in what differs


def _in_stretch(old: BinaryIO, new: BinaryIO, stretch: Stretch, apart: Mapping[str, Found]) -> Iterator[Cause]:
    for kind, found in apart.items():
        pair = _path_pair(found) if kind == "path" else _pair(found)
        if pair is None:
            continue
        shown = tuple(
            excerpt(stream, side[text], limit=at + size) if text else ""
            for stream, side, text, (at, size) in (
                (old, found.old, pair[0], stretch.old),
                (new, found.new, pair[1], stretch.new),
            )
        )
        yield cause(_slug(kind, stretch.name, pair), stretch.name, *shown)


def _slug(kind: str, section: str, pair: tuple[bytes, bytes]) -> str:
    """Return the cause that a text of a kind means, where it stands in `section`."""
    if kind != "path":
        return {"times": "date-time", "seconds": "clock"}.get(kind, kind)
    if _temporary(*pair):
        return "temporary-path"
    for slug, sections in _PATHS.items():
        if section.startswith(sections):
            return slug
    return "build-path"


def _temporary(old: bytes, new: bytes) -> bool:
    """Whether two paths differ in a name that is another one each time."""
    one, other = old.split(b"/"), new.split(b"/")
    apart = [names for names in zip(one, other, strict=False) if names[0] != names[1]]
    return (
        len(one) == len(other)
        and bool(apart)
        and all(_RANDOM_NAME.fullmatch(name) for names in apart for name in names)
    )


def _pair(found: Found) -> tuple[bytes, bytes] | None:
    """Return the first text of each side, where both have one."""
    if not found.old or not found.new:
        return None
    return min(found.old, key=found.old.__getitem__), min(found.new, key=found.new.__getitem__)


def _path_pair(found: Found) -> tuple[bytes, bytes] | None:
    """Return two paths that end alike, else two of one folder; others have nothing to do with each other."""
    before, after = (sorted(side, key=side.__getitem__) for side in (found.old, found.new))
    for part in (2, 0):
        like: dict[bytes, bytes] = {}
        for text in after:
            like.setdefault(text.rpartition(b"/")[part], text)
        for text in before:
            if other := like.get(text.rpartition(b"/")[part]):
                return text, other
    return None


# --- stamps in known places


def _pyc(old: BinaryIO, new: BinaryIO) -> Cause | None:
    """Return the cause where only the source's time differs in the header of compiled Python (PEP 552)."""
    heads = [read(stream, 0, 16) for stream in (old, new)]
    if any(len(head) < 16 or head[4] & _PYC_HASHED for head in heads):  # noqa: PLR2004  # magic, flags, time, size
        return None
    times = [struct.unpack_from("<I", head, _PYC_TIME)[0] for head in heads]
    if times[0] == times[1]:
        return None
    return cause("pyc-time", "", *map(_moment, times))


def _stamped(old: BinaryIO, new: BinaryIO) -> Iterator[Cause]:
    """Yield the cause for archives that hold the time at which they were made: ar(5), and gzip's of RFC 1952."""
    for times in (_ar_times, _gzip_times):
        for one, other in zip(times(old), times(new), strict=False):
            if one != other:
                yield cause("archive-time", "", _moment(one), _moment(other))
                break


def _ar_times(stream: BinaryIO) -> Iterator[int]:
    """Yield the time of each member: at 16 in a header of 60 bytes, which has the size at 48."""
    at, head = len(_AR), read(stream, 0, len(_AR))
    while head == _AR:
        fields = read(stream, at, 60)
        time_, size = fields[16:28].strip(), fields[48:58].strip()
        if not time_.isdigit() or not size.isdigit():
            return
        yield int(time_)
        at += 60 + int(size) + int(size) % 2


def _gzip_times(stream: BinaryIO) -> Iterator[int]:
    head = read(stream, 0, 8)
    if head.startswith(_GZIP) and len(head) == 8:  # noqa: PLR2004  # magic, method, flags, time
        yield struct.unpack_from("<I", head, 4)[0]


def _moment(seconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(min(seconds, _LAST)))


# --- the same things in another order


def _order(old: BinaryIO, new: BinaryIO, stretches: Sequence[Stretch]) -> Cause | None:
    """Return the cause where both files hold the same lines, words or names, in another order."""
    for stretch in stretches:
        text = not stretch.name and b"\0" not in read(old, 0, CHUNK)
        if not text and stretch.name not in _NAMES:
            continue
        if stretch.old[1] != stretch.new[1] or stretch.old[1] > _ORDERED:
            continue
        apart = list(windows(old, new, stretch))
        for separator in (rb"\n", rb"\W+") if text else (rb"[^\t\x20-\x7e]+",):
            before, after = (
                _sum(stream, spans, re.compile(separator))
                for stream, spans in ((old, [one.old for one in apart]), (new, [one.new for one in apart]))
            )
            if before.any == after.any and before.row != after.row:
                at = first(old, new, stretch)
                return cause(
                    "order",
                    stretch.name,
                    excerpt(old, stretch.old[0] + at, limit=sum(stretch.old)),
                    excerpt(new, stretch.new[0] + at, limit=sum(stretch.new)),
                )
    return None


class _Sum(NamedTuple):
    """Digests of the pieces between separators: one that is the same in `any` order, one that is not."""

    any: int
    row: bytes


def _sum(stream: BinaryIO, apart: Sequence[tuple[int, int]], separator: re.Pattern[bytes]) -> _Sum:
    total, row = 0, hashlib.blake2b()
    for start, size in apart:
        rest = b""
        for at in range(start, start + size, CHUNK):
            *whole, rest = separator.split(rest + read(stream, at, min(CHUNK, start + size - at)))
            for one in (*whole, *([rest] if at + CHUNK >= start + size else [])):
                if one:
                    digest = hashlib.blake2b(one, digest_size=16).digest()
                    total = (total + int.from_bytes(digest)) % (1 << 128)
                    row.update(digest)
            rest = rest[-CHUNK:]
    return _Sum(total, row.digest())
