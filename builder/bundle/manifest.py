"""``manifest.json``: what a bundle is for and every file in it. What is signed, and what deltas are reckoned from."""

from __future__ import annotations

import contextlib
import json
import re
from typing import TYPE_CHECKING, Any

from builder import bounded
from builder.digest import sha256_bytes
from builder.errors import CheckRefused, SparkError, UsageError
from builder.values import dataclass, field

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = [
    "FORMAT",
    "NAME",
    "SIGNATURE",
    "Entry",
    "Manifest",
    "identity",
    "is_bundle",
    "is_plain",
    "load",
    "parse",
    "read",
]

NAME, SIGNATURE = "manifest.json", "manifest.json.sig"

#: Grows when an older spark-build could no longer read a bundle.
FORMAT = 1

_KIND = "spark-build bundle"

_LIMIT = 64 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MODULE = re.compile(rf"{_VARIABLE.pattern}(\.{_VARIABLE.pattern})*")
_CONTROL = re.compile(r"[\0-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A file: its digest and its bytes."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What stands in the file.

    `files` maps paths below the bundle, with ``/``, to what lies there; the manifest and its signature aren't among them.
    `wheels` says of each wheel: project, version, path, and ``ours`` with recipe facts where we built it. `lacks` are paths
    of `files` that a delta bundle leaves out, since the bundle whose manifest has the sha256 `since` has these bytes.
    `facts` are all other keys: ``asked``, ``below`` (wheels that only builds need), ``tools``, ``needs`` (of the system) and
    ``run``, the variables and imports of the place where it runs.
    """

    target: Mapping[str, Any]
    files: Mapping[str, Entry]
    wheels: tuple[Mapping[str, Any], ...]
    since: str = ""
    lacks: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    def text(self) -> bytes:
        """Return the file's bytes: the same for the same contents."""
        document: dict[str, Any] = {
            "format": FORMAT,
            "kind": _KIND,
            "target": dict(self.target),
            "files": {path: {"sha256": one.sha256, "size": one.size} for path, one in self.files.items()},
            "wheels": [dict(one) for one in self.wheels],
            **self.facts,
        }
        if self.since:
            document["delta"] = {"since": self.since, "lacks": sorted(self.lacks)}
        return (json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()

    def digests(self) -> frozenset[str]:
        """Return the digests of all files."""
        return frozenset(one.sha256 for one in self.files.values())


def load(path: Path) -> tuple[Manifest, bytes]:
    """Return the manifest at `path`, a file or a bundle, and its bytes. Raises as `read` and `parse` do."""
    data = read(path)
    return parse(data), data


def read(path: Path) -> bytes:
    """Return the bytes of the manifest at `path`. Raises UsageError ``not-a-bundle``, CheckRefused ``manifest-damaged``."""
    file = path / NAME if path.is_dir() else path
    try:
        return bounded.read(file, _LIMIT)
    except FileNotFoundError:
        raise UsageError(
            "not-a-bundle",
            f"there is no bundle at {path}",
            cause=f"{file} isn't there",
            help="wanted the folder that `bundle export` wrote, or that its parts were unpacked to",
            run=("spark-build bundle export DIR NAME",),
        ) from None
    except ValueError as error:
        raise _damaged(str(error)) from error


def is_bundle(folder: Path) -> bool:
    """Whether the folder's manifest is one of a bundle, of any format: other things have a ``manifest.json``, too."""
    with contextlib.suppress(SparkError):
        return bool(_document(read(folder)))
    return False


def _document(data: bytes) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _damaged(str(error)) from error
    if not isinstance(document, dict) or document.get("kind") != _KIND:
        raise _damaged("it is no manifest of a bundle")
    return document


def parse(data: bytes) -> Manifest:
    """Return what a manifest says. Raises CheckRefused ``manifest-damaged``, UsageError ``bundle-newer``."""
    document = _document(data)
    if document.get("format") != FORMAT:
        raise UsageError(
            "bundle-newer",
            "the bundle has a format that this spark-build doesn't know",
            cause=f"found format {document.get('format')}, known is {FORMAT}",
            help="its own install.sh needs python3 only; for all else a newer spark-build",
        )
    try:
        files = {
            str(path): Entry(sha256=str(one["sha256"]), size=int(one["size"]))
            for path, one in document["files"].items()
        }
        delta = document.get("delta") or {}
        found = Manifest(
            target=dict(document["target"]),
            files=files,
            wheels=tuple(dict(one) for one in document["wheels"]),
            since=str(delta.get("since", "")),
            lacks=tuple(map(str, delta.get("lacks", ()))),
            facts={key: document[key] for key in document if key not in _KNOWN},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(f"{type(error).__name__}: {error}") from error
    for path, one in files.items():
        if not is_plain(path) or not _SHA256.fullmatch(one.sha256) or one.size < 0:
            raise _damaged(f"it names {path!r}")
    if not set(found.lacks) <= set(files):
        raise _damaged("it leaves out what it doesn't name")
    _check_facts(found)
    return found


def _check_facts(found: Manifest) -> None:
    """Raise CheckRefused ``manifest-damaged`` unless what is read of a bundle without another look is of the right kind."""
    below, tools, needs = (
        found.facts.get(key, kind()) for key, kind in (("below", list), ("tools", dict), ("needs", list))
    )
    try:
        wheels = [*found.wheels, *map(dict, below)]
        told = [one[key] for one in wheels for key in ("project", "version", "path")]
        told += [found.target[key] for key in ("python", "machine", "glibc", "platform")]
        told += [one[key] for one in map(dict, needs) for key in ("id", "what", "why", "run")]
        paths = [*(one["path"] for one in wheels), *dict(tools).values()]
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(f"{type(error).__name__}: {error}") from error
    if not all(isinstance(one, str) for one in [*told, *paths]):
        raise _damaged("it has other things where names belong")
    run = found.facts.get("run", {"env": {}, "imports": []})
    if not isinstance(run, dict) or not _is_env(run.get("env")) or not _are_modules(run.get("imports")):
        raise _damaged("what it says of how the wheels run isn't names and texts of one line")
    if stray := [path for path in paths if path not in found.files]:
        raise _damaged(f"it has a wheel {stray[0]!r} that isn't among its files")


def _is_env(value: object) -> bool:
    """Whether it can be variables, each on one line: they go into files of images."""
    return isinstance(value, dict) and all(
        isinstance(text, str) and _VARIABLE.fullmatch(name) and not _CONTROL.search(text)
        for name, text in value.items()
    )


def _are_modules(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) and _MODULE.fullmatch(name) for name in value)


_KNOWN = frozenset(["format", "kind", "target", "files", "wheels", "delta"])


def is_plain(path: str) -> bool:
    """Whether `path` leads to a place below a folder on every system."""
    return not re.search(r"[\\\0-\x1f\ud800-\udfff]|^/|^$", path) and not {"", ".", ".."} & set(path.split("/"))


def identity(data: bytes) -> str:
    """Return what a delta names its base by."""
    return sha256_bytes(data)


def _damaged(cause: str) -> CheckRefused:
    return CheckRefused(
        "manifest-damaged",
        "the bundle's manifest can't be read",
        cause=cause,
        help="copy the bundle again from where it was made",
    )
