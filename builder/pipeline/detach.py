"""Builds that outlive the terminal they were started from.

``--detach`` starts the same command line in a session of its own, with its output in files, and waits only for its plan: by
then all that a person has to hear at once was said. The child says that by writing the start of a fingerprint into the file
that ``SPARK_BUILD_DETACHED`` names. A build in the foreground whose terminal goes away goes on as if it had been started
like that.

The files lie in ``$XDG_STATE_HOME/spark-build/detached/<time>-<pid>``: ``out`` has the results, ``log`` all else. The
newest `KEPT` are kept.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from builder import proc
from builder.events import PlanMade
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from builder.events import Event, Sink

__all__ = ["VARIABLE", "Announced", "Away", "folder", "follow", "lose_terminal", "start"]

VARIABLE = "SPARK_BUILD_DETACHED"

#: How many folders of detached runs are kept.
KEPT = 20

_POLL_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Away:
    """A process that was left to itself: its id, and the folder with ``out``, ``log`` and, once it is known, ``ref``."""

    pid: int
    folder: Path


def folder(env: Mapping[str, str]) -> Path:
    """Return a new folder for the output of a process without a terminal; older ones beyond `KEPT` are deleted."""
    state = Path(env.get("XDG_STATE_HOME") or Path(env.get("HOME") or "/") / ".local" / "state")
    place = state / "spark-build" / "detached"
    new = place / f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{os.getpid()}"
    new.mkdir(parents=True, exist_ok=True)
    for old in sorted(place.iterdir())[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return new


def start(words: Sequence[str], *, env: Mapping[str, str], cwd: Path) -> Away:
    """Start ``spark-build`` with `words` in a session of its own and return at once."""
    place = folder(env)
    told = {**env, VARIABLE: str(place / "ref")}
    pid = proc.leave([*_program(), *words], env=told, cwd=cwd, stdout=place / "out", stderr=place / "log")
    return Away(pid=pid, folder=place)


def _program() -> list[str]:
    command = Path(sys.prefix) / "bin" / "spark-build"
    return [str(command)] if os.access(command, os.X_OK) else [sys.executable, "-P", "-m", "builder"]


def follow(away: Away, stderr: TextIO) -> tuple[str, int | None]:
    """Copy what the process says to `stderr` until it has a plan that needs building, or has ended.

    Returns the start of the fingerprint and None, or an empty text and the exit code. When this is interrupted before there
    is a plan, the process ends, too.
    """
    with (away.folder / "log").open(errors="replace") as log:
        try:
            while True:
                code = _ended(away.pid)
                ref = _text(away.folder / "ref")
                shutil.copyfileobj(log, stderr)
                stderr.flush()
                if ref or code is not None:
                    return ref, None if ref else code
                time.sleep(_POLL_S)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.kill(away.pid, signal.SIGTERM)
            raise


def _ended(pid: int) -> int | None:
    try:
        found, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return 1
    if not found:
        return None
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except FileNotFoundError:
        return ""


class Announced:
    """A sink that passes everything on, and tells whoever waits for it what is going to be built."""

    def __init__(self, sink: Sink, file: Path) -> None:
        self._sink = sink
        self._file = file

    def emit(self, event: Event) -> None:
        """Pass `event` on; at the first plan that needs building, write the start of its fingerprint."""
        self._sink.emit(event)
        if isinstance(event, PlanMade) and not self._file.exists():
            with contextlib.suppress(OSError):  # nobody can wait for it there
                beside = self._file.with_suffix(".new")
                beside.write_text(event.fingerprint[:10])
                beside.replace(self._file)


def lose_terminal(env: Mapping[str, str]) -> None:
    """Have stdout and stderr go to files from now on, and stdin give nothing. Safe in a signal handler of Python."""
    place = folder(env)
    for descriptor, name, how in (
        (0, os.devnull, os.O_RDONLY),
        (1, place / "out", os.O_WRONLY),
        (2, place / "log", os.O_WRONLY),
    ):
        if os.isatty(descriptor) or _is_gone(descriptor):
            opened = os.open(name, how | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(opened, descriptor)
            os.close(opened)


def _is_gone(descriptor: int) -> bool:
    """Whether `descriptor` is a terminal that was hung up: such a one doesn't say any more that it is a terminal."""
    try:
        return os.ttyname(descriptor) != ""
    except OSError:
        return os.major(os.fstat(descriptor).st_rdev) in {4, 5, *range(136, 144)}  # tty, console, pts (devices.txt)
