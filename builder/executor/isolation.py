"""How a build is cut off: by namespaces, else by a socket filter, else not at all, and only when that was asked for.

``spark-build-enter`` (``launcher/enter.c``) does it. The level that was in force is kept beside the wheel.
"""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from builder import proc
from builder.errors import HostError
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Isolation", "probe"]

PROGRAM = "spark-build-enter"

Level = Literal["namespace", "seccomp", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolation:
    """What cuts the build off. `reason` says why it isn't the best level; empty when it is."""

    level: Level
    program: str
    reason: str = ""

    @property
    def fixed_path(self) -> bool:
        """Whether every tree of a recipe appears at the same path."""
        return self.level == "namespace"

    def wrap(self, argv: list[str], *, root: Path, inside: Path, cwd: str) -> list[str]:
        """Return the command that runs `argv` in folder `cwd`, with the tree `root` seen at `inside`."""
        words = [self.program]
        if self.level == "namespace":
            words += ["--namespaces", "--bind", str(root.resolve()), inside.name]
        elif self.level == "seccomp":
            words.append("--seccomp")
        return [*words, "--chdir", cwd, "--", *argv]


def probe(env: Mapping[str, str], *, wanted: Literal["auto", "namespace", "none"]) -> Isolation:
    """Return the best level that this machine gives and `wanted` allows.

    Raises HostError ``isolation`` when there is none that cuts the network, ``tool-missing`` when the program is lost.
    """
    program = str(Path(sysconfig.get_path("scripts")) / PROGRAM)
    if wanted == "none":
        return Isolation(level="none", program=program, reason="--isolation none")
    told = _tried(program, "--namespaces", env)
    if not told:
        return Isolation(level="namespace", program=program)
    if wanted == "auto" and not _tried(program, "--seccomp", env):
        return Isolation(level="seccomp", program=program, reason=told)
    raise HostError(
        "isolation",
        "the build's network can't be cut on this machine",
        cause=told,
        help="allow user namespaces (doctor says how), or build with the network open and say so",
        run=("spark-build doctor", "spark-build recipe NAME --isolation none"),
    )


def _tried(program: str, flag: str, env: Mapping[str, str]) -> str:
    """Return why a level can't be had, or an empty text."""
    done = proc.capture([program, flag, "--probe"], env={"PATH": env.get("PATH", os.defpath)}, timeout_s=20)
    return "" if done.ok else done.err.strip().removeprefix(f"{PROGRAM}: ") or f"ended with {done.code}"
