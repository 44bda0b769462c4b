"""spark-build as a folder that any Python 3.11 runs, on any machine: for containers that have nothing of ours.

``PYTHONPATH=FOLDER python3 -m builder doctor --env …`` and ``… audit --env …`` are what it is for. Nothing of it is machine
code: the native programs, and whatever starts ``uv`` or ``ccache``, are left out.
"""

from __future__ import annotations

import importlib.metadata
import shutil
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from builder.errors import HostError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["DISTRIBUTIONS", "write"]

#: What `builder.audit` and `builder.recipe` import; the first four are all that the requirements of the others name.
DISTRIBUTIONS = ("packaging", "pyelftools", "abi3info", "auditwheel", "tomli-w")

#: How machine code is called: a file of these would bind the folder to one machine and one Python.
_NATIVE = frozenset({".so", ".pyd", ".dylib", ".dll"})


def write(dest: Path) -> None:
    """Write the folder `dest`, which is missing or empty: the package, recipes and patches, and what it imports.

    Every user may read it: that of an image isn't this one. The same installation gives the same files; 7 MB. Raises
    UsageError ``not-empty``, and HostError ``not-portable`` where something that it imports is machine code here, or isn't
    installed.
    """
    dest.mkdir(parents=True, exist_ok=True)
    if any(dest.iterdir()):
        raise UsageError("not-empty", f"{dest} is not empty", help="name a folder that is empty, or none yet")
    for source, name in [*_own(), *(file for each in DISTRIBUTIONS for file in _installed(each))]:
        target = dest / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    for one in (dest, *dest.rglob("*")):
        one.chmod(0o755 if one.is_dir() else 0o644)


def _own() -> Iterator[tuple[Path, PurePath]]:
    """Yield our files, and where each goes: recipes and patches where an installed package has them."""
    from builder.recipe import find  # noqa: PLC0415

    package = Path(__file__).resolve().parent.parent
    for file in _files(package):
        if file.suffix not in _NATIVE and package / "data" not in file.parents:
            yield file, PurePath("builder", file.relative_to(package))
    shipped = find.shipped()
    for name, folder in (("recipes", shipped.recipes), ("patches", shipped.patches)):
        for file in _files(folder):
            yield file, PurePath("builder", "data", name, file.relative_to(folder))


def _files(folder: Path) -> Iterator[Path]:
    return (
        file
        for file in sorted(folder.rglob("*"))
        if file.is_file() and "__pycache__" not in file.parts[len(folder.parts) :]
    )


def _installed(project: str) -> Iterator[tuple[Path, PurePath]]:
    try:
        listed = importlib.metadata.distribution(project).files or ()
    except importlib.metadata.PackageNotFoundError:
        listed = ()
    files = [file for file in listed if ".." not in file.parts and "__pycache__" not in file.parts]
    native = next((file for file in files if file.suffix in _NATIVE), None)
    if native or not files:
        raise HostError(
            "not-portable",
            f"{project} can't be taken along",
            cause=f"{native} is machine code" if native else "nothing says which files it is made of",
            help="install spark-build again, from wheels",
            run=("uv tool install --reinstall spark-build",),
        )
    yield from ((Path(str(file.locate())), PurePath(file)) for file in files)
