"""Free space."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["free_bytes"]


def free_bytes(path: Path) -> int:
    """Return what an ordinary user may still write below `path`, which need not exist yet."""
    place = path.absolute()
    while not place.exists():
        place = place.parent
    found = os.statvfs(place)
    return found.f_bavail * found.f_frsize
