"""The line that installs what was built."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from builder.stages import Stored

__all__ = ["install_line"]


def install_line(wheels: Sequence[Stored], index_url: str) -> str:
    """Return the shell line that installs exactly `wheels` from `index_url`."""
    pins = [f"{wheel.project}=={wheel.version}" for wheel in wheels]
    return shlex.join(["uv", "pip", "install", "--index", index_url, *pins])
