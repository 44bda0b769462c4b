"""Where uploads lie before they are published: ``<wheelhouse>/uploads``, in the wheelhouse's own file system.

::

    uploads/<random>/             one upload, while it runs; who is at it holds the folder's lock
    uploads/staging/<sha256>/     a wheel that is sent in pieces, with the record and the signature beside it
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import os
import re
import shutil
import time
from typing import TYPE_CHECKING

from builder.server.refusal import Refusal
from builder.wheelhouse import locks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from builder.server.site import Site

__all__ = ["STAGING", "check_name", "folder", "require_space", "root", "sweep", "unwritable"]

STAGING = "staging"

#: What is staged and not published is dropped after a day without anything new.
_KEPT_S = 86_400.0

#: With the record's and the signature's endings it has to be a file name, which has 255 bytes.
_FILENAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+!~-]{0,220}\.whl")

#: Tags that a name may amount to: PEP 425 multiplies its three sets, and 200 characters would make tens of thousands.
_TAGS = 256

#: What has to stay free, beside twice what is taken: it is copied into the wheelhouse when it is published.
_SPARE = 64 << 20


def root(site: Site) -> Path:
    """Return the folder of uploads."""
    return site.settings.root / "uploads"


@contextlib.asynccontextmanager
async def folder(site: Site, size: int) -> AsyncIterator[Path]:
    """Give a folder for an upload of `size` bytes, and leave nothing of it. Raises Refusal 507 when there is no room."""
    place, lock = await site.thread(_made, root(site), size)
    try:
        yield place
    finally:
        await asyncio.shield(site.thread(_cleared, place, lock))


def _made(uploads: Path, size: int) -> tuple[Path, int]:
    try:
        require_space(uploads.parent, size)
        place = uploads / os.urandom(16).hex()
        place.mkdir(parents=True)
        lock = locks.claim(place, wait=False)
    except OSError as error:
        raise unwritable(error) from error
    assert lock is not None  # noqa: S101  # nobody knows the name
    return place, lock


def _cleared(place: Path, lock: int) -> None:
    shutil.rmtree(place, ignore_errors=True)
    os.close(lock)


def require_space(folder: Path, size: int) -> None:
    """Raise Refusal 507 where `size` bytes can't be taken and published."""
    free = shutil.disk_usage(folder).free
    if free < 2 * size + _SPARE:
        raise Refusal(
            507,
            "disk-full",
            f"there is no room for {size} bytes",
            "on the server: spark-build gc",
        )


def unwritable(error: OSError) -> Refusal:
    """Return what the system said, in words for a client."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return Refusal(507, "disk-full", "the server's disk is full", "on the server: spark-build gc")
    return Refusal(500, "unwritable", f"the server can't write: {error.strerror}")


def check_name(filename: str, project: str | None = None, version: str | None = None) -> str:
    """Return the Python tag in a wheel's name, once that is one, and of that `project` and `version`.

    Raises Refusal 400.
    """
    from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename  # noqa: PLC0415
    from packaging.version import InvalidVersion, Version  # noqa: PLC0415

    shown = ascii(filename[:120])
    sets = filename.removesuffix(".whl").split("-")[-3:]
    if not _FILENAME.fullmatch(filename) or math.prod(len(one.split(".")) for one in sets) > _TAGS:
        raise Refusal(400, "wheel-name", f"{shown} is no wheel's name")
    try:
        named, numbered, _build, _tags = parse_wheel_filename(filename)
        if project is not None and canonicalize_name(project) != named:
            raise Refusal(400, "wheel-name", f"{filename} isn't a wheel of {project[:80]!a}")
        if version is not None and Version(version) != numbered:
            raise Refusal(400, "wheel-name", f"{filename} isn't version {version[:80]!a}")
    except InvalidWheelFilename as error:
        raise Refusal(400, "wheel-name", f"{shown} is no wheel's name", str(error)) from error
    except InvalidVersion as error:
        raise Refusal(400, "version", f"{ascii(version)[:100]} is no version") from error
    return sets[0]


def sweep(wheelhouse: Path) -> None:
    """Remove what killed servers left, and what was staged and forgotten."""
    uploads, now = wheelhouse / "uploads", time.time()
    with contextlib.suppress(FileNotFoundError):
        for place in uploads.iterdir():
            if place.name != STAGING and not locks.is_claimed(place):
                _drop(place)
        for place in (uploads / STAGING).iterdir():
            if now - max((file.stat().st_mtime for file in (place, *place.glob("*"))), default=0) > _KEPT_S:
                _drop(place)


def _drop(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place, ignore_errors=True)
    else:
        place.unlink(missing_ok=True)
