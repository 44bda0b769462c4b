"""The torch of a build environment: it is the one that was locked, and one with CUDA where the build needs that.

Whatever a build compiles against another torch imports nowhere, or runs on no GPU, and nothing says so before that.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from builder.digest import sha256_bytes
from builder.errors import CheckRefused

if TYPE_CHECKING:
    from pathlib import Path

    from builder.stages import Torch

__all__ = ["changed", "facts", "keep", "require_cuda"]

#: In torch/version.py: ``__version__ = '2.14.0+cu130'``, ``cuda: Optional[str] = '13.0'``.
_FACT = re.compile(r"^(__version__|cuda)\b[^=\n]*=\s*(?:'([^']*)'|\"([^\"]*)\"|None)", re.MULTILINE)

#: Where an environment keeps which torch it was made with.
_KEPT = "spark-build.torch"


def require_cuda(torch: Torch | None, venv: Path, *, recipe: str) -> None:
    """Raise CheckRefused ``torch-cpu`` when the torch that is built against, if any, was itself built without CUDA.

    An existing one says so itself; of one that was installed into `venv` its ``torch/version.py`` is read. One without that
    file isn't judged.
    """
    if torch is None:
        return
    if torch.folder:
        version, cuda = torch.version, torch.cuda
    else:
        facts = _facts(venv)
        if "cuda" not in facts:
            return
        version, cuda = facts.get("__version__") or torch.version, facts["cuda"]
    if cuda:
        return
    own = (
        f"the torch at {torch.folder}"
        if torch.folder
        else f"the index gives {version} for torch=={torch.version}, which"
    )
    raise CheckRefused(
        "torch-cpu",
        f"{recipe} needs CUDA, and torch {version} is built without",
        cause=f"{own} has torch.version.cuda = None",
        help="another torch: one with CUDA in the interpreter that --torch names, or from an index that has it; "
        "with its local part, as in 2.14.0+cu130, no other can take its place",
        run=(
            f"spark-build recipe {recipe} --torch VERSION+cu130 --relock",
            f"spark-build recipe {recipe} --torch PYTHON",
        ),
    )


def keep(venv: Path) -> None:
    """Remember which torch the environment was made with, for `changed`."""
    (venv / _KEPT).write_text("\n".join(_seen(venv)))


def changed(venv: Path) -> str:
    """Return what became of the torch that the environment was made with; empty when it is the same, or none as before."""
    try:
        digest, was = (venv / _KEPT).read_text().split("\n", 1)
    except (FileNotFoundError, ValueError):
        return ""
    now, told = _seen(venv)
    return "" if now == digest else f"the environment had {was}, and has {told} now"


def _seen(venv: Path) -> tuple[str, str]:
    """Return what identifies the torch of an environment, by its record of installed files, and what it is in words."""
    records = sorted(venv.glob("lib/python*/site-packages/torch-*.dist-info/RECORD"))
    versions = sorted(venv.glob("lib/python*/site-packages/torch/version.py"))
    parts = [f"{file.relative_to(venv)} {sha256_bytes(file.read_bytes())}" for file in (*records, *versions)]
    names = [file.parent.name.removesuffix(".dist-info").replace("-", " ", 1) for file in records]
    facts = _facts(venv)
    told = " and ".join(names) or f"torch {facts['__version__']}" if names or "__version__" in facts else "no torch"
    if "cuda" in facts:
        told += f" (CUDA {facts['cuda']})" if facts["cuda"] else " (without CUDA)"
    return sha256_bytes("\n".join(parts).encode()), told


def _facts(venv: Path) -> dict[str, str]:
    """Return what ``torch/version.py`` says, without importing it."""
    file = next(iter(sorted(venv.glob("lib/python*/site-packages/torch/version.py"))), None)
    return facts(file) if file else {}


def facts(file: Path) -> dict[str, str]:
    """Return what a ``torch/version.py`` says, by name; ``cuda`` is empty for the CPU build. Raises OSError."""
    return {key: one or other for key, one, other in _FACT.findall(file.read_text(errors="replace"))}
