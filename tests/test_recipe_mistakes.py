"""Every mistake of every recipe in one report: file, line, key, what was found, what was wanted."""

from __future__ import annotations

import copy
import os
import random
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tomli_w

from builder.errors import RecipeError
from builder.recipe.load import read_all
from tests.recipe_kit import ARCHIVE, CRATES, GIT, GOOD, SHIPPED, VARIED, Layers

if TYPE_CHECKING:
    from tests.world import World


@pytest.fixture
def layers(tmp_path: Path) -> Layers:
    made = Layers(tmp_path)
    made.write(GOOD)
    return made


@pytest.mark.parametrize(
    ("text", "line", "wanted"),
    [
        ("[resources]\nmem-per-jobs = '1GiB'", 10, "unknown key `mem-per-jobs`, did you mean `mem-per-job`?"),
        ("[resources]\nmem_per_job = '1GiB'", 10, "unknown key `mem_per_job`, did you mean `mem-per-job`?"),
        ("[resources]\nmax_job = 1", 10, "unknown key `max_job`"),
        ("[bulid]\nstrip = 'none'", 9, "unknown key `bulid`, did you mean `build`?"),
        ("[resources]\njobs = '4'", 10, 'is "4", wanted an integer'),
        ("[resources]\njobs = true", 10, "is true, wanted an integer"),
        ("[resources]\njobs = 0", 10, "is 0, wanted at least 1"),
        ("[resources]\nmem-per-job = 'lots'", 10, "'lots' is no size; write 8GiB or 500M"),
        ("[resources]\nunit-timeout = 'soon'", 10, "'soon' is no time; write 20min or 6h"),
        ("[resources]\nclasses = [{ match = '*', mem = 'x' }]", 10, "'x' is no size"),
        ("build = 3", 9, "is 3, wanted a table"),
        ("[build]\nhook = 'bazel'", 10, 'is "bazel", wanted `cmake` or `setuptools`'),
        ("[build]\nstrip = true", 10, "is true, wanted `none` or"),
        ("[build]\nrequires-add = 'wheel'", 10, 'is "wheel", wanted an array of strings'),
        ("[build]\nrequires-add = ['a', 1]", 10, "is 1, wanted a string"),
        ("[build]\nrequires-pin = ['cmake 4']", 10, "`cmake 4` is no requirement"),
        ("[build]\ntorch-version = '>=2'", 10, "is no exact version"),
        ("[build.env]\nX = 1", 10, "is 1, wanted a string"),
        ("[build.env]\nX = '${archs}'", 10, "${archs} is no known name; known: arch, cuda"),
        ("[build.env]\nX = '${arch'", 10, "opens a ${ and never closes it"),
        ("[build.env]\nMAX_JOBS = '3'", 10, "gets the number of jobs"),
        ("[build.env]\n'A B' = '3'", 10, "can't be the name of a variable"),
        ("[build.config-settings]\nx = ['${nope}']", 10, "${nope} is no known name"),
        ("[version]\nvalue = '1+${label}'", 10, "has no effect without `env`"),
        ("[system]\ngcc = '13'", 10, "`13` is no version range"),
        ("[system]\ngcc = '>=13 <15'", 10, "is no version range"),
        ("[system]\ngcc = '>=13.*'", 10, "is no version range"),
        ("[system]\ngcc = '~=13'", 10, "is no version range"),
        ("[[output]]\nname = 'Demo'", 10, "`Demo` is there twice"),
        ("[[output]]\nname = 'b'\npath = '/x'", 11, "leaves the source tree"),
        ("[[output]]\nname = 'b'\npath = 'a/../../x'", 11, "leaves the source tree"),
        ("[[output]]\npath = 'x'", 9, "`name` is missing, wanted a string"),
        ("[[output]]\nname = 'b'\n[output.when]\nfile = { path = 'x', matches = '(' }", 12, "is no regular expression"),
        ("[[output]]\nname = 'b'\nwhen = { lacks = 'main' }", 11, "is no commit"),
        (
            "[[output]]\nname = 'b'\nwhen = { file = { path = 'x', present = false, matches = 'y' } }",
            11,
            "is false, and",
        ),
        ("[[source]]\nkind = 'git'\nurl = 'x'", 9, "`ref` is missing: a git source needs it"),
        ("[[source]]\nkind = 'sdist'\nproject = 'x'\nversion = '1'", 10, "`sdist` is there twice"),
        ("[[source]]\nkind = 'archive'\nurl = 'x-${arch}.tar.gz'", 11, "${arch} is no known name; known: version"),
        ("[[source]]\nkind = 'archive'\nurl = 'x'\nsha256 = 'abc'", 12, "is no sha256: wanted 64 hex digits"),
        ("[[patch]]\nid = 'p'\nfile = '../p.patch'\nsha256 = '00'", 11, "must be a plain file name"),
        ("[[patch]]\nid = 'p'\nfile = 'p.patch'\nsha256 = '00'", 11, "isn't in shipped/patches/demo"),
        ("[[check]]\nkind = 'size'", 9, "`max` is missing: checks of kind size need it"),
        ("[[check]]\nkind = 'import'\nrun = 'x'\noutput = 'demos'", 12, "is no output of this recipe; known: demo"),
        (
            "[[check]]\nkind = 'accept'\nfindings = ['device-jit']",
            9,
            "`reason` is missing: checks of kind accept need it",
        ),
        ("[[check]]\nkind = 'script'\nscript = '../x.py'", 11, "is no name of a Python file"),
        ("[[check]]\nkind = 'command'\nrun = \"echo 'x\"", 11, "is no whole line"),
        ("[[check]]\nkind = 'import'\nrun = ' '", 11, "is no whole line"),
        ("[[check]]\nkind = 'device-code'\ntarget = 'sm_121'", 11, "is no compute capability; write 12.1"),
        ("[[check]]\nkind = 'import'\nrun = 'x'\nrequires = ['--index-url=x']", 12, "is no requirement"),
        ("builds-on = ['demo']", 9, "demo can't build on itself"),
        ("[build]\nmodules = ['a,b']", 10, "build.modules[0]: `a,b` must be one shell pattern"),
        ("[build]\nmodules = ['']", 10, "must be one shell pattern"),
        ("[[output]]\nname = 'b'\npinned-by = ['torch==2']", 11, "`torch==2` is no distribution's name"),
        ("[[patch]]\nid = 'p'\nfile = 'p.patch'\nsha256 = '00'\nmerged = 'v1'", 13, "`v1` is no commit"),
        ("[[arch-map]]\narch = '12.*'", 9, "`to` is missing, wanted what the project gets, or `refuse`"),
        ("[[arch-map]]\narch = 'x'\nto = ['y']\nrefuse = 'z'", 12, "stands beside `to`; give one of them"),
        ("[[arch-map]]\narch = 'x'\nrefuse = ' '", 11, "refuse: is empty"),
        ("[image]\ncuda = ['cuda-nvcc; reboot']", 10, "must be lower case words"),
        ("[image]\nneeds = ['gpu']", 10, 'is "gpu", wanted `compiler` or `headers` or `nvcc`'),
        ("[image]\nenv = { 'A B' = '1' }", 10, "can't be the name of a variable"),
        ("[image]\nenv = { A = '${arch}' }", 10, "${arch} is no known name; none is known here"),
        ('[image]\nenv = { A = "1\\nUSER root" }', 10, "is more than one line of text"),
        ("[image]\nimports = ['os; print()']", 10, "`os; print()` is no module's name"),
        ("[[image.companions]]\nof = 'b'\nname = 'c'\nwhy = 'd'", 10, "`b` is no output of this recipe"),
        ("[[image.companions]]\nof = 'demo'\nname = '-r x'\nwhy = 'd'", 11, "`-r x` is no distribution's name"),
        ("[[image.companions]]\nof = 'demo'\nname = 'c'\nwhy = ''", 12, "why: is empty"),
        ("[[image.companions]]\nof = 'demo'\nname = 'c'\nwhy = 'd'\nrun = 'x ${arch}'", 13, "known: version"),
        ("[[about.advice]]\ntext = ''", 10, "text: is empty"),
        ("[[about.advice]]\ntext = 'x'\nrun = 'pip install a==${v}'", 11, "${v} is no known name; known: version"),
        ("[[about.advice]]\ntext = 'x'\nwhen = { cuda = '13' }", 11, "when.cuda: `13` is no version range"),
    ],
)
def test_mistake_is_told_with_its_line(layers: Layers, text: str, line: int, wanted: str) -> None:
    if re.match(r"(build|builds-on) = ", text):  # keys of the file itself stand before its tables
        layers.write(f"{text}\n{GOOD}")
        line = 1
    else:
        layers.write(f"{GOOD}{text}\n")
    assert any(told.startswith(f"shipped/demo.toml:{line}: ") and wanted in told for told in layers.mistakes()), (
        layers.mistakes()
    )


def test_all_mistakes_of_all_recipes_come_at_once(layers: Layers) -> None:
    layers.write(GOOD + "[resources]\njobs = 'x'\n[system]\ncuda = 'new'\n")
    layers.write(GOOD.replace('"demo"', '"two"') + "[nope]\n", name="two")
    layers.write("schema = 2\n", name="three")
    text = "\n".join(read_all(layers.folders)[1])
    for told in (
        "demo.toml:10: resources.jobs",
        "demo.toml:12: system.cuda",
        "two.toml:9: nope",
        "three.toml:1: schema: is 2, wanted `1`",
        "three.toml:1: name: `name` is missing",
        "three.toml:1: source",
        "three.toml:1: output",
    ):
        assert told in text


def test_a_wrong_recipe_does_not_hide_a_good_one(layers: Layers) -> None:
    layers.write("nonsense", name="other")
    assert layers.load().recipe.name == "demo"


#: What a key may hold by mistake.
JUNK = ["", "x", 1, True, [], {}, [1], ["x"], [{}], {"x": 1}, "${", "${x}", "../", [[]], [{"id": 1}], -1, "(", 1.5]


def broken(raw: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """Return `raw` with up to three values put out of shape or left out."""
    made = copy.deepcopy(raw)
    for _count in range(chance.randint(1, 3)):
        place: Any = made
        while place:
            key = chance.choice(list(place) if isinstance(place, dict) else range(len(place)))
            if isinstance(place[key], dict | list) and place[key] and chance.random() < 0.7:
                place = place[key]
            elif chance.random() < 0.2:
                del place[key]
                break
            else:
                place[key] = chance.choice(JUNK)
                break
    return made


def test_whatever_a_file_holds_there_is_a_report(layers: Layers) -> None:
    raw = tomllib.loads(f"{VARIED}{GIT}{CRATES}{ARCHIVE}[[fetch.layout]]\nwhen = {{ version = '<3' }}\npin = []\n")
    refused = 0
    for seed in range(200):
        layers.write(tomli_w.dumps(broken(raw, random.Random(seed))))  # noqa: S311  # the same cases each time
        refused += bool(read_all(layers.folders)[1])
    assert refused > 100


def test_files_that_are_no_recipes(layers: Layers) -> None:
    shipped = layers.root / "shipped"
    (shipped / "empty.toml").write_text("")
    (shipped / "latin.toml").write_bytes(b'schema = 1\nname = "\xe4"\n')
    (shipped / "syntax.toml").write_text('schema = 1\nname = "syntax\n')
    (shipped / "open.toml").write_text("schema = [1,\n")
    (shipped / "folder.toml").mkdir()
    (shipped / "gone.toml").symlink_to("nowhere")
    (shipped / "Upper.toml").write_text(GOOD.replace('"demo"', '"Upper"'))
    (shipped / ".hidden.toml").write_text("nonsense")
    text = "\n".join(read_all(layers.folders)[1]).replace(f"{shipped}/", "")
    for told in (
        "empty.toml:1: name: `name` is missing",
        "latin.toml:2: is no UTF-8: byte 0xe4",
        "syntax.toml:2: is no TOML: Illegal character",
        "open.toml:2: is no TOML:",
        "folder.toml: is no file",
        "gone.toml: can't be read: No such file or directory",
        "Upper.toml:2: name: `Upper` must be lower case words joined by `-`",
    ):
        assert told in text
    assert "hidden" not in text


@pytest.mark.root
def test_a_file_that_may_not_be_read(layers: Layers) -> None:
    for folder in (layers.root, *layers.root.parents):
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    file = layers.write(GOOD, layer="user")
    file.chmod(0)
    os.seteuid(65534)
    try:
        told = layers.mistakes()
    finally:
        os.seteuid(0)
    assert told == ["user/demo.toml: can't be read: Permission denied"]


@pytest.mark.parametrize("name", ["../demo", "demo/../demo", "/etc/demo", "Demo", "", "."])
def test_a_name_that_is_a_path_is_no_recipe(layers: Layers, name: str) -> None:
    (layers.root / "demo.toml").write_text(GOOD)
    with pytest.raises(RecipeError, match="there is no recipe") as caught:
        layers.load(name)
    assert caught.value.code == "recipe-missing"


def test_a_missing_recipe_names_what_is_near(layers: Layers) -> None:
    with pytest.raises(RecipeError, match="there is no recipe dmeo; near: demo"):
        layers.load("dmeo")


def test_recipes_that_build_on_each_other(layers: Layers) -> None:
    layers.write(f'builds-on = ["two"]\n{GOOD}')
    layers.write('builds-on = ["three"]\n' + GOOD.replace('"demo"', '"two"'), name="two")
    layers.write('builds-on = ["demo"]\n' + GOOD.replace('"demo"', '"three"'), name="three")
    with pytest.raises(RecipeError, match="demo -> two -> three -> demo") as caught:
        layers.load()
    assert caught.value.code == "recipe-cycle"
    assert (
        f"{layers.root}/shipped/demo.toml:1: builds-on: recipes build on each other" in read_all(layers.folders)[1][0]
    )


def test_building_on_a_recipe_that_is_not_there(layers: Layers) -> None:
    layers.write(f'builds-on = ["tow"]\n{GOOD}')
    layers.write(GOOD.replace('"demo"', '"two"'), name="two")
    with pytest.raises(RecipeError, match="there is no recipe tow; near: two"):
        layers.load()


def test_shipped_recipes_have_no_mistakes(world: World) -> None:
    found = world.json("recipes", "lint")
    assert set(found["recipes"]) == {file.stem for file in SHIPPED.glob("*.toml")} >= {"flashinfer", "triton", "vllm"}
