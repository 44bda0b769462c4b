"""Settings of a site and a user, and the folders that spark-build works in.

Files, later ones win key by key: ``/etc/spark-build/config.toml``, then ``$XDG_CONFIG_HOME/spark-build/config.toml``
(or the file that ``SPARK_BUILD_CONFIG`` names, instead of both). Relative paths in a file count from its folder, those of
variables and the command line from the working folder. Unknown keys are errors. Nothing here reads the process
environment: the caller hands it in.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.errors import UsageError
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Config", "checkout", "inspect", "load"]

SITE = Path("/etc/spark-build")


class Size(str):
    """A text such as ``60GiB``."""

    __slots__ = ()


class Place(str):
    """A path: one that is relative counts from the folder of the file that says it."""

    __slots__ = ()


#: What a table may hold: a type, or the words to choose from. A table without keys maps any text to a text.
_KEYS: dict[str, dict[str, type | tuple[str, ...]] | None] = {
    "wheelhouse": {"path": Place, "upstream": str, "upstream-token-file": Place},
    "sources": {"cache": Place},
    "index": {
        "url": str,
        "public-url": str,
        "reserve": list,
        "superseded": ("hide", "list"),
        "pass-through": list,
        "pass-through-url": str,
        "tokens": Place,
    },
    "mirrors": None,
    "build": {
        "jobs": int,
        "memory": Size,
        "reserve": Size,
        "isolation": ("auto", "namespace", "none"),
        "python": str,
        "env": dict,
    },
    "compile-cache": {"url": str, "path": Place, "size": Size},
    "signing": {"key": Place, "signers": Place},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What holds for every command.

    `wheelhouse` and `sources` are absolute. `wheelhouse_from` says which rule chose the wheelhouse, for plans to print.
    `mirrors` maps URL prefixes to what is asked instead, longest prefix first. `recipe_layers` are folders that may hold
    ``<name>.toml`` (and ``patches/<name>/``), weakest first, each with the layer's word. `build` holds ``[build]``,
    `compile_cache` ``[compile-cache]``, `index` ``[index]``. `upstream` is the server that is asked for a build before it is
    made, `upstream_token_file` holds the token for it. `signing_key` is the SSH key that signs the records of wheels,
    `signers` the file of those whose signatures hold; None where nothing is signed, or nobody's signature is asked for.
    """

    wheelhouse: Path
    wheelhouse_from: str
    sources: Path
    index_url: str | None
    mirrors: tuple[tuple[str, str], ...]
    recipe_layers: tuple[tuple[str, Path], ...]
    build: Mapping[str, Any]
    compile_cache: Mapping[str, str]
    index: Mapping[str, Any]
    files: tuple[Path, ...]
    upstream: str | None = None
    upstream_token_file: Path | None = None
    signing_key: Path | None = None
    signers: Path | None = None


def checkout() -> Path | None:
    """Return the source checkout that this package runs from, or None when it is installed."""
    root = Path(__file__).resolve().parent.parent
    return root if (root / "pyproject.toml").is_file() and (root / "recipes").is_dir() else None


def load(env: Mapping[str, str], *, wheelhouse: str | None = None, cwd: Path, site: Path = SITE) -> Config:
    """Return the configuration; `wheelhouse` is the command line's word.

    Raises UsageError with every mistake of every file.
    """
    found, mistakes = inspect(env, wheelhouse=wheelhouse, cwd=cwd, site=site)
    if mistakes:
        raise UsageError(
            "config-wrong",
            "the configuration has mistakes",
            cause="\n".join(mistakes),
            run=tuple(f"${{EDITOR:-vi}} {file}" for file in found.files if any(str(file) in one for one in mistakes)),
        )
    return found


def inspect(
    env: Mapping[str, str], *, wheelhouse: str | None = None, cwd: Path, site: Path = SITE
) -> tuple[Config, tuple[str, ...]]:
    """Return the configuration without what is wrong in it, and every mistake of every file."""
    home = Path(env.get("HOME") or "/")
    user = Path(env.get("XDG_CONFIG_HOME") or home / ".config") / "spark-build"
    files: tuple[Path, ...]
    mistakes: list[str] = []
    if named := env.get("SPARK_BUILD_CONFIG"):
        files = (cwd / named,)
        user = files[0].parent
        if not files[0].exists():
            mistakes.append(f"{files[0]}: SPARK_BUILD_CONFIG names it, and it isn't there")
    else:
        files = (site / "config.toml", user / "config.toml")
    merged: dict[str, dict[str, Any]] = {}
    read = tuple(file for file in files if _is_there(file, site, mistakes))
    for file in read:
        for table, values in _read(file, mistakes, home).items():
            merged.setdefault(table, {}).update(values)
    data = Path(env.get("XDG_DATA_HOME") or home / ".local" / "share") / "spark-build"
    cache = Path(env.get("XDG_CACHE_HOME") or home / ".cache") / "spark-build"
    place, rule = _wheelhouse(env, merged, wheelhouse, data)
    sources = env.get("SPARK_BUILD_SOURCES") or merged.get("sources", {}).get("cache") or cache / "sources"
    signing = {name: Path(path) for name, path in merged.get("signing", {}).items()}
    token = merged.get("wheelhouse", {}).get("upstream-token-file")
    mirrors = sorted(merged.get("mirrors", {}).items(), key=lambda item: -len(item[0]))
    found = Config(
        wheelhouse=_absolute(place, cwd, home),
        wheelhouse_from=rule,
        sources=_absolute(sources, cwd, home),
        index_url=env.get("SPARK_BUILD_INDEX_URL") or merged.get("index", {}).get("url"),
        mirrors=tuple((str(prefix), str(to)) for prefix, to in mirrors),
        recipe_layers=(("site", site / "recipes"), ("user", user / "recipes")),
        build=merged.get("build", {}),
        compile_cache=merged.get("compile-cache", {}),
        index=merged.get("index", {}),
        files=read,
        upstream=env.get("SPARK_BUILD_UPSTREAM", merged.get("wheelhouse", {}).get("upstream")) or None,
        upstream_token_file=Path(token) if token else None,
        signing_key=signing.get("key"),
        signers=signing.get("signers"),
    )
    return found, tuple(mistakes)


def _is_there(file: Path, site: Path, mistakes: list[str]) -> bool:
    """Whether there is such a file. A site's that can't be looked at is a mistake; in a home that is closed, none is."""
    try:
        return file.is_file()
    except PermissionError as error:
        if file.is_relative_to(site):
            mistakes.append(f"{file}: {error.strerror}")
        return False


def _wheelhouse(
    env: Mapping[str, str], merged: Mapping[str, Mapping[str, Any]], asked: str | None, data: Path
) -> tuple[str | Path, str]:
    if asked:
        return asked, "--wheelhouse"
    if named := env.get("SPARK_BUILD_WHEELHOUSE"):
        return named, "SPARK_BUILD_WHEELHOUSE"
    if named := merged.get("wheelhouse", {}).get("path"):
        return named, "configuration"
    if root := checkout():
        return root / "wheelhouse", "source checkout"
    return data / "wheelhouse", "user's data folder"


def _absolute(path: str | Path, cwd: Path, home: Path) -> Path:
    text = str(path)
    expanded = home / text[2:] if text.startswith("~/") else Path(text)
    return cwd / expanded


def _read(file: Path, mistakes: list[str], home: Path) -> dict[str, dict[str, Any]]:
    try:
        tables = tomllib.loads(file.read_text())
    except (tomllib.TOMLDecodeError, OSError, UnicodeDecodeError) as error:
        mistakes.append(f"{file}: {error}")
        return {}
    good: dict[str, dict[str, Any]] = {}
    for table, values in tables.items():
        if table not in _KEYS or not isinstance(values, dict):
            mistakes.append(f"{file}: unknown table [{table}]{_near(table, _KEYS)}")
            continue
        known = _KEYS[table]
        for key, value in values.items():
            wanted = str if known is None else known.get(key)
            if wanted is None:
                mistakes.append(f"{file}: unknown key {table}.{key}{_near(key, known or {})}")
            elif problem := _misfit(value, wanted):
                mistakes.append(f"{file}: {table}.{key} is {value!r}, wanted {problem}")
            else:
                placed = str(_absolute(value, file.parent, home)) if wanted is Place else value
                good.setdefault(table, {})[key] = placed
    return good


def _misfit(value: object, wanted: type | tuple[str, ...]) -> str:
    """Return what `value` should have been, or an empty text when it is that."""
    if isinstance(wanted, tuple):
        return "" if value in wanted else f"one of {', '.join(wanted)}"
    if wanted is int:
        return "" if isinstance(value, int) and not isinstance(value, bool) and value > 0 else "a number, at least 1"
    if wanted is list:
        return "" if isinstance(value, list) and all(isinstance(item, str) for item in value) else "a list of texts"
    if wanted is dict:
        texts = isinstance(value, dict) and all(isinstance(item, str) for item in value.values())
        return "" if texts else "a table of texts"
    if wanted is Size:
        good = isinstance(value, str) and re.fullmatch(r"\d+(\.\d+)?\s*[kmgt]?(i?b)?", value, re.IGNORECASE)
        return "" if good else "a size such as 60GiB"
    return "" if isinstance(value, str) else "a text"


def _near(word: str, known: Mapping[str, object]) -> str:
    import difflib  # noqa: PLC0415  # only for messages

    close = difflib.get_close_matches(word, known, 1)
    return f", did you mean {close[0]}?" if close else ""
