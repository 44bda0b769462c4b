"""The table of what a wheel holds: a row a library, with its device code by architecture and what the target makes of it."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from typing import TYPE_CHECKING

from builder.audit import target as targets
from builder.audit.report import counted, percent, worth_telling
from builder.recipe.units import show_bytes
from builder.ui.style import span, visible
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from builder.audit.facts import DeviceCode, File
    from builder.audit.report import Report
    from builder.audit.target import Capability, Coverage, Verdict
    from builder.ui.style import Style

__all__ = ["TIMES", "Row", "rows", "table"]

TIMES = "\N{MULTIPLICATION SIGN}"

_WORDS: dict[Verdict, tuple[str, str]] = {
    "native": ("native", "green"),
    "jit": ("by JIT", "yellow"),
    "dead": ("dead", "red"),
    "absent": ("absent", "dim"),
    "none": ("none", "dim"),
    "unknown": ("unknown", "yellow"),
}

#: What stands behind the name of an extension module.
_MODULE = re.compile(r"\.(abi3|cpython-[\w-]+)\.so$")

#: Libraries without device code have a line of their own from this size on, if they are a fiftieth of the whole.
_LARGE = 1 << 20
#: The column of device code stands beside the others where it has so many columns, else below them.
_NARROW = 24
#: Device code that takes more lines in its column goes on below the row, where lines are longer.
_LINES = 3
_GAP = "  "
_INDENT = 5
#: So many columns a name has to have at least for a table.
_SHORT = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A line of the table. `pieces` are texts that stay whole, with whether the target can use what they tell."""

    name: str
    size: str
    verdict: Verdict | None
    share: str
    pieces: tuple[tuple[str, bool], ...]


def rows(report: Report, *, every: bool) -> tuple[list[Row], int]:
    """Return the rows of the table, those with most device code first, and how many files were left out of it."""
    files = [file for file in report.contents.files if worth_telling(file)]
    names = _names([file.path for file in files])
    large = max(_LARGE, sum(file.size for file in report.contents.files) // 50)

    def weight(file: File) -> tuple[int, int]:
        return -sum(one.size for one in counted(file.device)), -file.size

    told = [file for file in sorted(files, key=weight) if every or file.size >= large or not _is_plain(file)]
    copies: dict[str, list[File]] = {}
    for file in told:
        copies.setdefault(file.sha256 or file.path, []).append(file)
    made = [_row(report, same, min((names[file.path] for file in same), key=len)) for same in copies.values()]
    return made, len(files) - len(told)


def _names(paths: Sequence[str]) -> dict[str, str]:
    """Return what each file is called: its name, with as many folders as tell it from the others."""
    named: dict[str, str] = {}
    depth, left = 1, list(paths)
    while left:
        short = {path: _MODULE.sub("", "/".join(path.split("/")[-depth:])) for path in left}
        counts = Counter(short.values())
        named |= {path: name for path, name in short.items() if counts[name] == 1 or path.count("/") < depth}
        left, depth = [path for path in left if path not in named], depth + 1
    return named


def _is_plain(file: File) -> bool:
    holds = file.device is not None and (file.device.units or file.device.unknown)
    return not (holds or file.program or file.damage)


def _row(report: Report, copies: Sequence[File], name: str) -> Row:
    """Return the line of a file, of which there may be copies."""
    file = copies[0]
    covered = report.coverage.get(file.path)
    size = len(copies) * (covered.native_bytes + covered.jit_bytes + covered.other_bytes) if covered else 0
    name = visible(name)
    return Row(
        name=name if len(copies) == 1 else f"{name} {TIMES}{len(copies)}",
        size=show_bytes(file.size),
        verdict=covered.verdict if covered and not file.program else None,
        share=percent(size, report.device_bytes) if size else "",
        pieces=tuple(_pieces(report, file)),
    )


def _pieces(report: Report, file: File) -> Iterator[tuple[str, bool]]:
    if program := file.program:
        knows = _knows(program.targets, report.target)
        told = f", {'knows' if knows else 'does not know'} {report.target}" if program.targets else ""
        yield f"CUDA {visible(program.version) or '?'}{told}", knows or not program.targets
    if reason := file.damage or (file.device.unknown if file.device else ""):
        yield f"can't be read: {visible(reason)}", False
    yield from _images(file.device, report.target)
    if covered := report.coverage.get(file.path):
        yield from _lesser(covered)


def _lesser(covered: Coverage) -> Iterator[tuple[str, bool]]:
    """Yield how many units are worse off than the verdict says: ``(6 of 91 by JIT, 4 absent)``."""
    units = (covered.native, covered.jit, covered.dead, covered.absent, covered.unknown)
    words = ("by JIT", "dead", "absent", "unknown")
    worse = [f"{number} {word}" for number, word in zip(units[1:], words, strict=True) if number]
    if covered.verdict == "native" and worse:
        yield f"({', '.join(worse).replace(' ', f' of {sum(units)} ', 1)})", True


def _images(code: DeviceCode | None, target: Capability) -> Iterator[tuple[str, bool]]:
    """Yield what a file holds by architecture: first what the target can use."""
    useful = {
        (image.kind, image.arch)
        for unit in (code.units if code else ())
        for image in unit.images
        if targets.verdict(image, target) in {"native", "jit"}
    }
    every = [(one, (one.kind, one.arch) in useful) for one in counted(code)]
    ordered = sorted(every, key=lambda pair: not pair[1])
    for (one, used), (_next, goes_on) in zip(ordered, [*ordered[1:], ordered[-1]] if ordered else [], strict=True):
        kind = {"cubin": "", "ptx": "PTX ", "lto-ir": "LTO "}.get(one.kind, "unknown ")
        parted = f"{_GAP}·" if used and not goes_on else ""
        yield f"{kind}{one.arch.partition('_')[2]} {TIMES}{one.count}{parted}", used


def _knows(names: frozenset[str], target: Capability) -> bool:
    known = {name.rstrip("a") for name in target.owns}
    return any(name.rstrip("af") in known for name in names)


def table(rows: Sequence[Row], target: str, *, style: Style, width: int) -> Iterator[str]:
    """Yield a head and the rows, in lines of at most `width` columns."""
    head = ("SIZE", f"ON {target}", "SHARE")
    cells = [(row.size, _WORDS[row.verdict][0] if row.verdict else "", row.share) for row in rows]
    columns = [at for at in range(len(head)) if any(row[at] for row in cells)]
    sizes = {at: max(len(text) for text in (head[at], *(row[at] for row in cells))) for at in columns}
    taken = 1 + sum(sizes.values()) + len(_GAP) * (len(columns) + 1)
    longest = max(span(row.name) for row in rows)
    if width - taken < min(longest, _SHORT):
        yield from _stacked(rows, cells, style, width)
        return
    wanted = max(sum(span(text) + len(_GAP) for text, _used in row.pieces) for row in rows)
    name = min(longest, max(width // 3, width - taken - wanted))
    below = width - taken - name < min(_NARROW, wanted)
    name = min(longest, width - taken) if below else name
    margin = taken + name
    titles = [f"{head[at]:<{sizes[at]}}" if at == 1 else f"{head[at]:>{sizes[at]}}" for at in columns]
    yield style.paint(
        " " + _GAP.join([f"{'FILE':<{name}}", *titles, "" if below or not wanted else "DEVICE CODE"]).rstrip(), "dim"
    )
    for row, texts in zip(rows, cells, strict=True):
        colour = _WORDS[row.verdict][1] if row.verdict else "dim"
        shown = [
            style.paint(texts[at], colour) + " " * (sizes[at] - len(texts[at]))
            if at == 1
            else f"{texts[at]:>{sizes[at]}}"
            for at in columns
        ]
        code = list(_code(row.pieces, width - margin, style))
        indent = margin
        if below or len(code) > _LINES:  # then the rest has the whole width
            indent = _INDENT
            code = list(_code(row.pieces, width - indent, style, first=0 if below else width - margin))
        yield (" " + _GAP.join([_cut(row.name, name), *shown, *code[:1]])).rstrip()
        yield from (" " * indent + line for line in code[1:])


def _stacked(rows: Sequence[Row], cells: Sequence[tuple[str, str, str]], style: Style, width: int) -> Iterator[str]:
    """Yield the rows where a line has no room for columns: what is known of a file stands below its name."""
    indent = min(_INDENT, width // 3)
    for row, texts in zip(rows, cells, strict=True):
        yield f" {_cut(row.name, max(width - 1, 1))}".rstrip()
        told = [(text, at != 1 or row.verdict == "native") for at, text in enumerate(texts) if text]
        yield from (" " * indent + line for line in _code([*told, *row.pieces], width - indent, style))


def _cut(name: str, width: int) -> str:
    """Return a name in `width` columns; its end tells more than its start."""
    short = name
    while span(short) > max(width, 1):
        short = f"…{short.removeprefix('…')[1:]}"
    return short + " " * (width - span(short))


def _code(pieces: Sequence[tuple[str, bool]], width: int, style: Style, *, first: int | None = None) -> Iterator[str]:
    """Yield `pieces` in lines of `width` columns, the first of `first`; what the target can't use is dim."""
    line: list[str] = []
    room = width if first is None else first
    for whole, useful in pieces:
        parts = textwrap.wrap(whole, max(width, 1)) if span(whole) > width else [whole]
        for text in map(str.rstrip, parts):
            if span(text) > room and (line or first is not None):
                yield _GAP.join(line)
                line, room, first = [], width, None
            line.append(text if useful else style.paint(text, "dim"))
            room -= span(text) + len(_GAP)
    if line:
        yield _GAP.join(line)
