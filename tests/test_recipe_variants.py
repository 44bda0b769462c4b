"""Variants: layers that are taken in or left out by word."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

import jsonschema
import pytest

from builder.errors import RecipeError, UsageError
from builder.recipe import conditions
from builder.recipe.layers import Layer
from builder.recipe.load import load, read_all
from builder.recipe.schema import schema
from builder.stages import Request
from builder.ui.plan import command
from tests.recipe_kit import GOOD, VARIED, Layers

if TYPE_CHECKING:
    from pathlib import Path

    from tests.world import World


@pytest.fixture
def layers(tmp_path: Path) -> Layers:
    made = Layers(tmp_path)
    made.write(VARIED)
    return made


def env(layers: Layers, **variants: bool) -> dict[str, str]:
    return dict(load("demo", layers.folders, variants=variants).recipe.build.env)


def test_what_is_in_by_default_and_what_is_asked_for(layers: Layers) -> None:
    assert env(layers) == {"A": "tools", "TOOLS": "1"}
    assert env(layers, tools=False) == {"A": "plain"}
    assert env(layers, rust=True) == {"A": "tools", "TOOLS": "1"}  # in the order of the recipe
    loaded = load("demo", layers.folders, variants={"rust": True, "tools": False})
    assert loaded.variants == ("rust",)
    assert loaded.recipe.system.rust == ">=1.95"
    assert [(one.name, one.path) for one in loaded.recipe.output] == [("demo", "rust"), ("demo-rust", ".")]
    assert load("demo", layers.folders).variants == ("tools",)


def test_variants_lie_between_the_files_and_the_command_line(layers: Layers) -> None:
    layers.write(
        "[build.env]\nA = 'mine'\n[[variant]]\nid = 'rust'\n[variant.recipe.build.env]\nB = 'more'\n", layer="user"
    )
    stack = Layer(word="stack", values={"build": {"env": {"A": "stack"}}})
    assert env(layers, tools=False, rust=True) == {"A": "rust", "B": "more"}
    assert env(layers, tools=False) == {"A": "mine"}
    loaded = load("demo", layers.folders, stack={"demo": stack}, variants={"tools": False})
    assert loaded.recipe.build.env == {"A": "stack"}
    settings = {"build.env.A": "set", "variant.tools.default": "false", "variant.rust.default": "true"}
    loaded = load("demo", layers.folders, settings=settings)
    assert (loaded.variants, loaded.recipe.build.env) == (("rust",), {"A": "set", "B": "more"})
    assert str(loaded.origins["build.env.A"]) == "command line"


def test_an_origin_names_variant_and_file(layers: Layers) -> None:
    file = layers.write("[[variant]]\nid = 'rust'\n[variant.recipe.build.env]\nB = 'more'\n", layer="user")
    shipped = layers.root / "shipped" / "demo.toml"
    loaded = load("demo", layers.folders, variants={"rust": True})
    shown = {key: str(loaded.origins[key]) for key in ("build.env.A", "build.env.B", "system.rust", "output[0].path")}
    assert shown == {
        "build.env.A": f"{shipped}:27 (variant tools)",
        "build.env.B": f"{file}:4 (variant rust)",
        "system.rust": f"{shipped}:15 (variant rust)",
        "output[0].path": f"{shipped}:20 (variant rust)",
    }
    assert str(loaded.origins["output[0]"]) == f"{shipped}:7"


def test_a_variant_puts_something_in_place_and_its_path_counts_from_its_file(layers: Layers) -> None:
    fetch = "[[fetch]]\nid = 'llvm'\nkind = 'archive'\nurl = 'x'\nplace = '${home}/x'\n"
    head = "[[variant]]\nid = 'own'\nabout = 'x'\n[[variant.recipe.fetch]]\nid = 'llvm'\npath = '{}'\n"
    layers.write(GOOD + fetch + head.format("toolkit:lib"))
    (found,) = load("demo", layers.folders, variants={"own": True}).recipe.fetch
    assert (found.url, found.path) == ("x", "toolkit:lib")
    layers.write(head.format("here"), layer="user")
    (found,) = load("demo", layers.folders, variants={"own": True}).recipe.fetch
    assert found.path == str(layers.root / "user" / "here")
    assert layers.load().recipe.fetch[0].path is None


def test_an_unknown_variant_names_what_is_near(layers: Layers) -> None:
    with pytest.raises(RecipeError, match="the recipe demo has no variant rsut; near: rust") as caught:
        env(layers, rsut=True)
    assert (caught.value.code, caught.value.exit_code) == ("variant-unknown", 2)
    assert caught.value.cause == "its variants: rust, tools"
    layers.write(GOOD)
    with pytest.raises(RecipeError, match="has no variant rust") as caught:
        env(layers, rust=False)
    assert caught.value.cause == "it has none"


@pytest.mark.parametrize(
    ("text", "line", "wanted"),
    [
        ("[[variant]]\nid = 'a'\n", 0, "`about` is missing, wanted a string"),
        ("[[variant]]\nid = 'a'\nabout = 'x'\n", 0, "variant[0].recipe: `recipe` is missing"),
        ("[[variant]]\nid = 'a'\nabout = 'x'\nrecipe = 'y'\n", 3, 'is "y", wanted a table'),
        ("[[variant]]\nid = 'A b'\nabout = 'x'\nrecipe = { builds-on = [] }\n", 1, "must be lower case words"),
        ("[[variant]]\nid = 'a'\nabout = 'x'\ndefault = 'yes'\n", 3, 'is "yes", wanted true or false'),
        ("[[variant]]\nid = 'a'\nabout = 'x'\n[variant.recipe]\nname = 'y'\n", 4, "no variant can change `name`"),
        ("[[variant]]\nid = 'a'\nabout = 'x'\n[variant.recipe]\nvariant = []\n", 4, "no variant can change `variant`"),
        (
            "[[variant]]\nid = 'a'\nabout = 'x'\ndefault = true\n[variant.recipe]\nvariant = []\n[[variant]]\nid = 'b'\n",
            5,
            "no variant can change `variant`",
        ),
        (
            "[[variant]]\nid = 'a'\nabout = 'x'\ndefault = true\n[variant.recipe.system]\nrust = 'new'\n",
            5,
            "system.rust: `new` is no version range; write >=3.5,<3.7 (variant a)",
        ),
    ],
)
def test_mistake_is_told_with_its_line(layers: Layers, text: str, line: int, wanted: str) -> None:
    layers.write(GOOD + text)
    told = layers.mistakes()
    assert any(one.startswith(f"shipped/demo.toml:{9 + line}: ") and wanted in one for one in told), told


def test_all_mistakes_tell_those_of_variants_that_are_out_and_of_recipes_without_those_that_are_in(
    layers: Layers,
) -> None:
    wrong = VARIED.replace('rust = ">=1.95"', 'rust = "new"').replace(
        '[build.env]\nA = "plain"', "[system]\ngcc = '>='"
    )
    wrong = wrong.replace("recipe = { build", 'recipe = { system = { gcc = ">=13" }, build')
    layers.write(wrong)
    assert layers.load().recipe.system.gcc == ">=13"
    good, problems = read_all(layers.folders)
    assert good == ()
    assert [text.removeprefix(f"{layers.root}/shipped/") for text in problems] == [
        "demo.toml:15: system.rust: `new` is no version range; write >=3.5,<3.7 (variant rust)",
        "demo.toml:10: system.gcc: `>=` is no version range; write >=3.5,<3.7",
    ]


def test_the_schema_knows_the_tables_of_variants() -> None:
    validator = jsonschema.Draft202012Validator(schema())
    validator.validate(tomllib.loads(VARIED))
    wrong = VARIED.replace('rust = ">=1.95"', "rusty = 1")
    assert [list(error.path) for error in validator.iter_errors(tomllib.loads(wrong))] == [
        ["variant", 0, "recipe", "system"]
    ]


def test_a_printed_command_repeats_them() -> None:
    request = Request(recipe="demo", variants={"rust": True, "tools": False})
    assert command(request) == "spark-build recipe demo --with rust --without tools"


def test_commands_show_lint_and_refuse(world: World) -> None:
    file = world.recipe("demo", VARIED)
    shown = world.run("recipes", "show", "demo", "--origin", "--with", "rust", "--without", "tools").stdout
    assert f'A = "rust"  # {file}:17 (variant rust)' in shown
    assert "TOOLS" not in shown.partition("[[variant]]")[0]
    assert tomllib.loads(shown)["output"][1] == {"name": "demo-rust"}
    assert world.json("recipes", "show", "demo")["variants"] == ["tools"]
    row = next(row for row in world.json("recipes", "list")["recipes"] if row["name"] == "demo")
    assert [one["id"] for one in row["variants"]] == ["rust", "tools"]
    assert "--with rust, --without tools" in world.run("recipes", "list").stdout
    world.run("recipes", "lint", "demo")
    file.write_text(VARIED.replace("[variant.recipe.system]", "[variant.recipe.sistem]"))
    assert f"{file}:14: sistem: unknown key `sistem`" in world.run("recipes", "lint", "demo", code=2).stderr
    both = world.json("plan", "demo", "--with", "rust", "--without", "rust", code=2)["error"]
    assert both["code"] == "variant-twice"


def test_a_plan_counts_them_and_repeats_them(world: World) -> None:
    world.tiny_repo()
    world.tiny_recipe(more="[[variant]]\nid = 'loud'\nabout = 'x'\nrecipe = { build = { env = { LOUD = '1' } } }\n")
    plain, loud = ("plan", "tiny"), ("plan", "tiny", "--with", "loud")
    assert "spark-build recipe tiny --with loud" in world.run(*loud, code=10).stdout
    found = [
        world.json(*words, code=10)["plans"][0]["fingerprint"] for words in (plain, loud, (*plain, "--without", "loud"))
    ]
    assert found[0] == found[2] != found[1]
    error = world.json("plan", "tiny", "--with", "luod", code=2)["error"]
    assert (error["code"], error["summary"]) == ("variant-unknown", "the recipe tiny has no variant luod; near: loud")


class Facts:
    """A source of which nothing but the arch word is asked."""

    version = "1.0"
    source = "sdist"
    cuda = torch = output = None

    def __init__(self, arch: str) -> None:
        self.arch = arch

    def contains(self, commit: str) -> bool:
        raise AssertionError(commit)

    def read(self, path: str) -> bytes | None:
        raise AssertionError(path)


def test_an_arch_word_may_be_refused_with_the_reason(layers: Layers) -> None:
    layers.write(
        GOOD
        + "[[arch-map]]\narch = '12.0a'\nrefuse = 'sm_120a does not load on a GB10'\n"
        + "[[arch-map]]\narch = '12.*'\nto = ['12.0f']\nwhen = { version = '<1' }\n"
    )
    recipe = layers.load().recipe
    assert conditions.effective_arch(recipe, Facts("12.1a")) == ("12.1a",)
    with pytest.raises(UsageError, match=r"demo isn't built for 12\.0a") as caught:
        conditions.effective_arch(recipe, Facts("12.0a"))
    assert (caught.value.code, caught.value.cause) == ("arch-refused", "sm_120a does not load on a GB10")
    layers.write("[[arch-map]]\narch = '12.0a'\nto = ['12.0f']\n", layer="user")  # the last rule counts
    assert conditions.effective_arch(layers.load().recipe, Facts("12.0a")) == ("12.0f",)
