"""Whether a wheel has the modules of its own that it imports, and whether Python can start its extension modules."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from builder.audit import imports, requires, tags
from builder.audit.rules import Rule, table
from builder.wheel.read import normalised

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from builder.audit.facts import Contents, Elf
    from builder.audit.rules import Finding

__all__ = ["RULES", "judge"]

RULES = table(
    Rule(
        id="module-missing",
        severity="error",
        title="imports a module of its own that isn't there",
        why="the import of the package fails with ModuleNotFoundError or ImportError",
        help="look why the build left it out: an extension that wasn't compiled, a folder that isn't listed as package data",
    ),
    Rule(
        id="ext-init-missing",
        severity="error",
        title="an extension module without the function by which Python starts it",
        why="the import fails with `dynamic module does not define module export function`",
        help="name the file as the module in its source is named, and keep PyInit_<name> visible (no version script,"
        " no -fvisibility=hidden without PyMODINIT_FUNC); a library that isn't imported needs no such name",
    ),
)

#: Symbols by which a library registers operators with torch, which loads it by `torch.ops.load_library`.
_REGISTERING = re.compile(r"_ZN5torch7Library|aoti_torch_library_|torch_library_")


def judge(contents: Contents, found: imports.Found, beside: Sequence[Contents]) -> Iterator[Finding]:
    """Yield what is imported and missing, and what can't be imported; `found` is what `imports` read."""
    yield from _judged_missing(contents, found, beside)
    yield from _judged_extensions(contents, found)


def _judged_missing(contents: Contents, found: imports.Found, beside: Sequence[Contents]) -> Iterator[Finding]:
    there = frozenset[str]().union(*(imports.modules(one).keys() for one in beside)) if found.missing else frozenset()
    damaged = bool(contents.filename and contents.problems)  # then files may be missing for another reason
    for one in found.missing:
        if damaged or one.module in there:
            continue
        # Another part of the same product may bring it, and not be at hand.
        package = normalised(one.module.partition(".")[0])
        others = requires.declared(contents) - {normalised(contents.project)}
        known = {normalised(other.project) for other in beside}
        split = any(package in other for other in others - known)
        yield RULES["module-missing"].finding(
            file=one.file,
            found=f"imports {one.module} at once",
            wanted=f"{one.module.replace('.', '/')}.py, or an extension module",
            severity="warning" if split or not contents.filename else None,
        )


def _judged_extensions(contents: Contents, found: imports.Found) -> Iterator[Finding]:
    imported = {one.module: one.file for one in found.extensions}
    modules = {path: name for name, path in imports.modules(contents).items()}
    for file in contents.files:
        extension = tags.Extension.parse(file.path)
        if not extension or not file.elf or file.elf.kind != "shared" or file.damage or file.elf.machine == "cuda":
            continue
        name = extension.module.rpartition("/")[2]
        by = imported.get(modules.get(file.path, ""))
        if by and file.elf.inits & _starting(name):
            continue
        if not by and not _lacks_init(extension, file.elf):
            continue
        others = ", ".join(sorted(file.elf.inits))
        yield RULES["ext-init-missing"].finding(
            file=file.path,
            found=f"exports {others or 'no PyInit function'}" + (f"; {by} imports it" if by else ""),
            wanted=f"PyInit_{name}",
            # What nobody imports at once may be loaded by other means (ctypes), or never.
            severity=None if by and contents.filename else "warning",
        )


def _starting(name: str) -> set[str]:
    return {f"PyInit_{name}", f"PyModExport_{name}"}


def _lacks_init(extension: tags.Extension, elf: Elf) -> bool:
    """Whether a library that nobody imports for certain is named as an extension module, and isn't one."""
    name = extension.module.rpartition("/")[2]
    if not tags.is_extension(extension.path) or not name.isascii() or name.startswith("lib"):
        return False
    if elf.inits & _starting(name):
        return False
    return bool(elf.inits) or not any(map(_REGISTERING.match, elf.undefined))
