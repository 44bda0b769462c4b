"""Beginnings of files that a transfer left: what is kept beside one, so that the next transfer goes on in the same file."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["condition", "keep_mark", "mark"]


def mark(part: Path) -> Path:
    """Return where it lies what the server said of the file that `part` is the beginning of."""
    return part.with_name(f"{part.name}.mark")


def condition(part: Path) -> dict[str, str]:
    """Return the header that makes a server begin anew where the file is another by now (RFC 9110, 13.1.5)."""
    try:
        return {"If-Range": mark(part).read_text()}
    except FileNotFoundError:
        return {}


def keep_mark(part: Path, headers: Mapping[str, str]) -> None:
    """Keep what tells this file from another one of its URL; a weak ETag doesn't."""
    etag = headers.get("ETag") or ""
    if found := headers.get("Last-Modified") if not etag or etag.startswith("W/") else etag:
        mark(part).write_text(found)
    else:
        mark(part).unlink(missing_ok=True)
