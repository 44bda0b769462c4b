"""The environment of a build, made from a list: nothing of the caller's reaches it."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from builder.host.programs import is_script
from builder.recipe.interpolate import expand

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from builder.stages import Host, Workspace

__all__ = ["SYSTEM_PATH", "make"]

#: Where a distribution's own programs lie.
SYSTEM_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


def make(  # each is a source of variables
    space: Workspace,
    *,
    output: str,
    wanted: Mapping[str, str],
    values: Mapping[str, str],
    jobs: int,
    jobs_env: Sequence[str],
    epoch: int,
    host: Host,
) -> dict[str, str]:
    """Return the variables of one output's build. `wanted` (recipe, site, user) wins over what is set here.

    PATH holds the build environment, a folder of links to exactly the programs that the fingerprint names, the toolkit, and
    the system's folders. Nothing here but `wanted` counts in the fingerprint. Raises RecipeError for a ``${name}`` that
    isn't in `values`.
    """
    venv = space.inside / "venv" / output
    cuda = host.cuda.path if host.cuda else None
    named = _link_programs(space.root / "bin", host)
    path = [str(venv / "bin"), str(space.inside / "bin"), *([f"{cuda}/bin"] if cuda else []), *SYSTEM_PATH]
    env = {
        "PATH": os.pathsep.join(path),
        **{key: name for key, name in (("CC", "gcc"), ("CXX", "g++")) if name in named},
        "VIRTUAL_ENV": str(venv),
        "HOME": str(space.inside / "home"),
        "TMPDIR": str(space.inside / "tmp"),
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "TERM": "dumb",
        "SOURCE_DATE_EPOCH": str(epoch),
        "PYTHONHASHSEED": "0",
        "PYTHONNOUSERSITE": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        # One thread a compiler: a job is what the memory estimate is about.
        "NVCC_THREADS": "1",
        # Installers inside a build fail at once and by name, instead of waiting for a network that isn't there.
        "PIP_NO_INDEX": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "UV_OFFLINE": "1",
        "CARGO_NET_OFFLINE": "true",
        "GIT_TERMINAL_PROMPT": "0",
        **dict.fromkeys(jobs_env, str(jobs)),
    }
    if cuda:
        env |= {"CUDA_HOME": cuda, "CUDA_PATH": cuda, "CUDACXX": str(Path(cuda) / "bin" / "nvcc")}
    return env | {key: expand(text, values) for key, text in wanted.items()}


def _link_programs(folder: Path, host: Host) -> frozenset[str]:
    """Leave links to the programs of `host` in `folder` and return their names; ``cc`` and ``c++`` lead to the same ones.

    Their own folders on PATH would bring in others of the same names that nobody looked at.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    paths = {tool.name: tool.path for tool in host.tools if tool.path and os.access(tool.path, os.X_OK)}
    for name, other in (("cc", "gcc"), ("c++", "g++")):
        if other in paths:
            paths.setdefault(name, paths[other])
    for name, path in paths.items():
        if is_script(Path(path)):  # it may look for its own folder by the name under which it is started
            (folder / name).write_text(f'#!/bin/sh\nexec {shlex.quote(path)} "$@"\n')
            (folder / name).chmod(0o755)
        else:
            (folder / name).symlink_to(path)
    return frozenset(paths)
