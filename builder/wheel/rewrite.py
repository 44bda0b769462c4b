"""What a label changes inside a wheel: names of folders, METADATA, the module that repeats the version."""

from __future__ import annotations

import contextlib
import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from builder.values import dataclass
from builder.wheel.label import plain
from builder.wheel.read import header_lines, normalised

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Change", "excludes_torch"]

#: Released with each torch, for that one alone.
_WITH_TORCH = ("torchvision", "torchaudio")

#: A requirement up to its marker (PEP 508): the project with its extras, then versions, in brackets or not.
_REQUIREMENT = re.compile(r"(?P<head>(?P<project>[A-Za-z0-9][A-Za-z0-9._-]*)\s*(\[[^\]]*\])?)(?P<versions>[^;@]*)")
_EXACT = re.compile(r"(?P<operator>(?<![=!~<>])===?)\s*(?P<version>[^\s,()=]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """From version `old` to `new`; `siblings` maps normalised projects to the versions that exact pins on them get.

    `module` is a shell pattern of the files that repeat the version as a string. With `torch`, that version of it is what
    METADATA asks for, and any torchvision and torchaudio.
    """

    old: str
    new: str
    old_info: str
    new_info: str
    module: str | None
    siblings: Mapping[str, str]
    torch: str | None = None

    def renamed(self, name: str) -> str:
        """Return `name` with the version in ``.dist-info`` and ``.data`` folders replaced."""
        folder, slash, rest = name.partition("/")
        if folder == self.old_info:
            return f"{self.new_info}{slash}{rest}"
        if folder == self.old_info.removesuffix(".dist-info") + ".data":
            return f"{self.new_info.removesuffix('.dist-info')}.data{slash}{rest}"
        return name

    def is_module(self, name: str) -> bool:
        """Whether a file may repeat the version."""
        return self.module is not None and fnmatchcase(name, self.module)

    def concerns(self, name: str) -> bool:
        """Whether the file `name` (a new name) may have to be edited."""
        return name == f"{self.new_info}/METADATA" or self.is_module(name)

    def edited(self, name: str, content: bytes) -> bytes | None:
        """Return the new content of a file that `concerns` the change, or None when it doesn't repeat the version."""
        return self._metadata(content) if name == f"{self.new_info}/METADATA" else self._module(content)

    def _module(self, text: bytes) -> bytes | None:
        pattern = re.compile(rb"(?P<q>[\"'])" + re.escape(self.old.encode()) + rb"(?P=q)")
        changed, count = pattern.subn(lambda hit: hit["q"] + self.new.encode() + hit["q"], text)
        return changed if count else None

    def _metadata(self, text: bytes) -> bytes:
        """Return METADATA with the version and exact pins on siblings replaced, all other bytes as they were."""
        made, read = [], 0
        for lines in header_lines(text):
            made.append(self._header(lines))
            read += sum(map(len, lines))
        return b"".join(made) + text[read:]

    def _header(self, lines: list[bytes]) -> bytes:
        whole = b"".join(lines)
        key, colon, value = b" ".join(line.strip() for line in lines).partition(b":")
        old = value.strip().decode(errors="surrogateescape")
        match key.strip().lower():
            case b"version":
                new = self.new
            case b"requires-dist":
                new = self._requirement(old)
            case _:
                return whole
        if new == old:
            return whole
        ending = whole[len(whole.rstrip(b"\r\n")) :]
        return key + colon + b" " + new.encode(errors="surrogateescape") + ending

    def _requirement(self, text: str) -> str:
        """Return a requirement as the labelled wheel has it.

        ``==`` and ``===`` on the very version of a sibling are moved to its labelled one.
        """
        found = _REQUIREMENT.match(text)
        if found and self.torch and normalised(found["project"]) in {"torch", *_WITH_TORCH}:
            exact = f"=={self.torch}" if normalised(found["project"]) == "torch" else ""
            return f"{found['head'].strip()}{exact}{text[found.end() :]}"
        if not found or normalised(found["project"]) not in self.siblings:
            return text
        labelled = self.siblings[normalised(found["project"])]

        def moved(hit: re.Match[str]) -> str:
            if not _same_public(hit["version"], labelled):
                return hit[0]  # another version, or a prefix: what was meant holds for the labelled one as it is
            return f"{hit['operator']}{labelled}"

        return f"{found['head']}{_EXACT.sub(moved, found['versions'])}{text[found.end() :]}"


def excludes_torch(metadata: bytes, version: str) -> bool:
    """Whether METADATA asks for a torch that `version` isn't."""
    from packaging.requirements import InvalidRequirement, Requirement  # noqa: PLC0415  # not on the hit path

    for lines in header_lines(metadata):
        key, _colon, value = b" ".join(line.strip() for line in lines).partition(b":")
        if key.strip().lower() != b"requires-dist":
            continue
        with contextlib.suppress(InvalidRequirement):
            one = Requirement(value.decode(errors="replace").strip())
            if normalised(one.name) == "torch" and not one.specifier.contains(version, prereleases=True):
                return True
    return False


def _same_public(one: str, other: str) -> bool:
    from packaging.version import InvalidVersion, Version  # noqa: PLC0415  # not on the hit path

    try:
        return Version(plain(one)) == Version(plain(other))
    except InvalidVersion:
        return False
