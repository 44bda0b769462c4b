"""What is carried over: into another wheelhouse, as a delta, in parts for small media, and to be built again there."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests import wheelhouse_kit
from tests.bundle_kit import cut_off, export, manifest, public, tree
from tests.world import COMMAND, World

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bundle_kit import Index


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return public(tmp_path / "public")


def other_side(world: World) -> World:
    there = World(world.root / "far")
    there.config.mkdir(parents=True, exist_ok=True)
    return there


def test_our_wheels_go_through_the_gate_and_others_into_the_cache(world: World, index: Index) -> None:
    world.run("wheels", "add", str(wheelhouse_kit.make_wheel(world.root / "dist", "tiny", requires=["base"])))
    export(world, index.url, "tiny")
    far = other_side(world)
    done = far.run("bundle", "import", str(world.root / "bundle"), "--channel", "team")
    assert done.stdout.endswith("tiny-1.0-py3-none-any.whl\n")
    assert "1 wheels of ours filed; 1 of 1 other files were new" in done.stderr
    assert [one["project"] for one in far.json("wheels", "list")["wheels"]] == ["tiny"]
    assert list((far.root / "sources" / "files").glob("*/base-1.0-py3-none-any.whl"))
    again = far.json("bundle", "import", str(world.root / "bundle"))["imported"]
    assert again["new"] == 0
    assert [one["cached"] for one in again["wheels"]] == [True]


def test_a_delta_holds_what_is_new_to_the_byte(world: World, index: Index) -> None:
    index.add_uv()
    export(world, index.url, "app")
    index.add("app", "3.0", requires=["base"], text=b"VALUE = 43\n")
    export(world, index.url, "app", "--since", "bundle/manifest.json", to="delta")
    export(world, index.url, "app", to="whole")
    old, new = manifest(world.root / "bundle"), manifest(world.root / "whole")
    known = {one["sha256"] for one in old["files"].values()}
    fresh = {path: one["size"] for path, one in new["files"].items() if one["sha256"] not in known}
    found = {path: len(data) for path, data in tree(world.root / "delta").items() if path != "manifest.json"}
    assert found == fresh
    assert {path.rsplit("/", 1)[-1] for path in found} == {
        "app-3.0-py3-none-any.whl",
        "app-3.0-py3-none-any.whl.metadata",
        "index.html",
        "index.v1_json",
        "pylock.toml",
        "requirements.txt",
        "sbom.cdx.json",
        "README.txt",
    } - ({"README.txt"} if "README.txt" not in fresh else set())
    assert "a delta" in world.run("bundle", "verify", "delta").stderr

    far = other_side(world)
    shutil.copytree(world.root / "delta", far.root / "delta")
    done = far.run("bundle", "install", "delta", "venv", code=5)
    assert "--base" in done.stderr
    assert not (far.root / "venv").exists()
    far.run("bundle", "install", "delta", "venv", "--base", str(world.root / "bundle"))
    code = "import app; print(app.VALUE)"
    assert far_run(far, code) == "43\n"

    shutil.rmtree(far.root / "delta")
    shutil.rmtree(far.root / "venv")
    shutil.copytree(world.root / "delta", far.root / "delta")
    script = ["sh", str(world.root / "bundle" / "install.sh"), "--delta"]
    subprocess.run([*script, "delta", "--verify"], cwd=far.root, check=True)
    subprocess.run([*script, "delta", "venv"], cwd=far.root, check=True)
    assert far_run(far, code) == "43\n"
    far.run("bundle", "verify", "delta")

    shutil.rmtree(far.root / "delta")
    shutil.copytree(world.root / "delta", far.root / "delta")
    far.run("bundle", "import", str(world.root / "bundle"))
    far.run("bundle", "verify", "delta")
    far.run("bundle", "install", "delta", "venv2")  # from what an import kept
    assert (far.root / "venv2" / "bin" / "python").exists()


def far_run(far: World, code: str) -> str:
    return subprocess.run(
        [str(far.root / "venv" / "bin" / "python"), "-c", code], capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.root
def test_another_disk_gets_copies_and_a_full_one_is_gone_on_with(world: World, index: Index) -> None:
    index.add("large", size=3_000_000)
    with wheelhouse_kit.small_disk(world.root / "stick", "2m"):
        done = export(world, index.url, "large", "app", code=3, to="stick/bundle")
        assert "error[disk-full]" in done.stderr
        assert "never finished" in world.run("bundle", "verify", "stick/bundle", code=2).stderr
        subprocess.run(["mount", "-o", "remount,size=8m", str(world.root / "stick")], check=True)
        export(world, index.url, "large", "app", to="stick/bundle")
        world.run("bundle", "verify", "stick/bundle")
        export(world, index.url, "large", "app", to="here")
        assert tree(world.root / "stick" / "bundle") == tree(world.root / "here")
        wheel = next((world.root / "stick" / "bundle").glob("files/*/large-*.whl"))
        before = wheel.stat().st_ino
        export(world, index.url, "large", "app", to="stick/bundle")
        assert wheel.stat().st_ino == before
    cached = next((world.root / "sources" / "files").glob("*/large-*.whl"))
    assert next((world.root / "here").glob("files/*/large-*.whl")).samefile(cached)


def test_parts_are_put_together_again_by_us_and_by_tar(world: World, index: Index) -> None:
    index.add("large", size=3_000_000)
    export(world, index.url, "large", "app", to="whole")
    done = export(world, index.url, "large", "app", "--split", "1MiB", to="media")
    media = world.root / "media"
    parts = [path for path in sorted(media.iterdir()) if path.name != "SHA256SUMS"]
    assert done.stdout.split() == list(map(str, parts))
    assert {path.stat().st_size for path in parts[:-1]} == {1 << 20}
    subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=media, check=True)
    world.run("bundle", "verify", "media")
    (world.root / "far").mkdir()
    joining = "cat media/media.tar.* | tar x -C far"  # as it is told
    subprocess.run(["sh", "-c", joining], cwd=world.root, check=True)
    assert tree(world.root / "far" / "media") == tree(world.root / "whole")
    assert "--unpack" in world.run("bundle", "install", "media", "venv", code=2).stderr
    world.run("bundle", "install", "media", "venv", "--unpack", "joined")
    assert tree(world.root / "joined") == tree(world.root / "whole")

    spoilt = bytearray(parts[1].read_bytes())
    spoilt[5] ^= 1
    parts[1].write_bytes(spoilt)
    parts[-1].unlink()
    done = world.run("bundle", "verify", "media", code=5)
    assert f"{parts[1].name}: has other bytes" in done.stderr
    assert f"{parts[-1].name}: is missing" in done.stderr
    world.run("bundle", "import", "media", "--unpack", "again", code=5)
    assert not (world.root / "again").exists()
    export(world, index.url, "app", "--split", "1MiB", to="media")
    assert sorted(path.name for path in media.iterdir()) == ["SHA256SUMS", "media.tar.001"]


@pytest.mark.root
def test_ours_is_built_again_bit_by_bit_where_no_network_is(world: World, index: Index) -> None:
    """Source, build requirements, wheel and the one that it was built on come from the bundle; all else is gone."""
    world.tiny_repo("low", text="VALUE = 40\n")
    world.tiny_recipe("low")
    world.tiny_repo(extra="import low; pathlib.Path('src/__init__.py').write_text(f'VALUE = {low.VALUE + 2}')")
    project = world.root / "tiny" / "pyproject.toml"
    project.write_text(project.read_text().replace("requires = []", 'requires = ["base"]'))
    world.git(world.root / "tiny", "commit", "-qam", "wants base")
    recipe = world.tiny_recipe()
    recipe.write_text(recipe.read_text().replace('name = "tiny"', 'name = "tiny"\nbuilds-on = ["low"]', 1))
    world.run("recipe", "tiny", SPARK_BUILD_INDEX_URL=index.url)
    export(world, index.url, "tiny", "--with-sources")
    assert [one["project"] for one in manifest(world.root / "bundle")["wheels"]] == ["tiny"]
    assert [one["project"] for one in manifest(world.root / "bundle")["below"]] == ["low"]
    kept = {path for path in tree(world.root / "bundle") if path.startswith("sources/")}
    assert any("/objects/pack/" in path for path in kept)
    assert not any("FETCH_HEAD" in path for path in kept)

    far = other_side(world)
    shutil.copytree(world.root / "bundle", far.root / "bundle")
    shutil.copytree(world.recipes, far.recipes, dirs_exist_ok=True)
    shutil.rmtree(world.root / "tiny")
    shutil.rmtree(world.root / "low")
    shutil.rmtree(index.root)
    done = far.run("bundle", "import", "bundle")
    told = done.stderr.splitlines()[-1]
    assert told.startswith("built again: SPARK_BUILD_INDEX_URL=")
    index_url, _program, *words = told.removeprefix("built again: ").split()
    env = far.env(UV_CACHE_DIR=str(far.root / "uv"), SPARK_BUILD_INDEX_URL=index_url.partition("=")[2])
    rebuilt = cut_off([str(COMMAND), *words], env=env, cwd=far.root)
    assert rebuilt.returncode == 0, rebuilt.stderr
    assert "tiny-1.0" in rebuilt.stdout
    assert "the same, bit by bit" in rebuilt.stdout
