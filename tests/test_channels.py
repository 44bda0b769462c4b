"""What channels list: promoted, appended, rolled back, superseded; as pages, and by two processes at once."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from builder.digest import sha256_json
from builder.errors import SparkError
from builder.index import listing, pages
from builder.wheel import label, read
from builder.wheelhouse import channel, states
from builder.wheelhouse.reindex import reindex
from tests import wheelhouse_kit as kit
from tests.index_kit import Page
from tests.world import COMMAND

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from builder.stages import Stored
    from builder.wheelhouse import Wheelhouse
    from tests.world import World


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Wheelhouse]:
    with kit.opened(tmp_path / "house") as opened:
        yield opened


def plain(house: Wheelhouse, *names: str) -> list[Stored]:
    dist = house.root.parent / "dist"
    return [kit.publish(house, [kit.wheel(dist, name)], fingerprint=sha256_json(name))[0] for name in names]


def built(
    house: Wheelhouse, number: int, *, version: str = "1.0", name: str = "tiny", revision: int = 0, tags: str = ""
) -> Stored:
    """Publish the build `number` of a project: labelled, and sorted by that number."""
    fingerprint = sha256_json({"number": number})
    marked = label.labelled(version, label.make(1_700_000_000.0 + number, fingerprint, revision=revision))
    path = kit.make_wheel(house.root.parent / "dist", name, marked)
    if tags:
        path = path.rename(path.with_name(path.name.replace("py3-none-any", tags)))
    return kit.publish(house, [read.inspect(path)], fingerprint=fingerprint)[0]


def listed(house: Wheelhouse, name: str) -> list[str]:
    return [wheel.filename for wheel in channel.members(house, name)]


def shown(house: Wheelhouse, project: str = "tiny", name: str = "local", how: listing.Superseded = "hide") -> list[str]:
    page = listing.project(house, name, project, how)
    assert page is not None
    everything = listing.read(house, name, how).projects.get(project)
    assert everything is None or everything == page  # the export says the same
    return [file.filename for file in page.files]


def named(wheels: Sequence[Stored]) -> list[str]:
    return [wheel.filename for wheel in wheels]


def refused(code: str, call: Any, *words: Any, **more: Any) -> SparkError:  # noqa: ANN401  # any call
    with pytest.raises(SparkError) as caught:
        call(*words, **more)
    assert caught.value.code == code
    return caught.value


# --- superseded builds


def test_pages_offer_the_last_published_build_of_what_differs_in_the_label_only(house: Wheelhouse) -> None:
    old, new = built(house, 1), built(house, 2)
    assert shown(house) == [new.filename]
    assert shown(house, how="list") == named([old, new])
    assert listing.superseded(channel.members(house, "local")) == {old.sha256}
    assert listed(house, "local") == named([old, new])  # hidden, not gone
    entry = listing.by_sha256(house, old.sha256)
    assert entry is not None
    assert (entry.state, entry.path) == ("published", old.path)


def test_a_withheld_build_supersedes_nothing_and_is_superseded_all_the_same(house: Wheelhouse) -> None:
    first, second, third = (built(house, number) for number in range(3))
    states.set(house, [third], "yanked", "bad")
    assert shown(house) == named([second, third])
    states.set(house, [third], "quarantined")
    assert shown(house) == [second.filename]
    states.set(house, [first], "yanked")
    assert shown(house) == [second.filename]
    states.set(house, [second], "quarantined")
    assert shown(house) == [first.filename]
    states.set(house, [third], "published")
    assert shown(house) == [third.filename]


def test_what_is_not_the_same_build_again_supersedes_nothing(house: Wheelhouse) -> None:
    """Another version, tag or upstream part, and wheels without our label."""
    made = [
        built(house, 1),
        built(house, 2, version="1.1"),
        built(house, 3, version="1.0+cu130"),
        built(house, 4, version="1.0+cu131"),
        built(house, 5, tags="1-py3-none-any"),
        built(house, 6, tags="cp312-cp312-linux_aarch64"),
        *plain(house, "tiny"),
        kit.publish(house, [kit.wheel(house.root.parent / "dist", "tiny", "1.0+sb1.gabc")], fingerprint="5" * 64)[0],
    ]
    assert shown(house) == named(made)
    again = built(house, 7, version="1.0+cu130", revision=2)
    assert shown(house) == named([*made[:2], *made[3:], again])


def test_the_order_of_the_channel_decides_and_each_channel_has_its_own(house: Wheelhouse) -> None:
    old, new = built(house, 1), built(house, 2)
    channel.promote(house, "team/back", [new, old])
    channel.promote(house, "team/old", [old])
    assert shown(house, name="team/back") == [old.filename]
    assert shown(house, name="team/old") == [old.filename]
    assert shown(house) == [new.filename]


def test_an_export_hides_what_is_superseded(house: Wheelhouse, tmp_path: Path) -> None:
    from builder import index  # noqa: PLC0415

    old, new = built(house, 1), built(house, 2)
    index.export(house, tmp_path / "dest")
    page = Page(tmp_path / "dest" / "simple" / "tiny" / "index.html")
    assert [text for text, _ in page.links] == [new.filename]
    states.set(house, [new], "yanked", 'wrong "bits" <on> sm_121')
    index.export(house, tmp_path / "dest")
    page = Page(tmp_path / "dest" / "simple" / "tiny" / "index.html")
    assert [text for text, _ in page.links] == named([old, new])
    assert [values.get("data-yanked") for _, values in page.links] == [None, 'wrong "bits" <on> sm_121']


# --- pages


def test_a_page_is_the_same_from_any_depth_and_says_no_more_than_it_must(house: Wheelhouse) -> None:
    built(house, 1, version="1.0+cu130")
    page = listing.project(house, "local", "tiny")
    assert page is not None
    document = json.loads(pages.project_json(page, 2))
    assert list(document) == ["meta", "name", "versions", "files"]
    (file,) = document["files"]
    assert {"yanked", "core-metadata", "requires-python", "size", "upload-time"} < set(file)
    assert not {"dist-info-metadata", "gpg-sig", "provenance"} & set(file)
    for up in (2, 3, 4):
        (file,) = json.loads(pages.project_json(page, up))["files"]
        assert file["url"] == f"{'../' * up}files/{file['hashes']['sha256']}/{file['filename'].replace('+', '%2B')}"
        assert f'href="{file["url"]}#sha256=' in pages.project_html(page, up)


def test_the_names_on_the_root_are_those_of_the_channel_and_pages_are_owed_to_all_that_ever_were(
    house: Wheelhouse,
) -> None:
    a, b = plain(house, "a", "b")
    channel.promote(house, "team/x", [a])
    assert (listing.projects(house, "local"), listing.projects(house, "team/x")) == (("a", "b"), ("a",))
    assert listing.channels(house) == ("local", "team/x")
    empty = listing.project(house, "team/x", "b")
    assert empty is not None
    assert empty.files == ()
    assert listing.project(house, "local", "numpy") is None
    house.remove(b)
    assert listing.projects(house, "local") == ("a",)
    assert listing.project(house, "local", "b") == listing.Project(name="b")
    reserve = ("triton", "FlashInfer_*")
    answers = {
        name: listing.is_owned(house, name, reserve) for name in ("a", "b", "triton", "flashinfer-jit", "flashinfer")
    }
    assert answers == {"a": True, "b": True, "triton": True, "flashinfer-jit": True, "flashinfer": False}


def test_a_removed_project_whose_name_was_spelled_otherwise_stays_owned(house: Wheelhouse) -> None:
    (wheel,) = kit.publish(house, [kit.wheel(house.root.parent / "dist", "Tiny.Name")])
    house.remove(wheel)
    assert listing.is_owned(house, "tiny-name")
    assert not listing.is_owned(house, "tiny")


def test_every_change_that_a_page_could_show_changes_the_generation(house: Wheelhouse) -> None:
    seen = [listing.generation(house)]

    def changed(what: object = None) -> bool:  # noqa: ARG001  # what was done
        seen.append(listing.generation(house))
        return seen[-1] not in seen[:-1]

    assert not changed("nothing")
    a, b = plain(house, "a", "b")
    assert changed()
    assert changed(channel.promote(house, "team/x", [a]))
    assert not changed(channel.promote(house, "team/x", [a]))
    assert changed(channel.append(house, "team/x", [b]))
    assert changed(channel.rollback(house, "team/x"))
    assert changed(channel.promote(house, "team/none", []))
    assert changed(states.set(house, [a], "yanked", "one"))
    assert changed(states.set(house, [a], "yanked", "two"))
    assert not changed(states.set(house, [a], "yanked", "two"))
    assert changed(states.status(house, "a", "archived"))
    assert changed(states.status(house, "a", "active"))
    assert changed(house.remove(b))
    reindex(house.root, clock=time.time)
    assert changed("the catalogue is another file, and this one was open all the while")
    assert listing.projects(house, "local") == ("a",)


# --- promoting, appending, going back


def test_append_keeps_what_is_there_and_a_second_time_changes_nothing(house: Wheelhouse) -> None:
    a, b, c = plain(house, "a", "b", "c")
    assert channel.append(house, "team/x", [b])
    assert channel.append(house, "team/x", [a, b, c])
    assert listed(house, "team/x") == named([b, a, c])
    assert not channel.append(house, "team/x", [c, b])
    states.set(house, [b], "yanked")  # what it lists already need not be on offer
    channel.promote(house, "team/y", [a])
    assert channel.append(house, "team/x", [a]) is False
    assert (
        refused("wheel-unpublished", channel.append, house, "team/y", [b])
        .run[0]
        .startswith("spark-build wheels yank --undo ")
    )


def test_a_rollback_goes_one_step_further_back_each_time_and_to_a_number_anywhere(house: Wheelhouse) -> None:
    a, b, c = plain(house, "a", "b", "c")
    for wheels in ([a], [b], [c]):
        channel.promote(house, "team/x", wheels)
    assert channel.rollback(house, "team/x").number == 2
    assert listed(house, "team/x") == [b.filename]
    assert channel.rollback(house, "team/x").number == 1
    assert listed(house, "team/x") == [a.filename]
    assert refused("nothing-before", channel.rollback, house, "team/x").run == ("spark-build wheels history team/x",)
    assert channel.rollback(house, "team/x", 3).number == 3
    assert listed(house, "team/x") == [c.filename]
    channel.append(house, "team/x", [a])
    assert channel.rollback(house, "team/x").wheels == (c.sha256,)
    past = channel.history(house, "team/x")
    assert [(one.number, one.how, one.back) for one in past] == [
        (1, "promote", None),
        (2, "promote", None),
        (3, "promote", None),
        (4, "rollback", 2),
        (5, "rollback", 1),
        (6, "rollback", 3),
        (7, "append", None),
        (8, "rollback", 3),
    ]
    assert [one.time for one in past] == sorted(one.time for one in past)
    for number in (0, 9, -1):
        refused("promotion-missing", channel.rollback, house, "team/x", number)
    refused("channel-missing", channel.rollback, house, "team/other")
    refused("channel-missing", channel.history, house, "team/other")
    refused("channel-name", channel.rollback, house, "local")


@pytest.mark.parametrize("how", ["removed", "yanked", "quarantined", "changed"])
def test_part_of_a_set_is_never_brought_back(house: Wheelhouse, how: str) -> None:
    a, b, c = plain(house, "a", "b", "c")
    channel.promote(house, "team/x", [a, b])
    channel.promote(house, "team/x", [c])
    match how:
        case "removed":
            house.remove(b)
        case "changed":
            b.path.write_bytes(b"other")
        case _:
            states.set(house, [b], how, "bad")  # type: ignore[arg-type]  # two of its words
    error = refused("wheel-unpublished", channel.rollback, house, "team/x")
    assert b.filename in f"{error.summary}{error.cause}"
    assert listed(house, "team/x") == [c.filename]
    assert len(channel.history(house, "team/x")) == 2
    assert channel.history(house, "team/x")[0].wheels == (a.sha256, b.sha256)  # still named
    if how in {"yanked", "quarantined"}:
        states.set(house, [b], "published")
        channel.rollback(house, "team/x")
        assert listed(house, "team/x") == named([a, b])


def test_a_history_outlives_a_reindex_and_goes_on_counting(house: Wheelhouse) -> None:
    a, b = plain(house, "a", "b")
    channel.promote(house, "team/x", [a])
    channel.append(house, "team/x", [b])
    channel.rollback(house, "team/x")
    before, kept = channel.history(house, "team/x"), kit.contents(house.root)
    reindex(house.root, clock=time.time)
    assert kit.contents(house.root) == kept
    assert channel.history(house, "team/x") == before
    channel.append(house, "team/x", [b])
    assert channel.history(house, "team/x")[-1].number == 4


def test_a_history_says_what_was_listed_also_after_a_removal(house: Wheelhouse, tmp_path: Path) -> None:
    a, b = plain(house, "a", "b")
    channel.promote(house, "team/x", [a, b])
    house.remove(a)
    (c,) = kit.publish(house, [kit.wheel(tmp_path / "dist", "c")], also=("team/x",))
    assert listed(house, "team/x") == named([b, c])
    assert [one.wheels for one in channel.history(house, "team/x")] == [
        (a.sha256, b.sha256),
        (b.sha256, c.sha256),
    ]


def test_words_of_the_server_are_no_channels() -> None:
    taken = "simple files legacy ccache metrics health api projects wheels builds channels static"
    assert frozenset(taken.split()) == channel.RESERVED
    for word in taken.split():
        assert refused("channel-name", channel.check, word).cause
        refused("channel-name", channel.check, f"{word}/x")
    channel.check("team/stable")


def test_a_channel_has_a_name_that_folders_can_have() -> None:
    channel.check(f"{'a' * 64}/{'b' * 64}")
    for name in ("a" * 65, f"team/{'a' * 65}", "", "team/", "/x", "a/b/c", "A", "a_b", "a.b", "a\n", "-x", "team/-x"):
        refused("channel-name", channel.check, name)


def test_a_lost_wheel_keeps_its_place_for_when_it_is_back(house: Wheelhouse) -> None:
    """Else a channel would change by the second reindex, and not by what brought the wheel back."""
    one, two = plain(house, "one", "two")
    channel.promote(house, "team/x", [one, two])
    before = kit.contents(house.root)
    one.path.unlink()
    reindex(house.root, clock=time.time)
    with kit.opened(house.root) as again:
        assert [wheel.sha256 for wheel in channel.members(again, "team/x")] == [two.sha256]
        assert set(listing.read(again, "team/x").projects) == {"two"}
        plain(again, "one", "two")
        assert [wheel.sha256 for wheel in channel.members(again, "team/x")] == [one.sha256, two.sha256]
        after = kit.contents(house.root)
        assert after["members"] == before["members"]
    reindex(house.root, clock=time.time)
    assert kit.contents(house.root) == after


def test_a_wheel_whose_time_changed_is_read_before_others_have_to_wait(house: Wheelhouse) -> None:
    """Read under the lock, it would be read again each time: what was found out can't be kept there."""
    (one,) = plain(house, "one")
    for number, call in enumerate((channel.promote, channel.append), 1):
        os.utime(one.path, (number, number))
        call(house, f"team/{number}", [one])
        rows = house.catalogue.rows("SELECT mtime_ns FROM wheels WHERE sha256=?", (one.sha256,))
        assert rows == [(one.path.stat().st_mtime_ns,)]


# --- a set enters several channels in one step


def test_a_set_enters_local_and_a_channel_in_one_step(house: Wheelhouse, tmp_path: Path) -> None:
    (first,) = plain(house, "first")
    channel.promote(house, "team/x", [first])
    made = [kit.wheel(tmp_path / "dist", name) for name in ("one", "two")]
    stored = kit.publish(house, made, also=("team/x", "team/new"))
    assert listed(house, "team/x") == named([first, *stored])
    assert listed(house, "team/new") == named(stored)
    assert listed(house, "local") == named([first, *stored])
    assert [(one.how, len(one.wheels)) for one in channel.history(house, "team/x")] == [("promote", 1), ("publish", 3)]
    kept = kit.contents(house.root)
    assert kit.publish(house, made, also=("team/x",)) == stored  # a second time changes nothing
    assert kit.contents(house.root) == kept
    assert len(channel.history(house, "team/x")) == 2
    reindex(house.root, clock=time.time)
    assert kit.contents(house.root) == kept
    channel.rollback(house, "team/x")
    assert listed(house, "team/x") == [first.filename]


def test_what_is_there_already_enters_the_channel_all_the_same_but_nothing_withheld_does(
    house: Wheelhouse, tmp_path: Path
) -> None:
    a, b = plain(house, "a", "b")
    states.set(house, [b], "quarantined", "bad")
    made = [kit.wheel(tmp_path / "dist", name) for name in ("b", "a")]
    assert [one.state for one in kit.publish(house, made, also=("team/x",))] == ["quarantined", "published"]
    assert listed(house, "team/x") == [a.filename]
    kept = kit.contents(house.root)
    reindex(house.root, clock=time.time)
    assert kit.contents(house.root) == kept


def test_a_set_that_is_refused_enters_no_channel(house: Wheelhouse, tmp_path: Path) -> None:
    (a,) = plain(house, "a")
    other = read.inspect(kit.make_wheel(tmp_path / "other", "a", text=b"other"))
    journal = (house.root / "journal.jsonl").read_bytes()
    refused("name-taken", kit.publish, house, [kit.wheel(tmp_path, "new"), other], also=("team/x",))
    refused("channel-name", kit.publish, house, [kit.wheel(tmp_path, "new")], also=("simple",))
    assert "team/x" not in listing.channels(house)
    assert named(house.list_wheels()) == [a.filename]
    assert (house.root / "journal.jsonl").read_bytes() == journal


# --- several processes, kills, and places that can't be written

APPENDER = """
import pathlib, sys
from builder.wheelhouse import channel
from tests import wheelhouse_kit as kit
root, name = pathlib.Path(sys.argv[1]), sys.argv[2]
with kit.opened(root / "house") as house:
    mine = [wheel for wheel in house.list_wheels() if wheel.project.startswith(name)]
    print("open", flush=True)
    sys.stdin.readline()
    for wheel in mine:
        channel.append(house, "team/x", [wheel])
"""


def test_two_processes_that_append_at_once_lose_nothing(house: Wheelhouse, tmp_path: Path) -> None:
    wheels = plain(house, *(f"{who}{number}" for who in "ab" for number in range(8)))
    both = [kit.child(APPENDER, str(tmp_path), who, stdin=subprocess.PIPE) for who in "ab"]
    for one in both:
        assert one.stdout is not None
        assert one.stdout.readline() == "open\n"
    for one in both:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
    for one in both:
        kit.finished(one)
    assert sorted(listed(house, "team/x")) == sorted(named(wheels))
    past = channel.history(house, "team/x")
    assert [len(one.wheels) for one in past] == list(range(1, 17))
    for who in "ab":  # each in its own order
        mine = [name for name in listed(house, "team/x") if name.startswith(who)]
        assert mine == [one.filename for one in wheels if one.project.startswith(who)]


ENDLESS = """
import pathlib, sys
from builder.wheelhouse import channel, states
from tests import wheelhouse_kit as kit
with kit.opened(pathlib.Path(sys.argv[1])) as house:
    wheels = house.list_wheels(include_unpublished=True)
    print("open", flush=True)
    while True:
        states.set(house, wheels, "published")
        for count in (1, 4, 2, 3):
            channel.promote(house, "team/x", wheels[:count])
        channel.rollback(house, "team/x")
        states.set(house, wheels, "yanked", "again")
"""


def test_killed_at_any_moment_a_channel_lists_a_whole_state_and_catalogue_and_journal_agree(
    house: Wheelhouse,
) -> None:
    wheels = plain(house, "a", "b", "c", "d")
    moments = random.Random(6)  # noqa: S311  # moments of kills
    states_seen = set()
    for _kill in range(15):
        process = kit.child(ENDLESS, str(house.root))
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        time.sleep(moments.uniform(0.0, 0.12))
        process.kill()
        process.communicate()
        with kit.opened(house.root) as again:
            found = listed(again, "team/x") if "team/x" in listing.channels(again) else []
            assert found == named(wheels)[: len(found)]
            states_seen.add((len(found), *{one.state for one in again.list_wheels()}))
            assert len({one.state for one in again.list_wheels()}) == 1
            if found:
                assert channel.history(again, "team/x")[-1].wheels == tuple(one.sha256 for one in wheels[: len(found)])
        kept = kit.contents(house.root)
        reindex(house.root, clock=time.time)
        assert kit.contents(house.root) == kept
    assert len(states_seen) > 2
    assert not list((house.root / "wheels" / ".incoming").iterdir())


def test_a_change_settles_first_what_a_killed_one_left(house: Wheelhouse, tmp_path: Path) -> None:
    """An upload into a channel, by a process that was open while a promotion of that channel was killed."""
    a, b = plain(house, "a", "b")
    code = """
import pathlib, sys
from builder.wheelhouse import channel
from tests import wheelhouse_kit as kit
with kit.opened(pathlib.Path(sys.argv[1])) as house:
    wheels = house.list_wheels()
    kit.kill_in("enter")
    channel.promote(house, "team/x", wheels)
"""
    kit.finished(kit.child(code, str(house.root)), code=-9)
    (new,) = kit.publish(house, [kit.wheel(tmp_path / "dist", "new")], also=("team/x",))
    assert listed(house, "team/x") == named([a, b, new])
    kept = kit.contents(house.root)
    reindex(house.root, clock=time.time)
    assert kit.contents(house.root) == kept


def test_a_wheelhouse_that_cannot_be_written_changes_nothing(world: World, tmp_path: Path) -> None:
    folder = Path("/tmp") / f"spark-build-ro-{tmp_path.name}"  # noqa: S108  # others must come there
    try:
        with kit.opened(folder / "house") as house:
            (a,) = plain(house, "a")
            channel.promote(house, "team/x", [a])
        subprocess.run(["chmod", "-R", "a+rX,go-w", str(folder)], check=True)
        before = kit.contents(folder / "house"), (folder / "house" / "journal.jsonl").read_bytes()
        for words in (["promote", "team/y", a.filename], ["rollback", "team/x"], ["yank", a.filename]):
            done = subprocess.run(
                [*kit.NOBODY, str(COMMAND), "wheels", *words, "--wheelhouse", str(folder / "house")],
                env=world.env(HOME="/nonexistent"),
                cwd="/",
                capture_output=True,
                text=True,
                check=False,
            )
            assert (done.returncode, "error[unwritable]" in done.stderr) == (3, True), done.stderr
        assert (kit.contents(folder / "house"), (folder / "house" / "journal.jsonl").read_bytes()) == before
    finally:
        shutil.rmtree(folder)


# --- gc


def test_gc_keeps_what_a_channel_lists_and_what_its_next_rollback_brings_back(world: World) -> None:
    with kit.opened(world.wheelhouse) as house:
        one, two, three, _four, five = (built(house, number) for number in range(5))
        channel.promote(house, "team/x", [one])
        channel.promote(house, "team/x", [two])
        channel.promote(house, "team/x", [three])
        assert channel.targets(house) == {two.sha256}
    gc = ("gc", "--wheels", "--older-than", "0", "--keep-builds", "1")
    items = {Path(item["path"]).name: item for item in world.json(*gc, "--dry-run")["items"]}
    assert items[two.filename]["why"] == "what a rollback brings back"
    world.run(*gc)
    with kit.opened(world.wheelhouse) as house:
        assert named(house.list_wheels()) == named([two, three, five])
        channel.rollback(house, "team/x")
        assert not house.remove(two, named=False)
        assert house.remove(five, named=False)
        assert named(house.list_wheels()) == named([two, three])


# --- the command


def test_the_command_promotes_shows_and_goes_back(world: World) -> None:
    with kit.opened(world.wheelhouse) as house:
        a, b = plain(house, "a", "b")
        old, new = built(house, 1), built(house, 2)
    run = partial(world.run, "wheels")
    done = run("promote", "team/x", a.filename, old.fingerprint[:10], "--dry-run")
    assert done.stdout.splitlines() == [f"+ {a.filename}", f"+ {old.filename}"]
    assert "would list 2 wheels: 2 came, 0 went" in done.stderr
    assert run("list", "--channel", "team/x", code=2).stdout == ""
    run("promote", "team/x", a.filename, old.fingerprint[:10])
    done = run("promote", "team/x", "--append", new.sha256[:10])
    assert done.stdout.splitlines() == [f"  {a.filename}", f"  {old.filename}", f"+ {new.filename}"]
    rows = world.json("wheels", "list", "--channel", "team/x")["wheels"]
    assert [(row["filename"], row["superseded"]) for row in rows] == [
        (a.filename, False),
        (old.filename, True),
        (new.filename, False),
    ]
    assert run("list", "--channel", "team/x").stdout.splitlines()[1].endswith("superseded")
    told = world.json("wheels", "promote", "team/x", b.filename)["channel"]
    assert ([row["filename"] for row in told["went"]], told["changed"]) == (named([a, old, new]), True)
    assert "as before" in run("promote", "team/x", b.filename).stderr
    done = run("rollback", "team/x")
    assert "as number 2 of its history: 3 came, 1 went" in done.stderr
    run("rollback", "team/x", "--to", "3")
    history = run("history", "team/x").stdout
    assert [line.split("UTC")[1].strip() for line in history.splitlines() if "UTC" in line] == [
        "promote: 2 wheels",
        "append: 3 wheels",
        "promote: 1 wheel",
        "rollback to 2: 3 wheels",
        "rollback to 3: 1 wheel",
    ]
    run("rm", old.filename, "--yes")
    assert f"+ {old.filename}  (gone)" in run("history", "team/x").stdout
    gone = [row["gone"] for row in world.json("wheels", "history", "team/x")["history"][0]["wheels"]]
    assert gone == [False, True]
    assert "spark-build wheels history team/x" in run("rollback", "team/x", "--to", "2", code=2).stderr
    assert "wheel-in-channel" in run("rm", b.filename, "--yes", code=2).stderr


def test_the_index_of_the_wheelhouse_follows_each_change(world: World) -> None:
    with kit.opened(world.wheelhouse) as house:
        old, new = built(house, 1), built(house, 2)
    page = world.wheelhouse / "index" / "simple" / "tiny" / "index.html"

    def links() -> list[tuple[str, str | None]]:
        return [(text, values.get("data-yanked")) for text, values in Page(page).links]

    world.run("wheels", "yank", new.filename, "--reason", "wrong")
    assert links() == [(old.filename, None), (new.filename, "wrong")]
    world.run("wheels", "quarantine", new.filename)
    assert links() == [(old.filename, None)]
    world.run("wheels", "quarantine", new.filename, "--release")
    assert links() == [(new.filename, None)]
    world.run("wheels", "quarantine", "--project", "tiny", "--reason", "all bad")
    assert links() == []
    assert Page(page).meta["pypi:project-status"] == "quarantined"
    assert Page(page).meta["pypi:project-status-reason"] == "all bad"
    world.run("wheels", "quarantine", "--project", "tiny", "--release")
    assert links() == [(new.filename, None)]
    assert "pypi:project-status" not in Page(page).meta


@pytest.mark.parametrize("verb", ["promote", "rollback", "history", "yank", "quarantine", "status", "push", "pull"])
def test_help_of_each_verb_has_an_example_of_it(world: World, verb: str) -> None:
    text = world.run("wheels", verb, "--help").stdout
    assert f"  spark-build wheels {verb} " in text.partition("example:")[2]
