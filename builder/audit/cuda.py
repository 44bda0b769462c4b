"""Libraries of CUDA and torch: which projects bring them, and of which major version of CUDA they tell."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from builder.audit import requires
from builder.audit.rules import Rule

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from builder.audit.facts import Contents

__all__ = ["MAJOR", "majors", "providers"]

MAJOR = Rule(
    id="cuda-major",
    severity="error",
    title="made for another major version of CUDA",
    why="libraries of two major versions don't work in one process; where only the other is installed, the import fails",
    help="build it with the toolkit of that major version, against a torch for it",
)

#: A library's name, and the projects that bring it; ``torch`` requires all those that it links to itself.
_PROVIDERS = tuple(
    (re.compile(pattern), names)
    for pattern, names in (
        (r"lib(torch|c10|shm|caffe2)(_\w+)?\.so(\.\d+)*", r"torch"),
        (r"libcudart\.so\.\d+(\.\d+)?", r"torch|cuda-toolkit|nvidia-cuda-runtime(-cu\d+)?"),
        (r"libcublas(Lt)?\.so\.\d+|libnvblas\.so\.\d+", r"torch|cuda-toolkit|nvidia-cublas(-cu\d+)?"),
        (r"libcufft(w)?\.so\.\d+", r"torch|cuda-toolkit|nvidia-cufft(-cu\d+)?"),
        (r"libcufile(_rdma)?\.so\.\d+", r"torch|cuda-toolkit|nvidia-cufile(-cu\d+)?"),
        (r"libcurand\.so\.\d+", r"torch|cuda-toolkit|nvidia-curand(-cu\d+)?"),
        (r"libcusolver(Mg)?\.so\.\d+", r"torch|cuda-toolkit|nvidia-cusolver(-cu\d+)?"),
        (r"libcusparse\.so\.\d+", r"torch|cuda-toolkit|nvidia-cusparse(-cu\d+)?"),
        (r"libcusparseLt\.so\.\d+", r"torch|nvidia-cusparselt-cu\d+"),
        (r"libcupti\.so\.\d+", r"torch|cuda-toolkit|nvidia-cuda-cupti(-cu\d+)?"),
        (r"libnvrtc(-builtins)?\.so\.[\d.]+", r"torch|cuda-toolkit|nvidia-cuda-nvrtc(-cu\d+)?"),
        (r"libnvJitLink\.so\.\d+", r"torch|cuda-toolkit|nvidia-nvjitlink(-cu\d+)?"),
        (r"libnv(ToolsExt|tx3\w*)\.so\.\d+", r"torch|cuda-toolkit|nvidia-nvtx(-cu\d+)?"),
        (r"libcudnn(_\w+)?\.so\.\d+", r"torch|nvidia-cudnn-cu\d+"),
        (r"libnccl\.so\.\d+", r"torch|nvidia-nccl-cu\d+"),
        (r"libnvshmem(_\w+)?\.so\.\d+", r"torch|nvidia-nvshmem-cu\d+"),
        (r"libnixl\w*\.so(\.\d+)*", r"nixl(-cu\d+)?"),
    )
)
#: Libraries whose number is the major version of CUDA. Those of cuFFT, cuRAND, cuSPARSE, cuSOLVER count otherwise.
_NUMBERED = re.compile(r"lib(cudart|cublas|cublasLt|nvblas|nvrtc|nvJitLink|cupti)\.so\.(\d+)(\.\d+)?")
_PROJECT = re.compile(r"nvidia-[\w-]+-cu(\d\d)")
_LOCAL = re.compile(r"(?:^|\.)cu(\d\d)\d")


def providers(library: str) -> str:
    """Return a pattern on the names of the projects that bring `library`; empty for one of nobody known."""
    return next((names for pattern, names in _PROVIDERS if pattern.fullmatch(library)), "")


def majors(contents: Contents, target: int) -> Mapping[int, tuple[str, str]]:
    """Return the major versions of CUDA that it tells of, each with the file (may be empty) and what tells it.

    Told by the libraries that its files need, by the projects that it requires, and by its own local version (``+cu130``).
    Of files that differ by numbers in their names (``lib_cuda118.so``, ``lib_cuda130.so``) one is loaded: if one is for
    `target`, the others don't count.
    """
    found: dict[int, tuple[str, str]] = {}
    linked = list(_linked(contents))
    served = {_variants(path) for path, _library, major in linked if major == target}
    for path, library, major in linked:
        if major == target or _variants(path) not in served:
            found.setdefault(major, (path, library))
    for project in sorted(requires.declared(contents)):
        if (match := _PROJECT.fullmatch(project)) and any(re.fullmatch(names, project) for _, names in _PROVIDERS):
            found.setdefault(int(match[1]), ("", f"Requires-Dist: {project}"))
    if match := _LOCAL.search(contents.version.partition("+")[2]):
        found.setdefault(int(match[1]), ("", f"version {contents.version}"))
    return found


def _linked(contents: Contents) -> Iterator[tuple[str, str, int]]:
    for file in contents.files:
        for library in file.elf.needed if file.elf else ():
            if match := _NUMBERED.fullmatch(library):
                yield file.path, library, int(match[2])


def _variants(path: str) -> str:
    """Return what the paths of variants for several versions of CUDA have in common."""
    return re.sub(r"\d+", "#", path) if re.search(r"cu(da)?[_-]?\d{2,3}", path) else path
