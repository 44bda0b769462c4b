"""What types can't say about a recipe: names, ranges, units, patterns, digests, and what must go together.

Works on what `convert` made of a wrong recipe, too, so that one report holds everything: a wrong value is None there.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any, TypeVar

from builder.recipe import interpolate
from builder.recipe.convert import Mistake
from builder.recipe.layers import NAMED
from builder.recipe.model import INTERPOLATED
from builder.recipe.units import parse_bytes, parse_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from builder.recipe.model import Build, Condition, Recipe, Resources, Version

__all__ = ["NAME", "check"]

#: A recipe's name, which is also its file's and part of paths.
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")

#: A distribution's name (core metadata).
_PROJECT = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_HEX = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_VERSION = r"[0-9]+(\.[0-9]+)*((a|b|rc)[0-9]+)?(\.post[0-9]+)?(\.dev[0-9]+)?"
#: A clause of PEP 440; ``.*`` only with == and !=, and ~= needs two numbers.
_CLAUSE = rf"\s*((>=|<=|>|<)\s*{_VERSION}|(==|!=)\s*{_VERSION}(\.\*)?|~=\s*[0-9]+\.{_VERSION})\s*"
#: Versions that conditions and floors name.
_RANGE = re.compile(f"{_CLAUSE}(,{_CLAUSE})*")

_SOURCE_NEEDS = {"git": ("url", "ref"), "sdist": ("project", "version"), "archive": ("url",), "local": ("path",)}
_CHECK_NEEDS = {
    "import": ("run",),
    "command": ("run",),
    "script": ("script",),
    "accept": ("findings", "reason"),
    "size": ("max",),
    "device-code": ("target",),
    "log": ("forbid",),
}

T = TypeVar("T")


def check(recipe: Recipe, name: str) -> Iterator[Mistake]:
    """Yield every mistake of `recipe`, whose file is called `name`."""
    if recipe.name not in {name, None}:
        yield Mistake(path="name", text=f"is `{recipe.name}`, and the file is called {name}.toml")
    if not NAME.fullmatch(name):
        yield Mistake(path="name", text=f"`{name}` must be lower case words joined by `-`")
    yield from _twice(recipe)
    yield from _sources(recipe)
    yield from _outputs(recipe)
    yield from _build(recipe.build)
    yield from _version(recipe.version)
    yield from _resources(recipe.resources)
    for key in ("cuda", "gcc", "clang", "rust"):
        yield from _range(getattr(recipe.system, key, None), f"system.{key}")
    for table in ("output", "patch", "arch_map"):
        for number, item in _each(getattr(recipe, table)):
            yield from _condition(item.when, f"{table.replace('_', '-')}[{number}].when")
    for number, patch in _each(recipe.patch):
        yield from _digest(patch.sha256, f"patch[{number}].sha256")
    yield from _checks(recipe)


def _each(items: Iterable[T | None] | None) -> Iterator[tuple[int, T]]:
    """Yield number and entry of an array as far as it could be read."""
    return ((number, item) for number, item in enumerate(items or ()) if item is not None)


def _twice(recipe: Recipe) -> Iterator[Mistake]:
    for table, word in NAMED.items():
        seen = set[str]()
        for number, item in _each(getattr(recipe, table)):
            value = getattr(item, word)
            if value is None:
                continue
            plain = re.sub(r"[-_.]+", "-", value).lower() if table == "output" else value
            if plain in seen:
                yield Mistake(path=f"{table}[{number}].{word}", text=f"`{value}` is there twice")
            seen.add(plain)
    for number, name in _each(recipe.builds_on):
        if name == recipe.name:
            yield Mistake(path=f"builds-on[{number}]", text=f"{name} can't build on itself")


def _sources(recipe: Recipe) -> Iterator[Mistake]:
    if recipe.source == ():
        yield Mistake(path="source", text="is empty, wanted at least one [[source]]")
    for number, one in _each(recipe.source):
        path = f"source[{number}]"
        for key in _SOURCE_NEEDS.get(one.kind, ()):
            if not getattr(one, key):
                yield Mistake(path=f"{path}.{key}", text=f"`{key}` is missing: a {one.kind} source needs it")
        yield from _digest(one.sha256, f"{path}.sha256")
        if one.kind == "archive":
            yield from _names(one.url, ("version",), f"{path}.url")
        yield from _project(one.project, f"{path}.project")
        if isinstance(one.submodules, tuple):
            for count, inner in enumerate(one.submodules):
                yield from _inside(inner, f"{path}.submodules[{count}]")


def _outputs(recipe: Recipe) -> Iterator[Mistake]:
    if recipe.output == ():
        yield Mistake(path="output", text="is empty, wanted at least one [[output]]")
    for number, output in _each(recipe.output):
        path = f"output[{number}]"
        yield from _project(output.name, f"{path}.name")
        yield from _inside(output.path, f"{path}.path")
        yield from _variables(output.env, f"{path}.env", getattr(recipe.build, "jobs_env", ()))
        yield from _interpolated(output.config_settings, f"{path}.config-settings")
        yield from _requirements(output.requires_add, f"{path}.requires-add")


def _build(build: Build | None) -> Iterator[Mistake]:
    if build is None:
        return
    yield from _variables(build.env, "build.env", build.jobs_env)
    yield from _interpolated(build.config_settings, "build.config-settings")
    yield from _requirements(build.requires_add, "build.requires-add")
    yield from _requirements(build.requires_pin, "build.requires-pin")
    for number, name in _each(build.requires_remove):
        yield from _project(name, f"build.requires-remove[{number}]")
    if build.torch_version is not None and not re.fullmatch(rf"{_VERSION}(\+[a-z0-9.]+)?", build.torch_version):
        yield Mistake(path="build.torch-version", text=f"`{build.torch_version}` is no exact version; write 2.14.0")


def _version(version: Version | None) -> Iterator[Mistake]:
    if version is None:
        return
    yield from _names(version.value, INTERPOLATED, "version.value")
    if version.value is not None and version.env is None:
        yield Mistake(path="version.value", text="has no effect without `env`, the variable that gets it")


def _project(name: str | None, path: str) -> Iterator[Mistake]:
    if name is not None and not _PROJECT.fullmatch(name):
        yield Mistake(path=path, text=f"`{name}` is no distribution's name")


def _digest(text: str | None, path: str) -> Iterator[Mistake]:
    if text is not None and not _HEX.fullmatch(text):
        yield Mistake(path=path, text="is no sha256: wanted 64 hex digits")


def _inside(path: str | None, where: str) -> Iterator[Mistake]:
    if path is not None and (not path or path.startswith("/") or ".." in path.split("/")):
        yield Mistake(path=where, text=f"`{path}` leaves the source tree")


def _variables(env: Mapping[str, str] | None, path: str, jobs: Iterable[str] | None) -> Iterator[Mistake]:
    taken = tuple(jobs or ())
    for key in env or ():
        if not _VARIABLE.fullmatch(key):
            yield Mistake(path=f"{path}.{key}", text=f"`{key}` can't be the name of a variable")
        elif key in taken:
            text = f"`{key}` gets the number of jobs (build.jobs-env); limit them by resources.jobs"
            yield Mistake(path=f"{path}.{key}", text=text)
    yield from _interpolated(env, path)


def _interpolated(table: Mapping[str, Any] | None, path: str) -> Iterator[Mistake]:
    for key, value in (table or {}).items():
        for text in value if isinstance(value, tuple) else (value,):
            yield from _names(text, INTERPOLATED, f"{path}.{key}")


def _requirements(items: Iterable[str | None] | None, path: str) -> Iterator[Mistake]:
    for number, text in _each(items):
        from packaging.requirements import InvalidRequirement, Requirement  # noqa: PLC0415  # many recipes add nothing

        try:
            Requirement(text)
        except InvalidRequirement as error:
            reason = str(error).splitlines()[0]
            yield Mistake(path=f"{path}[{number}]", text=f"`{text}` is no requirement: {reason}")


def _names(text: str | None, known: tuple[str, ...], path: str) -> Iterator[Mistake]:
    if text is None:
        return
    for name in interpolate.names(text):
        if name not in known:
            yield Mistake(path=path, text=f"${{{name}}} is no known name; known: {', '.join(known)}")
    if re.search(r"\$\{[^}]*$", text):
        yield Mistake(path=path, text=f"`{text}` opens a ${{ and never closes it")


def _resources(resources: Resources | None) -> Iterator[Mistake]:
    if resources is None:
        return
    for key in ("mem_per_job", "link_mem", "disk"):
        yield from _unit(parse_bytes, getattr(resources, key), f"resources.{key.replace('_', '-')}")
    for number, one in _each(resources.classes):
        yield from _unit(parse_bytes, one.mem, f"resources.classes[{number}].mem")
    for key in ("unit_timeout", "build_timeout"):
        yield from _unit(parse_seconds, getattr(resources, key), f"resources.{key.replace('_', '-')}")
    if resources.jobs is not None and resources.jobs < 1:
        yield Mistake(path="resources.jobs", text=f"is {resources.jobs}, wanted at least 1")


def _unit(parse: Callable[[str], int], value: str | None, path: str) -> Iterator[Mistake]:
    if value is None:
        return
    try:
        if parse(value) == 0:
            yield Mistake(path=path, text=f"`{value}` is nothing, wanted more")
    except ValueError as error:
        yield Mistake(path=path, text=str(error))


def _condition(condition: Condition | None, path: str) -> Iterator[Mistake]:
    if condition is None:
        return
    for key in ("version", "cuda", "torch"):
        yield from _range(getattr(condition, key), f"{path}.{key}")
    for key in ("contains", "lacks"):
        commit = getattr(condition, key)
        if commit is not None and not _COMMIT.fullmatch(commit):
            yield Mistake(path=f"{path}.{key}", text=f"`{commit}` is no commit: wanted 7 hex digits or more")
    file = condition.file
    if file is None:
        return
    yield from _inside(file.path, f"{path}.file.path")
    yield from _pattern(file.matches, f"{path}.file.matches")
    yield from _digest(file.sha256, f"{path}.file.sha256")
    if file.present is False and (file.matches is not None or file.sha256 is not None):
        yield Mistake(
            path=f"{path}.file.present", text="is false, and a file that isn't there has no content to ask about"
        )


def _is_line(text: str, *, command: bool) -> bool:
    """Whether `text` says something, and for a command has no open quotation."""
    try:
        return bool(shlex.split(text)) if command else bool(text.strip())
    except ValueError:
        return False


def _pattern(text: str | None, path: str) -> Iterator[Mistake]:
    if text is None:
        return
    try:
        re.compile(text)
    except re.error as error:
        yield Mistake(path=path, text=f"is no regular expression: {error}")


def _range(text: str | None, path: str) -> Iterator[Mistake]:
    if text is not None and not _RANGE.fullmatch(text):
        yield Mistake(path=path, text=f"`{text}` is no version range; write >=3.5,<3.7")


def _checks(recipe: Recipe) -> Iterator[Mistake]:
    outputs = [output.name for _number, output in _each(recipe.output)]
    for number, one in _each(recipe.check):
        path = f"check[{number}]"
        for key in _CHECK_NEEDS.get(one.kind, ()):
            if not getattr(one, key):
                yield Mistake(path=f"{path}.{key}", text=f"`{key}` is missing: checks of kind {one.kind} need it")
        if one.output is not None and one.output not in outputs:
            known = ", ".join(name for name in outputs if name)
            yield Mistake(path=f"{path}.output", text=f"`{one.output}` is no output of this recipe; known: {known}")
        if (
            one.kind in {"import", "command"}
            and one.run is not None
            and not _is_line(one.run, command=one.kind == "command")
        ):
            yield Mistake(path=f"{path}.run", text=f"`{one.run}` is no whole line")
        if one.script is not None and ("/" in one.script or not one.script.endswith(".py")):
            yield Mistake(path=f"{path}.script", text=f"`{one.script}` is no name of a Python file in `checks/`")
        if one.target is not None and not re.fullmatch(r"\d+\.\d", one.target):
            yield Mistake(path=f"{path}.target", text=f"`{one.target}` is no compute capability; write 12.1")
        yield from _requirements(one.requires, f"{path}.requires")
        yield from _pattern(one.matches, f"{path}.matches")
        yield from _unit(parse_bytes, one.max, f"{path}.max")
