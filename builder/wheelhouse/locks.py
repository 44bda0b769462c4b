"""Locks between processes: ``flock`` on a file that says who holds it. The kernel lets go of them when a holder dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import time
from typing import TYPE_CHECKING

from builder.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["held", "is_held"]

_POLL_S = 0.1


@contextlib.contextmanager
def held(
    file: Path, *, on_wait: Callable[[str], None] = lambda _holder: None, timeout_s: float | None = None
) -> Iterator[None]:
    """Hold the lock `file`; `on_wait` is called once with the holder's words when somebody else has it.

    Raises HostError ``lock-timeout`` after `timeout_s` seconds (None waits for ever).
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        _take(descriptor, file, on_wait, timeout_s)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()}: {' '.join(sys.argv)[:200]}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, file: Path, on_wait: Callable[[str], None], timeout_s: float | None) -> None:
    started, told = time.monotonic(), False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 400, 0).decode(errors="replace").strip() or "another process"
            if not told:
                on_wait(holder)
                told = True
            if timeout_s is not None and time.monotonic() - started >= timeout_s:
                raise HostError(
                    "lock-timeout",
                    f"{file.name} is held by {holder} for more than {timeout_s:.0f} s",
                    help="wait for it, or end that process",
                ) from None
            time.sleep(_POLL_S)
        else:
            return


def is_held(file: Path) -> bool:
    """Whether some process holds the lock `file` right now."""
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
