"""A folder as it is, uncommitted changes too.

In a git work tree these are the files that git tracks or would, in its submodules too; elsewhere all of them but what tools
leave behind. What isn't among them is neither hashed nor copied, so nothing unseen gets into a build: no empty folder, no
time stamp, no ignored file. The top of a work tree is laid out as a repository of its own, with HEAD and the one tag that
`git describe` finds, since versions are made from them; both are in the pin.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from builder import proc
from builder.digest import files_digest
from builder.errors import SourceError
from builder.source import checkout
from builder.stages import ZIP_EPOCH, Pin

if TYPE_CHECKING:
    from collections.abc import Iterator

    from builder.recipe.model import Source
    from builder.source.place import Sources
    from builder.stages import Request

__all__ = ["fetch", "materialize", "pin", "read"]

#: Folders that tools leave in a tree and that no build reads.
_LEFT = frozenset((".git", "__pycache__", ".venv", ".mypy_cache", ".ruff_cache", ".pytest_cache"))

#: Files that mark a folder as one of ours or as a cache (https://bford.info/cachedir/), not as source.
_MARKS = ("catalog.sqlite3", "CACHEDIR.TAG")


def pin(source: Source, request: Request, sources: Sources, *, base: Path) -> Pin:
    """Return the folder made exact. Raises SourceError ``source-folder``, ``source-empty`` or ``link-outside``."""
    path = base / (source.path or ".") if request.source is None else request.source
    if not path.is_dir():
        raise SourceError("source-folder", f"{path} is no folder", run=(f"ls -ld {path}",))
    files = _files(path, sources)
    if not files:
        raise SourceError("source-empty", f"{path} holds no source files", run=(f"ls -la {path}",))
    for name in files:
        if (path / name).is_symlink():
            checkout.inside(path, os.fspath(path / name))
    top = _is_top(path, sources)
    time = _git(path, sources, "log", "-1", "--format=%ct", *([] if top else ["--", "."]))
    return Pin(
        kind="local",
        url=path.resolve().as_uri(),
        tree=f"tree:{files_digest(path, files)}",
        time=int(time) if time else ZIP_EPOCH,
        commit=(_git(path, sources, "rev-parse", "--verify", "-q", "HEAD") or None) if top else None,
        describe=(_git(path, sources, *checkout.DESCRIBE) or None) if top else None,
        version=checkout.version_of(_git(path, sources, "tag", "--points-at", "HEAD").splitlines()) if top else None,
    )


def _is_top(path: Path, sources: Sources) -> bool:
    """Whether `path` is the top of a work tree: one inside of another's repository has no versions of its own."""
    top = _git(path, sources, "rev-parse", "--show-toplevel")
    return bool(top) and Path(top).resolve() == path.resolve()


def _files(path: Path, sources: Sources) -> list[str]:
    """Return the names of all files and links that belong to the folder, relative to it."""
    if _is_top(path, sources) or _git(path, sources, "ls-files", "--", "."):
        return list(_tracked(path, sources))
    return list(_walked(path, "", sources))


def _tracked(path: Path, sources: Sources) -> Iterator[str]:
    """Yield tracked and untracked-not-ignored files that exist, those of submodules and nested repositories too."""
    listed = _git(path, sources, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in dict.fromkeys(listed.split("\0")):
        inner = path / name.rstrip("/")
        if not name or not os.path.lexists(inner):
            continue
        if inner.is_dir() and not inner.is_symlink():
            if (inner / ".git").exists() and not _marked(inner, sources):
                yield from (f"{name.rstrip('/')}/{nested}" for nested in _files(inner, sources))
        elif _plain(inner):
            yield name


def _walked(path: Path, prefix: str, sources: Sources) -> Iterator[str]:
    with os.scandir(path) as entries:
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                if _plain(Path(entry.path)):
                    yield prefix + entry.name
            elif entry.name not in _LEFT and not _marked(Path(entry.path), sources):
                yield from _walked(Path(entry.path), f"{prefix}{entry.name}/", sources)


def _plain(path: Path) -> bool:
    mode = path.lstat().st_mode
    return stat.S_ISREG(mode) or stat.S_ISLNK(mode)


def _marked(path: Path, sources: Sources) -> bool:
    """Whether a folder is a wheelhouse, a cache or our own store: copying those would never end."""
    return any((path / mark).exists() for mark in _MARKS) or path.resolve() == sources.root.resolve()


def _git(path: Path, sources: Sources, *words: str) -> str:
    from builder.source.mirror import asking  # noqa: PLC0415

    # With the user's settings: their ignore rules say what they see as part of the tree, and all of that is hashed.
    done = proc.capture(["git", *words], env=asking(sources, ""), cwd=path)
    return os.fsdecode(done.raw).strip("\n") if done.ok else ""


def materialize(pinned: Pin, dest: Path, sources: Sources) -> None:
    """Copy the folder to `dest`; raise SourceError ``source-changed`` when it isn't what was pinned any more."""
    source = _path(pinned)
    beside = dest.with_name(f".{dest.name}.copying")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir(parents=True)
        files = _files(source, sources)
        for name in files:
            (beside / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, beside / name, follow_symlinks=False)
        if pinned.commit:
            _as_repository(pinned, source, beside, sources)
        found = _history(source, sources), f"tree:{files_digest(beside, files)}"
        if found != ((pinned.commit, pinned.describe) if pinned.commit else (None, None), pinned.tree):
            raise _changed(source)
        checkout.settle(beside, pinned.time)
        os.replace(beside, dest)  # noqa: PTH105  # fails on a folder that isn't empty, as it should
    except FileNotFoundError as error:
        raise _changed(source) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _history(source: Path, sources: Sources) -> tuple[str | None, str | None]:
    """Return commit and description of the folder as they are now."""
    if not _is_top(source, sources):
        return None, None
    commit = _git(source, sources, "rev-parse", "--verify", "-q", "HEAD")
    return commit or None, (_git(source, sources, *checkout.DESCRIBE) or None) if commit else None


def _as_repository(pinned: Pin, source: Path, dest: Path, sources: Sources) -> None:
    """Make `dest` a repository of its own: the source's may be a work tree, have hooks, and gigabytes."""
    commit = pinned.commit or ""
    objects = source / _git(source, sources, "rev-parse", "--git-path", "objects")
    checkout.repository(dest, sources, objects=objects.resolve(), origin=pinned.url, commit=commit)
    from builder.source.mirror import environment  # noqa: PLC0415

    env = environment(sources)
    proc.capture(["git", "-C", str(dest), "read-tree", commit], env=env)
    if pinned.describe:
        tag = f"refs/tags/{pinned.describe.rsplit('-', 2)[0]}"
        target = _git(source, sources, "rev-parse", "--verify", "-q", tag)
        proc.capture(["git", "-C", str(dest), "update-ref", tag, target], env=env)


def _changed(source: Path) -> SourceError:
    return SourceError(
        "source-changed",
        f"{source} changed between planning and copying",
        help="a build is of one state: run the same command again, and leave the folder alone while it is copied",
    )


def _path(pinned: Pin) -> Path:
    from urllib.parse import unquote, urlparse  # noqa: PLC0415

    return Path(unquote(urlparse(pinned.url).path))


def fetch(_pinned: Pin, _sources: Sources) -> int:
    """Nothing has to be brought in."""
    return 0


def read(pinned: Pin, path: str, _sources: Sources) -> bytes | None:
    """Return one file of the folder as it is now, or None."""
    try:
        return (_path(pinned) / path).read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
