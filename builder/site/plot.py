"""Plots as SVG. Each has a title and a description, and the page has the same figures as a table.

No style stands in them but by class, so that a strict policy holds; what is said by colour is said by words, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.site import words
from builder.site.html import h
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from builder.site.html import Html

__all__ = ["Dot", "area", "curve", "phases"]

_WIDTH, _HEIGHT = 360, 150
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 12, 10, 24
#: Distances between lines that are easy to read, for durations in seconds and for sizes in bytes.
_SPANS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800)
_LINES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """A point of a curve: where, what is said of it, and where it leads."""

    x: float
    y: float
    told: str
    href: str


def curve(name: str, title: str, told: str, dots: Sequence[Dot], *, kind: str) -> Html:
    """Return builds over time: `kind` is ``ms`` or ``bytes``, x in seconds. Each dot leads to its build."""
    top, ticks = _scale(max(dot.y for dot in dots), kind)
    show = words.duration if kind == "ms" else words.bytes_
    first, last = min(dot.x for dot in dots), max(dot.x for dot in dots)

    def across(x: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * ((x - first) / (last - first) if last > first else 0.5)

    places = [(across(dot.x), _height(dot.y, top), dot) for dot in dots]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y, _dot in places)
    marks = [
        h(
            "a",
            h("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r="4"),
            h("title", dot.told),
            href=dot.href,
            aria_label=dot.told,
        )
        for x, y, dot in places
    ]
    return _svg(
        name,
        title,
        told,
        _grid(top, ticks, show),
        h("polyline", points=line, class_="line"),
        marks,
        _ends(_day(first), _day(last) if last > first else ""),
    )


def area(name: str, title: str, told: str, points: Sequence[tuple[float, float]], limit: float, whole_s: float) -> Html:
    """Return memory while a build ran: points of seconds and bytes, below a line at `limit`."""
    top, ticks = _scale(max([limit, *(y for _x, y in points)]), "bytes")

    def across(x: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * min(1.0, x / whole_s if whole_s else 0.0)

    line = [f"{across(x):.1f},{_height(y, top):.1f}" for x, y in points]
    floor = f"{_height(0, top):.1f}"
    closed = [f"{across(points[0][0]):.1f},{floor}", *line, f"{across(points[-1][0]):.1f},{floor}"]
    at = f"{_height(limit, top):.1f}"
    bound = h("line", class_="limit", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=at, y2=at) if limit else None
    return _svg(
        name,
        title,
        told,
        _grid(top, ticks, words.bytes_),
        h("polygon", points=" ".join(closed), class_="area"),
        h("polyline", points=" ".join(line), class_="line"),
        bound,
        _ends("start", words.duration(whole_s * 1000)),
    )


def phases(parts: Sequence[tuple[str, str, int]], told: str) -> Html:
    """Return a bar of a build's phases: name, how it ended, milliseconds."""
    whole = sum(ms for _name, _status, ms in parts) or 1
    at, made = 0.0, []
    for number, (name, status, ms) in enumerate(parts):
        width = 100 * ms / whole
        shade = f"p{number % 3} {status}"
        made.append(
            h(
                "rect",
                h("title", f"{name}: {words.duration(ms)}"),
                class_=shade,
                x=f"{at:.3f}",
                y="0",
                width=f"{width:.3f}",
                height="8",
            )
        )
        at += width
    return h(
        "svg", made, class_="bar phases", viewBox="0 0 100 8", preserveAspectRatio="none", role="img", aria_label=told
    )


def _svg(name: str, title: str, told: str, *children: Html | list[Html] | None) -> Html:
    about = [h("title", title, id=f"{name}-t"), h("desc", told, id=f"{name}-d")]
    return h(
        "svg",
        about,
        *children,
        class_="plot",
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="group",
        aria_labelledby=f"{name}-t",
        aria_describedby=f"{name}-d",
    )


def _height(y: float, top: float) -> float:
    return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * (y / top if top else 0)


def _grid(top: float, ticks: Sequence[float], show: Callable[[float], str]) -> list[Html]:
    made = []
    for value in ticks:
        y = f"{_height(value, top):.1f}"
        made.append(h("line", class_="grid", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y))
        made.append(
            h(
                "text",
                show(value).replace(".0", "") if value else "0",
                class_="axis",
                x=_LEFT - 8,
                y=y,
                dy="0.32em",
                text_anchor="end",
            )
        )
    return made


def _ends(first: str, last: str) -> list[Html]:
    y = _HEIGHT - 6
    made = [h("text", first, class_="axis", x=_LEFT, y=y)]
    return [*made, h("text", last, class_="axis", x=_WIDTH - _RIGHT, y=y, text_anchor="end")] if last else made


def _scale(most: float, kind: str) -> tuple[float, list[float]]:
    """Return the top of an axis and where its lines are, from zero on."""
    if kind == "ms":
        step = next((one for one in _SPANS if most / 1000 / one <= _LINES), _SPANS[-1]) * 1000.0
    else:
        step = 1.0
        while most / step > _LINES:
            step *= 2
    lines = max(1, -(-most // step))
    return lines * step, [number * step for number in range(int(lines) + 1)]


def _day(seconds: float) -> str:
    found = words.moment(seconds)
    return f"{found.day} {found:%b %Y}" if found else ""
