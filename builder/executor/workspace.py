"""The one build tree of a fingerprint: opened again where an attempt stopped, never used by another fingerprint.

``<builds>/<fingerprint>/`` holds ``src``, ``venv``, ``home``, ``tmp``, ``dist``, ``wheels``, ``logs/<attempt>`` and
``state/``: one empty file a step that was finished, and ``boot``, the boot in which the tree was last worked on. A finished
build leaves its logs.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from builder.digest import tree_entries
from builder.errors import HostError
from builder.host.disk import free_bytes
from builder.recipe.units import show_bytes
from builder.stages import Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "BOOT",
    "changed",
    "done",
    "finish",
    "kept",
    "log_of",
    "log_span",
    "mark",
    "note_tree",
    "open_tree",
    "remove",
    "require_space",
    "restore",
    "unmark",
]

#: Changes with every boot: random(4).
BOOT = Path("/proc/sys/kernel/random/boot_id")

#: How far back from the newest file a power cut is taken to reach; the kernel writes dirty pages out after 30 s.
_LOST_S = 60.0

#: How far back from the newest file a killed copy may lie.
_TORN_S = 5.0

#: ninja's own records: it takes what is whole of them after a power cut, and without them it makes everything again.
_RECORDS = (".ninja_log", ".ninja_deps")


def require_space(builds: Path, wanted_bytes: int) -> None:
    """Raise HostError ``disk-short`` when less than `wanted_bytes` are free where build trees lie."""
    free = free_bytes(builds)
    if free < wanted_bytes:
        raise HostError(
            "disk-short",
            f"a build needs {show_bytes(wanted_bytes)} of disk, {show_bytes(free)} are free at {builds}",
            help="free space, or choose a wheelhouse on another disk; resources.disk of the recipe is the estimate",
            run=("spark-build gc --dry-run", "spark-build recipe NAME --wheelhouse DIR"),
        )


def open_tree(
    builds: Path, fingerprint: str, recipe: str, *, fixed: bool, fresh: bool = False, boot: Path = BOOT
) -> Workspace:
    """Return the tree of `fingerprint`, made where it isn't there, for one more attempt. The caller holds its build lock.

    `fresh` empties it first. After another boot, objects that may not have reached the disk are dropped.
    """
    root = builds / fingerprint
    if fresh:
        _clear(root)
    for folder in ("state", "logs", "home", "tmp", "dist", "wheels", "venv", "bin"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    stamp, now = root / "state" / "boot", boot.read_text().strip() if boot.exists() else ""
    rebooted = stamp.exists() and stamp.read_text() != now
    if rebooted or (root / "state" / "building").exists():
        for file in _torn(root, rebooted=rebooted):
            file.unlink()
    stamp.write_text(now)
    attempt = 1 + max((int(one.name) for one in (root / "logs").iterdir() if one.name.isdigit()), default=0)
    shutil.rmtree(root / "tmp", ignore_errors=True)
    (root / "tmp").mkdir()
    return kept(builds, fingerprint, recipe, fixed=fixed, attempt=attempt)


def kept(builds: Path, fingerprint: str, recipe: str, *, fixed: bool, attempt: int) -> Workspace:
    """Return the tree of `fingerprint` as it lies there."""
    root = builds / fingerprint
    return Workspace(root=root, inside=Path("/sb") / recipe if fixed else root, attempt=attempt)


def _torn(root: Path, *, rebooted: bool) -> Iterator[Path]:
    """Yield files of an unfinished build that may be half written: made by it, and younger than all but the newest seconds.

    Where ninja builds, its log tells which commands ended, so after a mere kill its outputs are left to it; other build
    systems go by times alone, and would take half a file for a whole one.
    """
    made = [(path, status) for path, status in _made(root) if rebooted or not _ninja(path, root)]
    newest = max((status.st_mtime for _path, status in made), default=0.0)
    for path, status in made:
        if path.name in _RECORDS:
            continue
        if status.st_mtime >= newest - (_LOST_S if rebooted else _TORN_S) or (rebooted and status.st_size == 0):
            yield path


def _made(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield the files below ``src`` that weren't there when the source was laid out."""
    given = _given(root)
    for name, status in tree_entries(root / "src") if (root / "src").exists() else ():
        if name not in given:
            yield root / "src" / name, status


def _given(root: Path) -> dict[str, list[int]]:
    """Return size and time of every file of the source as it was laid out."""
    file = root / "state" / "tree"
    loaded: dict[str, list[int]] = json.loads(file.read_bytes()) if file.exists() else {}
    return loaded


def _ninja(path: Path, root: Path) -> bool:
    for folder in path.parents:
        if (folder / ".ninja_log").exists():
            return True
        if folder == root:
            break
    return False


def note_tree(space: Workspace) -> None:
    """Keep how the files of the source were laid out: all others are made by the build."""
    laid = {name: _look(status) for name, status in tree_entries(space.src, skip=(".git",))}
    (space.root / "state" / "tree").write_bytes(json.dumps(laid).encode())


def _look(status: os.stat_result) -> list[int]:
    return [status.st_size, status.st_mtime_ns, status.st_mode]


def changed(space: Workspace) -> tuple[str, ...]:
    """Return the files of the source that aren't as they were laid out, or gone: somebody looked around and tried things."""
    there = dict(tree_entries(space.src, skip=(".git",))) if space.src.is_dir() else {}
    laid = _given(space.root)
    return tuple(name for name, look in laid.items() if name not in there or _look(there[name]) != look)


def restore(space: Workspace, fresh: Path, names: Sequence[str]) -> None:
    """Put the files `names` of the tree `fresh` back, as new as can be: what was made from the others is made again."""
    laid = _given(space.root)
    for name in names:
        source, target = fresh / name, space.src / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        target.unlink(missing_ok=True)
        source.replace(target)
        os.utime(target, follow_symlinks=False)
        laid[name] = _look(target.lstat())
    (space.root / "state" / "tree").write_bytes(json.dumps(laid).encode())


def done(space: Workspace, step: str) -> bool:
    """Whether `step` was finished by this attempt or an earlier one."""
    return (space.root / "state" / step).exists()


def mark(space: Workspace, step: str) -> None:
    """Keep that `step` is finished; all that it wrote is on the disk before that."""
    os.sync()
    file = space.root / "state" / step
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT, 0o644)
    os.fsync(descriptor)
    os.close(descriptor)


def unmark(space: Workspace, step: str) -> None:
    """Take the mark of a step back."""
    (space.root / "state" / step).unlink(missing_ok=True)


def finish(space: Workspace) -> None:
    """Leave only the logs: the wheel is published, and another build never uses this tree."""
    _clear(space.root)


@contextlib.contextmanager
def log_span(space: Workspace, output: str) -> Iterator[None]:
    """Keep which part of the attempt's build log is about `output`, once that is built: what is written within."""
    log = space.logs / "build.log"
    begin = log.stat().st_size if log.exists() else 0
    yield
    (space.logs / f"{output}.span").write_text(f"{begin} {log.stat().st_size if log.exists() else 0}\n")


def log_of(root: Path, output: str) -> tuple[Path, int, int] | None:
    """Return the build log of the last attempt that built `output` in the tree `root`, and its first and last byte there.

    None where logs are no longer kept. A part of a log ends before its last byte.
    """
    for folder in sorted(root.glob("logs/*"), key=lambda one: (len(one.name), one.name), reverse=True):
        with contextlib.suppress(OSError, ValueError):
            begin, end = (folder / f"{output}.span").read_text().split()
            return folder / "build.log", int(begin), int(end)
    return None


def remove(folder: Path) -> None:
    """Leave no `folder`, also where what ran in it took our rights to its own folders away."""
    with contextlib.suppress(OSError):
        shutil.rmtree(folder)
    if folder.exists():
        for path, folders, _files in os.walk(folder):  # a folder is looked into after its parent was told about
            for below in (Path(path, name) for name in folders):
                with contextlib.suppress(OSError):
                    if not below.is_symlink():  # what it names isn't ours
                        below.chmod(0o700)
        shutil.rmtree(folder, ignore_errors=True)


def _clear(root: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        for entry in root.iterdir():
            if entry.name == "logs":
                continue
            try:
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
            except OSError as error:
                if error.errno not in {errno.ENOENT, errno.ENOTEMPTY}:
                    raise
