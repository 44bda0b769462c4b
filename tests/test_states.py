"""What isn't offered any more: yanked and quarantined wheels, projects by their status, and the way back."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from builder.errors import SparkError
from builder.index import listing, pages
from builder.wheelhouse import channel, states
from builder.wheelhouse.reindex import reindex
from tests import wheelhouse_kit as kit
from tests.index_kit import UV, Page

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from builder.stages import Stored
    from builder.wheelhouse import Wheelhouse
    from tests.world import World


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Wheelhouse]:
    with kit.opened(tmp_path / "house") as opened:
        yield opened


def plain(house: Wheelhouse, *names: str, version: str = "1.0") -> list[Stored]:
    made = [kit.wheel(house.root.parent / "dist", name, version) for name in names]
    return list(kit.publish(house, made, fingerprint=version[0] * 64, inputs={"name": "x"}))


def entry(house: Wheelhouse, wheel: Stored) -> tuple[str, str]:
    found = listing.by_sha256(house, wheel.sha256)
    assert found is not None
    return found.state, found.reason


def page(house: Wheelhouse, name: str) -> listing.Project:
    found = listing.project(house, "local", name)
    assert found is not None
    assert listing.read(house, "local").projects.get(name, found) == found
    return found


def lines(house: Wheelhouse) -> int:
    return len((house.root / "journal.jsonl").read_bytes().splitlines())


def refused(code: str, call: Any, *words: Any) -> SparkError:  # noqa: ANN401  # any call
    with pytest.raises(SparkError) as caught:
        call(*words)
    assert caught.value.code == code
    return caught.value


# --- wheels


def test_a_yanked_wheel_is_listed_with_the_reason_and_is_no_hit_any_more(house: Wheelhouse) -> None:
    a, b = plain(house, "a", "b")
    assert states.set(house, [a, b, a], "yanked", " wrong\n\tresults \x1b[31m ") == (a, b)
    assert entry(house, a) == ("yanked", "wrong results [31m")
    (file,) = page(house, "a").files
    assert (file.yanked, file.yanked_reason) == (True, "wrong results [31m")
    assert json.loads(pages.project_json(page(house, "a"), 2))["files"][0]["yanked"] == "wrong results [31m"
    assert 'data-yanked="wrong results [31m"' in pages.project_html(page(house, "a"), 2)
    assert house.find("1" * 64) == ()
    assert house.lost("1" * 64, ())[0] == f"the stored wheel is yanked (wrong results [31m): {a.filename}"
    states.set(house, [a], "yanked")  # another reason: none
    (file,) = page(house, "a").files
    assert (file.yanked, file.yanked_reason) == (True, "")
    assert json.loads(pages.project_json(page(house, "a"), 2))["files"][0]["yanked"] is True
    assert states.set(house, [a, b], "published", "whatever") == tuple(house.list_wheels())
    (file,) = page(house, "a").files
    assert (file.yanked, file.yanked_reason, entry(house, a)) == (False, None, ("published", ""))
    assert len(house.find("1" * 64)) == 2


def test_a_quarantined_wheel_is_on_no_page_and_its_name_stays_answered(house: Wheelhouse) -> None:
    a, b = plain(house, "a", "b")
    channel.promote(house, "team/x", [a, b])
    states.set(house, [a], "quarantined", "bad")
    for name in ("local", "team/x"):
        found = listing.project(house, name, "a")
        assert found == listing.Project(name="a")  # the project itself is well
        assert listing.projects(house, name) == ("a", "b")
    assert entry(house, a) == ("quarantined", "bad")
    assert [one.filename for one in house.list_wheels()] == [b.filename]
    assert channel.members(house, "team/x")[0].state == "quarantined"
    states.set(house, [a], "published")
    assert [file.filename for file in page(house, "a").files] == [a.filename]


def test_the_same_again_changes_nothing_and_every_set_is_one_step(house: Wheelhouse) -> None:
    wheels = plain(house, "a", "b", "c")
    before = lines(house)
    states.set(house, wheels, "yanked", "bad")
    assert lines(house) == before + 1
    assert states.set(house, wheels, "yanked", "bad") == ()
    assert states.status(house, "a", "active") is False
    assert lines(house) == before + 1
    assert states.status(house, "a", "archived", "old") is True
    assert states.status(house, "a", "archived", "old") is False
    assert states.status(house, "a", "archived", "older") is True
    assert lines(house) == before + 3


def test_what_was_never_published_or_is_gone_has_no_state_and_then_none_of_a_set_gets_one(house: Wheelhouse) -> None:
    (a,) = plain(house, "a")
    kit.make_wheel(house.root / "wheels" / "stranger", "stranger")
    reindex(house.root, clock=time.time)
    with kit.opened(house.root) as again:
        stranger = again.get("stranger-1.0-py3-none-any.whl")
        assert "never published" in refused("wheel-unpublished", states.set, again, [a, stranger], "yanked").summary
        assert entry(again, a) == ("published", "")
        again.remove(a)
        refused("wheel-unpublished", states.set, again, [a], "yanked")
        assert entry(again, stranger) == ("unpublished", "")


def test_a_reindex_brings_states_and_reasons_back(house: Wheelhouse) -> None:
    a, b, c, d = plain(house, "a", "b", "c", "d")
    states.set(house, [a], "yanked", "wrong")
    states.set(house, [b, c], "quarantined", "bad")
    states.set(house, [c], "published")
    states.set(house, [d], "yanked")
    states.set(house, [d], "quarantined", "worse")
    states.status(house, "a", "deprecated", "use b")
    states.status(house, "b", "quarantined")
    states.status(house, "b", "active")
    kept = kit.contents(house.root)
    assert len(kept["memory"]) == 4
    reindex(house.root, clock=time.time)
    assert kit.contents(house.root) == kept
    listing.generation(house)
    told, projects = states.every(house)
    assert {sha256: (one.state, one.reason) for sha256, one in told.items()} == {
        a.sha256: ("yanked", "wrong"),
        b.sha256: ("quarantined", "bad"),
        d.sha256: ("quarantined", "worse"),
    }
    assert {name: (one.state, one.reason) for name, one in projects.items()} == {"a": ("deprecated", "use b")}
    assert entry(house, c) == ("published", "")


@pytest.mark.parametrize("state", ["yanked", "quarantined"])
def test_a_withheld_wheel_that_is_removed_comes_back_as_what_it_was(house: Wheelhouse, state: states.State) -> None:
    (a,) = plain(house, "a")
    states.set(house, [a], state, "bad")
    house.remove(a)
    assert listing.by_sha256(house, a.sha256) is None
    (again,) = plain(house, "a")
    assert (again.state, entry(house, again)) == (state, (state, "bad"))
    kept = kit.contents(house.root)
    reindex(house.root, clock=time.time)
    assert kit.contents(house.root) == kept
    states.set(house, [again], "published")
    house.remove(again)
    assert plain(house, "a")[0].state == "published"


def test_a_lost_file_that_is_published_again_stays_withheld_also_after_a_reindex(house: Wheelhouse) -> None:
    (a,) = plain(house, "a")
    states.set(house, [a], "quarantined", "bad")
    a.path.unlink()
    assert plain(house, "a")[0].state == "quarantined"
    kept = kit.contents(house.root)
    reindex(house.root, clock=time.time)
    assert kit.contents(house.root) == kept
    listing.generation(house)
    assert entry(house, a) == ("quarantined", "bad")


def test_a_state_that_was_announced_is_set_by_the_next_opening(house: Wheelhouse) -> None:
    a, b = plain(house, "a", "b")
    code = """
import pathlib, sys
from builder.wheelhouse import states
from tests import wheelhouse_kit as kit
with kit.opened(pathlib.Path(sys.argv[1])) as house:
    wheels = house.list_wheels()
    kit.kill_in("enter")
    states.set(house, wheels, "quarantined", "bad")
"""
    kit.finished(kit.child(code, str(house.root)), code=-9)
    assert entry(house, a) == ("published", "")
    with kit.opened(house.root) as again:
        assert entry(again, a) == entry(again, b) == ("quarantined", "bad")
        kept = kit.contents(house.root)
    reindex(house.root, clock=time.time)
    assert kit.contents(house.root) == kept
    assert not list((house.root / "wheels" / ".incoming").iterdir())


# --- projects


@pytest.mark.parametrize("status", ["archived", "deprecated", "quarantined"])
def test_the_status_of_a_project_is_on_its_page(house: Wheelhouse, status: states.Status) -> None:
    (a,) = plain(house, "a")
    states.status(house, "a", status, 'say "why" & <more>')
    found = page(house, "a")
    assert (found.status, found.reason) == (status, 'say "why" & <more>')
    assert [file.filename for file in found.files] == ([] if status == "quarantined" else [a.filename])
    document = json.loads(pages.project_json(found, 2))
    assert document["project-status"] == {"status": status, "reason": 'say "why" & <more>'}
    assert document["versions"] == ([] if status == "quarantined" else ["1.0"])
    file = house.root.parent / "page.html"
    file.write_text(pages.project_html(found, 2))
    assert Page(file).meta["pypi:project-status"] == status
    assert Page(file).meta["pypi:project-status-reason"] == 'say "why" & <more>'
    expected = ("quarantined", 'say "why" & <more>') if status == "quarantined" else ("published", "")
    assert entry(house, a) == expected  # nor is a file of it given out
    states.status(house, "a", "active")
    assert "project-status" not in pages.project_json(page(house, "a"), 2) + pages.project_html(page(house, "a"), 2)
    assert entry(house, a) == ("published", "")


def test_a_quarantined_project_stays_so_when_its_wheels_go_and_others_come(house: Wheelhouse) -> None:
    (a,) = plain(house, "a")
    states.set(house, [a], "yanked", "own")
    states.status(house, "a", "quarantined", "whole")
    assert entry(house, a) == ("quarantined", "whole")
    house.remove(a)
    assert page(house, "a") == listing.Project(name="a", status="quarantined", reason="whole")
    (other,) = plain(house, "a", version="2.0")
    assert page(house, "a").files == ()
    assert entry(house, other) == ("quarantined", "whole")
    states.status(house, "a", "active")
    assert [file.filename for file in page(house, "a").files] == [other.filename]


def test_a_status_wants_a_project_that_ever_was_here(house: Wheelhouse) -> None:
    refused("project-missing", states.status, house, "nothing", "quarantined")
    (a,) = plain(house, "Tiny.Name")
    house.remove(a)
    assert states.status(house, "tiny-name", "quarantined")
    told = states.status_of(house, "tiny-name")
    assert told is not None
    assert (told.state, states.status_of(house, "nothing")) == ("quarantined", None)
    assert abs(told.time - time.time()) < 3600


# --- clients and the command


def test_an_installer_takes_a_yanked_wheel_only_where_it_is_pinned(house: Wheelhouse, tmp_path: Path) -> None:
    from builder import index  # noqa: PLC0415

    plain(house, "tiny")
    (new,) = plain(house, "tiny", version="2.0")

    def resolved(wanted: str) -> str:
        index.refresh(house)
        words = ["pip", "compile", "--default-index", index.index_url(house), "--python", sys.executable, "-"]
        done = subprocess.run(
            [str(UV), *words, "--no-header", "--no-annotate", "--no-cache", "--no-config"],
            input=wanted,
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )
        return done.stdout.strip() or done.stderr

    assert resolved("tiny") == "tiny==2.0"
    states.set(house, [new], "yanked", "wrong results")
    assert resolved("tiny") == "tiny==1.0"
    assert resolved("tiny==2.0") == "tiny==2.0"
    states.set(house, [new], "quarantined", "bad")
    assert resolved("tiny") == "tiny==1.0"
    assert "no version of tiny==2.0" in resolved("tiny==2.0")


def test_the_command_says_what_it_did_and_how_to_take_it_back(world: World) -> None:
    with kit.opened(world.wheelhouse) as house:
        a, _b = plain(house, "a", "b")
    done = world.run("wheels", "yank", "1111", "--reason", "wrong results")  # a build: all its wheels
    assert done.stdout.splitlines() == ["a-1.0-py3-none-any.whl", "b-1.0-py3-none-any.whl"]
    assert "yanked now, in local" in done.stderr
    assert f"spark-build wheels yank {a.sha256[:12]} " in done.stderr
    assert "yanked already" in world.run("wheels", "yank", a.filename, "--reason", "wrong results").stderr
    listed = world.run("wheels", "list").stdout.splitlines()
    assert all(line.endswith("yanked: wrong results") for line in listed)
    assert world.json("wheels", "list")["wheels"][0]["reason"] == "wrong results"
    assert "state            yanked: wrong results" in world.run("wheels", "show", a.filename).stdout
    told = world.json("wheels", "yank", a.sha256[:12], "--undo")
    assert told["changed"] == [{"filename": a.filename, "sha256": a.sha256, "was": "yanked"}]
    assert len(world.json("wheels", "quarantine", a.filename, "--reason", "bad")["changed"]) == 1
    assert len(world.run("wheels", "list").stdout.splitlines()) == 1
    assert "quarantined: bad" in world.run("wheels", "list", "--all").stdout
    wrong = world.run("wheels", "yank", a.filename, "--undo", code=2).stderr
    assert "not-yanked" in wrong
    assert f"spark-build wheels quarantine --release {a.sha256[:12]}" in wrong
    world.run("wheels", "quarantine", a.filename, "--release")
    assert world.run("wheels", "list", "a").stdout.split()[-1] != "bad"


def test_a_build_is_withheld_with_all_that_was_ever_made_of_it(world: World) -> None:
    """A rebuild may have given other bits: the older ones come from the same machine, and would be offered again."""
    with kit.opened(world.wheelhouse) as house:
        (old,) = plain(house, "a")
        (new,) = kit.publish(house, [kit.wheel(world.root / "dist", "a", "1.0.post1")], fingerprint=old.fingerprint)
    told = world.json("wheels", "quarantine", old.fingerprint[:10], "--reason", "broken into")
    assert {one["sha256"] for one in told["changed"]} == {old.sha256, new.sha256}
    told = world.json("wheels", "quarantine", old.fingerprint[:10], "--release")
    assert len(told["changed"]) == 2
    assert world.json("wheels", "promote", "team/x", old.fingerprint[:10])["channel"]["wheels"] == [
        {"filename": new.filename, "sha256": new.sha256}  # of each output the last
    ]


def test_a_yank_never_ends_a_quarantine(world: World) -> None:
    with kit.opened(world.wheelhouse) as house:
        a, b = plain(house, "a", "b")
        states.set(house, [a], "quarantined", "broken into")
    before = kit.contents(world.wheelhouse)
    said = world.run(
        "wheels", "yank", "1111", "--reason", "slow", code=2
    ).stderr  # both, and one would be given out again
    assert "a-1.0-py3-none-any.whl is quarantined" in said
    assert f"quarantine --release {a.sha256[:12]}" in said
    assert kit.contents(world.wheelhouse) == before
    done = world.run("wheels", "yank", b.filename, "--wheelhouse", str(world.wheelhouse))
    assert f"--undo --wheelhouse {world.wheelhouse}" in done.stderr


def test_the_command_knows_projects_by_any_spelling(world: World) -> None:
    with kit.opened(world.wheelhouse) as house:
        plain(house, "tiny_name")
    assert world.run("wheels", "status", "Tiny.Name").stdout == "tiny-name active\n"
    done = world.run("wheels", "status", "Tiny.Name", "archived", "--reason", "use other")
    assert "spark-build wheels status tiny-name active" in done.stderr
    assert world.run("wheels", "status", "tiny-name").stdout == "tiny-name archived: use other\n"
    assert world.run("wheels", "list").stdout.rstrip().endswith("project archived")
    assert world.json("wheels", "quarantine", "--project", "TINY_name")["changed"] is True
    assert world.json("wheels", "status", "tiny-name")["status"] == "quarantined"
    world.run("wheels", "quarantine", "--project", "tiny-name", "--release")
    assert world.json("wheels", "status", "tiny-name")["status"] == "active"
    assert "project-missing" in world.run("wheels", "quarantine", "--project", "nothing", code=2).stderr


@pytest.mark.parametrize(
    "words",
    [
        ("quarantine",),
        ("quarantine", "a-1.0-py3-none-any.whl", "--project", "a"),
        ("yank", "a-1.0-py3-none-any.whl", "--undo", "--reason", "x"),
        ("quarantine", "--project", "a", "--release", "--reason", "x"),
        ("status", "a", "active", "--reason", "x"),
        ("status", "a", "gone"),
        ("yank", "nothing"),
        ("promote", "team/x", "nothing"),
        ("rollback", "team/x", "--to", "one"),
    ],
)
def test_what_makes_no_sense_is_refused_and_changes_nothing(world: World, words: tuple[str, ...]) -> None:
    with kit.opened(world.wheelhouse) as house:
        plain(house, "a")
    before = kit.contents(world.wheelhouse)
    assert "error" in world.run("wheels", *words, code=2).stderr
    assert kit.contents(world.wheelhouse) == before
