"""The machine at hand: what changes a wheel's bytes (toolchain, interpreter), and what bounds a build (memory, cores, disk).

A probe looks only at what a recipe names, so that a pure-Python recipe doesn't miss because of a new clang. On a hit it
starts no process and reads no big file (see `builder.host.digests`).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Self

from builder.host import compilers, interpreter, memory, toolkit
from builder.host.digests import Digests
from builder.stages import Host

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from builder.recipe.model import System

__all__ = ["Machine"]


class Machine:
    """The machine as one command sees it: what was looked at once isn't looked at again. Use it as a context.

    `env` gives PATH, HOME and CUDA_HOME; digests are remembered below `cache`.
    """

    def __init__(self, *, env: Mapping[str, str], cache: Path) -> None:
        self._env = env
        self._digests = Digests(cache)
        self._cores = memory.cores()
        self._found: dict[tuple[System, str | None, str | None], Host] = {}
        self.memory = memory.memory()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Remember the digests that are new."""
        self._digests.__exit__(*error)

    def probe(self, system: System, *, python: str | None, cuda: str | None) -> Host:
        """Return what this machine has of what `system` names.

        `python` is a path or a version (``3.12``), `cuda` a folder or a version. What is missing is left out:
        `floors.check` judges. Raises HostError ``python-missing`` or ``cuda-missing`` for what was asked for by name,
        ``tool-broken`` for a program that gives no answer.
        """
        key = (system, python, cuda)
        if key not in self._found:
            self._found[key] = self._probe(system, python, cuda)
        return self._found[key]

    def digest(self, path: Path) -> str:
        """Return the digest of a file, or of a folder's whole tree."""
        return self._digests.tree(path) if path.is_dir() else self._digests.sha256(path)

    def _probe(self, system: System, python: str | None, cuda: str | None) -> Host:
        digests, env = self._digests, self._env
        found = interpreter.find(python, env=env)
        tools = compilers.probe(system, digests, env)
        if compilers.wants_compilers(system):
            tools = (*tools, interpreter.headers(found, digests, env))
        root = toolkit.find(cuda, env=env) if system.cuda else None
        return Host(
            machine=os.uname().machine,
            libc=compilers.libc(),
            interpreter=interpreter.inspect(found, digests, env),
            tools=tools,
            cuda=toolkit.inspect(root, digests, env) if root else None,
            cores=self._cores,
            memory_bytes=self.memory.total_bytes,
        )
