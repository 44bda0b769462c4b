"""Which C library the files of a wheel are linked to: glibc, or musl (Alpine). One can't load what needs the other."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from builder.audit import tags
from builder.audit.rules import Rule, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from builder.audit.facts import Contents, Elf, File
    from builder.audit.rules import Finding, Severity

__all__ = ["RULES", "is_musl", "judge"]

RULES = table(
    Rule(
        id="libc-differs",
        severity="error",
        title="linked to another C library than its platform tag, or the target, has",
        why="glibc and musl can't take each other's place: the import fails, or crashes later",
        help="build it in an image with the C library that its tag names (manylinux: glibc, musllinux: musl)",
    ),
)

#: By SONAME as Alpine has it, as other linkers write it, and by the name of the loader.
_MUSL = re.compile(r"libc\.musl-[\w-]+\.so\.1|libc\.so|ld-musl-[\w-]+\.so\.1")
_GLIBC = "libc.so.6"

_Libc = Literal["glibc", "musl"]
_DIGITS = "0123456789"
_PLATFORMS: Mapping[str, _Libc] = {"linux": "glibc", "manylinux": "glibc", "musllinux": "musl"}


def is_musl(library: str) -> bool:
    """Whether a library that is needed is musl."""
    return bool(_MUSL.fullmatch(library))


def judge(contents: Contents, files: Sequence[File]) -> Iterator[Finding]:
    """Yield what is linked to a C library that the tags don't promise; and to musl, which the target doesn't have.

    Files that are linked to none (static ones, many of Rust's) fit both.
    """
    linked: dict[_Libc, list[str]] = {}
    for file in files:
        if file.elf and (found := _libc(file.elf)):
            linked.setdefault(found, []).append(file.path)
    platforms = sorted({tag.platform for tag in tags.of(contents)})
    promised = {_PLATFORMS[name] for one in platforms if (name := one.partition("_")[0].rstrip(_DIGITS)) in _PLATFORMS}
    for libc, paths in linked.items():
        rest = f", and {len(paths) - 1} more like it" if len(paths) > 1 else ""
        if promised and promised != {libc}:
            wanted = " and ".join(sorted(promised))
        elif libc == "musl":
            wanted = "glibc, which the target has"
        else:
            continue
        # With files for each, or tags for each, it may pick those that fit.
        severity: Severity | None = None if contents.filename and len(linked) == 1 and len(promised) <= 1 else "warning"
        yield RULES["libc-differs"].finding(
            file=paths[0],
            found=f"linked to {libc}, in a wheel tagged {'.'.join(platforms) or 'for no platform'}{rest}",
            wanted=wanted,
            severity=severity,
        )


def _libc(elf: Elf) -> _Libc | None:
    if any(map(is_musl, elf.needed)) or _MUSL.fullmatch(elf.interpreter.rpartition("/")[2]):
        return "musl"
    return "glibc" if _GLIBC in elf.needed else None
