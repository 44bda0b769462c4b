"""The machine and its GPU, as nvidia-smi tells it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from builder import proc
from builder.host import compilers, floors, programs
from builder.host.checks.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from builder.host.checks.finding import Subject

__all__ = ["driver_cuda", "gpu", "machine"]

#: What a GB10 is.
MACHINE, CAPABILITY = "aarch64", "12.1"

_ASK_S = 30.0

#: The word between came with drivers that tell several versions.
_CUDA = re.compile(r"CUDA(?: UMD)? Version\s*:\s*(\d+\.\d+)")

_QUERY = ("--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader")


def machine(subject: Subject) -> Iterator[Finding]:
    """Architecture, distribution, kernel and C library."""
    name = os.uname()
    where = floors.distribution(subject.root / "etc/os-release") or "unknown distribution"
    found = f"{name.machine}, {where}, Linux {name.release.partition('-')[0]}, glibc {compilers.libc()}"
    if name.machine == MACHINE:
        yield Finding(id="machine", status="ok", found=found)
    else:
        why = f"wheels with machine code that are built here run on {name.machine} only"
        yield Finding(id="machine", status="info", found=found, wanted=f"{MACHINE} (GB10)", why=why)


def gpu(subject: Subject) -> Iterator[Finding]:
    """Name, compute capability and driver; a machine that only builds needs none."""
    smi = programs.find("nvidia-smi", subject.env)
    if smi is None:
        yield Finding(
            id="gpu", status="info", found="none: nvidia-smi isn't there; this machine builds, and can't try out"
        )
        return
    done = proc.capture([smi, *_QUERY], env=subject.clean_env(), cwd=Path("/"), timeout_s=_ASK_S)
    rows = [[cell.strip() for cell in line.split(",")] for line in done.out.splitlines()]
    rows = [row for row in rows if len(row) == 3]  # noqa: PLR2004  # what was asked for
    if not done.ok or not rows:
        yield Finding(
            id="gpu",
            status="warn",
            found=f"nvidia-smi fails: {_last(done)}",
            wanted="a GPU that answers",
            why="what is built here can't be tried out here; after an upgrade of the driver a restart mends it",
            run=("sudo reboot",),
        )
        return
    for name, capability, driver in rows:
        native = capability == CAPABILITY
        yield Finding(
            id="gpu",
            status="ok" if native else "info",
            found=f"{name}, compute capability {capability}, driver {driver}",
            wanted="" if native else f"{CAPABILITY} (GB10)",
            why=""
            if native
            else f"recipes build for {CAPABILITY}a unless --arch says otherwise; that doesn't run here",
        )


def driver_cuda(subject: Subject) -> str | None:
    """Return the newest CUDA that the driver runs (``13.0``), or None where there is no driver that answers."""
    smi = programs.find("nvidia-smi", subject.env)
    if smi is None:
        return None
    for words in (("--version",), ()):
        done = proc.capture([smi, *words], env=subject.clean_env(), cwd=Path("/"), timeout_s=_ASK_S)
        if done.ok and (told := _CUDA.search(done.out)):
            return told[1]
    return None


def _last(done: proc.Finished) -> str:
    lines = (done.err.strip() or done.out.strip()).splitlines()
    return lines[-1].strip() if lines else f"it ended with {done.code}"
