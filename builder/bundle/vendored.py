"""Vendored crates of a bundle: taken in whole, with the files that each crate lists and no other.

Cargo holds what ``.cargo-checksum.json`` lists against it, and the archive's digest that it says against Cargo.lock. It
looks at no file that isn't listed, though a ``build.rs`` among them would be run: here that is no crate. Whether the files
are those of the archive, nobody can tell without it: for that there is the bundle's signature.
"""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING

from builder import bounded
from builder.errors import SparkError
from builder.source import crates
from builder.source.place import locked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from builder.bundle.manifest import Entry
    from builder.source import Sources

__all__ = ["fresh", "is_vendored", "keep", "problem"]

_FILE = re.compile(r"sources/crates/([0-9a-f]{64})/.+")
_SUMS = ".cargo-checksum.json"
_LIMIT = 64 << 20


def is_vendored(path: str) -> bool:
    """Whether a path of a bundle is that of a file of a crate."""
    return _FILE.fullmatch(path) is not None


def fresh(files: Mapping[str, Entry], sources: Sources) -> dict[str, list[str]]:
    """Return the paths in `files` of every folder of crates that the cache lacks, by the digest of its Cargo.lock."""
    found: dict[str, list[str]] = {}
    for path in files:
        if match := _FILE.fullmatch(path):
            found.setdefault(match[1], []).append(path)
    return {digest: paths for digest, paths in found.items() if not (sources.root / "crates" / digest).exists()}


def problem(here: Path, digest: str, paths: list[str], files: Mapping[str, Entry]) -> str:
    """Return what is wrong with a folder of crates in the bundle at `here`; empty where nothing is."""
    lock, top = f"sources/crates/{digest}.lock", f"sources/crates/{digest}"
    if lock not in files or files[lock].sha256 != digest:
        return f"{top}: its Cargo.lock isn't of the bundle"
    try:
        wanted = dict(_listed(here, top, crates.listed(bounded.read(here / lock, _LIMIT), lock), files))
    except SparkError as error:
        return f"{lock}: {error.cause or error.summary}"
    except (OSError, ValueError, AttributeError, KeyError, RecursionError) as error:
        return f"{top}: {error}"
    found = {path: files[path].sha256 for path in paths}
    odd = sorted(found.items() ^ wanted.items())
    return f"{odd[0][0]}: isn't what the crate's {_SUMS} lists" if odd else ""


def _listed(
    here: Path, top: str, wanted: tuple[crates.Crate, ...], files: Mapping[str, Entry]
) -> Iterator[tuple[str, str]]:
    """Yield path and sha256 of each crate's list, and of each file in it.

    Raises OSError, ValueError, AttributeError, KeyError or RecursionError for a list that is none.
    """
    for one in wanted:
        folder = f"{top}/{one.name}-{one.version}"
        document = json.loads(bounded.read(here / folder / _SUMS, _LIMIT))
        if document.get("package") != one.checksum:
            raise ValueError(f"{one.name} {one.version} is of another archive than Cargo.lock says")
        yield f"{folder}/{_SUMS}", files[f"{folder}/{_SUMS}"].sha256
        yield from ((f"{folder}/{path}", str(digest)) for path, digest in document["files"].items())


def keep(digest: str, paths: list[str], sources: Sources, *, copy: Callable[[str, Path], None]) -> None:
    """Leave the whole folder in the cache, or nothing; `copy` copies a file of the bundle, or raises.

    Waits for another process that brings the same crates in, and leaves what that one did.
    """
    folder = sources.root / "crates" / digest
    beside = folder.with_name(f".{digest}.making")
    with locked(sources.root / "locks" / f"{digest}.lock", sources, what="the crates of a bundle"):
        if folder.exists():
            return
        shutil.rmtree(beside, ignore_errors=True)
        try:
            for path in paths:
                target = beside / path.removeprefix(f"sources/crates/{digest}/")
                target.parent.mkdir(parents=True, exist_ok=True)
                copy(path, target)
            beside.rename(folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
