"""Where sources are kept and how the outside is reached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from builder.events import Sink

__all__ = ["Sources", "age_text", "without_credentials"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """`root` holds bare mirrors (``git/``), archives by digest (``files/``) and what is known of releases (``sdists/``).

    `mirrors` maps URL prefixes to what is asked instead, longest first.
    """

    root: Path
    mirrors: tuple[tuple[str, str], ...]
    index_url: str | None
    offline: bool
    env: Mapping[str, str]
    clock: Callable[[], float]
    sink: Sink

    def mirrored(self, url: str) -> str:
        """Return what is asked for `url`: its mirror where one is configured. A folder becomes a ``file:`` URL."""
        for prefix, to in self.mirrors:
            if url == prefix or url.startswith(prefix.rstrip("/") + "/") or url == prefix.removesuffix(".git") + ".git":
                target = to + url.removeprefix(prefix)
                return f"file://{target}" if target.startswith("/") else target
        return url


def without_credentials(url: str) -> str:
    """Return `url` without user and password, as it may be shown and kept."""
    scheme, mark, rest = url.partition("://")
    if not mark:
        return url
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def age_text(seconds: float) -> str:
    """Return an age in words: ``3 hours``."""
    for size, word in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {word}{'s' if count > 1 else ''}"
    return "less than a minute"
