"""What every page has around it: head, ways to the other pages, search, foot.

All links are relative, and those to folders name the file in them: so the same bytes work from a server, under a prefix,
from any static host and from ``file://``.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING
from urllib.parse import quote

import builder
from builder.digest import sha256_bytes
from builder.site.html import Html, h, join

if TYPE_CHECKING:
    from builder.site.html import Child

__all__ = ["STATIC", "Place", "page", "static"]

#: The files of the pages, and what they are.
STATIC = {
    "style.css": "text/css; charset=utf-8",
    "spark.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}

_SECTIONS = (("", "Packages"), ("builds/", "Builds"), ("channels/", "Channels"))


class Place:
    """Where a page lies; it knows the way from there to all others."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._up = "../" * path.count("/")

    def to(self, folder: str) -> str:
        """Return the link to a page's folder, such as ``builds/``."""
        return f"{self._up}{quote(folder)}index.html"

    def file(self, path: str) -> str:
        """Return the link to a file. A plus sign is percent-encoded, too: some servers and stores take it for a blank."""
        return self._up + "/".join(quote(part, safe="") for part in path.split("/"))

    def project(self, name: str, text: Child = None) -> Html:
        """Return a link to a project."""
        return h("a", text or name, href=self.to(f"projects/{name}/"))

    def wheel(self, sha256: str, text: Child) -> Html:
        """Return a link to a wheel."""
        return h("a", text, href=self.to(f"wheels/{sha256}/"))

    def build(self, fingerprint: str, text: Child) -> Html:
        """Return a link to a build."""
        return h("a", text, href=self.to(f"builds/{fingerprint}/"))

    def channel(self, name: str) -> Html:
        """Return a link to a channel."""
        return h("a", name, href=self.to(f"channels/{name}/"), class_="channel")


@cache
def static(name: str) -> bytes:
    """Return the bytes of one of the files that pages use."""
    return files("builder.site").joinpath("static", name).read_bytes()


@cache
def _version(name: str) -> str:
    return sha256_bytes(static(name))[:10]


def page(place: Place, title: str, *body: Child, section: str = "", query: str = "", live: str | None = None) -> bytes:
    """Return a whole page. `section` is the folder of the way that is marked; `live` is where its events come from."""
    head = h(
        "head",
        h("meta", charset="utf-8"),
        h("meta", name="viewport", content="width=device-width, initial-scale=1"),
        h("meta", name="color-scheme", content="light dark"),
        h("meta", name="referrer", content="no-referrer"),
        # Style is left alone: a browser that reads this in another way from file:// shall do without the script only.
        h(
            "meta",
            http_equiv="Content-Security-Policy",
            content="script-src 'self' file:; object-src 'none'; base-uri 'none'",
        ),
        h("title", f"{title} · spark-build" if title else "spark-build"),
        h("link", rel="icon", href=place.file("static/icon.svg"), type="image/svg+xml"),
        h("link", rel="stylesheet", href=f"{place.file('static/style.css')}?v={_version('style.css')}"),
        h("script", src=f"{place.file('static/spark.js')}?v={_version('spark.js')}", defer=True),
    )
    ways = h(
        "ul",
        [
            h("li", h("a", word, href=place.to(folder), aria_current="page" if folder == section else None))
            for folder, word in _SECTIONS
        ],
    )
    search = h(
        "form",
        h("label", "Search packages, versions, builds", for_="q", class_="away"),
        h(
            "input",
            id="q",
            name="q",
            type="search",
            value=query,
            placeholder="Search",
            autocomplete="off",
            spellcheck="false",
            aria_keyshortcuts="/",
        ),
        h("kbd", "/", aria_hidden="true"),
        role="search",
        action=place.to(""),
        data_index=place.file("static/search.js"),
        data_root=place.file(""),
    )
    top = h(
        "header",
        h("a", h("span", aria_hidden="true", class_="spark"), "spark-build", href=place.to(""), class_="home"),
        h("nav", ways, aria_label="Site"),
        search,
        class_="top",
    )
    foot = h(
        "footer",
        h(
            "p",
            f"spark-build {builder.__version__}. ",
            h("a", "Simple index", href=f"{place.file('simple')}/index.html"),
        ),
        class_="foot",
    )
    main = h("main", *body, id="main", tabindex="-1", data_live=live)
    away = h("a", "Skip to content", href="#main", class_="skip")
    told = h("p", role="status", aria_live="polite", class_="away", id="told")
    text = join(Html("<!DOCTYPE html>\n"), h("html", head, h("body", away, top, main, foot, told), lang="en"), "\n")
    return text.encode()
