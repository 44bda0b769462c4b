"""What a project's history says about a patch: whether it was merged, taken back, or its file renamed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder import proc
from builder.patch import bench
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["History"]

#: How often a file may have been renamed since.
_RENAMES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The history of `commit`, as the git directory `objects` has it."""

    objects: Path
    commit: str
    env: Mapping[str, str]

    def contains(self, commit: str) -> bool:
        """Whether `commit` is an ancestor, or that itself; False for one that isn't known."""
        return self._git("merge-base", "--is-ancestor", commit, self.commit).ok

    def revert_of(self, commit: str) -> str:
        """Return the commit that took `commit` back, by its own words, or an empty text."""
        full = self._out("rev-parse", "--verify", "-q", f"{commit}^{{commit}}")
        words = ("--format=%H", "-1", "--fixed-strings", f"--grep=This reverts commit {full[:7]}")
        return self._out("log", *words, f"{full}..{self.commit}") if full else ""

    def name_of(self, path: str) -> str | None:
        """Return what a file that is no longer there is called now, as far as commits that renamed it tell."""
        name = path
        for _time in range(_RENAMES):
            deleted = self._out("log", "-1", "--format=%H", "--no-renames", "--diff-filter=D", self.commit, "--", name)
            if not deleted:
                return None
            words = ("-r", "-M", "--diff-filter=R", "--name-status", "-z", f"{deleted}^1", deleted)
            told = self._git("diff-tree", *words).raw.decode(errors="surrogateescape").split("\0")
            new = dict(zip(told[1::3], told[2::3], strict=False)).get(name)
            if new is None:
                return None
            name = new
            if self._git("cat-file", "-e", f"{self.commit}:{name}").ok:
                return name
        return None

    def _out(self, *words: str) -> str:
        done = self._git(*words)
        return done.out.strip() if done.ok else ""

    def _git(self, *words: str) -> proc.Finished:
        argv = ["git", f"--git-dir={self.objects}", "-c", "safe.directory=*", *words]
        return proc.capture(argv, env=bench.environment(self.env, self.objects))
