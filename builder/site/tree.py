"""All pages as files: what a static host serves, and what opens from ``file://``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.site import builds, channels, front, project, search, wheel
from builder.site.frame import STATIC, static

if TYPE_CHECKING:
    from collections.abc import Iterator

    from builder.site.gather import Source

__all__ = ["hits", "tree"]


def tree(source: Source) -> Iterator[tuple[str, bytes]]:
    """Yield every page's path below the root, and its bytes; pages come after those that they lead to."""
    for name in STATIC:
        yield f"static/{name}", static(name)
    yield "static/search.js", search.script(hits(source))
    first = source.front()
    fingerprints = dict.fromkeys(one.fingerprint for one in source.attempts)
    for fingerprint in fingerprints:
        if (build := source.build(fingerprint)) is not None:
            yield f"builds/{fingerprint}/index.html", builds.render(build)
    yield "builds/index.html", builds.every(source.attempts)
    for row in source.rows():
        if (one := source.wheel(row.wheel.sha256)) is not None:
            yield f"wheels/{row.wheel.sha256}/index.html", wheel.render(one)
    for each in first.projects:
        if (shown := source.project(each.name)) is not None:
            yield f"projects/{each.name}/index.html", project.render(shown)
    for listed in first.channels:
        if (selection := source.selection(listed.name)) is not None:
            yield f"channels/{listed.name}/index.html", channels.render(selection)
    yield "channels/index.html", channels.every(first.channels)
    yield "404.html", channels.missing("", "There is no page at this address.")
    yield "index.html", front.render(first)


def hits(source: Source) -> list[search.Hit]:
    """Return all that can be found."""
    return search.entries(source.projects(), source.channels(), source.newest(search.NEWEST), source.attempts)
