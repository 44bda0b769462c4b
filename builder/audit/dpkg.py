"""What dpkg has installed: Debian's packages bring RECORD as the build wrote it, and files that were changed afterwards.

Format: ``/var/lib/dpkg/info/<package>.md5sums``, one line a file: its digest, two spaces, its path without the first ``/``.
"""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Problem", "explained"]

#: Slug, file, what was found: as in `Contents.problems`.
Problem = tuple[str, str, str]

_DATABASE = "var/lib/dpkg/info"
_PACKAGES = b"-packages/"


class _Owned(NamedTuple):
    package: str
    md5: str


def explained(site: Path, info: Path, problems: Sequence[Problem]) -> list[Problem]:
    """Return `problems` of the distribution `info` in `site`, with those that are dpkg's doing told as one.

    Files are dpkg's when they have the bytes that it installed; of what RECORD names and dpkg doesn't, there never was any.
    """
    doubtful = [one for one in problems if one[0] in {"installed-changed", "installed-gone"}]
    place = Path(os.path.realpath(site))
    root = next((one for one in place.parents if (one / _DATABASE).is_dir()), None) if doubtful else None
    if root is None:
        return list(problems)
    owned = _owned(root)
    mine = owned.get(os.path.relpath(place / info.name / "METADATA", root))
    if mine is None:
        return list(problems)
    usual = [one for one in doubtful if _is_usual(one, place, root, owned)]
    if not usual:
        return list(problems)
    many = f"{len(usual)} file{'' if len(usual) == 1 else 's'}"
    told = ("installed-by-dpkg", "", f"{many} other than RECORD says, and as {mine.package} brings them")
    return [*(one for one in problems if one not in usual), told]


def _is_usual(problem: Problem, site: Path, root: Path, owned: Mapping[str, _Owned]) -> bool:
    slug, written, _found = problem
    path = os.path.normpath(site / written)
    one = owned.get(os.path.relpath(path, root))
    if slug == "installed-gone" or one is None:
        return slug == "installed-gone" and one is None
    try:
        return hashlib.md5(Path(path).read_bytes(), usedforsecurity=False).hexdigest() == one.md5
    except OSError:
        return False


@functools.cache
def _owned(root: Path) -> Mapping[str, _Owned]:
    """Return the files in folders of Python packages that dpkg installed below `root`, by their paths from there."""
    found: dict[str, _Owned] = {}
    for listing in sorted((root / _DATABASE).glob("*.md5sums")):
        try:
            data = listing.read_bytes()
        except OSError:
            continue
        package = listing.name.removesuffix(".md5sums").partition(":")[0]  # some name their architecture
        for line in data.splitlines() if _PACKAGES in data else ():
            digest, _gap, path = line.partition(b"  ")
            found[os.fsdecode(path)] = _Owned(package, digest.decode(errors="replace"))
    return found
