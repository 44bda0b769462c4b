"""Patches: which apply to a tree, and applying them. ``git apply`` does the work; it knows no fuzz, only other line numbers.

Trying and applying are one thing: the files that a patch touches are put into an empty folder, and changed there. So the
outcome of a plan is that of the build, no repository around the tree and no `.gitattributes` in it has a say, and a tree
gets either all of its patches or none. Links and submodules aren't patched: through a link a patch would leave the tree.

What git apply can't lay on, git may merge, where a mirror has the contents that the patch was made from. That counts only
when it ends without a conflict, and what came out is part of the plan: the build has to get the same.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from builder.errors import PatchDrift, RecipeError
from builder.inputs import AppliedPatch
from builder.patch import bench as benches
from builder.patch.values import Candidate, Evaluation, Hunk, Kind, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from builder.patch.history import History
    from builder.patch.merge import Merge

__all__ = ["Candidate", "Evaluation", "Hunk", "Kind", "Verdict", "apply", "evaluate", "misfit"]


def evaluate(
    candidates: Sequence[Candidate],
    read: Callable[[str], bytes | None],
    *,
    scratch: Path,
    env: Mapping[str, str],
    objects: Path | None = None,
    commit: str | None = None,
    strict: bool = True,
) -> Evaluation:
    """Try the candidates in order on the files that they touch, which `read` gives; nothing else of the tree is needed.

    A patch whose every hunk is there already is skipped, or refused where it says so. `objects` is the git directory that
    has the history of `commit`: with it a patch that doesn't fit may be merged, or is told to have been reverted, or what
    became of its file. Without `strict` a patch that doesn't fit is passed over, and the verdict tells of it.

    Raises PatchDrift ``patch-drift`` with file and hunk or ``patch-moved``, RecipeError ``patch-hash``, ``patch-missing``,
    ``patch-path``, ``patch-empty``, ``patch-broken``, ``patch-link`` or ``patch-upstream``.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    history = _history(objects, commit, env)
    with tempfile.TemporaryDirectory(prefix=".patches-", dir=scratch) as folder:
        trial = _Trial(Path(folder), objects, history, env)
        for one in candidates:
            trial.take(one, lambda _one, path: benches.place(trial.bench / path, read(path)))
            if strict:
                _require(one, trial.verdicts[-1])
        files = {path: (trial.bench / path).read_bytes() for path in trial.present if (trial.bench / path).is_file()}
    applied = tuple(
        AppliedPatch(id=one.id, sha256=one.sha256, result=verdict.result)
        for one, verdict in zip(candidates, trial.verdicts, strict=True)
        if verdict.applied
    )
    return Evaluation(applied=applied, verdicts=tuple(trial.verdicts), touched=tuple(trial.present), files=files)


def apply(candidates: Sequence[Candidate], tree: Path, *, env: Mapping[str, str], objects: Path | None = None) -> None:
    """Leave `tree` with all candidates, or as it was; changed files get the time of the tree, as all others have it.

    A candidate with a `result` is merged, by the objects of the tree's own repository where `objects` names no other.
    Raises PatchDrift ``patch-drift``, ``patch-result`` or ``patch-link``, and RecipeError as `evaluate` does.
    """
    if objects is None and (tree / ".git").is_dir():
        objects = tree / ".git"
    with tempfile.TemporaryDirectory(prefix=f".{tree.name}.patches-", dir=tree.parent) as folder:
        bench = Path(folder)
        trial = _Trial(bench, None, None, env)
        for one in candidates:
            trial.objects = objects if one.result else None
            trial.take(one, lambda which, path: benches.fetch(which, tree, bench, path))
            _require(one, trial.verdicts[-1])
        benches.put(tuple(trial.present), bench, tree)


def _history(objects: Path | None, commit: str | None, env: Mapping[str, str]) -> History | None:
    if objects is None or commit is None:
        return None
    from builder.patch.history import History  # noqa: PLC0415  # not for a tree without one

    return History(objects=objects, commit=commit, env=env)


class _Trial:
    """A bench with the files that patches touch, as those before left them, and what became of each patch."""

    def __init__(self, bench: Path, objects: Path | None, history: History | None, env: Mapping[str, str]) -> None:
        self.bench = bench
        self.objects = objects
        self.verdicts: list[Verdict] = []
        self.present: dict[str, None] = {}
        self._history = history
        self._env = env

    def take(self, one: Candidate, bring: Callable[[Candidate, str], None]) -> None:
        """Lay `one` on the files that `bring` puts on the bench, and keep the verdict."""
        benches.check_hash(one)
        paths = benches.touched(one, self.bench, self._env)
        for path in paths:
            if path not in self.present:
                self.present[path] = None
                bring(one, path)
        verdict = self._judge(one, paths)
        if one.result is not None and verdict.result != one.result:
            raise PatchDrift(
                "patch-result",
                f"the patch {one.id} makes something else of this tree than was planned",
                cause="its merge with the source has another outcome",
                run=(f"spark-build patch status {one.recipe}",),
            )
        self.verdicts.append(verdict)

    def _judge(self, one: Candidate, paths: Sequence[str]) -> Verdict:
        if benches.is_there(one, self.bench, self._env):
            return Verdict(id=one.id, kind="upstream", text=self._by(one))
        merged = one.merged if one.merged and self._history and self._history.contains(one.merged) else None
        revert = self._history.revert_of(merged) if merged and self._history else ""
        back = f"{merged[:10]} brought it, and {revert[:10] or 'the source lacks it again'}" if merged else ""
        back += " took it back" if revert else ""
        if benches.git_apply(one, self.bench, self._env).ok:  # it changes all of a patch's files, or none
            return Verdict(id=one.id, kind="reverted" if merged else "applies", text=back)
        if merged and not revert:
            text = f"{merged[:10]} brought it; its lines have changed since"
            return Verdict(id=one.id, kind="upstream", text=text)
        if (made := self._merge(one, paths)) is not None and not made.conflicts:
            return self._merged(one, made, back)
        return self._misfit(one, paths, back)

    def _by(self, one: Candidate) -> str:
        known = one.merged and self._history and self._history.contains(one.merged)
        return f"{one.merged[:10]} brought it" if one.merged and known else "every line of it is there"

    def _merge(self, one: Candidate, paths: Sequence[str]) -> Merge | None:
        if self.objects is None:
            return None
        from builder.patch.merge import three_way  # noqa: PLC0415  # hardly ever needed

        return three_way(one, self.bench, paths, objects=self.objects, env=self._env)

    def _merged(self, one: Candidate, made: Merge, back: str) -> Verdict:
        """Leave what a merge made on the bench."""
        from builder.digest import sha256_bytes, sha256_json  # noqa: PLC0415

        before = {path: (self.bench / path).read_bytes() for path in made.files if (self.bench / path).is_file()}
        after = {path: what[1] for path, what in made.files.items() if what is not None}
        if before == after:
            return Verdict(id=one.id, kind="upstream", text="the source has what it changes, in other words around it")
        for path, what in made.files.items():
            (self.bench / path).unlink(missing_ok=True)
            if what is not None:
                benches.place(self.bench / path, what[1])
                (self.bench / path).chmod(what[0])
        result = sha256_json({path: sha256_bytes(data) for path, data in sorted(after.items())})
        text = back or "merged with what changed around it"
        return Verdict(id=one.id, kind="reverted" if back else "3-way", text=text, result=result)

    def _misfit(self, one: Candidate, paths: Sequence[str], back: str) -> Verdict:
        hunks, whole = benches.misfits(one, self.bench, self._env)
        gone = [path for path in paths if f"{path}: No such file or directory" in whole]
        names = {path: self._history.name_of(path) if self._history else None for path in gone}
        moved = tuple((path, name) for path, name in names.items() if name)
        lines = [f"{path} is {name} now" for path, name in moved]
        lines += [line for line in whole if not any(line.startswith(f"{path}: ") for path, _name in moved)]
        lines += [back] if back else []
        return Verdict(id=one.id, kind="moved" if moved else "drifted", text="; ".join(lines), hunks=hunks, moved=moved)


def _require(one: Candidate, verdict: Verdict) -> None:
    """Raise what a build that wants `one` ends with where it can't have it."""
    if verdict.misfit:
        raise misfit(one, verdict)
    if verdict.kind == "upstream" and one.on_upstream == "fail":
        raise RecipeError(
            "patch-upstream",
            f"the source has {one.id} already",
            cause=f"{one.file}: {verdict.text}",
            help="take it out, give it a condition, or let it be skipped: on-upstream = 'skip'",
            run=(f"spark-build patch status {one.recipe}",),
        )


def misfit(one: Candidate, verdict: Verdict) -> PatchDrift:
    """Return the error for a patch that doesn't fit, with the hunks and files that say why."""
    causes = ["\n".join(hunk.lines()) for hunk in verdict.hunks[:3]]
    causes += [verdict.text] if verdict.text else []
    refresh = f"spark-build patch refresh {one.recipe} {one.id}"
    if verdict.kind == "moved":
        return PatchDrift(
            "patch-moved",
            f"the patch {one.id} changes a file that has another name in this source",
            cause="\n".join(causes),
            help="make it anew for this source",
            run=(refresh, f"git apply --check {one.file}"),
        )
    return PatchDrift(
        "patch-drift",
        f"the patch {one.id} doesn't fit this source any more",
        cause="\n".join(causes),
        help="give it a condition for the sources that it fits, or make it anew for this one",
        run=(refresh, f"git apply --check {one.file}"),
    )
