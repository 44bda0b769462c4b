"""The environment by which every way of compiling asks the gate first, with no patch to any project.

Everything is set for every build, since a variable that a project doesn't read does no harm and many projects compile in
more than one way. By a recipe's ``build.hook`` only what could do harm elsewhere differs:

============ ======================================================================== ==================================
way          what brings the launcher in                                              hook
============ ======================================================================== ==================================
CMake        ``CMAKE_<LANG>_COMPILER_LAUNCHER``, ``CMAKE_<LANG>_LINKER_LAUNCHER`` as   all (``cmake``)
             environment (3.17, 3.21), and again at the end of ``CMAKE_ARGS`` and
             ``TRITON_APPEND_CMAKE_ARGS``: what a project puts on CMake's command
             line wins over the environment, and the last word there wins over that
FlashInfer   ``FLASHINFER_NVCC_LAUNCHER``, ``FLASHINFER_CXX_LAUNCHER``                  all (``flashinfer``)
torch        ``PYTORCH_NVCC`` (used where ninja builds), PATH for ``CC`` and ``CXX``;   all (``setuptools``)
             ``TORCH_NO_COMPILER_WRAPPER`` keeps its own ccache away
setuptools   PATH: ``CC`` and ``CXX`` are names                                       all (``setuptools``)
make         PATH; with the hook also ``MAKEFLAGS=-j``, as a makefile runs one         all (``make``)
             command at a time unless it is told otherwise
meson        PATH; ``CCACHE_DISABLE`` makes a ccache that it finds step aside          all
cargo        ``RUSTC_WRAPPER``; linkers and build scripts by PATH                     all
the rest     PATH                                                                     all (``none``)
============ ======================================================================== ==================================

What goes by PATH goes through a folder of links named like compilers, all to the launcher, in front of everything else.
Started by such a name, the launcher runs the next program of that name on PATH. So an absolute path to a compiler that
isn't one of these variables passes by; its memory is still seen, as memory that isn't available.

A ccache that a project finds by itself would keep the objects of the wrong compiler, since on PATH every compiler is the
launcher; `CCACHE_DISABLE` turns it into a plain prefix. The launcher takes that variable away for the ccache that it starts.

Nothing here counts in the fingerprint, and nothing changes a byte of what is compiled.
"""

from __future__ import annotations

import os
import re
import shutil
from typing import TYPE_CHECKING, Literal

from builder.values import dataclass, field

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

__all__ = ["PROGRAM", "Terms", "compilers", "fallback_slots", "make_links", "many", "variables"]

#: The launcher's own name. Started by it, the launcher takes the command to run from its arguments.
PROGRAM = "spark-build-launch"

#: The folder of the local semaphore's lock files, beside the links.
SLOTS = "slots"

_LANGUAGES = ("C", "CXX", "CUDA")

#: Names of compiler drivers, with the triplet in front that Debian's Python was built with, and a version behind.
_COMPILER = re.compile(
    r"(?:[a-z0-9_]+-linux-gnu-)?(?:gcc|g\+\+|cc|c\+\+|clang|clang\+\+|gfortran)(?:-\d+(?:\.\d+)?)?|nvcc|rustc"
)

#: Cargo's jobs are also what its compilers take as the number of threads, so there more is not merely a longer queue.
_BY_CORES = frozenset({"CARGO_BUILD_JOBS"})

#: What a unit is taken to need where there is no broker to ask (see `fallback_slots`).
_BLIND_BYTES = 8 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the variables are made from. All paths are as the build sees them.

    `gate` is the runtime folder of the broker, `build` the build's id, `root` its tree, `links` the folder that `make_links`
    filled. `env` is the environment as it would be without the gate, values of recipe, site and user in it. `slots` is how
    many compilers may run at once while no broker answers. `ccache` is the program, None to do without.
    """

    gate: Path
    build: str
    root: Path
    links: Path
    env: Mapping[str, str]
    cores: int
    slots: int = 1
    hook: Literal["cmake", "setuptools", "flashinfer", "make", "none"] = "none"
    jobs_env: Sequence[str] = ()
    ccache: Path | None = None
    cache: Mapping[str, str] = field(default_factory=dict)


def many(cores: int) -> int:
    """Return the number of jobs that brings every ready unit to the broker's queue, where the real decision is made."""
    return min(256, max(64, 12 * cores))


def fallback_slots(memory_bytes: int, cores: int) -> int:
    """Return how many compilers may run at once while no broker answers: as if each were a large one."""
    return max(1, min(cores, memory_bytes // _BLIND_BYTES))


def compilers(folders: Iterable[Path]) -> tuple[str, ...]:
    """Return the names of compilers in `folders`, which may be missing; a link to what isn't there would mislead a build."""
    found: set[str] = set()
    for folder in folders:
        try:
            names = os.listdir(folder)  # noqa: PTH208  # a thousand names; only a few become paths
        except OSError:
            continue
        found.update(name for name in names if _COMPILER.fullmatch(name) and os.access(folder / name, os.X_OK))
    return tuple(sorted(found))


def make_links(folder: Path, launcher: Path, names: Iterable[str]) -> None:
    """Leave nothing in `folder` but a link to `launcher` for each of `names` and for its own name, and a folder for locks.

    That last link gives the launcher a path inside the build's tree: the same for every user, and without blanks.
    """
    shutil.rmtree(folder, ignore_errors=True)
    (folder / SLOTS).mkdir(parents=True)
    for name in {*names, PROGRAM}:
        (folder / name).symlink_to(launcher)


def variables(terms: Terms) -> dict[str, str]:
    """Return the variables that bring the gate in, to be laid over `terms.env`; what is said there is kept and added to."""
    launcher = str(terms.links / PROGRAM)
    made = {
        "SPARK_BUILD_GATE": str(terms.gate),
        "SPARK_BUILD_BUILD": terms.build,
        "SPARK_BUILD_ROOT": str(terms.root),
        "SPARK_BUILD_LINKS": str(terms.links),
        "SPARK_BUILD_FALLBACK": str(terms.slots),
        "SPARK_BUILD_SLOTS": str(terms.links / SLOTS),
        "PATH": _path(terms),
        **_cmake(launcher, terms.env),
        **_others(launcher, terms.env),
        **_jobs(terms),
    }
    if terms.ccache is not None:
        made |= {"SPARK_BUILD_CCACHE": str(terms.ccache), **terms.cache}
    return made


def _path(terms: Terms) -> str:
    here = str(terms.links)
    rest = [folder for folder in terms.env.get("PATH", os.defpath).split(os.pathsep) if folder != here]
    return os.pathsep.join([here, *rest])


def _cmake(launcher: str, env: Mapping[str, str]) -> dict[str, str]:
    """Return CMake's launchers; one that recipe or user set stays, behind ours."""
    names = [f"CMAKE_{language}_{step}_LAUNCHER" for language in _LANGUAGES for step in ("COMPILER", "LINKER")]
    made = {name: f"{launcher};{env[name]}" if env.get(name) else launcher for name in names}
    words = " ".join(f"-D{name}={value}" for name, value in made.items())
    for name in ("CMAKE_ARGS", "TRITON_APPEND_CMAKE_ARGS"):
        made[name] = f"{env.get(name, '')} {words}".lstrip()
    return made


def _others(launcher: str, env: Mapping[str, str]) -> dict[str, str]:
    made = {
        "FLASHINFER_NVCC_LAUNCHER": _before(launcher, env.get("FLASHINFER_NVCC_LAUNCHER")),
        "FLASHINFER_CXX_LAUNCHER": _before(launcher, env.get("FLASHINFER_CXX_LAUNCHER")),
        "RUSTC_WRAPPER": env.get("RUSTC_WRAPPER", launcher),
        "TORCH_NO_COMPILER_WRAPPER": "1",
        "VLLM_DISABLE_SCCACHE": "1",
        "CCACHE_DISABLE": "1",
        "NVCC_THREADS": "1",
        "FLASHINFER_NVCC_THREADS": "1",
    }
    nvcc = env.get("PYTORCH_NVCC") or (f"{env['CUDA_HOME']}/bin/nvcc" if env.get("CUDA_HOME") else None)
    if nvcc:
        made["PYTORCH_NVCC"] = _before(launcher, nvcc)
    return made


def _before(launcher: str, command: str | None) -> str:
    return f"{launcher} {command}" if command else launcher


def _jobs(terms: Terms) -> dict[str, str]:
    """Return the variables for the number of jobs: a long queue, whose length costs nothing and is no promise."""
    queue = str(many(terms.cores))
    made = {name: str(terms.cores) if name in _BY_CORES else queue for name in terms.jobs_env}
    if terms.hook == "make":
        made["MAKEFLAGS"] = f"{terms.env.get('MAKEFLAGS', '')} -j{queue}".lstrip()
    return made
