"""What an image has to know of the wheels that it installs, read out of them: nothing is unpacked or run.

That is which ptxas compiles kernels at run time, where nvcc will lie, and whether torch is one for CUDA.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from builder.audit import program
from builder.values import dataclass
from builder.wheel import problems

if TYPE_CHECKING:
    import zipfile
    from collections.abc import Iterable
    from pathlib import Path

    from builder.audit.facts import Program
    from builder.audit.target import Capability

__all__ = ["Held", "Tool", "read"]

#: The library that a CPU-only torch lacks.
_TORCH = "torch/lib/libtorch_cuda.so"
_NVCC = "bin/nvcc"
#: Paths that go into files of images; no toolkit has others.
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./+-]*", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A ptxas: the project whose wheel has it, its path below site-packages, and what it knows."""

    project: str
    path: str
    program: Program

    def knows(self, target: Capability) -> bool:
        """Whether it can be told to compile for `target`."""
        return not target.owns.isdisjoint(self.program.targets)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What wheels hold. `toolkit` is the folder below site-packages that has ``bin/nvcc``, empty without one.

    `cuda_torch` is None where there is no torch among them. `unread` are projects whose wheels aren't at hand.
    """

    ptxas: tuple[Tool, ...] = ()
    toolkit: str = ""
    cuda_torch: bool | None = None
    unread: tuple[str, ...] = ()

    def of(self, project: str) -> tuple[Tool, ...]:
        """Return every ptxas that the wheel of `project` has."""
        return tuple(one for one in self.ptxas if one.project == project)


def read(wheels: Iterable[tuple[str, Path]]) -> Held:
    """Return what `wheels` (project, file) hold; a file that isn't there is `unread`.

    Raises CheckRefused where one is no whole wheel.
    """
    found: list[Tool] = []
    toolkit, cuda_torch, unread = "", None, []
    for project, file in wheels:
        if not file.exists():
            unread.append(project)
            continue
        with problems.opened(file) as archive:
            paths = {_installed(name): name for name in archive.namelist()}
            if project == "torch":
                cuda_torch = _TORCH in paths
            for path, name in paths.items():
                if not _PLAIN.fullmatch(path):
                    continue
                if path.endswith(f"/{_NVCC}"):
                    toolkit = path.removesuffix(f"/{_NVCC}")
                if path.rpartition("/")[2].startswith("ptxas") and (tool := _program(archive, path, name)):
                    found.append(Tool(project=project, path=path, program=tool))
    return Held(ptxas=tuple(found), toolkit=toolkit, cuda_torch=cuda_torch, unread=tuple(unread))


def _installed(name: str) -> str:
    """Return where below site-packages a member goes; those of ``.data`` folders that go elsewhere keep their names."""
    head, _slash, rest = name.partition("/")
    place, _slash, inner = rest.partition("/")
    return inner if head.endswith(".data") and place in {"purelib", "platlib"} else name


def _program(archive: zipfile.ZipFile, path: str, name: str) -> Program | None:
    with problems.member(archive, name) as stream:
        return program.of(stream, path.rpartition("/")[2], archive.getinfo(name).file_size)  # type: ignore[arg-type]
