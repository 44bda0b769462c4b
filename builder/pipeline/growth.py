"""What grows: everything that takes space in a wheelhouse and among the sources, with size and last use."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import stat
import time
from functools import partial
from typing import TYPE_CHECKING

from builder.pipeline import builds
from builder.pipeline.gc import ASIDE, BUSY_S, Candidate, last_used, lock_of
from builder.values import replace
from builder.wheel.read import parse_name
from builder.wheelhouse import channel, locks

if TYPE_CHECKING:
    from collections.abc import Container, Iterator
    from pathlib import Path

    from builder.pipeline.gc import Kind
    from builder.wheelhouse import Wheelhouse

__all__ = ["collect", "wheels"]

#: What a reindex leaves in the wheelhouse when it is killed.
_UNFINISHED = ("catalog.new.sqlite3*", "catalog.sqlite3.making*")

#: The names that spark-build gives to folders.
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MIRROR = re.compile(r".+-[0-9a-f]{12}\.git")
_KEY = re.compile(r"[0-9a-f]{32}")
_MAKING = re.compile(r"\.[0-9a-f]{64}\.making")
_SCRATCH = re.compile(r"\.(fetch|lock|patches|pull|scratch)-\w+")
_ASIDE = re.compile(rf"{re.escape(ASIDE)}[0-9a-f]{{16}}")
_REBUILD = re.compile(r"\.rebuild-[0-9a-f]{64}")
_NUMBER = re.compile(r"[0-9]+")
_CACHES = re.compile(r"uv|ccache")
_CONTEXT = re.compile(r"\.image-\w+")
_TWO = re.compile(r"[0-9a-z]{2}")
_VALUE = re.compile(r"[0-9a-z]{14,126}")
_TORN = re.compile(r"\.[0-9a-f]{24}")


def collect(root: Path, *, sources: Path, stored: Container[str] = ()) -> tuple[Candidate, ...]:
    """Return all but the wheels, of the wheelhouse `root` and the sources; `stored` are fingerprints that are finished.

    Opens no catalogue: it may be full. Only what spark-build could have made counts: real folders and files, never links,
    with names of its own.
    """
    trees, again = list(_trees(root, stored)), list(_rebuilds(root))
    kept = [*(one.path for one in trees), *(path for one in again for path in _folders(one.path, _SHA256))]
    return (
        *_scratch(root, sources),
        *_contexts(sources),
        *_uploads(root / "uploads"),
        *_objects(root / "ccache"),
        *trees,
        *again,
        *_logs(root),
        *_sources(sources, kept, list((root / "patching").glob("*/*"))),
    )


def wheels(house: Wheelhouse) -> tuple[Candidate, ...]:
    """Return the wheels that were built here. Those from elsewhere aren't ours to judge."""
    found, past = [], channel.targets(house)
    for wheel in house.list_wheels(include_unpublished=True):
        if not wheel.fingerprint:
            continue
        others = [name for name in house.channels(wheel) if name != "local"]
        named = f"in channel {', '.join(others)}" if others else ""
        target = json.dumps((house.inputs(wheel.fingerprint) or {}).get("target"), sort_keys=True)
        name = parse_name(wheel.filename)
        found.append(
            Candidate(
                kind="wheel",
                path=wheel.path,
                size=wheel.size,
                used=wheel.created,
                in_use=named or ("what a rollback brings back" if wheel.sha256 in past else ""),
                group=f"{wheel.recipe} {wheel.output} {name.python}-{name.abi}-{name.platform} {target}",
            )
        )
    return tuple(found)


def _scratch(root: Path, sources: Path) -> Iterator[Candidate]:
    archives = _folders(sources / "files", _SHA256)
    left = [
        *_folders(root / "builds", _SCRATCH),
        *_folders(sources / "files" / ".incoming", _KEY),
        *(path for pattern in _UNFINISHED for path in root.glob(pattern)),
        *(path for folder in archives for end in ("part", "part.mark") for path in folder.glob(f"*.{end}")),
        *_folders(sources / "crates", _MAKING),
    ]
    for path in left:
        if not path.is_symlink():
            yield Candidate(kind="scratch", path=path, size=_size(path), used=last_used(path))
    places = (sources, *(sources / name for name in ("git", "crates", "files", "files/.incoming")))
    for folder in (root / "builds", *places):
        for path in _folders(folder, _ASIDE):  # a gc was killed after its decision
            yield Candidate(kind="scratch", path=path, size=_size(path), used=last_used(path), finished=True)


def _contexts(sources: Path) -> Iterator[Candidate]:
    """Yield the folders that images are built from; whoever builds one holds its folder. See `builder.image.context`."""
    for path in _folders(sources, _CONTEXT):
        held = "an image is built from it" if locks.is_claimed(path) else ""
        yield Candidate(kind="scratch", path=path, size=_size(path), used=last_used(path), in_use=held)


def _uploads(uploads: Path) -> Iterator[Candidate]:
    """Yield what the server takes in: uploads, and wheels that are sent in pieces. See `builder.server.incoming`.

    Who is at an upload holds its folder. That is looked at only where it matters: looking holds it, too, for a moment.
    """
    staged = _folders(uploads / "staging", _SHA256)
    for path in (*_folders(uploads, _KEY), *staged):
        used = last_used(path)
        held = path not in staged and time.time() - used > BUSY_S and locks.is_claimed(path)
        yield Candidate(kind="scratch", path=path, size=_size(path), used=used, in_use="is being sent" if held else "")
    for path in (*_folders(uploads, _ASIDE), *_folders(uploads / "staging", _ASIDE)):
        yield Candidate(kind="scratch", path=path, size=_size(path), used=last_used(path), finished=True)


def _objects(store: Path) -> Iterator[Candidate]:
    """Yield what the server keeps for compile caches, with the time of the last use; see `builder.server.ccache`."""
    for folder in _folders(store, _TWO):
        yield from _files(folder, _VALUE, "object")
    yield from _files(store, _TORN, "scratch")


def _files(folder: Path, names: re.Pattern[str], kind: Kind) -> Iterator[Candidate]:
    """Yield the real files in `folder` whose names are ours; there may be 100,000 of them."""
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # the server drops some, too
                if names.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                    found = entry.stat(follow_symlinks=False)
                    path, size = folder / entry.name, found.st_blocks * 512
                    yield Candidate(kind=kind, path=path, size=size, used=found.st_mtime)


def _folders(folder: Path, names: re.Pattern[str]) -> list[Path]:
    """Return the real folders in `folder` whose names are ours; what else lies there is somebody's own."""
    if not folder.is_dir():
        return []
    found = sorted(path for path in folder.iterdir() if names.fullmatch(path.name))
    return [path for path in found if path.is_dir() and not path.is_symlink()]


def _builds(root: Path) -> Iterator[Path]:
    for path in _folders(root / "builds", _SHA256):
        if not (path / "logs").is_symlink():
            yield path


def _trees(root: Path, stored: Container[str]) -> Iterator[Candidate]:
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
            # Killed after its publish it is stored; without its marks it can't be resumed: a gc was killed in it.
            finished=path.name in stored
            or (newest is not None and newest.outcome == "ok")
            or not (path / "state").exists(),
        )


def _rebuilds(root: Path) -> Iterator[Candidate]:
    """Yield the trees of `rebuild`: what is left of one is never gone on with."""
    for path in _folders(root / "builds", _REBUILD):
        held = locks.is_held(root / "locks" / path.name)
        used = max(map(last_used, (path, *_folders(path, _SHA256))))
        in_use = "is being built" if held else ""
        yield Candidate(kind="tree", path=path, size=_size(path), used=used, in_use=in_use, finished=True)


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
        folders = _folders(path / "logs", _NUMBER)
        last = max(folders, key=lambda one: int(one.name), default=None)
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


def _sources(sources: Path, trees: list[Path], edited: list[Path]) -> Iterator[Candidate]:
    for path in (*_folders(sources / "files", _SHA256), *_folders(sources / "crates", _SHA256)):
        yield Candidate(kind="archive", path=path, size=_size(path), used=last_used(path))
    mirrors = _folders(sources / "git", _MIRROR)
    borrowed = _borrowed(trees, edited) if mirrors else set()
    for path in mirrors:
        one = Candidate(kind="mirror", path=path, size=_size(path), used=last_used(path))
        lent = "a build tree borrows from it" if os.path.realpath(path) in borrowed else ""
        yield replace(one, in_use=lent or _held_now(one))
    for path in _folders(sources, _CACHES):
        one = Candidate(kind="cache", path=path, size=_size(path), used=last_used(path))
        yield replace(one, in_use=_held_now(one))


def _borrowed(trees: list[Path], edited: list[Path]) -> set[str]:
    """Return the repositories whose objects build trees and trees of patches use (gitrepository-layout(5), alternates)."""
    found: set[str] = set()
    for top in (*(tree / "src" for tree in trees), *edited):
        for folder, folders, _files in os.walk(top):
            if ".git" in folders:
                folders.remove(".git")
                alternates = os.path.join(folder, ".git", "objects", "info", "alternates")  # noqa: PTH118  # a walk
                try:
                    with open(alternates) as lines:  # noqa: PTH123
                        found |= {os.path.realpath(line.rstrip("\n")).removesuffix("/objects") for line in lines}
                except OSError:
                    continue
    for tree in trees:
        with contextlib.suppress(OSError):  # it goes away meanwhile
            for file in (tree / "deps" / "git").rglob("objects/info/alternates"):  # what the tree pulls in
                found |= {os.path.realpath(line).removesuffix("/objects") for line in file.read_text().splitlines()}
    return found


def _held_now(one: Candidate) -> str:
    try:
        with lock_of(one).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return "is being used"
    except FileNotFoundError:
        pass
    return ""


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
            status = os.lstat(place)
            found += status.st_blocks * 512  # a build tree has 100,000 of them
            if not stat.S_ISDIR(status.st_mode):
                continue
            with os.scandir(place) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    else:
                        found += entry.stat(follow_symlinks=False).st_blocks * 512
        except OSError:
            continue
    return found
