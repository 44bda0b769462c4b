"""The line that installs what was built."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from builder.stages import Stored

__all__ = ["install_lines"]


def install_lines(
    wheels: Sequence[Stored], index_url: str | None, overrides: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """Return shell lines that install exactly `wheels`: from `index_url` by version, or by path where there is none.

    `overrides` maps a project to the version that has to win over somebody's pin of it (torch pins triton): uv takes such
    from a file, which the lines write first. Each line can be pasted into a POSIX shell as it is.
    """
    if not wheels:
        return ()
    words = ["uv", "pip", "install"]
    lines = []
    if overrides:
        pins = " ".join(shlex.quote(f"{project}=={version}") for project, version in overrides.items())
        lines.append(f"printf '%s\\n' {pins} > overrides.txt")
        words += ["--overrides", "overrides.txt"]
    if index_url is None:
        words += [str(wheel.path) for wheel in wheels]
    else:
        words += ["--index", index_url, *(f"{wheel.project}=={wheel.version}" for wheel in wheels)]
    return (*lines, shlex.join(words))
