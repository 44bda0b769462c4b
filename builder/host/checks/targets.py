"""What a build is for: the interpreter and its torch."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from builder import proc
from builder.host import interpreter, programs
from builder.host.checks.compilers import first_error
from builder.host.checks.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from builder.host.checks.finding import Subject

__all__ = ["python", "torch"]

_COMPILE_S = 60.0
_IMPORT_S = 180.0

#: The first torch whose wheel for aarch64 on the public index is the one with CUDA.
_TORCH = (2, 11)

_TORCH_FACTS = """
import importlib.util, json
if importlib.util.find_spec("torch") is None:
    print("null")
else:
    try:
        import torch
        print(json.dumps({"version": torch.__version__, "cuda": torch.version.cuda}))
    except BaseException as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}))
"""


def python(subject: Subject) -> Iterator[Finding]:
    """Whether the interpreter is there, and whether its headers can be included."""
    path = interpreter.find(subject.python, env=subject.env, cwd=subject.cwd)
    facts = interpreter.facts(path, subject.env)
    name = f"{facts['version']} at {path}"
    trouble = _headers(subject, facts)
    if not trouble:
        yield Finding(id="python", status="ok", found=f"{name}, headers work")
        return
    needed = any(recipe.system.headers for recipe in subject.recipes)
    minor = ".".join(facts["version"].split(".")[:2])
    yield Finding(
        id="python",
        status="problem" if needed else "warn",
        found=f"{name}: {trouble}",
        wanted=f"the headers of Python {minor}",
        why="extension modules include Python.h; so does what Triton compiles when a kernel first runs",
        run=(f"sudo apt install python{minor}-dev",),
    )


def _headers(subject: Subject, facts: dict[str, str]) -> str:
    """Return why Python.h can't be included, or an empty text; looked at only where there is no compiler."""
    include, config = Path(facts["include"]), Path(facts["config"])
    lost = [file for file in (include / "Python.h", config) if not file.is_file()]
    if lost:
        return f"no {lost[0]}"
    gxx = programs.find("g++", subject.env)
    if gxx is None:
        return ""
    words: list[str | Path] = [gxx, "-fsyntax-only", "-I", include, "-I", config.parent, "-x", "c++", "-"]
    source = b"#include <Python.h>\n"
    done = proc.capture(words, env=subject.clean_env(), cwd=Path("/"), stdin=source, timeout_s=_COMPILE_S)
    return "" if done.ok else first_error(done.err)


def torch(subject: Subject) -> Iterator[Finding]:
    """Whether the interpreter's torch, where it has one, is the one with CUDA."""
    path = interpreter.find(subject.python, env=subject.env, cwd=subject.cwd)
    words: list[str | Path] = [path, "-I", "-c", _TORCH_FACTS]
    done = proc.capture(words, env=subject.clean_env(), cwd=Path("/"), timeout_s=_IMPORT_S)
    try:
        facts = json.loads(done.out.strip().splitlines()[-1])
    except (ValueError, IndexError):
        facts = {"error": first_error(done.err) or f"python ended with {done.code}"}
    if facts is None:
        yield Finding(id="torch", status="ok", found=f"none in {path}; builds bring their own")
    elif facts.get("cuda"):
        yield Finding(id="torch", status="ok", found=f"{facts['version']} with CUDA {facts['cuda']}")
    else:
        yield _wrong_torch(path, facts)


def _wrong_torch(path: Path, facts: dict[str, str]) -> Finding:
    error = facts.get("error", "")
    version = facts.get("version", "").partition("+")[0]
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    exact = f"torch=={version}" if numbers >= _TORCH else f"torch>={_TORCH[0]}.{_TORCH[1]}"
    if error and "libtorch_cuda.so" not in error:
        found, why = f"can't be imported: {error}", "a build that takes the torch that is there needs it to work"
    else:
        found = f"can't be imported: {error}" if error else f"{facts['version']} is the CPU wheel"
        why = "a later install put the CPU wheel over the one with CUDA; vllm and its like fail on import"
    return Finding(
        id="torch",
        status="problem",
        found=f"{found} ({path})",
        wanted="torch with CUDA, or none",
        why=why,
        run=(f"uv pip install --python {path} --reinstall '{exact}'",),
    )
