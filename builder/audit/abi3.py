"""Whether a wheel that is tagged ``abi3`` keeps to Python's stable ABI, and to that of the Python that its tag names.

The data are those of `abi3info`. Its companion `abi3audit` looks into the same two tables, and would bring requests,
requests-cache, rich, pefile and kaitaistruct along for it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from builder.audit import cuda, glibc, requires
from builder.audit.rules import Rule, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from builder.audit.facts import Contents, File
    from builder.audit.rules import Finding

__all__ = ["RULES", "judge"]

RULES = table(
    Rule(
        id="abi3-violation",
        severity="error",
        title="uses symbols of Python that aren't in its stable ABI",
        why="the tag says abi3; another Python than the one it was built for may lack them, or mean something else",
        help="build with Py_LIMITED_API, or tag it for one Python",
    ),
    Rule(
        id="abi3-floor",
        severity="warning",
        title="uses symbols of a newer Python than its tag names",
        why="installers take it for a Python that lacks them, where the import fails",
        help="raise the tag or Requires-Python to that Python, or set Py_LIMITED_API to that of the tag",
    ),
)

_SYMBOL = re.compile(r"_?Py[A-Z_]\w*")
#: Each module defines them itself; `Py_XDECREF` and its like are macros that some compilers leave as symbols.
_OF_MODULES = re.compile(r"PyInit_\w+|PyModExport_\w+|Py_X?(DECREF|INCREF)")
_FOR_ONE_PYTHON = re.compile(r"\.(cpython|pypy|graalpy)-?\d[\w-]*\.so")
#: A library in the wheel that is made for Python: ``libpyside6.abi3.so.6.12``.
_FOR_PYTHON = re.compile(r"py|abi3", re.IGNORECASE)
_NAMED = 5


def judge(contents: Contents, files: Sequence[File], own: frozenset[str] = frozenset()) -> Iterator[Finding]:
    """Yield which of `files` use symbols of Python that another one may lack, where the wheel is tagged ``abi3``.

    `own` are the libraries that the wheel brings.
    """
    tagged = _abi3_tag(contents)
    if tagged is None:
        return
    python = requires.floor(requires.requires_python(contents))
    newer: dict[int, dict[str, list[str]]] = {}
    for file in files:
        if file.elf is None or file.elf.kind != "shared" or _FOR_ONE_PYTHON.search(file.path):
            continue
        added = {name: _added(name) for name in sorted(file.elf.undefined - file.elf.weak) if _is_python(name)}
        if outside := [name for name, minor in added.items() if minor is None]:
            yield RULES["abi3-violation"].finding(
                file=file.path,
                found=_listed(outside),
                wanted="symbols of Python's stable ABI only",
                severity="warning" if _may_have_them_elsewhere(file, own) else None,
            )
        minor = max((one for one in added.values() if one is not None), default=0)
        if minor > tagged:
            names = [name for name, one in added.items() if one == minor]
            newer.setdefault(minor, {})[file.path] = names
    for minor, found in sorted(newer.items()):
        path, names = next(iter(found.items()))
        rest = len(found) - 1
        others = f", and {rest} more file{'s' if rest > 1 else ''} like it" if rest else ""
        yield RULES["abi3-floor"].finding(
            file=path,
            found=f"{_listed(names)} of Python 3.{minor}, in a wheel tagged cp3{tagged}{others}",
            wanted=f"cp3{minor}-abi3" if python < minor else f"nothing: Requires-Python asks for 3.{python} and up",
            severity=None if python < minor else "info",
        )


def _abi3_tag(contents: Contents) -> int | None:
    """Return the lowest minor of Python that an abi3 tag names, or None where it has no such tag."""
    tags = list(contents.tags)
    parts = contents.filename.removesuffix(".whl").split("-")
    if len(parts) >= 5:  # noqa: PLR2004  # name, version, python, abi, platform
        tags += [f"{python}-{abi}-" for abi in parts[-2].split(".") for python in parts[-3].split(".")]
    found = [int(match[1]) for tag in tags if (match := re.match(r"cp3(\d+)-abi3-", tag))]
    return min(found, default=None)


def _may_have_them_elsewhere(file: File, own: frozenset[str]) -> bool:
    """Whether it needs a library that may export such names itself, as Shiboken does: one for Python, or of who knows."""
    if file.elf is None:
        return False
    system = glibc.libraries(file.elf.machine)
    return any(
        _FOR_PYTHON.search(one) if one in own else not (one in system or one.startswith("ld-") or cuda.providers(one))
        for one in file.elf.needed
    )


def _is_python(name: str) -> bool:
    return bool(_SYMBOL.fullmatch(name)) and not _OF_MODULES.fullmatch(name)


def _added(name: str) -> int | None:
    """Return the minor of Python 3 whose stable ABI got `name`, or None where it isn't part of it."""
    from abi3info import DATAS, FUNCTIONS  # noqa: PLC0415
    from abi3info.models import Symbol  # noqa: PLC0415

    found = FUNCTIONS.get(Symbol(name)) or DATAS.get(Symbol(name))
    return found.added.minor if found else None


def _listed(names: Iterable[str]) -> str:
    every = list(names)
    return ", ".join(every[:_NAMED]) + (f" and {len(every) - _NAMED} more" if len(every) > _NAMED else "")
