"""Locks between processes: ``flock`` on a file that says who holds it. The kernel lets go of them when a holder dies."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sys
import time
from typing import TYPE_CHECKING

from builder.errors import HostError, scrubbed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

__all__ = ["claim", "folder_lock", "held", "is_claimed", "is_held"]

_POLL_S = 0.1


@contextlib.contextmanager
def held(
    file: Path, *, on_wait: Callable[[str], None] = lambda _holder: None, timeout_s: float | None = None
) -> Iterator[None]:
    """Hold the lock `file`; `on_wait` is called once with the holder's words when somebody else has it.

    Raises HostError ``lock-timeout`` after `timeout_s` seconds (None waits for ever; 0 asks once), ``unwritable`` or
    ``disk-full`` when the file can't be made.
    """
    descriptor = _take(file, on_wait, timeout_s)
    try:
        with contextlib.suppress(OSError):  # words for whoever waits; on a full disk they are missing, the lock isn't
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()}: {_words(sys.argv)[:200]}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _words(argv: Sequence[str]) -> str:
    """Return a command line for others to read: without the values of what is set."""
    told, following = [], False
    for word in argv:
        option, equals, value = word.partition("=") if word.startswith(("--env=", "--set=")) else ("", "", word)
        name, given, _secret = value.partition("=")
        hidden = f"{name}=***" if given and (following or option) else value
        told.append(f"{option}{equals}{hidden}")
        following = word in {"--env", "--set"}
    return scrubbed(" ".join(told))


def _take(file: Path, on_wait: Callable[[str], None], timeout_s: float | None) -> int:
    started, told = time.monotonic(), False
    descriptor = _open(file)
    while not _try(descriptor):
        holder = os.pread(descriptor, 400, 0).decode(errors="replace").strip() or "another process"
        if not told:
            on_wait(holder)
            told = True
        if timeout_s is not None and time.monotonic() - started >= timeout_s:
            os.close(descriptor)
            raise HostError(
                "lock-timeout",
                f"the lock {file} is held by {holder}",
                cause=f"waited {timeout_s:.0f} s" if timeout_s else "",
                help="wait for it, or end that process",
            )
        time.sleep(_POLL_S)
    return descriptor


def _open(file: Path) -> int:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        return os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise HostError("disk-full", f"no space left for the lock {file}", run=("spark-build gc",)) from error
        raise HostError(
            "unwritable",
            f"the lock {file} can't be taken",
            cause=str(error),
            help="choose another folder with --wheelhouse, or mend its permissions",
            run=(f"ls -ld {file.parent}",),
        ) from error


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_held(file: Path) -> bool:
    """Whether some process holds the lock `file` right now."""
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not _try(descriptor)
    finally:
        os.close(descriptor)


def claim(folder: Path, *, wait: bool, shared: bool = False) -> int | None:
    """Return a descriptor that holds `folder` itself until it is closed, or None when another process does.

    With `wait` it is waited for; `shared` lets others hold it the same way. Raises FileNotFoundError.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BaseException as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            return None
        raise
    return descriptor


def is_claimed(folder: Path) -> bool:
    """Whether some process holds `folder` itself; a file in its place isn't held, and what is gone needs nobody."""
    try:
        descriptor = claim(folder, wait=False)
    except FileNotFoundError:
        return True
    except NotADirectoryError:
        return False
    if descriptor is None:
        return True
    os.close(descriptor)
    return False


@contextlib.contextmanager
def folder_lock(folder: Path, *, shared: bool) -> Iterator[None]:
    """Hold `folder` itself, with others or alone; needs no right to write. For moments only: it waits without a word."""
    descriptor = claim(folder, wait=True, shared=shared)
    assert descriptor is not None  # noqa: S101  # it was waited for
    try:
        yield
    finally:
        os.close(descriptor)
