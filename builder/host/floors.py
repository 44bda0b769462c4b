"""Whether a host has what a recipe needs, and what to type where it doesn't."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from builder.errors import HostError
from builder.values import dataclass

if TYPE_CHECKING:
    from builder.recipe.model import System
    from builder.stages import Host, Tool

__all__ = ["GCC_ELSEWHERE", "Lack", "check", "distribution", "fits", "gcc_command", "package", "require"]


#: What is left to do on a distribution without a package of a newer g++.
GCC_ELSEWHERE = "Debian 12 has no package of g++ 13 or newer: build in a root of Debian 13 (trixie), or on Ubuntu 24.04"

#: Debian's packages of programs that are called otherwise.
_PACKAGES = {
    "ar": "binutils",
    "clang++": "clang",
    "hg": "mercurial",
    "ld": "binutils",
    "ld.lld": "lld",
    "ninja": "ninja-build",
    "pkg-config": "pkgconf",
    "protoc": "protobuf-compiler",
    "strip": "binutils",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Lack:
    """One thing that is missing or too old: what was found, what was wanted, the command that mends it if there is one."""

    name: str
    found: str
    wanted: str
    run: str


def check(system: System, host: Host, *, distro: str | None = None) -> tuple[Lack, ...]:
    """Return everything that `host` lacks of what `system` names, in the recipe's order; nothing when it will do.

    `distro` is ``debian-12`` and the like; asked of the machine when left out.
    """
    where = distribution() if distro is None else distro
    tools = {tool.name: tool for tool in host.tools}
    lacks = [
        _ranged("CUDA toolkit", host.cuda, system.cuda, _cuda_command(host.machine)),
        _ranged("g++", tools.get("g++"), system.gcc, gcc_command(where)),
        _ranged("clang++", tools.get("clang++"), system.clang, "sudo apt install clang lld")
        if "clang++" in tools or {"clang", "clang++"} & set(system.tools)
        else None,
        _ranged("rustc", tools.get("rustc"), system.rust, "curl https://sh.rustup.rs -sSf | sh"),
    ]
    lacks += [
        Lack(name=name, found="none on PATH", wanted="any", run=f"sudo apt install {package(name)}")
        for name in system.tools
        if name not in tools and name != "clang"
    ]
    missing = [name for name in system.apt if (tool := tools.get(f"apt:{name}")) and not tool.version]
    if missing:
        names = " ".join(missing)
        lacks.append(
            Lack(name=f"packages {names}", found="not installed", wanted="installed", run=f"sudo apt install {names}")
        )
    if system.headers and not host.interpreter.headers:
        lacks.append(headers_lack(host))
    return tuple(lack for lack in lacks if lack is not None)


def package(program: str) -> str:
    """Return the Debian package that has `program`."""
    return _PACKAGES.get(program, program)


def require(system: System, host: Host, *, distro: str | None = None) -> None:
    """Raise HostError ``toolchain-floor`` with everything that `host` lacks."""
    lacks = check(system, host, distro=distro)
    if lacks:
        names = ", ".join(lack.name for lack in lacks)
        raise HostError(
            "toolchain-floor",
            f"this machine lacks what the build needs: {names}",
            cause="\n".join(f"{lack.name}: found {lack.found}, wanted {lack.wanted}" for lack in lacks),
            help="" if all(lack.run for lack in lacks) else GCC_ELSEWHERE,
            run=(*dict.fromkeys(lack.run for lack in lacks if lack.run), "spark-build doctor"),
        )


def headers_lack(host: Host) -> Lack:
    """Return what is missing where Python's headers are."""
    minor = ".".join(host.interpreter.version.split(".")[:2])
    return Lack(
        name="Python headers",
        found=f"no Python.h for {host.interpreter.path}",
        wanted=f"the headers of Python {minor}",
        run=f"sudo apt install python{minor}-dev",
    )


def gcc_command(distro: str) -> str:
    """Return how a g++ of version 13 or newer comes to this distribution; empty where it has none, see `GCC_ELSEWHERE`."""
    if distro == "debian-12":
        return ""
    if distro == "ubuntu-22.04":
        return "sudo add-apt-repository ppa:ubuntu-toolchain-r/test && sudo apt install g++-13"
    return "sudo apt install g++"


@functools.cache  # asked of each recipe of a plan
def distribution(release: Path = Path("/etc/os-release")) -> str:
    """Return ID and VERSION_ID of os-release(5) as ``ubuntu-24.04``, or an empty text."""
    try:
        lines = release.read_text().splitlines()
    except OSError:
        return ""
    fields = {key: value.strip("\"'") for key, _equals, value in (line.partition("=") for line in lines)}
    return f"{fields.get('ID', '')}-{fields.get('VERSION_ID', '')}".strip("-")


def _cuda_command(machine: str) -> str:
    return "sudo apt install cuda-toolkit-13-0" if machine in {"aarch64", "x86_64"} else "spark-build doctor"


def _ranged(name: str, tool: Tool | None, wanted: str | None, run: str) -> Lack | None:
    if wanted is None:
        return None
    if tool is None:
        return Lack(name=name, found="none", wanted=wanted, run=run)
    return None if fits(tool.version, wanted) else Lack(name=name, found=tool.version, wanted=wanted, run=run)


@functools.cache
def fits(version: str, wanted: str) -> bool:
    """Return whether a version lies in a range (PEP 440); one that can't be read doesn't."""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet  # noqa: PLC0415  # only on a miss
    from packaging.version import InvalidVersion  # noqa: PLC0415

    try:
        return SpecifierSet(wanted).contains(version, prereleases=True)
    except (InvalidSpecifier, InvalidVersion):
        return False
