"""What a wheel's tags promise: for which Pythons and machines it is, and which extension modules those would import.

Formats: platform compatibility tags (PEP 425, 600, 656) by `packaging`; suffixes of extension modules (PEP 3149, PEP 384).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from builder.errors import CheckRefused
from builder.values import dataclass
from builder.wheel.read import parse_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from packaging.tags import Tag

    from builder.audit.facts import Contents

__all__ = ["Extension", "inside", "is_extension", "machine", "misfit", "of", "outside", "renamed"]

_LINUX = re.compile(r"(linux|manylinux(?:1|2010|2014|_\d+_\d+)|musllinux_\d+_\d+)_(\w+)")
#: Other systems by how their platform tags begin.
_SYSTEMS = {"win": "Windows", "macosx": "macOS", "ios": "iOS", "android": "Android", "pyodide": "browsers"}
_MOST_DOTS, _MOST_TAGS = 30, 300
#: The machine at the front of a GNU triplet, where a platform tag spells it in another way.
_TRIPLETS = {"i386": "i686", "arm": "armv7l", "powerpc64le": "ppc64le"}
_SUFFIX = re.compile(
    r"\.(?:cpython-(?P<version>\d+)(?P<flags>[a-z]*)(?:-(?P<machine>[^-.]+)-[\w-]+)?|(?P<stable>abi3))\.so"
)


def outside(contents: Contents) -> frozenset[Tag]:
    """Return the tags of the wheel's file name; none when it has no name or a wrong one."""
    try:
        name = parse_name(contents.filename)
    except CheckRefused:
        return frozenset()
    return _parsed([f"{name.python}-{name.abi}-{name.platform}"])


def inside(contents: Contents) -> frozenset[Tag]:
    """Return the tags that WHEEL lists."""
    return _parsed(contents.tags)


def of(contents: Contents) -> frozenset[Tag]:
    """Return what installers go by: the file name's tags, or those of WHEEL once it is installed."""
    return outside(contents) or inside(contents)


def _parsed(texts: Iterable[str]) -> frozenset[Tag]:
    from packaging.tags import parse_tag  # noqa: PLC0415  # heavy

    # A tag has three parts, each of which may be several, joined by dots: a long text would stand for billions.
    sane = [text for text in texts if text.count("-") == 2 and text.count(".") <= _MOST_DOTS]  # noqa: PLR2004
    return frozenset(tag for text in sane[:_MOST_TAGS] for tag in parse_tag(text))


def machine(tag: Tag) -> str:
    """Return the machine of a Linux tag, ``any``, or the whole platform of another system."""
    found = _LINUX.fullmatch(tag.platform)
    return found[2] if found else tag.platform


def misfit(tag: Tag, wanted: str) -> str:
    """Return why a Linux machine `wanted` with glibc can't install what has `tag`: empty where it can."""
    found = _LINUX.fullmatch(tag.platform)
    if tag.platform == "any":
        return ""
    if not found:
        system = next((name for start, name in _SYSTEMS.items() if tag.platform.startswith(start)), "another system")
        return f"{tag.platform} is for {system}"
    if found[2] != wanted:
        return f"{tag.platform} is for {found[2]}"
    return f"{tag.platform} is for systems with musl in the place of glibc" if found[1].startswith("musl") else ""


def renamed(within: frozenset[Tag], without: frozenset[Tag]) -> bool:
    """Whether the tags outside say the same but for a name such as ``manylinux_2_28`` in the place of ``linux``.

    Or in that of ``any``: then installers take it for fewer machines than WHEEL would have it.
    """
    portable = all((found := _LINUX.fullmatch(tag.platform)) and found[1] != "linux" for tag in without)
    if portable and all(tag.platform == "any" for tag in within):
        return {(tag.interpreter, tag.abi) for tag in within} == {(tag.interpreter, tag.abi) for tag in without}
    return portable and {_general(tag) for tag in within} == {_general(tag) for tag in without}


def _general(tag: Tag) -> tuple[str, str, str]:
    return tag.interpreter, tag.abi, machine(tag)


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    """A file named as an extension module. `machine` and `version` (``313t``) are empty where the name has none.

    `module` is its path up to the suffix: two files of one module are variants, of which Python takes the first that fits.
    """

    path: str
    module: str
    suffix: str
    version: str = ""
    machine: str = ""
    stable: bool = False

    @classmethod
    def parse(cls, path: str) -> Extension | None:
        """Return what the name of a file at `path` says; None for one that isn't named so."""
        folder, _slash, name = path.rpartition("/")
        stem, dot, rest = name.partition(".")
        if not dot or not (found := _SUFFIX.fullmatch(dot + rest)):
            return None if not name.endswith(".so") else cls(path=path, module=f"{folder}/{stem}", suffix=dot + rest)
        spelled = found["machine"] or ""
        return cls(
            path=path,
            module=f"{folder}/{stem}",
            suffix=dot + rest,
            version=(found["version"] or "") + (found["flags"] or ""),
            machine=_TRIPLETS.get(spelled, spelled),
            stable=bool(found["stable"]),
        )

    def fits(self, tag: Tag) -> bool:
        """Whether every Python that `tag` stands for would import the file."""
        if self.machine and machine(tag) not in {self.machine, "any"}:
            return False
        if self.stable:  # free-threaded Pythons don't look for it
            return not tag.abi.endswith("t")
        if not self.version:
            return True
        return tag.abi.removeprefix("cp") == self.version


def is_extension(path: str) -> bool:
    """Whether a file is named as nothing but an extension module is: ``_core.cpython-312-….so``, ``_core.abi3.so``."""
    found = Extension.parse(path)
    return bool(found and (found.version or found.stable))
