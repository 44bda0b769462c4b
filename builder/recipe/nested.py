"""What a source pulls in while it is built: where the exact pin of it stands in the tree, and how the build gets it back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from builder.recipe.condition import Condition, doc  # noqa: TC001  # the loader resolves annotations
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FETCH_NAMES", "TOOLKIT", "Fetch", "Layout", "Reading"]

#: Starts a `path` that means a file of the CUDA toolkit.
TOOLKIT = "toolkit:"

#: Names that ``${...}`` may use in a `fetch` table, beside those that its own `pin` readings give, and what they stand for.
FETCH_NAMES = {
    "machine": "this machine as `uname -m` calls it",
    "platform": "what upstream calls this machine, by the table `platform`",
    "version": "the source's version, empty for a commit that no version names",
    "commit": "the source's commit, empty for an archive",
    "cuda": "the toolkit's version, empty without one",
    "url": "the table's `url`, filled in",
    "file": "the last part of the URL",
    "place": "where it was laid",
    "path": "what the user put in its place",
    "home": "the build's HOME",
    "src": "the source tree as the build sees it",
    "deps": "a folder beside the source tree",
}

_HEX = "0" * 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One look into the tree, as the patches leave it. What it finds gets a name for ``${...}``."""

    file: str = doc("path in the tree", example='file = "cmake/llvm-hash.txt"')
    matches: str | None = doc(
        "a regular expression; `^` and `$` mean lines; each named group is a name, the first match counts",
        default=None,
        example="matches = '(?P<short>[0-9a-f]{8})(?P<rest>[0-9a-f]{32})'",
    )
    json: str | None = doc(
        "the dotted place of a value in a JSON file; ``${platform}`` and ``${machine}`` allowed",
        default=None,
        example='json = "sha256.${platform}"',
    )
    name: str | None = doc("json: the name that the value gets", default=None, example='name = "sha256"')
    optional: bool = doc(
        "whether the tree may lack it; its names are empty then", default=False, example="optional = true"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What is different where a condition holds: each key that is given replaces the table's own."""

    when: Condition = doc(
        "where this holds", example='when = { file = { path = "cmake/llvm-info.json", present = true } }'
    )
    url: str | None = doc("as in the table", default=None, example='url = "https://example.org/llvm-${hash}.tar.gz"')
    ref: str | None = doc("as in the table", default=None, example='ref = "v${tag}"')
    sha256: str | None = doc("as in the table", default=None, example='sha256 = "${sha256}"')
    pin: tuple[Reading, ...] | None = doc(
        "as in the table", default=None, example='pin = [{ file = "pins.json", json = "llvm.hash", name = "hash" }]'
    )
    place: str | None = doc("as in the table", default=None, example='place = "${home}/.cache/${file}"')
    unpack: bool | None = doc("as in the table", default=None, example="unpack = true")
    strip: int | None = doc("as in the table", default=None, example="strip = 1")
    stamp: Mapping[str, str] | None = doc(
        "as in the table", default=None, example='stamp = { "version.txt" = "${url}" }'
    )
    env: Mapping[str, str] | None = doc("as in the table", default=None, example='env = { KEEP_ARCHIVES = "1" }')
    replaced: Mapping[str, str] | None = doc(
        "as in the table", default=None, example='replaced = { LLVM_SYSPATH = "${path}" }'
    )
    replaced_place: str | None = doc(
        "as in the table", default=None, example='replaced-place = "${src}/third_party/bin/ptxas"'
    )
    absent: bool | None = doc(
        "nothing of this is pulled in where the condition holds", default=None, example="absent = true"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """A nested source: what the tree would download during configure or build.

    It is brought in and checked before the build, kept with the sources, and given back in the way that leaves upstream's
    own code path as it is: git repositories answer under their own URL, archives lie where a download would have left
    them. Values may use ``${...}``: the names that `pin` gives, none of which may be one of those that every table knows.
    """

    id: str = doc("a name that is unique in the recipe", example='id = "llvm"')
    kind: Literal["git", "archive", "crates"] = doc(
        "a repository that the build clones; a file that it downloads; crates of a Cargo.lock",
        example='kind = "archive"',
    )
    about: str = doc(
        "what it is, in a few words", default="", example='about = "LLVM and MLIR as upstream builds them"'
    )
    when: Condition | None = doc("only where this holds", default=None, example='when = { version = ">=0.20" }')
    url: str | None = doc(
        "git, archive: where upstream takes it from",
        default=None,
        example='url = "https://example.org/llvm-${short}.tar.gz"',
    )
    ref: str | None = doc("git: commit, tag or branch, as the tree asks for it", default=None, example='ref = "${tag}"')
    submodules: Literal["all", "none"] | tuple[str, ...] = doc(
        "git: which submodules the build clones, too", default="none", example='submodules = "all"'
    )
    pin: tuple[Reading, ...] = doc(
        "where the exact pin stands in the tree",
        default=(),
        example="pin = [{ file = \"cmake/cutlass.cmake\", matches = 'GIT_TAG (?P<tag>\\S+)' }]",
    )
    platform: Mapping[str, str] = doc(
        "what upstream calls each machine: ``${platform}``",
        default={},
        example='platform = { aarch64 = "linux-sbsa", x86_64 = "linux-x86_64" }',
    )
    sha256: str | None = doc(
        "archive: its digest, where tree or recipe know it; else the first download's is taken and kept",
        default=None,
        example=f'sha256 = "{_HEX}"',
    )
    lockfile: str | None = doc(
        "crates: the Cargo.lock in the tree", default=None, example='lockfile = "rust/Cargo.lock"'
    )
    place: str | None = doc(
        "archive: where the build looks for it: a file, with `unpack` a folder; crates: the folder of the vendored crates",
        default=None,
        example='place = "${home}/.cache/archives/${file}"',
    )
    unpack: bool = doc("archive: lies there unpacked", default=False, example="unpack = true")
    strip: int = doc("archive: leading folders that unpacking drops", default=0, example="strip = 1")
    stamp: Mapping[str, str] = doc(
        "files that are written beside what was unpacked, so that the build takes it for its own download",
        default={},
        example='stamp = { "version.txt" = "${url}" }',
    )
    env: Mapping[str, str] = doc(
        "variables of the build while it is given back so; a name with `+` at its end is added to, behind a blank",
        default={},
        example='env = { KEEP_ARCHIVES = "1" }',
    )
    path: str | None = doc(
        "another in place of it, a file or folder; `toolkit:bin/ptxas` is one of the CUDA toolkit. Its bytes count",
        default=None,
        example='path = "/usr/lib/llvm-22"',
    )
    replaced: Mapping[str, str] = doc(
        "variables of the build when `path` is given, instead of `env`",
        default={},
        example='replaced = { "CMAKE_ARGS+" = "-DFETCHCONTENT_SOURCE_DIR_CUTLASS=${path}" }',
    )
    replaced_place: str | None = doc(
        "where `path` is laid; when neither this nor `replaced` is given, at `place`",
        default=None,
        example='replaced-place = "${src}/third_party/bin/ptxas"',
    )
    layout: tuple[Layout, ...] = doc(
        "what is different in some trees; the last whose condition holds counts",
        default=(),
        example='layout = [{ when = { version = "<3.8" }, sha256 = "" }]',
    )
