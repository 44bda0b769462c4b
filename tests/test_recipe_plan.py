"""The shipped recipes as far as their plans: source, requirements, architecture, fingerprint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from builder.recipe.conditions import effective_arch
from builder.recipe.load import read_all
from tests.recipe_kit import GOOD, Layers

if TYPE_CHECKING:
    from tests.world import World


def mirrored(world: World, url: str, folder: Path) -> None:
    world.config.mkdir(parents=True, exist_ok=True)
    (world.config / "config.toml").write_text(f'[mirrors]\n"{url}" = "{folder}"\n')


@pytest.fixture
def triton(world: World) -> Path:
    """A repository in the place of Triton's: projects at the top and under python/triton_kernels, and its pins."""
    folder = world.tiny("triton", version="3.9.0")
    llvm = {"llvm_hash": "0" * 40, "build_number": 1, "sha256sum": {"ubuntu-arm64": "0" * 64, "ubuntu-x64": "1" * 64}}
    parts = ("ptxas", "ptxas-blackwell", "cuobjdump", "nvdisasm", "cudacrt", "cudart", "cupti")
    (folder / "cmake").mkdir()
    (folder / "cmake" / "llvm-info.json").write_text(json.dumps(llvm))
    (folder / "cmake" / "json-version.txt").write_text("v3.11.3")
    (folder / "cmake" / "nvidia-toolchain-version.json").write_text(json.dumps(dict.fromkeys(parts, "13.1.80")))
    kernels = world.tiny("triton_kernels", version="1.0.0")
    (folder / "python").mkdir()
    kernels.rename(folder / "python" / "triton_kernels")
    world.git(folder, "init", "-q", "-b", "main")
    world.git(folder, "add", "-A")
    world.git(folder, "commit", "-qm", "first")
    mirrored(world, "https://github.com/triton-lang/triton", folder)
    return folder


def test_triton_main_by_a_mirror(world: World, triton: Path) -> None:
    commit = world.git(triton, "rev-parse", "HEAD")
    done = world.run("recipe", "triton", "--ref", "main", "--plan", code=10)
    assert commit[:10] in done.stdout + done.stderr
    (plan,) = world.json("recipe", "triton", "--plan", code=10)["plans"]
    assert [(one["output"], one["decision"]) for one in plan["outputs"]] == [("triton", "miss")]
    (both,) = world.json("plan", "triton", "--output", "all", "--offline", code=10)["plans"]
    assert [one["output"] for one in both["outputs"]] == ["triton", "triton_kernels"]
    world.git(triton, "commit", "-q", "--allow-empty", "-m", "second")
    (after,) = world.json("recipe", "triton", "--plan", code=10)["plans"]
    assert after["fingerprint"] != plan["fingerprint"]


def test_what_only_helps_a_build_plans_the_same_wheel(world: World, triton: Path) -> None:
    assert triton.is_dir()
    before = world.json("plan", "triton", code=10)["plans"][0]["fingerprint"]
    world.recipe("triton", "# for this machine\n[resources]\njobs = 1\n[about]\nsummary = 'x'\n")
    assert world.json("plan", "triton", code=10)["plans"][0]["fingerprint"] == before
    world.recipe("triton", "[build.env]\nTRITON_BUILD_PROTON = 'ON'\n")
    assert world.json("plan", "triton", code=10)["plans"][0]["fingerprint"] != before


def test_patches_of_two_layers_and_of_one_output_are_planned(world: World) -> None:
    folder = world.tiny_repo()
    change = "--- a/src/__init__.py\n+++ b/src/__init__.py\n@@ -1 +1 @@\n-VALUE = 1\n+VALUE = 2\n"
    (folder / "src" / "__init__.py").write_text("VALUE = 1\n")
    layers = Layers(world.recipes.parent)
    digest = layers.patch("two.patch", change, layer="recipes", name="tiny")
    entry = f'[[patch]]\nid = "two"\nfile = "two.patch"\nsha256 = "{digest}"\n'
    world.tiny_recipe(more=entry + 'when = { output = "other*" }\n')
    without = world.json("plan", "tiny", code=10)["plans"][0]["fingerprint"]
    world.tiny_recipe(more=entry + 'when = { output = "tiny" }\n')
    assert world.json("plan", "tiny", code=10)["plans"][0]["fingerprint"] != without


@pytest.mark.network
def test_vllm_from_its_source_archive(world: World) -> None:
    rustup = Path.home() / ".rustup"
    env = {"RUSTUP_HOME": str(rustup)} if rustup.is_dir() else {}
    # What upstream names by a tag would be asked for there.
    (stand_in := world.root / "stand-in").mkdir()
    nested = [one["id"] for one in world.json("recipes", "show", "vllm")["recipe"]["fetch"] if one["kind"] == "git"]
    words = [word for name in nested for word in ("--set", f"fetch.{name}.path={stand_in}")]
    (plan,) = world.json("recipe", "vllm", "--plan", *words, code=10, **env)["plans"]
    assert plan["recipe"] == "vllm"
    assert "vllm-0.33.0.tar.gz" in str(plan)
    replaced = {one["id"] for one in plan["nested"] if one.get("replaced")}
    assert replaced
    assert replaced <= set(nested)


class Facts:
    """What a condition asks; only the arch word differs here."""

    version: str | None = "0.33.0"
    source = "sdist"
    cuda: str | None = "13.0.88"
    torch: str | None = None
    output: str | None = None

    def __init__(self, arch: str) -> None:
        self.arch = arch

    def contains(self, commit: str) -> bool:
        return bool(commit) and False

    def read(self, path: str) -> bytes | None:
        return path.encode()


def test_the_last_arch_rule_that_holds_counts(tmp_path: Path) -> None:
    layers = Layers(tmp_path)
    layers.write(
        GOOD
        + """\
[[arch-map]]
arch = "12.1*"
to = ["12.0f"]
[[arch-map]]
arch = "12.1a"
to = ["12.1a"]
when = { version = ">=1" }
"""
    )
    user = '[[arch-map]]\narch = "10.*"\nto = ["10.0a", "10.3a"]\n[[arch-map]]\narch = "12.1"\nto = ["12.1"]\n'
    layers.write(user, layer="user")
    ((loaded,), _mistakes) = read_all(layers.folders)
    words = ("12.1", "12.1a", "10.0", "9.0a")
    found = [effective_arch(loaded.recipe, Facts(word)) for word in words]
    assert found == [("12.1",), ("12.0f",), ("10.0a", "10.3a"), ("9.0a",)]
