"""Which stored wheel a file is. A name proves nothing: the bytes do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.digest import sha256_file
from builder.errors import CheckRefused, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from builder.stages import Stored

__all__ = ["of_file"]


def of_file(every: Sequence[Stored], path: Path) -> Stored:
    """Return the one of `every` with the bytes of the file at `path`, or whose own place that is, whatever is there by now.

    Raises UsageError ``wheel-missing`` for no file, CheckRefused ``wheel-other`` for bytes that aren't stored.
    """
    own = [one for one in every if one.path == path.absolute() or one.path.resolve() == path.resolve()]
    if own:
        return own[-1]
    if not path.is_file():
        raise UsageError("wheel-missing", f"there is no file {path}", run=("spark-build wheels list",))
    digest = sha256_file(path)
    same = {one.filename: one for one in every if one.sha256 == digest}
    if same:
        return same.get(path.name, next(iter(same.values())))
    stored = next((one for one in every if one.filename == path.name), None)
    if stored is None:
        raise CheckRefused(
            "wheel-other",
            f"{path} is no wheel of this wheelhouse",
            cause=f"the file has the sha256 {digest}, and no stored wheel has it",
            run=("spark-build wheels list",),
        )
    raise CheckRefused(
        "wheel-other",
        f"{path} isn't the stored wheel of that name",
        cause=f"the file has the sha256 {digest}, the stored wheel {stored.sha256}",
        help="what is said of the stored wheel would say nothing of this file; name the stored one by its sha256",
        run=(f"spark-build wheels show {stored.sha256[:12]}",),
    )
