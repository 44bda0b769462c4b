"""Writing an index as files: only what differs, and taking away only what was written by an earlier run.

Order: new pages are staged; the manifest names old files and new ones; wheels and what lies beside them; all of that is
synced; pages become visible, each channel's in one step; what is no longer listed goes; the manifest names the new files.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from typing import TYPE_CHECKING

from builder import durable
from builder.errors import HostError, UsageError
from builder.index import manifest, pages
from builder.index.manifest import MANIFEST
from builder.index.place import Placing, records, size_of
from builder.index.stage import NEW, STAGE, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from builder.index.listing import House
    from builder.index.place import Written
    from builder.index.view import View

__all__ = ["claimed", "lacking", "write"]

#: What `flock` says on file systems that have none, as some of those over a network.
_NO_LOCK = frozenset([errno.EBADF, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])


@contextlib.contextmanager
def claimed(dest: Path) -> Iterator[None]:
    """Hold the folder for one writer, made when it isn't there; other processes wait, and a kill lets go of it.

    OSErrors inside become HostError ``disk-full`` or ``unwritable``. Raises UsageError ``not-an-index`` when the folder
    holds things that no export wrote.
    """
    with _told(dest):
        dest.mkdir(parents=True, exist_ok=True)
        folder = os.open(dest, os.O_RDONLY | os.O_DIRECTORY)
        try:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX)
            except OSError as error:
                if error.errno not in _NO_LOCK:
                    raise
            _check_ours(dest)
            yield
        finally:
            os.close(folder)


def write(
    house: House,
    dest: Path,
    views: Sequence[View],
    *,
    web: bool = False,
    more: Iterable[tuple[str, bytes]] = (),
    tell: Callable[[int, int], None] = lambda _done, _total: None,
) -> Written:
    """Make `dest`, which is claimed, show `views`; return what had to be done.

    `web` adds what a web server needs (packed pages) and what people look up (records and signatures); `more` are other
    files, path and bytes. `tell` hears how many bytes of wheels are in place, of how many. Raises WheelhouseError
    ``wheel-missing`` or ``wheel-changed``; then no page has changed.
    """
    with contextlib.closing(Stage(dest)) as stage:
        shown, other = _staged(stage, views, more, web=web)
        files = {pages.file_path(file): file for view in views for file in view.files}
        beside = dict(records(files)) if web else {}
        new = {*shown, *other, *files, *(f"{path}.metadata" for path in files), *beside}
        old = manifest.paths(dest)
        gone = {path for path in old - new if manifest.is_ours(path)}
        _check_folders(dest, new | gone)
        if not new <= old:
            _put(dest, manifest.text("", {*filter(manifest.is_ours, old - new), *new}))
        work = Placing(house, dest, sum(file.size for file in files.values()), tell)
        work.wheels(files)
        work.links(beside)
        done = work.done
        done.pages = len(stage.paths)
        stage.settle(work.unsynced)
        done.removed = sum(size_of(f"{dest}/{path}") is not None for path in gone)
        for view in views:
            stage.show(view.folder, (path for path in gone if path.startswith(f"{view.folder}/")))
        stage.rename(stage.paths)
        for path in sorted(gone):
            _remove(dest, path)
        _put(dest, manifest.text("+".join(view.state for view in views), new))
    return done


def lacking(dest: Path, view: View) -> Iterator[Path]:
    """Yield what of `view` isn't there in full size. Reads no file."""
    wanted = {path: len(text) for path, text in view.texts()}
    for file in view.files:
        wanted |= {pages.file_path(file): file.size, f"{pages.file_path(file)}.metadata": file.metadata_size}
    for path, size in wanted.items():
        if size_of(f"{dest}/{path}") != size:
            yield dest / path


def _staged(
    stage: Stage, views: Sequence[View], more: Iterable[tuple[str, bytes]], *, web: bool
) -> tuple[set[str], set[str]]:
    """Stage all pages that differ; return the paths of pages and of other files, changed or not."""
    shown: set[str] = set()
    for one in views:
        for path, text in one.texts():
            shown.add(path)
            stage.offer(path, text)
            if web:
                shown.add(f"{path}.gz")
                stage.offer_packed(path, text)
    other: set[str] = set()
    for path, data in more:
        if not manifest.is_ours(path) or path in shown:
            msg = f"no page of an export can lie at {path}"
            raise ValueError(msg)
        other.add(path)
        stage.offer(path, data)
    return shown, other


def _check_ours(dest: Path) -> None:
    names = {name for name in os.listdir(dest) if name not in {NEW, STAGE}}  # noqa: PTH208  # names are enough
    if not names or MANIFEST in names:
        return
    raise UsageError(
        "not-an-index",
        f"{dest} isn't empty and wasn't written by `spark-build index export`",
        cause=f"it holds {', '.join(sorted(names)[:3])}{' and more' if len(names) > 3 else ''}",  # noqa: PLR2004
        help="an export takes away what is no longer listed, so it wants a folder of its own: a new or an empty one",
        run=(f"spark-build index export {dest / 'index'}",),
    )


def _check_folders(dest: Path, paths: Iterable[str]) -> None:
    """Raise UsageError when one of the folders of `paths` is a link: what is written or deleted would lie elsewhere."""
    folders: set[str] = set()
    for path in paths:
        while (path := path.rpartition("/")[0]) and path not in folders:
            folders.add(path)
    for folder in sorted(folders):
        if os.path.islink(f"{dest}/{folder}"):  # noqa: PTH114  # thousands of them
            raise UsageError(
                "not-an-index",
                f"{dest / folder} is a symbolic link",
                cause="an export writes and deletes in its own folder, and whoever made this link would say where else",
                help="take the link away; the next run makes the folder",
                run=(f"rm {dest / folder}",),
            )


def _put(dest: Path, text: bytes) -> None:
    """Leave the manifest, at once and lasting."""
    path, new = dest / MANIFEST, dest / NEW
    with contextlib.suppress(FileNotFoundError):
        if path.read_bytes() == text:
            return
    durable.write_synced(new, text)
    new.replace(path)


def _remove(dest: Path, path: str) -> None:
    """Take away a file of ours, if it is still there, and the folders that it leaves empty."""
    file = dest / path
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        (file.parent / NEW).unlink(missing_ok=True)  # of a run that was killed
        file.unlink()
    with contextlib.suppress(OSError):  # not empty: others put something there
        for folder in file.parents:
            if folder == dest:
                break
            folder.rmdir()


@contextlib.contextmanager
def _told(dest: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise HostError(
                "disk-full",
                f"no space left for {dest}",
                cause="the pages that were there are whole; what was copied so far is kept",
                help="free space there and run the same command again: it goes on where it stopped",
                run=(f"df -h {dest}",),
            ) from error
        raise HostError(
            "unwritable",
            f"{dest} can't be written",
            cause=f"{error.filename}: {error.strerror}" if error.filename else str(error),
            help="choose another folder, or mend its permissions",
            run=(f"ls -ld {dest}",),
        ) from error
