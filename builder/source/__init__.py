"""Sources: made exact (`pin`), brought in (`fetch`), looked into (`read`), laid out as a tree (`materialize`)."""

from __future__ import annotations

import contextlib
import errno
from typing import TYPE_CHECKING, Literal, Protocol

from builder.errors import HostError
from builder.source.place import Sources
from builder.values import replace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from builder.recipe.model import Source
    from builder.stages import Pin, Request

__all__ = ["Sources", "contains", "fetch", "materialize", "pin", "read"]


class _Kind(Protocol):
    """A kind of source: a module with these functions."""

    def pin(self, source: Source, request: Request, sources: Sources, *, base: Path) -> Pin: ...
    def fetch(self, pinned: Pin, sources: Sources) -> int: ...
    def materialize(self, pinned: Pin, dest: Path, sources: Sources) -> None: ...
    def read(self, pinned: Pin, path: str, sources: Sources) -> bytes | None: ...


def _kind(name: Literal["git", "sdist", "archive", "local"]) -> _Kind:
    """Return the module for a kind; only the one in use is imported."""
    match name:
        case "git":
            from builder.source import git  # noqa: PLC0415

            return git
        case "sdist":
            from builder.source import sdist  # noqa: PLC0415

            return sdist
        case "archive":
            from builder.source import archive  # noqa: PLC0415

            return archive
        case "local":
            from builder.source import local  # noqa: PLC0415

            return local


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Turn what a file system refuses into HostError ``unwritable`` or ``disk-full``."""
    try:
        yield
    except OSError as error:
        place = error.filename or "the sources' folder"
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            summary = f"no space left at {place}"
            raise HostError("disk-full", summary, cause=str(error), run=("spark-build gc",)) from error
        if error.errno not in {errno.EACCES, errno.EPERM, errno.EROFS}:
            raise
        raise HostError(
            "unwritable",
            f"{place} can't be used",
            cause=str(error),
            help="[sources] cache in the configuration names another folder for sources",
            run=(f"ls -ld {place}",),
        ) from error


@_told()
def pin(source: Source, request: Request, sources: Sources, *, recipe: str, base: Path) -> Pin:
    """Return `source` made exact for `request`; `base` is the folder that relative paths of the recipe mean.

    Raises SourceError: ``ref-missing``, ``remote-unreachable``, ``version-missing``, ``offline-unknown`` and others.
    """
    return _kind(source.kind).pin(source, request, replace(sources, recipe=recipe), base=base)


@_told()
def fetch(pinned: Pin, sources: Sources) -> int:
    """Bring in all that `materialize` reads; return how many bytes came over the network."""
    return _kind(pinned.kind).fetch(pinned, sources)


@_told()
def materialize(pinned: Pin, dest: Path, sources: Sources) -> None:
    """Leave the pinned tree at `dest`, which mustn't exist; a kill leaves nothing there."""
    _kind(pinned.kind).materialize(pinned, dest, sources)


@_told()
def read(pinned: Pin, path: str, sources: Sources) -> bytes | None:
    """Return one file of the pinned tree, or None; brings in what that needs."""
    return _kind(pinned.kind).read(pinned, path, sources)


def contains(pinned: Pin, commit: str, sources: Sources) -> bool:
    """Whether `commit` is an ancestor of the pinned commit or that itself; False for what has no history."""
    if pinned.kind != "git":
        return False
    from builder.source import git  # noqa: PLC0415

    return git.contains(pinned, commit, sources)
