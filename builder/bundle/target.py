"""What a bundle is for: a Python and a platform, never those of the machine that makes it."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

from builder.errors import UsageError
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable

    from packaging.tags import Tag

__all__ = ["GB10", "PYTHON", "Target", "cuda_of", "driver_of", "parse"]

#: DGX OS and Ubuntu 24.04: glibc 2.39, CPython 3.12.
GB10, PYTHON = "aarch64-manylinux_2_39", "3.12"

_PLATFORM = re.compile(r"(aarch64|x86_64)-manylinux_2_(\d+)")
_PYTHON = re.compile(r"3\.\d+")

#: The oldest glibc that a manylinux tag names, by machine (PEP 599, PEP 513), with the tags of before PEP 600.
_OLDEST = {"aarch64": 17, "x86_64": 5}
_LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}

#: First driver branch of a CUDA major: "CUDA Compatibility", "Minor Version Compatibility".
_DRIVERS = {11: 450, 12: 525, 13: 580}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """CPython `python` (as ``3.12``) on Linux, `machine`, with glibc 2.`glibc` or newer."""

    python: str
    machine: str
    glibc: int

    @property
    def platform(self) -> str:
        """The target as uv's ``--python-platform`` takes it."""
        return f"{self.machine}-manylinux_2_{self.glibc}"

    @property
    def words(self) -> tuple[str, ...]:
        """The words that make uv resolve for the target; wheels only, since nothing else can be installed there."""
        return ("--python-version", self.python, "--python-platform", self.platform, "--only-binary", ":all:")

    @property
    def markers(self) -> dict[str, str]:
        """The environment that markers are evaluated in (PEP 508)."""
        return {
            "implementation_name": "cpython",
            "implementation_version": f"{self.python}.0",
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": f"{self.python}.0",
            "python_version": self.python,
            "sys_platform": "linux",
        }

    def tags(self) -> tuple[Tag, ...]:
        """Return the tags of wheels that run there, the best first."""
        from packaging import tags  # noqa: PLC0415

        version = tuple(map(int, self.python.split(".")))
        platforms: list[str] = []
        for minor in range(self.glibc, _OLDEST[self.machine] - 1, -1):
            platforms.append(f"manylinux_2_{minor}_{self.machine}")
            platforms += [f"{_LEGACY[minor]}_{self.machine}"] if minor in _LEGACY else []
        platforms.append(f"linux_{self.machine}")
        interpreter = f"cp{version[0]}{version[1]}"
        return (
            *tags.cpython_tags(version, abis=[interpreter], platforms=platforms),
            *tags.compatible_tags(version, interpreter=interpreter, platforms=platforms),
        )

    def as_json(self) -> dict[str, Any]:
        """Return what a manifest says of it."""
        return {"python": self.python, "machine": self.machine, "glibc": f"2.{self.glibc}", "platform": self.platform}


def parse(platform: str, python: str) -> Target:
    """Return the target of ``--platform`` and ``--target-python``.

    Raises UsageError ``target-platform`` for one that leaves the glibc to uv, which takes 2.28 then and gives releases of a
    year ago without a word; ``target-python``.
    """
    found = _PLATFORM.fullmatch(platform)
    if not found or int(found[2]) < _OLDEST[found[1]]:
        machine = "x86_64" if "x86" in platform or "amd64" in platform else "aarch64"
        raise UsageError(
            "target-platform",
            f"{platform} doesn't say what the target is",
            cause="without its glibc, a resolver takes an old one and gives old releases without a word",
            help="wanted MACHINE-manylinux_2_N: aarch64 or x86_64, and the glibc that `ldd --version` says on the target",
            run=(
                shlex.join(
                    ["spark-build", "bundle", "export", "DIR", "NAME", "--platform", f"{machine}-manylinux_2_39"]
                ),
            ),
        )
    if not _PYTHON.fullmatch(python):
        raise UsageError(
            "target-python",
            f"{python} is no Python to install for",
            cause="wanted major and minor, as 3.12",
            run=("spark-build bundle export DIR NAME --target-python 3.12",),
        )
    return Target(python=python, machine=found[1], glibc=int(found[2]))


def cuda_of(packages: Iterable[tuple[str, str]]) -> str | None:
    """Return the CUDA that `packages` (name, version) run on, as ``13.0``: that of the run-time library among them."""
    for name, version in packages:
        if re.fullmatch(r"nvidia-cuda-runtime(-cu\d+)?", name):
            return ".".join(version.split(".")[:2])
    return None


def driver_of(cuda: str | None) -> int | None:
    """Return the oldest driver branch that CUDA starts on."""
    return _DRIVERS.get(int(cuda.partition(".")[0])) if cuda else None
