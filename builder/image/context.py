"""The folder that a final image is built from: a bundle, the two files, and spark-build for the check.

::

    bundle/             as `bundle export` writes it, by links where that can be
    tool/               spark-build itself (`runtime.portable`): mounted for the check, never in the image
    Dockerfile.system   what of the system is missing in the base; may reach the network
    Dockerfile          the rest; mayn't
    compose.yaml        with --compose
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from builder import durable
from builder.bundle import installer, layout, manifest
from builder.digest import sha256_bytes
from builder.errors import CheckRefused, UsageError
from builder.image import dockerfile
from builder.runtime import portable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from builder.bundle.manifest import Entry
    from builder.bundle.verify import Verified
    from builder.image.settings import Settings

__all__ = ["BUNDLE", "COMPOSE", "bring_tool", "carry", "claim", "files", "scratch", "write"]

BUNDLE, COMPOSE, _IGNORED = "bundle", "compose.yaml", ".dockerignore"

#: The image of `Dockerfile.system`; what follows is its digest.
_SYSTEM = "localhost/spark-build-system"

#: How a context that goes is called, in the sources' folder: links into the cache are possible there.
_SCRATCH = ".image-"

#: It is written first, so that a folder which was begun is known again.
_IGNORE = f"""\
{dockerfile.MARK}: what the engine needn't look at.
Dockerfile
Dockerfile.system
compose.yaml
"""


@contextlib.contextmanager
def scratch(root: Path) -> Iterator[Path]:
    """Give a folder below `root` for a context, which goes afterwards; what killed runs left goes first.

    Whoever uses one holds its lock, which a kill lets go.
    """
    root.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        with _locked(root, wait=True):
            for left in root.glob(f"{_SCRATCH}*"):
                with _locked(left, wait=False) as free:
                    if free:
                        shutil.rmtree(left, ignore_errors=True)
            made = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=root)))
            stack.enter_context(_locked(made, wait=True))
        yield made


@contextlib.contextmanager
def _locked(folder: Path, *, wait: bool) -> Iterator[bool]:
    """Hold the lock of a folder; give whether we do."""
    held = False
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        yield False
        return
    try:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            held = True
        yield held
    finally:
        os.close(descriptor)


def claim(dest: Path) -> None:
    """Leave `dest` as a folder to write to. Raises UsageError ``context-taken`` where it holds other things, HostError."""
    with layout.landing(dest):
        dest.mkdir(parents=True, exist_ok=True)
        held = {one.name for one in dest.iterdir()}
    if held and not _ours(dest):
        raise UsageError(
            "context-taken",
            f"{dest} isn't empty, and no image of ours was written there",
            cause=f"it holds {', '.join(sorted(held)[:3])}",
            help="name a new or an empty folder",
            run=("spark-build image NAME --write DIR",),
        )
    write(dest, {_IGNORED: _IGNORE})


def _ours(dest: Path) -> bool:
    """Whether a context of ours lies there, or the beginning of one that was stopped."""
    try:
        return (dest / _IGNORED).read_text().startswith(dockerfile.MARK)
    except (OSError, UnicodeDecodeError):
        return False


def carry(found: Verified, dest: Path) -> None:
    """Leave a verified bundle at `dest`: wheels by links where that can be, all else by copies that are looked at again.

    What runs first in the image is then what was verified, and that verifies the wheels. Raises CheckRefused
    ``bundle-incomplete`` for a delta, ``bundle-wrong`` where a file changed meanwhile; HostError as `layout.landing` does.
    """
    source, wanted = found.path, found.manifest.files
    if found.lacks:
        raise CheckRefused(
            "bundle-incomplete",
            f"{len(found.lacks)} files of this delta aren't in it",
            help="complete it first, from the bundle that it was made against",
            run=(shlex.join(["spark-build", "bundle", "install", str(source), "VENV", "--base", "BUNDLE"]),),
        )
    with layout.landing(dest):
        shutil.rmtree(dest, ignore_errors=True)
        for path in installer.walk(source):
            (dest / path).parent.mkdir(parents=True, exist_ok=True)
            if path == manifest.NAME:
                (dest / path).write_bytes(found.text)
            elif path.startswith("files/"):
                _link(source / path, dest / path)
            elif _differs(durable.copy_synced(source / path, dest / path), wanted.get(path)):
                raise CheckRefused("bundle-wrong", f"{path} changed while it was copied", help="run the same again")


def _differs(sha256: str, wanted: Entry | None) -> bool:
    return wanted is not None and sha256 != wanted.sha256  # the signature isn't in the manifest


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def files(settings: Settings, *, signed: bool, statements: bool, compose: str = "") -> dict[str, str]:
    """Return the texts of a context, by name."""
    made = {
        dockerfile.SYSTEM: dockerfile.system(settings),
        dockerfile.FILE: dockerfile.final(settings, base=system_tag(settings), signed=signed, statements=statements),
        _IGNORED: _IGNORE,
    }
    return {**made, COMPOSE: compose} if compose else made


def system_tag(settings: Settings) -> str:
    """Return the name of the image of ``Dockerfile.system``: one for each text and machine."""
    text = f"{settings.target.machine}\n{dockerfile.system(settings)}"
    return f"{_SYSTEM}:{sha256_bytes(text.encode())[:12]}"


def bring_tool(dest: Path) -> None:
    """Leave spark-build itself in the context.

    Raises as `portable.write` and `layout.landing` do.
    """
    tool = dest / dockerfile.TOOL
    with layout.landing(dest):
        shutil.rmtree(tool, ignore_errors=True)
        portable.write(tool)


def write(dest: Path, texts: Mapping[str, str]) -> None:
    """Write `texts` into the context. Raises HostError ``unwritable`` or ``disk-full``."""
    with layout.landing(dest):
        for name, text in texts.items():
            (dest / name).write_text(text)
