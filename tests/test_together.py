"""Several processes on one wheelhouse, full disks, other users: one builds, the others wait, nothing is half listed."""

from __future__ import annotations

import json
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import elsewhere_kit, proof_kit
from tests.proof_kit import Run, project
from tests.world import COMMAND

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.world import World

#: Says that the build is at work, waits for the word to go on, and leaves what it was given.
GATED = """
here = pathlib.Path({here!r})
(here / f"at-{{os.environ.get('WHICH', '')}}").touch()
end = time.monotonic() + 30
while not (here / "go").exists():
    assert time.monotonic() < end, "nobody gave the word"
    time.sleep(0.02)
(made / "which").write_text(os.environ.get("WHICH", ""))
(made / "where").write_text(os.getcwd())
"""


@pytest.fixture
def gate(world: World) -> Path:
    """Make the recipe ``tiny``, whose build waits for the file ``go`` in the folder returned."""
    here = world.root / "gate"
    here.mkdir()
    project(world, "tiny", GATED.format(here=str(here)))
    return here


def attempts(world: World) -> int:
    return len(list((world.wheelhouse / "builds").glob("*/logs/*/build.log")))


def ended(run: Run) -> list[Path]:
    wheels = run.printed()
    assert run.child.returncode == 0, "".join(run.text)
    return wheels


# --- locks


def test_one_builds_and_the_other_waits_and_hits(world: World, gate: Path) -> None:
    with Run.start(world, "recipe", "tiny") as first:
        first.wait((gate / "at-").exists, "the build")
        with Run.start(world, "recipe", "tiny") as second:
            waiting = second.until("lock.waiting")
            assert f"process {first.child.pid}" in waiting["holder"]
            assert "tiny" in waiting["what"]
            (gate / "go").touch()
            assert ended(first) == ended(second)
    assert attempts(world) == 1
    proof_kit.check_whole(world.wheelhouse)


def test_who_waits_is_told_whom_for(world: World, gate: Path) -> None:
    with Run.start(world, "recipe", "tiny") as first:
        first.wait((gate / "at-").exists, "the build")
        words = [str(COMMAND), "recipe", "tiny", "--progress", "plain"]
        with subprocess.Popen(
            words, env=world.env(), cwd=world.root, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        ) as second:
            assert second.stderr is not None
            lines = iter(second.stderr.readline, "")
            told = next(line for line in lines if f"process {first.child.pid}" in line)
            assert "waiting" in told.lower()
            (gate / "go").touch()
            second.communicate()
        assert second.returncode == 0
        ended(first)


def test_killed_builder_is_followed_by_the_one_that_waits(world: World, gate: Path) -> None:
    with Run.start(world, "recipe", "tiny") as first:
        first.wait((gate / "at-").exists, "the build")
        with Run.start(world, "recipe", "tiny") as second:
            second.until("lock.waiting")
            first.kill()
            second.until("phase.started", phase="build")
            (gate / "go").touch()
            assert len(ended(second)) == 1
    assert attempts(world) == 2
    proof_kit.check_whole(world.wheelhouse)


def test_two_fingerprints_of_a_recipe_are_built_at_the_same_time_at_the_same_path(world: World, gate: Path) -> None:
    with (
        Run.start(world, "recipe", "tiny", "--env", "WHICH=a") as first,
        Run.start(world, "recipe", "tiny", "--env", "WHICH=b") as second,
    ):
        first.wait((gate / "at-a").exists, "the one build")
        second.wait((gate / "at-b").exists, "the other build")
        (gate / "go").touch()
        wheels = [*ended(first), *ended(second)]
    assert [proof_kit.wheel_text(wheel, "tiny/which") for wheel in wheels] == [b"a", b"b"]
    assert {proof_kit.wheel_text(wheel, "tiny/where") for wheel in wheels} == {b"/sb/tiny/src"}
    waited = [event["what"] for run in (first, second) for event in run.events if event["kind"] == "lock.waiting"]
    assert not [what for what in waited if "build" in what]  # for the git mirror one may wait
    proof_kit.check_whole(world.wheelhouse)


def test_without_a_fixed_path_two_fingerprints_of_a_recipe_are_built_one_after_the_other(
    world: World, gate: Path
) -> None:
    with Run.start(world, "recipe", "tiny", "--isolation", "none", "--env", "WHICH=a") as first:
        first.wait((gate / "at-a").exists, "the one build")
        with Run.start(world, "recipe", "tiny", "--isolation", "none", "--env", "WHICH=b") as second:
            assert f"process {first.child.pid}" in second.until("lock.waiting")["holder"]
            assert not (gate / "at-b").exists()
            (gate / "go").touch()
            wheels = [*ended(first), *ended(second)]
    assert [proof_kit.wheel_text(wheel, "tiny/which") for wheel in wheels] == [b"a", b"b"]


def test_two_recipes_are_built_at_the_same_time(world: World, gate: Path) -> None:
    project(world, "other", GATED.format(here=str(gate)))
    with (
        Run.start(world, "recipe", "tiny", "--env", "WHICH=a") as first,
        Run.start(world, "recipe", "other", "--env", "WHICH=b") as second,
    ):
        first.wait((gate / "at-a").exists, "the one build")
        second.wait((gate / "at-b").exists, "the other build")
        (gate / "go").touch()
        assert [wheel.name.split("-")[0] for wheel in (*ended(first), *ended(second))] == ["tiny", "other"]
    proof_kit.check_whole(world.wheelhouse)


@pytest.mark.parametrize("turn", range(3))
def test_four_at_once_make_one_wheelhouse(world: World, gate: Path, turn: int) -> None:
    (gate / "go").touch()
    runs = [Run.start(world, "recipe", "tiny", "--env", f"WHICH={turn}{number // 2}") for number in range(4)]
    wheels = [ended(run) for run in runs]
    for run in runs:
        run.__exit__()
    assert wheels[0] == wheels[1] != wheels[2] == wheels[3]
    assert attempts(world) == 2
    proof_kit.check_whole(world.wheelhouse)


def test_reader_sees_whole_wheels_only_while_others_publish(world: World, gate: Path) -> None:
    (gate / "go").touch()
    world.wheels("tiny")
    done = threading.Event()
    seen: list[int] = []

    def look() -> None:
        while not done.is_set():
            listed = world.json("wheels", "list")["wheels"]
            for wheel in listed:
                assert proof_kit.sha256(Path(wheel["path"])) == wheel["sha256"]
            seen.append(len(listed))

    reader = Failing(look)
    for number in range(5):
        world.wheels("tiny", "--env", f"WHICH={number}")
    done.set()
    reader.join()
    assert seen == sorted(seen)
    assert len(world.json("wheels", "list")["wheels"]) == 6


class Failing(threading.Thread):
    """A thread whose error is raised by `join`."""

    def __init__(self, target: object) -> None:
        super().__init__()
        self._do = target
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            assert callable(self._do)
            self._do()
        except BaseException as error:  # noqa: BLE001  # raised again in the test's own thread
            self._error = error

    def join(self, timeout: float | None = None) -> None:
        super().join(timeout)
        if self._error:
            raise self._error


# --- full disks


@pytest.fixture
def small_disk(world: World) -> Iterator[Path]:
    """Mount a tmpfs of 1 MiB as the wheelhouse."""
    world.wheelhouse.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "small", world.wheelhouse], check=True)
    try:
        yield world.wheelhouse
    finally:
        subprocess.run(["umount", "-l", world.wheelhouse], check=True)


def grow(disk: Path, mib: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={mib}m", disk], check=True)


def refused(world: World, *words: str) -> str:
    """Run, expect that the disk is the reason, and return the error's slug; an empty text when it was enough."""
    done = world.run("recipe", "tiny", "--json", *words, code=None)
    if done.returncode == 0:
        return ""
    assert done.returncode == 3, f"{done.stdout}\n{done.stderr}"
    error = json.loads(done.stdout)["error"]
    assert error["run"]
    return str(error["code"])


@pytest.mark.root
def test_disk_that_is_full_at_any_point_stops_a_build_and_more_room_lets_it_go_on(
    world: World, small_disk: Path
) -> None:
    steps = "(made / 'large').write_bytes(b''.join(hashlib.sha256(b'%d' % n).digest() for n in range(1 << 17)))"
    project(world, "tiny", steps, more='[resources]\ndisk = "1KiB"\n')
    codes = []
    for size in range(1, 60, 2):
        grow(small_disk, size)
        code = refused(world)
        proof_kit.check_listed(small_disk)
        if not code:
            break
        assert not proof_kit.rows(small_disk, "SELECT 1 FROM wheels")
        codes.append(code)
    assert set(codes) <= {"disk-full", "disk-short"}
    assert len(codes) > 3
    (wheel,) = world.wheels("tiny")
    assert len(proof_kit.wheel_text(wheel, "tiny/large")) == 32 << 17
    proof_kit.check_whole(small_disk)


@pytest.mark.root
def test_estimate_of_the_recipe_is_held_against_the_disk_before_anything_is_built(
    world: World, small_disk: Path
) -> None:
    project(world, "tiny", more='[resources]\ndisk = "40MiB"\n')
    grow(small_disk, 8)
    assert refused(world) == "disk-short"
    assert not attempts(world)
    grow(small_disk, 80)
    assert not refused(world)
    proof_kit.check_whole(small_disk)


# --- another user


@pytest.mark.root
def test_wheelhouse_that_cannot_be_written_is_told_and_gives_what_it_has(world: World) -> None:
    project(world, "tiny")
    with elsewhere_kit.open_folder() as folder:
        shared = folder / "wheelhouse"
        world.run("recipe", "tiny", "--wheelhouse", str(shared))
        other = elsewhere_kit.moved(world, folder / "other", owner=elsewhere_kit.NOBODY)

        def run(*words: str, code: int) -> subprocess.CompletedProcess[str]:
            argv = elsewhere_kit.elsewhere(COMMAND, "recipe", "tiny", *words)
            env = other.env(UV_CACHE_DIR=str(other.root / "uv"))
            done = subprocess.run(argv, env=env, cwd=other.root, capture_output=True, text=True, check=False)
            assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
            return done

        found = run("--wheelhouse", str(shared), code=0).stdout
        assert Path(found.strip()).parent == shared / "wheels" / "tiny"
        told = run("--wheelhouse", str(shared), "--env", "A=1", code=3).stderr
        assert "error[unwritable]" in told
        assert str(shared) in told
        told = run("--wheelhouse", str(folder / "new"), code=3).stderr
        assert "error[unwritable]" in told
        assert not (folder / "new").exists()
