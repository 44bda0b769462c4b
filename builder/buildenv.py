"""Build environments: resolved once to exact versions and hashes, then filled from that and nothing else. uv does both."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder import proc
from builder.digest import sha256_bytes
from builder.errors import HostError, RecipeError, SourceError
from builder.stages import EnvLock, Locked

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from builder.digest import Json

__all__ = ["Backend", "backend", "create", "normalised", "requires", "resolve", "torch_facts"]

#: What PEP 517 prescribes for a project without a `build-system` table.
DEFAULT_REQUIRES = ("setuptools >= 40.8.0",)
DEFAULT_BACKEND = "setuptools.build_meta:__legacy__"

_PASSED = re.compile(r"(PATH|HOME|LANG|XDG_\w+|UV_\w+|SSL_CERT_\w+|NETRC|\w*_proxy|\w*_PROXY)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """A PEP 517 backend: the object's name and in-tree folders to import it from."""

    name: str
    path: tuple[str, ...]


def normalised(requirement: str) -> str:
    """Return the project that a requirement names, as PEP 503 compares it."""
    found = re.match(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)", requirement)
    return re.sub(r"[-_.]+", "-", found[1]).lower() if found else ""


def backend(pyproject: bytes | None) -> Backend:
    """Return the backend that `pyproject` names, or the default one (PEP 517)."""
    table = _build_system(pyproject)
    return Backend(name=table.get("build-backend", DEFAULT_BACKEND), path=tuple(table.get("backend-path", ())))


def requires(
    pyproject: bytes | None, *, add: Sequence[str], remove: Sequence[str], pin_torch: str | None
) -> tuple[str, ...]:
    """Return what the build environment has to hold: the project's static requirements (PEP 518), changed by the recipe."""
    gone = {normalised(name) for name in remove}
    if pin_torch is not None:
        gone.add("torch")
    own = _build_system(pyproject).get("requires", DEFAULT_REQUIRES)
    kept = [text for text in own if normalised(text) not in gone]
    torch = [f"torch=={pin_torch}"] if pin_torch is not None else []
    return tuple(dict.fromkeys([*kept, *torch, *add]))


def _build_system(pyproject: bytes | None) -> dict[str, Any]:
    if pyproject is None:
        return {}
    import tomllib  # noqa: PLC0415

    try:
        table = tomllib.loads(pyproject.decode()).get("build-system", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError("pyproject", "the source's pyproject.toml can't be read", cause=str(error)) from error
    if not isinstance(table, dict) or not all(isinstance(item, str) for item in table.get("requires", [])):
        raise RecipeError("pyproject", "the source's pyproject.toml has a build-system table that is no such table")
    return table


def resolve(  # a lock depends on all of it
    requirements: Sequence[str],
    *,
    output: str,
    constraints: Sequence[str],
    python: str,
    index_url: str | None,
    env: Mapping[str, str],
    scratch: Path,
    torch: str | None,
) -> EnvLock:
    """Return exact versions with hashes for `requirements`, for the interpreter `python` on this machine.

    Raises RecipeError ``requirement-conflict``, ``torch-by-accident``; SourceError ``index-unreachable``.
    """
    if not requirements:
        return EnvLock(output=output, packages=(), text="")
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".lock-", dir=scratch) as folder:
        wanted, bounds = Path(folder, "requirements.in"), Path(folder, "constraints.txt")
        wanted.write_text("".join(f"{line}\n" for line in requirements))
        bounds.write_text("".join(f"{line}\n" for line in constraints))
        words = ["pip", "compile", "--quiet", "--no-header", "--no-annotate", "--generate-hashes", "--no-strip-extras"]
        words += ["--python", python, "--constraints", str(bounds), *_index(index_url), str(wanted)]
        done = _uv(words, env)
    if not done.ok:
        raise _retold(done, output)
    packages = tuple(_packages(done.out))
    if torch is None and any(one.name == "torch" for one in packages):
        raise RecipeError(
            "torch-by-accident",
            f"the build requirements of {output} bring a torch of their own",
            cause=", ".join(requirements),
            help="say what is meant: build.torch = 'existing' or 'pinned', or take it out with build.requires-remove",
        )
    return EnvLock(output=output, packages=packages, text=done.out)


def _packages(text: str) -> list[Locked]:
    found = []
    for block in re.split(r"\n(?=\S)", text):
        head = re.match(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", block)
        if head:
            hashes = tuple(sorted(re.findall(r"--hash=sha256:([0-9a-f]{64})", block)))
            found.append(Locked(name=normalised(head[1]), version=head[2], sha256=hashes))
    return sorted(found, key=lambda one: one.name)


def create(  # noqa: PLR0913  # what it is made from, where, how, and what is told
    lock: EnvLock,
    venv: Path,
    *,
    inside: Path,
    python: str,
    index_url: str | None,
    env: Mapping[str, str],
    offline: bool,
    log: Path,
    on_line: Callable[[str], None],
) -> None:
    """Leave an environment with exactly what `lock` holds at `venv`; it works under the path `inside`, too.

    One that an earlier attempt finished for the same lock is taken as it is. Files are copies: a build may write into them,
    and uv's cache must not notice. Raises SourceError ``requirement-offline``, ``requirement-hash``, ``index-unreachable``.
    """
    stamp, wanted = venv / "spark-build.lock", sha256_bytes(f"{python}\n{inside}\n{lock.text}".encode())
    if stamp.exists() and stamp.read_text() == wanted:
        return
    shutil.rmtree(venv, ignore_errors=True)
    venv.parent.mkdir(parents=True, exist_ok=True)
    _must(["venv", "--quiet", "--no-project", "--python", python, str(venv)], env, log, on_line, lock.output)
    if lock.packages:
        file = venv / "lock.txt"
        file.write_text(lock.text)
        words = ["pip", "sync", "--require-hashes", "--link-mode", "copy", "--python", str(venv / "bin" / "python")]
        words += ["--offline"] if offline else []
        _must([*words, *_index(index_url), str(file)], env, log, on_line, lock.output)
    _move_scripts(venv, inside)
    stamp.write_text(wanted)


def _must(words: list[str], env: Mapping[str, str], log: Path, on_line: Callable[[str], None], output: str) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []

    def line(text: str) -> None:
        lines.append(text)
        on_line(text)

    done = proc.run([_uv_path(), *words], env=_environment(env), cwd=log.parent, log=log, on_line=line)
    if not done.ok:
        raise _retold(proc.Finished(argv=done.argv, code=done.code, err="\n".join(lines)), output)


def _move_scripts(venv: Path, inside: Path) -> None:
    """Let console scripts and activation name the path at which the build sees the environment."""
    old, new = os.fsencode(venv), os.fsencode(inside)
    for script in (venv / "bin").iterdir():
        if script.is_symlink() or not script.is_file():
            continue
        text = script.read_bytes()
        if not text.startswith(b"\x7fELF") and old in text:
            script.write_bytes(text.replace(old, new))


def _index(index_url: str | None) -> list[str]:
    return ["--default-index", index_url] if index_url else []


def _uv(words: Sequence[str], env: Mapping[str, str]) -> proc.Finished:
    return proc.capture([_uv_path(), *words], env=_environment(env))


def _uv_path() -> str:
    import uv  # noqa: PLC0415

    return uv.find_uv_bin()


def _environment(env: Mapping[str, str]) -> dict[str, str]:
    kept = {key: value for key, value in env.items() if _PASSED.fullmatch(key)}
    return {**kept, "NO_COLOR": "1", "UV_NO_PROGRESS": "1", "UV_PYTHON_DOWNLOADS": "never"}


def _retold(done: proc.Finished, output: str) -> SourceError | RecipeError | HostError:
    """Return uv's failure in our words, with its own as the cause."""
    text = done.err.strip()
    if re.search(r"hash mismatch|Hash mismatch|hashes", text):
        return SourceError("requirement-hash", f"a build requirement of {output} isn't what was locked", cause=text)
    if re.search(r"network was disabled|offline|--offline", text):
        return SourceError(
            "requirement-offline",
            f"build requirements of {output} aren't at hand, and --offline forbids to fetch them",
            cause=text,
            run=("spark-build fetch NAME",),
        )
    if re.search(r"error sending request|dns error|[Cc]onnect|timed out|Failed to fetch", text):
        return SourceError("index-unreachable", "the package index can't be reached", cause=text)
    if re.search(r"No space left", text):
        return HostError("disk-full", "no space left for the build environment", cause=text, run=("spark-build gc",))
    if re.search(r"[Nn]o interpreter|Python interpreter", text):
        return HostError("python-missing", "uv doesn't find the interpreter", cause=text, run=("spark-build doctor",))
    return RecipeError(
        "requirement-conflict",
        f"the build requirements of {output} can't be met together",
        cause=text,
        help="build.requires-pin, -add and -remove of the recipe change them",
    )


_FACTS = """
import json
try:
    import torch
except ImportError:
    print("null")
else:
    print(json.dumps({"version": torch.__version__, "cuda": torch.version.cuda,
                      "cxx11abi": bool(torch.compiled_with_cxx11_abi())}))
"""


def torch_facts(python: str, env: Mapping[str, str]) -> dict[str, Json] | None:
    """Return version, CUDA and C++ ABI of the torch of an interpreter, or None where it has none."""
    import json  # noqa: PLC0415

    done = proc.capture([python, "-I", "-c", _FACTS], env=_environment(env), timeout_s=120)
    if not done.ok:
        raise HostError("torch-broken", f"torch of {python} can't be imported", cause=done.err.strip()[-2000:])
    facts: dict[str, Json] | None = json.loads(done.out)
    return facts
