"""Trying a patch on the files that it touches, which lie on a bench: an empty folder that `git apply` changes."""

from __future__ import annotations

import os
import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from builder import proc
from builder.digest import sha256_file
from builder.errors import PatchDrift, RecipeError
from builder.patch.values import Hunk

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from builder.patch.values import Candidate

__all__ = ["check_hash", "environment", "fetch", "git_apply", "is_there", "misfits", "place", "put", "touched"]

_SHOWN = 8  # lines of a hunk in an error

#: A link or a submodule in the head of a file; lines of hunks begin with a blank, a plus or a minus.
_LINK = re.compile(rb"^(?:(?:new|deleted) file mode|(?:old|new) mode|index \S+) (120000|160000)", re.MULTILINE)

#: What ``git apply --verbose`` says of a hunk that doesn't fit: its lines, the file, the line.
_MISSED = re.compile(r"while searching for:\n(.*?)\n?error: patch failed: (.+):(\d+)\n", re.DOTALL)

#: And of a file that isn't as it should be.
_WHOLE = re.compile(r"error: (.+): (No such file or directory|already exists in working directory|wrong type)")


def environment(env: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return the environment of a git that only `folder` has a say in."""
    return {
        "PATH": env.get("PATH", os.defpath),
        "HOME": str(folder),
        "LC_ALL": "C",
        "GIT_CEILING_DIRECTORIES": str(folder.resolve().parent),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ATTR_NOSYSTEM": "1",
    }


def git_apply(one: Candidate, folder: Path, env: Mapping[str, str], *flags: str) -> proc.Finished:
    """Run ``git apply`` on a bench."""
    # Inside of another repository it silently skips files outside of its own folder: the environment cuts the search off.
    words = ["git", "apply", "--whitespace=nowarn", "--binary", *flags, str(one.file.resolve())]
    return proc.capture(words, env=environment(env, folder), cwd=folder)


def check_hash(one: Candidate) -> None:
    """Raise RecipeError ``patch-missing`` or ``patch-hash`` where the file isn't the one that the recipe means."""
    if not one.file.is_file():
        raise RecipeError(
            "patch-missing", f"the patch {one.id} isn't there", cause=str(one.file), run=(f"ls -l {one.file}",)
        )
    if (found := sha256_file(one.file)) != one.sha256:
        raise RecipeError(
            "patch-hash",
            f"the patch {one.id} isn't the one that the recipe names",
            cause=f"{one.file}: sha256 {found}, wanted {one.sha256}",
            help="when the change is meant, put the new digest into the recipe",
            run=(f"sha256sum {one.file}",),
        )


def touched(one: Candidate, bench: Path, env: Mapping[str, str]) -> tuple[str, ...]:
    """Return the paths that a patch reads or writes.

    Raises RecipeError ``patch-path`` for one that leaves the tree, ``patch-link`` for one that makes or changes a link or a
    submodule, ``patch-empty`` for one that changes nothing, ``patch-broken`` for one that git can't read.
    """
    if found := _LINK.search(one.file.read_bytes()):
        what = "a symbolic link" if found[1] == b"120000" else "a submodule"
        raise RecipeError("patch-link", f"the patch {one.id} changes {what}", cause=str(one.file), run=_look(one))
    paths: dict[str, None] = {}
    for way in ((), ("--reverse",)):  # of a renamed file each way gives one name
        done = git_apply(one, bench, env, "--numstat", "-z", *way)
        if "No valid patches" in done.err:
            raise RecipeError("patch-empty", f"the patch {one.id} changes nothing", cause=str(one.file), run=_look(one))
        if not done.ok:
            raise RecipeError("patch-broken", f"{one.file.name} is no whole patch", cause=done.err, run=_look(one))
        paths |= dict.fromkeys(os.fsdecode(line).split("\t", 2)[2] for line in done.raw.split(b"\0") if line)
    for path in paths:
        parts = PurePosixPath(path).parts
        if path.startswith("/") or ".." in parts or ".git" in (part.lower() for part in parts):
            raise RecipeError(
                "patch-path",
                f"the patch {one.id} touches {path}, outside of the source tree",
                cause=str(one.file),
                run=_look(one),
            )
    return tuple(paths)


def _look(one: Candidate) -> tuple[str, ...]:
    return (f"git apply --stat --summary {one.file}",)


def is_there(one: Candidate, bench: Path, env: Mapping[str, str]) -> bool:
    """Whether the tree has the patch already.

    One whose lines fit in both directions, as happens where code repeats itself, is there when it fits backwards at its own
    place and forwards only at another.
    """
    backwards = git_apply(one, bench, env, "--check", "--verbose", "--reverse")
    if not backwards.ok:
        return False
    forwards = git_apply(one, bench, env, "--check", "--verbose")
    return not forwards.ok or ("(offset" in forwards.err and "(offset" not in backwards.err)


def misfits(one: Candidate, bench: Path, env: Mapping[str, str]) -> tuple[tuple[Hunk, ...], tuple[str, ...]]:
    """Return the hunks of a patch that don't fit, and what is wrong with whole files, one line each."""
    done = git_apply(one, bench, env, "--check", "--verbose")
    hunks = [_hunk(bench / path, path, int(line), wanted) for wanted, path, line in _MISSED.findall(done.err)]
    whole = [f"{path}: {what}" for path, what in _WHOLE.findall(done.err)]
    alike = dict.fromkeys(hunk.file for hunk in hunks if hunk.wanted == hunk.found[: len(hunk.wanted)])
    whole += [f"{path} has other line ends (CR LF or LF) than the patch" for path in alike]
    said = [line.removeprefix("error: ") for line in done.err.splitlines() if line.startswith("error: ")]
    return tuple(hunks), tuple(whole if hunks or whole else said)


def _hunk(file: Path, path: str, line: int, wanted: str) -> Hunk:
    there = file.read_text(errors="replace").splitlines() if file.is_file() else []
    found = there[max(0, line - 1) : line - 1 + _SHOWN] or ["(the file is shorter)"]
    return Hunk(file=path, line=line, wanted=tuple(wanted.splitlines()[:_SHOWN]), found=tuple(found))


def place(path: Path, content: bytes | None) -> None:
    """Put a file with this content on the bench; None puts none."""
    if content is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def fetch(one: Candidate, tree: Path, bench: Path, path: str) -> None:
    """Copy a file of the tree to the bench with its executable bit; refuse one that is a link or lies behind one."""
    where = tree
    for part in PurePosixPath(path).parts:
        where /= part
        if where.is_symlink():
            raise PatchDrift(
                "patch-link",
                f"the patch {one.id} touches {path}, which is a link in this source",
                cause=f"{where.relative_to(tree)} leads to {where.readlink()}",
                help="patch the file that the link leads to",
                run=(f"git apply --numstat {one.file}",),
            )
    if where.is_file():
        place(bench / path, where.read_bytes())
        (bench / path).chmod(0o755 if where.stat().st_mode & 0o100 else 0o644)


def put(paths: Sequence[str], bench: Path, tree: Path) -> None:
    """Bring the files of the bench into the tree, and remove those that the patches removed."""
    epoch = tree.stat().st_mtime
    for path in paths:
        source, target = bench / path, tree / path
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            source.chmod(0o755 if source.stat().st_mode & 0o100 else 0o644)
            os.utime(source, (epoch, epoch))
            source.replace(target)
        else:
            target.unlink(missing_ok=True)
    for path in paths:
        _settle(tree, tree / path, epoch)


def _settle(tree: Path, path: Path, epoch: float) -> None:
    """Remove folders that a patch emptied, as git does; give those that it changed the tree's time and mode again."""
    for folder in [*path.parents]:
        if not folder.is_relative_to(tree) or not folder.exists():
            continue
        if folder != tree and not any(folder.iterdir()):
            folder.rmdir()
            continue
        folder.chmod(0o755)
        os.utime(folder, (epoch, epoch))
