"""Reading for what PTX is, by the directives that a module begins with, in a file of its own or among other data.

Format: NVIDIA's PTX ISA, chapters "Syntax" and "PTX Module Directives": ``.version`` comes first and ``.target`` next, with
blanks and comments of C and C++ between; what compilers write goes on with ``.address_size``.

Each step goes on where the last one ended, so the time is linear in the length, whatever the text is.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, BinaryIO, Literal, NamedTuple

from builder.audit.facts import Image

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["HEAD", "MAGIC", "Head", "head", "module"]

#: What a search looks for; most of what begins so is no module.
MAGIC = b".version"
#: Before and between the directives there may be comments, such as a licence, of a file: no more than this, in bytes.
HEAD = 1 << 20
#: The same among other data, from ``.version`` on.
_SHORT_HEAD = 1 << 12

_BLANKS = re.compile(rb"\s*+")
_VERSION = re.compile(rb"\.version\s++(\d{1,4}\.\d{1,4})(?![\w.])")
# Its group isn't possessive: nothing follows that it could give back for, and Python before 3.11.5 keeps half a round then.
_TARGET = re.compile(rb"\.target\s++(\w++(?:\s*+,\s*+\w++)*)")
_WORD = re.compile(rb"\w++")
_SM = re.compile(rb"sm_(\d{2,3})([af]?)")
_ADDRESS_SIZE = re.compile(rb"\.address_size\s++(?:32|64)(?!\w)")
_FUNCTION = re.compile(rb"\.(?:entry|func)(?=[\s(])")

_CHUNK = 1 << 16
#: Longer than anything that is looked for.
_OVERLAP = 64


class Head(NamedTuple):
    """What the directives say: version of the ISA, SM and its letter, and where they end.

    `sm` is 0 where no target, or more than one, could be read. `sized` says whether ``.address_size`` is there as well.
    """

    version: str
    sm: int
    letter: Literal["", "a", "f"]
    sized: bool
    end: int

    def image(self, size: int) -> Image:
        """Return the image that a module of `size` bytes is."""
        kind: Literal["ptx", "unknown"] = "ptx" if self.sm else "unknown"
        return Image(kind=kind, sm=self.sm, variant=self.letter, size=size, version=self.version)


def head(text: bytes) -> Head | None:
    """Return what a module's directives say, or None where `text` doesn't begin with one."""
    at = _skipped(text, 0)
    if not (version := _VERSION.match(text, at)):
        return None
    at, targets = _skipped(text, version.end()), set()
    while target := _TARGET.match(text, at):
        # Several are allowed, and then mean what the highest of them has.
        targets |= set(_targets(target[1]))
        at = _skipped(text, target.end())
    sm, letter = targets.pop() if len(targets) == 1 else (0, "")
    size = _ADDRESS_SIZE.match(text, at)
    return Head(
        version=version[1].decode(),
        sm=sm,
        letter="a" if letter == "a" else "f" if letter == "f" else "",
        sized=bool(size),
        end=size.end() if size else at,
    )


def module(stream: BinaryIO, at: int, end: int) -> tuple[Image | None, int]:
    """Return the PTX module whose ``.version`` is at `at`, and where its text ends, before `end`.

    None for anything less than a module, such as the pieces that a generator of PTX puts together: one has ``.version``,
    ``.target`` and ``.address_size`` one after the other, and defines a function.
    """
    stream.seek(at)
    found = head(stream.read(min(_SHORT_HEAD, end - at)))
    if not found or not found.sm or not found.sized:
        return None, at + len(MAGIC)
    stop, defines = _rest(stream, at + found.end, end)
    return (found.image(stop - at) if defines else None), stop


def _targets(words: bytes) -> Iterator[tuple[int, str]]:
    for word in _WORD.findall(words):
        if sm := _SM.fullmatch(word):
            yield int(sm[1]), sm[2].decode()
        elif word.startswith(b"sm_"):
            yield 0, ""


def _skipped(text: bytes, at: int) -> int:
    """Return where the blanks and comments end that begin at `at`; a comment without an end is none."""
    while True:
        blanks = _BLANKS.match(text, at)
        at = blanks.end() if blanks else at
        opened = text[at : at + 2]
        if opened not in {b"//", b"/*"}:
            return at
        closing = b"\n" if opened == b"//" else b"*/"
        closed = text.find(closing, at + 2)
        if closed < 0:
            return at
        at = closed + len(closing)


def _rest(stream: BinaryIO, at: int, end: int) -> tuple[int, bool]:
    """Return where the text ends that goes on at `at`, by a zero byte or the next module, and if it defines a function."""
    defines, step = False, _SHORT_HEAD
    while True:
        stream.seek(at)
        data = stream.read(min(step, end - at))
        stop = data.find(b"\0")
        if following := _VERSION.search(data, 0, stop if stop >= 0 else len(data)):
            stop = following.start()
        defines = defines or bool(_FUNCTION.search(data, 0, stop if stop >= 0 else len(data)))
        if stop >= 0:
            return at + stop, defines
        if at + len(data) >= end or len(data) <= _OVERLAP:
            return at + len(data), defines
        at += len(data) - _OVERLAP
        step = min(step * 2, _CHUNK)
