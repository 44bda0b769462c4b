"""The driver that is here, if any, and what an environment asks of it."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from builder.host.checks import Finding
from builder.runtime import known

if TYPE_CHECKING:
    from collections.abc import Iterator

    from builder.runtime.environment import Environment

__all__ = ["branch", "check", "for_cuda"]

#: The kernel module tells the whole version; the first number is the branch. The same file is seen in containers.
_VERSION = "proc/driver/nvidia/version"
_BRANCH = re.compile(r"Kernel Module(?: for \S+)?\s+(\d+)\.(\d+(?:\.\d+)?)")

#: First driver branch of a major version of CUDA: "CUDA Compatibility", "Minor Version Compatibility".
_FIRST = {11: 450, 12: 525, 13: 580}


def branch(environment: Environment) -> tuple[int, str]:
    """Return the branch of the driver (580) and its whole version (580.95.05); (0, "") where there is none."""
    with contextlib.suppress(OSError):
        text = Path(environment.root, _VERSION).read_text(encoding="utf-8", errors="replace")
        if found := _BRANCH.search(text):
            return int(found[1]), f"{found[1]}.{found[2]}"
    return 0, ""


def check(environment: Environment) -> Iterator[Finding]:
    """Yield which driver there is."""
    number, version = branch(environment)
    if number:
        yield Finding(id="driver", status="ok", found=version)
    else:
        yield Finding(id="driver", status="info", found="none here: nothing is run on a GPU, only looked at")


def for_cuda(environment: Environment, cuda: str, what: str) -> Iterator[Finding]:
    """Yield that the driver is too old for the major version of `cuda` (``13.0``), which `what` was built for."""
    number, version = branch(environment)
    major = int(cuda.partition(".")[0]) if cuda.partition(".")[0].isdecimal() else 0
    wanted = _FIRST.get(major, 0)
    if number and number < wanted:
        found = f"{version}, and {what} is for CUDA {cuda}"
        yield known.finding("driver-too-old", environment, check="driver", found=found, wanted=f"r{wanted} or newer")
