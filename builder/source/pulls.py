"""Pull requests: their change since they left the branch, merged onto the commit that is built."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.digest import sha256_bytes
from builder.errors import HostError, SourceError
from builder.events import Note
from builder.source.mirror import reason
from builder.stages import PullDiff

if TYPE_CHECKING:
    from builder.source.mirror import Mirror

__all__ = ["lay_on"]

#: Commits that exist only to give `git merge-tree` a merge base are nobody's, and of no time.
_NOBODY = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "-"), ("EMAIL", "-"), ("DATE", "@0 +0000"))
}

#: Of so many commits of a pull request it is looked whether one was reverted.
_COMMITS = 50


def lay_on(mirror: Mirror, number: int, head: str, *, commit: str, tree: str) -> tuple[PullDiff, str]:
    """Return the pull request's change from its merge base with `commit`, and the tree that it makes of `tree`.

    `tree` may have other pull requests in it. The digest is over what changed (paths, modes, contents), not over a text. One
    that was merged and then taken back, by the words of a commit, is laid on again.
    Raises SourceError ``pull-base`` or ``pull-conflict`` (names the files), HostError ``git-old``.
    """
    base = mirror.out("merge-base", commit, head)
    if not base:
        raise SourceError(
            "pull-base",
            f"pull request {number} shares no history with {commit[:12]}",
            help="build its own head instead",
            run=(f"spark-build recipe {mirror.sources.recipe} --ref refs/pull/{number}/head",),
        )
    if base == head:
        base = _before_revert(mirror, head, commit) or base
    changed = mirror.git("diff-tree", "-r", "-z", "--full-index", "--no-renames", base, head)
    made = _merged(mirror, number, tree, base=base, head=head, onto=commit) if changed.raw else tree
    if made == tree:
        mirror.sources.sink.emit(Note(level="info", text=f"pull request {number} is in {commit[:12]} already"))
    return PullDiff(number=number, base=base, head=head, sha256=sha256_bytes(changed.raw)), made


def _before_revert(mirror: Mirror, head: str, commit: str) -> str:
    """Return where a pull request left the branch that was merged into `commit` and reverted there; else an empty text."""
    for merge in mirror.out("rev-list", "--ancestry-path", "--merges", "--reverse", f"{head}..{commit}").splitlines():
        if mirror.git("merge-base", "--is-ancestor", head, f"{merge}^1").ok:
            continue
        base = mirror.out("merge-base", f"{merge}^1", head)
        own = mirror.out("rev-list", f"--max-count={_COMMITS}", f"{base}..{head}").splitlines()
        words = [f"--grep=This reverts commit {one[:7]}" for one in (merge, *own)]
        back = mirror.out("log", "-1", "--format=%H", "--fixed-strings", *words, f"{merge}..{commit}")
        return base if back else ""
    return ""


def _merged(mirror: Mirror, number: int, tree: str, *, base: str, head: str, onto: str) -> str:
    root = _commit(mirror, f"{base}^{{tree}}")
    ours, theirs = _commit(mirror, tree, root), _commit(mirror, f"{head}^{{tree}}", root)
    done = mirror.git("merge-tree", "--write-tree", "--name-only", "--no-messages", ours, theirs)
    lines = done.out.splitlines()
    if done.ok and lines:
        return lines[0]
    if "usage: git merge-tree" in done.err:
        raise HostError("git-old", "--pr needs git 2.38 or newer", run=("git --version",))
    if done.code != 1:
        raise mirror.broken(reason(done))
    raise SourceError(
        "pull-conflict",
        f"pull request {number} doesn't fit onto {onto[:12]}",
        cause="\n".join(dict.fromkeys(line for line in lines[1:] if line)),
        help="build its own head instead, or a ref that is nearer to it",
        run=(f"spark-build recipe {mirror.sources.recipe} --ref refs/pull/{number}/head",),
    )


def _commit(mirror: Mirror, tree: str, *parents: str) -> str:
    words = [word for parent in parents for word in ("-p", parent)]
    done = mirror.git("commit-tree", tree, *words, "-m", "-", env=_NOBODY)
    if not done.ok:
        raise mirror.broken(reason(done))
    return done.out.strip()
