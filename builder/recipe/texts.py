"""What a text in a recipe may be: names, ranges, patterns, digests, paths.

Each function gets the path where the text stands; None is a value that was wrong already.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar

from builder.recipe import interpolate
from builder.recipe.convert import Mistake
from builder.recipe.model import INTERPOLATED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from builder.recipe.condition import Condition

__all__ = [
    "MODULE",
    "NAME",
    "VARIABLE",
    "VERSION",
    "commit",
    "condition",
    "digest",
    "each",
    "inside",
    "interpolated",
    "line",
    "names",
    "pattern",
    "project",
    "requirements",
    "said",
    "unit",
    "variable",
    "variables",
    "version_range",
    "word",
]

#: Names of recipes and of what is in them, which are also words of a command line and part of paths.
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")

#: A variable's name.
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

#: A module's name, as `import` takes it.
MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")

#: A version of PEP 440, without a local part.
VERSION = r"[0-9]+(\.[0-9]+)*((a|b|rc)[0-9]+)?(\.post[0-9]+)?(\.dev[0-9]+)?"

#: A distribution's name (core metadata).
_PROJECT = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_HEX = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{7,64}")
#: A clause of PEP 440; ``.*`` only with == and !=, and ~= needs two numbers.
_CLAUSE = rf"\s*((>=|<=|>|<)\s*{VERSION}|(==|!=)\s*{VERSION}(\.\*)?|~=\s*[0-9]+\.{VERSION})\s*"
#: Versions that conditions and floors name.
_RANGE = re.compile(f"{_CLAUSE}(,{_CLAUSE})*")

T = TypeVar("T")


def commit(text: str | None, path: str) -> Iterator[Mistake]:
    """Yield a mistake unless it is a commit, long enough to mean one."""
    if text is not None and not _COMMIT.fullmatch(text):
        yield Mistake(path=path, text=f"`{text}` is no commit: wanted 7 hex digits or more")


def condition(one: Condition | None, path: str) -> Iterator[Mistake]:
    """Yield the mistakes of a condition: its ranges, commits and what it asks of a file."""
    if one is None:
        return
    for key in ("version", "cuda", "torch"):
        yield from version_range(getattr(one, key), f"{path}.{key}")
    for key in ("contains", "lacks"):
        yield from commit(getattr(one, key), f"{path}.{key}")
    file = one.file
    if file is None:
        return
    yield from inside(file.path, f"{path}.file.path")
    yield from pattern(file.matches, f"{path}.file.matches")
    yield from digest(file.sha256, f"{path}.file.sha256")
    if file.present is False and (file.matches is not None or file.sha256 is not None):
        yield Mistake(
            path=f"{path}.file.present", text="is false, and a file that isn't there has no content to ask about"
        )


def digest(text: str | None, path: str) -> Iterator[Mistake]:
    """Yield a mistake unless it is a sha256."""
    if text is not None and not _HEX.fullmatch(text):
        yield Mistake(path=path, text="is no sha256: wanted 64 hex digits")


def each(items: Iterable[T | None] | None) -> Iterator[tuple[int, T]]:
    """Yield number and entry of an array as far as it could be read."""
    return ((number, item) for number, item in enumerate(items or ()) if item is not None)


def inside(path: str | None, where: str) -> Iterator[Mistake]:
    """Yield a mistake unless the path stays in the tree."""
    if path is not None and (not path or path.startswith("/") or ".." in path.split("/")):
        yield Mistake(path=where, text=f"`{path}` leaves the source tree")


def interpolated(table: Mapping[str, Any] | None, path: str) -> Iterator[Mistake]:
    """Yield the mistakes of values that may use the names of `INTERPOLATED`."""
    for key, value in (table or {}).items():
        for text in value if isinstance(value, tuple) else (value,):
            yield from names(text, INTERPOLATED, f"{path}.{key}")


def line(text: str | None, path: str) -> Iterator[Mistake]:
    """Yield a mistake where control characters are in it: it goes into files that have one thing a line."""
    if text is not None and re.search(r"[\0-\x1f\x7f]", text):
        yield Mistake(path=path, text="is more than one line of text")


def names(text: str | None, known: Iterable[str], path: str) -> Iterator[Mistake]:
    """Yield each of the ``${names}`` that isn't `known`."""
    if text is None:
        return
    known = tuple(known)
    for name in interpolate.names(text):
        if name not in known:
            told = f"known: {', '.join(known)}" if known else "none is known here"
            yield Mistake(path=path, text=f"${{{name}}} is no known name; {told}")
    if re.search(r"\$\{[^}]*$", text):
        yield Mistake(path=path, text=f"`{text}` opens a ${{ and never closes it")


def pattern(text: str | None, path: str) -> Iterator[Mistake]:
    """Yield a mistake unless it is a regular expression."""
    if text is None:
        return
    try:
        re.compile(text)
    except re.error as error:
        yield Mistake(path=path, text=f"is no regular expression: {error}")


def project(name: str | None, path: str) -> Iterator[Mistake]:
    """Yield a mistake unless it is a distribution's name."""
    if name is not None and not _PROJECT.fullmatch(name):
        yield Mistake(path=path, text=f"`{name}` is no distribution's name")


def requirements(items: Iterable[str | None] | None, path: str) -> Iterator[Mistake]:
    """Yield what is no requirement (PEP 508)."""
    for number, text in each(items):
        from packaging.requirements import InvalidRequirement, Requirement  # noqa: PLC0415  # many recipes add nothing

        try:
            Requirement(text)
        except InvalidRequirement as error:
            reason = str(error).splitlines()[0]
            yield Mistake(path=f"{path}[{number}]", text=f"`{text}` is no requirement: {reason}")


def unit(parse: Callable[[str], int], value: str | None, path: str) -> Iterator[Mistake]:
    """Yield a mistake unless it is a size or a time that `parse` can read, and more than none."""
    if value is None:
        return
    try:
        if parse(value) == 0:
            yield Mistake(path=path, text=f"`{value}` is nothing, wanted more")
    except ValueError as error:
        yield Mistake(path=path, text=str(error))


def variable(key: str, path: str) -> Iterator[Mistake]:
    """Yield a mistake unless it can be the name of a variable."""
    if not VARIABLE.fullmatch(key):
        yield Mistake(path=path, text=f"`{key}` can't be the name of a variable")


def variables(env: Mapping[str, str] | None, path: str, jobs: Iterable[str] | None) -> Iterator[Mistake]:
    """Yield the mistakes of a build's variables, none of which may be one of `jobs`."""
    taken = tuple(jobs or ())
    for key in env or ():
        yield from variable(key, f"{path}.{key}")
        if key in taken:
            text = f"`{key}` gets the number of jobs (build.jobs-env); limit them by resources.jobs"
            yield Mistake(path=f"{path}.{key}", text=text)
    yield from interpolated(env, path)


def version_range(text: str | None, path: str) -> Iterator[Mistake]:
    """Yield a mistake unless it is a range of versions (PEP 440)."""
    if text is not None and not _RANGE.fullmatch(text):
        yield Mistake(path=path, text=f"`{text}` is no version range; write >=3.5,<3.7")


def word(text: str | None, path: str) -> Iterator[Mistake]:
    """Yield a mistake unless it is a name such as recipes have."""
    if text is not None and not NAME.fullmatch(text):
        yield Mistake(path=path, text=f"`{text}` must be lower case words joined by `-`")


def said(text: str | None, path: str) -> Iterator[Mistake]:
    """Yield a mistake where nothing is said."""
    if text is not None and not text.strip():
        yield Mistake(path=path, text="is empty")
