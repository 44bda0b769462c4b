"""What a recipe may say, as types. The loader, the JSON schema and the reference page are all made from this file.

Each field carries its documentation in `doc(...)`; its type annotation is the rule that the loader enforces. Keys in TOML
are the field names with ``-`` for ``_``. Tables are classed: `about`, `resources` and `check` never change a wheel's bytes
and stay out of the fingerprint; all else is in (see `builder.inputs`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from builder.values import MISSING, dataclass, field

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from builder.recipe.layers import Layer, Origin

__all__ = [
    "INTERPOLATED",
    "OUTSIDE",
    "About",
    "ArchRule",
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
    "checks_of",
    "doc",
]

#: Tables that never change a wheel's bytes.
OUTSIDE = frozenset({"about", "resources", "check"})

#: The only names that ``${...}`` may use in values of `env`, `config-settings` and `version.value`.
INTERPOLATED = ("arch", "cuda", "torch", "version", "commit", "label", "src", "jobs")

#: Stands for a digest in examples.
_HEX = "0" * 64


def doc(text: str, *, default: Any = MISSING, example: str = "") -> Any:  # noqa: ANN401  # as `field` itself
    """Return a dataclass field that carries its documentation and an example in TOML."""
    metadata = {"doc": text, "example": example}
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileCondition:
    """A condition on one file of the source tree."""

    path: str = doc("path in the tree", example='path = "cmake/llvm-info.json"')
    present: bool | None = doc("whether it has to exist", default=None, example="present = true")
    matches: str | None = doc(
        "a regular expression that has to be found in it; `^` and `$` mean lines",
        default=None,
        example="matches = 'nanobind==2\\.10'",
    )
    sha256: str | None = doc("the digest that it has to have", default=None, example=f'sha256 = "{_HEX}"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """Data, never code: all that are given must hold."""

    version: str | None = doc("a PEP 440 range of the source's version", default=None, example='version = ">=3.5,<3.7"')
    contains: str | None = doc(
        "a commit that must be an ancestor (or the commit itself); git only",
        default=None,
        example='contains = "50b2f739ab"',
    )
    lacks: str | None = doc("a commit that must not be an ancestor", default=None, example='lacks = "50b2f739ab"')
    file: FileCondition | None = doc(
        "a condition on a file of the tree", default=None, example='file = { path = "setup.py", matches = "abi3" }'
    )
    arch: str | None = doc("the user's arch word, shell pattern", default=None, example='arch = "12.*"')
    cuda: str | None = doc("a range of the toolkit's version", default=None, example='cuda = ">=13.0"')
    torch: str | None = doc("a range of torch's version", default=None, example='torch = ">=2.11"')
    output: str | None = doc(
        "shell pattern on an output's name; for a patch: one of the outputs that are built together matches",
        default=None,
        example='output = "*-jit-cache*"',
    )
    source: Literal["git", "sdist", "archive", "local"] | None = doc(
        "the kind of source in use", default=None, example='source = "git"'
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """For people; outside the fingerprint."""

    summary: str = doc("one line", default="", example='summary = "kernels for serving"')
    homepage: str = doc("where the project lives", default="", example='homepage = "https://example.org/project"')
    license: str = doc("SPDX expression of the project", default="", example='license = "Apache-2.0"')
    notes: tuple[str, ...] = doc(
        "what somebody who builds this should know", default=(), example='notes = ["takes an hour"]'
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where the project comes from. With several, the first is the default; ``--ref`` takes git, ``--version`` the sdist."""

    kind: Literal["git", "sdist", "archive", "local"] = doc("what it is", example='kind = "sdist"')
    url: str | None = doc(
        "git: the repository; archive: the file (``${version}`` allowed)",
        default=None,
        example='url = "https://example.org/project.git"',
    )
    ref: str | None = doc(
        "git: branch, tag, commit or refs/pull/N/head taken without ``--ref``", default=None, example='ref = "main"'
    )
    submodules: Literal["all", "none"] | tuple[str, ...] = doc(
        "git: which submodules belong to the tree; a list names paths",
        default="none",
        example='submodules = ["3rdparty/cutlass"]',
    )
    project: str | None = doc("sdist: the name on the index", default=None, example='project = "flashinfer-python"')
    version: str | None = doc(
        "sdist, archive: the version taken without ``--version``", default=None, example='version = "0.7.2.post1"'
    )
    sha256: str | None = doc(
        "sdist, archive: the digest of that version's file; without it the index's is taken and kept",
        default=None,
        example=f'sha256 = "{_HEX}"',
    )
    path: str | None = doc(
        "local: the folder, relative to the file that says so", default=None, example='path = "../project"'
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """How our label gets into the version."""

    env: str | None = doc(
        "a variable that the project appends to its version or takes as such", default=None, example='env = "X_SUFFIX"'
    )
    value: str | None = doc(
        "what `env` is set to; ``${label}`` is our local part without ``+``",
        default=None,
        example='value = "${version}+${label}"',
    )
    module: str | None = doc(
        "a file in the wheel that repeats the version; rewritten along with the metadata (shell pattern)",
        default=None,
        example='module = "project/_version.py"',
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """What the machine has to offer. Versions of what is named here count in the fingerprint."""

    apt: tuple[str, ...] = doc("Debian packages that the build needs", default=(), example='apt = ["g++", "git"]')
    cuda: str | None = doc(
        "range of the CUDA toolkit, or nothing when the build doesn't use it", default=None, example='cuda = ">=13.0"'
    )
    gcc: str | None = doc("range of g++", default=None, example='gcc = ">=13"')
    clang: str | None = doc(
        "range of clang++; taken when found, unless required by `tools`", default=None, example='clang = ">=17"'
    )
    rust: str | None = doc("range of rustc", default=None, example='rust = ">=1.95"')
    tools: tuple[str, ...] = doc("programs whose version counts", default=(), example='tools = ["cmake", "protoc"]')
    headers: bool = doc("whether Python's headers are needed", default=False, example="headers = true")


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """How the backend is called and what its environment holds."""

    hook: Literal["cmake", "setuptools", "flashinfer", "make", "none"] = doc(
        "by which way the project starts compilers (where job limits and launchers go)",
        default="setuptools",
        example='hook = "cmake"',
    )
    requires_add: tuple[str, ...] = doc(
        "requirements added to the project's own", default=(), example='requires-add = ["wheel"]'
    )
    requires_remove: tuple[str, ...] = doc("names removed from them", default=(), example='requires-remove = ["torch"]')
    requires_pin: tuple[str, ...] = doc(
        "constraints: they add nothing, they bind", default=(), example='requires-pin = ["cmake<4"]'
    )
    torch: Literal["none", "existing", "pinned"] = doc(
        "whether the build imports torch: never by accident; `pinned` takes --torch, the stack's or this recipe's pin",
        default="none",
        example='torch = "pinned"',
    )
    torch_version: str | None = doc(
        'torch\'s exact version where `torch = "pinned"` and nothing else says',
        default=None,
        example='torch-version = "2.14.0"',
    )
    env: Mapping[str, str] = doc(
        "variables of the build step; nothing of the caller's gets in",
        default={},
        example='env = { TORCH_CUDA_ARCH_LIST = "${arch}" }',
    )
    config_settings: Mapping[str, str | tuple[str, ...]] = doc(
        "PEP 517 config settings",
        default={},
        example='config-settings = { "--build-option" = "--py-limited-api=cp38" }',
    )
    jobs_env: tuple[str, ...] = doc(
        "variables that get the number of jobs; they never count in the fingerprint",
        default=("MAX_JOBS", "CMAKE_BUILD_PARALLEL_LEVEL"),
        example='jobs-env = ["MAX_JOBS", "CARGO_BUILD_JOBS"]',
    )
    strip: Literal["none", "debug", "unneeded", "all"] = doc(
        "what is stripped off ELF files in the wheel", default="none", example='strip = "debug"'
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One wheel."""

    name: str = doc("the distribution's name", example='name = "flashinfer-python"')
    path: str = doc("the folder with its pyproject.toml", default=".", example='path = "python/kernels"')
    default: bool = doc("whether it is built without ``--output``", default=True, example="default = false")
    env: Mapping[str, str] = doc("added to the build's", default={}, example='env = { KIND = "shim" }')
    config_settings: Mapping[str, str | tuple[str, ...]] = doc(
        "added to the build's", default={}, example='config-settings = { shim = "1" }'
    )
    requires_add: tuple[str, ...] = doc("added to the build's", default=(), example='requires-add = ["numpy"]')
    when: Condition | None = doc("only where this holds", default=None, example='when = { version = ">=0.7" }')
    version_module: str | None = doc(
        "instead of `version.module`", default=None, example='version-module = "shim/_version.py"'
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """A patch from ``patches/<recipe>/``, applied without fuzz in the order given."""

    id: str = doc("a name that is unique in the recipe", example='id = "drop-fa3"')
    file: str = doc(
        "its name in ``patches/<recipe>/`` beside the recipes of any layer", example='file = "drop-fa3.patch"'
    )
    sha256: str = doc("its digest", example=f'sha256 = "{_HEX}"')
    upstream: str | None = doc(
        "link to the change's own page", default=None, example='upstream = "https://example.org/project/pull/1"'
    )
    license: str | None = doc("SPDX expression of its context lines", default=None, example='license = "MIT"')
    on_upstream: Literal["skip", "fail"] = doc(
        "what to do when the tree has it already", default="skip", example='on-upstream = "fail"'
    )
    when: Condition | None = doc("only where this holds", default=None, example='when = { lacks = "50b2f739ab" }')


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchRule:
    """What the project makes of an arch word. The last rule counts whose `arch` matches and whose condition holds."""

    arch: str = doc("the user's word, shell pattern", example='arch = "12.1*"')
    to: tuple[str, ...] = doc("what the project gets, and what counts in the fingerprint", example='to = ["12.0f"]')
    when: Condition | None = doc("only where this holds", default=None, example='when = { version = ">=0.20" }')


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryClass:
    """A memory hint for units whose path matches. The last one that matches counts."""

    match: str = doc("shell pattern on the unit's source", example='match = "*fused_moe_120*"')
    mem: str = doc("peak of one unit", example='mem = "8GiB"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Hints for memory, disk and time; outside the fingerprint."""

    mem_per_job: str = doc("peak of an ordinary unit", default="2GiB", example='mem-per-job = "3GiB"')
    link_mem: str = doc("peak of a link", default="4GiB", example='link-mem = "6GiB"')
    disk: str = doc("space that a build takes at its peak", default="2GiB", example='disk = "40GiB"')
    jobs: int | None = doc("at most so many compilers at once", default=None, example="jobs = 8")
    unit_timeout: str | None = doc(
        "a compiler that takes longer is reported as hung", default=None, example='unit-timeout = "20min"'
    )
    build_timeout: str | None = doc(
        "the build step is stopped after this", default=None, example='build-timeout = "6h"'
    )
    classes: tuple[MemoryClass, ...] = doc(
        "memory hints by path", default=(), example='classes = [{ match = "*fp4*", mem = "8GiB" }]'
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What is looked at in the finished wheel; outside the fingerprint, kept with the findings."""

    kind: Literal["import", "command", "script", "size", "device-code", "log", "accept"] = doc(
        "what is done; `accept` lets findings of `audit` pass", example='kind = "import"'
    )
    id: str | None = doc("a name by which a later layer can change it", default=None, example='id = "ptxas"')
    output: str | None = doc("which output; all when left out", default=None, example='output = "triton"')
    run: str | None = doc(
        "import: the statement; command: a program of the wheel's environment with its arguments",
        default=None,
        example='run = "import triton"',
    )
    script: str | None = doc(
        "script: a Python file in ``checks/`` beside the recipes, run in the wheel's environment; it fails by its exit code",
        default=None,
        example='script = "triton-compile.py"',
    )
    requires: tuple[str, ...] = doc(
        "import, command, script: what has to be installed beside the wheel and what it declares",
        default=(),
        example='requires = ["numpy"]',
    )
    gpu: bool = doc(
        "import, command, script: only where `--gpu` asks for it, on a machine with the target's GPU",
        default=False,
        example="gpu = true",
    )
    matches: str | None = doc("command: what its output has to match", default=None, example='matches = "release 13"')
    max: str | None = doc("size: the largest file", default=None, example='max = "400MiB"')
    findings: tuple[str, ...] = doc(
        "accept: the ids of the findings", default=(), example='findings = ["rpath-absolute"]'
    )
    file: str = doc("accept: shell pattern on the file in the wheel", default="*", example='file = "*/libfoo.so"')
    reason: str | None = doc(
        "accept: why that is right here; kept with the finding", default=None, example='reason = "found by dlopen"'
    )
    forbid: tuple[str, ...] = doc(
        "log: lines that must not appear", default=(), example='forbid = ["Not building Marlin"]'
    )
    target: str | None = doc("device-code: the compute capability", default=None, example='target = "12.1"')
    require: tuple[str, ...] = doc(
        "device-code: libraries (shell patterns) that must run natively", default=(), example='require = ["*_C.*so"]'
    )
    allow_ptx: tuple[str, ...] = doc(
        "device-code: libraries that may run by JIT", default=(), example='allow-ptx = ["*_fa2_C.*so"]'
    )
    allow_absent: tuple[str, ...] = doc(
        "device-code: libraries that may have nothing for the target",
        default=(),
        example='allow-absent = ["*_fa3_C.*so"]',
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A recipe as written, after the layers were laid over each other."""

    schema: Literal[1] = doc("version of this format", example="schema = 1")
    name: str = doc("the word for the command line", example='name = "flashinfer"')
    about: About = doc("for people", default=About(), example="[about]")
    source: tuple[Source, ...] = doc("where it comes from; the first is the default", example="[[source]]")
    version: Version = doc("how the label gets in", default=Version(), example="[version]")
    system: System = doc("what the machine has to offer", default=System(), example="[system]")
    build: Build = doc("how it is built", default=Build(), example="[build]")
    output: tuple[Output, ...] = doc("the wheels that come out", example="[[output]]")
    patch: tuple[Patch, ...] = doc("what is changed in the source", default=(), example="[[patch]]")
    arch_map: tuple[ArchRule, ...] = doc(
        "what the project makes of the user's arch word; what no rule matches is passed on as it is",
        default=(),
        example="[[arch-map]]",
    )
    builds_on: tuple[str, ...] = doc(
        "recipes whose wheels this build needs; their fingerprints count", default=(), example='builds-on = ["triton"]'
    )
    resources: Resources = doc("hints", default=Resources(), example="[resources]")
    check: tuple[Check, ...] = doc("what is looked at afterwards", default=(), example="[[check]]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A recipe with what the files can't say: where it and its patches lie, and which layer set each key.

    `path` is the weakest layer's file. `patches` maps a patch's id to its file, in whichever layer's folder that lies.
    `raw` holds the tables as they were merged. `origins` maps a dotted key (``build.env.MAX_JOBS``, ``patch[0].file``) of
    `raw` to the place that set it.
    """

    recipe: Recipe
    path: Path
    patches: Mapping[str, Path]
    layers: tuple[Layer, ...]
    raw: Mapping[str, Any]
    origins: Mapping[str, Origin]


def checks_of(checks: Sequence[Check], output: str) -> tuple[Check, ...]:
    """Return those of a recipe's `checks` that are about `output`: what names no output is about every one."""
    return tuple(one for one in checks if one.output in {None, output})
