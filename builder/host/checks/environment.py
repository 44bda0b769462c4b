"""What spark-build itself leans on: git, isolation, its configuration."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from builder.errors import HostError
from builder.host import programs
from builder.host.checks.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from builder.host.checks.finding import Subject

__all__ = ["configuration", "git", "isolation"]

#: What the mirrors need: ``git fetch --filter`` of single commits, ``safe.directory``.
GIT = (2, 35)

#: Settings that keep namespaces from a plain user: file, value that does, the command.
_SETTINGS = (
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
    ),
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sudo sysctl -w kernel.unprivileged_userns_clone=1"),
    ("/proc/sys/user/max_user_namespaces", "0", "sudo sysctl -w user.max_user_namespaces=15000"),
    ("/proc/sys/user/max_net_namespaces", "0", "sudo sysctl -w user.max_net_namespaces=15000"),
)

#: For what should have come with spark-build.
_REINSTALL = ("uv tool install --reinstall spark-build",)

_CONTAINERS = (".dockerenv", "run/.containerenv")


def git(subject: Subject) -> Iterator[Finding]:
    """Whether git is there and new enough."""
    path = programs.find("git", subject.env)
    wanted = f"git {GIT[0]}.{GIT[1]} or newer"
    why = "sources and patches pass through it"
    if path is None:
        run = ("sudo apt install git",)
        yield Finding(id="git", status="problem", found="none on PATH", wanted=wanted, why=why, run=run)
        return
    version = programs.version_in(programs.ask([path, "--version"], subject.env))
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) >= GIT:
        yield Finding(id="git", status="ok", found=version)
    else:
        run = ("sudo add-apt-repository ppa:git-core/ppa && sudo apt install git",)
        yield Finding(id="git", status="warn", found=version, wanted=wanted, why=why, run=run)


def isolation(subject: Subject) -> Iterator[Finding]:
    """Which level a build would get, and how to get the better one."""
    try:
        got = subject.isolation()
    except HostError as error:
        yield Finding(
            id="isolation",
            status="problem",
            found=error.cause or error.summary,
            wanted="namespaces",
            why="a build that reaches for the network isn't reproducible, so none starts without the cut",
            run=_REINSTALL if error.code == "tool-missing" else _better(subject),
        )
        return
    if got.level == "namespace":
        yield Finding(id="isolation", status="ok", found="namespaces: network cut, fixed build path")
        return
    yield Finding(
        id="isolation",
        status="warn",
        found=f"{got.level}: {got.reason}",
        wanted="namespaces",
        why="without them builds have no fixed path, and bits differ from place to place",
        run=_better(subject),
    )


def _better(subject: Subject) -> tuple[str, ...]:
    """Return what gives namespaces here, as far as settings tell; else what shows who refuses them."""
    found = [command for file, value, command in _SETTINGS if subject.text(file) == value]
    if any((subject.root / name).exists() for name in _CONTAINERS):
        # Docker's filter refuses pivot_root(2) whatever capabilities are given.
        found.append("docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined IMAGE")
    return tuple(found) or ("unshare --user --map-root-user --mount --net true",)


def configuration(subject: Subject) -> Iterator[Finding]:
    """Which files were read, and what is wrong in them."""
    read = ", ".join(str(Path(file)) for file in subject.files) or "no file: everything as it comes"
    if not subject.mistakes:
        yield Finding(id="configuration", status="ok", found=read)
        return
    yield Finding(
        id="configuration",
        status="problem",
        found="\n".join(subject.mistakes),
        wanted="configuration without mistakes",
        why="every command refuses to start with it",
        run=tuple(f"${{EDITOR:-vi}} {file}" for file in subject.files),
    )
