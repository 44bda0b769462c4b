"""The shipped recipe of FlashInfer: which wheels a tree gives, for which architecture, and what a patch chooses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from builder import source
from builder.errors import UsageError
from builder.pipeline.select import Facts, select_outputs
from builder.recipe import conditions, find, load
from builder.recipe.model import Source
from builder.stages import Request
from tests.source_kit import Outside

if TYPE_CHECKING:
    from pathlib import Path

WHERE = find.folders(())
SPLIT = ("flashinfer-jit-cache-provider/pyproject.toml", "flashinfer-jit-cache/pyproject.toml")
WHOLE = SPLIT[1:]


def facts_of(folder: Path, files: tuple[str, ...], arch: str) -> Facts:
    """Return what conditions see of a tree that holds `files`."""
    tree = folder / "tree"
    for name in ("pyproject.toml", *files):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("")
    sources = Outside(folder).sources
    asked = Request(recipe="flashinfer", source=tree)
    pin = source.pin(Source(kind="local", path=str(tree)), asked, sources, recipe="flashinfer", base=folder)
    return Facts(pin=pin, sources=sources, arch=arch, cuda="13.0", torch="2.14.0")


def outputs(folder: Path, files: tuple[str, ...], *, arch: str = "12.1a", kernels: bool = True) -> list[str]:
    loaded = load.load("flashinfer", WHERE, variants={"jit-cache": kernels})
    facts = facts_of(folder, files, arch)
    return [one.name for one in select_outputs(loaded, Request(recipe="flashinfer"), facts)]


def test_python_wheel_alone_needs_neither_kernels_nor_torch(tmp_path: Path) -> None:
    assert outputs(tmp_path, SPLIT, kernels=False) == ["flashinfer-python"]
    assert load.load("flashinfer", WHERE).recipe.build.torch == "none"


@pytest.mark.parametrize(
    ("files", "arch", "wanted"),
    [
        pytest.param(SPLIT, "12.1a", ["flashinfer-jit-cache-sm121a", "flashinfer-jit-cache"], id="since-0.7"),
        pytest.param(SPLIT, "12.1", ["flashinfer-jit-cache-sm121a", "flashinfer-jit-cache"], id="bare-word"),
        pytest.param(SPLIT, "12.0f", ["flashinfer-jit-cache-sm120f", "flashinfer-jit-cache"], id="the-family"),
        pytest.param(WHOLE, "12.1a", ["flashinfer-jit-cache"], id="before-0.7"),
        pytest.param((), "12.1a", [], id="source-archive"),
    ],
)
def test_layout_of_the_tree_decides_which_wheels_hold_kernels(
    tmp_path: Path, files: tuple[str, ...], arch: str, wanted: list[str]
) -> None:
    assert outputs(tmp_path, files, arch=arch) == ["flashinfer-python", *wanted]


@pytest.mark.parametrize(
    ("word", "made"), [("12.1", "12.1a"), ("12.1a", "12.1a"), ("12.0", "12.0f"), ("12.0f", "12.0f")]
)
def test_architecture_is_handed_on_with_the_suffix_that_providers_are_named_by(
    tmp_path: Path, word: str, made: str
) -> None:
    recipe = load.load("flashinfer", WHERE).recipe
    assert conditions.effective_arch(recipe, facts_of(tmp_path, (), word)) == (made,)


def test_architecture_of_another_card_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"flashinfer isn't built for 12\.0a") as caught:
        conditions.effective_arch(load.load("flashinfer", WHERE).recipe, facts_of(tmp_path, (), "12.0a"))
    assert "does not load on a GB10" in (caught.value.cause or "")
