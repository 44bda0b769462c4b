"""Releases that a bundle can't hold, since they have no wheel for the target: told, so that nobody takes old for new."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from builder.errors import SparkError
from builder.source import simple
from builder.wheel.read import normalised

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from builder.bundle.resolve import Piece
    from builder.source import Sources

__all__ = ["notes"]


def notes(requirements: Sequence[str], found: Mapping[str, Piece], sources: Sources) -> Iterator[str]:
    """Yield a line for each name that was asked for and has a newer release than was `found`, without a wheel that fits.

    An index that doesn't answer, or has no page of that name, says nothing.
    """
    from packaging.requirements import InvalidRequirement, Requirement  # noqa: PLC0415
    from packaging.version import InvalidVersion, Version  # noqa: PLC0415

    for text in requirements:
        with contextlib.suppress(SparkError, InvalidRequirement):
            wanted = Requirement(text)
            name = normalised(wanted.name)
            if wanted.url or name not in found:
                continue
            kinds: dict[Version, set[bool]] = {}
            for file in simple.ask(name, sources):
                with contextlib.suppress(InvalidVersion):
                    if not file.yanked and wanted.specifier.contains(file.version):
                        kinds.setdefault(Version(file.version), set()).add(file.sdist)
            best = max(kinds, default=None)
            if best is not None and best > Version(found[name].version):
                what = "is a source archive only" if kinds[best] == {True} else "has no wheel for the target"
                yield f"{name} {best} {what}, the bundle has {found[name].version}; a recipe makes one: {_make(name)}"


def _make(name: str) -> str:
    return f"spark-build recipes new {name}"
