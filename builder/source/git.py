"""Git sources: one bare mirror a repository, asked where a ref can move, usable without a network.

A pin names a tree: that of the commit, or, with pull requests, the tree that their diffs make of it. Reading and laying out
go by that tree, so there is one truth for conditions, patches and the build.
"""

from __future__ import annotations

import contextlib
import difflib
import fcntl
import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder import proc
from builder.digest import sha256_bytes
from builder.errors import SourceError
from builder.source.archive import write_atomic
from builder.source.place import age_text, without_credentials
from builder.stages import Pin, PullDiff, Submodule

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from builder.recipe.model import Source
    from builder.source.place import Sources
    from builder.stages import Request

__all__ = ["contains", "environment", "fetch", "insteadof", "materialize", "pin", "read"]

_FULL = re.compile(r"[0-9a-f]{40}")
_SHORT = re.compile(r"[0-9a-f]{7,39}")
_HEADS = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
_PASSED = re.compile(r"(PATH|HOME|LANG|GIT_SSL_\w+|GIT_SSH\w*|SSH_AUTH_SOCK|SSL_CERT_\w+|\w*_proxy|\w*_PROXY)")


def environment(sources: Sources) -> dict[str, str]:
    """Return git's environment: nothing of the caller's that changes what git does, no prompts, no hooks."""
    env = {key: value for key, value in sources.env.items() if _PASSED.fullmatch(key)}
    settings = {"protocol.file.allow": "always", "safe.directory": "*", "core.hooksPath": "/dev/null", "gc.auto": "0"}
    env |= {"GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_COUNT": str(len(settings)), "GIT_ASKPASS": "true"}
    for number, (key, value) in enumerate(settings.items()):
        env |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return env


def insteadof(sources: Sources) -> dict[str, str]:
    """Return variables that send git clones inside a build to the configured mirrors."""
    env = {"GIT_CONFIG_COUNT": str(len(sources.mirrors))} if sources.mirrors else {}
    for number, (prefix, to) in enumerate(sources.mirrors):
        env |= {f"GIT_CONFIG_KEY_{number}": f"url.{to}.insteadOf", f"GIT_CONFIG_VALUE_{number}": prefix}
    return env


class _Mirror:
    """The bare mirror of one repository."""

    def __init__(self, url: str, sources: Sources) -> None:
        self.url = without_credentials(url)
        self.remote = sources.mirrored(url)
        self.sources = sources
        name = re.sub(r"[^A-Za-z0-9]+", "-", self.url.rstrip("/").removesuffix(".git").rsplit("/", 1)[-1])
        self.path = sources.root / "git" / f"{name}-{sha256_bytes(self.url.encode())[:12]}.git"

    def git(self, *words: str, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> proc.Finished:
        """Run git in the mirror."""
        return proc.capture(
            ["git", f"--git-dir={self.path}", *words], env={**environment(self.sources), **(env or {})}, stdin=stdin
        )

    def out(self, *words: str) -> str:
        """Return what git prints, or an empty text when it fails."""
        done = self.git(*words)
        return done.out.strip() if done.ok else ""

    def has(self, commit: str) -> bool:
        """Whether the mirror holds `commit` with its tree."""
        return self.path.exists() and self.git("cat-file", "-e", f"{commit}^{{tree}}").ok

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes off the mirror while refs and objects change."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (self.path / "HEAD").exists():
                made = proc.capture(["git", "init", "-q", "--bare", str(self.path)], env=environment(self.sources))
                if not made.ok:
                    raise SourceError("mirror", f"{self.path} can't be made", cause=made.err.strip())
            yield

    def fetch(self, *specs: str, depth: int | None = None) -> bool:
        """Bring in `specs` from the remote; return whether that worked."""
        with self.locked():
            words = [
                "fetch",
                "-q",
                "--no-write-fetch-head",
                *([f"--depth={depth}"] if depth else []),
                self.remote,
                *specs,
            ]
            return self.git(*words).ok

    def state(self) -> dict[str, Any]:
        """Return what the remote said of refs the last time it was asked."""
        try:
            loaded: dict[str, Any] = json.loads((self.path / "spark-build.json").read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return loaded

    def note(self, ref: str, commit: str) -> None:
        """Keep that `ref` was `commit` now."""
        state = self.state()
        state[ref] = {"commit": commit, "asked": self.sources.clock()}
        write_atomic(self.path / "spark-build.json", json.dumps(state).encode())


def pin(source: Source, request: Request, sources: Sources, *, recipe: str) -> Pin:
    """Return the commit that the request means, with its tree, time, submodules and pull requests.

    Raises SourceError ``ref-missing`` (with near names; never another branch instead), ``remote-unreachable`` (with the
    last known commit and its age), ``offline-unknown``, ``pull-conflict``.
    """
    url = request.repo or source.url or ""
    ref = request.ref or source.ref or "HEAD"
    mirror = _Mirror(url, sources)
    commit, asked, stale = _resolve(mirror, ref, recipe)
    if not mirror.has(commit):
        _bring_commit(mirror, commit, ref, recipe)
    tree = mirror.out("rev-parse", f"{commit}^{{tree}}")
    pulls = []
    for number in request.pulls:
        pull, tree = _lay_on(mirror, number, commit, tree, recipe)
        pulls.append(pull)
    return Pin(
        kind="git",
        url=mirror.url,
        tree=f"git:{tree}",
        time=int(mirror.out("log", "-1", "--format=%ct", commit)),
        version=_version(mirror, commit),
        ref=ref,
        commit=commit,
        submodules=tuple(_submodules(mirror, commit, source.submodules, recipe)),
        pulls=tuple(pulls),
        asked_at=asked,
        stale=stale,
    )


def _resolve(mirror: _Mirror, ref: str, recipe: str) -> tuple[str, float | None, bool]:
    """Return commit, when the remote was asked, and whether that is not now."""
    sources = mirror.sources
    if _FULL.fullmatch(ref):
        return ref, None, False
    if sources.offline:
        known = mirror.state().get(ref) or {}
        commit = known.get("commit") or mirror.out("rev-parse", "--verify", "-q", f"{ref}^{{commit}}")
        if not commit:
            raise SourceError(
                "offline-unknown",
                f"{ref} of {mirror.url} was never fetched, and --offline forbids to ask",
                run=(f"spark-build fetch {recipe} --ref {ref}",),
            )
        return commit, known.get("asked"), True
    listed = mirror_refs(mirror, ref, recipe)
    for name in (ref, f"refs/tags/{ref}^{{}}", f"refs/heads/{ref}", f"refs/tags/{ref}"):
        # An annotated tag's commit is listed under `^{}`.
        if commit := listed.get(f"{name}^{{}}") or listed.get(name):
            return _noted(mirror, ref, commit)
    if _SHORT.fullmatch(ref):
        mirror.fetch(*_HEADS)
        if commit := mirror.out("rev-parse", "--verify", "-q", f"{ref}^{{commit}}"):
            return commit, None, False
    raise _missing(mirror, ref)


def _noted(mirror: _Mirror, ref: str, commit: str) -> tuple[str, float, bool]:
    if not mirror.has(commit):
        spec = f"+{ref}:{ref}" if ref.startswith("refs/") else ""
        mirror.fetch(*_HEADS, *([spec] if spec else []))
    with mirror.locked():
        mirror.note(ref, commit)
    return commit, mirror.sources.clock(), False


def mirror_refs(mirror: _Mirror, ref: str, recipe: str) -> dict[str, str]:
    """Ask the remote what `ref` is; raise SourceError ``remote-unreachable`` with what was known before."""
    words = ["ls-remote", mirror.remote, ref, f"refs/heads/{ref}", f"refs/tags/{ref}", f"refs/tags/{ref}^{{}}"]
    done = proc.capture(["git", *words], env=environment(mirror.sources), timeout_s=120)
    if done.ok:
        return {name: commit for commit, name in (line.split("\t") for line in done.out.splitlines())}
    known = mirror.state().get(ref)
    cause = next((line for line in done.err.splitlines() if line.startswith(("fatal:", "error:"))), done.err.strip())
    run = [f"git ls-remote {mirror.url}"]
    if known:
        age = age_text(mirror.sources.clock() - known["asked"])
        cause = f"{cause}\nlast known {ref}: {known['commit']}, asked {age} ago"
        run.insert(0, f"spark-build recipe {recipe} --ref {ref} --offline")
    raise SourceError(
        "remote-unreachable",
        f"{mirror.url} can't be asked for {ref}",
        cause=cause,
        help="--offline takes the last known commit; [mirrors] in the configuration names another place to ask",
        run=tuple(run),
    )


def _missing(mirror: _Mirror, ref: str) -> SourceError:
    done = proc.capture(["git", "ls-remote", "--heads", "--tags", mirror.remote], env=environment(mirror.sources))
    names = {line.split("\t")[1].split("/", 2)[2].removesuffix("^{}") for line in done.out.splitlines()}
    near = difflib.get_close_matches(ref, sorted(names), 5) or sorted(name for name in names if ref in name)[:5]
    return SourceError(
        "ref-missing",
        f"{mirror.url} has no branch, tag or commit {ref}",
        cause=f"near: {', '.join(near) or 'nothing'}",
        help="another branch is never taken instead",
        run=(f"git ls-remote {mirror.url}",),
    )


def _bring_commit(mirror: _Mirror, commit: str, ref: str, recipe: str) -> None:
    """Bring `commit` in by its own name, else with all branches and tags."""
    if mirror.sources.offline:
        raise SourceError(
            "offline-unknown",
            f"the commit {commit[:12]} of {mirror.url} isn't at hand, and --offline forbids to fetch it",
            run=(f"spark-build fetch {recipe} --ref {ref}",),
        )
    mirror.fetch(*_HEADS)
    if not mirror.has(commit):
        mirror.fetch(commit)
    if not mirror.has(commit):
        mirror_refs(mirror, ref, recipe)  # raises when the remote is the reason
        raise _missing(mirror, ref)


def _version(mirror: _Mirror, commit: str) -> str | None:
    """Return the version that a tag at exactly this commit names."""
    tags = mirror.out("tag", "--points-at", commit).splitlines()
    found = [tag.removeprefix("v") for tag in tags if re.fullmatch(r"v?\d+(\.\d+)+([a-z.-]+\d+)*", tag)]
    return max(found, key=len, default=None)


def _lay_on(mirror: _Mirror, number: int, commit: str, tree: str, recipe: str) -> tuple[PullDiff, str]:
    """Return the pull request's diff from its merge base, and the tree that it makes of `tree`."""
    ref = f"refs/pull/{number}/head"
    head, _asked, _stale = _resolve(mirror, ref, recipe)
    if not mirror.has(head):
        _bring_commit(mirror, head, ref, recipe)
    base = mirror.out("merge-base", commit, head)
    if not base:
        raise SourceError("pull-base", f"pull request {number} shares no history with {commit[:12]}")
    diff = mirror.git("diff", "--binary", "--full-index", "--no-color", "--no-ext-diff", base, head).raw
    with tempfile.TemporaryDirectory(dir=mirror.path) as scratch:
        index = {"GIT_INDEX_FILE": str(Path(scratch) / "index")}
        mirror.git("read-tree", tree, env=index)
        done = mirror.git("apply", "--cached", "--3way", "-", stdin=diff, env=index) if diff else None
        if done is not None and not done.ok:
            files = re.findall(r"(?:patch failed: |with conflicts\.?\s*|U )(\S+)", done.err + done.out)
            raise SourceError(
                "pull-conflict",
                f"pull request {number} doesn't fit onto {commit[:12]}",
                cause=", ".join(dict.fromkeys(files)) or done.err.strip(),
                help="build its own head instead, or a ref that is nearer to it",
                run=(f"spark-build recipe {recipe} --ref {ref}",),
            )
        made = mirror.git("write-tree", env=index).out.strip()
    return PullDiff(number=number, base=base, head=head, sha256=sha256_bytes(diff)), made


def _submodules(
    mirror: _Mirror, commit: str, wanted: str | tuple[str, ...], recipe: str, prefix: str = ""
) -> Iterator[Submodule]:
    if wanted == "none":
        return
    listed = mirror.git("config", "--blob", f"{commit}:.gitmodules", "--list").out
    found: dict[str, dict[str, str]] = {}
    for line in listed.splitlines():
        name, _equals, value = line.partition("=")
        module, _dot, key = name.removeprefix("submodule.").rpartition(".")
        found.setdefault(module, {})[key] = value
    paths = {entry["path"]: entry["url"] for entry in found.values() if "path" in entry and "url" in entry}
    if isinstance(wanted, tuple) and (unknown := [path for path in wanted if path not in paths]):
        raise SourceError(
            "submodule-missing",
            f"{mirror.url} has no submodule {unknown[0]}",
            cause=f"it has {', '.join(paths) or 'none'}",
        )
    for path, raw in sorted(paths.items()):
        if isinstance(wanted, tuple) and path not in wanted:
            continue
        entry = mirror.out("ls-tree", commit, "--", path).split()
        if len(entry) < 3 or entry[1] != "commit":  # noqa: PLR2004  # mode, type, id
            continue
        url = _joined(mirror.url, raw)
        yield Submodule(path=prefix + path, url=without_credentials(url), commit=entry[2])
        if wanted == "all":
            nested = _Mirror(url, mirror.sources)
            _bring_submodule(nested, entry[2], recipe)
            yield from _submodules(nested, entry[2], "all", recipe, prefix=f"{prefix}{path}/")


def _joined(base: str, url: str) -> str:
    """Return a submodule's URL; a relative one goes by its parent's (git-submodule(1))."""
    if not url.startswith(("./", "../")):
        return url
    parts = base.rstrip("/").split("/")
    for part in url.split("/"):
        if part == "..":
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts)


def _bring_submodule(mirror: _Mirror, commit: str, recipe: str) -> int:
    """Bring one commit of a submodule in, without its history where the remote gives single commits."""
    if mirror.has(commit):
        return 0
    if mirror.sources.offline:
        raise SourceError(
            "offline-missing",
            f"the submodule {mirror.url} at {commit[:12]} isn't at hand",
            run=(f"spark-build fetch {recipe}",),
        )
    mirror.fetch(commit, depth=1)
    if not mirror.has(commit):
        mirror.fetch(*_HEADS)
    if not mirror.has(commit):
        raise SourceError(
            "submodule-unreachable",
            f"{mirror.url} doesn't give {commit[:12]}",
            help="[mirrors] in the configuration names another place to ask",
            run=(f"git ls-remote {mirror.url}",),
        )
    return _size(mirror.path)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*.pack"))


def fetch(pinned: Pin, sources: Sources) -> int:
    """Bring commit and submodules in; return the bytes that came, zero when all was there."""
    received = 0
    mirror = _Mirror(pinned.url, sources)
    if pinned.commit and not mirror.has(pinned.commit):
        _bring_commit(mirror, pinned.commit, pinned.ref or pinned.commit, "NAME")
        received += _size(mirror.path)
    for one in pinned.submodules:
        received += _bring_submodule(_Mirror(one.url, sources), one.commit, "NAME")
    return received


def materialize(pinned: Pin, dest: Path, sources: Sources) -> None:
    """Check the tree out at `dest`: a git work tree with HEAD at the commit, its objects shared with the mirror."""
    fetch(pinned, sources)
    beside = dest.with_name(f".{dest.name}.checkout")
    shutil.rmtree(beside, ignore_errors=True)
    assert pinned.commit is not None  # noqa: S101  # git pins have one
    _checkout(_Mirror(pinned.url, sources), pinned.commit, pinned.tree.removeprefix("git:"), beside)
    for one in pinned.submodules:
        target = beside / one.path
        shutil.rmtree(target, ignore_errors=True)
        _checkout(_Mirror(one.url, sources), one.commit, f"{one.commit}^{{tree}}", target)
    for root, folders, files in os.walk(beside):
        folders[:] = [name for name in folders if name != ".git"]
        for name in files:
            os.utime(os.path.join(root, name), (pinned.time, pinned.time), follow_symlinks=False)  # noqa: PTH118
    beside.replace(dest)


def _checkout(mirror: _Mirror, commit: str, tree: str, dest: Path) -> None:
    env = environment(mirror.sources)
    dest.parent.mkdir(parents=True, exist_ok=True)
    for words in (
        ["clone", "-q", "--shared", "--no-checkout", str(mirror.path), str(dest)],
        ["-C", str(dest), "remote", "set-url", "origin", mirror.url],
        ["-C", str(dest), "update-ref", "--no-deref", "HEAD", commit],
        ["-C", str(dest), "read-tree", "-u", "--reset", tree],
    ):
        done = proc.capture(["git", *words], env=env)
        if not done.ok:
            if "No space left" in done.err:
                from builder.errors import HostError  # noqa: PLC0415

                raise HostError("disk-full", f"no space left to check {mirror.url} out", run=("spark-build gc",))
            raise SourceError("checkout", f"{mirror.url} can't be checked out", cause=done.err.strip())


def read(pinned: Pin, path: str, sources: Sources) -> bytes | None:
    """Return one file of the tree, also of a submodule's, or None."""
    for one in pinned.submodules:
        if path.startswith(f"{one.path}/"):
            mirror, spec = _Mirror(one.url, sources), f"{one.commit}:{path.removeprefix(one.path + '/')}"
            _bring_submodule(mirror, one.commit, "NAME")
            break
    else:
        mirror, spec = _Mirror(pinned.url, sources), f"{pinned.tree.removeprefix('git:')}:{path}"
    done = mirror.git("cat-file", "blob", spec)
    return done.raw if done.ok else None


def contains(pinned: Pin, commit: str, sources: Sources) -> bool:
    """Whether `commit` is the pinned commit or an ancestor of it; False for one that the mirror doesn't know."""
    mirror = _Mirror(pinned.url, sources)
    return mirror.git("merge-base", "--is-ancestor", commit, pinned.commit or "").ok
