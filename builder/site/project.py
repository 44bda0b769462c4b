"""The page of a project: its wheels, how to install it, what building it took over time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.site import install, parts, plot, words
from builder.site.frame import Place, page
from builder.site.html import h, joined

if TYPE_CHECKING:
    from collections.abc import Sequence

    from builder.site.html import Html
    from builder.site.model import Point, Project

__all__ = ["render", "times"]

#: From so many builds on there is something to see.
_CURVE = 2
_WITHHELD = {
    "quarantined": "It offers no files: none of its wheels can be installed from here.",
    "archived": "It gets no new wheels.",
    "deprecated": "Its makers advise against it.",
}


def render(project: Project) -> bytes:
    """Return the page."""
    place = Place(f"projects/{project.name}/")
    offered = [row for row in project.rows if row.wheel.state == "published" and project.status != "quarantined"]
    newest = offered[0] if offered else None
    links = [h("a", word, href=url, rel="noopener nofollow ugc") for word, url in project.links]
    title = h(
        "div",
        h("h1", project.name),
        h("p", project.summary, class_="lead") if project.summary else None,
        h("p", joined(" · ", links), class_="about") if links else None,
        class_="title-block",
    )
    use = None
    if newest is not None:
        channels = sorted({name for row in offered for name in row.channels})
        use = parts.section(
            "install",
            "Install",
            h("p", "Newest: ", place.wheel(newest.wheel.sha256, parts.version(newest.wheel.version))),
            install.wheel(place, newest.wheel, newest.channels, project.index),
            h("p", "In channels ", joined(", ", [place.channel(name) for name in channels]), class_="about")
            if channels
            else None,
        )
    return page(
        place,
        project.name,
        title,
        _status(project),
        use,
        parts.section(
            "versions", words.count(len(project.rows), "wheel"), parts.wheels(place, project.rows, named=False)
        ),
        times(place, project.points),
    )


def _status(project: Project) -> Html | None:
    if project.status == "active":
        return None
    why = h("p", project.reason) if project.reason else None
    kind = "bad" if project.status == "quarantined" else "warn"
    return parts.note(kind, f"This project is {project.status}. {_WITHHELD.get(project.status, '')}".strip(), why)


def times(place: Place, points: Sequence[Point]) -> Html | None:
    """Return build time and peak memory over time, as plots and as a table; None where nothing was measured."""
    timed = [one for one in points if one.ms is not None]
    weighed = [one for one in points if one.peak_bytes is not None]
    if max(len(timed), len(weighed)) < _CURVE:
        return None
    plots = []
    if len(timed) >= _CURVE:
        told = _range([words.duration(one.ms or 0) for one in (min(timed, key=_ms), max(timed, key=_ms))], len(timed))
        dots = [_dot(place, one, one.ms or 0, words.duration(one.ms or 0)) for one in timed]
        plots.append(
            _figure("Build time", plot.curve("time", "Build time by date of the build", told, dots, kind="ms"))
        )
    if len(weighed) >= _CURVE:
        told = _range(
            [words.bytes_(one.peak_bytes or 0) for one in (min(weighed, key=_peak), max(weighed, key=_peak))],
            len(weighed),
        )
        dots = [_dot(place, one, one.peak_bytes or 0, words.bytes_(one.peak_bytes or 0)) for one in weighed]
        plots.append(
            _figure(
                "Peak memory",
                plot.curve("memory", "Peak memory of all compilers by date of the build", told, dots, kind="bytes"),
            )
        )
    rows = [
        (
            place.build(one.fingerprint, parts.build_version(one.version)),
            words.duration(one.ms) if one.ms is not None else "",
            words.bytes_(one.peak_bytes) if one.peak_bytes is not None else "",
            words.when(one.started),
        )
        for one in reversed(points)
    ]
    figures = parts.table(
        "Builds, newest first", ("Version", "Build time", "Peak memory", "Started"), rows, right=(1, 2)
    )
    return parts.section(
        "times", "Build time and memory", h("div", plots, class_="plots"), parts.folded("The same as a table", figures)
    )


def _figure(title: str, svg: Html) -> Html:
    return h("figure", h("figcaption", title), svg)


def _ms(one: Point) -> int:
    return one.ms or 0


def _peak(one: Point) -> int:
    return one.peak_bytes or 0


def _range(ends: Sequence[str], number: int) -> str:
    return f"{words.count(number, 'build')}, between {ends[0]} and {ends[1]}. The table below has each."


def _dot(place: Place, one: Point, y: float, told: str) -> plot.Dot:
    version = parts.short_version(one.version)
    found = words.moment(one.started)
    day = f", {found:%Y-%m-%d}" if found else ""
    return plot.Dot(x=one.started, y=y, told=f"{version}: {told}{day}", href=place.to(f"builds/{one.fingerprint}/"))
