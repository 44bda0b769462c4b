"""What a bundle holds, and what it takes to make one: resolved for the target, held against the newest, fetched once."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.pylock import Pylock
from packaging.version import Version

from builder.bundle import target
from builder.errors import UsageError
from tests import wheelhouse_kit
from tests.bundle_kit import HERE, PYTHON, UV, Index, export, manifest, serving, stored, tree

if TYPE_CHECKING:
    from pathlib import Path

    from tests.world import World


@pytest.fixture
def index(tmp_path: Path) -> Index:
    """app 2.0 needs base; base has one wheel for the target and one for another machine."""
    made = Index(tmp_path / "public")
    made.add("app", "1.0", requires=["base"])
    made.add("app", "2.0", requires=["base>=1", "elsewhere; platform_machine == 'aarch64'"])
    made.add("base", "1.0")
    made.add("base", "1.5", tag="py3-none-manylinux_2_39_aarch64")
    made.add("base", "1.5", tag="py3-none-manylinux_2_28_x86_64", size=50_000)
    made.add("base", "1.5")
    return made


def test_everything_that_a_bundle_has_to_be(world: World, index: Index) -> None:
    done = export(world, index.url, "app")
    folder = world.root / "bundle"
    assert done.stdout.strip() == str(folder)
    document = manifest(folder)
    assert {one["project"]: one["version"] for one in document["wheels"]} == {"app": "2.0", "base": "1.5"}
    assert document["target"]["python"] == PYTHON
    assert "manylinux_2_28_x86_64" in next(one["path"] for one in document["wheels"] if one["project"] == "base")
    found = {path: (hashlib.sha256(data).hexdigest(), len(data)) for path, data in tree(folder).items()}
    assert found.keys() - {"manifest.json"} == document["files"].keys()
    assert all(found[path] == (one["sha256"], one["size"]) for path, one in document["files"].items())

    lock = Pylock.from_dict(tomllib.loads((folder / "pylock.toml").read_text()))
    wheels = [wheel for package in lock.packages for wheel in package.wheels or ()]
    assert all(wheel.path and (folder / wheel.path).stat().st_size == wheel.size for wheel in wheels)
    assert (folder / "requirements.txt").read_text().count("--hash=sha256:") == len(wheels) == 2
    bill = (folder / "sbom.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill) is None
    needed = {one["ref"]: one["dependsOn"] for one in json.loads(bill)["dependencies"]}
    assert needed == {"bundle": ["app"], "app": ["base"], "base": []}


def test_the_pages_of_a_bundle_are_an_index(world: World, index: Index) -> None:
    export(world, index.url, "app")
    url = (world.root / "bundle" / "simple").as_uri()
    words = [
        "--python",
        sys.executable,
        "--default-index",
        url,
        "--python-version",
        PYTHON,
        "--no-cache",
        "--no-config",
        "-",
    ]
    done = subprocess.run(
        [UV, "pip", "compile", "-q", "--no-header", "--no-annotate", *words],
        input="app",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["app==2.0", "base==1.5"]


def test_the_same_answer_gives_the_same_bytes_and_nothing_is_fetched_twice(world: World, index: Index) -> None:
    with serving(index.root) as server:
        export(world, server.url, "app")
        first = [*server.asked]
        again = json.loads(export(world, server.url, "app", "--json", to="other").stdout)["bundle"]
    assert sorted(name.partition("-")[0] for name, _start, _sent in first) == ["app", "base"]
    assert server.asked == first
    assert again["received"] == 0
    assert tree(world.root / "bundle") == tree(world.root / "other")


def test_a_dry_run_counts_and_fetches_nothing(world: World, index: Index) -> None:
    with serving(index.root) as server:
        planned = json.loads(export(world, server.url, "app", "--dry-run", "--json").stdout)["plan"]
        assert server.asked == []
    assert not (world.root / "bundle").exists()
    assert stored(world) == set()
    assert [one["project"] for one in planned["wheels"]] == ["app", "base"]
    sizes = {file.name: file.stat().st_size for file in index.root.glob("files/*/*.whl")}
    assert planned["files"] == 2
    assert planned["bytes"] == planned["fetch"] == sum(sizes[one["filename"]] for one in planned["wheels"])
    export(world, index.url, "app")
    after = json.loads(export(world, index.url, "app", "--dry-run", "--json").stdout)["plan"]
    assert after["fetch"] == 0


def test_an_older_answer_is_refused_with_the_conflict(world: World, index: Index) -> None:
    index.add("app", "3.0", requires=["base>=2"])
    done = export(world, index.url, "app", code=5)
    assert "asked for app, got 2.0 instead of 3.0" in done.stderr
    assert "base>=2" in done.stderr
    assert "--allow-older" in done.stderr
    assert not (world.root / "bundle").exists()
    taken = export(world, index.url, "app", "--allow-older")
    assert "app 2.0, not 3.0" in taken.stderr
    pinned = export(world, index.url, "app<3", to="pinned")
    assert "not 3.0" not in pinned.stderr


def test_what_has_no_wheel_for_the_target_is_named_with_the_way_out(world: World, index: Index) -> None:
    source = index.made / "raw-1.0.tar.gz"
    source.write_bytes(b"no archive")
    index.list(source, "raw")
    index.add("wants", requires=["raw"])
    done = export(world, index.url, "wants", code=4)
    assert "raw has no wheel for x86_64-manylinux_2_36" in done.stderr
    assert "spark-build recipes new raw" in done.stderr
    assert "spark-build wheels add" in done.stderr
    world.tiny_recipe("raw")
    dry = export(world, index.url, "wants", "--dry-run", code=4).stderr
    assert "run:   spark-build recipe raw\n" in dry
    assert "builds it first" in " ".join(dry.split())
    other = world.run("bundle", "export", "x", "wants", SPARK_BUILD_INDEX_URL=index.url, code=4).stderr
    assert "run:   spark-build recipe raw\n" in other
    # Where the target's C library is older, what was compiled here would ask for symbols that it lacks.
    old = ("--platform", "x86_64-manylinux_2_28")
    older = world.run("bundle", "export", "x", "wants", *old, SPARK_BUILD_INDEX_URL=index.url, code=4).stderr
    assert "with glibc 2.28 or older" in " ".join(older.split())
    assert "builds it first" not in older
    file = world.recipes / "raw.toml"
    more = '[[output]]\nname = "rest"\n[[output]]\nname = "raw"\ndefault = false\n'
    file.write_text(file.read_text().partition("[[output]]")[0] + more)
    named = export(world, index.url, "wants", "--dry-run", code=4).stderr
    assert "run:   spark-build recipe raw --output raw\n" in named
    assert "on a machine like the target, aarch64" in " ".join(other.split())


def test_what_is_a_source_archive_only_is_built_by_its_recipe(world: World, index: Index) -> None:
    index.add("wants", requires=["raw", "more"])
    for name in ("raw", "more"):
        source = index.made / f"{name}-1.0.tar.gz"
        source.write_bytes(b"no archive")
        index.list(source, name)
        world.tiny_repo(name)
        world.tiny_recipe(name)
    done = export(world, index.url, "wants")
    assert "raw has no wheel for x86_64-manylinux_2_36" in done.stderr
    assert "the recipe raw builds it first" in done.stderr
    rows = {one["project"]: one for one in manifest(world.root / "bundle")["wheels"]}
    assert {name: one.get("ours", {}).get("recipe") for name, one in rows.items()} == {
        "wants": None,
        "raw": "raw",
        "more": "more",
    }
    assert "builds it first" not in export(world, index.url, "wants").stderr


def test_what_its_recipe_makes_otherwise_than_it_is_wanted_is_built_once_and_told(world: World, index: Index) -> None:
    index.add("wants", requires=["raw>=2"])
    source = index.made / "raw-2.0.tar.gz"
    source.write_bytes(b"no archive")
    index.list(source, "raw")
    world.tiny_repo("raw")
    world.tiny_recipe("raw")
    done = export(world, index.url, "wants", code=2)
    assert "raw>=2" in done.stderr
    assert "--public" in done.stderr
    assert not (world.root / "bundle").exists()


def test_a_newer_release_that_is_a_source_archive_only_is_told(world: World, index: Index) -> None:
    source = index.made / "app-4.0.tar.gz"
    source.write_bytes(b"no archive")
    index.list(source, "app")
    index.add("app", "3.0", tag="py3-none-macosx_11_0_arm64")
    with serving(index.root) as server:
        done = export(world, server.url, "app", "base")
        assert "app 4.0 is a source archive only, the bundle has 2.0" in done.stderr
        assert "base" not in done.stderr
        assert "4.0" not in export(world, server.url, "app<4", to="other").stderr
        assert "app 3.0 has no wheel for the target" in export(world, server.url, "app<4", to="other").stderr


def test_companions_come_along_in_the_very_version(world: World, index: Index) -> None:
    index.add("flashinfer_python", "0.7.0")
    done = export(world, index.url, "flashinfer-python")
    assert "flashinfer-python 0.7.0 comes without flashinfer-jit-cache" in done.stderr
    index.add("flashinfer_jit_cache", "0.7.0")
    index.add("flashinfer_jit_cache", "0.8.0")
    done = export(world, index.url, "flashinfer-python")
    assert "comes without" not in done.stderr
    document = manifest(world.root / "bundle")
    assert {one["project"]: one["version"] for one in document["wheels"]}["flashinfer-jit-cache"] == "0.7.0"
    assert [one["id"] for one in document["needs"]] == ["compiler", "headers", "nvcc"]
    assert document["run"] == {"env": {"FLASHINFER_NO_DOWNLOAD": "1"}, "imports": ["flashinfer"]}


IMAGE = """
[image]
needs = ["headers"]
env = { APP_OFFLINE = "1" }
imports = ["app"]
[[image.companions]]
of = "App"
name = "app-data"
why = "it fetches them otherwise"
run = "make data-${version}"
[[image.companions]]
of = "App"
name = "helper"
why = "slower without"
"""


def test_what_a_recipe_says_of_running_holds_for_its_wheel_whoever_built_it(world: World, index: Index) -> None:
    index.add("helper", "2.0")
    world.recipe(
        "mine",
        'schema = 1\nname = "mine"\nsource = [{ kind = "local", path = "x" }]\noutput = [{ name = "App" }]\n' + IMAGE,
    )
    done = export(world, index.url, "app")
    assert "app 2.0 comes without app-data: it fetches them otherwise; make data-2.0" in done.stderr
    document = manifest(world.root / "bundle")
    assert sorted(one["project"] for one in document["wheels"]) == ["app", "base", "helper"]
    assert [one["id"] for one in document["needs"]] == ["headers"]
    assert document["run"] == {"env": {"APP_OFFLINE": "1"}, "imports": ["app"]}
    export(world, index.url, "base", to="other")
    assert manifest(world.root / "other")["run"] == {"env": {}, "imports": []}


def test_a_recipe_that_cannot_be_read_is_told(world: World, index: Index) -> None:
    world.recipe("mine", "schema = 1\nimage = 3\n")
    assert "the recipe mine has mistakes" in export(world, index.url, "app").stderr


def test_names_of_the_wheelhouse_are_never_taken_from_elsewhere(world: World, index: Index) -> None:
    index.add("tiny", "99.0")
    world.run("wheels", "add", str(wheelhouse_kit.make_wheel(world.root / "dist", "tiny", "1.0", requires=["base"])))
    export(world, index.url, "tiny")
    rows = {one["project"]: one for one in manifest(world.root / "bundle")["wheels"]}
    assert rows["tiny"]["version"] == "1.0"
    assert rows["tiny"]["ours"]["output"] == "tiny"
    assert "ours" not in rows["base"]
    assert list((world.root / "bundle").glob("files/*/tiny-1.0-py3-none-any.whl.provenance.json"))
    export(world, index.url, "tiny>=2", code=2)
    export(world, index.url, "tiny", "--public", "tiny")
    assert {one["project"]: one["version"] for one in manifest(world.root / "bundle")["wheels"]} == {"tiny": "99.0"}


def test_a_pin_that_a_recipe_names_gives_way_to_ours_and_no_other_does(world: World, index: Index) -> None:
    index.add("puller", requires=["tiny==0.5"])
    index.add("tiny", "0.5")
    world.tiny_repo()
    world.tiny_recipe(more='pinned-by = ["puller"]')
    world.run("recipe", "tiny")
    export(world, index.url, "tiny", "puller")
    rows = {one["project"]: one["version"] for one in manifest(world.root / "bundle")["wheels"]}
    assert rows["tiny"].startswith("1.0+sb")
    assert world.json("bundle", "install", "bundle", "venv")["installed"]["wheels"]
    world.tiny_recipe()
    done = export(world, index.url, "tiny", "puller", code=2)
    assert "tiny==0.5" in done.stderr
    assert "--public" in done.stderr


def test_indexes_of_the_user_come_after_ours(world: World, index: Index, tmp_path: Path) -> None:
    team = Index(tmp_path / "team")
    team.add("tiny", "50.0")
    team.add("helper", "1.0")
    world.run("wheels", "add", str(wheelhouse_kit.make_wheel(world.root / "dist", "tiny", "1.0", requires=["helper"])))
    words = ["tiny", *HERE]
    world.run("bundle", "export", "bundle", *words, SPARK_BUILD_INDEX_URL=index.url, UV_INDEX=team.url)
    rows = {one["project"]: one["version"] for one in manifest(world.root / "bundle")["wheels"]}
    assert rows == {"tiny": "1.0", "helper": "1.0"}


def test_a_stack_gives_exactly_what_its_channel_lists(world: World, index: Index) -> None:
    world.tiny_repo()
    world.tiny_recipe()
    file = world.root / "stack.toml"
    file.write_text('schema = 1\nname = "team"\nchannel = "team"\n[[member]]\nrecipe = "tiny"\n')
    done = export(world, index.url, "--stack", "stack.toml", code=2)
    assert "spark-build stack" in done.stderr
    world.run("stack", str(file))
    export(world, index.url, "app", "--stack", "stack.toml")
    document = manifest(world.root / "bundle")
    assert {one["project"] for one in document["wheels"]} == {"tiny", "app", "base"}
    own = next(one for one in document["wheels"] if one["project"] == "tiny")
    assert own["ours"]["recipe"] == "tiny"
    assert len(own["ours"]["fingerprint"]) == 64


def test_a_folder_with_other_things_is_left_alone(world: World, index: Index) -> None:
    (world.root / "bundle").mkdir()
    (world.root / "bundle" / "mine").write_text("mine")
    done = export(world, index.url, "app", code=2)
    assert "holds no bundle" in done.stderr
    assert tree(world.root / "bundle") == {"mine": b"mine"}


def test_a_failed_update_leaves_the_bundle_as_it_was(world: World, index: Index) -> None:
    export(world, index.url, "app")
    before = tree(world.root / "bundle")
    index.add("app", "3.0", requires=["base"])
    with serving(index.root, refuses={"app-3.0-py3-none-any.whl": [403] * 9}) as server:
        assert "error[access-denied]" in export(world, server.url, "app", code=4).stderr
    assert tree(world.root / "bundle") == before
    world.run("bundle", "verify", "bundle")


def test_what_is_no_longer_wanted_goes(world: World, index: Index) -> None:
    export(world, index.url, "app")
    export(world, index.url, "base")
    folder = world.root / "bundle"
    assert {path.name for path in folder.glob("files/*/*.whl")} == {"base-1.5-py3-none-manylinux_2_28_x86_64.whl"}
    assert not (folder / "simple" / "app").exists()
    world.run("bundle", "verify", "bundle")


def test_requirements_files_hold_names_only(world: World, index: Index) -> None:
    (world.root / "wanted.txt").write_text("# ours\napp  # the newest\n\nbase\n")
    export(world, index.url, "-r", "wanted.txt")
    assert manifest(world.root / "bundle")["asked"] == ["app", "base"]
    (world.root / "wanted.txt").write_text("--index-url https://example.invalid\napp\n")
    assert "--index-url" in export(world, index.url, "-r", "wanted.txt", code=2).stderr
    assert "nothing to put" in export(world, index.url, code=2).stderr


@pytest.mark.parametrize(
    "platform", ["aarch64-unknown-linux-gnu", "aarch64", "manylinux_2_39_aarch64", "aarch64-manylinux_2_9"]
)
def test_a_platform_without_its_glibc_is_refused(platform: str) -> None:
    with pytest.raises(UsageError, match="doesn't say what the target is"):
        target.parse(platform, "3.12")


@pytest.mark.parametrize("words", [("aarch64-manylinux_2_39", "3.12"), ("x86_64-manylinux_2_17", "3.11")])
def test_tags_of_a_target_are_those_that_uv_takes(words: tuple[str, str], tmp_path: Path) -> None:
    """Each wheel alone on an index: uv takes exactly those that our tags have."""
    wanted = target.parse(*words)
    known = {str(tag) for tag in wanted.tags()}
    machine = wanted.machine
    tags = ["py3-none-any", "cp312-abi3-linux_" + machine, "cp39-abi3-manylinux2014_" + machine, "cp313-cp313-any"]
    tags += [f"cp312-cp312-manylinux_2_{glibc}_{machine}" for glibc in (17, 28, 39, 40)]
    tags += [f"py3-none-manylinux_2_17_{other}" for other in ("aarch64", "x86_64")]
    index = Index(tmp_path / "index")
    for number, tag in enumerate(tags):
        index.add(f"one{number}", tag=tag)
    taken = set()
    for number, tag in enumerate(tags):
        done = subprocess.run(
            [
                UV,
                "pip",
                "compile",
                "-q",
                "--no-config",
                "--python",
                sys.executable,
                "--default-index",
                index.url,
                *wanted.words,
                "-",
            ],
            input=f"one{number}",
            capture_output=True,
            text=True,
            check=False,
        )
        taken |= {tag} if done.returncode == 0 else set()
    assert taken == {tag for tag in tags if tag in known}


@pytest.mark.network
def test_the_platform_that_people_type_gives_an_old_vllm_and_is_refused(world: World) -> None:
    """Resolved only. What the newest is changes from day to day; that the default platform holds it back doesn't."""
    words = ["--dry-run", "--target-python", "3.12", "--wheelhouse", str(world.root / "none")]
    old = world.run("bundle", "export", "x", "vllm", "--platform", "aarch64-manylinux_2_28", *words, code=5)
    found = re.search(r"asked for vllm, got (\S+) instead of (\S+)", old.stderr)
    assert found is not None, old.stderr
    assert "has no" in old.stderr
    new = json.loads(world.run("bundle", "export", "x", "vllm", "--platform", target.GB10, "--json", *words).stdout)[
        "plan"
    ]
    rows = {one["project"]: one for one in new["wheels"]}
    assert len(rows) > 150
    assert sum(one["size"] for one in rows.values()) > 3 << 30
    held_back, newest = map(Version, found.groups())
    assert held_back < Version("0.12") < Version("0.32") <= Version(rows["vllm"]["wheel_version"]) <= newest
    assert Version(rows["torch"]["wheel_version"]) >= Version("2.13")
    assert not any("x86_64" in one["filename"] for one in rows.values())


@pytest.mark.network
def test_a_part_of_the_real_target_is_brought_and_right(world: World) -> None:
    told = world.json("bundle", "export", "gb10", "numpy", "rich")["bundle"]
    assert told["target"]["platform"] == target.GB10
    assert told["received"] > 10 << 20
    names = [one["path"].rsplit("/", 1)[-1] for one in told["wheels"]]
    assert {name.rsplit("_", 1)[-1] for name in names if not name.endswith("-any.whl")} == {"aarch64.whl"}
    assert manifest(world.root / "gb10")["tools"]["uv"].endswith("_aarch64.whl")
    assert world.json("bundle", "verify", "gb10")["verified"]["left_out"] == []
