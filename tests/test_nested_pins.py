"""Where a tree says what it pulls in: readings, layouts, platforms, and what somebody puts in place."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from builder.errors import RecipeError, UsageError
from builder.recipe.condition import Condition
from builder.recipe.nested import Fetch, Layout, Reading
from builder.source import place
from tests.nested_kit import Tree, archive, git, has
from tests.source_kit import Outside

if TYPE_CHECKING:
    from pathlib import Path

    from builder.stages import Nested

HASH = "0123456789abcdef0123456789abcdef01234567"
SHA256 = "a" * 64
BUILDS = "https://example.invalid/llvm-builds"

#: Upstream calls the same machine by its own name, kept the pin in a text file, and moved it into JSON later, with a digest.
LLVM = Fetch(
    id="llvm",
    kind="archive",
    platform={"aarch64": "ubuntu-arm64", "x86_64": "ubuntu-x64"},
    pin=(Reading(file="cmake/llvm-hash.txt", matches=r"^(?P<short>[0-9a-f]{8})[0-9a-f]{32}$"),),
    url=f"{BUILDS}/llvm-${{short}}-${{platform}}.tar.gz",
    place="${home}/.triton/llvm/llvm-${short}-${platform}",
    unpack=True,
    strip=1,
    stamp={"version.txt": "${url}"},
    layout=(
        Layout(
            when=has("cmake/llvm-info.json"),
            pin=(
                Reading(file="cmake/llvm-info.json", json="llvm_hash", name="hash"),
                Reading(file="cmake/llvm-info.json", json="build_number", name="number"),
                Reading(file="cmake/llvm-info.json", json="sha256sum.${platform}", name="sha256"),
            ),
            url=f"{BUILDS}/llvm-${{hash}}-${{platform}}-${{number}}.tar.gz",
            sha256="${sha256}",
            place="${home}/.triton/llvm/${file}",
        ),
        Layout(when=Condition(version=">=4"), absent=True),
    ),
)


@pytest.fixture
def outside(tmp_path: Path) -> Outside:
    return Outside(tmp_path / "user")


def plan(tree: Tree, fetch: Fetch, outside: Outside, machine: str = "aarch64") -> tuple[Nested, ...]:
    return tree.resolve([fetch], outside.sources, machine=machine, bring=False)


def test_a_pin_is_read_out_of_a_text_file(outside: Outside) -> None:
    (found,) = plan(Tree({"cmake/llvm-hash.txt": f"{HASH}\n"}), LLVM, outside)
    assert found.pin is not None
    assert found.pin.url == f"{BUILDS}/llvm-01234567-ubuntu-arm64.tar.gz"
    assert found.pin.filename == "llvm-01234567-ubuntu-arm64.tar.gz"
    assert (found.known, found.origin) == (False, "first use")
    assert found.given.place == "${home}/.triton/llvm/llvm-01234567-ubuntu-arm64"  # only the build knows its home
    assert found.given.stamp == {"version.txt": found.pin.url}
    assert (found.given.unpack, found.given.strip) == (True, 1)


def test_a_layout_takes_the_place_of_what_it_gives(outside: Outside) -> None:
    info = {"llvm_hash": "62b7cf96", "build_number": 2, "sha256sum": {"ubuntu-arm64": SHA256}}
    tree = Tree({"cmake/llvm-hash.txt": HASH, "cmake/llvm-info.json": json.dumps(info)})
    (found,) = plan(tree, LLVM, outside)
    assert found.pin is not None
    assert found.pin.url == f"{BUILDS}/llvm-62b7cf96-ubuntu-arm64-2.tar.gz"
    assert (found.pin.tree, found.origin) == (f"sha256:{SHA256}", "tree")
    assert found.given.place == "${home}/.triton/llvm/llvm-62b7cf96-ubuntu-arm64-2.tar.gz"
    assert found.given.stamp == {"version.txt": found.pin.url}  # kept of the table


def test_the_last_layout_that_holds_counts_and_may_leave_it_out(outside: Outside) -> None:
    assert plan(Tree({"cmake/llvm-info.json": "{}"}, version="4.1"), LLVM, outside) == ()


def test_a_source_whose_condition_doesnt_hold_is_left_out_and_its_files_are_never_asked_for(outside: Outside) -> None:
    tree = Tree()
    assert plan(tree, git("rust", "https://example.invalid/x", HASH, when=Condition(version=">=2")), outside) == ()
    assert tree.asked == []


CMAKE = """
if(VLLM_GPU_LANG STREQUAL "HIP")
  set(TAG "669b31a")
endif()
# FetchContent_Declare(GIT_TAG 1111111111111111111111111111111111111111)
FetchContent_Declare(
        vllm-flash-attn
        GIT_REPOSITORY https://example.invalid/flash-attention.git
        GIT_TAG b273a02621d3c94bc747df67204f591b67f38fae
)
"""


def test_lines_and_spanning_blanks_can_be_matched_and_the_first_match_counts(outside: Outside) -> None:
    reading = Reading(
        file="cmake/fa.cmake", matches=r"^\s+GIT_REPOSITORY (?P<repo>\S+)\s+GIT_TAG (?P<tag>[0-9a-f]{40})"
    )
    tree = Tree({"cmake/fa.cmake": CMAKE + CMAKE.replace("b273", "c000")})
    (found,) = plan(tree, git("fa", "${repo}", "${tag}", pin=(reading,)), outside)
    assert found.pin is not None
    assert (found.pin.url, found.pin.commit) == (
        "https://example.invalid/flash-attention.git",
        "b273a02621d3c94bc747df67204f591b67f38fae",
    )
    assert (found.origin, found.known) == ("tree", False)  # a commit says which, but its bytes aren't at hand


def test_a_file_is_read_once_for_several_sources(outside: Outside) -> None:
    tree = Tree({"pins.json": json.dumps({"ptxas": "12.9", "cudart": "13.1"})})
    tables = [
        archive(
            name, f"https://example.invalid/{name}-${{v}}.tar.xz", pin=(Reading(file="pins.json", json=name, name="v"),)
        )
        for name in ("ptxas", "cudart")
    ]
    found = tree.resolve(tables, outside.sources, bring=False)
    assert [one.pin.filename for one in found if one.pin] == ["ptxas-12.9.tar.xz", "cudart-13.1.tar.xz"]
    assert tree.asked == ["pins.json"]


def test_what_is_optional_is_empty_where_it_is_missing(outside: Outside) -> None:
    readings = (
        Reading(file="gone.txt", matches="(?P<sum>[0-9a-f]{64})", optional=True),
        Reading(file="gone.json", json="a.b", name="c", optional=True),
    )
    (found,) = plan(Tree(), archive("x", "https://example.invalid/x${c}.zip", sha256="${sum}", pin=readings), outside)
    assert found.pin is not None
    assert (found.pin.filename, found.known) == ("x.zip", False)


WRONG = {
    "no file": (Tree(), "cmake/llvm-hash.txt isn't in the tree"),
    "no match": (Tree({"cmake/llvm-hash.txt": "moved"}), "cmake/llvm-hash.txt has nothing that matches"),
    "no key": (Tree({"cmake/llvm-info.json": "{}"}), "cmake/llvm-info.json lacks llvm_hash"),
    "no JSON": (Tree({"cmake/llvm-info.json": "<html>"}), "cmake/llvm-info.json is no JSON"),
    "too deep": (Tree({"cmake/llvm-info.json": "[" * 100_000}), "cmake/llvm-info.json is no JSON"),
    "a table": (Tree({"cmake/llvm-info.json": '{"llvm_hash": {}}'}), "lacks llvm_hash"),
    "no digest": (
        Tree({"cmake/llvm-info.json": '{"llvm_hash": "a", "build_number": 1, "sha256sum": {"ubuntu-arm64": "abc"}}'}),
        "'abc' is no sha256",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_pin_that_moved_is_told_with_file_pattern_and_what_mends_it(outside: Outside, name: str) -> None:
    tree, why = WRONG[name]
    with pytest.raises(RecipeError) as caught:
        plan(tree, LLVM, outside)
    assert (caught.value.code, caught.value.exit_code) == ("fetch-pin", 2)
    assert "llvm" in caught.value.summary
    assert why in caught.value.cause
    assert "[[fetch.layout]]" in caught.value.help
    assert caught.value.run


def test_a_login_is_never_told_to_a_build_and_known_for_a_locked_pin(
    outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a build is given is kept with the wheel."""
    url = "https://me:hunter2@example.invalid/x.zip?token=hunter2"
    table = archive("x", url, sha256=SHA256, unpack=True, stamp={"from": "${url}"}, env={"X": "${url}"})
    (found,) = plan(Tree(), table, outside)
    assert "hunter2" not in repr(found)
    monkeypatch.setattr(place, "_GIVEN", {})  # as in another process
    assert found.pin is not None
    (again,) = Tree().resolve([table], outside.sources, known={"x": found.pin}, bring=False)
    assert again.pin == found.pin
    assert place.revealed(found.pin.url) == url


def test_an_archive_that_was_locked_on_another_machine_is_refused(outside: Outside) -> None:
    """Frozen builds don't look whether they are on the machine that was locked."""
    platform = {"aarch64": "arm", "x86_64": "x64"}
    table = archive("x", "https://example.invalid/x-${platform}.zip", sha256=SHA256, platform=platform)
    (found,) = plan(Tree(), table, outside)
    assert found.pin is not None
    with pytest.raises(UsageError) as caught:
        Tree().resolve([table], outside.sources, machine="x86_64", known={"x": found.pin}, bring=False)
    assert caught.value.code == "lock-stale"
    assert "x-arm.zip" in caught.value.cause


@pytest.mark.parametrize("end", ["..", "."])
def test_a_url_from_the_tree_that_names_no_file_is_told(outside: Outside, end: str) -> None:
    """The name is that of a file among the sources."""
    table = archive("x", "${url-in-tree}", sha256=SHA256, pin=(Reading(file="p.json", json="u", name="url-in-tree"),))
    with pytest.raises(RecipeError) as caught:
        plan(Tree({"p.json": f'{{"u": "https://example.invalid/a/{end}"}}'}), table, outside)
    assert caught.value.code == "fetch-pin"
    assert "names no file" in caught.value.cause


def test_a_machine_that_upstream_has_nothing_for_is_told(outside: Outside) -> None:
    with pytest.raises(RecipeError) as caught:
        plan(Tree({"cmake/llvm-hash.txt": HASH}), LLVM, outside, machine="riscv64")
    assert caught.value.code == "fetch-platform"
    assert "riscv64" in caught.value.summary
    assert "aarch64, x86_64" in caught.value.cause
    assert "fetch.llvm.path" in caught.value.help


def put(path: Path | str, **more: Any) -> Fetch:  # noqa: ANN401  # keys of the table
    keys = {name: getattr(LLVM, name) for name in ("platform", "pin", "url", "place", "unpack", "strip", "stamp")}
    return Fetch(id="llvm", kind="archive", path=str(path), **(keys | more))


def test_what_is_put_in_place_lies_where_the_download_would_and_looks_like_it(outside: Outside, tmp_path: Path) -> None:
    (tmp_path / "llvm").mkdir()
    (found,) = plan(Tree({"cmake/llvm-hash.txt": HASH}), put(tmp_path / "llvm"), outside)
    assert (found.pin, found.path, found.digest, found.origin) == (None, tmp_path / "llvm", "folder llvm", "user")
    assert found.given.place == "${home}/.triton/llvm/llvm-01234567-ubuntu-arm64"
    assert found.given.stamp == {"version.txt": f"{BUILDS}/llvm-01234567-ubuntu-arm64.tar.gz"}
    assert found.identity()["replaced"] == "folder llvm"
    assert str(tmp_path) not in str(found.identity())


def test_variables_can_say_it_instead_and_no_pin_is_read_for_that(outside: Outside, tmp_path: Path) -> None:
    tree = Tree()  # upstream may have moved its pin: nobody needs it
    (found,) = plan(tree, put(tmp_path, replaced={"LLVM_SYSPATH": "${path}"}), outside, machine="riscv64")
    assert found.given.env == {"LLVM_SYSPATH": "${path}"}
    assert (found.given.place, found.given.unpack, found.given.stamp) == (None, False, {})
    assert tree.asked == []


def test_a_place_of_its_own_takes_it_as_it_is(outside: Outside, tmp_path: Path) -> None:
    more = {"replaced": {"P": "${place}"}, "replaced_place": "${src}/bin/${file}"}
    (found,) = plan(Tree({"cmake/llvm-hash.txt": HASH}), put(tmp_path, **more), outside)
    assert found.given.place == "${src}/bin/llvm-01234567-ubuntu-arm64.tar.gz"
    assert (found.given.unpack, found.given.stamp, found.given.env) == (False, {}, {"P": "${place}"})


def test_a_file_of_the_toolkit_can_be_put_in_place(outside: Outside, tmp_path: Path) -> None:
    (tmp_path / "cuda/bin").mkdir(parents=True)
    (tmp_path / "cuda/bin/ptxas").write_bytes(b"ELF")
    table = put("toolkit:bin/ptxas", replaced={"P": "${path}"})
    (found,) = Tree().resolve([table], outside.sources, toolkit=tmp_path / "cuda", bring=False)
    assert found.path == tmp_path / "cuda/bin/ptxas"
    assert found.digest is not None
    with pytest.raises(RecipeError) as caught:
        Tree().resolve([table], outside.sources, toolkit=None, bring=False)
    assert caught.value.code == "fetch-path"


def test_a_path_that_isnt_there_is_told_with_its_key(outside: Outside, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        plan(Tree(), put(tmp_path / "gone", replaced={"P": "${path}"}), outside)
    assert caught.value.code == "fetch-path"
    assert "fetch.llvm.path" in caught.value.help
