"""The line that installs what was built."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from builder.stages import Stored

__all__ = ["install_line"]


def install_line(
    wheels: Sequence[Stored], index_url: str, *, pinned_by: Mapping[str, Sequence[str]] | None = None
) -> str:
    """Return the shell line that installs exactly `wheels` from `index_url`.

    `pinned_by` names, by output, projects that pin another version of it: a second line, a comment, gives the bash command
    that installs them together, since a resolver has to be told that ours is meant.
    """
    pins = {wheel.output: f"{wheel.project}=={wheel.version}" for wheel in wheels}
    words = ["uv", "pip", "install", "--index", index_url]
    lines = [shlex.join([*words, *pins.values()])]
    for output, others in (pinned_by or {}).items():
        if output in pins and others:
            override = f"--overrides <(echo {shlex.quote(pins[output])})"
            lines.append(
                f"# with {' and '.join(others)}, which pins another: "
                f"{shlex.join(words)} {override} {shlex.join([*others, *pins.values()])}"
            )
    return "\n".join(lines)
