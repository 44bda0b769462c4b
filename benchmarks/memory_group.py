"""A control group with a memory limit, v2 where its controller is there, else v1; needs root."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

V1, V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")


class Group:
    """One group; `kind` is what tables print."""

    def __init__(self, folder: Path, *, v2: bool) -> None:
        self.folder = folder
        self.v2 = v2
        self.kind = f"cgroup {'v2' if v2 else 'v1'}, {swap()}"

    def inside(self, command: list[str]) -> list[str]:
        """Return a command that runs `command` in the group."""
        return ["/bin/sh", "-c", 'echo $$ >"$0" && exec "$@"', str(self.folder / "cgroup.procs"), *command]

    def peak_bytes(self) -> int:
        """Return the most that was charged since the group was made."""
        return int((self.folder / ("memory.peak" if self.v2 else "memory.max_usage_in_bytes")).read_text())

    def kernel_kills(self) -> int:
        """Return how many processes the kernel has killed in it for memory."""
        file = self.folder / ("memory.events" if self.v2 else "memory.oom_control")
        return int(dict(line.split() for line in file.read_text().splitlines())["oom_kill"])

    def pids(self) -> list[int]:
        """Return the processes in it."""
        return [int(word) for word in (self.folder / "cgroup.procs").read_text().split()]


def swap() -> str:
    """Return how much swap the machine has, in words."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    kib = next(int(line.split()[1]) for line in lines if line.startswith("SwapTotal"))
    return f"swap {kib >> 10} MiB" if kib else "no swap"


@contextlib.contextmanager
def limited(name: str, limit_bytes: int) -> Iterator[Group]:
    """Give a group that holds at most `limit_bytes`; what is left in it is killed at the end."""
    controllers = V2 / "cgroup.controllers"
    v2 = controllers.exists() and "memory" in controllers.read_text().split()
    if v2:
        (V2 / "cgroup.subtree_control").write_text("+memory")
    group = Group((V2 if v2 else V1) / f"{name}-{os.getpid()}", v2=v2)
    group.folder.mkdir()
    try:
        (group.folder / ("memory.max" if v2 else "memory.limit_in_bytes")).write_text(str(limit_bytes))
        yield group
    finally:
        for _turn in range(100):
            for pid in group.pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, 9)
            with contextlib.suppress(OSError):
                group.folder.rmdir()
                break
            time.sleep(0.1)
