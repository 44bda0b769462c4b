"""Patches: which apply to a tree, and applying them. ``git apply`` does the work; it knows no fuzz, only other line numbers.

Trying and applying are one thing: the files that a patch touches are put into an empty folder, and changed there. So the
outcome of a plan is that of the build, no repository around the tree and no `.gitattributes` in it has a say, and a tree
gets either all of its patches or none. Links and submodules aren't patched: through a link a patch would leave the tree.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from builder import proc
from builder.digest import sha256_file
from builder.errors import PatchDrift, RecipeError
from builder.inputs import AppliedPatch
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Candidate", "Evaluation", "apply", "evaluate"]

_SHOWN = 8  # lines of a hunk in an error

#: A link or a submodule in the head of a file; lines of hunks begin with a blank, a plus or a minus.
_LINK = re.compile(rb"^(?:(?:new|deleted) file mode|(?:old|new) mode|index \S+) (120000|160000)", re.MULTILINE)

#: What ``git apply --verbose`` says of a hunk that doesn't fit: its lines, the file, the line.
_MISSED = re.compile(r"while searching for:\n(.*?)\n?error: patch failed: (.+):(\d+)\n", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A patch whose conditions hold. `on_upstream` is ``skip`` or ``fail``."""

    id: str
    file: Path
    sha256: str
    on_upstream: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What became of the candidates. `files` holds the `touched` files as the patches leave them; one may be deleted."""

    applied: tuple[AppliedPatch, ...]
    skipped: tuple[str, ...]
    touched: tuple[str, ...]
    files: Mapping[str, bytes]


def evaluate(
    candidates: Sequence[Candidate],
    read: Callable[[str], bytes | None],
    *,
    scratch: Path,
    env: Mapping[str, str],
) -> Evaluation:
    """Try the candidates in order on the files that they touch, which `read` gives; nothing else of the tree is needed.

    A patch whose every hunk is there already is skipped, or refused where it says so. Raises PatchDrift ``patch-drift``
    with file and hunk, RecipeError ``patch-hash``, ``patch-missing``, ``patch-path``, ``patch-empty``, ``patch-broken``,
    ``patch-link`` or ``patch-upstream``.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".patches-", dir=scratch) as folder:
        bench = Path(folder)
        applied, skipped, paths = _tried(candidates, bench, lambda _one, path: _place(bench / path, read(path)), env)
        files = {path: (bench / path).read_bytes() for path in paths if (bench / path).is_file()}
    return Evaluation(applied=applied, skipped=skipped, touched=paths, files=files)


def apply(candidates: Sequence[Candidate], tree: Path, *, env: Mapping[str, str]) -> None:
    """Leave `tree` with all candidates, or as it was; changed files get the time of the tree, as all others have it.

    Raises PatchDrift ``patch-drift`` or ``patch-link``, and RecipeError as `evaluate` does.
    """
    with tempfile.TemporaryDirectory(prefix=f".{tree.name}.patches-", dir=tree.parent) as folder:
        bench = Path(folder)
        _applied, _skipped, paths = _tried(candidates, bench, lambda one, path: _fetch(one, tree, bench, path), env)
        _put(paths, bench, tree)


def _tried(
    candidates: Sequence[Candidate], bench: Path, bring: Callable[[Candidate, str], None], env: Mapping[str, str]
) -> tuple[tuple[AppliedPatch, ...], tuple[str, ...], tuple[str, ...]]:
    """Change the files that `bring` puts on the bench; return what was applied, skipped and touched."""
    applied, skipped = [], []
    present: dict[str, None] = {}
    for one in candidates:
        _check_hash(one)
        for path in _touched(one, bench, env):
            if path not in present:
                present[path] = None
                bring(one, path)
        if _is_there(one, bench, env):
            if one.on_upstream == "fail":
                raise RecipeError(
                    "patch-upstream",
                    f"the source has {one.id} already",
                    cause=str(one.file),
                    help="take it out, give it a condition, or let it be skipped: on-upstream = 'skip'",
                    run=("spark-build recipes lint",),
                )
            skipped.append(one.id)
        elif _git_apply(one, bench, env).ok:  # git apply changes all of a patch's files, or none
            applied.append(AppliedPatch(id=one.id, sha256=one.sha256))
        else:
            raise _drift(one, bench, env)
    return tuple(applied), tuple(skipped), tuple(present)


def _fetch(one: Candidate, tree: Path, bench: Path, path: str) -> None:
    """Copy a file of the tree to the bench with its executable bit; refuse one that is a link or lies behind one."""
    place = tree
    for part in PurePosixPath(path).parts:
        place /= part
        if place.is_symlink():
            raise PatchDrift(
                "patch-link",
                f"the patch {one.id} touches {path}, which is a link in this source",
                cause=f"{place.relative_to(tree)} leads to {place.readlink()}",
                help="patch the file that the link leads to",
                run=(f"git apply --numstat {one.file}",),
            )
    if place.is_file():
        _place(bench / path, place.read_bytes())
        (bench / path).chmod(0o755 if place.stat().st_mode & 0o100 else 0o644)


def _put(paths: Sequence[str], bench: Path, tree: Path) -> None:
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


def _touched(one: Candidate, bench: Path, env: Mapping[str, str]) -> tuple[str, ...]:
    """Return the paths that a patch reads or writes.

    Raises RecipeError ``patch-path`` for one that leaves the tree, ``patch-link`` for one that makes or changes a link or a
    submodule, ``patch-empty`` for one that changes nothing, ``patch-broken`` for one that git can't read.
    """
    if found := _LINK.search(one.file.read_bytes()):
        what = "a symbolic link" if found[1] == b"120000" else "a submodule"
        raise RecipeError("patch-link", f"the patch {one.id} changes {what}", cause=str(one.file), run=_look(one))
    paths: dict[str, None] = {}
    for way in ((), ("--reverse",)):  # of a renamed file each way gives one name
        done = _git_apply(one, bench, env, "--numstat", "-z", *way)
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


def _check_hash(one: Candidate) -> None:
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


def _place(path: Path, content: bytes | None) -> None:
    if content is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _is_there(one: Candidate, bench: Path, env: Mapping[str, str]) -> bool:
    """Whether the tree has the patch already.

    One whose lines fit in both directions, as happens where code repeats itself, is there when it fits backwards at its own
    place and forwards only at another.
    """
    backwards = _git_apply(one, bench, env, "--check", "--verbose", "--reverse")
    if not backwards.ok:
        return False
    forwards = _git_apply(one, bench, env, "--check", "--verbose")
    return not forwards.ok or ("(offset" in forwards.err and "(offset" not in backwards.err)


def _git_apply(one: Candidate, folder: Path, env: Mapping[str, str], *flags: str) -> proc.Finished:
    # Inside of another repository `git apply` silently skips files outside of its own folder: cut the search off.
    clean = {
        "PATH": env.get("PATH", os.defpath),
        "HOME": str(folder),
        "LC_ALL": "C",
        "GIT_CEILING_DIRECTORIES": str(folder.resolve().parent),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ATTR_NOSYSTEM": "1",
    }
    words = ["git", "apply", "--whitespace=nowarn", "--binary", *flags, str(one.file.resolve())]
    return proc.capture(words, env=clean, cwd=folder)


def _drift(one: Candidate, bench: Path, env: Mapping[str, str]) -> PatchDrift:
    done = _git_apply(one, bench, env, "--check", "--verbose")
    causes = [
        _around(bench / path, f"{path}:{line}", int(line), wanted) for wanted, path, line in _MISSED.findall(done.err)
    ]
    causes += [
        f"{path}: {what}"
        for path, what in re.findall(
            r"error: (.+): (No such file or directory|already exists in working directory|wrong type)", done.err
        )
    ]
    return PatchDrift(
        "patch-drift",
        f"the patch {one.id} doesn't fit this source any more",
        cause="\n".join(causes[:3]) or done.err.strip(),
        help="give it a condition for the sources that it fits, or make it anew for this one",
        run=("spark-build recipes lint", f"git apply --check {one.file}"),
    )


def _around(file: Path, where: str, line: int, wanted: str) -> str:
    """Return the lines that a hunk wants and those that are there."""
    there = file.read_text(errors="replace").splitlines() if file.is_file() else []
    around = there[max(0, line - 1) : line - 1 + _SHOWN] or ["(the file is shorter)"]
    lines = [f"{where}: wanted:", *(f"  {text}" for text in wanted.splitlines()[:_SHOWN]), "found:"]
    return "\n".join([*lines, *(f"  {text}" for text in around)])
