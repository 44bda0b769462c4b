"""What belongs in a bundle: asked of uv for the target, and held against the newest that there is for it."""

from __future__ import annotations

import re
import shlex
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from builder import proc
from builder.errors import CheckRefused, HostError, SourceError, UsageError
from builder.recipe.interpolate import expand
from builder.values import dataclass
from builder.wheel.read import normalised

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from builder.bundle.companions import Known
    from builder.bundle.target import Target
    from builder.errors import SparkError

__all__ = ["Asked", "Closure", "Older", "Piece", "Unavailable", "exact", "resolve"]

#: Variables of uv that say where packages come from and how they are reached. Others change what the answer is.
_UV = re.compile(
    r"UV_(CACHE_DIR|CONFIG_FILE|NO_CONFIG|(DEFAULT_|EXTRA_)?INDEX(_\w+)?|FIND_LINKS|KEYRING_PROVIDER|NATIVE_TLS|SYSTEM_CERTS|"
    r"INSECURE_HOST|HTTP_\w+|CONCURRENT_\w+|EXCLUDE_NEWER)"
)
_NO_WHEEL = re.compile(r"([A-Za-z0-9][\w.-]*?)(?:==(\S+?))? has no (?:usable wheels|wheels with a matching)|"
                       r"Wheels are required for `([\w.-]+)`")  # fmt: skip
#: What an index calls a file becomes a place on this disk.
_FILENAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.!+-]*\.whl")
_UNREACHED = re.compile(r"Failed to fetch|error sending request|dns error|[Tt]imed? ?out|[Cc]onnect error|40[13] ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What was asked for.

    `requirements` are PEP 508 texts, `overrides` those of our wheels that others pin another version of. `ours` is the URL
    of an index that is asked first, and alone for every name that it has. `words` ask for the same again. `known` says what
    no metadata does.
    """

    requirements: tuple[str, ...]
    target: Target
    overrides: tuple[str, ...] = ()
    ours: str | None = None
    words: tuple[str, ...] = ()
    known: Known | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A wheel that belongs in. `size` is None where the index didn't say."""

    project: str
    version: str
    filename: str
    url: str
    sha256: str
    size: int | None

    @property
    def path(self) -> str:
        """Where it lies in the bundle."""
        return f"files/{self.sha256}/{self.filename}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Older:
    """A name that was answered with an older version than the newest one that has a wheel for the target, and why."""

    project: str
    version: str
    newest: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Closure:
    """What is installed (`pieces`, by name), `tools` that install it, and what should be known of it."""

    pieces: tuple[Piece, ...]
    tools: tuple[Piece, ...]
    older: tuple[Older, ...] = ()
    notes: tuple[str, ...] = ()


class Unavailable(SourceError):
    """No index has a wheel of `project` for the target."""

    project = ""


class _Conflict(Exception):
    """What was asked for can't be had together; the text is uv's."""


def resolve(asked: Asked, *, env: Mapping[str, str], index_url: str | None, allow_older: bool = False) -> Closure:
    """Return all wheels that a target needs for what was asked for.

    Raises CheckRefused ``older-than-asked`` unless `allow_older`; SourceError ``wheel-unavailable`` (a project that has no
    wheel for the target), ``index-unreachable``; UsageError ``requirement-conflict``; HostError ``uv-failed``.
    """
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

    uv = _Uv(asked, env=env, index_url=index_url)
    pool = ThreadPoolExecutor()  # three questions that don't wait for each other
    all_of_it = pool.submit(uv.compile, asked.requirements)
    alone = pool.submit(_attempt, uv, asked.requirements, "--no-deps")
    tool = pool.submit(_attempt, uv, ["uv"], "--no-deps")
    try:
        found = all_of_it.result()
    except _Conflict as conflict:
        raise _retold(str(conflict), asked) from None
    finally:
        pool.shutdown(wait=False)  # who is interrupted here doesn't wait for uv, which ends with this process
    older = tuple(_older(uv, found, alone.result() or {}, asked))
    if older and not allow_older:
        raise _refusal(older, asked)
    found, notes = _accompanied(uv, found, asked)
    tools = tool.result() or {}
    if not tools:
        notes = (*notes, "no index has uv for the target: install.sh will want a pip there")
    return Closure(
        pieces=tuple(found[name] for name in sorted(found)), tools=tuple(tools.values()), older=older, notes=notes
    )


def exact(
    requirements: Sequence[str], target: Target, *, env: Mapping[str, str], index_url: str | None
) -> tuple[Piece, ...]:
    """Return the wheels of exactly these releases, and none that they need. Raises as `resolve` does."""
    asked = Asked(requirements=tuple(requirements), target=target)
    try:
        found = _Uv(asked, env=env, index_url=index_url).compile(requirements, "--no-deps")
    except _Conflict as conflict:
        raise _retold(str(conflict), asked) from None
    return tuple(found.values())


def _attempt(uv: _Uv, requirements: Sequence[str], *words: str) -> dict[str, Piece] | None:
    """Return the answer, or None where there is none."""
    try:
        return uv.compile(requirements, *words)
    except _Conflict:
        return None


class _Uv:
    """Asks uv, for one target and one set of indexes."""

    def __init__(self, asked: Asked, *, env: Mapping[str, str], index_url: str | None) -> None:
        import uv  # noqa: PLC0415

        self._asked, self._program = asked, uv.find_uv_bin()
        kept = {key: value for key, value in env.items() if not key.startswith("UV_") or _UV.fullmatch(key)}
        kept |= {"UV_DEFAULT_INDEX": index_url} if index_url else {}
        if (
            asked.ours
        ):  # not on the command line, which others see: the user's own may hold a login, and come after ours
            kept["UV_INDEX"] = f"{asked.ours} {kept.get('UV_INDEX', '')}".strip()
        self._env = {**kept, "NO_COLOR": "1", "UV_NO_PROGRESS": "1", "UV_PYTHON_DOWNLOADS": "never"}
        self._tags = asked.target.tags()

    def compile(self, requirements: Sequence[str], *words: str) -> dict[str, Piece]:
        """Return the wheels for `requirements` by project. Raises `_Conflict`; SourceError or HostError where uv fails."""
        with tempfile.TemporaryDirectory(prefix="spark-build-bundle-") as folder:
            wanted, overrides = Path(folder, "requirements.in"), Path(folder, "overrides.txt")
            wanted.write_text("".join(f"{line}\n" for line in requirements))
            overrides.write_text("".join(f"{line}\n" for line in self._asked.overrides))
            command = [self._program, "pip", "compile", "--quiet", "--no-header", "--format", "pylock.toml"]
            # Without it uv asks every Python of this machine what it is; the answer is for the target anyway.
            command += ["--python", sys.executable]
            command += [*self._asked.target.words, "--index-strategy", "first-index", "--overrides", str(overrides)]
            done = proc.capture([*command, *words, str(wanted)], env=self._env, cwd=Path("/"))
        if not done.ok:
            raise _failure(done.err.strip())
        return {piece.project: piece for piece in self._pieces(tomllib.loads(done.out))}

    def _pieces(self, document: dict[str, Any]) -> list[Piece]:
        from packaging.pylock import PackageWheel, Pylock, PylockSelectError  # noqa: PLC0415

        environment: Any = self._asked.target.markers
        found = []
        try:
            for package, wheel in Pylock.from_dict(document).select(environment=environment, tags=self._tags):
                if not isinstance(wheel, PackageWheel) or not (url := wheel.url or _file_url(wheel.path)):
                    raise _unavailable(str(package.name), "uv's answer names no wheel", self._asked)
                found.append(
                    Piece(
                        project=str(package.name),
                        version=str(package.version),
                        filename=unquote(urlsplit(url).path.rsplit("/", 1)[-1]),
                        url=url,
                        sha256=wheel.hashes.get("sha256", ""),
                        size=wheel.size,
                    )
                )
        except PylockSelectError as error:
            raise HostError("uv-failed", "uv's answer doesn't fit the target", cause=str(error)) from error
        odd = next((piece for piece in found if not _FILENAME.fullmatch(piece.filename)), None)
        if odd:
            raise SourceError(
                "wheel-name",
                f"the index calls a file of {odd.project} {odd.filename!r}, which is no name of a wheel",
                help="nothing was fetched; another index: [index] url in the configuration says which is asked",
                run=("spark-build doctor",),
            )
        bare = next((piece for piece in found if not piece.sha256), None)
        if bare:
            raise SourceError(
                "index-without-hashes",
                f"the index has no sha256 for {bare.filename}",
                help="another index, or this one with hashes: [index] url in the configuration says which is asked",
                run=("spark-build doctor",),
            )
        return found


def _file_url(path: str | None) -> str:
    return Path(path).as_uri() if path and path.startswith("/") else ""


def _failure(text: str) -> Exception:
    if "No solution found" in text:
        return _Conflict(text)
    if _UNREACHED.search(text):
        return SourceError(
            "index-unreachable",
            "the package index doesn't answer",
            cause=text,
            help="[index] url or UV_DEFAULT_INDEX says which is asked",
            run=("spark-build doctor",),
        )
    if "parse" in text:
        return UsageError(
            "requirement-wrong", "a requirement is none", cause=text, run=("spark-build bundle export --help",)
        )
    return HostError("uv-failed", "uv can't resolve", cause=text, run=("spark-build doctor",))


def _older(uv: _Uv, found: Mapping[str, Piece], newest: Mapping[str, Piece], asked: Asked) -> list[Older]:
    """Return what of the names that were asked for is older than the newest one with a wheel for the target."""
    from packaging.version import Version  # noqa: PLC0415

    late = []
    for name, best in newest.items():
        if name in found and Version(found[name].version) < Version(best.version):
            try:
                uv.compile([*asked.requirements, f"{name}=={best.version}"])
                why = "together with what else was asked for the resolver chose the older one"
            except _Conflict as conflict:
                why = _reason(str(conflict))
            late.append(Older(project=name, version=found[name].version, newest=best.version, why=why))
    return late


def _reason(text: str) -> str:
    """Return uv's conflict without its frame."""
    lines = [line.strip() for line in text.splitlines()]
    lines = [line.removeprefix("cause: ") for line in lines if line and "No solution found" not in line]
    return "\n".join(line for line in lines if not line.startswith("hint: Wheels are required"))


def _accompanied(uv: _Uv, found: dict[str, Piece], asked: Asked) -> tuple[dict[str, Piece], tuple[str, ...]]:
    """Return the closure with the companions that an index has, and a note for each that none has."""
    requirements, notes = list(asked.requirements), []
    for one in asked.known.companions(found) if asked.known else ():
        of = found[normalised(one.of)]
        wanted = f"{one.name}=={of.version}"
        # Alone first: that is quick, and mostly the answer is no.
        more = _attempt(uv, [*requirements, wanted]) if _attempt(uv, [wanted], "--no-deps") else None
        if more is None:
            run = expand(one.run, {"version": of.version.partition("+")[0]}) if one.run else ""
            notes.append(f"{of.project} {of.version} comes without {one.name}: {one.why}{run and f'; {run}'}")
        else:
            found = more
            requirements.append(wanted)
    return found, tuple(notes)


def _refusal(older: Sequence[Older], asked: Asked) -> CheckRefused:
    first = older[0]
    told = [f"{one.project} {one.newest} has a wheel for {asked.target.platform}, but:\n{one.why}" for one in older]
    more = f", and {len(older) - 1} more" if len(older) > 1 else ""
    return CheckRefused(
        "older-than-asked",
        f"asked for {first.project}, got {first.version} instead of {first.newest}{more}",
        cause="\n".join(told),
        help="mostly the target's glibc is newer than --platform says, or something has no wheel for it: make that by a "
        "recipe, then it is taken from the wheelhouse; --allow-older takes what there is",
        run=(shlex.join([*asked.words, "--allow-older"]),),
    )


def _retold(text: str, asked: Asked) -> SparkError:
    found = _NO_WHEEL.search(text)
    if found:
        return _unavailable(found[1] or found[3], _reason(text), asked)
    missing = re.search(r"([\w.-]+) was not found in the package registry", text)
    help_ = "the name is wrong, or the index lacks it" if missing else "loosen one of the requirements"
    return UsageError(
        "requirement-conflict",
        "what was asked for can't be had together" if not missing else f"no index has {missing[1]}",
        cause=_reason(text),
        help=help_
        + ("; names of the wheelhouse are never looked for elsewhere: --public NAME does" if asked.ours else ""),
        run=("spark-build wheels list",),
    )


def _unavailable(name: str, cause: str, asked: Asked) -> Unavailable:
    platform = asked.target.platform
    error = Unavailable(
        "wheel-unavailable",
        f"{name} has no wheel for {platform}, cp{asked.target.python.replace('.', '')}",
        cause=cause,
        help="nothing is compiled behind the gap: build it into the wheelhouse, by a recipe or elsewhere on such a machine"
        + (f"; --public {name} passes over the wheelhouse's own" if asked.ours else ""),
        run=(f"spark-build recipes new {name}", f"pip wheel --no-deps {name} && spark-build wheels add {name}-*.whl"),
    )
    error.project = normalised(name)
    return error
