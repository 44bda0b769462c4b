"""Sources: made exact (`pin`), brought in (`fetch`), looked into (`read`), laid out as a tree (`materialize`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

from builder.recipe.interpolate import expand
from builder.source.place import Sources, refusals, without_credentials
from builder.values import replace

if TYPE_CHECKING:
    from pathlib import Path

    from builder.recipe.model import Source
    from builder.stages import Pin, Request

__all__ = ["Sources", "contains", "fetch", "held", "lacks", "materialize", "pin", "private", "read"]


class _Kind(Protocol):
    """A kind of source: a module with these functions."""

    def pin(self, source: Source, request: Request, sources: Sources, *, base: Path) -> Pin: ...
    def fetch(self, pinned: Pin, sources: Sources) -> int: ...
    def materialize(self, pinned: Pin, dest: Path, sources: Sources) -> None: ...
    def read(self, pinned: Pin, path: str, sources: Sources) -> bytes | None: ...


def _kind(name: Literal["git", "sdist", "archive", "local", "crates"]) -> _Kind:
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
        case "crates":
            raise ValueError("crates are never a whole source")


@refusals()
def pin(source: Source, request: Request, sources: Sources, *, recipe: str, base: Path) -> Pin:
    """Return `source` made exact for `request`; `base` is the folder that relative paths of the recipe mean.

    Raises SourceError: ``ref-missing``, ``remote-unreachable``, ``version-missing``, ``offline-unknown`` and others.
    """
    return _kind(source.kind).pin(source, request, replace(sources, recipe=recipe), base=base)


def held(pinned: Pin, source: Source, request: Request) -> Pin:
    """Return `pinned`, which a lock holds: it is asked for with the login that `request` or `source` has in its URL."""
    without_credentials(request.repo or expand(source.url or "", {"version": pinned.version or ""}))
    return pinned


def private(url: str | None) -> bool:
    """Whether a URL holds what is neither shown nor kept."""
    return url is not None and without_credentials(url) != url


@refusals()
def fetch(pinned: Pin, sources: Sources) -> int:
    """Bring in all that `materialize` reads; return how many bytes came over the network."""
    return _kind(pinned.kind).fetch(pinned, sources)


@refusals()
def materialize(pinned: Pin, dest: Path, sources: Sources) -> None:
    """Leave the pinned tree at `dest`, which mustn't exist; a kill leaves nothing there."""
    _kind(pinned.kind).materialize(pinned, dest, sources)


@refusals()
def read(pinned: Pin, path: str, sources: Sources) -> bytes | None:
    """Return one file of the pinned tree, or None; brings in what that needs."""
    return _kind(pinned.kind).read(pinned, path, sources)


def lacks(pinned: Pin, sources: Sources) -> bool:
    """Whether a fetch would have to bring something in."""
    match pinned.kind:
        case _ if pinned.tree == "unknown":
            return True
        case "git":
            from builder.source import single  # noqa: PLC0415

            return single.lacks(pinned, sources)
        case "crates":
            from builder.source import crates  # noqa: PLC0415

            return not crates.folder_of(pinned, sources).exists()
        case "local":
            return False
    from builder.source import archive  # noqa: PLC0415

    return not archive.file_of(pinned, sources).exists()


def contains(pinned: Pin, commit: str, sources: Sources) -> bool:
    """Whether `commit` is an ancestor of the pinned commit or that itself; False for what has no history."""
    if pinned.kind != "git":
        return False
    from builder.source import git  # noqa: PLC0415

    return git.contains(pinned, commit, sources)
