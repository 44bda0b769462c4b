"""Canonical JSON and the digests that identify things.

Everything that is hashed passes through here, so that one rule holds: equal values give equal bytes. Canonical JSON is
UTF-8, keys sorted, no blanks, no floats (a float has more than one text), ended by no newline.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = [
    "Json",
    "canonical_json",
    "files_digest",
    "sha256_bytes",
    "sha256_file",
    "sha256_json",
    "tree_entries",
]

Json = None | bool | int | str | list["Json"] | dict[str, "Json"]

_CHUNK = 1 << 20


def canonical_json(value: object) -> bytes:
    """Return `value` as canonical JSON.

    Raises TypeError when it holds a float, a set or a key that's no string, UnicodeEncodeError for a text that is none.
    """
    if not _is_plain(value):
        _check(value, "$")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


_TEXTS = frozenset([str])
_LEAVES = frozenset([str, bool, int, type(None)])


def _is_plain(value: object) -> bool:
    """Whether all of it is of the plain types themselves; cheap, since it makes no paths for a message."""
    open_: list[object] = [value]
    for one in open_:  # grows while it is walked
        kind = type(one)
        if kind is dict:
            if not _TEXTS.issuperset(map(type, one)):  # type: ignore[call-overload]  # a dictionary: its keys
                return False
            open_ += [item for item in one.values() if type(item) not in _LEAVES]  # type: ignore[attr-defined]
        elif kind is list or kind is tuple:
            open_ += [item for item in one if type(item) not in _LEAVES]  # type: ignore[attr-defined]
        elif kind not in _LEAVES:
            return False
    return True


def _check(value: object, where: str) -> None:
    """Say what is wrong, and where; what is made from the plain types is right, too."""
    if value is None or isinstance(value, bool | int | str):
        return
    if isinstance(value, list | tuple):
        for number, item in enumerate(value):
            _check(item, f"{where}[{number}]")
        return
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        for key, item in value.items():
            _check(item, f"{where}.{key}")
        return
    msg = f"not canonical: {value!r} at {where}"
    raise TypeError(msg)


def sha256_bytes(data: bytes) -> str:
    """Return the sha256 of `data` in hex."""
    return hashlib.sha256(data).hexdigest()


def sha256_json(value: object) -> str:
    """Return the sha256 of `value`'s canonical JSON in hex."""
    return sha256_bytes(canonical_json(value))


def sha256_file(path: Path) -> str:
    """Return the sha256 of a file's bytes in hex, read in chunks of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def tree_entries(root: Path, *, skip: Iterable[str] = ()) -> Iterator[tuple[str, os.stat_result]]:
    """Yield (path relative to `root` with ``/``, lstat) of all files and links below `root`, sorted by path.

    Folders named in `skip` are left out at every depth. Folders themselves aren't yielded: git doesn't know them either.
    """
    skipped = frozenset(skip)
    pending: list[tuple[str, str]] = [("", os.fspath(root))]
    found: list[tuple[str, os.stat_result]] = []
    while pending:
        prefix, folder = pending.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                name = prefix + entry.name
                if entry.is_dir(follow_symlinks=False):
                    if entry.name not in skipped:
                        pending.append((name + "/", entry.path))
                else:
                    found.append((name, entry.stat(follow_symlinks=False)))
    found.sort(key=lambda item: item[0])
    yield from found


def files_digest(root: Path, names: Iterable[str]) -> str:
    """Return the sha256 over `names` (relative to `root`), kinds, executable bits and contents of these files.

    A link counts as its target's text; of a socket, a pipe or a device only the kind counts.
    Every record ends with a NUL, which neither a name nor a link can hold: two trees never give the same bytes.
    """
    digest = hashlib.sha256()
    for name in sorted(names):
        path = root / name
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            record = f"l {name}\0{path.readlink()}\0"
        elif stat.S_ISREG(mode):
            record = f"{'x' if mode & 0o100 else 'f'} {name}\0{sha256_file(path)}\0"
        else:
            record = f"s {name}\0\0"
        digest.update(os.fsencode(record))
    return digest.hexdigest()
