"""``[[fetch]]``: what the loader refuses, how layers change an entry, and what paths in it count from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from builder.errors import RecipeError
from builder.recipe.load import load
from tests.recipe_kit import ARCHIVE, CRATES, GIT, GOOD, Layers

if TYPE_CHECKING:
    from pathlib import Path

LINE = len(f"{GOOD}{GIT}{CRATES}{ARCHIVE}".splitlines()) + 1


@pytest.fixture
def layers(tmp_path: Path) -> Layers:
    made = Layers(tmp_path)
    made.write(GOOD + GIT + CRATES + ARCHIVE)
    return made


def test_good_tables_load(layers: Layers) -> None:
    git, crates, archive = layers.load().recipe.fetch
    assert (git.id, git.ref, git.pin[0].file) == ("cutlass", "${tag}", "cmake/cutlass.cmake")
    assert (crates.lockfile, archive.platform["aarch64"]) == ("rust/Cargo.lock", "sbsa")
    assert archive.pin[1].name == "sha256"


@pytest.mark.parametrize(
    ("key", "wanted"),
    [
        (
            "url = 'x/${hash}.tar.gz'",
            "url: ${hash} is no known name; known: machine, platform, version, commit, cuda, s",
        ),
        ("url = 'x/${home}'", "url: ${home} is no known name"),
        ("url = 'x/${short'", "opens a ${ and never closes it"),
        ("sha256 = 'abc'", "sha256: is no sha256: wanted 64 hex digits"),
        ("sha256 = '${path}'", "sha256: ${path} is no known name"),
        ("place = '/root/.cache/x'", "must begin with one of ${home}/, ${src}/, ${deps}/"),
        ("place = '${home}'", "must begin with one of"),
        ("place = '${home}/../x'", "`${home}/../x` leaves ${home}"),
        ("place = '${home}/x/'", "ends in /"),
        ("place = '${deps}/git/x'", "`${deps}/git/x`: .fresh, .laid, cargo, git of ${deps} are taken"),
        ("replaced-place = 'third_party/x'", "must begin with one of ${home}/, ${src}/, ${deps}/, ${place}/"),
        ("stamp = { '../x' = '1' }", "`../x` leaves the folder that was unpacked"),
        ("stamp = { x = '${nope}' }", "stamp.x: ${nope} is no known name"),
        ("env = { 'A B' = '1' }", "env.A B: `A B` can't be the name of a variable"),
        ("env = { A = '${path}' }", "env.A: ${path} is no known name"),
        ("replaced = { 'A-' = '1' }", "replaced.A-: `A-` can't be the name of a variable"),
        ("ref = 'main'", "ref: means nothing for kind archive; only for git"),
        ("submodules = 'all'", "submodules: means nothing for kind archive"),
        ("lockfile = 'Cargo.lock'", "lockfile: means nothing for kind archive; only for crates"),
        ("strip = -1", "strip: is -1, wanted at least 0"),
        ("path = ''", "path: is empty"),
        ("path = 'toolkit:../x'", "leaves the toolkit; write toolkit:bin/ptxas"),
        ("path = 'toolkit:'", "leaves the toolkit"),
        ("path = '${home}/x'", "path: no names can be used in it"),
        ("when = { version = '3' }", "when.version: `3` is no version range"),
        ("platform = {}", "url: names `${platform}`"),
        ("pin = [{ file = '../x', matches = '(?P<short>x)' }]", "pin[0].file: `../x` leaves the source tree"),
        ("pin = [{ file = 'x', matches = '(' }]", "pin[0].matches: is no regular expression"),
        ("pin = [{ file = 'x', matches = 'tag' }]", "pin[0].matches: names no group"),
        ("pin = [{ file = 'x' }]", "pin[0]: wanted one of `matches` and `json`"),
        ("pin = [{ file = 'x', json = 'a', name = 'b', matches = '(?P<c>x)' }]", "pin[0]: wanted one of"),
        ("pin = [{ file = 'x', json = 'a' }]", "pin[0].name: `name` is missing: what `json` finds needs one"),
        ("pin = [{ file = 'x', matches = '(?P<a>b)', name = 'c' }]", "pin[0].name: has no effect without `json`"),
        ("pin = [{ file = 'x', json = 'a.${home}', name = 'b' }]", "pin[0].json: ${home} is no known name"),
        ("pin = [{ file = 'x', matches = '(?P<commit>x)' }]", "pin[0]: `commit` stands for something else"),
        ("pin = [{ file = 'x', matches = '(?P<other>x)' }]", "url: ${short} is no known name"),
    ],
)
def test_mistake_in_an_archive(layers: Layers, key: str, wanted: str) -> None:
    """A user's layer says one key of the entry anew, and the mistake has that layer's line."""
    layers.write(f"[[fetch]]\nid = 'llvm'\n{key}\n", layer="user")
    told = layers.mistakes()
    if wanted.startswith("url: names"):  # the table without its platforms is the shipped one's
        layers.write(GOOD + ARCHIVE.replace('platform = { aarch64 = "sbsa", x86_64 = "x64" }\n', ""))
        layers.write("", layer="user")
        assert layers.mistakes() == [
            "shipped/demo.toml:9: fetch[0].platform: `platform` is missing, and ${platform} is used"
        ]
        return
    assert any(f": fetch[2].{wanted}" in one or wanted in one for one in told), told
    assert any(one.startswith("user/demo.toml:3: ") for one in told) or "url: ${short}" in wanted, told


@pytest.mark.parametrize(
    ("text", "line", "wanted"),
    [
        (GIT.replace('ref = "${tag}"\n', "").replace("cutlass", "b"), 0, "ref: `ref` is missing: kind git needs it"),
        (GIT.replace("cutlass", "b") + "sha256 = '0'\n", 6, "sha256: means nothing for kind git; only for archive"),
        (GIT.replace("cutlass", "b") + "submodules = ['../x']\n", 6, "submodules[0]: `../x` leaves the source tree"),
        (CRATES.replace('lockfile = "rust/Cargo.lock"\n', "").replace("crates", "c", 1), 0, "`lockfile` is missing"),
        (CRATES.replace("rust/", "/rust/").replace('"crates"', '"c"', 1), 3, "leaves the source tree"),
        (CRATES.replace('"crates"', '"c"', 1) + "url = 'x'\n", 4, "url: means nothing for kind crates"),
        (ARCHIVE.replace('place = "${home}/.cache/${file}"\n', "").replace("llvm", "b", 1), 0, "`place` is missing"),
        (CRATES, 1, "`crates` is there twice"),
        (CRATES.replace('"crates"', '"Crates X"', 1), 1, "must be lower case words joined by `-`"),
        ("[[fetch]]\nid = 'x'\n", 0, "`kind` is missing, wanted `git` or `archive` or `crates`"),
        ("[[fetch]]\nid = 'x'\nkind = 'svn'\n", 2, 'is "svn", wanted `git` or `archive` or `crates`'),
        ("[[fetch.layout]]\nurl = 'x'\n", 0, "`when` is missing, wanted a table"),
        ("[[fetch.layout]]\nwhen = { cuda = '13' }\n", 1, "layout[0].when.cuda: `13` is no version range"),
        ("[[fetch.layout]]\nwhen = {}\nlock-file = 'x'\n", 2, "unknown key `lock-file`"),
        ("[[fetch.layout]]\nwhen = {}\nurl = '${tag}'\n", 2, "layout[0].url: ${tag} is no known name"),
        ("[[fetch.layout]]\nwhen = {}\nplace = 'x'\n", 2, "layout[0].place: `x` must begin with one of"),
        (
            "[[fetch.layout]]\nwhen = {}\n[[fetch.layout.pin]]\nfile = 'x'\nmatches = '(?P<hash>x)'\n",
            2,
            "layout[0].pin: gives no `short`, which `url` of the table uses",
        ),
    ],
)
def test_mistake_has_the_line_of_its_key(layers: Layers, text: str, line: int, wanted: str) -> None:
    layers.write(f"{GOOD}{GIT}{CRATES}{ARCHIVE}{text}")
    told = layers.mistakes()
    assert any(one.startswith(f"shipped/demo.toml:{LINE + line}: ") and wanted in one for one in told), told


def test_a_table_may_wait_for_what_a_layout_reads(layers: Layers) -> None:
    text = """\
    [[fetch]]
    id = "json"
    kind = "archive"
    url = "https://example.org/${version}-${hash}.zip"
    place = "${deps}/json"
    [[fetch.layout]]
    when = { version = "<3.8" }
    pin = [{ file = "json.txt", matches = '(?P<hash>.*)' }]
    [[fetch.layout]]
    when = { version = ">=3.8" }
    sha256 = ""
    pin = [{ file = "json.json", json = "hash", name = "hash" }]
    [[fetch.layout]]
    when = { version = ">=4" }
    absent = true
    pin = []
    """
    layers.write(GOOD)
    layers.write(text, layer="user")
    (fetch,) = layers.load().recipe.fetch
    assert [layout.absent for layout in fetch.layout] == [None, None, True]
    assert fetch.layout[1].sha256 == ""


def test_a_layer_changes_one_key_of_an_entry(layers: Layers) -> None:
    file = layers.write("[[fetch]]\nid = 'cutlass'\nref = 'v4'\n[[fetch]]\nid = 'crates'\nabout = 'x'\n", layer="user")
    loaded = layers.load()
    assert [one.id for one in loaded.recipe.fetch] == ["cutlass", "crates", "llvm"]
    assert (loaded.recipe.fetch[0].ref, loaded.recipe.fetch[0].kind) == ("v4", "git")
    assert str(loaded.origins["fetch[0].ref"]) == f"{file}:3"
    assert load("demo", layers.folders, settings={"fetch.cutlass.ref": "main"}).recipe.fetch[0].ref == "main"


def test_a_layer_adds_a_layout_behind_those_that_are_there(layers: Layers) -> None:
    layers.write(GOOD + GIT + "[[fetch.layout]]\nwhen = { version = '<2' }\nref = 'v1'\n")
    layout = "[[fetch.layout]]\nwhen = { version = '>=3' }\n"
    file = layers.write(f"[[fetch]]\nid = 'cutlass'\n{layout}ref = 'v3'\n", layer="user")
    loaded = layers.load()
    assert [one.ref for one in loaded.recipe.fetch[0].layout] == ["v1", "v3"]
    assert str(loaded.origins["fetch[0].layout[1].ref"]) == f"{file}:5"
    layers.write(f"[[fetch]]\nid = 'cutlass'\n{layout}refs = 'v3'\n", layer="user")
    assert layers.mistakes() == ["user/demo.toml:5: fetch[0].layout[1].refs: unknown key `refs`, did you mean `ref`?"]
    layers.write("[[fetch]]\nid = 'cutlass'\nlayout = []\n", layer="user")
    assert layers.load().recipe.fetch[0].layout == ()


def test_what_is_put_in_place_counts_from_the_file_that_says_so(
    layers: Layers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers.write("[[fetch]]\nid = 'llvm'\npath = '../llvm'\n", layer="user")
    assert layers.load().recipe.fetch[2].path == str(tmp_path / "user" / ".." / "llvm")

    def told(path: str) -> str | None:
        return load("demo", layers.folders, settings={"fetch.llvm.path": path}).recipe.fetch[2].path

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert told("here") == str(tmp_path / "here")
    assert told("/usr/lib/llvm-22") == "/usr/lib/llvm-22"
    assert told("~/llvm") == "/home/somebody/llvm"
    assert told("toolkit:bin/ptxas") == "toolkit:bin/ptxas"


def test_a_setting_of_an_entry_that_is_not_there_names_what_is_near(layers: Layers) -> None:
    with pytest.raises(RecipeError) as caught:
        load("demo", layers.folders, settings={"fetch.lvm.path": "/x"})
    assert caught.value.cause == "command line: fetch[3]: there is no fetch `lvm`; near: llvm"
    with pytest.raises(RecipeError) as caught:
        load("demo", layers.folders, settings={"variant.slim.default": "true"})
    assert caught.value.cause == "command line: variant[0]: there is no variant `slim`; known: none"
