"""The machine at hand: what changes a wheel's bytes (toolchain, interpreter), and what bounds a build (memory, cores, disk).

`probe` looks only at what a recipe names, so that a pure-Python recipe doesn't miss because of a new clang. On a hit it
starts no process and reads no big file (see `builder.host.digests`).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from builder.host import compilers, interpreter, memory, toolkit
from builder.host.digests import Digests
from builder.stages import Host

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from builder.recipe.model import System

__all__ = ["probe"]


def probe(system: System, *, python: str | None, cuda: str | None, env: Mapping[str, str], cache: Path) -> Host:
    """Return what this machine has of what `system` names.

    `python` is a path or a version (``3.12``), `cuda` a folder or a version; `env` gives PATH, HOME and CUDA_HOME; digests
    are remembered below `cache`. What is missing is left out: `floors.check` judges. Raises HostError ``python-missing``
    or ``cuda-missing`` for what was asked for by name, ``tool-broken`` for a program that gives no answer.
    """
    with Digests(cache) as digests:
        found = interpreter.find(python, env=env)
        tools = compilers.probe(system, digests, env)
        root = toolkit.find(cuda, env=env) if system.cuda else None
        return Host(
            machine=os.uname().machine,
            libc=compilers.libc(),
            interpreter=interpreter.inspect(found, digests, env, compiles=compilers.wants_compilers(system)),
            tools=tools,
            cuda=toolkit.inspect(root, digests, env) if root else None,
            cores=memory.cores(),
            memory_bytes=memory.memory().total_bytes,
        )
