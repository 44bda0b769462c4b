"""Sees the processes of one build: by a variable that all of them inherit, in whatever group, session or namespace."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Between two looks; the shortest unit takes some hundred times as long.
LOOK_S = 0.01

#: What isn't a unit after so long will never be one: looking at all of a machine's processes costs what compilers need.
SETTLED_S = 0.5


class Watch:
    """Keeps which units' compilers ran, and when each of them was last seen, its launcher included.

    A unit is known by the object that its command names (``-o unit_07.cu.o``). Nothing is asked of the build itself.
    """

    def __init__(self, mark: str) -> None:
        self.started: dict[str, float] = {}
        self.seen: dict[str, float] = {}
        self._mark = mark.encode()
        self._others: dict[int, float] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Look no more."""
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(LOOK_S):
            self.look()

    def look(self) -> None:
        """Take down what runs at this moment."""
        now, before, self._others = time.monotonic(), self._others, {}
        for pid in running():
            met = self._others[pid] = before.get(pid, now)
            words = [] if now - met > SETTLED_S else read(pid, "cmdline").split(b"\0")
            unit = unit_of(words)
            if unit and self._mark in read(pid, "environ"):
                del self._others[pid]  # it may become something else yet
                self.seen[unit] = now
                if os.path.basename(words[0]) == b"nvcc":  # noqa: PTH119  # bytes
                    self.started.setdefault(unit, now)

    def pids(self) -> Iterator[int]:
        """Give the processes of the build that live."""
        return (pid for pid in running() if self._mark in read(pid, "environ"))

    def survivors(self, patience_s: float) -> list[str]:
        """Return the command lines of what still lives after so long."""
        limit = time.monotonic() + patience_s
        while (left := list(self.pids())) and time.monotonic() < limit:
            time.sleep(0.01)
        return [read(pid, "cmdline").replace(b"\0", b" ").decode(errors="replace") for pid in left]


def running() -> Iterator[int]:
    """Give all processes of the machine."""
    return (int(name) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208  # a hundred times a second


def read(pid: int, name: str) -> bytes:
    """Return a file of a process; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def unit_of(words: list[bytes]) -> str:
    """Return the object's name in a command of nvcc or of its launcher; empty for all others."""
    if b"-c" not in words or b"-o" not in words or not any(word.endswith(b"nvcc") for word in words[:2]):
        return ""
    name = os.path.basename(words[words.index(b"-o") + 1]).decode()  # noqa: PTH119  # bytes
    return name if name.startswith("unit_") else ""


def tree(pid: int) -> list[int]:
    """Return a process and all below it."""
    children: dict[int, list[int]] = {}
    for one in running():
        if status := read(one, "stat"):
            children.setdefault(int(status.rpartition(b")")[2].split()[1]), []).append(one)
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


def kill_tree(pid: int) -> None:
    """SIGKILL all of it, the highest first."""
    for one in tree(pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)
