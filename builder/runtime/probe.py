"""Run by the Python of the environment that is looked at, alone: it tells what only that Python can know.

``python -I probe.py QUESTION [WORD…]`` prints one line of JSON as its last line on stdout. What packages print on the way
goes to stderr. It needs Python 3.8 and nothing else; an exception is an answer, too. A process that dies says nothing.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import platform
import sys
import sysconfig
import traceback

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def python() -> dict[str, object]:
    """Tell what the interpreter is, and what Triton compiles its launchers with (triton/runtime/build.py)."""
    scheme = sysconfig.get_default_scheme() if hasattr(sysconfig, "get_default_scheme") else "posix_prefix"
    scheme = "posix_prefix" if scheme == "posix_local" else scheme
    return {
        "version": platform.python_version(),
        "executable": sys.executable,
        "machine": platform.machine(),
        "include": sysconfig.get_paths(scheme=scheme)["include"],
    }


def torch() -> dict[str, object]:
    """Tell what torch was built for. Nothing here asks the driver."""
    module = importlib.import_module("torch")
    flags = getattr(module._C, "_cuda_getArchFlags", None)  # noqa: SLF001  # torch.cuda.get_arch_list() wants a GPU
    return {
        "version": str(module.__version__),
        "cuda": module.version.cuda,
        "architectures": (flags() or "").split() if flags else [],
    }


def ptxas(number: str) -> dict[str, object]:
    """Tell which assembler Triton starts for the GPU ``121``, as Triton itself finds it out."""
    compiler = importlib.import_module("triton.backends.nvidia.compiler")
    try:
        tool = compiler.get_ptxas(int(number))  # since 3.6
    except TypeError:
        tool = compiler.get_ptxas()
    path, version = (tool.path, tool.version) if hasattr(tool, "path") else tool
    return {"path": str(path), "version": str(version)}


def library(name: str) -> dict[str, object]:
    """Tell whether the loader finds a library, where packages bring none."""
    try:
        ctypes.CDLL(name)
    except OSError:
        return {"loaded": False}
    return {"loaded": True}


def load(*names: str) -> dict[str, object]:
    """Import modules one after the other, and tell what became of each."""
    return {"imported": {name: _imported(name) for name in names}}


def _imported(name: str) -> dict[str, str]:
    try:
        importlib.import_module(name)
    except BaseException as error:  # noqa: BLE001  # SystemExit is an answer, too
        return _failed(error)
    return {}


def _failed(error: BaseException) -> dict[str, str]:
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return {"error": f"{type(error).__name__}: {error}", "trace": text[-20_000:]}


QUESTIONS: dict[str, Callable[..., dict[str, object]]] = {
    "python": python,
    "torch": torch,
    "ptxas": ptxas,
    "library": library,
    "import": load,
}


def main() -> None:
    """Answer the question on the command line."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        told = QUESTIONS[sys.argv[1]](*sys.argv[2:])
    except BaseException as error:  # noqa: BLE001  # SystemExit is an answer, too
        told = dict(_failed(error))
    answers.write("\n" + json.dumps(told) + "\n")
    answers.flush()
    os._exit(0)  # what packages do at the end of a process is of no interest, and may crash


if __name__ == "__main__":
    main()
