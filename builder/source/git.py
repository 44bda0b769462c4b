"""Git sources: asked where a ref can move, exact where it can't, usable without a network.

A pin names a tree: that of the commit, or, with pull requests, the tree that they make of it. Submodules, reading and
laying out go by that tree, so there is one truth for conditions, patches and the build.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import shutil
from typing import TYPE_CHECKING

from builder.errors import SourceError
from builder.source import checkout
from builder.source.mirror import HEADS, SHORT, Mirror, quoted
from builder.source.pulls import lay_on
from builder.stages import Pin, Submodule

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from builder.recipe.model import Source
    from builder.source.place import Sources
    from builder.stages import Request

__all__ = [
    "FULL",
    "bring_single",
    "contains",
    "fetch",
    "last_known",
    "materialize",
    "pin",
    "read",
    "resolve",
    "submodules_of",
    "time_of",
]

FULL = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def pin(source: Source, request: Request, sources: Sources, *, base: Path) -> Pin:  # noqa: ARG001  # all kinds take it
    """Return the commit that the request means, with its tree, time, submodules and pull requests.

    Raises SourceError ``ref-missing`` (with near names; never another branch instead), ``remote-unreachable`` (with the
    last known commit and its age), ``offline-unknown``, ``pull-conflict``, ``submodule-missing`` and those of a fetch.
    """
    url, ref = request.repo or source.url or "", request.ref or source.ref or "HEAD"
    mirror = Mirror(url, sources)
    commit, asked, stale = resolve(mirror, ref)
    if not sources.offline and mirror.shallow:  # it was a submodule so far
        mirror.fetch(*HEADS)
    _bring(mirror, commit, ref)
    commit = mirror.commit_of(commit)
    if not commit:
        raise _missing(mirror, ref)
    tree = mirror.out("rev-parse", f"{commit}^{{tree}}")
    pulls = []
    for number in request.pulls:
        head_ref = f"refs/pull/{number}/head"
        head, _asked, old = resolve(mirror, head_ref)
        stale = stale or old
        _bring(mirror, head, head_ref)
        pull, tree = lay_on(mirror, number, head, commit=commit, tree=tree)
        pulls.append(pull)
    return Pin(
        kind="git",
        url=mirror.url,
        tree=f"git:{tree}",
        time=time_of(mirror, commit),
        version=checkout.version_of(mirror.out("tag", "--points-at", commit).splitlines()),
        ref=ref,
        commit=commit,
        describe=checkout.describe(mirror, commit) or None,
        submodules=tuple(submodules_of(mirror, tree, source.submodules)),
        pulls=tuple(pulls),
        asked_at=asked,
        stale=stale,
    )


def time_of(mirror: Mirror, commit: str) -> int:
    """Return a commit's time in seconds; the object alone tells it, also where history is cut off."""
    head = mirror.git("cat-file", "commit", commit).raw.partition(b"\n\n")[0]
    found = re.search(rb"^committer .*> (\d+) [+-]\d{4}$", head, re.MULTILINE)
    if found is None:
        raise mirror.broken(f"{commit} isn't there")
    return int(found[1])


def resolve(mirror: Mirror, ref: str) -> tuple[str, float | None, bool]:
    """Return commit, when the remote was asked, and whether that is not now."""
    if FULL.fullmatch(ref.lower()):
        return ref.lower(), None, False
    if mirror.sources.offline:
        return last_known(mirror, ref)
    patterns = (ref, f"{ref}^{{}}", f"refs/heads/{ref}", f"refs/tags/{ref}", f"refs/tags/{ref}^{{}}")
    listed = mirror.ask(*patterns, "refs/tags/*", ref=ref)
    tags = {name: at for name, at in listed.items() if name.startswith("refs/tags/") and not name.endswith("^{}")}
    # A tag may be new where its commit isn't, and versions are made of tags.
    if mirror.path.exists() and mirror.tags() != tags:
        mirror.fetch(*HEADS)
    for name in (ref, f"refs/tags/{ref}", f"refs/heads/{ref}"):
        # An annotated tag's commit is listed under `^{}`.
        if commit := listed.get(f"{name}^{{}}") or listed.get(name):
            # A tag may be new where its commit isn't, and counts as the commit's description.
            named = name.startswith("refs/") and mirror.commit_of(name) != commit
            if named or not mirror.has(commit):
                mirror.fetch(*HEADS, *([f"+{ref}:{ref}"] if ref.startswith("refs/") else []))
            with mirror.locked():
                mirror.note(ref, commit)
            return commit, mirror.sources.clock(), False
    if SHORT.fullmatch(ref.lower()):
        if not mirror.commit_of(ref):
            mirror.fetch(*HEADS)
        if commit := mirror.commit_of(ref):
            return commit, None, False
    raise _missing(mirror, ref)


def last_known(mirror: Mirror, ref: str) -> tuple[str, float | None, bool]:
    """Return as `resolve` does, and ask nobody; raise SourceError ``offline-unknown`` for what was never seen."""
    if known := mirror.known(ref):
        exact = SHORT.fullmatch(ref.lower()) and known[0].startswith(ref.lower())
        return known[0], None if exact else known[1], not exact
    raise _not_at_hand(mirror, ref, f" --ref {quoted(ref)}")


def _not_at_hand(mirror: Mirror, name: str, words: str = "") -> SourceError:
    """Return why --offline can't have `name`; with `words` a fetch would bring it."""
    if mirror.path.exists() and mirror.damaged():
        return mirror.broken(f"{name} is missing")
    return SourceError(
        "offline-unknown",
        f"{name} of {mirror.url} isn't at hand, and --offline forbids to ask",
        run=(f"spark-build fetch {mirror.sources.recipe}{words}",),
    )


def _missing(mirror: Mirror, ref: str) -> SourceError:
    listed = mirror.ask(words=("--heads", "--tags"), ref=ref)
    names = sorted({name.split("/", 2)[2].removesuffix("^{}") for name in listed})
    near = difflib.get_close_matches(ref, names, 5) or [name for name in names if ref in name or name in ref][:5]
    return SourceError(
        "ref-missing",
        f"{mirror.url} has no branch, tag or commit {ref}",
        cause=f"near: {', '.join(near) or 'nothing'}",
        help="another branch is never taken instead",
        run=(mirror.look,),
    )


def _bring(mirror: Mirror, commit: str, ref: str) -> int:
    """Bring `commit` in with all branches and tags, else by its own name; return the bytes received."""
    if mirror.has(commit):
        return 0
    if mirror.sources.offline:
        raise _not_at_hand(mirror, commit[:12], f" --ref {quoted(ref)}")
    mirror.ask("HEAD", ref=ref)  # raises when the remote is the reason, with what is known
    received = mirror.fetch(*HEADS)
    if not mirror.has(commit):
        received += mirror.fetch(commit)
    if not mirror.has(commit):
        raise _missing(mirror, ref)
    return received


def submodules_of(
    mirror: Mirror, tree: str, wanted: str | tuple[str, ...], prefix: str = "", *, deep: bool = False
) -> Iterator[Submodule]:
    """Yield the submodules of a tree; ``all`` brings them and yields theirs, too, and so does `deep` for those named."""
    if wanted == "none":
        return
    listed = _listed(mirror, tree)
    if isinstance(wanted, tuple) and (unknown := [path for path in wanted if path not in listed]):
        raise SourceError(
            "submodule-missing",
            f"{mirror.url} has no submodule {unknown[0]} here",
            cause=f"it has {', '.join(sorted(listed)) or 'none'}",
            help="the recipe's source names submodules by path",
            run=(f"spark-build recipes show {mirror.sources.recipe} --origin",),
        )
    for path, (raw, commit) in sorted(listed.items()):
        if isinstance(wanted, tuple) and path not in wanted:
            continue
        nested = Mirror(_joined(mirror.asked, raw), mirror.sources)
        yield Submodule(path=prefix + path, url=nested.url, commit=commit)
        # Credentials are known only now; they don't get into the pin.
        if wanted == "all" or deep or nested.asked != nested.url:
            bring_single(nested, commit)
        if wanted == "all" or deep:
            yield from submodules_of(nested, f"{commit}^{{tree}}", "all", prefix=f"{prefix}{path}/")


def _listed(mirror: Mirror, tree: str) -> dict[str, tuple[str, str]]:
    """Return the submodules of a tree: path -> URL as written, commit."""
    links = {}
    for record in mirror.git("ls-tree", "-r", "-z", "--full-tree", tree).out.split("\0"):
        head, _tab, path = record.partition("\t")
        if head.startswith("160000 "):
            links[path] = head.split()[2]
    modules: dict[str, dict[str, str]] = {}
    if links:
        for record in mirror.git("config", "-z", "--blob", f"{tree}:.gitmodules", "--list").out.split("\0"):
            name, _line, value = record.partition("\n")
            module, _dot, key = name.removeprefix("submodule.").rpartition(".")
            modules.setdefault(module, {})[key] = value
    return {
        entry["path"]: (entry["url"], links[entry["path"]])
        for entry in modules.values()
        if entry.get("url") and entry.get("path") in links
    }


def _joined(base: str, url: str) -> str:
    """Return a submodule's URL; a relative one goes by its parent's (git-submodule(1))."""
    if not url.startswith(("./", "../")):
        return url
    base, rest = base.rstrip("/"), url
    while rest.startswith(("./", "../")):
        if rest.startswith("../"):
            cut = max(base.rfind("/"), base.rfind(":"))
            base, joint = base[:cut], base[cut]
            rest = rest[3:]
            if joint == ":" and not rest.startswith("../"):
                return f"{base}:{rest}"
        else:
            rest = rest[2:]
    return f"{base}/{rest}"


def bring_single(mirror: Mirror, commit: str) -> int:
    """Bring one commit of a submodule in, without its history where the remote gives single commits."""
    if mirror.has(commit):
        return 0
    if mirror.sources.offline:
        raise _not_at_hand(mirror, commit[:12])
    received = mirror.fetch(commit, depth=1)
    if not mirror.has(commit):
        received += mirror.fetch(*HEADS)
    if not mirror.has(commit):
        raise SourceError(
            "submodule-unreachable",
            f"{mirror.url} doesn't give {commit[:12]}",
            cause="neither by its name nor with its branches and tags",
            help="[mirrors] in the configuration names another place to ask",
            run=(mirror.look,),
        )
    return received


def fetch(pinned: Pin, sources: Sources) -> int:
    """Bring commit and submodules in; return the bytes that came, zero when all was there."""
    received, mirror, tree = 0, Mirror(pinned.url, sources), pinned.tree.removeprefix("git:")
    assert pinned.commit is not None  # noqa: S101  # git pins have one
    received += _bring(mirror, pinned.commit, pinned.ref or pinned.commit)
    for pull in pinned.pulls:
        received += _bring(mirror, pull.head, f"refs/pull/{pull.number}/head")
    if pinned.pulls and not mirror.has(tree):
        made = mirror.out("rev-parse", f"{pinned.commit}^{{tree}}")
        for pull in pinned.pulls:
            _pull, made = lay_on(mirror, pull.number, pull.head, commit=pinned.commit, tree=made)
    for one in pinned.submodules:
        received += bring_single(Mirror(one.url, sources), one.commit)
    for url in (pinned.url, *(one.url for one in pinned.submodules)):
        with contextlib.suppress(OSError):  # read-only sources have no use for it
            os.utime(Mirror(url, sources).path)  # last used, for gc
    return received


def materialize(pinned: Pin, dest: Path, sources: Sources) -> None:
    """Lay the tree out at `dest` as git holds it: bytes, links and executable bits, every time that of the commit.

    It is a git work tree: HEAD is the commit, of all tags there is only the one that `pinned.describe` names, objects are
    shared with the mirror. What pull requests and patches change shows as uncommitted. No other ref of the mirror is there,
    so what a project makes of its history depends on the pin alone.

    Raises SourceError ``mirror-damaged``, ``tag-moved``, ``link-outside`` or ``checkout``, HostError ``disk-full``.
    """
    fetch(pinned, sources)
    beside = dest.with_name(f".{dest.name}.checkout")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        mirror = Mirror(pinned.url, sources)
        checkout.lay_out(mirror, beside, commit=pinned.commit or "", tree=pinned.tree.removeprefix("git:"))
        checkout.name(mirror, beside, pinned.commit or "", pinned.describe)
        for one in pinned.submodules:
            target = beside / one.path
            nested = Mirror(one.url, sources)
            checkout.lay_out(nested, target, commit=one.commit, tree=f"{one.commit}^{{tree}}")
        checkout.settle(beside, pinned.time)
        dest.parent.mkdir(parents=True, exist_ok=True)
        os.replace(beside, dest)  # noqa: PTH105  # fails on a folder that isn't empty, as it should
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def read(pinned: Pin, path: str, sources: Sources) -> bytes | None:
    """Return one file of the tree, also of a submodule's, or None; links inside of the tree are followed."""
    fetch(pinned, sources)
    mirror, tree, inner = Mirror(pinned.url, sources), pinned.tree.removeprefix("git:"), path
    for one in sorted(pinned.submodules, key=lambda one: -len(one.path)):
        if path.startswith(f"{one.path}/"):
            mirror, tree, inner = Mirror(one.url, sources), one.commit, path.removeprefix(one.path + "/")
            break
    done = mirror.git("cat-file", "--batch", "--follow-symlinks", stdin=f"{tree}:{inner}\n".encode())
    head, _newline, body = done.raw.partition(b"\n")
    words = head.split()
    if len(words) == 3 and words[1] == b"blob":  # noqa: PLR2004  # id, type, size
        return body[: int(words[2])]
    listed = mirror.out("ls-tree", tree, "--", inner) if head.endswith(b" missing") else ""
    if not done.ok or (listed.startswith("100") and listed.endswith(f"\t{inner}")):
        raise mirror.broken(f"{path}: {done.err.strip() or 'its bytes are lost'}")
    return None


def contains(pinned: Pin, commit: str, sources: Sources) -> bool:
    """Whether `commit` is the pinned commit or an ancestor of it; False for one that the mirror doesn't know."""
    mirror = Mirror(pinned.url, sources)
    if not mirror.has(pinned.commit or ""):  # pinned by a lock, and never asked for here
        fetch(pinned, sources)
    return mirror.git("merge-base", "--is-ancestor", commit, pinned.commit or "").ok
