"""A folder as it is, uncommitted changes too."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from builder import proc
from builder.digest import tree_digest
from builder.errors import SourceError
from builder.stages import Pin

if TYPE_CHECKING:
    from builder.recipe.model import Source
    from builder.source.place import Sources
    from builder.stages import Request

__all__ = ["materialize", "pin", "read"]

#: Folders that tools leave in a tree and that no build reads.
_LEFT = (".git", "__pycache__", ".venv", ".mypy_cache", ".ruff_cache", ".pytest_cache")


def pin(source: Source, request: Request, sources: Sources, *, base: Path) -> Pin:
    """Return the folder made exact: in a git work tree the files that git tracks or would, else all of them."""
    path = base / (source.path or ".") if request.source is None else request.source
    if not path.is_dir():
        raise SourceError("source-folder", f"{path} is no folder", run=(f"ls -ld {path}",))
    commit = _git(path, sources, "rev-parse", "HEAD")
    time = _git(path, sources, "log", "-1", "--format=%ct")
    files = _files(path, sources)
    return Pin(
        kind="local",
        url=path.resolve().as_uri(),
        tree=f"tree:{_digest(path, files)}",
        time=int(time) if time else 315532800,
        commit=commit or None,
    )


def _digest(path: Path, files: list[str] | None) -> str:
    if files is None:
        return tree_digest(path, skip=_LEFT)
    import stat  # noqa: PLC0415

    from builder.digest import sha256_bytes, sha256_file  # noqa: PLC0415

    lines = []
    for name in sorted(files):
        status = (path / name).lstat()
        if stat.S_ISLNK(status.st_mode):
            lines.append(f"l {name}\0{(path / name).readlink()}\n")
        elif stat.S_ISREG(status.st_mode):
            kind = "x" if status.st_mode & 0o100 else "f"
            lines.append(f"{kind} {name}\0{sha256_file(path / name)}\n")
    return sha256_bytes(os.fsencode("".join(lines)))


def _files(path: Path, sources: Sources) -> list[str] | None:
    """Return tracked and untracked-not-ignored files that exist, or None outside of git (and for submodules' sake)."""
    top = _git(path, sources, "rev-parse", "--show-toplevel")
    if not top or Path(top).resolve() != path.resolve() or (path / ".gitmodules").exists():
        return None
    listed = _git(path, sources, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    return [name for name in dict.fromkeys(listed.split("\0")) if name and os.path.lexists(path / name)]


def _git(path: Path, sources: Sources, *words: str) -> str:
    from builder.source.git import environment  # noqa: PLC0415

    done = proc.capture(["git", "-c", "safe.directory=*", *words], env=environment(sources), cwd=path)
    return done.out.strip("\n") if done.ok else ""


def materialize(pinned: Pin, dest: Path, sources: Sources) -> None:
    """Copy the folder to `dest`; raise SourceError ``source-changed`` when it isn't what was pinned any more."""
    source = _path(pinned)
    beside = dest.with_name(f".{dest.name}.copying")
    shutil.rmtree(beside, ignore_errors=True)
    files = _files(source, sources)
    if files is None:
        shutil.copytree(source, beside, symlinks=True, ignore=shutil.ignore_patterns(*_LEFT))
    else:
        for name in files:
            (beside / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, beside / name, follow_symlinks=False)
        if (source / ".git").is_dir():  # versions made from tags need the history
            shutil.copytree(source / ".git", beside / ".git", symlinks=True)
    found = f"tree:{_digest(beside, files)}"
    if found != pinned.tree:
        shutil.rmtree(beside)
        raise SourceError("source-changed", f"{source} changed while it was copied", help="run the same command again")
    beside.replace(dest)


def _path(pinned: Pin) -> Path:
    from urllib.parse import unquote, urlparse  # noqa: PLC0415

    return Path(unquote(urlparse(pinned.url).path))


def read(pinned: Pin, path: str) -> bytes | None:
    """Return one file of the folder as it is now, or None."""
    try:
        return (_path(pinned) / path).read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
