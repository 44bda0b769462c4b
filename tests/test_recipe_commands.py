"""``spark-build recipes``: what a user sees."""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING

import jsonschema

from tests.recipe_kit import SHIPPED

if TYPE_CHECKING:
    from tests.world import World

SHIPPED_NAMES = sorted(file.stem for file in SHIPPED.glob("*.toml"))


def test_list_shows_shipped_recipes_and_one_s_own(world: World) -> None:
    world.tiny_recipe(more="[about]\nsummary = 'a small one'\n")
    text = world.run("recipes", "list").stdout
    assert "flashinfer  0.7.2.post1  shipped" in text
    assert "triton, triton_kernels (on request)" in text
    assert "a small one" in text
    found = {row["name"]: row for row in world.json("recipes", "list")["recipes"]}
    assert sorted(found) == sorted([*SHIPPED_NAMES, "tiny"])
    assert (found["tiny"]["layer"], found["tiny"]["default"], found["tiny"]["source"]) == ("user", "main", "git")
    assert found["tiny"]["outputs"] == [{"name": "tiny", "default": True}]


def test_list_names_needs_no_good_recipe(world: World) -> None:
    world.recipe("broken", "nonsense")
    assert world.run("recipes", "list", "--names").stdout.split() == sorted([*SHIPPED_NAMES, "broken"])
    done = world.run("recipes", "list")
    assert "broken" not in done.stdout
    assert "spark-build recipes lint" in done.stderr
    assert "broken.toml:1: is no TOML" in world.json("recipes", "list")["mistakes"][0]


def test_an_overlay_of_a_shipped_recipe_shows_both_layers(world: World) -> None:
    file = world.recipe("flashinfer", "[build.env]\nBUILD_NVEP = '1'\n")
    rows = {row["name"]: row for row in world.json("recipes", "list")["recipes"]}
    assert rows["flashinfer"]["layer"] == "shipped+user"
    text = world.run("recipes", "show", "flashinfer", "--origin", "--set", "resources.jobs=2").stdout
    assert f'BUILD_NVEP = "1"  # {file}:2' in text
    assert "jobs = 2  # command line" in text
    assert 'hook = "flashinfer"  # ' in text
    raw = tomllib.loads(text)
    assert raw["build"]["env"] == {"FLASHINFER_BUILD_NO_PIP": "1", "BUILD_NVEP": "1"}
    assert "#" not in world.run("recipes", "show", "flashinfer").stdout
    shown = world.json("recipes", "show", "flashinfer")
    assert shown["recipe"]["build"]["env"]["BUILD_NVEP"] == "1"
    assert shown["origins"]["build.env.BUILD_NVEP"] == f"{file}:2"
    assert len(shown["files"]) == 2


def test_lint_tells_every_mistake_and_exits_with_2(world: World) -> None:
    world.tiny_recipe("one", more="[resources]\nmax-job = 3\n")
    world.tiny_recipe("two", more="[system]\ncuda = 'x'\n")
    done = world.run("recipes", "lint", code=2)
    assert done.stdout == ""
    assert f"{world.recipes}/one.toml:10: resources.max-job: unknown key" in done.stderr
    assert f"{world.recipes}/two.toml:10: system.cuda" in done.stderr
    assert "2 mistakes" in done.stderr
    told = world.json("recipes", "lint", "one", code=2)["error"]
    assert told["code"] == "recipe-wrong"
    assert "two.toml" not in told["cause"]
    world.run("recipes", "lint", "flashinfer")


def test_lint_knows_which_findings_there_are_and_which_never_pass(world: World) -> None:
    world.tiny_repo()
    text = '[[check]]\nkind = "accept"\nreason = "x"\nfindings = ["rpath-absolute", "{}"]\n'
    file = world.tiny_recipe(more=text.format("size-limit"))
    world.run("recipes", "lint", "tiny")
    for slug, why in (("size-limits", "did you mean size-limit?"), ("record-lies", "can't be let pass")):
        world.tiny_recipe(more=text.format(slug))
        error = world.json("recipes", "lint", "tiny", code=2)["error"]
        (line,) = error["cause"].splitlines()
        assert line.startswith(f"{file}:{file.read_text().splitlines().index('[[check]]') + 4}: check[0].findings: ")
        assert why in line


def test_lint_of_a_file_that_lies_elsewhere(world: World) -> None:
    file = world.tiny_recipe()
    moved = file.rename(world.root / "tiny.toml")
    done = world.run("recipes", "lint", "./tiny.toml")
    assert "1 recipe, no mistakes" in done.stdout
    moved.write_text(moved.read_text() + "[bulid]\n")
    assert f"{moved}:9: bulid: unknown key" in world.run("recipes", "lint", "tiny.toml", code=2).stderr
    assert "no such recipe file" in world.run("recipes", "lint", "./none.toml", code=2).stderr
    assert "there is no recipe none" in world.run("recipes", "lint", "none", code=2).stderr


def test_new_writes_a_recipe_that_loads_and_never_overwrites(world: World) -> None:
    done = world.run("recipes", "new", "mine", "--from", "https://example.org/mine.git")
    file = world.recipes / "mine.toml"
    assert done.stdout == f"{file}\n"
    assert "spark-build recipes lint mine" in done.stderr
    assert file.read_text().startswith("#:schema ./recipe.schema.json\n")
    made = json.loads((world.recipes / "recipe.schema.json").read_text())
    jsonschema.Draft202012Validator(made).validate(tomllib.loads(file.read_text()))
    world.run("recipes", "lint", "mine")
    file.write_text("kept")
    assert "is there already" in world.run("recipes", "new", "mine", code=2).stderr
    assert file.read_text() == "kept"


def test_new_elsewhere_and_with_bad_words(world: World) -> None:
    there = world.root / "there"
    made = world.json("recipes", "new", "mine", "--dir", str(there), "--from", "mine==1.2")
    assert made["path"] == str(there / "mine.toml")
    assert made["run"] == [f"spark-build recipes lint {there / 'mine.toml'}"]
    world.run("recipes", "lint", str(there / "mine.toml"))
    assert "can't be a recipe's name" in world.run("recipes", "new", "../mine", code=2).stderr
    assert "--from what" in world.run("recipes", "new", "other", "--from", "what", code=2).stderr
    assert not (world.recipes / "other.toml").exists()


def test_new_in_a_folder_that_cannot_be_made(world: World) -> None:
    (world.root / "file").write_text("")
    assert "error[" in world.run("recipes", "new", "mine", "--dir", str(world.root / "file" / "x"), code=3).stderr


def test_the_schema_is_printed(world: World) -> None:
    assert json.loads(world.run("recipes", "schema").stdout) == world.json("recipes", "schema")["schema"]


def test_an_overlay_in_a_file_named_after_a_path_is_no_recipe(world: World) -> None:
    told = world.json("recipes", "show", "../../etc/passwd", code=2)["error"]
    assert told["code"] == "recipe-missing"
    assert told["run"] == ["spark-build recipes list"]
