"""What Triton's build downloads, of each version range: pinned out of the tree, given back with no network."""

from __future__ import annotations

import json
import shutil
import zipfile
from typing import TYPE_CHECKING

import pytest

from builder.digest import sha256_file
from tests.triton_kit import ERAS, EXAMPLE, LLVM, Upstream

if TYPE_CHECKING:
    from pathlib import Path

    from tests.world import World


def found(wheel: Path) -> dict[str, str]:
    """Return what the build found, by what it is for."""
    values: dict[str, dict[str, str]] = {}
    with zipfile.ZipFile(wheel) as archive:
        exec(archive.read("triton/__init__.py"), values)  # noqa: S102  # our own stand-in wrote it
    return values["FOUND"]


def nested(wheel: Path) -> dict[str, dict[str, str]]:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("spark-build/inputs.json")]
        return {one["id"]: one for one in json.loads(archive.read(name))["nested"]}


@pytest.mark.parametrize("name", ERAS)
def test_each_ranges_step_finds_all_that_it_would_download(world: World, name: str) -> None:
    upstream = Upstream(world, ERAS[name])
    upstream.tree()
    (wheel,) = world.wheels("seeded")
    pins = ERAS[name].pins
    wanted = {"llvm": "LLVM"}
    wanted |= {f"bin/{tool}": f"{tool} {pins[tool]}" for tool in ("ptxas", "cuobjdump", "nvdisasm")}
    crt = "nvcc" if pins["cudacrt"].startswith("12.") else "crt"
    wanted |= {"include/crt.h": f"{crt} {pins['cudacrt']}", "include/cudart.h": f"cudart {pins['cudart']}"}
    wanted |= {"lib/cupti": f"cupti lib {pins['cupti']}"}
    if "ptxas-blackwell" in pins:
        wanted["bin/ptxas-blackwell"] = f"ptxas {pins['ptxas-blackwell']}"
    if "cupti-blackwell" in pins:
        wanted["lib/cupti-blackwell"] = f"cupti lib {pins['cupti-blackwell']}"
    if ERAS[name].helper:
        wanted["json"] = "json 3.11.3"
    if ERAS[name].amd:
        wanted["amd"] = "AMD"
    assert found(wheel) == wanted
    assert len(nested(wheel)) == len(wanted)


@pytest.mark.parametrize("name", ["3.8", "2026-08"])
def test_a_wrong_checksum_is_told_before_the_build(world: World, name: str) -> None:
    upstream = Upstream(world, ERAS[name])
    upstream.tree()
    (llvm,) = [one for one in upstream.rules["packages"] if one["root"] == "llvm"]
    place = upstream.place(llvm["url"])
    good = place.read_bytes()
    place.write_bytes(good + b"\0")
    told = world.run("recipe", "seeded", code=4).stderr
    assert "error[hash-mismatch]" in told
    assert llvm["sha256"] in told
    assert not list((world.wheelhouse / "builds").glob("*/logs/*/build.log"))
    place.write_bytes(good)
    world.run("recipe", "seeded")


@pytest.mark.parametrize("name", ["3.6", "2026-08"])
def test_our_copies_survive_a_build_that_removes_its_own(world: World, name: str) -> None:
    upstream = Upstream(world, ERAS[name])
    upstream.tree()
    upstream.rules["spoil"] = True
    upstream.commit()
    (wheel,) = world.wheels("seeded")
    upstream.mirror.rename(world.root / "gone")
    assert world.wheels("seeded", "--force", "--offline") == [wheel]


def test_a_step_that_removes_what_it_finds_wrong_removes_only_its_copy(world: World) -> None:
    upstream = Upstream(world, ERAS["2026-08"])
    upstream.tree()
    (llvm,) = [one for one in upstream.rules["packages"] if one["root"] == "llvm"]
    right, llvm["sha256"] = llvm["sha256"], "0" * 64
    upstream.commit()
    assert "wrong checksum" in world.run("recipe", "seeded", code=1).stderr
    (kept,) = (world.root / "sources" / "files").glob(f"*/{llvm['url'].rsplit('/', 1)[1]}")
    assert sha256_file(kept) == right


def test_a_range_that_the_recipe_doesnt_know_is_told(world: World) -> None:
    upstream = Upstream(world, ERAS["2026-08"])
    folder = upstream.tree()
    (folder / "cmake" / "llvm-info.json").rename(folder / "cmake" / "llvm-pins.json")
    upstream.commit()
    told = world.run("recipe", "seeded", code=2).stderr
    assert "cmake/llvm-info.json" in told
    assert "fetch.layout" in told


def test_the_plan_says_what_a_tree_pulls_in_and_downloads_nothing(world: World) -> None:
    upstream = Upstream(world, ERAS["3.6"])
    upstream.tree()
    assert LLVM not in world.run("recipe", "seeded", "--plan", code=10).stderr
    assert not list((world.root / "sources" / "files").glob("*/*.tar.*"))


def test_the_plan_of_a_release_names_the_published_wheel(world: World) -> None:
    folder = Upstream(world, ERAS["3.9"]).tree()
    for tag in ("v3.5.1", "v3.9.0"):
        world.git(folder, "commit", "-q", "--allow-empty", "-m", tag)
        world.git(folder, "tag", tag)
    world.git(folder, "commit", "-q", "--allow-empty", "-m", "main goes on")
    told = {ref: world.run("plan", "seeded", "--ref", ref, code=None).stdout for ref in ("v3.5.1", "v3.9.0", "main")}
    assert "uv pip install triton==3.9.0" in told["v3.9.0"]
    assert "--with toolkit-ptxas" in told["v3.5.1"]
    assert "uv pip install triton==" not in told["v3.5.1"] + told["main"]


def test_the_documented_overlay_has_no_mistakes(world: World) -> None:
    shutil.copytree(EXAMPLE, world.recipes, dirs_exist_ok=True)
    world.run("recipes", "lint", "triton")
    assert "/usr/lib/llvm-22" in world.run("recipes", "show", "triton").stdout
