"""Where the files of a wheel look for libraries: beside themselves and in other packages, or at a place outside.

Format: ``DT_RPATH`` and ``DT_RUNPATH`` of ld.so(8), where ``$ORIGIN`` is the folder of the file itself.
"""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

from builder.audit.rules import Rule, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from builder.audit.facts import File
    from builder.audit.rules import Finding

__all__ = ["RULES", "judge"]

RULES = table(
    Rule(
        id="rpath-absolute",
        severity="warning",
        title="looks for libraries at a fixed path, or outside the environment",
        why="the path is that of the machine it was built on; whoever can write there decides what is loaded",
        help="link with an RPATH below $ORIGIN, or remove it (CMAKE_SKIP_RPATH, patchelf --remove-rpath)",
    ),
)

_ORIGIN = re.compile(r"\$(?:ORIGIN|\{ORIGIN\})(?=/|$)")
#: A folder where anybody may put a library: an error. Others, such as /usr/local/cuda or a builder's home, are warned of.
_SHARED = re.compile(r"/(tmp|var/tmp|dev/shm)(/|$)")
#: Where installers put the parts of ``.data``, from site-packages, which is ``<environment>/lib/python3.*/site-packages``.
_DATA = {"purelib": "", "platlib": "", "scripts": "../../../bin", "data": "../../..", "headers": "../../../include"}
_DEPTH = 3
#: One above: meant for a file one folder deeper, and harmless. Then the ``lib`` folder of the environment, where Conda and
#: ``.data/data/lib`` have libraries.
_ENVIRONMENT = re.compile(r"\.\.(/\.\.)?(/(?!\.\.(/|$)).*)?|\.\./\.\./\.\./lib(64)?(/.*)?")


def judge(files: Sequence[File]) -> Iterator[Finding]:
    """Yield which of `files` look outside of what is installed with them."""
    found: dict[tuple[str, ...], list[str]] = {}
    for file in files:
        folder = _folder(file.path)
        if outside := tuple(one for one in (file.elf.rpath if file.elf else ()) if _place(one, folder) is not None):
            found.setdefault(outside, []).append(file.path)
    for outside, paths in found.items():
        folder = _folder(paths[0])
        rest = len(paths) - 1
        others = f", and {rest} more file{'s' if rest > 1 else ''} like it" if rest else ""
        yield RULES["rpath-absolute"].finding(
            file=paths[0],
            found=", ".join(one or "an empty entry, which is the current folder" for one in outside) + others,
            wanted="$ORIGIN, or none",
            severity="error" if any(_SHARED.match(_place(one, folder) or "") for one in outside) else None,
        )


def _folder(path: str) -> str:
    """Return the folder of a file as seen from site-packages, empty for that itself."""
    first, _slash, rest = path.partition("/")
    kind, _slash, inside = rest.partition("/")
    if first.endswith(".data") and kind in _DATA:
        path = posixpath.join(_DATA[kind], inside)
    return posixpath.dirname(posixpath.normpath(path))


def _place(entry: str, folder: str) -> str | None:
    """Return where an entry leads outside of the environment, as a path from the root; None when it stays inside.

    How far above the environment the root is can't be known: a path that leaves it counts as leading there.
    """
    origin = _ORIGIN.match(entry)
    if not origin:
        return posixpath.normpath(entry) if entry else ""
    path = posixpath.normpath(posixpath.join(folder or ".", "." + entry[origin.end() :]))
    if not path.startswith("..") or _ENVIRONMENT.fullmatch(path):
        return None
    parts = path.split("/")
    ups = parts.count("..")
    if folder.startswith("..") and ups <= _DEPTH:  # a program in bin, to its own environment
        return None
    return "/" + "/".join(parts[ups:])
