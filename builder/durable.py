"""Files that are on the disk when the call returns: a power cut afterwards takes nothing back."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["copy_synced", "replace_synced", "sync_folder", "write_synced"]

_CHUNK = 1 << 20


def sync_folder(folder: Path) -> None:
    """Leave the names in `folder` on the disk: a synced file alone may come back without its name."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_synced(path: Path, data: bytes) -> None:
    """Leave `data` in the file `path`."""
    with path.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def replace_synced(path: Path, data: bytes) -> None:
    """Leave `data` in the file `path`; whoever stops this on the way leaves what was there before. A link stays one."""
    place = path.resolve()
    beside = place.with_name(f".{place.name}.{os.getpid()}.new")
    try:
        write_synced(beside, data)
        beside.replace(place)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync_folder(place.parent)


def copy_synced(source: Path, target: Path) -> str:
    """Leave a copy of `source` at `target` and return the sha256 of the bytes that were copied, in hex."""
    digest = hashlib.sha256()
    with source.open("rb") as stream, target.open("wb") as copy:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            copy.write(chunk)
        copy.flush()
        os.fsync(copy.fileno())
    return digest.hexdigest()
