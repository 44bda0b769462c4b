"""The CUDA toolkit: where it is, which version, and the digest of all that a compiler run may read of it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from builder.errors import HostError
from builder.host import programs
from builder.stages import Tool

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from builder.host.digests import Digests

__all__ = ["find", "inspect", "root_of", "version_in"]

_PREFIX = Path("/usr/local")

_VERSION = re.compile(r"\d+(\.\d+)*")

#: What no compiler reads: profilers, debuggers' data, papers, what the package manager left. Unknown names count.
_IDLE = re.compile(
    r"nsight.*|libnvvp|doc|docs|share|compute-sanitizer|gds.*|dist-info|version\.json|.*\.(txt|md|pdf)|README.*"
)

_NVCC_VERSION = re.compile(r"\bV(\d+\.\d+\.\d+)\b")
_SCRIPT_PATH = re.compile(r"(/[^\s\"'$;|&<>()]+/nvcc)\b")
_HERE = re.compile(r"^#\$ _HERE_=(.+)$", re.MULTILINE)


def find(asked: str | None, *, env: Mapping[str, str], prefix: Path = _PREFIX) -> Path | None:
    """Return the toolkit's folder: what `asked` names (a folder or a version), CUDA_HOME, that of nvcc on PATH,
    or ``/usr/local/cuda``; None when there is none.

    Raises HostError ``cuda-missing`` when `asked` or CUDA_HOME name something that is no toolkit.
    """  # noqa: D205
    if asked and _VERSION.fullmatch(asked):
        return _by_version(asked, prefix)
    for name, value in (("--cuda", asked), ("CUDA_HOME", env.get("CUDA_HOME"))):
        if value:
            root = Path(os.path.realpath(value))
            if not _is_toolkit(root):
                raise _missing(f"{name} {value} is no CUDA toolkit", f"no bin/nvcc below {root}")
            return root
    nvcc = programs.find("nvcc", env)
    if nvcc is not None and (found := root_of(nvcc, env)) is not None:
        return found
    usual = prefix / "cuda"
    return usual.resolve() if _is_toolkit(usual) else None


def root_of(nvcc: Path, env: Mapping[str, str]) -> Path | None:
    """Return the folder of the toolkit that `nvcc` belongs to, also when it is a script that starts the real one.

    None for a distribution's split package (nvcc in ``/usr/bin`` itself), which has no folder of its own.
    """
    real = Path(os.path.realpath(nvcc))
    if programs.is_script(real):
        named = {os.path.realpath(path) for path in _SCRIPT_PATH.findall(real.read_text(errors="replace"))}
        binaries = [path for path in named if os.access(path, os.X_OK) and not programs.is_script(Path(path))]
        real = Path(binaries[0] if len(binaries) == 1 else os.path.realpath(_told(nvcc, env)))
    root = real.parent.parent
    return root if _is_toolkit(root) else None


def _told(nvcc: Path, env: Mapping[str, str]) -> Path:
    """Return the real nvcc as it names itself in a dry run; for scripts that can't be read at a glance."""
    from builder import proc  # noqa: PLC0415  # the hit path starts no process

    done = proc.capture(
        [nvcc, "--dryrun", "-x", "cu", "/dev/null"],
        env={"PATH": env.get("PATH") or os.defpath, "LC_ALL": "C"},
        cwd=Path("/"),
        timeout_s=20,
    )
    here = _HERE.search(done.err + done.out)
    return Path(here[1].strip(), "nvcc") if here else nvcc


def _by_version(asked: str, prefix: Path) -> Path:
    """Return the toolkit whose folder is called by the version, or the newest whose version begins with it."""
    at_hand = {path.name.removeprefix("cuda-"): path for path in _installed(prefix)}
    fitting = [
        version for version in at_hand if f"{version}.".startswith(f"{asked}.") or f"{asked}.".startswith(f"{version}.")
    ]
    if not fitting:
        known = ", ".join(sorted(at_hand)) or "none"
        raise _missing(f"no CUDA toolkit {asked}", f"below {prefix} there are: {known}")
    return at_hand[max(fitting, key=lambda version: [int(part) for part in version.split(".")])].resolve()


def _installed(prefix: Path) -> Iterator[Path]:
    for path in prefix.glob("cuda-*"):
        if _VERSION.fullmatch(path.name.removeprefix("cuda-")) and _is_toolkit(path):
            yield path


def _is_toolkit(root: Path) -> bool:
    return os.access(root / "bin" / "nvcc", os.X_OK) and root != Path("/usr") and root != Path("/")


def _missing(summary: str, cause: str) -> HostError:
    return HostError(
        "cuda-missing",
        summary,
        cause=cause,
        help="name a toolkit's folder or version with --cuda",
        run=("sudo apt install cuda-toolkit-13-0", "spark-build doctor"),
    )


def inspect(root: Path, digests: Digests, env: Mapping[str, str]) -> Tool:
    """Return the toolkit in `root`: version of its nvcc (``13.0.88``) and digest of its tree."""
    nvcc = root / "bin" / "nvcc"
    text = digests.answer(f"nvcc --version {digests.sha256(nvcc)}", lambda: programs.ask([nvcc, "--version"], env))
    return Tool(
        name="cuda",
        version=version_in(text),
        path=str(root),
        digest=digests.tree(root, skip=lambda name: _IDLE.fullmatch(name) is not None),
    )


def version_in(text: str) -> str:
    """Return the version (``13.0.88``) from what ``nvcc --version`` prints."""
    version = _NVCC_VERSION.search(text)
    return version[1] if version else programs.version_in(text)
