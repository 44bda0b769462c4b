"""Layers: who sets what, how tables and named arrays merge, and where patches lie."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path

import pytest

from builder.errors import RecipeError
from builder.inputs import recipe_identity
from builder.recipe.layers import Layer
from builder.recipe.lines import lines
from builder.recipe.load import load
from builder.recipe.render import toml
from tests.recipe_kit import GOOD, SHIPPED, Layers

RICH = (
    GOOD
    + """\
[build]
hook = "cmake"
[build.env]
A = "1"
B = "2"
[[check]]
id = "import"
kind = "import"
run = "import demo"
[resources]
jobs = 8
classes = [{ match = "*", mem = "1GiB" }]
[image]
env = { A = "1", B = "1" }
companions = [{ of = "demo", name = "demo-data", why = "fetched otherwise" }]
"""
)


@pytest.fixture
def layers(tmp_path: Path) -> Layers:
    made = Layers(tmp_path)
    made.write(RICH)
    return made


def test_an_overlay_holds_only_what_it_changes(layers: Layers) -> None:
    layers.write("[build.env]\nB = '3'\n[resources]\njobs = 4\n", layer="user")
    loaded = layers.load()
    assert loaded.recipe.build.env == {"A": "1", "B": "3"}
    assert loaded.recipe.build.hook == "cmake"
    assert loaded.recipe.resources.jobs == 4
    shown = {key: str(origin).removeprefix(f"{layers.root}/") for key, origin in loaded.origins.items()}
    assert shown["build.env.A"] == "shipped/demo.toml:12"
    assert shown["build.env.B"] == "user/demo.toml:2"
    assert shown["resources.jobs"] == "user/demo.toml:4"


def test_named_entries_change_and_others_are_added(layers: Layers) -> None:
    layers.write(
        """\
        [[output]]
        name = "extra"
        default = false
        [[output]]
        name = "demo"
        path = "python"
        [output.env]
        KIND = "x"
        [[check]]
        kind = "size"
        max = "1MiB"
        [[check]]
        id = "import"
        run = "import demo.core"
        [[resources.classes]]
        match = "*.cu"
        mem = "4GiB"
        [image]
        env = { A = "2" }
        [[image.companions]]
        of = "demo"
        name = "demo-kernels"
        why = "slow without"
        """,
        layer="user",
    )
    recipe = layers.load().recipe
    assert [(one.name, one.path, one.default) for one in recipe.output] == [
        ("demo", "python", True),
        ("extra", ".", False),
    ]
    assert recipe.output[0].env == {"KIND": "x"}
    assert [(one.kind, one.run) for one in recipe.check] == [("import", "import demo.core"), ("size", None)]
    assert [one.mem for one in recipe.resources.classes] == ["1GiB", "4GiB"]
    assert recipe.image.env == {"A": "2", "B": "1"}
    assert [one.name for one in recipe.image.companions] == ["demo-data", "demo-kernels"]


def test_a_mistake_in_an_added_entry_has_the_line_of_its_own_file(layers: Layers) -> None:
    layers.write("\n\n[[output]]\nname = 'two'\n[[output]]\nname = 'three'\npaht = 'x'\n", layer="user")
    assert layers.mistakes() == ["user/demo.toml:7: output[2].paht: unknown key `paht`, did you mean `path`?"]


def test_an_empty_array_empties(layers: Layers) -> None:
    layers.write("check = []\nresources.classes = []\n", layer="user")
    recipe = layers.load().recipe
    assert (recipe.check, recipe.resources.classes) == ((), ())


def test_another_version_loses_the_digest_of_the_first(layers: Layers) -> None:
    layers.write(GOOD.replace('version = "1.0"', f'version = "1.0"\nsha256 = "{"a" * 64}"'))
    assert layers.load().recipe.source[0].sha256 == "a" * 64
    layers.write("[[source]]\nkind = 'sdist'\nversion = '1.1'\n", layer="user")
    source = layers.load().recipe.source[0]
    assert (source.project, source.version, source.sha256) == ("demo", "1.1", None)


def test_patches_of_two_layers(layers: Layers) -> None:
    first = layers.patch("a.patch", "one\n", layer="shipped")
    second = layers.patch("b.patch", "two\n", layer="user")
    entry = '[[patch]]\nid = "{0}"\nfile = "{0}.patch"\nsha256 = "{1}"\n'
    layers.write(RICH + entry.format("a", first))
    layers.write(entry.format("b", second), layer="user")
    loaded = layers.load()
    assert [patch.id for patch in loaded.recipe.patch] == ["a", "b"]
    assert {name: path.relative_to(layers.root) for name, path in loaded.patches.items()} == {
        "a": Path("shipped/patches/demo/a.patch"),
        "b": Path("user/patches/demo/b.patch"),
    }


def test_a_patch_file_in_a_stronger_layer_wins_and_must_have_the_digest(layers: Layers) -> None:
    first = layers.patch("a.patch", "one\n", layer="shipped")
    layers.write(RICH + f'[[patch]]\nid = "a"\nfile = "a.patch"\nsha256 = "{first}"\n')
    other = layers.patch("a.patch", "changed\n", layer="user")
    assert layers.mistakes() == []  # no recipe file in that layer, so its patches aren't looked at
    layers.write("[resources]\njobs = 1\n", layer="user")
    (told,) = layers.mistakes()
    assert told.startswith("shipped/demo.toml:27: patch[0].sha256: is ")
    layers.write(f'[[patch]]\nid = "a"\nsha256 = "{other}"\n', layer="user")
    assert layers.load().patches["a"].read_text() == "changed\n"


def test_a_stack_file_lies_between_the_user_and_the_command_line(layers: Layers) -> None:
    layers.write("[resources]\njobs = 4\nmem-per-job = '3GiB'\n", layer="user")
    text = "[recipe.demo.resources]\njobs = 2\ndisk = '9GiB'\n"
    file = layers.root / "stack.toml"
    file.write_text(text)
    stack = Layer(
        word="stack", values=tomllib.loads(text)["recipe"]["demo"], file=file, text=text, prefix="recipe.demo"
    )
    loaded = load("demo", layers.folders, settings={"resources.disk": "5GiB"}, stack={"demo": stack})
    resources = loaded.recipe.resources
    assert (resources.jobs, resources.mem_per_job, resources.disk) == (2, "3GiB", "5GiB")
    assert str(loaded.origins["resources.jobs"]) == f"{file}:2"
    assert str(loaded.origins["resources.disk"]) == "command line"


def test_a_mistake_in_a_stack_file_has_its_line(layers: Layers) -> None:
    text = "\n[recipe.demo.resources]\njob = 2\n"
    file = layers.root / "stack.toml"
    stack = Layer(
        word="stack", values=tomllib.loads(text)["recipe"]["demo"], file=file, text=text, prefix="recipe.demo"
    )
    with pytest.raises(RecipeError) as caught:
        load("demo", layers.folders, stack={"demo": stack})
    assert caught.value.cause.startswith(f"{file}:3: resources.job: unknown key `job`, did you mean `jobs`?")


@pytest.mark.parametrize(
    ("key", "text", "found"),
    [
        ("build.env.X", "1", "1"),
        ("build.env.X", "true", "true"),
        ("build.env.X", '"quoted"', "quoted"),
        ("build.env.X", "a b", "a b"),
        ("build.env.'X_Y'", "", ""),
    ],
)
def test_a_setting_of_a_text_is_text(layers: Layers, key: str, text: str, found: str) -> None:
    env = load("demo", layers.folders, settings={key: text}).recipe.build.env
    assert env[key.rsplit(".", maxsplit=1)[-1].strip("'")] == found


def test_settings_reach_into_named_entries(layers: Layers) -> None:
    settings = {
        "output.demo.path": "python",
        "source.sdist.version": "2.0",
        "check.import.run": "import x",
        "build.requires-pin": '["cmake<4"]',
        "resources.jobs": "3",
        'build.config-settings."a.b"': "c",
    }
    recipe = load("demo", layers.folders, settings=settings).recipe
    assert (recipe.output[0].path, recipe.source[0].version, recipe.check[0].run) == ("python", "2.0", "import x")
    assert (recipe.build.requires_pin, recipe.resources.jobs) == (("cmake<4",), 3)
    assert recipe.build.config_settings == {"a.b": "c"}


@pytest.mark.parametrize(("key", "text"), [("resources.jobs", "many"), ("bulid.x", "1"), ("build", "1"), ("x", "")])
def test_a_wrong_setting_is_told_as_one(layers: Layers, key: str, text: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load("demo", layers.folders, settings={key: text})
    assert caught.value.cause.startswith("command line: ")


def test_a_local_folder_is_relative_to_the_file_that_names_it(layers: Layers) -> None:
    layers.write("[[source]]\nkind = 'local'\npath = '../here'\n", layer="user")
    assert layers.load().recipe.source[1].path == str(layers.root / "user" / ".." / "here")


def test_what_never_changes_bytes_is_no_identity(layers: Layers) -> None:
    before = layers.load().recipe
    layers.write(
        "# a comment\n[about]\nsummary = 'x'\n[resources]\njobs = 1\nmem-per-job = '9GiB'\nbuild-timeout = '1h'\n"
        "[build]\njobs-env = ['X']\n[[check]]\nkind = 'import'\nrun = 'import y'\n",
        layer="user",
    )
    after = layers.load().recipe
    assert before != after
    assert recipe_identity(before, ["demo"]) == recipe_identity(after, ["demo"])
    layers.write("[build.env]\nB = '3'\n", layer="user")
    assert recipe_identity(before, ["demo"]) != recipe_identity(layers.load().recipe, ["demo"])


@pytest.mark.parametrize("file", sorted(SHIPPED.glob("*.toml")), ids=lambda file: file.stem)
def test_the_shown_recipe_reads_back_the_same(file: Path) -> None:
    raw = tomllib.loads(file.read_text())
    assert tomllib.loads(toml(raw)) == raw
    assert tomllib.loads(toml(raw, lambda path: f"set by {path}")) == raw


def test_odd_values_are_shown_so_that_they_read_back() -> None:
    raw = {
        "name": 'a "quoted" \\ one',
        "build": {"env": {"A.B": "x\ny", "empty": ""}, "config-settings": {"--build-option": ["a", "b"]}},
        "output": [{"name": "x", "when": {"file": {"path": "p"}}}, {"name": "y", "env": {}}],
    }
    assert tomllib.loads(toml(raw, lambda _path: "here")) == raw


def test_every_key_of_a_file_has_its_line() -> None:
    text = """\
# [not.a.table]
schema = 1
"quoted.key" = 1
a.b = { c = 1, d = [1,
  { e = 'x]' }] }
[build]
[[output]]
name = "a" # = [x]
[output.env]
X = "1"
[[output]]
[[output.deep]]
y = 2020-01-01
"""
    assert tomllib.loads(text)
    assert lines(text) == {
        "schema": 2,
        "quoted.key": 3,
        "a": 4,
        "a.b": 4,
        "build": 6,
        "output": 7,
        "output[0]": 7,
        "output[0].name": 8,
        "output[0].env": 9,
        "output[0].env.X": 10,
        "output[1]": 11,
        "output[1].deep": 12,
        "output[1].deep[0]": 12,
        "output[1].deep[0].y": 13,
    }


def test_loaded_is_frozen(layers: Layers) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        layers.load().path = Path("x")  # type: ignore[misc]  # that is the point
