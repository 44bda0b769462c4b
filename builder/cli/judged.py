"""Which wheels and which torch the words of a command mean."""

from __future__ import annotations

import contextlib
import shlex
from typing import TYPE_CHECKING

from builder.errors import UsageError
from builder.wheel.read import normalised

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from builder.cli.app import App
    from builder.wheelhouse import Wheelhouse

__all__ = ["torch_folder", "wheel_path", "wheel_paths"]


def wheel_path(ref: str, app: App) -> Path:
    """Return the file that `ref` names: a path, else a wheel in the wheelhouse.

    There it is a project or an output, of which the newest published wheel is meant, or what ``wheels show`` takes.
    Raises UsageError ``wheel-missing``.
    """
    path = app.cwd / ref
    if path.is_file():
        return path
    what = "it is a folder" if path.is_dir() else "it is no file"
    from builder.wheelhouse import Wheelhouse  # noqa: PLC0415  # most are files

    try:
        with Wheelhouse.open(app.config().wheelhouse, clock=app.clock, create=False) as house:
            return _newest(ref, house) or house.get(ref).path
    except UsageError as error:
        cause = f"{what}, and {error.summary}"
    given = getattr(app.args, "wheelhouse", None)
    raise UsageError(
        "wheel-missing",
        f"there is no wheel {ref}",
        cause=cause,
        help="name a wheel file; of what is in the wheelhouse a project, or the start of a fingerprint or sha256",
        run=(shlex.join(["spark-build", "wheels", "list", *(["--wheelhouse", given] if given else [])]),),
    )


def _newest(ref: str, house: Wheelhouse) -> Path | None:
    """Return the newest published wheel of the project or output that `ref` names."""
    name = normalised(ref)
    every = [one for one in house.list_wheels() if name in {normalised(one.project), normalised(one.output)}]
    return next((one.path for one in reversed(every) if one.state == "published"), None)


def wheel_paths(refs: Sequence[str], app: App) -> list[Path]:
    """Return the files that `refs` name, each once, however often and by whatever name it is given.

    Raises UsageError ``wheel-missing``.
    """
    found: dict[Path, Path] = {}
    for path in (wheel_path(ref, app) for ref in refs):
        found.setdefault(path.resolve(), path)
    return list(found.values())


def torch_folder(named: str, app: App) -> Path:
    """Return the package folder of the torch that `named` is or has: the folder itself, or an environment.

    Raises UsageError ``torch-missing``.
    """
    from builder.audit import installed  # noqa: PLC0415

    path = app.cwd / named
    candidates = [path, path / "torch"]
    with contextlib.suppress(UsageError):
        candidates += [site / "torch" for site in installed.folders(path)]
    for one in candidates:
        if (one / "lib").is_dir() and (one / "__init__.py").is_file():
            return one
    raise UsageError(
        "torch-missing",
        f"there is no torch in {named}",
        cause="wanted an environment that has torch, or its package folder (…/site-packages/torch)",
        run=("spark-build audit WHEEL --torch .venv",),
    )
