"""Stack files: a set of outputs that belong together, in one TOML file.

::

    schema = 1
    name = "nightly"
    channel = "team/nightly"          # where it is promoted to
    torch = "2.14.0"                  # one for all that build with torch

    [[member]]
    recipe = "triton"
    ref = "main"

    [recipe.triton.build.env]         # laid over the recipe, above all files and below --set
    TRITON_BUILD_PROTON = "ON"
"""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Any, Literal

from builder.errors import RecipeError, UsageError
from builder.recipe.condition import doc
from builder.recipe.convert import Mistake, convert
from builder.recipe.layers import Layer
from builder.recipe.units import ARCH
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["Accept", "Loaded", "Member", "SetCheck", "Stack", "load"]


_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_CHANNEL = re.compile(r"[a-z0-9-]+(/[a-z0-9-]+)?")
_VERSION = re.compile(r"existing|/.+|\d+(\.\d+)+\S*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A recipe of the set, and which source of it; what is left out is as the recipe says."""

    recipe: str = doc("the recipe by name", example='recipe = "triton"')
    ref: str | None = doc("as ``--ref``", default=None, example='ref = "main"')
    pr: tuple[int, ...] = doc("as ``--pr``", default=(), example="pr = [10513]")
    repo: str | None = doc("as ``--repo``", default=None, example='repo = "https://example.org/fork.git"')
    version: str | None = doc("as ``--version``", default=None, example='version = "0.7.2.post1"')
    outputs: tuple[str, ...] = doc("as ``--output``", default=(), example='outputs = ["triton", "triton_kernels"]')
    variants: Mapping[str, bool] = doc(
        "as ``--with`` and ``--without``", default={}, example="variants = { rust = false }"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Accept:
    """Findings of the set that are right here."""

    findings: tuple[str, ...] = doc("their ids", example='findings = ["dependency-conflict"]')
    file: str = doc("shell pattern on the file in the wheel", default="*", example='file = "*/libfoo.so"')
    reason: str = doc("why", example='reason = "torch pins triton, and is told otherwise by an override"')


@dataclass(frozen=True, slots=True, kw_only=True)
class SetCheck:
    """What is looked at in the set as a whole."""

    accept: tuple[Accept, ...] = doc("what is let pass", default=(), example="accept = []")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """A stack file as written."""

    schema: Literal[1] = doc("version of this format", example="schema = 1")
    name: str = doc("what it is called", example='name = "nightly"')
    about: str = doc("what it is for", default="", example='about = "what the team runs"')
    channel: str | None = doc(
        "where it is promoted to, as a whole; without it, it is built and checked only",
        default=None,
        example='channel = "team/nightly"',
    )
    python: str | None = doc("as ``--python``", default=None, example='python = "3.12"')
    arch: str | None = doc("as ``--arch``", default=None, example='arch = "12.1a"')
    torch: str | None = doc(
        "as ``--torch``, for every member that builds with torch", default=None, example='torch = "2.14.0"'
    )
    cuda: str | None = doc("as ``--cuda``", default=None, example='cuda = "13.0"')
    member: tuple[Member, ...] = doc("the recipes of the set", example="[[member]]")
    recipe: Mapping[str, Any] = doc(
        "tables that are laid over a member's recipe",
        default={},
        example='recipe = { triton = { build = { env = { X = "1" } } } }',
    )
    check: SetCheck = doc("what is looked at in the set", default=SetCheck(), example="[check]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A stack, its file, and what it says about recipes, by name."""

    stack: Stack
    path: Path
    layers: Mapping[str, Layer]


def load(path: Path) -> Loaded:
    """Return the stack of a file.

    Raises UsageError ``stack-missing``, RecipeError ``stack-wrong`` with every mistake of the file, each with its line. What
    is laid over recipes is judged with them.
    """
    try:
        text = path.read_bytes().decode()
        values = tomllib.loads(text)
    except FileNotFoundError:
        raise UsageError(
            "stack-missing",
            f"there is no stack file {path}",
            help="docs/examples/stack.toml is one to start from",
            run=("spark-build stack FILE",),
        ) from None
    except OSError as error:
        raise UsageError("stack-missing", f"{path} can't be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _wrong(path, [f"{path}: is no TOML: {error}"]) from None
    mistakes: list[Mistake] = []
    stack = convert(Stack, values, "", mistakes)
    if not mistakes:
        mistakes = list(_mistakes(stack))
    if mistakes:
        raise _wrong(path, list(_located(mistakes, path, text)))
    layers = {
        name: Layer(word="stack", values=table, file=path, text=text, prefix=f"recipe.{name}")
        for name, table in stack.recipe.items()
    }
    return Loaded(stack=stack, path=path, layers=layers)


def _mistakes(stack: Stack) -> Iterator[Mistake]:
    if not stack.member:
        yield Mistake(path="member", text="is empty, wanted at least one [[member]]")
    if not _NAME.fullmatch(stack.name):
        yield Mistake(path="name", text=f"`{stack.name}` must be lower case words joined by `-`")
    if stack.channel is not None and not _CHANNEL.fullmatch(stack.channel):
        text = f"`{stack.channel}` must be one or two words of lower case letters, digits and `-`, joined by `/`"
        yield Mistake(path="channel", text=text)
    if stack.torch is not None and not _VERSION.fullmatch(stack.torch):
        text = f"`{stack.torch}` is no exact version, no path and not `existing`"
        yield Mistake(path="torch", text=text)
    if stack.arch is not None and not ARCH.fullmatch(stack.arch):
        yield Mistake(path="arch", text=f"`{stack.arch}` is no architecture, such as 12.1a or 12.0f")
    yield from _empty(stack, "python", "cuda")
    yield from _members(stack)
    for number, accept in enumerate(stack.check.accept):
        if not accept.reason.strip() or not accept.findings:
            yield Mistake(path=f"check.accept[{number}]", text="wanted findings and the reason")


def _members(stack: Stack) -> Iterator[Mistake]:
    seen = set[str]()
    for number, one in enumerate(stack.member):
        path = f"member[{number}]"
        if one.recipe in seen:
            yield Mistake(path=f"{path}.recipe", text=f"`{one.recipe}` is a member twice")
        seen.add(one.recipe)
        yield from _empty(one, "ref", "repo", "version", path=f"{path}.")
        if one.version and (one.ref or one.pr or one.repo):
            yield Mistake(path=f"{path}.version", text="takes a release, and `ref`, `pr` and `repo` take git")
    for name, table in stack.recipe.items():
        if name not in seen:
            yield Mistake(path=f"recipe.{name}", text=f"`{name}` is no member; members: {', '.join(sorted(seen))}")
        elif not isinstance(table, dict):
            yield Mistake(path=f"recipe.{name}", text="wanted tables of a recipe")


def _empty(one: Stack | Member, *keys: str, path: str = "") -> Iterator[Mistake]:
    """Yield each key that is there and says nothing: never the default instead."""
    for key in keys:
        if getattr(one, key) is not None and not getattr(one, key).strip():
            yield Mistake(path=f"{path}{key}", text="is empty; leave it out for what the recipe says")


def _located(mistakes: Sequence[Mistake], path: Path, text: str) -> Iterator[str]:
    from builder.recipe.layers import nearest  # noqa: PLC0415  # only for messages
    from builder.recipe.lines import lines  # noqa: PLC0415

    known = lines(text)
    for mistake in mistakes:
        yield f"{path}:{known.get(nearest(mistake.path, known), 1)}: {mistake.path}: {mistake.text}"


def _wrong(path: Path, problems: Sequence[str]) -> RecipeError:
    many = f"{len(problems)} mistakes" if len(problems) > 1 else "a mistake"
    return RecipeError(
        "stack-wrong",
        f"{many} in the stack file {path.name}",
        cause="\n".join(problems),
        help="docs/examples/stack.toml shows every key",
        run=(f"${{EDITOR:-vi}} {path}",),
    )
