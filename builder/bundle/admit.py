"""Which sources of a bundle may go into the cache: what a build reads and nothing that git or we would act on.

A bundle comes from elsewhere. The cache has places whose contents are settings (``gitconfig``, a mirror's ``config``, hooks
and alternates), and git takes the objects of a pack under the names that its index gives them.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from typing import TYPE_CHECKING

from builder import bounded, proc
from builder.errors import CheckRefused
from builder.source import mirror

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from builder.bundle.manifest import Entry

__all__ = ["carried", "check", "refuse"]

_FILES = re.compile(r"files/([0-9a-f]{64})/[^/.][^/]*")
_PLAIN = re.compile(
    r"(archives|sdists)/([^/.][^/]*/)?[^/.][^/]*\.json|crates/[0-9a-f]{64}/.+|"
    r"git/[^/.][^/]*\.git/(HEAD|packed-refs|shallow|spark-build\.json|refs/.+|objects/pack/pack-[0-9a-f]+\.\w+)"
)
_LOCK = re.compile(r"crates/([0-9a-f]{64})\.lock")
_CONFIG = re.compile(r"git/[^/.][^/]*\.git/config")
_ATTRIBUTES = re.compile(r"git/[^/.][^/]*\.git/info/attributes")
_LOOSE = re.compile(r"git/[^/.][^/]*\.git/objects/([0-9a-f]{2})/([0-9a-f]{38,62})")
_INDEX = re.compile(r"git/[^/]+/objects/pack/[^/]+\.idx")

#: What `git init --bare` writes.
_SETTING = re.compile(
    r"\[(core|extensions)\]|(repositoryformatversion|filemode|bare|ignorecase|precomposeunicode|objectformat) = \w+|"
)
_LIMIT, _OBJECT = 1 << 16, 1 << 30


def carried(inner: str) -> bool:
    """Whether a path below the cache is one that bundles carry; git makes more for its own speed."""
    return any(one.fullmatch(inner) for one in (_FILES, _LOCK, _PLAIN, _CONFIG, _ATTRIBUTES, _LOOSE))


def check(here: Path, paths: Iterable[str], files: Mapping[str, Entry], *, env: Mapping[str, str]) -> None:
    """Raise CheckRefused ``sources-odd`` for the first of `paths`, below ``sources/``, that has no business in a cache."""
    for path in paths:
        said = _said(here, path, files[path].sha256, env)
        refuse(said and f"{path}: {said}")


def refuse(said: str) -> None:
    """Raise CheckRefused ``sources-odd`` where something is wrong with sources of a bundle."""
    if said:
        raise CheckRefused(
            "sources-odd",
            said,
            help="nothing was taken in; a bundle that spark-build wrote has no such thing: ask who made it",
            run=("spark-build bundle verify BUNDLE --signers FILE",),
        )


def _said(here: Path, path: str, sha256: str, env: Mapping[str, str]) -> str:
    """Return what is wrong with one."""
    inner, file, said = path.removeprefix("sources/"), here / path, ""
    if found := _FILES.fullmatch(inner) or _LOCK.fullmatch(inner):
        said = "lies under another digest than its own" if found[1] != sha256 else ""
    elif _CONFIG.fullmatch(inner):
        lines = bounded.read(file, _LIMIT).decode(errors="replace").splitlines()
        odd = next((line.strip() for line in lines if not _SETTING.fullmatch(line.strip())), "")
        said = f"sets {odd!r}" if odd else ""
    elif _ATTRIBUTES.fullmatch(inner):
        said = "has other attributes than ours" if bounded.read(file, _LIMIT) != mirror.ATTRIBUTES.encode() else ""
    elif found := _LOOSE.fullmatch(inner):
        said = "" if _is_object(file, found[1] + found[2]) else "isn't the object that its name says"
    elif not _PLAIN.fullmatch(inner):
        said = "is no source"
    elif _INDEX.fullmatch(inner):
        done = proc.capture(["git", "verify-pack", str(file)], env=_git(env), cwd=here)
        said = "" if done.ok else f"the pack isn't what its index says: {done.err.strip()[-200:]}"
    return said


def _is_object(file: Path, name: str) -> bool:
    maker = hashlib.sha1 if len(name) == 40 else hashlib.sha256  # noqa: PLR2004  # git's names of objects
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(bounded.read(file, _OBJECT), _OBJECT)
    except (ValueError, zlib.error):
        return False
    return stream.eof and maker(data).hexdigest() == name


def _git(env: Mapping[str, str]) -> dict[str, str]:
    return {"PATH": env.get("PATH", ""), "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}
