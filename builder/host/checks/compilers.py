"""Compilers, by having them compile: only that tells whether toolkit, host compiler and C library fit together."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from builder import proc
from builder.host import compilers, floors, programs, toolkit
from builder.host.checks.device import driver_cuda
from builder.host.checks.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from builder.host.checks.finding import Status, Subject

__all__ = ["first_error", "host_compiler", "nvcc"]

#: What recipes ask nvcc for when nobody says otherwise.
ARCH = "sm_121a"

#: What vLLM's CMake files refuse to go below.
GCC = 13

_COMPILE_S = 120.0

_KERNEL = "__global__ void kernel() {}\nint main() { return 0; }\n"
_HELLO = '#include <cstdio>\n#include <string>\nint main() { std::puts(std::string("works").c_str()); }\n'

_ERROR = re.compile(r"(?i)\b(error|fatal)\b")

#: What nvcc says, what it means, what mends it.
_REASONS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        r"Unsupported gpu architecture|is not defined for option 'gpu-name'",
        f"it doesn't know {ARCH}; CUDA 12.9 was the first that did",
        ("sudo apt install cuda-toolkit-13-0", "spark-build doctor --cuda 13.0"),
    ),
    (
        r"unsupported GNU version",
        "the host compiler is newer than this nvcc takes",
        ("sudo apt install g++-13", "spark-build recipe NAME --env NVCC_CCBIN=g++-13"),
    ),
    (
        r"exception specification is incompatible",
        "glibc 2.41 and newer declare functions that the headers of CUDA 13.1 and older declare otherwise",
        ("sudo apt install cuda-toolkit-13-2", "spark-build doctor --cuda 13.2"),
    ),
    (
        r"(?i)preprocess host compiler properties|(gcc|g\+\+|c\+\+)['\"]?: (not found|no such file)|could not set up",
        "it finds no host compiler",
        ("sudo apt install g++",),
    ),
)


def nvcc(subject: Subject) -> Iterator[Finding]:
    """Whether there is an nvcc, whether it compiles for a GB10, and whether the driver runs what it makes."""
    needed = any(recipe.system.cuda for recipe in subject.recipes)
    root = toolkit.find(subject.cuda, env=subject.env)
    if root is None:
        yield Finding(
            id="nvcc",
            status="problem" if needed else "info",
            found="none on PATH, in CUDA_HOME or /usr/local/cuda",
            wanted="a CUDA 13 toolkit",
            why="every kernel is compiled by it" if needed else "no recipe that counts here uses CUDA",
            run=("sudo apt install cuda-toolkit-13-0",) if needed else (),
        )
        return
    told = programs.ask([root / "bin" / "nvcc", "--version"], subject.env)
    version = toolkit.version_in(told)
    yield _compiles(subject, root, version)
    driver = driver_cuda(subject)
    if driver is not None:
        yield _against_driver(version, driver)


def _compiles(subject: Subject, root: Path, version: str) -> Finding:
    with subject.scratch() as folder:
        (folder / "kernel.cu").write_text(_KERNEL)
        words: list[str | Path] = [root / "bin" / "nvcc", f"-arch={ARCH}", "-c", "kernel.cu", "-o", "kernel.o"]
        done = proc.capture(words, env=subject.clean_env(), cwd=folder, timeout_s=_COMPILE_S)
        made = done.ok and (folder / "kernel.o").is_file()
    if made:
        return Finding(id="nvcc", status="ok", found=f"{version} in {root}, compiles for {ARCH}")
    text = done.err + done.out
    why, run = next(
        ((meaning, mend) for pattern, meaning, mend in _REASONS if re.search(pattern, text)),
        ("an empty kernel doesn't compile", ("sudo apt install --reinstall cuda-toolkit-13-0",)),
    )
    found = f"{version} in {root}: {first_error(text) or f'ended with {done.code}'}"
    return Finding(
        id="nvcc", status="problem", found=found, wanted=f"an nvcc that compiles for {ARCH}", why=why, run=run
    )


def _against_driver(version: str, driver: str) -> Finding:
    ours, theirs = _pair(version), _pair(driver)
    toolkit_name = f"CUDA {ours[0]}.{ours[1]}"
    if ours <= theirs:
        return Finding(id="driver", status="ok", found=f"runs CUDA {driver}, nvcc is {toolkit_name}")
    status: Status = "problem" if ours[0] > theirs[0] else "warn"
    why = (
        f"the driver loads nothing that {toolkit_name} makes"
        if status == "problem"
        else "what has only PTX for this GPU fails with cudaErrorUnsupportedPtxVersion"
    )
    return Finding(
        id="driver",
        status=status,
        found=f"runs CUDA {driver} at most, nvcc is {toolkit_name}",
        wanted="an nvcc that isn't newer than the driver",
        why=why,
        run=(
            f"sudo apt install cuda-toolkit-{theirs[0]}-{theirs[1]}",
            f"spark-build doctor --cuda {theirs[0]}.{theirs[1]}",
        ),
    )


def host_compiler(subject: Subject) -> Iterator[Finding]:
    """Whether g++ compiles, links and makes what runs, and whether it is new enough for everything."""
    needed = any(compilers.wants_compilers(recipe.system) for recipe in subject.recipes)
    where = floors.distribution(subject.root / "etc/os-release")
    gxx = programs.find("g++", subject.env)
    if gxx is None:
        yield Finding(
            id="compiler",
            status="problem" if needed else "warn",
            found="no g++ on PATH",
            wanted=f"g++ {GCC} or newer",
            why="nvcc and every extension module need it",
            run=("sudo apt install g++",),
        )
        return
    version = programs.version_in(programs.ask([gxx, "-dumpfullversion"], subject.env))
    broken = _hello(subject, gxx)
    if broken:
        yield Finding(
            id="compiler",
            status="problem",
            found=f"g++ {version}: {broken}",
            wanted="a g++ that compiles, links and makes programs that run",
            why="every compilation will fail like this one",
            run=("sudo apt install --reinstall g++ libc6-dev",),
        )
        return
    names = [
        recipe.name for recipe in subject.recipes if recipe.system.gcc and not floors.fits(version, recipe.system.gcc)
    ]
    if _pair(version)[0] >= GCC or (subject.recipes and not names):
        yield Finding(id="compiler", status="ok", found=f"g++ {version}, compiles and links")
        return
    mend = floors.gcc_command(where)
    yield Finding(
        id="compiler",
        status="warn",
        found=f"g++ {version}",
        wanted=f"{GCC} or newer",
        why=f"{', '.join(names) or 'vllm'} can't be built with it" + ("" if mend else f". {floors.GCC_ELSEWHERE}"),
        run=(mend,) if mend else (),
    )


def _hello(subject: Subject, gxx: Path) -> str:
    """Return what goes wrong with the smallest program, or an empty text."""
    with subject.scratch() as folder:
        (folder / "hello.cpp").write_text(_HELLO)
        words: list[str | Path] = [gxx, "-std=c++17", "hello.cpp", "-o", "hello"]
        done = proc.capture(words, env=subject.clean_env(), cwd=folder, timeout_s=_COMPILE_S)
        if not done.ok:
            return first_error(done.err) or f"ended with {done.code}"
        if not os.access(folder / "hello", os.X_OK):
            return f"what it made can't be run: {subject.temporary} is mounted noexec"
        ran = proc.capture([folder / "hello"], env=subject.clean_env(), cwd=folder, timeout_s=_COMPILE_S)
    return "" if ran.out == "works\n" else f"what it made doesn't run: {ran.err.strip() or f'ended with {ran.code}'}"


def first_error(text: str) -> str:
    """Return the first line of a compiler's output that tells an error, else its last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((line for line in lines if _ERROR.search(line)), lines[-1] if lines else "")


def _pair(version: str) -> tuple[int, int]:
    major, minor, *_rest = [*(int(part) for part in re.findall(r"\d+", version)), 0, 0]
    return major, minor
