"""A build that reached for the network is told the address, and the recipe key that gives it that."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

import pytest

from builder.executor import diagnosis
from builder.stages import Given, Nested, Pin
from tests.given_kit import UPSTREAM, Bench

if TYPE_CHECKING:
    from pathlib import Path

    from builder.errors import BuildFailed
    from tests.world import World

CMAKE = "cmake_minimum_required(VERSION 3.24)\nproject(tiny NONE)\ninclude(FetchContent)\n"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def told(bench: Bench, *words: str, given: tuple[Nested, ...] = (), laid: tuple[Nested, ...] = ()) -> BuildFailed:
    """Run what fails in a real cut-off build that was given `laid`, and return the error."""
    printed = bench.run(*words, given=bench.lay_out(*laid), code=None)
    return diagnosis.failed(
        printed.splitlines(),
        output="tiny",
        recipe="tiny",
        hook="build_wheel",
        code=1,
        ref="f00",
        cut_off=True,
        nested=(*given, *laid),
    )


def archive(name: str, url: str) -> Nested:
    pin = Pin(kind="archive", url=url, tree=f"sha256:{'0' * 64}", time=0)
    return Nested(id=name, kind="archive", origin="tree", given=Given(place="${home}/x"), pin=pin)


def get(url: str) -> tuple[str, ...]:
    return ("python", "-c", f"import urllib.request; print('getting {url}'); urllib.request.urlopen({url!r})")


def test_a_repository_that_nothing_gives(bench: Bench) -> None:
    error = told(bench, "git", "clone", "-q", f"{UPSTREAM}/my-lib.git")
    assert error.code == "network-reached"
    assert error.summary.endswith(f": {UPSTREAM}/my-lib.git")
    assert f"[[fetch]] id = 'my-lib', kind = 'git', url = '{UPSTREAM}/my-lib.git'" in error.help


def test_a_repository_beside_a_given_one(bench: Bench) -> None:
    bench.repo("lib")
    error = told(bench, "git", "clone", "-q", f"{UPSTREAM}/lib-more", laid=(bench.git("lib", "main"),))
    assert error.summary.endswith(f": {UPSTREAM}/lib-more")
    assert "id = 'lib-more', kind = 'git'" in error.help


def test_a_submodule_that_is_not_given(bench: Bench) -> None:
    bench.repo("leaf")
    lib = bench.repo("lib")
    lib("-c", f"url.{bench.root}/up/.insteadOf={UPSTREAM}/", "submodule", "-q", "add", f"{UPSTREAM}/leaf.git", "leaf")
    lib.commit()
    error = told(
        bench, "git", "clone", "-q", "--recursive", f"{UPSTREAM}/lib.git", "l", laid=(bench.git("lib", "main"),)
    )
    assert error.summary.endswith(f": {UPSTREAM}/leaf.git")


def test_a_file_that_nothing_gives(bench: Bench) -> None:
    error = told(bench, *get(f"{UPSTREAM}/data/blob_v1.tar.gz"))
    assert error.summary.endswith(f": {UPSTREAM}/data/blob_v1.tar.gz")
    assert "[[fetch]] id = 'blob-v1', kind = 'archive'" in error.help
    assert "place = " in error.help


def test_a_file_that_is_given_and_was_not_taken(bench: Bench) -> None:
    url = f"{UPSTREAM}/blob-1.tar.gz"
    error = told(bench, *get(url), given=(archive("other", f"{UPSTREAM}/other.zip"), archive("blob", url)))
    assert "[[fetch]] blob gives this" in error.help
    assert "fetch.blob.place" in error.help


def test_a_file_of_another_version_than_the_recipe_reads(bench: Bench) -> None:
    given = (archive("blob", f"{UPSTREAM}/files/blob-1.9.tar.gz"),)
    error = told(bench, *get(f"{UPSTREAM}/files/blob-1.10.tar.gz"), given=given)
    assert f"[[fetch]] blob gives {UPSTREAM}/files/blob-1.9.tar.gz" in error.help
    assert "fetch.blob.pin or a [[fetch.layout]]" in error.help


def test_a_package_of_python(bench: Bench) -> None:
    error = told(bench, *get("https://files.pythonhosted.org/packages/x-1.0.tar.gz"))
    assert "build.requires-add" in error.help


def test_a_crate_of_the_public_registry(bench: Bench) -> None:
    error = told(bench, *get("https://static.crates.io/crates/x/x-1.0.0.crate"))
    assert "kind = 'crates'" in error.help


@pytest.mark.parametrize(
    "words",
    [
        ("git", "clone", "-q", "--depth", "1", "--branch", "v2.0", f"{UPSTREAM}/lib.git"),
        ("git", "fetch", "-q", f"{UPSTREAM}/lib.git", "v2.0"),
    ],
)
def test_another_ref_than_what_is_pinned(bench: Bench, words: tuple[str, ...]) -> None:
    bench.repo("lib")("tag", "v1.0")
    laid = (bench.git("lib", "v1.0"),)
    bench.run("git", "init", "-q", given={})
    error = told(bench, *words, laid=laid)
    assert (error.code, error.exit_code) == ("nested-ref", 1)
    assert "asks a repository for v2.0" in error.summary
    assert "lib is pinned to v1.0 (" in error.cause
    assert "fetch.lib.ref" in error.help


def test_fetchcontent_that_asks_for_another_tag(bench: Bench) -> None:
    for name in ("lib", "other"):
        bench.repo(name)("tag", "v1.0")
    text = (
        f"FetchContent_Declare(lib GIT_REPOSITORY {UPSTREAM}/lib.git GIT_TAG v2.0)\nFetchContent_MakeAvailable(lib)\n"
    )
    (bench.space.src / "CMakeLists.txt").write_text(CMAKE + text)
    laid = (bench.git("other", "v1.0"), bench.git("lib", "v1.0"))
    error = told(bench, "cmake", "-G", "Ninja", "-S", ".", "-B", "build", laid=laid)
    assert error.code == "nested-ref"
    assert "lib is pinned to v1.0" in error.cause
    assert "other is pinned" not in error.cause


def test_a_whole_build_says_so(world: World) -> None:
    world.tiny_repo(extra="import urllib.request; urllib.request.urlopen('https://downloads.invalid/kit/blob-2.zip')")
    with zipfile.ZipFile(world.root / "blob-1.zip", "w") as made:
        made.writestr("x", "x")
    (world.config / "config.toml").write_text(f'[mirrors]\n"https://downloads.invalid/kit/" = "{world.root}/"\n')
    more = (
        '[[fetch]]\nid = "blob"\nkind = "archive"\nurl = "https://downloads.invalid/kit/blob-1.zip"\n'
        'place = "${home}/${file}"\n'
    )
    world.tiny_recipe(more=more)
    failed = world.run("recipe", "tiny", code=1).stderr
    assert (
        "error[network-reached]: the build of tiny reached for the network: https://downloads.invalid/kit/blob-2.zip"
        in (" ".join(failed.split()))
    )
    assert "[[fetch]] blob gives https://downloads.invalid/kit/blob-1.zip" in " ".join(failed.split())
