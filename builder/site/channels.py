"""The list of channels, the page of one, and the page that says that there is nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.site import front, install, parts, words
from builder.site.frame import Place, page
from builder.site.html import h

if TYPE_CHECKING:
    from collections.abc import Sequence

    from builder.site.html import Html
    from builder.site.model import Selection
    from builder.wheelhouse.overview import Channel

__all__ = ["every", "missing", "render"]


def every(found: Sequence[Channel]) -> bytes:
    """Return the page that lists the channels."""
    place = Place("channels/")
    lead = h(
        "p",
        "A channel is a selection of wheels with an index of its own. Everything that is built enters ",
        h("code", "local"),
        "; what was found good is promoted to others, as a whole set or not at all.",
        class_="lead",
    )
    return page(place, "Channels", h("h1", "Channels"), lead, front.channels(place, found), section="channels/")


def render(selection: Selection) -> bytes:
    """Return the page of a channel."""
    place = Place(f"channels/{selection.name}/")
    offered = [one for one in selection.wheels if one.state == "published"]
    offered.sort(key=lambda one: (not one.fingerprint, -one.created))  # what was built here is what people come for
    names = list(dict.fromkeys(one.project for one in offered))
    size = sum(one.size for one in selection.wheels)
    told = (
        f"{words.count(len(names), 'package')} · {words.count(len(selection.wheels), 'wheel')} · {words.bytes_(size)}"
    )
    withheld = sorted({one.project for one in selection.wheels} - {*names})
    clients = install.clients(place, selection.name, names, selection.index, withheld)
    use = parts.section("use", "Use this channel", clients)
    left = len(selection.wheels) - parts.LIMIT
    order = None
    if selection.name != install.LOCAL:
        order = "In the order in which they were promoted; of builds of the same version the last one is offered."
    listed = parts.section(
        "wheels",
        "Wheels",
        h("p", order, class_="about") if order else None,
        parts.wheels(place, selection.rows, within=selection.name)
        if selection.rows
        else h("p", "It lists nothing yet."),
        h("p", f"and {words.count(left, 'more wheel')}", class_="about") if left > 0 else None,
    )
    return page(
        place,
        f"Channel {selection.name}",
        h("p", h("a", "Channels", href=place.to("channels/")), class_="crumb"),
        h("h1", selection.name),
        h("p", told, class_="about sums"),
        h("div", h("div", listed, class_="wide"), h("div", use, _history(selection), class_="side"), class_="columns"),
        section="channels/",
    )


def _history(selection: Selection) -> Html | None:
    if not selection.history:
        return None
    newest = max(one.number for one in selection.history)
    items = [
        h(
            "li",
            h(
                "div",
                h("b", f"#{one.number}"),
                " ",
                words.count(one.wheels, "wheel"),
                h("span", " now", class_="about") if one.number == newest else None,
            ),
            h("div", words.when(one.time), class_="about"),
        )
        for one in sorted(selection.history, key=lambda one: -one.number)[: parts.LIMIT]
    ]
    back = parts.folded(
        "Go back",
        parts.code(f"spark-build wheels rollback {selection.name}", "command that takes the last change back"),
    )
    return parts.section("history", "History", h("ul", items, class_="list small"), back if len(items) > 1 else None)


def missing(path: str, text: str) -> bytes:
    """Return the page that stands at a path where there is nothing; `text` says what isn't there."""
    place = Place(path)
    return page(
        place,
        "Not found",
        h("h1", "Nothing here"),
        h("p", text, class_="lead"),
        h(
            "p",
            "It may have been removed, or never been published. ",
            h("a", "All packages", href=place.to("")),
            " or search above.",
        ),
    )
