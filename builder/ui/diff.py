"""How two wheels that were held against each other are shown. Pure.

What stands in a wheel is a stranger's: it goes through `visible` before it gets its place in a line.
"""

from __future__ import annotations

import textwrap
from itertools import takewhile
from typing import TYPE_CHECKING

from builder.audit.texts import LOOK
from builder.recipe.units import show_bytes
from builder.ui.style import clip, visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from builder.audit.change import FileChange
    from builder.audit.compare import Comparison, HeaderChange, ZipChange
    from builder.audit.signs import Cause
    from builder.ui.style import Style

__all__ = ["Code", "lines", "verdict"]

#: How many files, and how many sections of one, are named where not all are asked for.
_FILES, _SECTIONS, _HEADERS = 20, 6, 12

#: Images and bytes of device code by architecture (``sm_121a``).
Code = dict[str, tuple[int, int]]

_MARKS = {"added": ("+", "green"), "removed": ("-", "red"), "changed": ("~", "yellow")}
_HALVES = {
    ("equal", "differs"): "device code equal, host code differs",
    ("differs", "equal"): "device code differs, host code equal",
    ("differs", "differs"): "device code and host code differ",
    ("equal", "equal"): "device code and host code equal, only what is around them differs",
    ("unknown", "differs"): "device code can't be read, host code differs",
    ("unknown", "equal"): "device code can't be read",
}
_ZIP = {
    "order": "members stand in another order",
    "times": "members have other times",
    "modes": "members have other permissions",
    "compression": "members are compressed in another way",
    "deflate": "another deflate library packed it",
    "record": "RECORD is written in another way",
    "other": "the zip's own records differ",
}


def lines(
    found: Comparison,
    *,
    style: Style,
    width: int,
    reasons: Sequence[str] | None = None,
    code: tuple[Code, Code] | None = None,
    every: bool = False,
) -> Iterator[str]:
    """Yield the comparison: inputs (`reasons`, None where they aren't known), files, device code, metadata, zip, size."""
    if found.identical:
        yield f"the same, bit by bit  sha256 {found.new.sha256}"
        return
    if reasons:
        yield from _block("inputs", [visible(text) for text in reasons], style)
    elif reasons is not None:
        yield f"{style.paint('inputs', 'bold')}  the same"
    yield from _files(found.files, style, width, every=every)
    yield from _block("device code", list(_code(*code)) if code else (), style)
    headers = [text for one in found.headers for text in _header(one, width)]
    if not every and len(headers) > _HEADERS:
        headers[_HEADERS:] = [f"and {len(headers) - _HEADERS} more: --all"]
    yield from _block("metadata", headers, style)
    yield from _block("zip", [_zip(one) for one in found.archive], style)
    for each in found.causes:
        yield from _cause(each, style, width, indent=2)
    yield f"{style.paint('size', 'bold')}  {_sizes(found.old.size, found.new.size)}"


def verdict(found: Comparison) -> str:
    """Return in a few words what differs: device code apart from host code where there is any."""
    if found.identical:
        return "the same, bit by bit"
    if not found.files and not found.headers:
        return "the same contents, packed otherwise"
    changed = [one for one in found.files if one.kind == "changed"]
    words = []
    if found.files:
        words.append(
            f"{len(found.files)} file{'' if len(found.files) == 1 else 's'} differ{'s' if len(found.files) == 1 else ''}"
        )
    if found.headers:
        words.append("metadata differs")
    if any(one.device for one in changed):
        host = "differs" if any(one.host != "equal" for one in changed) else "equal"
        words.append(_HALVES[found.device, host])
    return ", ".join(words)


def _block(head: str, rows: Sequence[str], style: Style) -> Iterator[str]:
    if rows:
        yield style.paint(head, "bold")
        yield from (f"  {row}" for row in rows)


def _files(files: Sequence[FileChange], style: Style, width: int, *, every: bool) -> Iterator[str]:
    if not files:
        return
    counts = {kind: sum(one.kind == kind for one in files) for kind in _MARKS}
    yield style.paint("files", "bold") + "  " + ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
    shown = files if every else sorted(files, key=lambda one: -abs((one.new or 0) - (one.old or 0)))[:_FILES]
    for one in sorted(shown, key=lambda one: one.path):
        mark, colour = _MARKS[one.kind]
        yield f"  {style.paint(mark, colour)} {visible(one.path)}  {_size_of(one)}"
        for text in _details(one):
            yield f"      {clip(visible(text), max(20, width - 6))}"
        for each in one.causes:
            yield from _cause(each, style, width, indent=6)
    if len(shown) < len(files):
        yield f"  and {len(files) - len(shown)} more: --all"


def _size_of(one: FileChange) -> str:
    if one.old is None or one.new is None:
        return show_bytes(one.old if one.new is None else one.new)  # type: ignore[arg-type]  # one of them is there
    return show_bytes(one.new) if one.old == one.new else _sizes(one.old, one.new)


def _sizes(old: int, new: int) -> str:
    if old == new:
        return f"{show_bytes(old)}, the same"
    sign = "+" if new > old else "-"
    return f"{show_bytes(old)} → {show_bytes(new)} ({sign}{show_bytes(abs(new - old))})"


def _details(one: FileChange) -> Iterator[str]:
    if one.device:
        yield _HALVES.get((one.device, one.host), f"device code {one.device}")
    if one.parts:
        names = [part.name for part in one.parts]
        more = f" and {len(names) - _SECTIONS} more" if len(names) > _SECTIONS else ""
        yield f"sections: {' '.join(names[:_SECTIONS])}{more}"
    if one.cut:
        yield f"looked for causes in the first {show_bytes(LOOK)} only of {' '.join(one.cut).strip() or 'what differs'}"
    if one.at and not one.causes and one.kind == "changed":
        section, at, old, new = one.at
        yield f"first at {section + '+' if section else ''}{at:#x}: {old} → {new}"


def _cause(one: Cause, style: Style, width: int, *, indent: int) -> Iterator[str]:
    pad, where = " " * indent, f" in {visible(one.where)}" if one.where else ""
    yield f"{pad}{style.paint(one.id, 'yellow')}{where}"
    for name, text in zip(
        ("was", "is"), _apart(visible(one.old), visible(one.new), max(20, width - indent - 7)), strict=True
    ):
        yield f"{pad}  {name:<4} {text or 'nothing like it'}"
    key = f" ({one.key})" if one.key else ""
    for name, text in (("why", one.why), ("cure", one.cure + key)):
        first, *rest = textwrap.wrap(text, max(30, width - indent - 7), break_on_hyphens=False)
        yield f"{pad}  {name:<4} {first}"
        yield from (f"{pad}       {line}" for line in rest)


def _apart(old: str, new: str, room: int) -> tuple[str, str]:
    """Return two texts in `room` columns each, cut at the front where what they share would push out the difference."""
    shared = sum(1 for _both in takewhile(lambda both: both[0] == both[1], zip(old, new, strict=False)))
    start = max(0, shared - room // 3) if max(len(old), len(new)) > room else 0
    front = "…" if start else ""
    return clip(front + old[start:], room) if old else "", clip(front + new[start:], room) if new else ""


def _code(old: Mapping[str, tuple[int, int]], new: Mapping[str, tuple[int, int]]) -> Iterator[str]:
    for arch in sorted(old.keys() | new.keys(), key=_by_number):
        before, after = old.get(arch, (0, 0)), new.get(arch, (0, 0))
        if before == after:
            yield f"{visible(arch):<14} {_images(after)}, the same"
        else:
            yield f"{visible(arch):<14} {_images(before)} → {_images(after)}"


def _by_number(arch: str) -> tuple[str, int, str]:
    kind, _bar, number = arch.partition("_")
    digits = number.rstrip("af")
    return kind, int(digits) if digits.isdigit() else 0, number


def _images(one: tuple[int, int]) -> str:
    count, size = one
    return f"{count} image{'' if count == 1 else 's'} {show_bytes(size)}" if count else "none"


def _header(one: HeaderChange, width: int) -> Iterator[str]:
    if one.name == "Description":
        yield f"~ Description: {len(''.join(one.old))} → {len(''.join(one.new))} characters"
        return
    for mark, values, others in (("-", one.old, one.new), ("+", one.new, one.old)):
        for value in values:
            if value not in others:
                yield clip(visible(f"{mark} {one.name}: {value}"), max(20, width - 2))
    if sorted(one.old) == sorted(one.new):
        yield f"~ {visible(one.name)}: in another order"


def _zip(one: ZipChange) -> str:
    more = visible(f" ({one.count}, as {one.example}: {one.old} → {one.new})") if one.old or one.new else ""
    return f"{_ZIP[one.what]}{more}"
