"""Digests of files and trees that are read once and then known by their stat, and answers of programs known by digest.

One small JSON file holds what a hit needs: for a file its stat and sha256, for a tree the digest over the stats of all its
files and the digest over their contents. The stat is (device, inode, size, mtime_ns, ctime_ns): ``touch -r`` puts back an
mtime but no ctime. As git does with its index, an entry that was changed just before this file was written isn't trusted,
since the clock of a file system is coarse.
"""

from __future__ import annotations

import contextlib
import json
import marshal
import os
import stat
from hashlib import sha256
from typing import TYPE_CHECKING, Self

from builder.digest import sha256_file, sha256_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

__all__ = ["Digests", "combined"]

_VERSION = 3

#: How much older than the cache file a change must be. Linux stamps by the tick (10 ms at most), some file systems by 1 s.
_RACY_NS = 50_000_000
_COARSE_NS = 2_000_000_000

_READERS = 8


class Digests:
    """The cache in `folder`. Use it as a context: what was learned is written at its end, where the folder can be written.

    Within one context a file or a tree that was looked at is taken as it was. One root always has the same `skip`.
    `sha256` and `tree` raise OSError for what can't be read.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "host-digests.json"
        self._parts = folder / "host-trees"
        self._known: dict[str, list[object]] = {}
        self._written_ns = 0
        self._dirty = False
        self._seen: dict[str, str] = {}
        with contextlib.suppress(OSError, ValueError):
            self._written_ns = self._path.stat().st_mtime_ns
            self._known = _load(self._path)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """Write what is new."""
        if self._dirty:
            with contextlib.suppress(OSError):
                _store(self._path, self._known)

    def sha256(self, path: Path) -> str:
        """Return the sha256 of the file that `path` leads to."""
        real = os.path.realpath(path)
        key = f"file {real}"
        if key not in self._seen:
            status = os.stat(real)  # noqa: PTH116  # a string from realpath; this is the hit path
            self._seen[key] = self._digest(key, _mark(status), status.st_ctime_ns, lambda: _hash(real))
        return self._seen[key]

    def tree(self, root: Path, *, skip: Callable[[str], bool] = lambda _name: False) -> str:
        """Return the digest over names, kinds, executable bits and contents of all files below `root`.

        `skip` is asked for the names directly below `root`. A link counts as its text; where it leaves the tree, what it
        leads to counts, too.
        """
        real = os.path.realpath(root)
        key = f"tree {real}"
        if key in self._seen:
            return self._seen[key]
        files = _walk(real, skip)
        # A format without references: equal values give equal bytes, at a quarter of what their text would take.
        marks = sha256(
            marshal.dumps([(name, _mark(status), status.st_mode) for name, _path, status in files], 2)
        ).hexdigest()
        newest = max((status.st_ctime_ns for _name, _path, status in files), default=0)
        self._seen[key] = self._digest(key, marks, newest, lambda: self._read_tree(real, files))
        return self._seen[key]

    def answer(self, question: str, ask: Callable[[], str]) -> str:
        """Return what `ask` returned for the same `question` before; a question names its program by digest."""
        found = self._known.get(f"answer {question}")
        if found:
            return str(found[0])
        answer = ask()
        self._put(f"answer {question}", answer)
        return answer

    def _digest(self, key: str, mark: object, changed_ns: int, look: Callable[[], str]) -> str:
        """Return the digest that is known for this mark, else what `look` finds."""
        found = self._known.get(key)
        if not (found and found[0] == mark and self._settled(changed_ns)):
            found = [mark, look()]
            self._put(key, *found)
        return str(found[1])

    def _put(self, key: str, *values: object) -> None:
        self._known[key] = list(values)
        self._dirty = True

    def _settled(self, changed_ns: int) -> bool:
        """Whether a file with this ctime can't have changed again without another one since the cache was written."""
        slack = _RACY_NS if changed_ns % 1_000_000_000 else _COARSE_NS
        return changed_ns + slack < self._written_ns

    def _read_tree(self, root: str, files: list[tuple[str, str, os.stat_result]]) -> str:
        """Hash the files that aren't known one by one, several at once; a toolkit has gigabytes."""
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415  # not on the hit path

        part = self._parts / f"{sha256_json(root)[:16]}.json"
        old: dict[str, list[object]] = {}
        written = 0
        with contextlib.suppress(OSError, ValueError):
            written = part.stat().st_mtime_ns
            old = _load(part)

        def content(item: tuple[str, str, os.stat_result]) -> str:
            name, path, status = item
            if stat.S_ISLNK(status.st_mode):
                return os.readlink(path)  # noqa: PTH115  # strings all along
            known = old.get(name)
            if known and known[0] == _mark(status) and status.st_ctime_ns + _COARSE_NS < written:
                return str(known[1])
            return _hash(path) if stat.S_ISREG(status.st_mode) else "special"

        with ThreadPoolExecutor(_READERS) as readers:
            contents = list(readers.map(content, files))
        total = sha256()
        for (name, _path, status), text in zip(files, contents, strict=True):
            total.update(os.fsencode(f"{_kind(status.st_mode)} {name}\0{text}\0"))
        with contextlib.suppress(OSError):
            _store(
                part,
                {name: [_mark(status), text] for (name, _path, status), text in zip(files, contents, strict=True)},
            )
        return total.hexdigest()


def _walk(root: str, skip: Callable[[str], bool]) -> list[tuple[str, str, os.stat_result]]:
    """Return (name, path, lstat) of all files and links below `root`, sorted by name; links out of it are followed."""
    found: list[tuple[str, str, os.stat_result]] = []
    entered: set[str] = set()
    pending = [("", root, True)]
    while pending:
        prefix, folder, within = pending.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                if not prefix and skip(entry.name):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    pending.append((f"{prefix}{entry.name}/", entry.path, within))
                    continue
                status = entry.stat(follow_symlinks=False)
                found.append((prefix + entry.name, entry.path, status))
                if not within or not stat.S_ISLNK(status.st_mode):
                    continue  # what lies outside is taken as it is: its links may lead anywhere
                leads = _outside(root, entry.path)
                if leads and not stat.S_ISDIR(leads[1].st_mode):
                    found.append((f"{prefix}{entry.name}>", *leads))
                elif leads and leads[0] not in entered:
                    entered.add(leads[0])
                    pending.append((f"{prefix}{entry.name}/", leads[0], False))
    found.sort(key=lambda item: item[0])
    return found


def _outside(root: str, link: str) -> tuple[str, os.stat_result] | None:
    """Return the path and stat of what a link leads to, when that lies outside of `root` and exists."""
    text = os.readlink(link)  # noqa: PTH115  # strings all along: this is the hit path
    lexical = os.path.normpath(os.path.join(os.path.dirname(link), text))  # noqa: PTH118, PTH120
    if lexical.startswith(root + "/"):
        return None
    real = os.path.realpath(link)
    if real == root or real.startswith(root + "/"):
        return None
    try:
        return real, os.stat(real)  # noqa: PTH116
    except OSError:
        return None


def _mark(status: os.stat_result) -> list[int]:
    return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _kind(mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "l"
    return "x" if mode & 0o100 else "f"


def _hash(path: str) -> str:
    from pathlib import Path  # noqa: PLC0415  # only where something is read anyway

    return sha256_file(Path(path))


def _load(path: Path) -> dict[str, list[object]]:
    raw = json.loads(path.read_bytes())
    if not isinstance(raw, dict) or raw.get("version") != _VERSION or not isinstance(raw.get("known"), dict):
        raise ValueError(path)
    return {key: value for key, value in raw["known"].items() if isinstance(value, list) and value}


def _store(path: Path, known: dict[str, list[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    beside.write_text(json.dumps({"version": _VERSION, "known": known}))
    beside.replace(path)


def combined(parts: Iterable[tuple[str, str]]) -> str:
    """Return one digest over named digests, in the order given."""
    return sha256_json([list(part) for part in parts])
