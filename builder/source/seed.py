"""Files and folders in the place where a build would have downloaded them to.

Each attempt of a build finds them as the first one did: what vanished or isn't as it was laid is put back, what the build
added is left alone.
"""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

from builder.digest import sha256_file, tree_entries
from builder.source.place import write_atomic

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["copy_tree", "file", "folder", "make_way", "remove"]

Looks = dict[str, list[int]]


def file(place: Path, source: Path, *, sha256: str, mode: int, epoch: int) -> bool:
    """Leave a copy of `source` at `place`; return False when its bytes aren't those of `sha256`, and nothing was laid."""
    if place.is_symlink() or not place.is_file() or sha256_file(place) != sha256:
        beside = place.with_name(f".{place.name}.given")
        shutil.copyfile(source, beside)
        if sha256_file(beside) != sha256:
            beside.unlink()
            return False
        os.utime(beside, (epoch, epoch))
        remove(place)
        beside.replace(place)
    place.chmod(mode)
    return True


def folder(place: Path, record: Path, fresh: Path, make: Callable[[Path], None]) -> Callable[[], None] | None:
    """Leave what `make` puts at `fresh` at `place`, unless `record` says that it is there: None then.

    Else return what writes the record, to be called when the disk has everything. What is put back is as new as can be:
    what was made from the damaged one is made again.
    """
    laid: Looks = json.loads(record.read_bytes()) if record.exists() else {}
    there = place.is_dir() and not place.is_symlink()
    wrong = [name for name, look in laid.items() if not there or _look(place / name) != look]
    if laid and not wrong:
        return None
    remove(fresh)
    fresh.parent.mkdir(parents=True, exist_ok=True)
    make(fresh)
    looks = {name: _look(fresh / name) for name, _status in tree_entries(fresh)}
    if there:
        others = [name for name, look in looks.items() if _look(place / name) != look]
        for name in wrong or others:
            _move(fresh, place, name)
            if wrong:
                os.utime(place / name, follow_symlinks=False)
    else:
        remove(place)
        fresh.replace(place)
    remove(fresh)
    return lambda: write_atomic(record, json.dumps({name: _look(place / name) for name in looks}).encode())


def _look(path: Path) -> list[int]:
    """Return size, time and mode of what lies at `path`; nothing where nothing does."""
    try:
        status = path.lstat()
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns, status.st_mode]


def _move(fresh: Path, place: Path, name: str) -> None:
    """Put one file back; what the build made of the folders on the way, or of the file, goes."""
    target = place / name
    make_way(target, below=place, links=False)
    remove(target)
    (fresh / name).replace(target)


def make_way(target: Path, *, below: Path, links: bool) -> None:
    """Leave the folders that `target` lies in; what is no folder on the way goes, and so do links unless `links`."""
    for parent in reversed(target.relative_to(below).parents[:-1]):
        path = below / parent
        if not path.is_dir() or (path.is_symlink() and not links):
            path.unlink(missing_ok=True)
            path.mkdir()


def remove(path: Path) -> None:
    """Leave nothing at `path`."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def copy_tree(source: Path, dest: Path, *, epoch: int) -> None:
    """Leave a copy of a folder at `dest`: bytes, modes and links as they are, every time stamp `epoch`."""
    shutil.copytree(source, dest, symlinks=True)
    for root, folders, files in os.walk(dest):
        for name in (*folders, *files):
            os.utime(os.path.join(root, name), (epoch, epoch), follow_symlinks=False)  # noqa: PTH118  # many of them
    os.utime(dest, (epoch, epoch))
