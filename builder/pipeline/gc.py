"""Freeing space: what may go is decided by policy over values, and then taken away so that a kill leaves nothing half.

Folders are renamed aside (``.gc-<random>`` beside) before they are deleted; what a killed run left there, the next one
deletes. A build tree goes under its build lock, its marks first: without them it is a tree that was never begun.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from typing import TYPE_CHECKING, Literal

from builder.errors import HostError
from builder.values import dataclass, replace
from builder.wheelhouse import locks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

__all__ = [
    "ASIDE",
    "BUSY_S",
    "KINDS",
    "Candidate",
    "Decision",
    "Kind",
    "Policy",
    "decide",
    "last_used",
    "lock_of",
    "sweep",
    "total",
]

Kind = Literal["scratch", "tree", "log", "wheel", "archive", "mirror", "cache", "object"]

#: In the order in which they are shown, with what they are.
KINDS: dict[Kind, str] = {
    "scratch": "what killed runs left",
    "tree": "build trees",
    "log": "logs of attempts",
    "wheel": "superseded wheels",
    "archive": "source archives, and crates",
    "mirror": "git mirrors",
    "cache": "caches: uv's of packages, ccache's of compiled objects",
    "object": "compiled objects that the server keeps for a team",
}

#: What can be fetched again, or compiled.
SOURCES = frozenset[Kind](["archive", "mirror", "cache", "object"])

ASIDE = ".gc-"

#: What is younger may belong to a run that is still at it, whatever was asked for.
BUSY_S = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What may go: builds beyond the `keep_builds` newest, and what nobody has used for `older_than_s` seconds.

    `wheels` and `sources` must be asked for: the first can't be had back without a build, the second not without a network.
    """

    keep_builds: int = 5
    older_than_s: float = 30 * 86_400.0
    wheels: bool = False
    sources: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Something that takes space: `size` bytes on disk, `used` last at that time in seconds.

    `in_use` says by what it is held, and is empty where it isn't. `group` names those of which the newest stay: of one
    output and target, of one recipe. `finished` is a tree whose wheels are published, or scratch that is surely nobody's.
    """

    kind: Kind
    path: Path
    size: int
    used: float
    in_use: str = ""
    group: str = ""
    finished: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Whether a candidate goes, and why. `flag` is the one that would let it go, empty where none is missing."""

    candidate: Candidate
    remove: bool
    why: str
    flag: str = ""


def decide(candidates: Sequence[Candidate], policy: Policy, *, now: float) -> tuple[Decision, ...]:
    """Return a decision for each candidate, in their order. Pure."""
    ranks = _ranks(candidates)
    return tuple(_decide(one, ranks[one.path], policy, now - one.used) for one in candidates)


def _ranks(candidates: Sequence[Candidate]) -> dict[Path, int]:
    """Return the place of each candidate in its group, the newest being 0."""
    groups: dict[tuple[str, str], list[Candidate]] = {}
    for one in candidates:
        groups.setdefault((one.kind, one.group), []).append(one)
    return {
        one.path: rank
        for members in groups.values()
        for rank, one in enumerate(sorted(members, key=lambda one: -one.used))
    }


def _decide(one: Candidate, rank: int, policy: Policy, age_s: float) -> Decision:
    kept = one.in_use or _kept(one, rank, policy, age_s)
    if kept:
        return Decision(candidate=one, remove=False, why=kept)
    flag = ""
    if one.kind == "wheel" and not policy.wheels:
        flag = "--wheels"
    elif one.kind in SOURCES and not policy.sources:
        flag = "--sources"
    why = f"goes with {flag}" if flag else "finished" if one.finished else "old"
    return Decision(candidate=one, remove=not flag, why=why, flag=flag)


def _kept(one: Candidate, rank: int, policy: Policy, age_s: float) -> str:
    """Return why a candidate stays whatever was asked for, or an empty text."""
    least = BUSY_S if one.kind in SOURCES else 0.0  # a build reads them without a lock
    young = "used lately" if age_s < max(least, policy.older_than_s) else ""
    match one.kind:
        case "scratch" | "tree" if one.finished:
            return ""
        case "scratch":
            return "may be in use" if age_s < BUSY_S else ""
        case "log":
            return f"one of the {policy.keep_builds} newest" if rank < policy.keep_builds else ""
        case "wheel" if rank < max(1, policy.keep_builds):  # the newest of an output stays whatever was asked for
            return f"one of the {max(1, policy.keep_builds)} newest"
    return young


def total(decisions: Sequence[Decision]) -> int:
    """Return how many bytes the decisions free."""
    return sum(one.candidate.size for one in decisions if one.remove)


def sweep(
    decisions: Sequence[Decision], root: Path, *, remove_wheel: Callable[[Path], object]
) -> tuple[tuple[Decision, ...], tuple[str, ...]]:
    """Take away what was decided; return what became of it, and what couldn't be taken away with the reasons.

    `root` is the wheelhouse. What somebody has begun to use since it was decided about stays.
    """
    after, failed = [], []
    for one in decisions:
        try:
            gone = not one.remove or _remove(one.candidate, root, remove_wheel)
        except OSError as error:
            failed.append(f"{error.filename or one.candidate.path}: {error.strerror}")
            after.append(replace(one, remove=False, why="can't be removed"))
        else:
            after.append(one if gone else replace(one, remove=False, why="in use by now"))
    return tuple(after), tuple(failed)


def _remove(one: Candidate, root: Path, remove_wheel: Callable[[Path], object]) -> bool:
    """Take one candidate away and return whether it is gone."""
    match one.kind:
        case "wheel":
            return remove_wheel(one.path) is not False  # a channel may name it by now
        case "tree":
            with _held(root / "locks" / one.path.name) as mine:
                if not mine or last_used(one.path) > one.used:
                    return False
                _clear_tree(one.path, root / "builds")
        case "log":
            tree = one.path.parent.parent
            with _held(root / "locks" / tree.name) as mine:
                if not mine:
                    return False
                _discard(one.path, root / "builds")
                _drop_empty(tree)
        case "mirror" | "cache":
            with _user_lock(lock_of(one)) as mine:
                if not mine or last_used(one.path) > one.used:
                    return False
                _discard(one.path, one.path.parent)
        case "scratch" | "object" if last_used(one.path) > one.used:  # somebody sends the rest of it, or asked for it
            return False
        case _:
            _discard(one.path, one.path.parent)
    return True


def last_used(path: Path) -> float:
    """Return when a tree, a mirror or an archive was last worked on: the newest time of it, what is in it, and its marks."""
    newest = 0.0
    for place in (path, *path.glob("*"), *path.glob("state/*"), *path.glob("logs/*"), path / "objects" / "pack"):
        with contextlib.suppress(OSError):
            newest = max(newest, place.lstat().st_mtime)
    return newest


@contextlib.contextmanager
def _held(lock: Path) -> Iterator[bool]:
    """Hold a build lock unless somebody else does; give whether we do."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locks.held(lock, timeout_s=0))
        except HostError as error:
            if error.code != "lock-timeout":
                raise
            yield False
            return
        yield True


def lock_of(one: Candidate) -> Path:
    """Return the file that whoever uses a mirror or a cache holds: beside the mirror, in uv's cache."""
    return one.path / ".lock" if one.kind == "cache" else one.path.with_suffix(".lock")


@contextlib.contextmanager
def _user_lock(file: Path) -> Iterator[bool]:
    """Hold the lock of `lock_of` unless somebody else does; give whether we do."""
    with file.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _clear_tree(tree: Path, builds: Path) -> None:
    """Take all but the logs: first the marks of what was done, so that what is left after a kill counts as not begun."""
    aside = builds / f"{ASIDE}{os.urandom(8).hex()}"
    aside.mkdir()
    for entry in sorted(tree.iterdir(), key=lambda entry: entry.name != "state"):
        if entry.name != "logs":
            entry.rename(aside / entry.name)
    shutil.rmtree(aside)
    _drop_empty(tree)


def _discard(path: Path, beside: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        if not path.name.startswith(ASIDE):
            path = path.rename(beside / f"{ASIDE}{os.urandom(8).hex()}")
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _drop_empty(tree: Path) -> None:
    for folder in (tree / "logs", tree):
        with contextlib.suppress(OSError):  # something is in it
            folder.rmdir()
