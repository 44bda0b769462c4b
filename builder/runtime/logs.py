"""Known failures in what a server printed: container engines', compose's and systemd's own beginnings of lines don't matter.

A log may be of any length and hold anything: it is read once, and little of it is kept.
"""

from __future__ import annotations

import codecs
import re
from typing import TYPE_CHECKING

from builder.errors import Interrupted, UsageError
from builder.executor.diagnosis import filled
from builder.executor.excerpt import plain
from builder.runtime import known, siblings
from builder.runtime.literal import literal
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from io import BufferedIOBase

    from builder.executor.diagnosis import Diagnosis
    from builder.executor.failures import Failure
    from builder.host.checks import Finding

__all__ = ["Log", "Seen", "finding", "read"]

#: What stands before a line: compose's service, journald's host and unit, time stamps, vLLM's process, level and place.
_BEGINNING = re.compile(
    r"""^(?:
      [\w.-]+\s+\|\s                                                     # compose
    | \w{3}\ [ \d]\d\ [\d:]{8}\ \S+\ \S+?(?:\[\d+\])?:\s                 # journald
    | \[?\d{4}-\d\d-\d\d[T ][\d:.,]+(?:Z|[+-]\d\d:?\d\d)?\]?\s           # ISO 8601
    | \((?:[\w =]+\ )?pid=\d+\)\s                                         # vLLM, Ray
    | (?:DEBUG|INFO|WARNING|ERROR|CRITICAL)\ \d\d-\d\d\ [\d:]{8}\ \[[^]]*\]\s?
    )+""",
    re.VERBOSE,
)

#: Packages whose files stand in a trace, and the recipe that builds them.
_FRAME = re.compile(r"\b(vllm|flashinfer|flashinfer_jit_cache|triton)/\S+\.(?:py|so)\b")
_RECIPES = {"flashinfer_jit_cache": "flashinfer"}

#: How many lines a trace is long: further above is another one.
_TRACE = 80

#: Longer lines hold data, not messages.
_LONGEST = 4000
_BLOCK = 1 << 16

#: How many lines are read between two looks at the clock.
_TOLD_EVERY = 5000

#: What the last words of an exception have in them, and the path of a frame: few lines do.
_SAYS_EXCEPTION = ("Error", "Exception", "Exit", "Interrupt")
_SAYS_FRAME = (".py", ".so")

_GZIP = b"\x1f\x8b"
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

_EXCEPTION = re.compile(r"^(?:[a-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Exit|Interrupt)\b(?::|$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A known failure: the number of its first line, from 1, that line without its beginning, and what is known about it."""

    number: int
    line: str
    diagnosis: Diagnosis


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """What a log tells: its number of lines, the known failures in their order, the last exception of all (may be empty).

    `interrupted` is what stopped it before its end, if anything did.
    """

    lines: int
    seen: tuple[Seen, ...]
    exception: str = ""
    interrupted: Interrupted | None = None


def read(stream: BufferedIOBase, named: Mapping[str, str], tell: Callable[[str], None] = lambda _text: None) -> Log:
    """Return the known failures of a log, each once. `named` fills the places of their texts (`known.places`).

    The recipe is taken from the paths in the trace above the line, where it has any. A signal ends the log there. Raises
    UsageError ``log-compressed``.
    """
    reading = _Reading(named)
    interrupted = None
    try:
        for number, raw in _lines(stream):
            if number % _TOLD_EVERY == 0:
                tell(f"{number} lines read")
            reading.take(number, raw)
    except Interrupted as error:
        interrupted = error
    return Log(
        lines=reading.count,
        seen=tuple(reading.found.values()),
        exception=reading.exception,
        interrupted=interrupted,
    )


class _Reading:
    """What is known of a log up to a line."""

    def __init__(self, named: Mapping[str, str]) -> None:
        self._named = named
        self._catalogue = known.catalogue()
        patterns = [pattern.pattern for entry in self._catalogue for pattern in entry.signature]
        self._literals = tuple(dict.fromkeys(literal(one) for one in patterns))
        self._recipe, self._since = "", 0
        self.count, self.exception = 0, ""
        self.found: dict[str, Seen] = {}

    def take(self, number: int, raw: str) -> None:
        """Take note of a line. Most hold nothing of interest: to search each for all patterns takes ten times as long."""
        self.count = number
        text = plain([raw])[0] if "\x1b" in raw else raw
        if _holds(text, _SAYS_FRAME) and (frame := _FRAME.search(text)):
            self._recipe, self._since = frame[1], number
        failed = _holds(text, self._literals)
        if not failed and not _holds(text, _SAYS_EXCEPTION):
            return
        line = _BEGINNING.sub("", text).rstrip()
        if _EXCEPTION.match(line):
            self.exception = line
        if failed and (seen := _seen(line, number, self._catalogue, self._places(number))):
            self.found.setdefault(seen.diagnosis.id, seen)

    def _places(self, number: int) -> Mapping[str, str]:
        near = self._recipe if number - self._since <= _TRACE else ""
        return {**self._named, **({"recipe": _RECIPES.get(near, near)} if near else {})}


def finding(seen: Seen) -> Finding:
    """Return what is shown of it."""
    quoted = seen.line if len(seen.line) <= 300 else seen.line[:299] + "…"  # noqa: PLR2004  # some lines of a terminal
    return known.of(
        seen.diagnosis,
        check=f"line {seen.number}",
        found=f"{seen.diagnosis.summary}\n{quoted}",
        status="warn" if siblings.TOLERANT in seen.line else "problem",
    )


def _lines(stream: BufferedIOBase) -> Iterator[tuple[int, str]]:
    """Yield lines with their numbers, from 1. One that was drawn over with carriage returns comes in as many parts.

    Of each the first `_LONGEST` bytes: no more is kept of a line that never ends.
    """
    number, rest, decoder = 1, b"", None
    block = stream.read1(_BLOCK)
    if block.startswith(_GZIP):
        raise UsageError(
            "log-compressed",
            "the log is compressed",
            help="unpack it on the way",
            run=("zcat LOG | spark-build doctor --log -",),
        )
    if block.startswith(_UTF_16):  # as PowerShell writes what it is told to redirect
        decoder = codecs.getincrementaldecoder("utf-16")(errors="replace")
    while block:
        data = decoder.decode(block).encode() if decoder else block
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            yield from ((number, _text(part)) for part in line.split(b"\r") if part)
            number += 1
        *drawn, rest = rest.split(b"\r")
        yield from ((number, _text(part)) for part in drawn if part)
        rest = rest[:_LONGEST]
        block = stream.read1(_BLOCK)
    if rest:
        yield number, _text(rest)


def _holds(text: str, any_of: Iterable[str]) -> bool:
    for one in any_of:  # noqa: SIM110  # a generator takes twice as long
        if one in text:
            return True
    return False


def _text(line: bytes) -> str:
    return line[:_LONGEST].decode(errors="replace")


def _seen(line: str, number: int, catalogue: Sequence[Failure], places: Mapping[str, str]) -> Seen | None:
    for entry in catalogue:
        for pattern in entry.signature:
            if match := pattern.search(line):
                groups = {key: value or "" for key, value in match.groupdict().items()}
                return Seen(number=number, line=line, diagnosis=filled(entry, {**places, **groups}, line))
    return None
