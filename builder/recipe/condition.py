"""Conditions of recipes, and how a field of the model carries its documentation."""

from __future__ import annotations

from typing import Any, Literal

from builder.values import MISSING, dataclass, field

__all__ = ["Condition", "FileCondition", "doc"]

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
