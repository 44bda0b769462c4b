"""What packages need at run time and no metadata says: other wheels, and things of the system."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["COMPANIONS", "NEEDS", "Companion", "Need", "companions", "needs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Companion:
    """A wheel that `of` looks for when it is imported, in the very version that `of` has.

    `why` says what is worse without it, `run` makes it here, of the release ``{version}``. Nobody has to have it: it is
    taken where an index lists it.
    """

    of: str
    name: str
    why: str
    run: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Something of the system that any of `of` wants at run time; `id` is what install.sh knows it by."""

    of: tuple[str, ...]
    id: str
    what: str
    why: str
    run: str


#: FlashInfer takes kernels from this one only where its version is its own, local part included, and compiles at first use
#: otherwise: flashinfer/jit/env.py, `_check_jit_cache_version`. The wheels of each architecture are in its metadata.
COMPANIONS = (
    Companion(
        of="flashinfer-python",
        name="flashinfer-jit-cache",
        why="without its kernels FlashInfer compiles them at first use, for minutes",
        run="spark-build recipe flashinfer --ref v{version} --with jit-cache",
    ),
)

_JIT = ("triton", "flashinfer-python", "tilelang", "vllm")

#: Triton compiles a C launcher for each kernel at run time (triton/runtime/build.py), FlashInfer C++ and CUDA.
NEEDS = (
    Need(
        of=_JIT,
        id="compiler",
        what="a C compiler",
        why="kernels are compiled at run time",
        run="sudo apt install gcc g++",
    ),
    Need(
        of=_JIT,
        id="headers",
        what="Python's headers",
        why="what is compiled at run time includes Python.h",
        run="sudo apt install python3-dev",
    ),
)


def companions(packages: Iterable[str]) -> Iterator[Companion]:
    """Yield the companions of `packages` that aren't among them."""
    names = frozenset(packages)
    return (one for one in COMPANIONS if one.of in names and one.name not in names)


def needs(packages: Iterable[str]) -> Iterator[Need]:
    """Yield what the system has to have for `packages`."""
    names = frozenset(packages)
    return (one for one in NEEDS if names.intersection(one.of))
