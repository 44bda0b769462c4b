"""Reading files that others wrote: only what is a file, and only so much of it."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read"]


def read(path: Path, limit: int) -> bytes:
    """Return the bytes of a file, `limit` of them at most; a pipe or a device is never waited for.

    Raises FileNotFoundError; ValueError, which says why, for what is no file, is larger, or can't be read.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ValueError("it is no file")
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f"it can't be read: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as stream:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("it is no file")
        data = b"" if found.st_size > limit else stream.read(limit + 1)
    if max(found.st_size, len(data)) > limit:
        raise ValueError(f"it has more than {limit >> 20} MiB" if limit >> 20 else f"it has more than {limit} bytes")
    return data
