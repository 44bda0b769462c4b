"""Build environments: resolved once to exact versions and hashes, then filled from that and nothing else. uv does both.

Wheels only: building a requirement would run code that nothing pins. uv reads the user's own settings (``uv.toml``, its
index and cache variables), but none of a project that the caller happens to stand in.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder import proc
from builder.digest import sha256_bytes
from builder.errors import HostError, RecipeError, SourceError
from builder.stages import EnvLock, Locked
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from builder.digest import Json
    from builder.errors import SparkError

__all__ = ["Backend", "backend", "create", "normalised", "requires", "resolve", "torch_facts"]

#: What PEP 517 prescribes for a project without a `build-system` table.
DEFAULT_REQUIRES = ("setuptools >= 40.8.0",)
DEFAULT_BACKEND = "setuptools.build_meta:__legacy__"

#: Where packages come from and how. Not what changes what uv does: which Python, which links, which constraints.
_PASSED = re.compile(
    r"(PATH|HOME|LANG|XDG_\w+|SSL_CERT_\w+|NETRC|\w*_proxy|\w*_PROXY|"
    r"UV_(CACHE_DIR|CONFIG_FILE|NO_CONFIG|(DEFAULT_|EXTRA_)?INDEX(_\w+)?|FIND_LINKS|KEYRING_PROVIDER|NATIVE_TLS|"
    r"SYSTEM_CERTS|INSECURE_HOST|HTTP_\w+|CONCURRENT_\w+|EXCLUDE_NEWER))"
)


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
        table: Any = tomllib.loads(pyproject.decode()).get("build-system", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(
            "pyproject",
            "the source's pyproject.toml can't be read",
            cause=str(error),
            help="patch it, or take another source",
        ) from error
    lists = (table.get("requires", []), table.get("backend-path", [])) if isinstance(table, dict) else (None,)
    good = all(isinstance(one, list) and all(isinstance(item, str) for item in one) for one in lists)
    if not good or not isinstance(table.get("build-backend", ""), str):
        raise RecipeError(
            "pyproject",
            "the source's pyproject.toml has a build-system table that is no such table",
            cause=str(table)[:500],
            help="patch it, or take another source",
        )
    known: dict[str, Any] = table
    return known


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

    Only wheels are taken. Raises RecipeError ``requirement-conflict``, ``requirement-no-wheel``, ``requirement-wrong``,
    ``requirement-url`` or ``torch-by-accident``; SourceError ``requirement-missing`` or ``index-unreachable``; HostError
    ``python-missing``.
    """
    if not requirements:
        return EnvLock(output=output, packages=(), text="")
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".lock-", dir=scratch) as folder:
        wanted, bounds = Path(folder, "requirements.in"), Path(folder, "constraints.txt")
        wanted.write_text("".join(f"{line}\n" for line in requirements))
        bounds.write_text("".join(f"{line}\n" for line in constraints))
        words = ["pip", "compile", "--quiet", "--no-header", "--no-annotate", "--generate-hashes", "--no-strip-extras"]
        words += ["--only-binary", ":all:", "--python", python, "--constraints", str(bounds), str(wanted)]
        done = proc.capture([_uv_path(), *words], env=_environment(env, index_url), cwd=Path("/"))
    if not done.ok:
        raise _retold(done.err, output, locked=False)
    packages = tuple(_packages(done.out, output))
    if torch is None and any(one.name == "torch" for one in packages):
        raise RecipeError(
            "torch-by-accident",
            f"the build requirements of {output} bring a torch of their own",
            cause=f"{', '.join(requirements)} resolve to torch {_version(packages, 'torch')}",
            help="say what is meant: build.torch = 'existing' or 'pinned', or take it out with build.requires-remove",
        )
    return EnvLock(output=output, packages=packages, text=done.out)


def _version(packages: Sequence[Locked], name: str) -> str:
    return next(one.version for one in packages if one.name == name)


def _packages(text: str, output: str) -> list[Locked]:
    found = []
    for block in re.split(r"\n(?=\S)", text.strip()):
        head = re.match(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", block)
        hashes = tuple(sorted(re.findall(r"--hash=sha256:([0-9a-f]{64})", block)))
        if not head or not hashes:
            raise RecipeError(
                "requirement-url",
                f"a build requirement of {output} has no version and hash on an index",
                cause=proc.scrubbed(block.splitlines()[0].rstrip(" \\")) if block else "uv printed nothing",
                help="name a released version instead: build.requires-remove and build.requires-add of the recipe",
            )
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
    wheels: Sequence[Path] = (),
) -> None:
    """Leave an environment with exactly what `lock` holds, and `wheels`, at `venv`; it works under the path `inside`, too.

    One that an earlier attempt finished for the same lock is taken as it is. Files are copies: a build may write into them,
    and uv's cache must not notice. Raises SourceError ``requirement-offline``, ``requirement-hash``, ``requirement-gone``,
    ``index-unreachable``; HostError ``python-missing``, ``disk-full``.
    """
    stamp, wanted = (
        venv / "spark-build.lock",
        sha256_bytes("\n".join([python, str(inside), lock.text, *map(str, wheels)]).encode()),
    )
    if stamp.exists() and stamp.read_text() == wanted:
        return
    shutil.rmtree(venv, ignore_errors=True)
    venv.parent.mkdir(parents=True, exist_ok=True)
    uv = _environment(env, index_url)
    _must(["venv", "--quiet", "--no-project", "--python", python, str(venv)], uv, log, on_line, lock.output)
    if lock.packages:
        file = venv / "lock.txt"
        file.write_text(lock.text)
        words = ["pip", "sync", "--require-hashes", "--link-mode", "copy", "--python", str(venv / "bin" / "python")]
        words += ["--only-binary", ":all:", *(["--offline"] if offline else []), str(file)]
        _must(words, uv, log, on_line, lock.output)
    if wheels:  # our own, of recipes that this one builds on: their dependencies are the lock's business
        words = ["pip", "install", "--no-deps", "--no-index", "--offline", "--link-mode", "copy"]
        words += ["--python", str(venv / "bin" / "python"), *map(str, wheels)]
        _must(words, uv, log, on_line, lock.output)
    _move_scripts(venv, inside)
    stamp.write_text(wanted)


def _must(words: list[str], env: Mapping[str, str], log: Path, on_line: Callable[[str], None], output: str) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []

    def line(text: str) -> None:
        lines.append(text)
        on_line(text)

    done = proc.run([_uv_path(), *words], env=env, cwd=Path("/"), log=log, on_line=line)
    if not done.ok:
        raise _retold("\n".join(lines), output, locked=True, offline="--offline" in words)


def _move_scripts(venv: Path, inside: Path) -> None:
    """Let console scripts and activation name the path at which the build sees the environment."""
    old, new = os.fsencode(venv), os.fsencode(inside)
    for script in (venv / "bin").iterdir():
        if script.is_symlink() or not script.is_file():
            continue
        text = script.read_bytes()
        if not text.startswith(b"\x7fELF") and old in text:
            script.write_bytes(text.replace(old, new))


def _uv_path() -> str:
    import uv  # noqa: PLC0415

    return uv.find_uv_bin()


def _environment(env: Mapping[str, str], index_url: str | None = None) -> dict[str, str]:
    """Return uv's environment; the index goes in here, since others see command lines, and it may hold a login."""
    kept = {key: value for key, value in env.items() if _PASSED.fullmatch(key)}
    kept |= {"UV_DEFAULT_INDEX": index_url} if index_url else {}
    return {**kept, "NO_COLOR": "1", "UV_NO_PROGRESS": "1", "UV_PYTHON_DOWNLOADS": "never"}


#: What uv says, and what that is: pattern, error, slug, summary. The first that matches counts.
_SAYINGS: tuple[tuple[str, type[SparkError], str, str], ...] = (
    (r"No space left", HostError, "disk-full", "no space left for the build environment of {}"),
    (r"[Hh]ash mismatch", SourceError, "requirement-hash", "a build requirement of {} isn't what was locked"),
    (r"network was disabled", SourceError, "requirement-offline", "build requirements of {} aren't at hand"),
    (r"No interpreter found|Python installation found|broken symlink|Python interpreter", HostError, "python-missing",
     "uv doesn't find the interpreter that {} is built for"),
    (r"Failed to fetch|error sending request|dns error|[Tt]imed? ?out|[Cc]onnect error|401 Unauthorized|403 Forbidden",
     SourceError, "index-unreachable", "the package index doesn't give what {} needs"),
    (r"no usable wheels|no wheels with a matching|Wheels are required", RecipeError, "requirement-no-wheel",
     "a build requirement of {} has no wheel for this machine and Python"),
    (r"[Cc]ouldn't parse requirement|Expected package name", RecipeError, "requirement-wrong",
     "a build requirement of {} can't be read"),
    (r"was not found in the package registry|There (is|are) no versions? of", SourceError, "requirement-missing",
     "the package index lacks a build requirement of {}"),
)  # fmt: skip

_ADVICE: dict[str, tuple[str, tuple[str, ...]]] = {
    "disk-full": ("", ("spark-build gc",)),
    "requirement-hash": ("the index gives other bytes under a name: find out which are right, then lock again",
                         ("spark-build recipe NAME --relock",)),
    "requirement-offline": ("--offline forbids to fetch them", ("spark-build fetch NAME",)),
    "python-missing": ("", ("spark-build doctor",)),
    "index-unreachable": ("[index] url or UV_DEFAULT_INDEX says which is asked", ("spark-build doctor",)),
    "requirement-gone": ("a lock is kept until you ask for another", ("spark-build recipe NAME --relock",)),
}  # fmt: skip
_CHANGE = (
    "build.requires-pin, -add and -remove of the recipe change them",
    ("spark-build recipes show NAME --origin",),
)


def _retold(text: str, output: str, *, locked: bool, offline: bool = False) -> SparkError:
    """Return uv's failure in our words, with its own as the cause; `locked` when it had exact versions to install."""
    made: type[SparkError] = RecipeError
    code, summary = "requirement-conflict", "the build requirements of {} can't be met together"
    for pattern, error, slug, words in _SAYINGS:
        if re.search(pattern, text):
            made, code, summary = error, slug, words
            break
    if locked and code in {"requirement-conflict", "requirement-missing", "requirement-no-wheel"}:
        # Without a network uv says the same of what isn't in its cache.
        code = "requirement-offline" if offline else "requirement-gone"
        summary = "build requirements of {} aren't at hand" if offline else "the index lost what is locked for {}"
        made = SourceError
    advice, run = _ADVICE.get(code, _CHANGE)
    return made(code, summary.format(output), cause=proc.scrubbed(text.strip()), help=advice, run=run)


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
