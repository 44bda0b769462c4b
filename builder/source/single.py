"""Single commits of repositories, without their history: what a tree pulls in while it is built."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from builder.source import git
from builder.source.mirror import Mirror
from builder.stages import Pin

if TYPE_CHECKING:
    from builder.source.place import Sources

__all__ = ["bring", "is_exact", "lacks", "named", "pin", "size"]


def is_exact(ref: str) -> bool:
    """Whether `ref` is a whole commit id, which never moves."""
    return git.FULL.fullmatch(ref.lower()) is not None


def named(mirror: Mirror, ref: str) -> tuple[str, float | None, bool]:
    """Return the commit that the remote has for `ref` now, when that was asked, and whether it wasn't now; brings nothing.

    A tag goes before a branch, as ``git checkout`` of a clone takes them. Raises SourceError ``ref-missing``,
    ``remote-unreachable`` or ``offline-unknown``.
    """
    if is_exact(ref):
        return ref.lower(), None, False
    if mirror.sources.offline:
        return git.last_known(mirror, ref)
    listed = mirror.ask(ref, *(f"refs/{kind}/{ref}{end}" for kind in ("tags", "heads") for end in ("^{}", "")), ref=ref)
    for name in (f"refs/tags/{ref}", f"refs/heads/{ref}", ref):
        if commit := listed.get(f"{name}^{{}}") or listed.get(name):
            with mirror.locked():
                mirror.note(ref, commit)
            return commit, mirror.sources.clock(), False
    return git.resolve(mirror, ref)  # a shortened commit, or a mistake with near names


def pin(mirror: Mirror, commit: str, *, ref: str, submodules: str | tuple[str, ...]) -> Pin:
    """Return one commit made exact, with the submodules that a recursive clone of those named has; brings what that takes.

    There is no history and so no description. Raises SourceError ``submodule-unreachable``, ``submodule-missing``,
    ``offline-unknown`` and those of a fetch.
    """
    git.bring_single(mirror, commit)
    tree = mirror.out("rev-parse", f"{commit}^{{tree}}")
    return Pin(
        kind="git",
        url=mirror.url,
        tree=f"git:{tree}",
        time=git.time_of(mirror, commit),
        ref=ref,
        commit=commit,
        submodules=tuple(git.submodules_of(mirror, tree, submodules, deep=True)),
    )


def lacks(pinned: Pin, sources: Sources) -> bool:
    """Whether the commit, its tree or one of its submodules would have to be fetched."""
    tree = pinned.tree.removeprefix("git:")  # that of pull requests is made here
    each = ((pinned.url, pinned.commit), (pinned.url, tree), *((one.url, one.commit) for one in pinned.submodules))
    return not all(commit and Mirror(url, sources).has(commit) for url, commit in each)


def size(pinned: Pin, sources: Sources) -> int | None:
    """Return how many bytes commit and submodules take without history, packed; None where that can't be told."""
    total = 0
    for url, commit in ((pinned.url, pinned.commit or ""), *((one.url, one.commit) for one in pinned.submodules)):
        told = Mirror(url, sources).out("rev-list", "--objects", "--disk-usage", "-1", commit)
        if not told.isdecimal():
            return None
        total += int(told)
    return total


def bring(pinned: Pin, sources: Sources) -> int:
    """Bring the commit and its submodules in, without history; return the bytes that came."""
    each = ((pinned.url, pinned.commit), *((one.url, one.commit) for one in pinned.submodules))
    received = sum(git.bring_single(Mirror(url, sources), commit or "") for url, commit in each)
    for url, _commit in each:
        with contextlib.suppress(OSError):  # read-only sources have no use for it
            os.utime(Mirror(url, sources).path)  # last used, for gc
    return received
