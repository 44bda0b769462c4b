"""The folders that spark-build writes into."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

from builder.host import disk as measured
from builder.host.checks.finding import Finding
from builder.recipe.units import parse_bytes, show_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from builder.host.checks.finding import Subject

__all__ = ["disk", "wheelhouse"]

_GIB = 1 << 30

#: A source tree with its history, and scratch files of programs that mind TMPDIR.
_SOURCES, _TEMPORARY = 2 * _GIB, _GIB

#: A build of vLLM leaves some ten thousand files.
_INODES = 50_000


def wheelhouse(subject: Subject) -> Iterator[Finding]:
    """Whether the wheelhouse lies where locks hold, can be written, and lets built programs run."""
    path, kind = subject.wheelhouse.path, subject.wheelhouse.network
    place = _existing(path)
    flags = os.statvfs(place).f_flag
    elsewhere = "spark-build doctor --wheelhouse DIR"
    if kind:
        found, wanted = f"{path} lies on a network file system ({kind})", "a local disk"
        why = "locks don't hold there: two machines could damage the catalogue"
        run = ("spark-build index export DIR", elsewhere)
    elif flags & os.ST_RDONLY:
        found, wanted = f"{path} is mounted read-only", "a folder that can be written"
        why = "nothing can be built into it"
        run = (f"sudo mount -o remount,rw {_mount(place)}", elsewhere)
    elif not os.access(place, os.W_OK | os.X_OK):
        found, wanted = f"{path} can't be written", "a folder that can be written"
        why = "nothing can be built into it"
        run = (f'sudo install -d -o "$(id -un)" {shlex.quote(str(path))}', elsewhere)
    elif flags & os.ST_NOEXEC:
        found, wanted = f"{path} is mounted noexec", "a folder from which programs run"
        why = "builds lie in it and run what they built"
        run = (f"sudo mount -o remount,exec {_mount(place)}", elsewhere)
    else:
        yield Finding(id="wheelhouse", status="ok", found=str(path))
        return
    yield Finding(id="wheelhouse", status="problem", found=found, wanted=wanted, why=why, run=run)


def disk(subject: Subject) -> Iterator[Finding]:
    """Whether there is room for a build, for sources and for scratch files."""
    largest = max((parse_bytes(recipe.resources.disk) for recipe in subject.recipes), default=_GIB)
    yield _room("disk.wheelhouse", subject.wheelhouse.path, largest, "spark-build gc")
    yield _room("disk.sources", subject.sources.path, _SOURCES, "spark-build gc")
    yield _room("disk.tmp", subject.temporary, _TEMPORARY, "export TMPDIR=/var/tmp")


def _room(name: str, path: Path, needed: int, run: str) -> Finding:
    place = _existing(path)
    free, inodes = measured.free_bytes(path), os.statvfs(place)
    few = inodes.f_files > 0 and inodes.f_favail < _INODES
    text = f"{show_bytes(free)} free at {path}"
    if free >= needed and not few:
        return Finding(id=name, status="ok", found=text)
    return Finding(
        id=name,
        status="warn",
        found=f"{text}, {inodes.f_favail} files more" if few else text,
        wanted=f"{_INODES} files" if few else show_bytes(needed),
        why="a build that fills the disk stops, and goes on when there is room again",
        run=(run,),
    )


def _existing(path: Path) -> Path:
    place = path.absolute()
    while not place.exists():
        place = place.parent
    return place


def _mount(path: Path) -> Path:
    place = path.resolve()
    while not place.is_mount():
        place = place.parent
    return place
