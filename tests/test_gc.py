from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from builder.pipeline import gc, growth
from builder.pipeline.gc import Candidate, Policy
from builder.wheelhouse import locks
from tests import wheelhouse_kit as kit
from tests.server_kit import serving, token
from tests.world import World

DAY = 86_400.0
NOW = 1_800_000_000.0
KEY = "0123456789ab"
BORROWED, FETCHED = f"borrowed-{KEY}.git", f"fetched-{KEY}.git"


def candidate(kind: gc.Kind, name: str, days: float, **more: Any) -> Candidate:  # noqa: ANN401  # passed on
    return Candidate(kind=kind, path=Path("/x") / name, size=10, used=NOW - days * DAY, **more)


def gone(policy: Policy, *candidates: Candidate) -> set[str]:
    return {one.candidate.path.name for one in gc.decide(candidates, policy, now=NOW) if one.remove}


def test_scratch_goes_when_no_run_can_be_at_it_any_more() -> None:
    some = [
        candidate("scratch", "new", 0.1),
        candidate("scratch", "old", 2),
        candidate("scratch", "sure", 0, finished=True),
    ]
    assert gone(Policy(), *some) == gone(Policy(older_than_s=0), *some) == {"old", "sure"}


def test_trees_go_when_finished_or_old_and_never_under_a_build() -> None:
    some = [
        candidate("tree", "young", 3),
        candidate("tree", "old", 31),
        candidate("tree", "finished", 0, finished=True),
        candidate("tree", "building", 99, in_use="is being built"),
        candidate("tree", "finishing", 0, finished=True, in_use="is being built"),
    ]
    assert gone(Policy(), *some) == {"old", "finished"}
    assert gone(Policy(older_than_s=2 * DAY), *some) == {"old", "finished", "young"}


def test_logs_beyond_the_newest_of_each_recipe_go() -> None:
    some = [candidate("log", f"{name}{n}", n, group=name) for name in "ab" for n in range(4)]
    assert gone(Policy(keep_builds=2), *some) == {"a2", "a3", "b2", "b3"}
    assert gone(Policy(keep_builds=0), *some) == {one.path.name for one in some}


def test_wheels_go_only_when_asked_for_and_never_the_newest_of_an_output() -> None:
    some = [candidate("wheel", f"{name}{n}", 40 + n, group=name) for name in "ab" for n in range(3)]
    some.append(candidate("wheel", "named", 300, group="a", in_use="in channel stable"))
    assert gone(Policy(keep_builds=1), *some) == set()
    assert gone(Policy(keep_builds=0, older_than_s=0, wheels=True), *some) == {"a1", "a2", "b1", "b2"}
    assert gone(Policy(keep_builds=2, wheels=True), *some) == {"a2", "b2"}
    assert gone(Policy(keep_builds=1, older_than_s=41.5 * DAY, wheels=True), *some) == {"a2", "b2"}


def test_sources_go_only_when_asked_for_and_unused() -> None:
    some = [candidate("archive", "a", 40), candidate("mirror", "m", 40), candidate("archive", "b", 4)]
    some.append(candidate("mirror", "borrowed", 40, in_use="a build tree borrows from it"))
    assert gone(Policy(), *some) == set()
    assert gone(Policy(sources=True), *some) == {"a", "m"}
    some.append(candidate("archive", "being unpacked", 0.5))
    assert gone(Policy(sources=True, older_than_s=0), *some) == {"a", "m", "b"}


# --- with real files


def aged(path: Path, days: float) -> Path:
    """Let `path` and all below it be last used `days` days ago."""
    moment = time.time() - days * DAY
    for folder, _folders, files in os.walk(path, topdown=False):
        for name in files:
            os.utime(os.path.join(folder, name), (moment, moment))  # noqa: PTH118  # a walk
        os.utime(folder, (moment, moment))
    os.utime(path, (moment, moment))
    return path


def tree(world: World, fingerprint: str, *, days: float, status: str | None = None, content: bool = True) -> Path:
    """Make a build tree with one attempt, which ended with `status`, or never."""
    path = world.wheelhouse / "builds" / fingerprint
    logs = path / "logs" / "1"
    logs.mkdir(parents=True)
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - days * DAY))
    head = {"v": 1, "t": moment, "build": "", "seq": 1}
    started = {"kind": "build.started", "recipe": "tiny", "version": "1", "fingerprint": fingerprint, "label": "l"}
    lines = [{**head, **started, "outputs": ["tiny"], "attempt": 1, "isolation": "none"}]
    if status:
        lines.append({**head, "kind": "build.ended", "status": status, "ms": 1})
    (logs / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if content:
        for folder in ("src", "state", "venv"):
            (path / folder).mkdir()
            (path / folder / "file").write_bytes(b"x" * 5000)
    return aged(path, days)


@pytest.fixture
def house(world: World) -> World:
    kit.opened(world.wheelhouse).close()
    return world


def test_a_dry_run_shows_what_a_run_removes_and_removes_nothing(house: World) -> None:
    old, young = tree(house, "a" * 64, days=40, status="failed"), tree(house, "b" * 64, days=1, status="failed")
    scratch = aged(_made(house.wheelhouse / "builds" / ".fetch-x"), 3)
    shown = house.json("gc", "--dry-run")
    assert scratch.exists()
    assert (old / "src").exists()
    done = house.json("gc")
    assert {(row["kind"], row["path"], row["bytes"], row["remove"]) for row in shown["items"]} == {
        (row["kind"], row["path"], row["bytes"], row["remove"]) for row in done["items"]
    }
    assert shown["freed_bytes"] == done["freed_bytes"] >= 3 * 5000
    assert not scratch.exists()
    assert {entry.name for entry in old.iterdir()} == {"logs"}
    assert {entry.name for entry in young.iterdir()} == {"logs", "src", "state", "venv"}
    assert not list((house.wheelhouse / "builds").glob(".gc-*"))
    assert house.json("gc")["freed_bytes"] == 0


def _made(folder: Path) -> Path:
    folder.mkdir()
    (folder / "file").write_text("x")
    return folder


def test_a_finished_tree_goes_and_an_empty_one_leaves_no_folder(house: World) -> None:
    finished = tree(house, "a" * 64, days=0.1, status="ok")
    house.run("gc")
    assert {entry.name for entry in finished.iterdir()} == {"logs"}
    house.run("gc", "--keep-builds", "0")
    assert not finished.exists()


def test_the_logs_of_a_tree_that_can_be_resumed_stay_with_it(house: World) -> None:
    path = tree(house, "a" * 64, days=1, status="failed")
    house.run("gc", "--keep-builds", "0")
    assert (path / "logs" / "1" / "events.jsonl").exists()


def test_a_tree_whose_build_runs_is_never_touched(house: World) -> None:
    path = tree(house, "a" * 64, days=400)
    code = """
import pathlib, sys
from builder.wheelhouse import locks
with locks.held(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
    process = kit.child(code, str(house.wheelhouse / "locks" / ("a" * 64)), stdin=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    house.run("gc", "--keep-builds", "0", "--older-than", "0")
    assert (path / "src" / "file").exists()
    assert (path / "logs" / "1").exists()
    kit.finished(process)
    house.run("gc", "--keep-builds", "0", "--older-than", "0")
    assert {entry.name for entry in path.iterdir()} == {"logs"}
    house.run("gc", "--keep-builds", "0")
    assert not path.exists()


def test_a_tree_that_was_taken_up_after_the_decision_stays(house: World) -> None:
    path = tree(house, "a" * 64, days=40, status="failed")
    found = growth.collect(house.wheelhouse, sources=house.root / "sources")
    decisions = gc.decide(found, Policy(), now=time.time())
    (path / "state" / "building").touch()
    after, failed = gc.sweep(decisions, house.wheelhouse, remove_wheel=Path.unlink)
    assert (path / "src").exists()
    assert failed == ()
    assert [one.why for one in after if one.candidate.kind == "tree"] == ["in use by now"]


def test_what_a_killed_gc_left_goes_with_the_next(house: World) -> None:
    for place in (house.wheelhouse / "builds", house.root / "sources" / "git"):
        place.mkdir(parents=True, exist_ok=True)
        _made(place / f".gc-{'0123' * 4}")
    house.run("gc")
    assert not list(house.root.rglob(".gc-*"))


def test_killed_at_any_moment_it_leaves_a_tree_that_is_whole_or_begins_anew(house: World) -> None:
    """The marks of what was done go first: no mark is left for what is gone."""
    code = (
        "import sys; from pathlib import Path; from tests import test_gc; test_gc.kill_at_every_line(Path(sys.argv[1]))"
    )
    assert int(kit.finished(kit.child(code, str(house.root)))) > 10


def kill_at_every_line(root: Path) -> None:
    """Kill gc at each line that takes something away, and let the next one end it; print how often it was killed."""
    house = World(root)

    def collected() -> None:
        found = growth.collect(house.wheelhouse, sources=root / "s")
        gc.sweep(gc.decide(found, Policy(), now=time.time()), house.wheelhouse, remove_wheel=Path.unlink)

    for number in range(1, 400):
        path = tree(house, f"{number:064x}", days=40, status="failed")
        killed = kit.killed_at(number, collected, lambda code: code.co_name in {"_remove", "_clear_tree", "_discard"})
        left = {entry.name for entry in path.iterdir()}
        assert left == {"logs", "src", "state", "venv"} or "state" not in left
        assert "logs" in left
        if not killed:
            print(number - 1)  # noqa: T201  # the test reads it
            return
        collected()
        assert {entry.name for entry in path.parent.iterdir()} == {path.name}  # nothing aside is left
        assert {entry.name for entry in path.iterdir()} == {"logs"}
        shutil.rmtree(path)
    raise AssertionError("it never came to its end")


# --- what the server keeps


def test_uploads_that_nobody_sends_any_more_go(house: World) -> None:
    uploads = house.wheelhouse / "uploads"
    torn, new, sent = (uploads / (letter * 32) for letter in "abc")
    forgotten, staged = (uploads / "staging" / (letter * 64) for letter in "ab")
    own = uploads / "notes"
    for folder in (torn, new, sent, forgotten, staged, own):
        folder.parent.mkdir(parents=True, exist_ok=True)
        _made(folder)
    for folder in (torn, sent, forgotten, own):
        aged(folder, 2)
    lock = locks.claim(sent, wait=False)
    assert lock is not None
    try:
        assert house.json("gc", "--dry-run")["freed_bytes"] > 0
        house.run("gc", "--older-than", "0")
    finally:
        os.close(lock)
    assert {path.name for path in uploads.iterdir()} == {new.name, sent.name, "staging", "notes"}
    assert list((uploads / "staging").iterdir()) == [staged]
    house.run("gc")
    assert not sent.exists()


def test_an_upload_that_goes_on_after_the_decision_stays(house: World) -> None:
    staged = house.wheelhouse / "uploads" / "staging" / ("a" * 64)
    staged.parent.mkdir(parents=True)
    aged(_made(staged), 2)
    decisions = gc.decide(growth.collect(house.wheelhouse, sources=house.root / "s"), Policy(), now=time.time())
    (staged / "file").write_text("more of it")
    after, failed = gc.sweep(decisions, house.wheelhouse, remove_wheel=Path.unlink)
    assert ([one.why for one in after], failed) == (["in use by now"], ())
    assert (staged / "file").read_text() == "more of it"


def test_objects_of_a_team_go_when_nobody_asked_for_them_and_the_server_goes_on(house: World) -> None:
    """The server runs all the while: what is gone is a miss, what is left a hit, and new ones are taken."""
    secret = token(house.wheelhouse, "ci", "publish")
    store = house.wheelhouse / "ccache"
    keys = [letter * 16 for letter in "abc"]
    with serving(house) as server:

        def put(key: str) -> int:
            return server.ask(f"/ccache/{key}", "PUT", b"x" * 9000, Authorization=f"Bearer {secret}").status

        assert [put(key) for key in keys] == [201] * 3
        for key in keys[:2]:
            aged(store / key[:2] / key[2:], 40)
        assert server.ask(f"/ccache/{keys[1]}").status == 200  # asked for: it is young again
        (store / f".{'0' * 24}").write_text("torn")
        aged(store / f".{'0' * 24}", 2)
        aged(_made(store / "aa" / "own"), 99)
        shown = house.run("gc", "--dry-run")
        assert "more with --sources" in shown.stderr
        assert [path.name for path in store.glob("??/*")] != []
        said = house.run("gc", "--sources").stdout
        assert "1 compiled objects that the server keeps for a team" in said
        assert [server.ask(f"/ccache/{key}").status for key in keys] == [404, 200, 200]
        assert put(keys[0]) == 201
    assert {path.name for path in store.glob("*/*")} == {"own", *(key[2:] for key in keys)}
    assert not list(store.glob(".*"))


def test_wheels_of_older_builds_go_with_their_flag_and_the_index_follows(house: World) -> None:
    with kit.opened(house.wheelhouse) as opened:
        for number in range(3):
            inputs = {"name": "tiny", "target": {"arch": "12.1a"}, "number": number}
            made = kit.wheel(house.root / "dist", "tiny", f"1.{number}", inputs=inputs)
            kit.publish(opened, [made], fingerprint=f"{number:064x}", inputs=inputs)
            time.sleep(0.01)
        kit.publish(opened, [kit.wheel(house.root / "dist", "kept")], fingerprint="", recipe="")
    words = ("gc", "--older-than", "0", "--keep-builds", "1")
    assert house.json(*words)["freed_bytes"] == 0
    assert "with --wheels" in house.run(*words).stderr
    house.run(*words, "--wheels")
    assert set(kit.whole(house.wheelhouse)) == {"tiny-1.2-py3-none-any.whl", "kept-1.0-py3-none-any.whl"}
    page = (house.wheelhouse / "index" / "simple" / "tiny" / "index.html").read_text()
    assert "tiny-1.2" in page
    assert "tiny-1.1" not in page


def test_a_mirror_stays_while_a_tree_borrows_from_it_or_a_fetch_holds_it(house: World) -> None:
    git = house.root / "sources" / "git"
    git.mkdir(parents=True)
    patched = f"patched-{KEY}.git"
    for name in (BORROWED, FETCHED, patched, f"free-{KEY}.git"):
        house.git(git, "init", "-q", "--bare", name)
        aged(git / name, 90)
    edited = house.wheelhouse / "patching" / "tiny"  # of `patch new`
    edited.mkdir(parents=True)
    house.git(edited, "clone", "-q", "--shared", str(git / patched), "fix")
    path = tree(house, "a" * 64, days=1, status="failed")
    house.git(path / "src", "clone", "-q", "--shared", str(git / BORROWED), "nested")
    with (git / FETCHED).with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        house.run("gc")
        assert len(list(git.glob("*.git"))) == 4
        house.run("gc", "--sources")
        assert {one.name for one in git.glob("*.git")} == {BORROWED, FETCHED, patched}
    house.run("gc", "--sources")
    assert {one.name for one in git.glob("*.git")} == {BORROWED, patched}


def test_only_what_has_a_name_of_ours_and_is_no_link_is_ours(house: World) -> None:
    builds, sources = house.wheelhouse / "builds", house.root / "sources"
    theirs = house.root / "theirs"
    for folder in (theirs / "logs" / "1", theirs / "src", builds / "notes", builds / ".mine", builds / ("A" * 64)):
        folder.mkdir(parents=True)
    for folder in (sources / "git" / "mine.git", sources / "files" / "manuals", sources / "files" / "x", sources / "v"):
        folder.mkdir(parents=True)
    kept = [builds / "notes", builds / ".mine", builds / ("A" * 64), *(sources / "files").iterdir(), sources / "v"]
    for folder in (theirs, theirs / "src", theirs / "logs" / "1", *kept, sources / "git" / "mine.git"):
        (folder / "file.part").write_text("mine")
    for link in ("x", "c" * 64, ".fetch-abc", f".gc-{'0' * 16}"):
        (builds / link).symlink_to(theirs)
    for place, link in (("git", f"a-{KEY}.git"), ("files", "d" * 64), (".", "uv")):
        (sources / place / link).symlink_to(theirs)
    whole = tree(house, "e" * 64, days=1, status="failed")
    shutil.rmtree(whole / "logs")
    (whole / "logs").symlink_to(theirs / "logs")
    aged(house.root / "sources", 900)
    aged(builds, 900)
    aged(theirs, 900)
    before = sorted(house.root.rglob("*"))
    assert house.json("gc", "--keep-builds", "0", "--older-than", "0s", "--sources")["items"] == []
    assert [path for path in before if not path.exists()] == []


def test_what_a_running_download_or_plan_writes_stays_whatever_was_asked_for(house: World) -> None:
    builds, files = house.wheelhouse / "builds", house.root / "sources" / "files"
    for folder in (builds / ".lock-abc", builds / ".patches-x_1", files / ".incoming" / ("0" * 32), files / ("a" * 64)):
        folder.mkdir(parents=True)
        (folder / "x.part").write_text("half")
    words = ("gc", "--older-than", "0s", "--sources")
    assert house.json(*words)["freed_bytes"] == 0
    aged(files, 2)  # the folder isn't written to while the file in it grows
    os.utime(files / ".incoming" / ("0" * 32) / "x.part")
    house.run(*words)
    assert (files / ".incoming" / ("0" * 32) / "x.part").exists()
    assert not (files / ("a" * 64)).exists()
    aged(builds, 2)
    house.run(*words)
    assert list(builds.iterdir()) == []


def test_the_tree_of_a_build_that_was_killed_after_its_publish_goes(house: World) -> None:
    with kit.opened(house.wheelhouse) as opened:
        kit.publish(opened, [kit.wheel(house.root / "dist", "tiny")], fingerprint="a" * 64)
    stored, other = tree(house, "a" * 64, days=0.1), tree(house, "b" * 64, days=0.1)
    house.run("gc")
    assert {entry.name for entry in stored.iterdir()} == {"logs"}
    assert (other / "src").exists()


def test_the_cache_of_uv_goes_as_a_whole_and_never_under_a_running_uv(house: World) -> None:
    cache = house.root / "sources" / "uv"
    (cache / "wheels-v5").mkdir(parents=True)
    (cache / "wheels-v5" / "x").write_bytes(b"x" * 5000)
    (cache / ".lock").touch()
    aged(cache, 40)
    assert house.json("gc")["freed_bytes"] == 0
    with (cache / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        assert house.json("gc", "--sources")["freed_bytes"] == 0
    (row,) = house.json("gc", "--sources")["items"]
    assert (row["kind"], row["path"], cache.exists()) == ("cache", str(cache), False)


def test_archives_go_by_their_last_use(house: World) -> None:
    files = house.root / "sources" / "files"
    for name, days in (("a" * 64, 90), ("b" * 64, 2)):
        (files / name).mkdir(parents=True)
        (files / name / "x.tar.gz").write_bytes(b"x" * 10_000)
        aged(files / name, days)
    os.utime(files / ("b" * 64), (0, 0))  # only the file counts: use marks it
    house.run("gc", "--sources")
    assert [one.name for one in files.iterdir()] == ["b" * 64]


def test_two_runs_at_once_don_t_get_into_each_other_s_way(house: World) -> None:
    with (house.wheelhouse / "locks" / "gc").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "lock-timeout" in house.run("gc", code=3).stderr
        house.run("gc", "--dry-run")


@pytest.mark.parametrize("words", [("--older-than", "soon"), ("--keep-builds", "-1"), ("--keep-builds", "x")])
def test_a_policy_that_makes_no_sense_is_refused(house: World, words: tuple[str, str]) -> None:
    house.run("gc", *words, code=2)


@pytest.mark.root
def test_it_frees_a_disk_so_full_that_the_catalogue_can_t_be_opened(world: World) -> None:
    with kit.small_disk(world.wheelhouse, "2m") as disk:
        kit.opened(disk).close()
        tree(world, "a" * 64, days=40, status="failed")
        (disk / "builds" / ("a" * 64) / "src" / "large").write_bytes(b"x" * 500_000)
        aged(disk / "builds" / ("a" * 64), 40)
        kit.fill(disk)
        world.run("wheels", "list", code=3)
        assert world.json("gc")["freed_bytes"] > 500_000
        world.run("wheels", "list")
