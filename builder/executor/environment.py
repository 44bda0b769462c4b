"""The environment of a build, made from a list: nothing of the caller's reaches it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

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

    PATH holds the build environment, the toolkit, the folders of the programs that the fingerprint names, and the
    system's folders. Nothing here but `wanted` counts in the fingerprint. Raises RecipeError for a ``${name}`` that isn't
    in `values`.
    """
    venv = space.inside / "venv" / output
    cuda = host.cuda.path if host.cuda else None
    named = [os.path.dirname(tool.path) for tool in host.tools if tool.path]  # noqa: PTH120  # text
    path = [str(venv / "bin"), *([f"{cuda}/bin"] if cuda else []), *named, *SYSTEM_PATH]
    env = {
        "PATH": os.pathsep.join(dict.fromkeys(path)),
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
