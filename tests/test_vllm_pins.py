"""vLLM's recipe against real releases: each repository that CMake would clone, crates, patches, the texts of checks.

Only the source archives are needed; nothing is cloned or built.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from builder import patches
from builder import source as sources_of
from builder.errors import UsageError
from builder.recipe import conditions, find, load
from builder.recipe.model import Source
from builder.source import pins
from tests.source_kit import Outside, request
from tests.vllm_kit import RELEASES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from builder.recipe.model import Condition, Loaded

GITHUB = "https://github.com"

#: URL, pin and submodules of each repository, as read by hand in the CMake files of that release.
PINNED = {
    "0.33.0": {
        "cutlass": ("nvidia/cutlass.git", "v4.7.1", "none"),
        "triton-kernels": ("triton-lang/triton.git", "v3.5.1", "none"),
        "deepgemm": (
            "vllm-project/DeepGEMM.git",
            "0820030756945b2daec208e8e8255268360f337d",
            ("third-party/cutlass", "third-party/deep_jit"),
        ),
        "deepselect": ("vllm-project/DeepSelect.git", "d96d33afe1fab0d6066da49cdc91e64c2bee65ea", "all"),
        "fmha-sm100": ("vllm-project/MSA.git", "968061ab16cb14991a5c7d4c0e8eabf531be0dcf", "all"),
        "flashmla": ("vllm-project/FlashMLA", "e2afa5fd8c220fbd05fe03fc24c9d5e64c24641b", "all"),
        "flashkda": ("vllm-project/FlashKDA.git", "17a037d98da546deb4591e967cf961a43c034d8b", ("cutlass",)),
        "qutlass": ("IST-DASLab/qutlass.git", "e74319e3405ce6d71965732880f5dc1f52371f64", "all"),
        "tml-fa4": ("vllm-project/tml-fa4.git", "75765e76a9c2c012c1f6ecd64577eb646eb4d303", "all"),
        "vllm-flash-attn": (
            "vllm-project/flash-attention.git",
            "b273a02621d3c94bc747df67204f591b67f38fae",
            ("csrc/cutlass",),
        ),
    },
    "0.14.1": {
        "cutlass": ("nvidia/cutlass.git", "v4.2.1", "none"),
        "triton-kernels": ("triton-lang/triton.git", "v3.5.0", "none"),
        "flashmla": ("vllm-project/FlashMLA", "46d64a8ebef03fa50b4ae74937276a5c940e3f95", "all"),
        "qutlass": ("IST-DASLab/qutlass.git", "830d2c4537c7396e14a02a46fbddd18b5d107c65", "all"),
        "vllm-flash-attn": (
            "vllm-project/flash-attention.git",
            "188be16520ceefdc625fdf71365585d2ee348fe2",
            ("csrc/cutlass",),
        ),
    },
}

#: The patches that belong to each release, in order.
PATCHED = {"0.33.0": ["drop-fa3", "fa2-native"], "0.14.1": ["drop-fa3-0.14", "fa2-native", "qutlass-family"]}

both = pytest.mark.parametrize("version", RELEASES)


@dataclass
class Release:
    """The tree of one release, and what conditions ask of it."""

    folder: Path
    version: str
    arch: str = "12.1a"
    source: str = "sdist"
    cuda: str | None = "13.0"
    torch: str | None = "2.14.0"
    output: str | None = None

    def contains(self, _commit: str) -> bool:
        return False

    def read(self, path: str) -> bytes | None:
        file = self.folder / path
        return file.read_bytes() if file.is_file() else None

    def holds(self, condition: Condition | None) -> bool:
        return conditions.holds(condition, self)

    def wanted(self, loaded: Loaded) -> dict[str, pins.Wanted]:
        facts = {"machine": "aarch64", "version": self.version, "commit": "", "cuda": "13.0"}
        found = pins.wanted(
            loaded.recipe.fetch, read=self.read, holds=self.holds, facts=facts, toolkit=None, recipe="vllm"
        )
        return {one.id: one for one in found}

    def patched(self, loaded: Loaded, scratch: Path) -> patches.Evaluation:
        candidates = [
            patches.Candidate(id=one.id, file=loaded.patches[one.id], sha256=one.sha256, on_upstream=one.on_upstream)
            for one in loaded.recipe.patch
            if self.holds(one.when)
        ]
        return patches.evaluate(candidates, self.read, scratch=scratch, env=Outside(scratch).sources.env)


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    folder = tmp_path_factory.mktemp("vllm")
    outside = Outside(folder)
    made = {}
    for version, digest in RELEASES.items():
        source = Source(kind="sdist", project="vllm", version=version, sha256=digest)
        pinned = sources_of.pin(source, request(), outside.sources, recipe="vllm", base=folder)
        sources_of.fetch(pinned, outside.sources)
        made[version] = folder / version
        sources_of.materialize(pinned, made[version], outside.sources)
    return made


def loaded(**variants: bool) -> Loaded:
    return load.load("vllm", find.folders(()), variants=variants)


@pytest.mark.network
@both
def test_every_repository_of_a_release_is_pinned(trees: Mapping[str, Path], version: str) -> None:
    found = Release(trees[version], version).wanted(loaded(rust=False))
    assert {
        name: (one.url.removeprefix(f"{GITHUB}/"), one.ref, one.given.submodules) for name, one in found.items()
    } == (PINNED[version])
    assert all(one.from_tree for one in found.values())


@pytest.mark.network
@both
def test_no_clone_of_a_release_is_forgotten(trees: Mapping[str, Path], version: str) -> None:
    """What CMake clones for CUDA is every GIT_REPOSITORY outside of the CPU's own file."""
    cmake = [trees[version] / "CMakeLists.txt", *(trees[version] / "cmake" / "external_projects").glob("*.cmake")]
    calls = sum(len(re.findall(r"^\s+GIT_REPOSITORY\s", file.read_text(), re.MULTILINE)) for file in cmake)
    assert calls == len(PINNED[version])


@pytest.mark.network
@both
def test_what_is_put_in_place_keeps_upstreams_own_way(trees: Mapping[str, Path], version: str, tmp_path: Path) -> None:
    """By FetchContent's override, but for the two of 0.33.0 that know none."""
    settings = {f"fetch.{name}.path": str(tmp_path) for name in PINNED[version]}
    put = load.load("vllm", find.folders(()), settings=settings, variants={"rust": False})
    found = Release(trees[version], version).wanted(put)
    laid = {name for name, one in found.items() if not one.given.env}
    assert laid == ({"deepgemm", "qutlass"} if version == "0.33.0" else set())
    for name, one in found.items():
        upper = name.upper() if name == "vllm-flash-attn" else name.upper().replace("-", "_")
        override = {"CMAKE_ARGS+": f"-DFETCHCONTENT_SOURCE_DIR_{upper}=${{place}}"}
        assert one.given.env == ({} if name in laid else override)
        assert one.given.place == (f"${{src}}/.deps/{name}-src" if name in laid else f"${{deps}}/{name}")
    assert not any("_SRC_DIR" in str(one.given.env) for one in found.values())


@pytest.mark.network
def test_crates_of_the_front_end(trees: Mapping[str, Path]) -> None:
    crates = Release(trees["0.33.0"], "0.33.0").wanted(loaded())["crates"]
    text = crates.text.decode()
    assert text.count("[[package]]") == 624
    assert text.count('source = "git+https://') == 3


@pytest.mark.network
@both
def test_patches_apply_to_a_release(trees: Mapping[str, Path], version: str, tmp_path: Path) -> None:
    done = Release(trees[version], version).patched(loaded(rust=False), tmp_path)
    assert [one.id for one in done.applied] == PATCHED[version]
    assert not done.skipped
    assert b"_vllm_fa3_C" not in re.findall(rb"CMakeExtension\(name=.*", done.files["setup.py"])
    assert b"FA2 built for" in done.files["cmake/external_projects/vllm_flash_attn.cmake"]


@pytest.mark.network
@both
def test_another_architecture_keeps_flash_attention_3(trees: Mapping[str, Path], version: str, tmp_path: Path) -> None:
    done = Release(trees[version], version, arch="9.0a").patched(loaded(rust=False), tmp_path)
    assert not done.applied


@pytest.mark.network
def test_code_for_the_chip_itself_is_a_variant(trees: Mapping[str, Path], tmp_path: Path) -> None:
    chosen = loaded(rust=False, sm121a=True)
    release = Release(trees["0.33.0"], "0.33.0")
    assert [one.id for one in release.patched(chosen, tmp_path).applied] == ["drop-fa3", "fa2-native", "sm121a"]
    assert conditions.effective_arch(chosen.recipe, release) == ("12.1a",)


@pytest.mark.network
def test_texts_that_must_not_be_logged_are_upstreams_own(trees: Mapping[str, Path]) -> None:
    """A text that upstream never says would guard nothing."""
    files = [trees["0.33.0"] / "CMakeLists.txt", *(trees["0.33.0"] / "cmake").rglob("*.cmake")]
    said = "\n".join(file.read_text() for file in files)
    (check,) = [one for one in loaded().recipe.check if one.kind == "log"]
    assert [text for text in check.forbid if text not in said] == []


@pytest.mark.parametrize("word", ["12.1", "12.1a", "12.1f", "12.0", "12.0f"])
def test_a_word_for_the_chip_becomes_its_family(word: str) -> None:
    assert conditions.effective_arch(loaded().recipe, Release(Path(), "0.33.0", arch=word)) == ("12.0f",)


def test_code_that_a_gb10_does_not_load_is_refused() -> None:
    with pytest.raises(UsageError, match=r"12\.0a") as refused:
        conditions.effective_arch(loaded().recipe, Release(Path(), "0.33.0", arch="12.0a"))
    assert refused.value.code == "arch-refused"
    assert "GB10" in str(refused.value.cause)


def test_the_front_end_is_required_or_left_out_knowingly() -> None:
    with_it, without = loaded().recipe, loaded(rust=False).recipe
    assert with_it.build.env["VLLM_REQUIRE_RUST_FRONTEND"] == "1"
    assert without.build.env["VLLM_REQUIRE_RUST_FRONTEND"] == "0"
    assert with_it.system.rust
    assert without.system.rust is None
    assert {one.id for one in with_it.fetch} - {one.id for one in without.fetch} == {"crates"}
