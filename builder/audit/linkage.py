"""Whether the ELF files of a wheel find what they are linked to on the target, and promise no more than they keep.

Which libraries every system has, and in which versions, is told by auditwheel's policies (`glibc`).
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from typing import TYPE_CHECKING

from builder.audit import abi3, cuda, glibc, libc, requires, rpath, system, tags
from builder.audit.rules import Rule, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from builder.audit.context import Context
    from builder.audit.facts import Contents, Elf, File
    from builder.audit.rules import Finding

__all__ = ["RULES", "judge", "more", "own_libraries"]

RULES = {
    **table(
        Rule(
            id="needed-unknown",
            severity="error",
            title="linked to a library that nothing brings",
            why="neither the system, nor the wheel, nor what it requires has that library: the import fails",
            help="link it statically, pack it into the wheel, or require the project that brings it",
        ),
        Rule(
            id="needed-system",
            severity="info",
            title="linked to a library that a system package brings",
            why="a slim image may lack it",
            help="install the package in the image",
        ),
        cuda.MAJOR,
    ),
    **libc.RULES,
    **glibc.RULES,
    **rpath.RULES,
    **abi3.RULES,
}

_LOADER = re.compile(r"ld-linux[\w-]*\.so\.\d+|ld64\.so\.\d")

_PLUGIN = re.compile(r"plugin", re.IGNORECASE)


def judge(contents: Contents, context: Context) -> Iterator[Finding]:
    """Yield what is wrong with how the files are linked."""
    files = [
        file for file in contents.files if file.elf and file.elf.kind in {"shared", "program"} and _is_host(file.elf)
    ]
    yield from _judged_cuda(contents, context)
    if not files:
        return
    own = own_libraries(contents)
    yield from libc.judge(contents, files)
    yield from glibc.judge(contents, files, own, context)
    yield from _judged_needed(contents, files, own, context)
    yield from rpath.judge(files)
    yield from abi3.judge(contents, files, own)


def own_libraries(contents: Contents) -> frozenset[str]:
    """Return the names by which other libraries may need those that it holds: SONAME and file name."""
    found = {file.elf.soname for file in contents.files if file.elf and file.elf.kind == "shared"}
    found |= {posixpath.basename(file.path) for file in contents.files if file.elf and file.elf.kind == "shared"}
    return frozenset(found - {""})


def _is_host(elf: Elf) -> bool:
    return elf.machine != "cuda"


def _judged_needed(contents: Contents, files: list[File], own: frozenset[str], context: Context) -> Iterator[Finding]:
    brought = own.union(*(own_libraries(one) for one in context.beside))
    declared = requires.declared(contents)
    packages: dict[str, str] = {}
    unknown: dict[tuple[tuple[str, ...], bool], list[str]] = {}
    plugins = _plugins(files)
    for file in files:
        lost = []
        for library in file.elf.needed if file.elf else ():
            if library in brought or _is_system(library, file) or _is_required(library, declared):
                continue
            if libc.is_musl(library):
                continue  # told as another C library
            package = system.package(library)
            if package is None:
                lost.append(library)
            elif package:
                packages[library] = package
        if lost:
            unknown.setdefault((tuple(lost), file.path in plugins), []).append(file.path)
    for (libraries, optional), paths in unknown.items():
        yield RULES["needed-unknown"].finding(
            file=paths[0],
            found=", ".join(libraries) + more(paths),
            wanted="libraries of the system, the wheel or its requirements",
            # Installed, it may be a part that nobody loads; and so may one of several plugins.
            severity="warning" if optional or not contents.filename else None,
        )
    for library, package in sorted(packages.items()):
        yield RULES["needed-system"].finding(found=library, wanted=f"the package {package} of Ubuntu, or its like")


def _plugins(files: Sequence[File]) -> frozenset[str]:
    """Return the libraries that are loaded by name, one or another of several, or not at all; and what only they need.

    They are called plugins, or have others of the same family beside them; none is named as an extension module.
    """
    names = {name: file for file in files if file.elf for name in (posixpath.basename(file.path), file.elf.soname)}
    needs = {
        file.path: {names[one].path for one in file.elf.needed if one in names} - {file.path}
        for file in files
        if file.elf
    }
    needed = set[str]().union(*needs.values())
    families = Counter(_family(file.path) for file in files)
    reached, waiting = (
        set[str](),
        [
            file.path
            for file in files
            if file.path not in needed
            and (tags.is_extension(file.path) or not (_PLUGIN.search(file.path) or families[_family(file.path)] > 1))
        ],
    )
    while waiting:
        path = waiting.pop()
        if path not in reached:
            reached.add(path)
            waiting += needs[path]
    return frozenset(needs) - reached


def _family(path: str) -> str:
    """Return what the libraries of one purpose have in common: ``libcore#``, ``libplugin_#`` for ``libplugin_UCX.so``."""
    folder, name = posixpath.split(path)
    stem = re.sub(r"\.so[.\d]*$", "", name)
    numbered = stem.rstrip("0123456789")
    shared = numbered if numbered != stem else stem[: len(stem) - len(re.split("[_-]", stem)[-1])]
    return posixpath.join(folder, f"{shared}#") if shared.strip("_-") else path


def more(paths: Sequence[str]) -> str:
    """Return what tells of the other files, where a finding names the first."""
    rest = len(paths) - 1
    return "" if not rest else f", and {rest} more file{'s' if rest > 1 else ''} like it"


def _is_system(library: str, file: File) -> bool:
    """Whether every system has it, by the policy of the youngest platform."""
    return bool(_LOADER.fullmatch(library) or (file.elf and library in glibc.libraries(file.elf.machine)))


def _is_required(library: str, declared: frozenset[str]) -> bool:
    """Whether it is one of torch's or CUDA's (`sets` looks for who brings it), or named after a required project."""
    stem = re.sub(r"[^a-z0-9]", "", re.sub(r"(\.abi3)?\.so.*|^lib", "", library).lower())
    return bool(cuda.providers(library)) or any(_is_named_after(stem, project) for project in declared)


def _is_named_after(stem: str, project: str) -> bool:
    """Whether it may be a project's: ``libtvm_ffi.so`` of ``apache-tvm-ffi``, ``libQt6Core.so.6`` of ``PyQt6-Qt6``."""
    plain = project.replace("-", "")
    long = len(stem) > 3  # noqa: PLR2004  # shorter ones begin or end too many names
    numbered = tuple(part for part in project.split("-") if re.fullmatch(r"[a-z]{2,}\d+", part))
    return (
        stem in project.split("-")
        or stem.startswith(numbered)
        or (long and (plain.endswith(stem) or plain.startswith(stem)))
    )


def _judged_cuda(contents: Contents, context: Context) -> Iterator[Finding]:
    found = cuda.majors(contents, context.cuda)
    several = " and ".join(str(one) for one in sorted(found))
    for major, (path, evidence) in sorted(found.items()):
        if major != context.cuda:
            mixed = f", in a wheel for {several}" if len(found) > 1 else ""
            yield RULES["cuda-major"].finding(
                file=path, found=f"{evidence}: CUDA {major}{mixed}", wanted=f"CUDA {context.cuda}"
            )
