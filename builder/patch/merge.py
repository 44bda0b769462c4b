"""Laying a patch on by a 3-way merge, in a scratch repository: what a mirror's objects make possible.

A patch that git wrote names the contents that it was made from. Where the mirror has those, git can merge what the patch
changes with what upstream changed since. Only a merge without a conflict is of use to a build; one with conflicts is where
somebody goes on who makes the patch anew.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from builder import proc
from builder.patch import bench as benches
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from builder.patch.values import Candidate

__all__ = ["Merge", "three_way"]

#: No line ends, filters or merge drivers of a ``.gitattributes`` have a say.
_ATTRIBUTES = "* -text -eol -crlf -ident -filter -working-tree-encoding !diff !merge !whitespace\n"

_NOBODY = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "-"), ("EMAIL", "-"), ("DATE", "@0 +0000"))
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Merge:
    """What a merge made: for each path that it was about, mode and content, or None where it is gone.

    `conflicts` names the files that have conflict markers in them, or that one side changed and the other deleted.
    """

    files: Mapping[str, tuple[int, bytes] | None]
    conflicts: tuple[str, ...]


def three_way(
    one: Candidate,
    bench: Path,
    paths: Sequence[str],
    *,
    objects: Path,
    env: Mapping[str, str],
    renamed: Sequence[str] = (),
) -> Merge | None:
    """Merge a patch with the files `paths` of the bench, or return None where its own old contents aren't at hand.

    `objects` is a git directory that may have those. `renamed` names files of the bench which may be some of the paths by
    their new name. The bench stays as it is.
    """
    with tempfile.TemporaryDirectory(prefix=".merge-", dir=bench.parent) as folder:
        git = _Scratch(Path(folder), bench, objects, env)
        fake, ours = {"GIT_INDEX_FILE": f"{folder}/fake"}, {"GIT_INDEX_FILE": f"{folder}/ours"}
        patch = str(one.file.resolve())
        if not git("apply", f"--build-fake-ancestor={folder}/fake", patch).ok:
            return None
        base = git("write-tree", more=fake).out.strip()
        if not git("apply", "--cached", "--binary", "--whitespace=nowarn", patch, more=fake).ok:
            return None
        theirs = git("write-tree", more=fake).out.strip()
        mine = [path for path in (*paths, *renamed) if (bench / path).is_file()]
        git("update-index", "--add", "-z", "--stdin", stdin="\0".join(mine).encode(errors="surrogateescape"), more=ours)
        root = git.commit(base)
        mine_at, theirs_at = git.commit(git("write-tree", more=ours).out.strip(), root), git.commit(theirs, root)
        done = git(
            *("-c", f"merge.renames={str(bool(renamed)).lower()}", "-c", "merge.directoryRenames=false"),
            *("merge-tree", "--write-tree", "--name-only", "--no-messages", "-z"),
            mine_at,
            theirs_at,
        )
        if done.code not in {0, 1}:  # 1: conflicts (git-merge-tree(1))
            return None
        tree, *conflicts = done.out.rstrip("\0").split("\0")
        names = {mine_at: "the source", theirs_at: f"the patch {one.id}"}
        files = {path: (mode, _named(data, names)) for path, (mode, data) in git.files(tree).items()}
        return Merge(files={**dict.fromkeys((*paths, *renamed)), **files}, conflicts=tuple(conflicts))


def _named(data: bytes, names: Mapping[str, str]) -> bytes:
    """Return a file with words for people behind its conflict markers, where git put commits."""
    for commit, name in names.items():
        for marker in (b"<<<<<<< ", b">>>>>>> "):
            data = data.replace(marker + commit.encode(), marker + name.encode())
    return data


class _Scratch:
    """A repository whose objects are the mirror's, and whose work tree is the bench."""

    def __init__(self, folder: Path, bench: Path, objects: Path, env: Mapping[str, str]) -> None:
        self._bench = bench
        self._env = {**benches.environment(env, folder), **_NOBODY}
        proc.capture(["git", "init", "-q", "--template=", str(folder)], env=self._env)
        self._env |= {"GIT_DIR": str(folder / ".git"), "GIT_WORK_TREE": str(bench)}
        (folder / ".git" / "info").mkdir(exist_ok=True)
        (folder / ".git" / "info" / "attributes").write_text(_ATTRIBUTES)
        (folder / ".git" / "objects" / "info" / "alternates").write_text(f"{(objects / 'objects').resolve()}\n")

    def __call__(self, *words: str, stdin: bytes = b"", more: Mapping[str, str] | None = None) -> proc.Finished:
        return proc.capture(["git", *words], env={**self._env, **(more or {})}, cwd=self._bench, stdin=stdin)

    def commit(self, tree: str, *parents: str) -> str:
        words = [word for parent in parents for word in ("-p", parent)]
        return self("commit-tree", tree, *words, "-m", "-").out.strip()

    def files(self, tree: str) -> dict[str, tuple[int, bytes]]:
        """Return mode and content of each file of a tree."""
        found = {}
        for record in self("ls-tree", "-r", "-z", tree).raw.split(b"\0"):
            head, _tab, path = record.decode(errors="surrogateescape").partition("\t")
            if path:
                mode, _kind, blob = head.split()
                found[path] = (int(mode, 8) & 0o777, self("cat-file", "blob", blob).raw)
        return found
