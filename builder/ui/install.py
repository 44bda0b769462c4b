"""The line that installs what was built."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from builder.stages import Stored

__all__ = ["install_line"]


def install_line(wheels: Sequence[Stored], index_url: str) -> str:
    """Return the shell line that installs exactly `wheels` from `index_url`.

    torch pins its own triton, so for a triton a second line, a comment, gives the bash command that installs both.
    """
    pins = [f"{wheel.project}=={wheel.version}" for wheel in wheels]
    words = ["uv", "pip", "install", "--index", index_url]
    lines = [shlex.join([*words, *pins])]
    for pin in pins:
        if pin.startswith("triton=="):
            override = f"--overrides <(echo {shlex.quote(pin)})"
            lines.append(
                f"# with torch, which pins another: {shlex.join(words)} {override} {shlex.join(['torch', *pins])}"
            )
    return "\n".join(lines)
