"""How reports of the audit are shown: a table of what a wheel holds, then the findings. Pure, but for `Progress`."""

from __future__ import annotations

import contextlib
import textwrap
from collections import Counter
from typing import TYPE_CHECKING, TextIO

from builder.recipe.units import show_bytes
from builder.ui import style as styles
from builder.ui.holdings import TIMES, rows, table
from builder.ui.style import clip, visible
from builder.values import replace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from builder.audit.report import Report
    from builder.audit.rules import Finding
    from builder.ui.style import Style

__all__ = ["Progress", "finding_lines", "lines", "progress", "short"]

_MARKS = {"error": ("✘", "red"), "warning": ("▲", "yellow"), "info": ("·", "dim")}

#: Text is set in lines of so many columns at most: longer ones are hard to read.
_WIDEST = 110
#: So many files of one finding are named, unless all are asked for.
_FILES = 4
_INDENT = 5
#: Where lines are shorter than that, long words are broken: a terminal would do it in worse places. Elsewhere paths stay
#: whole, so that they can be copied.
_NARROW = 60
#: The share of a line that may be blank at its start.
_BLANK = 3


def lines(report: Report, *, style: Style, width: int, every: bool = False) -> list[str]:
    """Return a report for people, in lines of at most `width` columns; from 60 columns on longer words stay whole.

    What a terminal would act on in texts out of the wheel is spelled out.
    `every` shows what is only good to know, small libraries, and every file of a finding.
    """
    contents = report.contents
    unpacked = show_bytes(sum(file.size for file in contents.files))
    named = f"{contents.project} {contents.version}".strip() or "no wheel"
    many = f"{len(contents.files)} file{'' if len(contents.files) == 1 else 's'}"
    about = (
        f"{show_bytes(contents.size)}, {unpacked} unpacked in {many}" if contents.filename else f"{unpacked} in {many}"
    )
    shown = [
        *(style.paint(line, "bold") for line in _wrapped(named, " ", width)),
        *_wrapped(contents.filename or str(contents.where), " ", width),
        *_wrapped(about, " ", width),
    ]
    held, small = rows(report, every=every)
    if held:
        shown += ["", *table(held, str(report.target), style=style, width=width)]
    if small:
        shown += _wrapped(f"and {_count(small, 'small file')} without device code", " ", width)
    total = _wrapped(f"{report.device_line()}", " ", width)
    shown += ["", *(style.paint(line, "bold") for line in total)]
    return [*shown, "", *finding_lines(report, style=style, width=width, every=every)]


def finding_lines(report: Report, *, style: Style, width: int, every: bool = False) -> list[str]:
    """Return the findings of a report, errors first: each with what was found, why it matters, and what to do."""
    shown: list[str] = []
    notes = Counter(one.id for one in report.open if one.severity == "info")
    for group in _groups(_legible(report.open)):
        if every or group[0].severity != "info":
            shown += _finding(group, style=style, width=width, every=every)
    if notes and not every:
        text = f"· {_count(notes.total(), 'note')}: {_tally(notes)} (--all tells them)"
        shown += [style.paint(line, "dim") for line in _wrapped(text, " ", width, indent=3)]
    for group in _groups(_legible(one for one in report.findings if one.accepted)):
        files = f" {TIMES}{len(group)}" if len(group) > 1 else f" in {group[0].file}" if group[0].file else ""
        shown += _wrapped(f"· let pass: {group[0].id}{files}: {group[0].accepted}", " ", width, indent=3)
    counts = Counter[str](one.severity for one in report.open)
    told = [_count(counts[word], word) for word in ("error", "warning") if counts[word]]
    mark, colour = ("✘", "red") if report.refused else ("✔", "green")
    words = f"{'refused' if report.refused else 'not refused'}{': ' if told else ''}{', '.join(told)}"
    first, *more = _wrapped(f"{mark} {words}", " ", width, indent=3)
    last = f" {style.paint(mark, colour)} {style.paint(first.removeprefix(f' {mark} '), 'bold')}"
    return [*shown, last, *(style.paint(line, "bold") for line in more)]


def short(finding: Finding, filename: str) -> str:
    """Return a finding in one line."""
    return visible(f"{finding.file or filename}: {' '.join(finding.found.split())} ({finding.id})")


def _legible(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings whose file names are one line each; the longer texts become so where they are wrapped."""
    return [replace(one, file=visible(one.file)) for one in findings]


def _groups(findings: Sequence[Finding]) -> list[list[Finding]]:
    """Return findings with those together that differ in nothing but the file, what was found and what was wanted."""
    grouped: dict[tuple[str, ...], list[Finding]] = {}
    for one in findings:
        grouped.setdefault((one.id, one.severity, one.why, one.help, one.accepted), []).append(one)
    return list(grouped.values())


def _finding(group: Sequence[Finding], *, style: Style, width: int, every: bool) -> Iterator[str]:
    first = group[0]
    mark, colour = _MARKS[first.severity]
    place = f"  {len(group)} files" if len(group) > 1 else f"  {first.file}" if first.file else ""
    title, *more = _wrapped(f"{mark} {first.id}{place}", " ", width, indent=3)
    start = f" {mark} {first.id}"
    painted = f" {style.paint(mark, colour)} {style.paint(first.id, 'bold')}"
    yield title.replace(start, painted, 1)
    yield from more
    margin = " " * _INDENT
    same = len({one.wanted for one in group}) == 1
    if len(group) == 1:
        yield from _told("found", first.found, width)
    else:
        shown = group if every or len(group) <= _FILES + 1 else group[:_FILES]
        for one in shown:
            told = f"{one.file}: {one.found}" if one.file else one.found
            yield from _wrapped(
                told if same or not one.wanted else f"{told}; wanted {one.wanted}", margin, width, indent=_INDENT + 4
            )
        if len(group) > len(shown):
            yield from _wrapped(f"… and {len(group) - len(shown)} more (--all names them)", margin, width)
    if same:
        yield from _told("wanted", first.wanted, width)
    yield from _told("why", first.why, width)
    yield from _told("fix", first.help, width)


def _told(word: str, text: str, width: int) -> Iterator[str]:
    if text:
        yield from _wrapped(f"{word:<8}{text}", " " * _INDENT, width, indent=_INDENT + 8)


def _wrapped(text: str, start: str, width: int, *, indent: int | None = None) -> list[str]:
    room = max(min(width, _WIDEST), 1)
    start = start[: room // _BLANK]
    margin = start if indent is None else " " * min(indent, room // _BLANK)
    head, *rest = map(visible, text.splitlines() or [""])
    wrap = textwrap.TextWrapper(room, break_long_words=room < _NARROW, break_on_hyphens=False, subsequent_indent=margin)
    wrap.initial_indent = start
    found = wrap.wrap(head)
    wrap.initial_indent = margin
    found += [line for more in rest for line in wrap.wrap(more)]
    return [line.rstrip() for line in found]


def _tally(notes: Counter[str]) -> str:
    return ", ".join(f"{slug} {TIMES}{count}" if count > 1 else slug for slug, count in notes.items())


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


@contextlib.contextmanager
def progress(
    stream: TextIO, env: Mapping[str, str], clock: Callable[[], float], color: str = "auto"
) -> Iterator[Callable[[str], None]]:
    """Give what takes note of what is done now; what it drew on a terminal is gone afterwards."""
    drawn = Progress(stream, styles.of(stream, env, color), clock, styles.columns(stream))
    try:
        yield drawn.tell
    finally:
        drawn.done()


class Progress:
    """Tells on a stream what is read, when it takes long: on a terminal in one line, which goes when it is done."""

    FIRST_S, EVERY_S, LIVE_S = 2.0, 5.0, 0.2

    def __init__(self, stream: TextIO, style: Style, clock: Callable[[], float], width: int) -> None:
        self._stream, self._style, self._clock, self._width = stream, style, clock, width
        self._next = clock() + self.FIRST_S
        self._drawn = False

    def tell(self, text: str) -> None:
        """Take note of what is done now; shown only where enough time has passed."""
        now = self._clock()
        if now < self._next:
            return
        self._next = now + (self.LIVE_S if self._style.live else self.EVERY_S)
        text = clip(visible(text), self._width - 1)
        self._stream.write(f"\r\x1b[K{self._style.fit(text)}" if self._style.live else f"{self._style.fit(text)}\n")
        self._stream.flush()
        self._drawn = self._style.live

    def done(self) -> None:
        """Leave nothing behind on a terminal."""
        if self._drawn:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._drawn = False
