"""Build environments: resolved once to exact versions and hashes, then filled from that and nothing else. uv does both.

Wheels only: building a requirement would run code that nothing pins. uv reads the user's own settings (``uv.toml``, its
index and cache variables), but none of a project that the caller happens to stand in.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder import proc, torchguard
from builder.digest import sha256_bytes
from builder.errors import HostError, RecipeError, SourceError
from builder.stages import EnvLock, Locked, Torch
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from builder.errors import SparkError

__all__ = ["Backend", "backend", "clean", "create", "existing_torch", "normalised", "requires", "resolve"]

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
    pyproject: bytes | None, *, add: Sequence[str], remove: Sequence[str], torch: Torch | None
) -> tuple[str, ...]:
    """Return what the build environment has to hold: the project's static requirements (PEP 518), changed by the recipe.

    Torch is the one that was chosen; an existing one isn't required at all, `create` lets the build see it.
    """
    gone = {normalised(name) for name in remove} | ({"torch"} if torch else set())
    own = _build_system(pyproject).get("requires", DEFAULT_REQUIRES)
    wanted = [text for text in own if normalised(text) not in gone]
    if torch and torch.folder:
        wanted += [text for text in add if normalised(text) != "torch"]
    else:
        wanted += [*([f"torch=={torch.version}"] if torch else []), *add]
    return tuple(dict.fromkeys(wanted))


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


def resolve(  # noqa: PLR0913  # a lock depends on all of it
    requirements: Sequence[str],
    *,
    output: str,
    constraints: Sequence[str],
    python: str,
    index_url: str | None,
    env: Mapping[str, str],
    scratch: Path,
    torch: Torch | None,
    offline: bool = False,
    recipe: str = "NAME",
) -> EnvLock:
    """Return exact versions with hashes for `requirements`, for the interpreter `python` on this machine.

    Only wheels are taken; with `offline` only what uv has in its cache. `recipe` is the word that commands in error texts
    name. Raises RecipeError ``requirement-conflict``, ``requirement-wrong``, ``requirement-url`` or ``torch-by-accident``;
    SourceError ``requirement-missing``, ``requirement-offline`` or ``index-unreachable``; HostError ``disk-full``,
    ``unwritable`` or ``uv-failed``.
    """
    if not requirements:
        return EnvLock(output=output, packages=(), text="")
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".lock-", dir=scratch) as folder:
        wanted, bounds = Path(folder, "requirements.in"), Path(folder, "constraints.txt")
        wanted.write_text("".join(f"{line}\n" for line in requirements))
        bounds.write_text("".join(f"{line}\n" for line in constraints))
        words = ["pip", "compile", "--quiet", "--no-header", "--no-annotate", "--generate-hashes", "--no-strip-extras"]
        words += ["--offline"] if offline else []
        words += ["--only-binary", ":all:", "--python", python, "--constraints", str(bounds), str(wanted)]
        done = proc.capture([_uv_path(), *words], env=_environment(env, index_url), cwd=Path("/"))
    if not done.ok:
        raise _retold(done.err, output, recipe=recipe, locked=False)
    packages = tuple(_packages(done.out, output))
    own = next((one for one in packages if one.name == "torch"), None)
    if own and (torch is None or torch.folder):
        raise RecipeError(
            "torch-by-accident",
            f"the build requirements of {output} bring a torch of their own",
            cause=f"{', '.join(requirements)} resolve to torch {own.version}",
            help="take what brings it out with build.requires-remove, or build against one of the index: "
            f"build.torch = 'pinned' and build.torch-version = '{own.version}'",
        )
    return EnvLock(output=output, packages=packages, text=done.out)


def _packages(text: str, output: str) -> list[Locked]:
    found = []
    for block in re.split(r"\n(?=\S)", text.strip()):
        head = re.match(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", block)
        hashes = tuple(sorted(re.findall(r"--hash=sha256:([0-9a-f]{64})", block)))
        if not head or not hashes:
            raise RecipeError(
                "requirement-url",
                f"a build requirement of {output} has no version and hash on an index",
                cause=block.splitlines()[0].rstrip(" \\") if block else "uv printed nothing",
                help="name a released version instead: build.requires-remove and build.requires-add of the recipe",
            )
        found.append(Locked(name=normalised(head[1]), version=head[2], sha256=hashes))
    return sorted(found, key=lambda one: one.name)


def create(  # noqa: PLR0913  # what it is made from, where, how, and what is told
    lock: EnvLock,
    venv: Path,
    *,
    python: str,
    index_url: str | None,
    env: Mapping[str, str],
    offline: bool,
    log: Path,
    on_line: Callable[[str], None],
    wheels: Sequence[Path] = (),
    torch: Torch | None = None,
    recipe: str = "NAME",
) -> None:
    """Leave an environment with exactly what `lock` holds, and `wheels`, at `venv`; it works at another path, too.

    An existing `torch` is seen in its own folder, behind all that is locked, with what else lies there.

    One that an earlier attempt finished for the same lock is taken as it is, unless its build put another torch in. Files
    are copies: a build may write into them, and uv's cache must not notice. Raises SourceError ``requirement-offline``,
    ``requirement-hash``, ``requirement-gone``, ``index-unreachable``; HostError ``disk-full``, ``unwritable`` or
    ``uv-failed``.
    """
    beside = torch.folder if torch else None
    stamp = venv / "spark-build.lock"
    wanted = sha256_bytes("\n".join([python, lock.text, *map(str, wheels), str(beside)]).encode())
    whole = stamp.exists() and stamp.read_text() == wanted and (venv / "bin" / "python").exists()
    if whole and not torchguard.changed(venv):
        return
    shutil.rmtree(venv, ignore_errors=True)
    venv.parent.mkdir(parents=True, exist_ok=True)
    uv = _environment(env, index_url)

    def must(words: list[str]) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        lines: list[str] = []

        def line(text: str) -> None:
            lines.append(text)
            on_line(text)

        done = proc.run([_uv_path(), *words], env=uv, cwd=Path("/"), log=log, on_line=line)
        if not done.ok:
            text = "\n".join(lines)
            raise _retold(text, lock.output, recipe=recipe, locked=True, offline="--offline" in words)

    must(["venv", "--quiet", "--no-project", "--relocatable", "--python", python, str(venv)])
    if lock.packages:
        file = venv / "lock.txt"
        file.write_text(lock.text)
        words = ["pip", "sync", "--require-hashes", "--link-mode", "copy", "--python", str(venv / "bin" / "python")]
        words += ["--only-binary", ":all:", *(["--offline"] if offline else []), str(file)]
        must(words)
    if wheels:  # our own, of recipes that this one builds on: their dependencies are the lock's business
        words = ["pip", "install", "--no-deps", "--no-index", "--offline", "--link-mode", "copy"]
        words += ["--python", str(venv / "bin" / "python"), *map(str, wheels)]
        must(words)
    if beside:
        packages = next((venv / "lib").glob("python*/site-packages"))
        (packages / "existing-torch.pth").write_text(f"{beside}\n")
    torchguard.keep(venv)
    stamp.write_text(wanted)


def clean(
    venv: Path,
    wanted: Sequence[str],
    *,
    wheels: Mapping[str, Path],
    python: str,
    index_url: str | None,
    env: Mapping[str, str],
    offline: bool,
) -> str:
    """Leave a new environment at `venv` with `wheels` (file by project), what they declare, and `wanted` requirements.

    The wheels win over pins of others: torch wants its own Triton. With `offline` only what uv has in its cache is taken.
    The environment works at another path, too. Returns an empty text, or what uv said where it can't be filled; raises
    HostError ``uv-failed`` when there can be none at all.
    """
    shutil.rmtree(venv, ignore_errors=True)
    uv = _environment(env, index_url)
    words = ["venv", "--quiet", "--no-project", "--relocatable", "--python", python, str(venv)]
    made = proc.capture([_uv_path(), *words], env=uv, cwd=Path("/"))
    if not made.ok:
        raise HostError("uv-failed", "uv can't make an environment for the checks", cause=made.err.strip())
    overrides = venv / "overrides.txt"
    exact = [f"{project} @ {file.resolve().as_uri()}" for project, file in wheels.items()]  # a path may hold a ``#``
    overrides.write_text("\n".join([*exact, ""]))
    words = ["pip", "install", "--quiet", "--only-binary", ":all:", "--python", str(venv / "bin" / "python")]
    words += ["--overrides", str(overrides), *(["--offline"] if offline else []), *exact, *wanted]
    done = proc.capture([_uv_path(), *words], env=uv, cwd=Path("/"))
    return "" if done.ok else done.err.strip() or f"uv ended with {done.code}"


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
    (r"Permission denied|Read-only file system|Not a directory", HostError, "unwritable",
     "a folder can't be written for the build environment of {}"),
    (r"[Hh]ash mismatch", SourceError, "requirement-hash", "a build requirement of {} isn't what was locked"),
    (r"network was disabled|Network connectivity is disabled", SourceError, "requirement-offline",
     "build requirements of {} aren't at hand"),
    (r"Failed to fetch|error sending request|dns error|[Tt]imed? ?out|[Cc]onnect error|401 Unauthorized|403 Forbidden",
     SourceError, "index-unreachable", "the package index doesn't give what {} needs"),
    (r"was not found in the package registry|There (is|are) no versions? of", SourceError, "requirement-missing",
     "the package index lacks a build requirement of {}"),
    (r"Couldn't parse requirement", RecipeError, "requirement-wrong", "a build requirement of {} is none"),
    (r"No solution found", RecipeError, "requirement-conflict",
     "the build requirements of {} can't be met together"),
)  # fmt: skip

_ADVICE: dict[str, tuple[str, tuple[str, ...]]] = {
    "disk-full": ("", ("spark-build gc",)),
    "unwritable": ("[sources] cache in the configuration, or UV_CACHE_DIR, names another folder", ("spark-build doctor",)),
    "uv-failed": ("mend what it names, then run again", ("spark-build doctor",)),
    "requirement-hash": ("the index gives other bytes under a name: find out which are right, then lock again",
                         ("spark-build recipe NAME --relock",)),
    "requirement-offline": ("--offline forbids to fetch them", ("spark-build fetch NAME",)),
    "index-unreachable": ("[index] url or UV_DEFAULT_INDEX says which is asked", ("spark-build doctor",)),
    "requirement-gone": ("a lock is kept until you ask for another", ("spark-build recipe NAME --relock",)),
}  # fmt: skip
_CHANGE = (
    "build.requires-pin, -add and -remove of the recipe change them",
    ("spark-build recipes show NAME --origin",),
)


def _retold(text: str, output: str, *, recipe: str, locked: bool, offline: bool = False) -> SparkError:
    """Return uv's failure in our words, with its own as the cause; `locked` when it had exact versions to install."""
    made: type[SparkError] = HostError
    code, summary = "uv-failed", "uv failed for the build environment of {}"
    for pattern, error, slug, words in _SAYINGS:
        if re.search(pattern, text):
            made, code, summary = error, slug, words
            break
    if locked and code in {"requirement-conflict", "requirement-missing"}:
        # Without a network uv says the same of what isn't in its cache.
        code = "requirement-offline" if offline else "requirement-gone"
        summary = "build requirements of {} aren't at hand" if offline else "the index lost what is locked for {}"
        made = SourceError
    advice, run = _ADVICE.get(code, _CHANGE)
    run = tuple(word.replace("NAME", recipe) for word in run)
    return made(code, summary.format(output), cause=text.strip(), help=advice, run=run)


_FACTS = """
import json, sys, sysconfig
from pathlib import Path
try:
    import torch
except ImportError:
    print("null")
else:
    threads = "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
    print(json.dumps({"version": str(torch.__version__), "cuda": torch.version.cuda,
                      "cxx11abi": bool(torch.compiled_with_cxx11_abi()), "folder": str(Path(torch.__file__).parents[1]),
                      "tag": "cp%d%d" % sys.version_info[:2] + threads}))
"""


def existing_torch(python: str, env: Mapping[str, str], *, tag: str) -> Torch | None:
    """Return the torch of an interpreter, or None where it has none.

    Raises HostError ``torch-broken`` when it can't be imported, ``torch-python`` when it is for another Python than `tag`
    (``cp312``) says.
    """
    import json  # noqa: PLC0415

    done = proc.capture([python, "-I", "-c", _FACTS], env=_environment(env), timeout_s=120)
    if not done.ok:
        raise HostError("torch-broken", f"torch of {python} can't be imported", cause=done.err.strip()[-2000:])
    facts: dict[str, Any] | None = json.loads(done.out.splitlines()[-1])  # importing it may print
    if facts is None:
        return None
    if (found := facts.pop("tag")) != tag:
        raise HostError(
            "torch-python",
            f"torch of {python} is for another Python than the wheel",
            cause=f"it is for {found}, wheels are built for {tag}",
            help="build for the interpreter that has torch, or name another torch",
            run=(f"spark-build recipe NAME --python {python} --torch existing",),
        )
    return Torch(**facts | {"folder": Path(facts["folder"])})
