"""Whether wheels fit each other: requirements, FlashInfer's matched set, torch's pin of Triton, CUDA, torch's symbols.

A set is a wheel with those beside it: the others of a build, or the rest of an environment. What is missing in a set that
isn't a whole environment is no mistake: it may come from the index.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from builder.audit import cuda, imports, modules, requires, tags, torch
from builder.audit.linkage import more, own_libraries
from builder.audit.rules import Rule, table
from builder.wheel.read import normalised

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from packaging.requirements import Requirement

    from builder.audit.context import Context
    from builder.audit.facts import Contents
    from builder.audit.rules import Finding

__all__ = ["RULES", "judge"]

RULES = {
    **table(
        Rule(
            id="dependency-missing",
            severity="error",
            title="uses what it doesn't require",
            why="in a clean environment nothing installs that dependency, and the import fails",
            help="name the project in the dependencies of pyproject.toml (Requires-Dist)",
        ),
        Rule(
            id="dependency-conflict",
            severity="error",
            title="the set holds another version than is required",
            why="an installer refuses the set, or replaces a part of it by a wheel from elsewhere",
            help="build the parts for each other, or name an override where the pin is known to be too narrow",
        ),
        Rule(
            id="triton-pin",
            severity="warning",
            title="torch pins another Triton",
            why="installers take the Triton that torch pins, unless they are told otherwise",
            help="override the pin in the project that installs them; uv reads override-dependencies from pyproject.toml",
        ),
        Rule(
            id="flashinfer-set",
            severity="error",
            title="FlashInfer's packages don't match",
            why="FlashInfer ignores packages of another version and compiles kernels at first use instead: slow, and only a"
            " warning tells",
            help="take flashinfer-python, its jit-cache, the providers and its cubins from one build",
        ),
        cuda.MAJOR,
    ),
    **modules.RULES,
    **torch.RULES,
}

_TORCH = "torch"
_FLASHINFER = "flashinfer-python"
_CUBIN = "flashinfer-cubin"
_SHIM = "flashinfer-jit-cache"
_PROVIDER = re.compile(r"flashinfer-jit-cache-sm\d{2,3}[af]?")
#: What FlashInfer calls itself in a source checkout, where it compares nothing.
_UNKNOWN = "0.0.0+unknown"

#: Import names that their projects' names don't tell.
_PROJECTS = {
    "_cffi_backend": "cffi",
    "attr": "attrs",
    "bs4": "beautifulsoup4",
    "cpuinfo": "py-cpuinfo",
    "cudnn": "nvidia-cudnn-frontend",
    "cutlass": "nvidia-cutlass-dsl",
    "cv2": "opencv-python|opencv-python-headless",
    "dateutil": "python-dateutil",
    "git": "gitpython",
    "google": "protobuf|googleapis-common-protos",
    "grpc": "grpcio",
    "cuda": "cuda-python|cuda-bindings|cuda-core",
    "jwt": "pyjwt",
    "nccl": "nccl4py",
    "PIL": "pillow",
    "pkg_resources": "setuptools",
    "pynvml": "nvidia-ml-py",
    "pythonjsonlogger": "python-json-logger",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
    "zmq": "pyzmq",
}


def judge(contents: Contents, context: Context) -> Iterator[Finding]:
    """Yield what doesn't fit between the wheel, what it declares, and those beside it."""
    lacking = _lacking(contents, context.beside)
    imported = imports.read(contents, frozenset(path for one in lacking for path in one.files))
    yield from _judged_libraries(contents, lacking, imported, context.beside)
    yield from modules.judge(contents, imported, context.beside)
    yield from _judged_imports(contents, imported, context.beside)
    yield from _judged_requirements(contents, context.beside)
    yield from _judged_triton(contents, context.beside)
    yield from _judged_flashinfer(contents, context.beside)
    yield from _judged_cuda(contents, context)
    yield from torch.judge(contents, context)


class _Lacking(NamedTuple):
    """Libraries that no requirement brings, the files that need them, and a pattern on the projects that have them."""

    bringers: str
    libraries: list[str]
    files: list[str]

    def is_in(self, projects: Iterable[str]) -> bool:
        return any(re.fullmatch(self.bringers, name) for name in projects)


def _lacking(contents: Contents, beside: Sequence[Contents]) -> list[_Lacking]:
    own = own_libraries(contents)
    declared = _reachable(contents, beside) | {normalised(contents.project)}
    found: dict[str, _Lacking] = {}
    for file in contents.files:
        for library in file.elf.needed if file.elf else ():
            bringers = cuda.providers(library)
            if bringers and library not in own and not any(re.fullmatch(bringers, name) for name in declared):
                one = found.setdefault(bringers, _Lacking(bringers, [], []))
                one.libraries.append(library)
                one.files.append(file.path)
    if _TORCH in found:  # the others come with it
        return [one for one in found.values() if one.bringers == _TORCH or not re.fullmatch(one.bringers, _TORCH)]
    return list(found.values())


def _judged_libraries(
    contents: Contents, lacking: Sequence[_Lacking], imported: imports.Found, beside: Sequence[Contents]
) -> Iterator[Finding]:
    """Tell of libraries that no requirement brings; milder where the set has those.

    Milder, too, for a part that isn't imported at once, where an extra requires them, or where only extension modules need
    them and the system may have them (those of CUDA): it isn't for everybody, as CuPy's module for NCCL.
    """
    if not lacking:
        return
    there = {normalised(one.project) for one in beside}
    paths, optional = imports.modules(contents), requires.optional(contents)
    certain = {paths[one.module] for one in imported.extensions}
    for one in lacking:
        extra = one.is_in(optional)
        rest = "; an extra alone requires it" if extra else ""
        part = extra or (one.bringers != _TORCH and all(map(tags.is_extension, one.files)))
        yield RULES["dependency-missing"].finding(
            file=one.files[0],
            found=f"links to {', '.join(dict.fromkeys(one.libraries))}{more(list(dict.fromkeys(one.files)))}{rest}",
            wanted=f"Requires-Dist: {_spelled(one.bringers)}",
            severity="warning" if one.is_in(there) or (part and certain.isdisjoint(one.files)) else None,
        )


def _spelled(bringers: str) -> str:
    """Return the pattern of `cuda.providers` as a reader wants it: ``torch, cuda-toolkit or nvidia-cuda-runtime``."""
    names = [
        re.sub(r"\(.*\)\?|\\d\+", "", one) if "(" in one else one.replace(r"\d+", "13") for one in bringers.split("|")
    ]
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _judged_imports(contents: Contents, found: imports.Found, beside: Sequence[Contents]) -> Iterator[Finding]:
    """Compare what is imported at once with what is required. Certain only where nothing is required, nor in the set."""
    known = _reachable(contents, beside)
    unexplained = [one for one in found.needed if not any(_may_bring(name, one.package) for name in known)]
    if not unexplained:
        return
    packages = {normalised(one.project): imports.packages(one) for one in beside}
    required = frozenset[str]().union(*(packages[name] for name in known & packages.keys()))
    there = frozenset[str]().union(*packages.values())
    for one in unexplained:
        if one.package in required:
            continue
        project = _PROJECTS.get(one.package, normalised(one.package)).partition("|")[0]
        certain = not requires.declared(contents) and one.package not in there
        yield RULES["dependency-missing"].finding(
            file=one.file,
            found=f"imports {one.package} at once",
            wanted=f"Requires-Dist: {project}",
            severity=None if certain else "warning",
        )


def _may_bring(project: str, package: str) -> bool:
    """Whether a project's name tells of an import name; in doubt it does (``tvm_ffi`` of ``apache-tvm-ffi``)."""
    name = normalised(package)
    if re.fullmatch(_PROJECTS.get(package, re.escape(name)), project):
        return True
    plain, stem = project.replace("-", ""), name.replace("-", "")
    return len(stem) > 3 and (plain.endswith(stem) or plain.startswith(stem) or stem in project.split("-"))  # noqa: PLR2004


def _reachable(contents: Contents, beside: Sequence[Contents]) -> frozenset[str]:
    """Return the projects that installing it brings, as far as those beside tell what they require in turn."""
    by_name = {normalised(one.project): one for one in beside}
    found, waiting = set[str](), [contents]
    while waiting:
        for name in requires.declared(waiting.pop()) - found:
            found.add(name)
            if name in by_name:
                waiting.append(by_name[name])
    return frozenset(found)


def _judged_requirements(contents: Contents, beside: Sequence[Contents]) -> Iterator[Finding]:
    by_name = {normalised(one.project): one for one in beside}
    project = normalised(contents.project)
    for one in requires.requirements(contents):
        name = normalised(one.name)
        other = by_name.get(name)
        if other is None or requires.satisfied(one, other.version) or (project == "torch" and name == "triton"):
            continue  # torch's pin of Triton is told with Triton
        yield RULES["dependency-conflict"].finding(found=f"{name} {other.version}", wanted=f"Requires-Dist: {one}")


def _judged_triton(contents: Contents, beside: Sequence[Contents]) -> Iterator[Finding]:
    if normalised(contents.project) != "triton":
        return
    for other in beside:
        for one in requires.requirements(other) if normalised(other.project) == "torch" else ():
            if normalised(one.name) == "triton" and not requires.satisfied(one, contents.version):
                yield RULES["triton-pin"].finding(
                    found=f"triton {contents.version}; torch {other.version} requires {_pin(one)}",
                    wanted=f'[tool.uv] override-dependencies = ["triton=={contents.version}"]',
                )


def _pin(one: Requirement) -> str:
    return f"{one.name}{one.specifier}"


def _judged_flashinfer(contents: Contents, beside: Sequence[Contents]) -> Iterator[Finding]:
    """Compare versions as FlashInfer does when it starts (``flashinfer/jit/env.py``)."""
    name = normalised(contents.project)
    if name not in {_CUBIN, _SHIM} and not _PROVIDER.fullmatch(name):
        return
    versions = {normalised(one.project): one.version for one in beside}
    mine, python, shim = contents.version, versions.get(_FLASHINFER), versions.get(_SHIM)
    matches = mine == python or (name != _CUBIN and mine.startswith(f"{python}+"))
    if python and python != _UNKNOWN and not matches:
        yield RULES["flashinfer-set"].finding(
            found=f"{name} {mine}, {_FLASHINFER} {python}", wanted=f"the version {python}, local part included"
        )
    if _PROVIDER.fullmatch(name) and shim and shim != mine:
        yield RULES["flashinfer-set"].finding(
            found=f"{name} {mine}, {_SHIM} {shim}", wanted=f"the version {shim}, local part included"
        )
    elif _PROVIDER.fullmatch(name) and python and not shim:
        yield RULES["flashinfer-set"].finding(
            found=f"{name} without {_SHIM}", wanted=f"{_SHIM} {mine} beside it: providers are found through it only"
        )


def _judged_cuda(contents: Contents, context: Context) -> Iterator[Finding]:
    """Compare major versions of CUDA over the set; each pair of wheels that differ is told with the older one.

    One that isn't for the target's CUDA was refused for that already (`linkage`).
    """
    mine = cuda.majors(contents, context.cuda)
    for other in context.beside if mine and max(mine) == context.cuda else ():
        theirs = cuda.majors(other, context.cuda)
        newer = [major for major in theirs if major > max(mine)]
        if newer:
            path, evidence = mine[max(mine)]
            yield RULES["cuda-major"].finding(
                file=path,
                found=f"{evidence}; {other.project} {other.version} has {theirs[max(newer)][1]}",
                wanted=f"CUDA {max(newer)} in the whole set",
            )
