"""Pages that wait to become visible, all of a channel's at once.

They are written below ``.spark-build-new``, and what is there is ours and nobody's need: a run that is killed leaves it, the
next one takes it away. Where the file system has hard links and can exchange two folders, a channel's ``simple`` gets a
fresh folder with the new pages and links to all that stays, in one step. Else pages are renamed one by one, those of
projects before the one that names them.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
import time
import zlib
from typing import TYPE_CHECKING

from builder import durable
from builder.index import swap

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

__all__ = ["NEW", "STAGE", "Stage", "packed"]

STAGE = ".spark-build-new"
#: What a file is called while it is written beside its place.
NEW = ".new"

#: Servers tell a page's versions apart by seconds and size: a new one is so much later than the one that it replaces, which
#: is a step that FAT can keep, too.
_LATER_S = 2
#: Up to so many files are synced one by one: that waits for no other program's data.
_FEW = 64
#: CRC-32 and length, at the end of what gzip makes.
_TRAILER = 8


def packed(data: bytes) -> bytes:
    """Return `data` as gzip, always the same bytes."""
    return gzip.compress(data, 6, mtime=0)


class Stage:
    """The pages that a run changes in the tree at `dest`, by path. What an earlier run left is taken away first."""

    def __init__(self, dest: Path) -> None:
        self._dest = dest
        self._folder = dest / STAGE
        self.paths: set[str] = set()
        self._discard()

    def offer(self, path: str, data: bytes) -> None:
        """Stage `data` for `path` unless it is there already."""
        live = self._dest / path
        try:
            if live.read_bytes() != data:
                self._write(path, data, live.stat().st_mtime)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            self._write(path, data, 0)

    def offer_packed(self, path: str, data: bytes) -> None:
        """Stage ``<path>.gz`` with `data` unless one that holds it is there."""
        if path not in self.paths:
            with contextlib.suppress(OSError), (self._dest / f"{path}.gz").open("rb") as stream:
                stream.seek(-_TRAILER, os.SEEK_END)
                if stream.read() == zlib.crc32(data).to_bytes(4, "little") + len(data).to_bytes(4, "little"):
                    return
        self.offer(f"{path}.gz", packed(data))

    def _write(self, path: str, data: bytes, before: float) -> None:
        file = self._folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        if int(before) + _LATER_S > time.time():
            os.utime(file, (int(before) + _LATER_S,) * 2)
        self.paths.add(path)

    def settle(self, beside: Sequence[str]) -> None:
        """Leave on the disk what was staged, and the files `beside`."""
        if len(beside) + len(self.paths) > _FEW:
            swap.settle(self._dest)
            return
        for file in (*beside, *(f"{self._folder}/{path}" for path in self.paths)):
            descriptor = os.open(file, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def show(self, folder: str, gone: Iterable[str]) -> None:
        """Make visible what is staged below `folder`, without those pages that are `gone`."""
        some = [path for path in self.paths if path.startswith(f"{folder}/")]
        gone = frozenset(gone)
        touched = {os.path.dirname(path) for path in {*some, *gone}} - {folder}  # noqa: PTH120  # many
        if len(touched) > 1 and self._swapped(folder, gone):
            self.paths.difference_update(some)
        else:  # one page is one step already
            self.rename(some)

    def rename(self, paths: Iterable[str]) -> None:
        """Make visible what is staged, one by one, pages before those that name them."""
        for path in sorted(paths, key=lambda path: (-path.count("/"), path)):
            target = self._dest / path
            target.parent.mkdir(parents=True, exist_ok=True)
            (self._folder / path).replace(target)
            self.paths.discard(path)

    def close(self) -> None:
        """Leave nothing behind."""
        self._discard()

    def _discard(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self._folder)

    def _swapped(self, folder: str, gone: frozenset[str]) -> bool:
        live, fresh = self._dest / folder, self._folder / folder
        try:
            fresh.mkdir(parents=True, exist_ok=True)
            if live.exists():
                _fill(live, fresh, f"{folder}/", gone)
        except OSError:  # no links there, or a folder of another file system
            return False
        if not live.exists():
            live.parent.mkdir(parents=True, exist_ok=True)
            fresh.rename(live)
        elif not swap.exchange(fresh, live):
            return False
        durable.sync_folder(live.parent)
        return True


def _fill(live: Path | str, fresh: Path | str, prefix: str, gone: frozenset[str]) -> None:
    """Link into `fresh` all that is in `live`, what isn't ours too, but what is staged there anew or `gone`."""
    with os.scandir(live) as entries:
        for entry in entries:
            target = f"{fresh}/{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                with contextlib.suppress(FileExistsError):
                    os.mkdir(target)  # noqa: PTH102  # thousands of them
                _fill(entry.path, target, f"{prefix}{entry.name}/", gone)
                with contextlib.suppress(OSError):
                    os.rmdir(target)  # noqa: PTH106  # nothing stays in it
            elif f"{prefix}{entry.name}" not in gone and entry.name != NEW:
                with contextlib.suppress(FileExistsError):
                    os.link(entry.path, target, follow_symlinks=False)
