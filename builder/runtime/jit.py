"""What is compiled where it runs: a C compiler, Python's headers and nvcc, each tried out; and how many at once."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from builder.errors import HostError
from builder.host import programs
from builder.host.checks import Finding
from builder.runtime import driver, known, siblings
from builder.values import replace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from builder.host.checks import Status
    from builder.runtime.environment import Environment

__all__ = ["check"]

_LAUNCHER = "#include <Python.h>\nint launch(void) { return Py_IsInitialized(); }\n"
_PLAIN = "int launch(void) { return 0; }\n"
_KERNEL = "__global__ void kernel() {}\n"

_LOST = re.compile(r"(?:cannot|unable to) find (?:library )?-l(\w+)")
_NO_HEADER = re.compile(r"Python\.h: No such file")


def check(environment: Environment) -> Iterator[Finding]:
    """Yield what recipes say that is wanted (`Environment.wants`) and isn't there, or doesn't work."""
    for want, run in (("compiler", _compiler), ("nvcc", _nvcc)):
        if package := environment.wants.get(want, ""):
            environment.tell(f"compiling as {package} does")
            yield from run(environment, package)
    yield from _jobs(environment)


def _compiler(environment: Environment, package: str) -> Iterator[Finding]:
    """Compile what Triton compiles for each kernel, with the compiler that it would take (triton/runtime/build.py)."""
    given = environment.variables.get("CC")
    path = {"PATH": environment.path}
    compiler = next((one for name in ("gcc", "clang", "cc") if (one := programs.find(name, path))), None)
    words = [given] if given else [str(compiler)] if compiler else []
    if not words:
        yield known.finding(
            "run-time-compiler-missing",
            environment,
            check="compiler",
            found=f"none on PATH, and {package} compiles when it runs",
        )
        return
    python = environment.ask("python").told
    include = str(python.get("include", ""))
    said = _compiled(environment, [*words, "-shared", "-fPIC", "-I", include], "launch.c", _LAUNCHER)
    if not said:
        yield Finding(id="compiler", status="ok", found=f"{words[0]} compiles against Python's headers")
    elif _NO_HEADER.search(said) and not _compiled(environment, [*words, "-shared", "-fPIC"], "launch.c", _PLAIN):
        found = f"no Python.h in {include}"
        told = known.finding("run-time-headers-missing", environment, check="headers", found=found)
        minor = ".".join(str(python.get("version", "3")).split(".")[:2])
        yield replace(told, run=(f"sudo apt install python{minor}-dev",))
    else:
        found = f"{words[0]}: {_first(said)}"
        yield known.finding("run-time-compiler-missing", environment, check="compiler", found=found)


def _nvcc(environment: Environment, package: str) -> Iterator[Finding]:
    """Compile a kernel for the target with the nvcc that FlashInfer would take (flashinfer/jit/cpp_ext.py)."""
    kernels = siblings.ahead(environment)
    status: Status
    status, what = ("warn", "what isn't compiled ahead") if kernels else ("problem", "every kernel")
    named = environment.variables.get("CUDA_HOME") or environment.variables.get("CUDA_PATH")
    on_path = programs.find("nvcc", {"PATH": environment.path})
    nvcc = Path(named, "bin/nvcc") if named else on_path or Path("/usr/local/cuda/bin/nvcc")
    if not os.access(nvcc, os.X_OK):
        yield known.finding(
            "run-time-nvcc-missing",
            environment,
            check="nvcc",
            found=f"no {nvcc}; {package} compiles {what} when it first runs",
            status=status,
            named={"path": str(nvcc)},
        )
        return
    arch = environment.target.renamed.own
    said, lost = _built(environment, nvcc, arch)
    if not said:
        yield Finding(id="nvcc", status="ok", found=f"{nvcc} compiles for {arch}, and it links")
    elif lost:
        yield _unlinked(environment, nvcc, lost, status)
    elif (mixed := known.in_text(said.splitlines(), known.places(environment))) and mixed.id == "toolkit-mixed":
        told = known.of(mixed, check="nvcc", found=f"{nvcc}: {_first(said)}", status=status)
        yield replace(told, run=_in_one_version(environment) or told.run)
    else:
        yield _ignorant(package, what, f"{nvcc}: {_first(said)}", status)


def _in_one_version(environment: Environment) -> tuple[str, ...]:
    """Return what brings the parts of an nvcc that is installed from wheels to its own version; nothing for another."""
    version = ".".join(environment.version("nvidia-cuda-nvcc").split(".")[:2])
    if not version:
        return ()
    parts = " ".join(f"'{name}=={version}.*'" for name in ("nvidia-nvvm", "nvidia-cuda-crt") if environment.has(name))
    return (f"uv pip install --python {environment.quoted} {parts}",)


def _built(environment: Environment, nvcc: Path, arch: str) -> tuple[str, str]:
    """Compile a kernel and link it as FlashInfer does; return what was said, and the library that the linker lacked."""
    home = nvcc.parent.parent
    with environment.scratch() as folder:
        (folder / "kernel.cu").write_text(_KERNEL)
        links = [f"-L{home}/lib64", f"-L{home}/lib64/stubs", "-lcudart", "-lcuda"]
        steps: tuple[list[str | Path], ...] = (
            [nvcc, f"-arch={arch}", "-Xcompiler", "-fPIC", "-c", "kernel.cu", "-o", "kernel.o"],
            [environment.variables.get("CXX") or "c++", "-shared", "kernel.o", *links, "-o", "kernel.so"],
        )
        for words in steps:
            try:
                done = environment.run(words, folder)
            except HostError as error:
                return error.cause or error.summary, ""
            if not done.ok:
                said = (done.err + done.out).strip() or f"ended with {done.code}"
                lost = _LOST.search(said)
                return said, lost[1] if lost else ""
    return "", ""


def _unlinked(environment: Environment, nvcc: Path, lost: str, status: Status) -> Finding:
    """Tell that the toolkit is one to run with; where there is no driver, its library alone is no problem."""
    whole = Path(f"/usr/local/cuda/lib64/lib{lost}.so").exists()
    only_driver = lost == "cuda" and not driver.branch(environment)[0]
    return Finding(
        id="nvcc",
        status="warn" if only_driver else status,
        found=f"{nvcc} compiles, and the linker finds no -l{lost}",
        wanted=f"{nvcc.parent.parent}/lib64 with lib{lost}.so",
        why="what FlashInfer compiles when it first runs is linked to libcudart and libcuda. The vendor's wheels bring "
        "neither under that name; a driver, or a toolkit's packages, do",
        run=(
            *(() if whole else ("sudo apt install cuda-cudart-dev-13-0 cuda-driver-dev-13-0",)),
            "export CUDA_HOME=/usr/local/cuda",
        ),
        failure="run-time-nvcc-missing",
    )


def _ignorant(package: str, what: str, found: str, status: Status) -> Finding:
    old = "Unsupported gpu architecture" in found
    run = ("sudo apt install cuda-toolkit-13-0", "export CUDA_HOME=/usr/local/cuda")
    return Finding(
        id="nvcc",
        status=status,
        found=found,
        wanted="CUDA 12.9 or newer" if old else "an nvcc that compiles",
        why=f"{package} compiles {what} when it first runs" + (", and this nvcc is older than the chip" if old else ""),
        run=run if old else ("sudo apt install gcc g++", *run),
        failure="run-time-nvcc-too-old" if old else "run-time-compiler-missing",
    )


def _jobs(environment: Environment) -> Iterator[Finding]:
    """Tell that nothing bounds FlashInfer's compilers where no kernels come ahead of time."""
    if not environment.has("flashinfer-python") or siblings.ahead(environment):
        return
    if environment.variables.get("MAX_JOBS", "").isdecimal():
        yield Finding(id="jobs", status="ok", found=f"MAX_JOBS={environment.variables['MAX_JOBS']}")
        return
    yield known.finding(
        "run-time-compilation-killed",
        environment,
        check="jobs",
        found="MAX_JOBS isn't set: FlashInfer starts a compiler for every core when it first runs",
        status="warn",
        named={"tool": "nvcc"},
    )


def _compiled(environment: Environment, words: list[str], name: str, text: str) -> str:
    """Return what a compiler says about a source; empty when it made what it was asked for."""
    with environment.scratch() as folder:
        (folder / name).write_text(text)
        made = folder / "made.o"
        try:
            done = environment.run([*words, folder / name, "-o", made], folder)
        except HostError as error:
            return error.cause or error.summary
        if done.ok and made.is_file():
            return ""
        return (done.err + done.out).strip() or f"ended with {done.code}"


def _first(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return next((line for line in lines if re.search(r"(?i)\b(error|fatal)\b", line)), lines[0])
