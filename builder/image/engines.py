"""Finding the engine that builds images here: Docker with BuildKit, Podman or Buildah, whichever is there, in that order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.errors import HostError, UsageError
from builder.image import buildah, docker, podman
from builder.image.words import programs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from builder.image.engine import Engine

__all__ = ["NAMES", "find"]

NAMES = ("docker", "podman", "buildah")

_USABLE: dict[str, Callable[[str, Mapping[str, str]], Engine | str]] = {
    "docker": docker.usable,
    "podman": podman.usable,
    "buildah": buildah.usable,
}


_ABSENT = "not installed"


def find(
    env: Mapping[str, str], wanted: str | None = None, *, tell: Callable[[str], None] = lambda _line: None
) -> Engine:
    """Return the engine `wanted`, or the first of `NAMES` that works here; `tell` gets why one that is here was passed over.

    A program that is there and doesn't work is no engine: a Docker client without BuildKit or without its daemon. Several
    programs of one name are tried in the order of the search path.

    Raises HostError ``engine-missing`` with the reasons; UsageError ``engine-unknown``.
    """
    if wanted is not None and wanted not in NAMES:
        raise UsageError("engine-unknown", f"there is no engine {wanted!r}", help="one of: " + ", ".join(NAMES))
    passed: list[str] = []
    for name in NAMES if wanted is None else (wanted,):
        found = programs(name, env)
        if not found:
            passed.append(f"{name}: {_ABSENT}")
        for program in found:
            engine = _USABLE[name](program, env)
            if not isinstance(engine, str):
                for line in passed:
                    if not line.endswith(_ABSENT):
                        tell(f"{line}; {name} {engine.version} is taken")
                return engine
            passed.append(f"{name} ({program}): {engine}")
    raise HostError(
        "engine-missing",
        "no engine that builds images works here" if wanted is None else f"{wanted} doesn't work here",
        cause="\n".join(passed),
        help="install one of them: Podman and Buildah need no daemon; Docker needs its plugin buildx and a running daemon",
        run=("apt-get install buildah", "spark-build image NAME -t TAG --write DIR  # for an engine somewhere else"),
    )
