"""What becomes of patches on sources that moved on: real repositories, one verdict each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.patch_kit import LINES, changed, diff, entry, recipe, upstream, verdicts

if TYPE_CHECKING:
    from tests.source_kit import Repo
    from tests.world import World

EDIT = {"lib/a.txt": changed(LINES, l20="LINE 20")}


@pytest.fixture
def repo(world: World) -> Repo:
    return upstream(world)


def test_a_patch_applies_also_on_other_lines(world: World, repo: Repo) -> None:
    recipe(world, repo, entry(world, "p", diff(repo, **EDIT)))
    assert verdicts(world)["p"]["verdict"] == "applies"
    repo.commit(**{"lib/a.txt": "above\n" * 9 + LINES})
    assert verdicts(world)["p"]["verdict"] == "applies"
    told = world.run("patch", "status", "tiny").stdout
    assert told.splitlines()[1].split()[:4] == ["✔", "tiny", "p", "applies"]


def test_merged_upstream_is_left_out_and_said_so(world: World, repo: Repo) -> None:
    recipe(world, repo, entry(world, "p", diff(repo, **EDIT)))
    merged = repo.commit(**EDIT)
    found = verdicts(world)["p"]
    assert (found["verdict"], found["text"]) == ("upstream", "every line of it is there")
    recipe(world, repo, entry(world, "p", (world.patches / "tiny/p.patch").read_bytes(), more=f'merged = "{merged}"'))
    assert verdicts(world)["p"]["text"] == f"{merged[:10]} brought it"
    plan = world.run("plan", "tiny", code=10)
    assert f"▲ patch p: the source has it already: left out ({merged[:10]} brought it)" in plan.stdout
    built = world.run("recipe", "tiny")
    assert "patch p: the source has it already" in built.stderr
    again = world.run("recipe", "tiny")  # a hit is no reason to keep silent
    assert "patch p: the source has it already" in again.stderr


def test_merged_then_changed_around_is_left_out_by_its_commit(world: World, repo: Repo) -> None:
    data = diff(repo, **EDIT)
    merged = repo.commit(**EDIT)
    repo.commit(**{"lib/a.txt": changed(LINES, l20="LINE twenty", l19="other")})
    recipe(world, repo, entry(world, "p", data))
    assert verdicts(world, code=2)["p"]["verdict"] == "drifted"
    recipe(world, repo, entry(world, "p", data, more=f'merged = "{merged}"'))
    found = verdicts(world)["p"]
    assert found["verdict"] == "upstream"
    assert found["text"] == f"{merged[:10]} brought it; its lines have changed since"


def test_merged_then_reverted_is_laid_on_again(world: World, repo: Repo) -> None:
    data = diff(repo, **EDIT)
    merged = repo.commit(**EDIT)
    repo("revert", "--no-edit", "HEAD")
    revert = repo("rev-parse", "HEAD")
    recipe(world, repo, entry(world, "p", data, more=f'merged = "{merged[:12]}"'))
    found = verdicts(world)["p"]
    assert found["verdict"] == "reverted"
    assert found["text"] == f"{merged[:10]} brought it, and {revert[:10]} took it back"
    assert "patch p: upstream took it back: laid on again" in world.run("recipe", "tiny").stderr


def test_drift_names_file_and_hunk_and_ends_with_2(world: World, repo: Repo) -> None:
    recipe(world, repo, entry(world, "p", diff(repo, **EDIT)))
    repo.commit(**{"lib/a.txt": changed(LINES, l20="line twenty")})
    found = verdicts(world, code=2)["p"]
    assert found["verdict"] == "drifted"
    (hunk,) = found["hunks"]
    assert (hunk["file"], hunk["line"]) == ("lib/a.txt", 17)
    assert "line 20" in hunk["wanted"]
    assert "line twenty" in hunk["found"]
    told = world.run("patch", "status", "tiny", code=2)
    assert told.stdout.splitlines()[1].split()[:4] == ["✘", "tiny", "p", "drifted"]
    assert "lib/a.txt:17: wanted:" in told.stdout
    assert "spark-build patch refresh tiny p\n" in told.stderr
    failed = world.run("recipe", "tiny", "--ref", "main", "-j", "2", code=2)
    assert "error[patch-drift]" in failed.stderr
    assert "spark-build patch refresh tiny p --ref main\n" in failed.stderr


def test_changed_context_is_merged_where_that_is_clean(world: World, repo: Repo) -> None:
    change = {"src/__init__.py": "VALUE = 1\nFIRST = 1\nSECOND = 2\nTHIRD = 3\nLAST = 9\n"}
    repo.commit(**change)
    text = change["src/__init__.py"]
    recipe(world, repo, entry(world, "p", diff(repo, **{"src/__init__.py": text.replace("LAST = 9", "LAST = 10")})))
    before = world.json("plan", "tiny", code=10)["plans"][0]["fingerprint"]
    repo.commit(**{"src/__init__.py": text.replace("SECOND = 2", "SECOND = 22")})
    found = verdicts(world)["p"]
    assert found["verdict"] == "3-way"
    (wheel,) = world.wheels("tiny")
    import zipfile  # noqa: PLC0415

    with zipfile.ZipFile(wheel) as archive:
        built = archive.read("tiny/__init__.py").decode()
    assert "SECOND = 22" in built
    assert "LAST = 10" in built
    (plan,) = world.json("plan", "tiny")["plans"]
    assert plan["fingerprint"] != before
    assert plan["retired"] == ["p: is laid on by a 3-way merge (merged with what changed around it)"]


def test_a_moved_file_is_told_by_its_new_name(world: World, repo: Repo) -> None:
    recipe(world, repo, entry(world, "p", diff(repo, **EDIT)))
    repo.commit(**{"lib/a.txt": None, "src/deep/b.txt": LINES})
    repo.commit(**{"src/deep/b.txt": None, "src/c.txt": LINES})
    found = verdicts(world, code=2)["p"]
    assert (found["verdict"], found["moved"]) == ("moved", {"lib/a.txt": "src/c.txt"})
    failed = world.run("plan", "tiny", code=2)
    assert "error[patch-moved]" in failed.stderr
    assert "lib/a.txt is src/c.txt now" in failed.stderr


def test_a_condition_that_doesnt_hold_is_named(world: World, repo: Repo) -> None:
    data = diff(repo, **EDIT)
    base = repo("rev-parse", "HEAD")
    for when in (
        f'lacks = "{base}"',
        'contains = "0123456789"',
        'file = { path = "lib/a.txt", matches = "nowhere" }',
        'arch = "9.0*"',
        'source = "sdist"',
    ):
        recipe(world, repo, entry(world, "p", data, more=f"when = {{ {when} }}"))
        found = verdicts(world)["p"]
        assert (found["verdict"], found["text"]) == ("elsewhere", f"wants {when}")


def test_refused_where_the_recipe_says_so(world: World, repo: Repo) -> None:
    recipe(world, repo, entry(world, "p", diff(repo, **EDIT), more='on-upstream = "fail"'))
    repo.commit(**EDIT)
    assert verdicts(world, code=2)["p"]["refused"]


def test_each_patch_is_judged_whatever_becomes_of_the_others(world: World, repo: Repo) -> None:
    bad = diff(repo, **{"lib/a.txt": changed(LINES, l20="bad")})
    good = diff(repo, **{"lib/a.txt": changed(LINES, l5="good")})
    later = diff(repo, **{"lib/a.txt": changed(LINES, l5="good", l6="later")}).replace(b"-line 5\n", b" good\n")
    later = later.replace(b"+good\n", b"")
    recipe(world, repo, entry(world, "bad", bad), entry(world, "good", good), entry(world, "later", later))
    repo.commit(**{"lib/a.txt": changed(LINES, l20="else")})
    found = verdicts(world, code=2)
    assert [one["verdict"] for one in found.values()] == ["drifted", "applies", "applies"]


def test_all_recipes_on_a_ref_and_one_whose_source_is_gone(world: World, repo: Repo) -> None:
    recipe(world, repo, entry(world, "p", diff(repo, **EDIT)))
    repo("checkout", "-q", "-b", "next")
    repo.commit(**EDIT)
    repo("checkout", "-q", "main")
    world.recipe("other", recipe(world, repo, entry(world, "q", b"x\n", recipe="other"), name="other").read_text())
    data = (world.patches / "tiny/p.patch").read_bytes()
    text = recipe(world, repo, entry(world, "p", data, recipe="gone"), name="gone").read_text()
    world.recipe("gone", text.replace(repo.folder.as_uri(), (world.root / "nowhere").as_uri()))
    world.recipes.joinpath("other.toml").unlink()
    assert verdicts(world)["p"]["verdict"] == "applies"
    assert verdicts(world, "--ref", "next")["p"]["verdict"] == "upstream"
    rows = {row["recipe"]: row for row in world.json("patch", "status", "gone", "tiny", code=4)["recipes"]}
    assert "remote-unreachable" in rows["gone"]["trouble"]
    assert rows["tiny"]["patches"][0]["verdict"] == "applies"


@pytest.mark.parametrize("how", ["open", "squashed", "merged", "reverted", "conflict"])
def test_a_pull_request_by_its_number(world: World, repo: Repo, how: str) -> None:
    bare = world.root / "hub.git"
    repo.pull(7, **EDIT)
    if how == "squashed":
        repo.commit(**EDIT)
    elif how in {"merged", "reverted"}:
        repo.commit(**{"other.txt": "x\n"})
        repo("merge", "-q", "--no-ff", "-m", "merge", "refs/pull/7/head")
        if how == "reverted":
            repo("revert", "--no-edit", "-m", "1", "HEAD")
    elif how == "conflict":
        repo.commit(**{"lib/a.txt": changed(LINES, l20="else")})
    repo("clone", "-q", "--bare", str(repo.folder), str(bare))
    repo("push", "-q", str(bare), "refs/pull/7/head")
    recipe(world, repo)
    text = (world.recipes / "tiny.toml").read_text().replace(repo.folder.as_uri(), bare.as_uri())
    world.recipe("tiny", text)
    wanted = {"open": "applies", "squashed": "upstream", "merged": "upstream", "reverted": "reverted"}
    found = verdicts(world, "--pr", "7", code=2 if how == "conflict" else 0)["PR 7"]
    assert found["verdict"] == wanted.get(how, "drifted")
    if how == "conflict":
        assert "lib/a.txt" in found["text"]
        assert "error[pull-conflict]" in world.run("plan", "tiny", "--pr", "7", code=4).stderr
    if how == "reverted":  # and a build gets it
        made = world.json("patch", "new", "tiny", "none")["tree"]
        assert "LINE 20" not in (world.root / made / "lib/a.txt").read_text()
        other = world.json("patch", "new", "tiny", "pull", "--pr", "7")["tree"]
        assert "LINE 20" in (world.root / other / "lib/a.txt").read_text()


def test_an_sdist_knows_no_history_and_says_the_file_is_gone(world: World, repo: Repo) -> None:
    recipe(world, repo, entry(world, "p", diff(repo, **EDIT)))
    (repo.folder / "lib/a.txt").unlink()
    found = verdicts(world, "--source", str(repo.folder), code=2)["p"]
    assert (found["verdict"], found["text"]) == ("drifted", "lib/a.txt: No such file or directory")


def test_a_patch_that_only_a_variant_brings_is_judged_too(world: World, repo: Repo) -> None:
    made = entry(world, "p", diff(repo, **EDIT)).replace("[[patch]]", "[[variant.recipe.patch]]")
    recipe(world, repo, '[[variant]]\nid = "more"\nabout = "x"\n', made)
    found = verdicts(world)["p"]
    assert (found["verdict"], found["text"]) == ("applies", "only --with more")
    assert verdicts(world, "--with", "more")["p"]["text"] == ""


@pytest.mark.slow
@pytest.mark.network
def test_the_shipped_patches_fit_the_default_sources(world: World) -> None:
    rows = world.json("patch", "status")["recipes"]
    assert rows
    for row in rows:
        assert row["trouble"] == ""
        assert {one["verdict"] for one in row["patches"]} <= {"applies", "elsewhere"}, row
