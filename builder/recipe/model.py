"""What a recipe may say, as types. The loader, the JSON schema and the reference page are all made from this file.

Each field carries its documentation in `doc(...)`; its type annotation is the rule that the loader enforces. Keys in TOML
are the field names with ``-`` for ``_``. Tables are classed: `about`, `resources`, `image` and `check` never change a
wheel's bytes and stay out of the fingerprint; all else is in (see `builder.inputs`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from builder.recipe.condition import Condition, FileCondition, doc
from builder.recipe.nested import FETCH_NAMES, Fetch, Layout, Reading
from builder.recipe.outside import OUTSIDE, About, Advice, Check, Companion, Image, MemoryClass, Resources
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from builder.recipe.layers import Layer, Origin

__all__ = [
    "FETCH_NAMES",
    "INTERPOLATED",
    "OUTSIDE",
    "About",
    "Advice",
    "ArchRule",
    "Build",
    "Check",
    "Companion",
    "Condition",
    "Fetch",
    "FileCondition",
    "Image",
    "Layout",
    "MemoryClass",
    "Output",
    "Patch",
    "Reading",
    "Recipe",
    "Resources",
    "Source",
    "System",
    "Variant",
    "Version",
    "checks_of",
    "doc",
]

#: The only names that ``${...}`` may use in values of `env`, `config-settings` and `version.value`, and what they stand for.
INTERPOLATED = {
    "arch": "what the project gets as its architecture list, blank-separated (see `[[arch-map]]`)",
    "cuda": "the toolkit's version, empty without one",
    "torch": "torch's version, empty where the build doesn't use it",
    "version": "the source's version, empty for a commit that no version names",
    "commit": "the commit, empty for an archive",
    "label": "our local version part, without `+`; stands in the fingerprint as itself",
    "src": "the source tree as the build sees it",
    "jobs": "how many compilers may run at once; what it comes to doesn't count",
    "modules": "`build.modules`, joined by commas",
}

#: Stands for a digest in examples.
_HEX = "0" * 64


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
    torch_requires: Literal["keep", "built"] = doc(
        "what METADATA asks for where that excludes the torch of the build: `built` puts that one there, and takes the "
        "versions off torchvision and torchaudio, which go with it",
        default="keep",
        example='torch-requires = "built"',
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
    modules: tuple[str, ...] = doc(
        "which of the project's modules are built, as shell patterns: ``${modules}``, joined by commas",
        default=(),
        example='modules = ["xqa_*", "batch_decode_*"]',
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
    pinned_by: tuple[str, ...] = doc(
        "projects whose metadata pin another version of this one: who installs both needs an override",
        default=(),
        example='pinned-by = ["torch"]',
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
    about: str = doc(
        "why it is needed and what it changes, measured", default="", example='about = "194 of 398 units never run"'
    )
    merged: str | None = doc(
        "the commit that brought it upstream; a tree that has the commit and lacks the change reverted it",
        default=None,
        example='merged = "50b2f739ab"',
    )
    on_upstream: Literal["skip", "fail"] = doc(
        "what to do when the tree has it already", default="skip", example='on-upstream = "fail"'
    )
    when: Condition | None = doc("only where this holds", default=None, example='when = { lacks = "50b2f739ab" }')


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchRule:
    """What the project makes of an arch word. The last rule counts whose `arch` matches and whose condition holds."""

    arch: str = doc("the user's word, shell pattern", example='arch = "12.1*"')
    to: tuple[str, ...] = doc(
        "what the project gets, and what counts in the fingerprint", default=(), example='to = ["12.0f"]'
    )
    refuse: str | None = doc(
        "why this word is refused, instead of `to`", default=None, example='refuse = "sm_120a does not load on a GB10"'
    )
    when: Condition | None = doc("only where this holds", default=None, example='when = { version = ">=0.20" }')


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """Something that can be left out or taken in: ``--without ID``, ``--with ID``. Its tables are one more layer."""

    id: str = doc("the word for the command line", example='id = "rust"')
    about: str = doc("what one gets by it", example='about = "the front end that is written in Rust"')
    default: bool = doc("whether it is in without being asked for", default=False, example="default = true")
    recipe: Mapping[str, Any] = doc(
        "tables of a recipe that are laid over it", default={}, example='recipe = { system = { rust = ">=1.95" } }'
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
    fetch: tuple[Fetch, ...] = doc("what the tree pulls in while it is built", default=(), example="[[fetch]]")
    variant: tuple[Variant, ...] = doc("what can be left out or taken in", default=(), example="[[variant]]")
    arch_map: tuple[ArchRule, ...] = doc(
        "what the project makes of the user's arch word; what no rule matches is passed on as it is",
        default=(),
        example="[[arch-map]]",
    )
    builds_on: tuple[str, ...] = doc(
        "recipes whose wheels this build needs; their fingerprints count", default=(), example='builds-on = ["triton"]'
    )
    resources: Resources = doc("hints", default=Resources(), example="[resources]")
    image: Image = doc("what images hold, and what it wants where it runs", default=Image(), example="[image]")
    check: tuple[Check, ...] = doc("what is looked at afterwards", default=(), example="[[check]]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A recipe with what the files can't say: where it and its patches lie, and which layer set each key.

    `path` is the weakest layer's file. `patches` maps a patch's id to its file, in whichever layer's folder that lies.
    `raw` holds the tables as they were merged. `origins` maps a dotted key (``build.env.MAX_JOBS``, ``patch[0].file``) of
    `raw` to the place that set it. `variants` names those that are in.
    """

    recipe: Recipe
    path: Path
    patches: Mapping[str, Path]
    layers: tuple[Layer, ...]
    raw: Mapping[str, Any]
    origins: Mapping[str, Origin]
    variants: tuple[str, ...] = ()


def checks_of(checks: Sequence[Check], output: str) -> tuple[Check, ...]:
    """Return those of a recipe's `checks` that are about `output`: what names no output is about every one."""
    return tuple(one for one in checks if one.output in {None, output})
