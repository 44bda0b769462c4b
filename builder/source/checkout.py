"""Trees on disk: laid out from a mirror or a repository, with one mode and one time for everybody."""

from __future__ import annotations

import os
import re
import shutil
import stat
from typing import TYPE_CHECKING

from builder import proc
from builder.errors import HostError, SourceError
from builder.source.mirror import ATTRIBUTES, environment, full, no_room, reason
from builder.source.place import write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from builder.source.mirror import Mirror
    from builder.source.place import Sources

__all__ = ["DESCRIBE", "describe", "inside", "lay_out", "name", "repository", "settle", "version_of"]

#: The words that setuptools-scm uses, the tool which most projects take their version from; with the whole commit, since
#: how much of it git shows depends on how many objects it happens to have.
DESCRIBE = ("describe", "--tags", "--long", "--abbrev=40", "--match", "*[0-9]*")

#: What a laid-out repository shows of a commit, so that versions are the same on each machine.
_ABBREV = "9"


def describe(mirror: Mirror, commit: str) -> str:
    """Return what ``git describe`` says of a commit, or an empty text where no tag leads to it."""
    return mirror.out(*DESCRIBE, commit)


def version_of(tags: Iterable[str]) -> str | None:
    """Return the highest version that a tag names, or None."""
    found = [tag.removeprefix("v") for tag in tags if re.fullmatch(r"v?\d+(\.\d+)+([-_.]?[a-z]+[-_.]?\d*)*", tag)]
    if len(found) < 2:  # noqa: PLR2004  # nothing to compare
        return found[0] if found else None
    from packaging.version import InvalidVersion, Version  # noqa: PLC0415

    def order(text: str) -> tuple[bool, Version]:
        try:
            return True, Version(text)
        except InvalidVersion:
            return False, Version("0")

    return max(found, key=order)


def repository(dest: Path, sources: Sources, *, objects: Path, origin: str, commit: str) -> None:
    """Leave a git repository at `dest` with HEAD at `commit` and no other ref; its objects are those at `objects`."""
    dest.mkdir(parents=True, exist_ok=True)
    _must(["git", "init", "-q", "--template=", str(dest)], sources, dest)
    folder = dest / ".git"
    write_atomic(folder / "info" / "attributes", ATTRIBUTES.encode())
    write_atomic(folder / "objects" / "info" / "alternates", f"{objects}\n".encode())
    if (shallow := objects.parent / "shallow").exists():
        shutil.copyfile(shallow, folder / "shallow")
    for words in (
        ["config", "core.abbrev", _ABBREV],
        ["remote", "add", "origin", origin],
        ["update-ref", "--no-deref", "HEAD", commit],
    ):
        _must(["git", "-C", str(dest), *words], sources, dest)


def lay_out(mirror: Mirror, dest: Path, *, commit: str, tree: str) -> None:
    """Leave `tree` at `dest` in a repository whose HEAD is `commit`."""
    shutil.rmtree(dest, ignore_errors=True)
    repository(dest, mirror.sources, objects=mirror.path / "objects", origin=mirror.url, commit=commit)
    words = ["git", "-C", str(dest), "read-tree", "-u", "--reset", tree]
    done = proc.capture(words, env=environment(mirror.sources))
    if not done.ok:
        raise mirror.failed(done, dest)


def name(mirror: Mirror, dest: Path, commit: str, described: str | None) -> None:
    """Put the one tag that `described` names into the repository at `dest`.

    Raises SourceError ``tag-moved`` when the tag means something else by now than when the source was pinned.
    """
    if not described:
        return
    tag = described.rsplit("-", 2)[0]
    if target := mirror.out("rev-parse", "--verify", "-q", f"refs/tags/{tag}"):
        _must(["git", "-C", str(dest), "update-ref", f"refs/tags/{tag}", target], mirror.sources, dest)
    done = proc.capture(["git", "-C", str(dest), *DESCRIBE, commit], env=environment(mirror.sources))
    if done.out.strip() != described:
        raise SourceError(
            "tag-moved",
            f"the tag {tag} of {mirror.url} isn't where it was when this was planned",
            cause=f"{commit[:12]} was {described}, and is {done.out.strip() or 'without a tag'} now",
            help="plan again: versions are made of tags, so this is another build",
            run=(f"spark-build recipe {mirror.sources.recipe}",),
        )


def inside(top: Path, link: str) -> None:
    """Raise SourceError ``link-outside`` when a link below `top` leads to something outside of it.

    Of a link only its text is part of a source's digest: what lies outside would change, and nobody see it.
    """
    real, text = os.path.realpath(link), os.readlink(link)  # noqa: PTH115  # hundreds of them
    within = real == os.path.realpath(top) or real.startswith(os.path.join(os.path.realpath(top), ""))  # noqa: PTH118
    name = os.path.relpath(link, top)
    # By its text, too: the build sees the tree at another place, where a link that dangles here may lead somewhere.
    climbs = os.path.normpath(os.path.join(os.path.dirname(name), text)).split("/")[0] == ".."  # noqa: PTH118, PTH120
    if not climbs and ((within and not text.startswith("/")) or not os.path.exists(real)):  # noqa: PTH110
        return
    raise SourceError(
        "link-outside",
        f"the link {name} leads out of the source, to {text}",
        cause="what lies there isn't part of the source, so nobody would see when it changes",
        help=f"put a copy in the place of {name}, or take the link out of the source",
    )


def settle(folder: Path, epoch: int) -> None:
    """Give every file mode 644 or 755 and every time stamp `epoch`, whatever umask and time zone made them.

    Ninja and setuptools compare times, and modes get into wheels. Git's own folders are left alone. Raises SourceError
    ``link-outside`` as `inside` does.
    """
    for root, folders, files in os.walk(folder):
        folders[:] = [entry for entry in folders if entry != ".git"]
        for entry in (*files, *folders):
            path = os.path.join(root, entry)  # noqa: PTH118  # 50,000 of them
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                inside(folder, path)
            else:
                os.chmod(path, 0o755 if stat.S_ISDIR(mode) or mode & 0o100 else 0o644)  # noqa: PTH101
            os.utime(path, (epoch, epoch), follow_symlinks=False)
    folder.chmod(0o755)
    os.utime(folder, (epoch, epoch))


def _must(words: list[str], sources: Sources, dest: Path) -> None:
    done = proc.capture(words, env=environment(sources))
    if not done.ok:
        raise (
            full(dest)
            if no_room(done, dest)
            else HostError("checkout", f"{dest} can't be made a repository", cause=reason(done), run=(" ".join(words),))
        )
