"""What a recipe may say, as types. The loader, the JSON schema and the reference page are all made from this file.

Each field carries its documentation in `doc(...)`; its type annotation is the rule that the loader enforces. Keys in TOML
are the field names with ``-`` for ``_``. Tables are classed: `about`, `resources` and `check` never change a wheel's bytes
and stay out of the fingerprint; all else is in (see `builder.inputs`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = [
    "INTERPOLATED",
    "OUTSIDE",
    "About",
    "Build",
    "Check",
    "Condition",
    "FileCondition",
    "MemoryClass",
    "Output",
    "Patch",
    "Recipe",
    "Resources",
    "Source",
    "System",
    "Version",
    "doc",
]

#: Tables that never change a wheel's bytes.
OUTSIDE = frozenset({"about", "resources", "check"})

#: The only names that ``${...}`` may use in values of `env`, `config-settings` and `version.value`.
INTERPOLATED = ("arch", "cuda", "torch", "version", "commit", "label", "src", "jobs")


def doc(text: str, *, default: Any = dataclasses.MISSING, example: str = "") -> Any:  # noqa: ANN401  # as `field` itself
    """Return a dataclass field that carries its documentation and an example in TOML."""
    metadata = {"doc": text, "example": example}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=dict, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileCondition:
    """A condition on one file of the source tree."""

    path: str = doc("path in the tree", example='path = "cmake/llvm-info.json"')
    present: bool | None = doc("whether it has to exist", default=None, example="present = true")
    matches: str | None = doc("a regular expression that has to be found in it", default=None)
    sha256: str | None = doc("the digest that it has to have", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """Data, never code: all that are given must hold."""

    version: str | None = doc("a PEP 440 range of the source's version", default=None, example='version = ">=3.5,<3.7"')
    contains: str | None = doc("a commit that must be an ancestor (or the commit itself)", default=None)
    lacks: str | None = doc("a commit that must not be an ancestor", default=None)
    file: FileCondition | None = doc("a condition on a file of the tree", default=None)
    arch: str | None = doc("the user's arch word, shell pattern", default=None, example='arch = "12.*"')
    cuda: str | None = doc("a range of the toolkit's version", default=None, example='cuda = ">=13.0"')
    torch: str | None = doc("a range of torch's version", default=None)
    output: str | None = doc("an output's name, shell pattern", default=None)
    source: Literal["git", "sdist", "archive", "local"] | None = doc("the kind of source in use", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """For people; outside the fingerprint."""

    summary: str = doc("one line", default="", example='summary = "kernels for serving"')
    homepage: str = doc("where the project lives", default="")
    license: str = doc("SPDX expression of the project", default="")
    notes: tuple[str, ...] = doc("what somebody who builds this should know", default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where the project comes from. With several, the first is the default; ``--ref`` takes git, ``--version`` the sdist."""

    kind: Literal["git", "sdist", "archive", "local"] = doc("what it is", example='kind = "sdist"')
    url: str | None = doc("git: the repository; archive: the file (``${version}`` allowed)", default=None)
    ref: str | None = doc("git: branch, tag, commit or refs/pull/N/head taken without ``--ref``", default=None)
    submodules: Literal["all", "none"] | tuple[str, ...] = doc(
        "git: which submodules belong to the tree; a list names paths", default="none"
    )
    project: str | None = doc("sdist: the name on the index", default=None, example='project = "flashinfer-python"')
    version: str | None = doc("sdist, archive: the version taken without ``--version``", default=None)
    sha256: str | None = doc(
        "sdist, archive: the file's digest; without it the index's is taken and kept", default=None
    )
    path: str | None = doc("local: the folder, relative to the recipe", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """How our label gets into the version."""

    env: str | None = doc(
        "a variable that the project appends to its version or takes as such", default=None, example='env = "X_SUFFIX"'
    )
    value: str | None = doc("what `env` is set to; ``${label}`` is our local part without ``+``", default=None)
    module: str | None = doc(
        "a file in the wheel that repeats the version; rewritten along with the metadata (shell pattern)", default=None
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """What the machine has to offer. Versions of what is named here count in the fingerprint."""

    apt: tuple[str, ...] = doc("Debian packages that the build needs", default=(), example='apt = ["g++", "git"]')
    cuda: str | None = doc("range of the CUDA toolkit, or nothing when the build doesn't use it", default=None)
    gcc: str | None = doc("range of g++", default=None, example='gcc = ">=13"')
    clang: str | None = doc("range of clang++; taken when found, unless required by `tools`", default=None)
    rust: str | None = doc("range of rustc", default=None)
    tools: tuple[str, ...] = doc("programs whose version counts", default=(), example='tools = ["cmake", "protoc"]')
    headers: bool = doc("whether Python's headers are needed", default=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """How the backend is called and what its environment holds."""

    hook: Literal["cmake", "setuptools", "flashinfer", "make", "none"] = doc(
        "by which way the project starts compilers (where job limits and launchers go)", default="setuptools"
    )
    requires_add: tuple[str, ...] = doc("requirements added to the project's own", default=())
    requires_remove: tuple[str, ...] = doc("names removed from them", default=(), example='requires-remove = ["torch"]')
    requires_pin: tuple[str, ...] = doc("constraints: they add nothing, they bind", default=(), example='["cmake<4"]')
    torch: Literal["none", "existing", "pinned"] = doc(
        "whether the build imports torch: never by accident; `pinned` takes --torch, the stack's or this recipe's pin",
        default="none",
    )
    torch_version: str | None = doc(
        'torch\'s exact version where `torch = "pinned"` and nothing else says', default=None
    )
    env: Mapping[str, str] = doc("variables of the build step; nothing of the caller's gets in", default={})
    config_settings: Mapping[str, str | tuple[str, ...]] = doc("PEP 517 config settings", default={})
    jobs_env: tuple[str, ...] = doc(
        "variables that get the number of jobs", default=("MAX_JOBS", "CMAKE_BUILD_PARALLEL_LEVEL")
    )
    strip: Literal["none", "debug", "unneeded", "all"] = doc(
        "what is stripped off ELF files in the wheel", default="none"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One wheel."""

    name: str = doc("the distribution's name", example='name = "flashinfer-python"')
    path: str = doc("the folder with its pyproject.toml", default=".")
    default: bool = doc("whether it is built without ``--output``", default=True)
    env: Mapping[str, str] = doc("added to the build's", default={})
    config_settings: Mapping[str, str | tuple[str, ...]] = doc("added to the build's", default={})
    requires_add: tuple[str, ...] = doc("added to the build's", default=())
    when: Condition | None = doc("only where this holds", default=None)
    version_module: str | None = doc("instead of `version.module`", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """A patch from ``patches/<recipe>/``, applied without fuzz in the order given."""

    id: str = doc("a name that is unique in the recipe", example='id = "drop-fa3"')
    file: str = doc("the file in ``patches/<recipe>/``")
    sha256: str = doc("its digest")
    upstream: str | None = doc("link to the change's own page", default=None)
    license: str | None = doc("SPDX expression of its context lines", default=None)
    on_upstream: Literal["skip", "fail"] = doc("what to do when the tree has it already", default="skip")
    when: Condition | None = doc("only where this holds", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryClass:
    """A memory hint for units whose path matches."""

    match: str = doc("shell pattern on the unit's source", example='match = "*fused_moe_120*"')
    mem: str = doc("peak of one unit", example='mem = "8GiB"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Hints for memory, disk and time; outside the fingerprint."""

    mem_per_job: str = doc("peak of an ordinary unit", default="2GiB", example='mem-per-job = "3GiB"')
    link_mem: str = doc("peak of a link", default="4GiB")
    disk: str = doc("space that a build takes at its peak", default="2GiB")
    jobs: int | None = doc("at most so many compilers at once", default=None)
    unit_timeout: str | None = doc("a compiler that takes longer is reported as hung", default=None)
    build_timeout: str | None = doc("the build step is stopped after this", default=None, example='"6h"')
    classes: tuple[MemoryClass, ...] = doc("memory hints by path", default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What is looked at in the finished wheel; outside the fingerprint, kept with the findings."""

    kind: Literal["import", "command", "size", "device-code", "log"] = doc("what is done")
    output: str | None = doc("which output; all when left out", default=None)
    run: str | None = doc("import: the statement; command: the program", default=None)
    matches: str | None = doc("command: what its output has to match", default=None)
    max: str | None = doc("size: the largest file", default=None)
    forbid: tuple[str, ...] = doc("log: lines that must not appear", default=())
    target: str | None = doc("device-code: the compute capability", default=None)
    require: tuple[str, ...] = doc("device-code: libraries (shell patterns) that must run natively", default=())
    allow_ptx: tuple[str, ...] = doc("device-code: libraries that may run by JIT", default=())
    allow_absent: tuple[str, ...] = doc("device-code: libraries that may have nothing for the target", default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A recipe as written, after the layers were laid over each other."""

    schema: Literal[1] = doc("version of this format", example="schema = 1")
    name: str = doc("the word for the command line", example='name = "flashinfer"')
    about: About = doc("for people", default=About())
    source: tuple[Source, ...] = doc("where it comes from; the first is the default")
    version: Version = doc("how the label gets in", default=Version())
    system: System = doc("what the machine has to offer", default=System())
    build: Build = doc("how it is built", default=Build())
    output: tuple[Output, ...] = doc("the wheels that come out")
    patch: tuple[Patch, ...] = doc("what is changed in the source", default=())
    arch_map: Mapping[str, tuple[str, ...]] = doc(
        "what the project makes of the user's arch word; the effective list counts in the fingerprint", default={}
    )
    builds_on: tuple[str, ...] = doc("recipes whose wheels this build needs; their fingerprints count", default=())
    resources: Resources = doc("hints", default=Resources())
    check: tuple[Check, ...] = doc("what is looked at afterwards", default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A recipe with what the file can't say: where it and its patches lie, and which layer set each key.

    `origins` maps a dotted key (``build.env.MAX_JOBS``, ``patch[0].file``) to ``file:line`` or ``command line``.
    """

    recipe: Recipe
    path: Path
    patches: Path
    origins: Mapping[str, str]
