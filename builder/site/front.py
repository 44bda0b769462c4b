"""The first page: what this index is, how to use it, what is new, and every package. With a query: what was found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.site import install, parts, words
from builder.site.frame import Place, page
from builder.site.html import h, joined
from builder.wheel.read import header

if TYPE_CHECKING:
    from collections.abc import Sequence

    from builder.site.html import Html
    from builder.site.model import Attempt, Front
    from builder.site.search import Hit
    from builder.wheelhouse.overview import Channel, Project

__all__ = ["channels", "render"]


def render(front: Front | None, *, query: str = "", hits: Sequence[Hit] = ()) -> bytes:
    """Return the page; with a `query` that of what was found, which takes nothing else."""
    place = Place("")
    if query:
        told = f"{words.count(len(hits), 'result')} for “{query}”" if hits else f"Nothing is called “{query}”."
        return page(place, f"Search: {query}", h("h1", told), _found(place, query, hits), query=query)
    found = h("div", id="found", hidden=True)  # the script puts in what was found, where no server does
    return page(place, "Packages", h("h1", "Wheels for GB10"), found, _rest(place, front) if front else None)


def _rest(place: Place, front: Front) -> list[Html | None]:
    wheels, size = sum(one.wheels for one in front.projects), sum(one.size for one in front.projects)
    lead = h(
        "p",
        "A package index of wheels built from source for NVIDIA GB10 by spark-build. Each tells what device code it holds, ",
        "what went into it, who built it, and what changed since the one before.",
        class_="lead",
    )
    sums = [
        (words.count(len(front.projects), "package"), None),
        (words.count(wheels, "wheel"), None),
        (words.bytes_(size), None),
    ]
    counts = h("p", joined(" · ", [text for text, _ in sums]), class_="about sums") if front.projects else None
    if not front.projects:
        nothing = parts.note(
            "info",
            "Nothing was published here yet.",
            parts.code("spark-build recipe triton", "command that builds a wheel"),
        )
        return [lead, nothing, _running(place, front.running)]
    first = front.newest[0].wheel.project if front.newest else front.projects[0].name
    use = parts.section("use", "Use this index", install.clients(place, front.index.root, [first], front.index))
    some = parts.section(
        "channels",
        "Channels",
        channels(place, front.channels),
        more=h("a", "All channels", href=place.to("channels/")),
    )
    newest = parts.section(
        "newest",
        "Newest wheels",
        parts.wheels(place, front.newest),
        more=h("a", "All builds", href=place.to("builds/")),
    )
    return [
        lead,
        counts,
        _running(place, front.running),
        use,
        h("div", h("div", newest, class_="wide"), h("div", some, class_="side"), class_="columns"),
        parts.section("packages", "Packages", _packages(place, front.projects)),
    ]


def channels(place: Place, found: Sequence[Channel]) -> Html:
    """Return channels as a list."""
    items = [
        h(
            "li",
            h("div", place.channel(one.name), class_="title"),
            h(
                "div",
                joined(
                    " · ",
                    [
                        words.count(one.projects, "package"),
                        words.count(one.wheels, "wheel"),
                        words.when(one.newest),
                    ],
                ),
                class_="about",
            ),
        )
        for one in found
    ]
    return h("ul", items, class_="list small")


def _running(place: Place, running: Sequence[Attempt]) -> Html | None:
    return parts.section("running", "Building now", parts.attempts(place, running)) if running else None


def _packages(place: Place, projects: Sequence[Project]) -> Html:
    items = [
        h(
            "li",
            h(
                "div",
                place.project(one.name, h("b", one.name)),
                " ",
                parts.version(parts.short_version(one.version)),
                class_="title",
            ),
            h("div", _summary(one), class_="why") if _summary(one) else None,
            h("div", joined(" · ", [words.count(one.wheels, "wheel"), words.when(one.newest)]), class_="about"),
        )
        for one in projects
    ]
    return h("ul", items, class_="list cards")


def _summary(one: Project) -> str:
    text = header(one.head, "Summary") or ""
    return text if len(text) < 160 else f"{text[:159]}…"  # noqa: PLR2004  # two lines


def _found(place: Place, query: str, hits: Sequence[Hit]) -> Html:
    items = [
        h(
            "li",
            h("div", h("a", h("b", one.title), " ", one.text, href=place.to(one.folder)), class_="title"),
            h("div", one.kind, class_="about kind"),
        )
        for one in hits
    ]
    back = h(
        "p",
        "Names of packages, versions, and the start of a fingerprint or sha256 are looked for. ",
        h("a", "All packages", href=place.to("")),
    )
    return h("div", h("ul", items, class_="list small") if items else None, back, id="found", data_query=query)
