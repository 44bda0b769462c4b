"""Finding programs and asking them what they are."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from builder.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["ask", "find", "folders", "is_script", "version_in"]

#: Folders on PATH whose programs only stand before the real ones: compiler caches' masquerades, pyenv's shims.
_STANDINS = frozenset({"ccache", "sccache", "distcc", "icecc", "shims"})

_ASK_S = 20.0

_VERSION = re.compile(r"\d+(?:\.\d+)+")


def folders(env: Mapping[str, str]) -> tuple[str, ...]:
    """Return the folders of PATH in order, without those that hold stand-ins."""
    path = env.get("PATH") or os.defpath
    return tuple(
        folder
        for folder in path.split(os.pathsep)
        if folder and os.path.basename(folder.rstrip("/")) not in _STANDINS  # noqa: PTH119
    )


def find(name: str, env: Mapping[str, str]) -> Path | None:
    """Return the first executable `name` on PATH that is no stand-in, or None."""
    for folder in folders(env):
        candidate = f"{folder}/{name}"
        if os.access(candidate, os.X_OK) and not os.path.isdir(candidate):  # noqa: PTH112  # hit path
            return Path(candidate)
    return None


def is_script(path: Path) -> bool:
    """Whether `path` starts with ``#!``."""
    with path.open("rb") as stream:
        return stream.read(2) == b"#!"


def ask(argv: Sequence[str | os.PathLike[str]], env: Mapping[str, str]) -> str:
    """Return what a program prints, in English, started in the root folder.

    Raises HostError ``tool-broken`` when it fails, and what `proc.capture` raises.
    """
    from builder import proc  # noqa: PLC0415  # the hit path starts no process

    kept = {key: env[key] for key in ("PATH", "HOME", "LD_LIBRARY_PATH", "RUSTUP_HOME", "CARGO_HOME") if key in env}
    done = proc.capture(argv, env={"PATH": os.defpath, **kept, "LC_ALL": "C"}, cwd=Path("/"), timeout_s=_ASK_S)
    if not done.ok:
        last = (done.err or done.out).strip().splitlines()[-1:]
        raise HostError(
            "tool-broken",
            f"{done.argv[0]} gives no answer",
            cause=f"{' '.join(done.argv[:2])} ended with {done.code}: {' '.join(last)}",
            help="reinstall it, or take it off PATH",
            run=("spark-build doctor",),
        )
    return done.out.strip()


def version_in(text: str) -> str:
    """Return the first dotted number in `text`, or its first line where there is none."""
    found = _VERSION.search(text)
    return found[0] if found else text.partition("\n")[0].strip()
