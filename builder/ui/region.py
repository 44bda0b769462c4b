"""The region below the permanent lines, as text: what runs at the moment, how much memory it takes, how long it takes. Pure.

A region is at most a third of the terminal's height and never as wide as it, so that no line wraps. What doesn't fit goes
in this order: compilers from the lightest, keys, the head, then bars by width; in one line only the figures are left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.recipe.units import show_bytes, show_seconds
from builder.ui.style import Style, clean, clip, span
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Sequence

    from builder.events import GateState

__all__ = ["View", "region", "summary"]

_LABEL = 9
_WIDEST = 110
_BAR = (10, 28)
_GAP = "  "
_MINUTE, _HOUR = 60_000, 3_600_000
_GIB, _MIB = 1 << 30, 1 << 20

_BOUND = {"memory": "memory-bound", "cpu": "CPU-bound", "idle": "", "pressure": "machine short of memory"}

#: Text with the names of its colours; a row is some of them.
_Piece = tuple[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What is shown: `head` from left to right, the gate's last word and its age, the last line of output.

    `tail` holds the log's last lines while they are asked for, else None. `wanted` is the number of jobs that was asked for
    by key and isn't in force yet, or None. `left` tells the rest from earlier builds. `keys` are what can be pressed.
    """

    head: tuple[str, ...]
    gate: GateState | None = None
    age_ms: int = 0
    said: str = ""
    left: str = ""
    tail: tuple[str, ...] | None = None
    log: str = ""
    keys: tuple[str, ...] = ()
    wanted: int | None = None


def region(view: View, width: int, height: int, style: Style | None = None) -> list[str]:
    """Return the lines of the region for a terminal of `width` columns and `height` rows, none wider than ``width - 1``."""
    style = style or Style(color=False, live=True, encoding="utf-8")
    columns, rows = min(max(width - 1, 1), _WIDEST), max(1, height // 3)
    facts = _facts(view.gate, columns, view) if view.gate else []
    if rows == 1 or (rows < len(facts) and facts):
        words = summary(view.gate) if view.gate else [view.said]
        return [_row([(" ▸ ", ("cyan",)), (" · ".join([*view.head[-1:], *filter(None, words)]), ())], columns, style)]
    below = view.gate is None or view.tail is not None or bool(view.gate.running)
    head = rows > len(facts)
    keys = rows > len(facts) + head and bool(_foot(view))
    room = rows - len(facts) - head - keys
    lines = [_head(view.head, columns, style)] if head else []
    lines += [_row(pieces, columns, style) for pieces in facts]
    lines += [_row(pieces, columns, style) for pieces in _below(view, columns, room)] if below and room > 0 else []
    lines += [_row([(" " + line, ("dim",))], columns, style) for line in [_fitting(_foot(view), columns - 1)] if keys]
    return lines


def summary(gate: GateState) -> list[str]:
    """Return progress, memory, jobs and the rest of the time in words, for a place that has one line."""
    done = f"{gate.done}/{gate.edges} edges {_percent(gate)}%" if gate.edges else ""
    memory = f"memory {show_bytes(gate.used_bytes)} of {show_bytes(gate.ceiling_bytes)}"
    jobs = ", ".join(word for word in (f"{gate.jobs} of {gate.slots} jobs", _held(gate), _queue(gate)) if word)
    return [word for word in (done, memory, jobs, _eta(gate)) if word]


# --- rows


def _head(parts: Sequence[str], columns: int, style: Style) -> str:
    text = clip(" · ".join(part for part in parts if part), max(columns - 3, 1))
    line = f"─ {text} "
    return _row([(line + "─" * max(columns - span(line), 0), ("dim",))], columns, style)


def _facts(gate: GateState, columns: int, view: View) -> list[list[_Piece]]:
    """Return the rows with bars; all bars are equally long, and the text decides how long."""
    texts = [_edge_text(gate, view), *_memory_texts(gate), _job_text(gate, view)]
    edges, long, short, jobs = texts
    for memory in (long, short):
        bar = min(columns - _LABEL - len(_GAP) - max(map(span, (edges, memory, jobs))), _BAR[1])
        if bar >= _BAR[0]:
            break
    else:
        bar, memory = 0, long if span(long) + _LABEL <= columns else short
    ceiling = max(gate.ceiling_bytes, gate.used_bytes, 1)
    color = "red" if gate.bound == "pressure" else "cyan"
    rows = []
    if gate.edges:
        rows.append(_fact("edges", _bar(bar, (gate.done / gate.edges, "█", "green")), edges))
    elif edges:
        rows.append(_fact("time", [(" " * bar, ())], edges))
    shares = (gate.used_bytes / ceiling, "█", color), (gate.promised_bytes / ceiling, "▒", "dim")
    rows.append(_fact("memory", _bar(bar, *shares), memory))
    slots = max(gate.slots, gate.jobs, 1)
    cells = min(slots, bar)
    some = round(cells * gate.jobs / slots)
    dots: list[_Piece] = [("▪" * some, ("cyan",)), ("·" * (cells - some), ("dim",)), (" " * (bar - cells), ())]
    rows.append(_fact("jobs", dots, jobs))
    return rows


def _fact(name: str, bar: list[_Piece], text: str) -> list[_Piece]:
    drawn = [piece for piece in bar if piece[0]]
    return [(f" {name:<{_LABEL - 1}}", ("bold",)), *drawn, ((_GAP if drawn else "") + text, ())]


def _bar(cells: int, *shares: tuple[float, str, str]) -> list[_Piece]:
    """Return shares of one bar; each that is more than nothing is seen, and all together fit."""
    pieces: list[_Piece] = []
    left = cells
    for share, symbol, color in shares:
        some = min(left, max(round(cells * share), 1 if share > 0 else 0))
        pieces.append((symbol * some, (color,)))
        left -= some
    return [*pieces, ("░" * left, ("dim",))]


def _below(view: View, columns: int, room: int) -> list[list[_Piece]]:
    if view.tail is not None:
        shown = view.tail[-room:] or ("nothing was printed yet",)
        return [[(" │ ", ("dim",)), (clip(text, columns - 3), ())] for text in shown]
    if view.gate is None:
        return [[(" ▸ ", ("cyan",)), (clip(view.said or "running", columns - 3), ())]]
    return _units(view.gate, view.age_ms, columns, room)


def _units(gate: GateState, age_ms: int, columns: int, room: int) -> list[list[_Piece]]:
    """Return the heaviest compilers, one a row; the last row counts those that have none."""
    count = len(gate.running) if max(gate.jobs, len(gate.running)) <= room else room - 1
    shown = gate.running[:count]
    rows = [_unit_words(unit, age_ms) for unit in shown]
    name = max((span(words[0]) for words in rows), default=0)
    name = max(min(name, columns - 3 - 2 - 18 - 2 - 16), min(name, 12))
    lines: list[list[_Piece]] = []
    for words in rows:
        title = clip(words[0][::-1], name)[::-1]  # what tells kernels apart is at the end of their names
        title += " " * (name - span(title))
        rest = _fitting([f"{words[1]:>6}  {words[2]:>9}", words[3]], columns - 5 - name, gap=_GAP)
        lines.append([(" ▸ ", ("cyan",)), (title, ()), (_GAP + rest, ("dim",))])
    if more := max(gate.jobs, len(gate.running)) - count:
        lines.append([(" ▸ ", ("cyan",)), (f"… {more} more" if count else f"{more} compilers run", ("dim",))])
    return lines


def _unit_words(unit: tuple[str, int, int, int, str], age_ms: int) -> tuple[str, str, str, str]:
    name, used, since_ms, last_ms, _basis = unit
    last = f"last time {show_seconds(last_ms / 1000)}" if last_ms else "new file"
    return clean(name), show_seconds((since_ms + age_ms) / 1000), show_bytes(used), last


def _foot(view: View) -> list[str]:
    gate = view.gate
    hits = f"cache {gate.hits} hit{'s' if gate.hits != 1 else ''}" if gate and gate.hits else ""
    again = f"{gate.requeues} requeued" if gate and gate.requeues else ""
    log = f"log {view.log}" if view.tail is not None and view.log else ""
    return [word for word in (hits, again, log, *view.keys) if word]


# --- words


def _edge_text(gate: GateState, view: View) -> str:
    rest = _eta(gate) or view.left
    if not gate.edges:
        return rest
    return _GAP.join(word for word in (f"{gate.done}/{gate.edges}", f"{_percent(gate)}%", rest) if word)


def _memory_texts(gate: GateState) -> tuple[str, str]:
    size, unit = (_GIB, "GiB") if max(gate.total_bytes, gate.ceiling_bytes) >= _GIB else (_MIB, "MiB")
    used, ceiling, peak, free, total = (
        _figure(value / size)
        for value in (gate.used_bytes, gate.ceiling_bytes, gate.peak_bytes, gate.available_bytes, gate.total_bytes)
    )
    long = f"{used} {unit}  ceiling {ceiling}  peak {peak}  free {free}/{total}"
    return long, f"{used}/{ceiling} {unit}  peak {peak}  free {free}"


def _job_text(gate: GateState, view: View) -> str:
    asked = f" → {view.wanted}" if view.wanted is not None and view.wanted != gate.slots else ""
    return _GAP.join(word for word in (f"{gate.jobs} of {gate.slots}{asked}", _held(gate), _queue(gate)) if word)


def _held(gate: GateState) -> str:
    return "paused" if gate.paused else _BOUND.get(gate.bound, "")


def _queue(gate: GateState) -> str:
    return f"{gate.waiting} waiting" if gate.waiting else ""


def _percent(gate: GateState) -> int:
    return 100 * gate.done // max(gate.edges, 1)


def _figure(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"  # noqa: PLR2004  # three digits


def _eta(gate: GateState) -> str:
    """Return ``ETA 11m (9-14m)``: the middle, and what earlier builds make of it at best and at worst."""
    if not gate.left_ms:
        return ""
    low, high = (max(0, int(value)) for value in gate.left_ms[:2])
    middle, first, last = _coarse((low + high) // 2), _coarse(low), _coarse(high)
    if first == last:
        return f"ETA {middle}"
    same = first[-1] == last[-1] and first[:-1].isdigit() and last[:-1].isdigit()
    return f"ETA {middle} ({first[:-1] if same else first}-{last})"


def _coarse(ms: int) -> str:
    if ms < 2 * _MINUTE:
        return f"{ms // 1000}s"
    if ms < _HOUR:
        return f"{round(ms / _MINUTE)}m"
    return show_seconds(ms / 1000)


# --- fitting


def _fitting(parts: Sequence[str], columns: int, gap: str = " · ") -> str:
    """Return as many of `parts` as fit, from the first on; that one is cut if it has to be."""
    line = ""
    for part in parts:
        longer = line + gap + part if line else clip(part, columns)
        if span(longer) > columns:
            break
        line = longer
    return line


def _row(pieces: Sequence[_Piece], columns: int, style: Style) -> str:
    """Return a painted row of at most `columns` columns as the stream's encoding has them."""
    row, room = "", columns
    for text, colors in pieces:
        fitted = _cut(style.fit(text), room, style)
        row += style.paint(fitted, *colors)
        room -= span(fitted)
        if room <= 0:
            break
    return row.rstrip() if not style.color else row


def _cut(text: str, room: int, style: Style) -> str:
    """Return `text` in `room` columns; the sign for a cut may itself be longer where the encoding lacks it."""
    cut = style.fit(clip(text, room))
    return cut if span(cut) <= room else style.fit(clip(text, max(room - 2, 0)))[:room]
