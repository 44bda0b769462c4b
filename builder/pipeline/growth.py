"""What grows: everything that takes space in a wheelhouse and among the sources, with size and last use."""

from __future__ import annotations

import fcntl
import json
import os
from functools import partial
from typing import TYPE_CHECKING

from builder.pipeline import builds
from builder.pipeline.gc import ASIDE, Candidate, last_used
from builder.wheel.read import parse_name
from builder.wheelhouse import locks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from builder.wheelhouse import Wheelhouse

__all__ = ["collect", "wheels"]

#: What a reindex leaves in the wheelhouse when it is killed.
_UNFINISHED = ("catalog.new.sqlite3*", "catalog.sqlite3.making*")


def collect(root: Path, *, sources: Path) -> tuple[Candidate, ...]:
    """Return all but the wheels, of the wheelhouse `root` and the sources. Opens no catalogue: it may be full."""
    trees = list(_trees(root))
    kept = [one.path for one in trees]
    return (
        *_scratch(root, sources),
        *trees,
        *_logs(root),
        *_sources(sources, kept),
    )


def wheels(house: Wheelhouse) -> tuple[Candidate, ...]:
    """Return the wheels that were built here. Those from elsewhere aren't ours to judge."""
    found = []
    for wheel in house.list_wheels(include_unpublished=True):
        if not wheel.fingerprint:
            continue
        others = [name for name in house.channels(wheel) if name != "local"]
        target = json.dumps((house.inputs(wheel.fingerprint) or {}).get("target"), sort_keys=True)
        name = parse_name(wheel.filename)
        found.append(
            Candidate(
                kind="wheel",
                path=wheel.path,
                size=wheel.size,
                used=wheel.created,
                in_use=f"in channel {', '.join(others)}" if others else "",
                group=f"{wheel.recipe} {wheel.output} {name.python}-{name.abi}-{name.platform} {target}",
            )
        )
    return tuple(found)


def _scratch(root: Path, sources: Path) -> Iterator[Candidate]:
    places = [
        *((root / "builds", pattern) for pattern in (".fetch-*", ".lock-*", ".patches-*", ".scratch-*")),
        *((root, pattern) for pattern in _UNFINISHED),
        (sources / "files" / ".incoming", "*"),
        (sources / "files", "*/*.part"),
    ]
    for folder, pattern in places:
        for path in folder.glob(pattern):
            yield Candidate(kind="scratch", path=path, size=_size(path), used=_used(path))
    for folder in (root / "builds", sources / "files", sources / "git", root):
        for path in folder.glob(f"{ASIDE}*"):  # a gc was killed after its decision
            yield Candidate(kind="scratch", path=path, size=_size(path), used=_used(path), finished=True)


def _builds(root: Path) -> Iterator[Path]:
    if (root / "builds").is_dir():
        for path in sorted((root / "builds").iterdir()):
            if path.is_dir() and not path.name.startswith("."):
                yield path


def _trees(root: Path) -> Iterator[Candidate]:
    for path in _builds(root):
        entries = [entry for entry in path.iterdir() if entry.name != "logs"]
        if not entries:
            continue
        held = locks.is_held(root / "locks" / path.name)
        newest = max(_attempts(root, path), key=lambda one: one.attempt, default=None)
        yield Candidate(
            kind="tree",
            path=path,
            size=sum(_size(entry) for entry in entries),
            used=last_used(path),
            in_use="is being built" if held else "",
            # Without its marks it can't be resumed: a gc was killed in it.
            finished=(newest is not None and newest.outcome == "ok") or not (path / "state").exists(),
        )


def _attempts(root: Path, tree: Path) -> list[builds.Attempt]:
    alive = partial(locks.is_held, root / "locks" / tree.name)
    found = [builds.read(file, alive=alive) for file in (tree / "logs").glob("*/events.jsonl")]
    return [one for one in found if one is not None]


def _logs(root: Path) -> Iterator[Candidate]:
    """Yield the logs of each attempt, grouped by recipe; the last of a tree that can be resumed belongs to it."""
    for path in _builds(root):
        held = locks.is_held(root / "locks" / path.name)
        resumable = any(entry.name != "logs" for entry in path.iterdir())
        known = {one.logs: one for one in _attempts(root, path)}
        folders = [one for one in (path / "logs").glob("*") if one.is_dir()]
        last = max(folders, key=lambda one: int(one.name) if one.name.isdigit() else 0, default=None)
        for folder in folders:
            attempt = known.get(folder)
            yield Candidate(
                kind="log",
                path=folder,
                size=_size(folder),
                used=attempt.started if attempt else _used(folder),
                in_use="is being built" if held else "belongs to a tree" if resumable and folder == last else "",
                group=attempt.recipe if attempt else "",
            )


def _sources(sources: Path, trees: list[Path]) -> Iterator[Candidate]:
    for path in (sources / "files").glob("*"):
        if not path.name.startswith("."):
            yield Candidate(kind="archive", path=path, size=_size(path), used=last_used(path))
    mirrors = [path for path in (sources / "git").glob("*.git") if not path.name.startswith(".")]
    borrowed = _borrowed(trees) if mirrors else set()
    for path in mirrors:
        in_use = "a build tree borrows from it" if os.path.realpath(path) in borrowed else ""
        yield Candidate(
            kind="mirror",
            path=path,
            size=_size(path),
            used=last_used(path),
            in_use=in_use or ("is being fetched" if _fetched_now(path) else ""),
        )


def _borrowed(trees: list[Path]) -> set[str]:
    """Return the repositories whose objects the work trees in `trees` use (gitrepository-layout(5), alternates)."""
    found: set[str] = set()
    for tree in trees:
        for folder, folders, _files in os.walk(tree / "src"):
            if ".git" in folders:
                folders.remove(".git")
                alternates = os.path.join(folder, ".git", "objects", "info", "alternates")  # noqa: PTH118  # a walk
                try:
                    with open(alternates) as lines:  # noqa: PTH123
                        found |= {os.path.realpath(line.rstrip("\n")).removesuffix("/objects") for line in lines}
                except OSError:
                    continue
    return found


def _fetched_now(mirror: Path) -> bool:
    try:
        with mirror.with_suffix(".lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def _used(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return 0.0


def _size(path: Path) -> int:
    """Return what `path` takes on the disk, in bytes; what goes away meanwhile counts nothing."""
    found, pending = 0, [os.fspath(path)]
    while pending:
        place = pending.pop()
        try:
            found += os.lstat(place).st_blocks * 512  # a build tree has 100,000 of them
            with os.scandir(place) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    else:
                        found += entry.stat(follow_symlinks=False).st_blocks * 512
        except OSError:
            continue
    return found
