"""Git repositories for a build: each answers under upstream's own URL, with what is pinned and nothing else.

A repository lies at ``git/<URL>.git``, the URL as it is unless that leads elsewhere: so git names the address of one that
isn't there. It is a few files
(gitrepository-layout(5)): its objects are the mirror's, its refs those that upstream asks for, and history ends at what is
pinned. So a clone is as small as can be, and the same whatever else the mirror holds.
"""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from builder.digest import sha256_bytes
from builder.source.mirror import SHORT, Mirror
from builder.values import dataclass, field

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from builder.source.place import Sources
    from builder.stages import Pin

__all__ = ["as_variables", "lay_out", "pairs", "settings", "stem"]

_CONFIG = """\
[core]
	repositoryformatversion = 0
	bare = true
[uploadpack]
	allowAnySHA1InWant = true
"""
_FULL = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Repository:
    """What one URL answers with: refs by name, commits where history ends, folders of objects."""

    refs: dict[str, str] = field(default_factory=dict)
    commits: dict[str, None] = field(default_factory=dict)
    objects: dict[str, None] = field(default_factory=dict)

    @property
    def head(self) -> str:
        """The branch that a plain clone checks out: the first that was named."""
        return next(name for name in self.refs if name.startswith("refs/heads/"))

    def take(self, commit: str, names: Mapping[str, str], objects: Path) -> None:
        """Add a commit under `names`, and under a branch of its own where none of these is one."""
        self.commits[commit] = self.objects[str(objects)] = None
        branches = [name for name in names if name.startswith("refs/heads/")]
        if not branches and commit not in self.refs.values():
            branches = ["refs/heads/main" if "refs/heads/main" not in self.refs else f"refs/heads/pinned-{commit}"]
        self.refs.update({**dict.fromkeys(branches, commit), **names})


def stem(url: str) -> str:
    """Return what all spellings of a repository's URL begin with."""
    return url.rstrip("/").removesuffix(".git")


def lay_out(pins: Sequence[Pin], folder: Path, sources: Sources) -> tuple[str, ...]:
    """Leave a repository in `folder` for each URL of `pins` and their submodules; return the URLs' stems.

    Raises SourceError ``mirror-damaged`` when a mirror lacks a commit that `fetch` brought.
    """
    shutil.rmtree(folder, ignore_errors=True)
    found: dict[str, _Repository] = {}
    for url, ref, commit in _wanted(pins):
        mirror = Mirror(url, sources)
        if not mirror.has(commit):
            raise mirror.broken(f"{commit} isn't there")
        named = _names(mirror, ref, commit) if ref else {}
        found.setdefault(stem(url), _Repository()).take(commit, named, mirror.path / "objects")
    for url, repository in found.items():
        _write(folder / f"{unquote(_place(url))}.git", repository)
    return tuple(found)


def _place(url: str) -> str:
    """Return where a repository lies in the folder; a URL comes from a tree, and is never a path out of there."""
    path = unquote(url)
    return sha256_bytes(url.encode()) if ".." in path.split("/") or "\0" in path else url.lstrip("/")


def _wanted(pins: Sequence[Pin]) -> Iterator[tuple[str, str, str]]:
    """Yield URL, ref and commit of each repository; those that a tree asks for by name come first."""
    for pin in pins:
        yield pin.url, pin.ref or "", pin.commit or ""
    for pin in pins:
        for one in pin.submodules:
            yield one.url, "", one.commit


def _names(mirror: Mirror, ref: str, commit: str) -> dict[str, str]:
    """Return the refs by which a clone finds `commit` as `ref`, each with what it points at."""
    if ref == "HEAD" or _FULL.fullmatch(ref) or (SHORT.fullmatch(ref) and commit.startswith(ref)):
        return {}
    if ref.startswith("refs/"):
        return {ref: commit}
    short = ref.removeprefix("origin/")
    names = (f"refs/tags/{short}", f"refs/heads/{short}")
    known = {name: mirror.out("rev-parse", "--verify", "-q", name) for name in names}
    there = {name: at if mirror.commit_of(at) == commit else commit for name, at in known.items() if at}
    return there or dict.fromkeys(names, commit)


def _write(folder: Path, repository: _Repository) -> None:
    for name in ("objects/info", "refs"):
        (folder / name).mkdir(parents=True)
    (folder / "HEAD").write_text(f"ref: {repository.head}\n")
    (folder / "config").write_text(_CONFIG)
    (folder / "packed-refs").write_text("".join(f"{at} {name}\n" for name, at in sorted(repository.refs.items())))
    (folder / "shallow").write_text("".join(f"{commit}\n" for commit in sorted(repository.commits)))
    (folder / "objects/info/alternates").write_text("".join(f"{path}\n" for path in repository.objects))


def settings(urls: Sequence[str], pins: Sequence[Pin], seen: Path, sources: Sources) -> list[tuple[str, str]]:
    """Return the settings of a git that asks the repositories in the folder which the build sees at `seen`.

    Of a tree some of whose submodules are given, the others aren't cloned.
    """
    told = [(f"url.file://{quote(str(seen))}/{_place(url)}.insteadOf", url) for url in urls]
    left, given = set[str](), set[str]()
    for pin in pins:
        trees = [(pin.url, pin.commit, ""), *((one.url, one.commit, f"{one.path}/") for one in pin.submodules)]
        paths = {one.path for one in pin.submodules}
        for url, commit, prefix in trees if paths else ():
            for name, path in _modules(Mirror(url, sources), commit or ""):
                (given if prefix + path in paths else left).add(name)
    told += [(f"submodule.{name}.update", "none") for name in sorted(left - given)]
    return [*told, ("protocol.file.allow", "always"), ("safe.directory", "*")]


def _modules(mirror: Mirror, commit: str) -> Iterator[tuple[str, str]]:
    """Yield name and path of each submodule that a commit names."""
    words = ("config", "-z", "--blob", f"{commit}:.gitmodules", "--get-regexp", r"^submodule\..*\.path$")
    for record in mirror.out(*words).split("\0"):
        key, _line, path = record.partition("\n")
        if path:
            yield key.removeprefix("submodule.").removesuffix(".path"), path


def pairs(env: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the settings that variables give git (git-config(1), GIT_CONFIG_COUNT)."""
    count = int(env.get("GIT_CONFIG_COUNT") or 0)
    return [(env[f"GIT_CONFIG_KEY_{number}"], env[f"GIT_CONFIG_VALUE_{number}"]) for number in range(count)]


def as_variables(settings: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Return variables that give git `settings`; of equal URLs the first counts."""
    made = {"GIT_CONFIG_COUNT": str(len(settings))}
    for number, (key, value) in enumerate(settings):
        made |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return made
