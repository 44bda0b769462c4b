"""Patches: which apply to a tree, and applying them. ``git apply`` does the work; it knows no fuzz."""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from builder import proc
from builder.digest import sha256_file
from builder.errors import PatchDrift, RecipeError
from builder.inputs import AppliedPatch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Candidate", "Evaluation", "apply", "evaluate", "touched"]

_CONTEXT = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A patch whose conditions hold. `on_upstream` is ``skip`` or ``fail``."""

    id: str
    file: Path
    sha256: str
    on_upstream: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What became of the candidates. `files` holds the touched files as the patches leave them."""

    applied: tuple[AppliedPatch, ...]
    skipped: tuple[str, ...]
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
    with file and hunk, RecipeError ``patch-hash``, ``patch-path`` or ``patch-upstream``.
    """
    applied, skipped = [], []
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".patches-", dir=scratch) as folder:
        tree = Path(folder)
        present: set[str] = set()
        for one in candidates:
            _check_hash(one)
            for path in touched(one):
                if path not in present:
                    present.add(path)
                    _place(tree / path, read(path))
            if _git_apply(one, tree, env, "--check").ok:
                _git_apply(one, tree, env)
                applied.append(AppliedPatch(id=one.id, sha256=one.sha256))
            elif _git_apply(one, tree, env, "--check", "--reverse").ok:
                if one.on_upstream == "fail":
                    raise RecipeError("patch-upstream", f"the source has {one.id} already", cause=str(one.file))
                skipped.append(one.id)
            else:
                raise _drift(one, tree, env)
        files = {path: (tree / path).read_bytes() for path in present if (tree / path).is_file()}
    return Evaluation(applied=tuple(applied), skipped=tuple(skipped), files=files)


def apply(candidates: Sequence[Candidate], tree: Path, *, env: Mapping[str, str]) -> None:
    """Leave `tree` patched by all candidates, or as it was; raise PatchDrift when one doesn't apply."""
    done: list[Candidate] = []
    for one in candidates:
        _check_hash(one)
        if not _git_apply(one, tree, env).ok:  # git apply changes all of a patch's files, or none
            for earlier in reversed(done):
                _git_apply(earlier, tree, env, "--reverse")
            raise _drift(one, tree, env)
        done.append(one)


def touched(one: Candidate) -> tuple[str, ...]:
    """Return the paths that a patch reads or writes; raise RecipeError ``patch-path`` for one that leaves the tree."""
    paths: dict[str, None] = {}
    text = one.file.read_bytes().decode(errors="surrogateescape")
    for line in text.splitlines():
        found = re.match(r"(?:---|\+\+\+) (?:[ab]/)?([^\t\n]+)", line) or re.match(
            r"(?:rename|copy) (?:from|to) (.+)", line
        )
        if found and found[1] != "/dev/null":
            paths[found[1].strip('"')] = None
        if found := re.match(r"diff --git a/(.+) b/(.+)$", line):
            paths[found[1]] = paths[found[2]] = None
    for path in paths:
        parts = PurePosixPath(path).parts
        if path.startswith("/") or ".." in parts or ".git" in parts:
            raise RecipeError("patch-path", f"the patch {one.id} touches {path}, outside of the source tree")
    if not paths:
        raise RecipeError("patch-empty", f"the patch {one.id} changes nothing", cause=str(one.file))
    return tuple(paths)


def _check_hash(one: Candidate) -> None:
    if (found := sha256_file(one.file)) != one.sha256:
        raise RecipeError(
            "patch-hash",
            f"the patch {one.id} isn't the one that the recipe names",
            cause=f"{one.file}: sha256 {found}, wanted {one.sha256}",
            help="when the change is meant, put the new digest into the recipe",
        )


def _place(path: Path, content: bytes | None) -> None:
    if content is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _git_apply(one: Candidate, tree: Path, env: Mapping[str, str], *flags: str) -> proc.Finished:
    # Inside of another repository `git apply` silently skips files outside of its own folder: cut the search off.
    clean = {
        "PATH": env.get("PATH", os.defpath),
        "HOME": str(tree),
        "LC_ALL": "C",
        "GIT_CEILING_DIRECTORIES": str(tree.resolve().parent),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "safe.directory",
        "GIT_CONFIG_VALUE_0": "*",
    }
    words = ["git", "apply", "--whitespace=nowarn", "--binary", *flags, str(one.file.resolve())]
    return proc.capture(words, env=clean, cwd=tree)


def _drift(one: Candidate, tree: Path, env: Mapping[str, str]) -> PatchDrift:
    done = _git_apply(one, tree, env, "--check", "--verbose")
    found = re.search(r"patch failed: (.+):(\d+)", done.err)
    missing = re.search(r"error: (.+): (No such file or directory|already exists in working directory)", done.err)
    if found:
        cause = _around(one, tree, found[1], int(found[2]))
    elif missing:
        cause = f"{missing[1]}: {missing[2]}"
    else:
        cause = done.err.strip()
    return PatchDrift(
        "patch-drift",
        f"the patch {one.id} doesn't fit this source any more",
        cause=cause,
        help="give it a condition for the sources that it fits, or make it anew for this one",
        run=("spark-build recipes lint", f"git apply --check {one.file}"),
    )


def _around(one: Candidate, tree: Path, path: str, line: int) -> str:
    """Return the hunk's header, the lines that it wants and those that are there."""
    hunk, wanted = "", list[str]()
    current = ""
    for text in one.file.read_text(errors="replace").splitlines():
        if text.startswith("+++ "):
            current = re.sub(r"^\+\+\+ (?:b/)?([^\t]+).*", r"\1", text)
        elif text.startswith("@@") and current == path:
            start = re.match(r"@@ -(\d+)", text)
            if start and int(start[1]) == line:
                hunk, wanted = text, []
            elif hunk:
                break
        elif hunk and text[:1] in {" ", "-"}:
            wanted.append(text[1:])
    there = (tree / path).read_text(errors="replace").splitlines() if (tree / path).exists() else []
    around = there[max(0, line - 1) : line - 1 + _CONTEXT * 2]
    lines = [f"{path}:{line}: {hunk}", "wanted:", *(f"  {text}" for text in wanted[: _CONTEXT * 2]), "found:"]
    return "\n".join([*lines, *(f"  {text}" for text in around)] if around else [*lines, "  (the file is shorter)"])
