"""What the system does at once for a whole folder or file system, and Python's library has no name for."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["exchange", "settle"]

#: From ``linux/fcntl.h`` and ``linux/fs.h``.
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@functools.cache
def _library() -> Any:  # noqa: ANN401  # ctypes makes its types as it goes
    import ctypes  # noqa: PLC0415  # most runs change one page, and need none of this

    return ctypes.CDLL(None, use_errno=True)


def exchange(one: Path, other: Path) -> bool:
    """Let each of two folders have the other's name, in one step; False where the file system or the system can't."""
    call = getattr(_library(), "renameat2", None)
    return call is not None and call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0


def settle(folder: Path) -> None:
    """Leave on the disk all that was written to the file system of `folder`: one call, however many files they are."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        call = getattr(_library(), "syncfs", None)
        if call is None or call(descriptor) != 0:
            os.sync()
    finally:
        os.close(descriptor)
