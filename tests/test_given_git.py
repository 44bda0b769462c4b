"""Repositories are given back so that upstream's own calls of git find them, with the network cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.given_kit import UPSTREAM, Bench
from tests.source_kit import Repo

if TYPE_CHECKING:
    from pathlib import Path

    from builder.stages import Nested

HEAD = "cmake_minimum_required(VERSION 3.24)\nproject(tiny NONE)\ninclude(FetchContent)\n"
CONFIGURE = ("cmake", "-G", "Ninja", "-S", ".", "-B", "build")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def project(bench: Bench, *declared: str) -> None:
    """Write a project that fetches these when it is configured; each begins with a name."""
    names = " ".join(text.split()[0] for text in declared)
    calls = [f"FetchContent_Declare({text})" for text in declared]
    (bench.space.src / "CMakeLists.txt").write_text("\n".join([HEAD, *calls, f"FetchContent_MakeAvailable({names})\n"]))


def commit_of(nested: Nested) -> str:
    assert nested.pin is not None
    assert nested.pin.commit is not None
    return nested.pin.commit


def fetched(bench: Bench, path: str) -> str:
    return (bench.space.src / "build" / "_deps" / path).read_text()


def deep(bench: Bench) -> Nested:
    """Make a repository with a submodule by a relative URL, which has one by an absolute URL, and both have ``leaf``."""
    leaf = bench.repo("leaf", **{"leaf.txt": "old\n"})
    old = leaf("rev-parse", "HEAD")
    leaf.commit(**{"leaf.txt": "new\n"})
    inner = bench.repo("inner")
    url = f"url.{bench.root}/up/.insteadOf={UPSTREAM}/"
    inner("-c", url, "submodule", "-q", "add", f"{UPSTREAM}/leaf", "sub/leaf")
    inner.commit()
    outer = bench.repo("deep")
    outer("-c", url, "submodule", "-q", "add", f"{UPSTREAM}/leaf.git", "leaf")
    outer("-C", "leaf", "checkout", "-q", old)
    outer("remote", "add", "origin", f"{UPSTREAM}/deep.git")
    outer("-c", url, "submodule", "-q", "add", "../inner.git", "third_party/inner")
    outer.commit()
    return bench.git("deep", outer("rev-parse", "HEAD"), submodules="all")


def test_fetchcontent_finds_a_commit_a_shallow_tag_a_branch_and_submodules(bench: Bench) -> None:
    bysha = bench.repo("bysha", **{"x.txt": "pinned\n"})
    sha = bysha("rev-parse", "HEAD")
    bysha.commit(**{"x.txt": "later\n"})
    bytag = bench.repo("bytag", **{"x.txt": "tagged\n"})
    bytag("tag", "-a", "v1.0", "-m", "first")
    bytag.commit(**{"x.txt": "later\n"})
    branch = bench.repo("branch", **{"x.txt": "on a branch\n"})
    branch("branch", "release/1.x")
    branch.commit(**{"x.txt": "later\n"})
    nested = (
        bench.git("bysha", sha),
        bench.git("bytag", "v1.0", url=f"{UPSTREAM}/bytag"),
        bench.git("branch", "release/1.x"),
        deep(bench),
    )
    given = bench.lay_out(*nested)
    project(
        bench,
        f"bysha GIT_REPOSITORY {UPSTREAM}/bysha.git GIT_TAG {sha}",
        f"bytag GIT_REPOSITORY {UPSTREAM}/bytag GIT_TAG v1.0 GIT_SHALLOW TRUE",
        f"branch GIT_REPOSITORY {UPSTREAM}/branch.git/ GIT_TAG release/1.x",
        f"deep GIT_REPOSITORY {UPSTREAM}/deep.git GIT_TAG {commit_of(nested[3])}",
    )
    bench.run(*CONFIGURE, given=given)
    assert fetched(bench, "bysha-src/x.txt") == "pinned\n"
    assert fetched(bench, "bytag-src/x.txt") == "tagged\n"
    assert fetched(bench, "branch-src/x.txt") == "on a branch\n"
    assert fetched(bench, "deep-src/leaf/leaf.txt") == "old\n"
    assert fetched(bench, "deep-src/third_party/inner/sub/leaf/leaf.txt") == "new\n"
    bench.run(*CONFIGURE, given=bench.lay_out(*nested))  # the next attempt, over what is there
    assert bench.run("git", "-C", "build/_deps/bytag-src", "describe", given=given) == "v1.0\n"


def test_submodules_that_are_not_wanted_are_not_cloned(bench: Bench) -> None:
    commit = commit_of(deep(bench))
    nested = bench.git("deep", commit, submodules=("leaf",))
    told = bench.run("git", "clone", "--recursive", f"{UPSTREAM}/deep.git", given=bench.lay_out(nested))
    assert "Skipping submodule 'third_party/inner'" in told
    assert (bench.space.src / "deep/leaf/leaf.txt").read_text() == "old\n"


@pytest.mark.parametrize(
    "words",
    [
        ("clone", "-q", "--depth", "1", "--branch", "v1.0", f"{UPSTREAM}/lib.git", "lib"),
        ("clone", "-q", "--branch", "v1.0", "--single-branch", f"{UPSTREAM}/lib", "lib"),
        ("clone", "-q", "--recursive", "--shallow-submodules", f"{UPSTREAM}/lib/", "lib"),
    ],
)
def test_a_build_clones_as_it_likes(bench: Bench, words: tuple[str, ...]) -> None:
    lib = bench.repo("lib", **{"x.txt": "tagged\n"})
    lib("tag", "v1.0")
    lib.commit(**{"x.txt": "later\n"})
    nested = bench.git("lib", "v1.0")
    given = bench.lay_out(nested)
    bench.run("git", *words, given=given)
    assert (bench.space.src / "lib" / "x.txt").read_text() == "tagged\n"
    log = bench.run("git", "-C", "lib", "log", "--format=%H", given=given)
    assert log.split() == [commit_of(nested)]  # the same, whatever history the mirror has


def test_a_build_fetches_a_commit_by_its_name(bench: Bench) -> None:
    lib = bench.repo("lib", **{"x.txt": "one\n"})
    first, second = lib("rev-parse", "HEAD"), lib.commit(**{"x.txt": "two\n"})
    given = bench.lay_out(bench.git("lib", first), bench.git("lib", second))
    bench.run("git", "init", "-q", "lib", given=given)
    for commit, text in ((first, "one\n"), (second, "two\n")):
        bench.run("git", "-C", "lib", "fetch", "-q", "--depth", "1", f"{UPSTREAM}/lib.git", commit, given=given)
        bench.run("git", "-C", "lib", "checkout", "-q", "FETCH_HEAD", given=given)
        assert (bench.space.src / "lib" / "x.txt").read_text() == text


def test_what_is_not_given_is_not_there_and_its_address_is_told(bench: Bench) -> None:
    bench.repo("lib")
    given = bench.lay_out(bench.git("lib", "main"))
    told = bench.run("git", "clone", f"{UPSTREAM}/library.git", given=given, code=128)
    assert f"{UPSTREAM}/library.git" in told


@pytest.mark.parametrize("start", ["", f"{UPSTREAM}/{'../' * 40}"])
def test_a_url_that_is_a_path_or_climbs_stays_in_the_build_s_folder(bench: Bench, start: str) -> None:
    """A submodule's URL comes from the tree: nothing is written where it leads."""
    aside = bench.root / "aside"
    (bench.root / "up").mkdir()
    Repo(aside / "lib", files={"x.txt": "x\n"})
    url = f"{start.rstrip('/')}{aside}/lib"
    given = bench.lay_out(bench.git("lib", "main", url=url))
    assert [one.name for one in aside.iterdir()] == ["lib"]
    bench.run("git", "clone", "-q", url, "lib", given=given)
    assert (bench.space.src / "lib" / "x.txt").read_text() == "x\n"


def test_repositories_are_found_where_the_build_has_no_path_of_its_own(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "with a blank", cut="none")
    bench.repo("lib", **{"x.txt": "x\n"})
    bench.run("git", "clone", "-q", f"{UPSTREAM}/lib.git", given=bench.lay_out(bench.git("lib", "main")))
    assert (bench.space.src / "lib" / "x.txt").read_text() == "x\n"


def test_a_branch_that_moved_since_is_what_was_pinned(bench: Bench) -> None:
    lib = bench.repo("lib", **{"x.txt": "then\n"})
    nested = bench.git("lib", "main")
    lib.commit(**{"x.txt": "now\n"})
    bench.git("lib", "main")  # another recipe's; the mirror knows the new one
    bench.run("git", "clone", "-q", "-b", "main", f"{UPSTREAM}/lib.git", "lib", given=bench.lay_out(nested))
    assert (bench.space.src / "lib" / "x.txt").read_text() == "then\n"


def test_a_build_s_own_settings_of_git_stay_behind_the_given(bench: Bench) -> None:
    bench.repo("lib", **{"x.txt": "x\n"})
    given = bench.lay_out(bench.git("lib", "main"))
    own = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "user.name", "GIT_CONFIG_VALUE_0": "somebody"}
    assert bench.run("git", "config", "user.name", given=given, env=own) == "somebody\n"
    elsewhere = {"GIT_CONFIG_KEY_0": "url./nowhere.insteadOf", "GIT_CONFIG_VALUE_0": f"{UPSTREAM}/lib"}
    bench.run("git", "clone", "-q", f"{UPSTREAM}/lib", given=given, env=own | elsewhere)


def test_what_the_build_did_to_a_repository_is_gone_at_the_next_attempt(bench: Bench) -> None:
    bench.repo("lib", **{"x.txt": "x\n"})
    nested = bench.git("lib", "main")
    given = bench.lay_out(nested)
    damage = f"rm -rf '{bench.space.inside}/deps/git/https:/example.invalid/org/lib.git/packed-refs'"
    bench.run("sh", "-c", damage, given=given)
    bench.run("git", "clone", "-q", f"{UPSTREAM}/lib.git", given=bench.lay_out(nested))
    assert (bench.space.src / "lib" / "x.txt").read_text() == "x\n"
