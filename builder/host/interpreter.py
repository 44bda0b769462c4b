"""The Python that wheels are built for."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from builder.errors import HostError
from builder.host import programs
from builder.host.digests import combined
from builder.stages import Interpreter, Tool

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from builder.host.digests import Digests

__all__ = ["facts", "find", "headers", "inspect"]

_VERSION = re.compile(r"(?:cp|python)?(\d+)\.(\d+)(t?)")

#: Run isolated and without site: no .pth file of an environment may take part in the answer.
_QUESTION = """
import json, sys, sysconfig
var = sysconfig.get_config_var
name = sysconfig._get_sysconfigdata_name()
print(json.dumps({
    "base": getattr(sys, "_base_executable", "") or sys.executable,
    "version": ".".join(map(str, sys.version_info[:3])) + ("" if sys.version_info[3] == "final" else
        sys.version_info[3][0] + str(sys.version_info[4])),
    "implementation": sys.implementation.name,
    "threads": "t" if var("Py_GIL_DISABLED") else "",
    "library": (var("LIBDIR") or "") + "/" + (var("INSTSONAME") or "") if var("Py_ENABLE_SHARED") else "",
    "include": var("INCLUDEPY") or "",
    "config": sysconfig.get_config_h_filename(),
    "settings": getattr(__import__(name), "__file__", ""),
}))
"""


def find(asked: str | None, *, env: Mapping[str, str], cwd: Path | None = None) -> Path:
    """Return the interpreter that `asked` names: a path, a folder with one (a venv), or a version like ``3.12``.

    Without a name it is the interpreter below the one that runs this, never the venv that spark-build lives in.
    Raises HostError ``python-missing``.
    """
    if asked is None:
        return Path(getattr(sys, "_base_executable", None) or sys.executable)
    wanted = _VERSION.fullmatch(asked)
    if wanted:
        name = f"python{wanted[1]}.{wanted[2]}{wanted[3]}"
        for candidate in _candidates(name, env):
            if os.access(candidate, os.X_OK) and not programs.is_script(candidate):
                return candidate
        raise _missing(
            f"no Python {asked} on this machine", f"looked for {name} on PATH and among those of uv and pyenv", name
        )
    named = Path(os.path.expanduser(asked))  # noqa: PTH111  # `asked` may come from the configuration
    if "/" not in asked:
        found = programs.find(asked, env)
        if found is None:
            raise _missing(f"no program {asked} on PATH", "wanted an interpreter's path, or a version such as 3.12", "")
        return found
    path = (cwd or Path.cwd()) / named
    if path.is_dir():
        path = path / "bin" / "python"
    if not os.access(path, os.X_OK):
        raise _missing(f"no interpreter at {path}", "the file isn't there or isn't executable", "")
    return path


def _missing(summary: str, cause: str, name: str) -> HostError:
    package = f"sudo apt install {name} {name}-dev" if name else "sudo apt install python3 python3-dev"
    return HostError(
        "python-missing",
        summary,
        cause=cause,
        help="install it, or name another one with --python",
        run=(package, "spark-build doctor"),
    )


def _candidates(name: str, env: Mapping[str, str]) -> Iterator[Path]:
    for folder in programs.folders(env):
        yield Path(folder, name)
    home = Path(env.get("HOME") or "/")
    data = Path(env.get("XDG_DATA_HOME") or home / ".local/share")
    number = name.removeprefix("python")
    for root, pattern in (
        (Path(env.get("UV_PYTHON_INSTALL_DIR") or data / "uv/python"), f"cpython-{number}.*/bin/{name}"),
        (Path(env.get("PYENV_ROOT") or home / ".pyenv") / "versions", f"{number}.*/bin/{name}"),
    ):
        yield from sorted(root.glob(pattern), key=_by_patch, reverse=True)


def _by_patch(path: Path) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", path.parent.parent.name)]


def inspect(path: Path, digests: Digests, env: Mapping[str, str]) -> Interpreter:
    """Return what `path` is; its digest covers executable and library.

    Raises HostError ``python-missing`` or ``tool-broken``.
    """
    told = _known_facts(path, digests, env)
    parts = [("executable", digests.sha256(Path(told["base"])))]
    if told["library"] and os.path.exists(told["library"]):  # noqa: PTH110  # hit path
        parts.append(("library", digests.sha256(Path(told["library"]))))
    major, minor = told["version"].split(".")[:2]
    brand = {"cpython": "cp", "pypy": "pp"}.get(told["implementation"], told["implementation"])
    return Interpreter(
        path=str(path),
        version=told["version"],
        tag=f"{brand}{major}{minor}{told['threads']}",
        digest=combined(parts),
        headers=_has_headers(told),
    )


def headers(path: Path, digests: Digests, env: Mapping[str, str]) -> Tool:
    """Return what extension modules are compiled against: headers, pyconfig.h, and the flags that `path` was built with."""
    told = _known_facts(path, digests, env)
    parts = []
    if _has_headers(told):
        parts.append(("include", digests.tree(Path(told["include"]))))
        parts.append(("config", digests.sha256(Path(told["config"]))))
    if told["settings"]:
        parts.append(("settings", digests.sha256(Path(told["settings"]))))
    return Tool(name="python-headers", version=told["version"], digest=combined(parts))


def _has_headers(told: Mapping[str, str]) -> bool:
    return all(os.path.exists(file) for file in (f"{told['include']}/Python.h", told["config"]))  # noqa: PTH110  # hit path


def _known_facts(path: Path, digests: Digests, env: Mapping[str, str]) -> dict[str, str]:
    """Ask the interpreter, once for the same bytes in the same place.

    A script in front of it (a shim) may choose another one each time, so it is asked each time.
    """
    if programs.is_script(path):
        return facts(path, env)
    settings = path.parent.parent / "pyvenv.cfg"
    venv = settings.read_text(errors="replace") if settings.is_file() else ""
    key = f"python {path} {os.path.realpath(path)} {digests.sha256(path)} {venv}"
    found: dict[str, str] = json.loads(digests.answer(key, lambda: json.dumps(facts(path, env))))
    return found


def facts(path: Path, env: Mapping[str, str]) -> dict[str, str]:
    """Return what an interpreter says of itself: version, base executable, shared library, folder of headers."""
    found: dict[str, str] = json.loads(programs.ask([path, "-I", "-S", "-c", _QUESTION], env))
    return found
