from __future__ import annotations

import os
import shutil
import signal
from typing import TYPE_CHECKING

import pytest

from tests.test_detach import building, gated, wait_for

if TYPE_CHECKING:
    from tests.world import World


def failed(world: World, *words: str) -> str:
    """Let one build fail; return the start of its fingerprint."""
    go = gated(world)
    go.touch()
    (world.root / "fail").touch()
    world.run("recipe", "tiny", *words, code=1)
    (world.root / "fail").unlink()
    (one,) = world.json("history")["attempts"]
    return str(one["fingerprint"])


def move_main(world: World) -> None:
    (world.root / "tiny" / "src" / "new.py").write_text("1")
    world.git(world.root / "tiny", "add", "-A")
    world.git(world.root / "tiny", "commit", "-qm", "later")


def test_the_same_inputs_are_built_though_the_branch_moved(world: World) -> None:
    fingerprint = failed(world, "--env", "TINY=1")
    move_main(world)
    told = world.json("resume")
    (wheel,) = told["wheels"]
    assert wheel["fingerprint"] == fingerprint
    ended = world.run("resume", code=2)
    assert "error[nothing-to-resume]" in ended.stderr


def test_a_killed_build_goes_on_in_the_background_too(world: World) -> None:
    go = gated(world)
    told = world.json("recipe", "tiny", "--detach")
    wait_for(lambda: building(world))
    os.kill(told["pid"], signal.SIGKILL)
    world.run("attach", code=1)
    ref = world.run("resume", told["ref"], "--detach").stdout.strip()
    assert ref == told["ref"]
    running = world.run("resume", code=2)
    assert "error[runs-already]" in running.stderr
    go.touch()
    assert world.run("attach").stdout.strip().endswith(".whl")


def test_what_differs_is_said_where_it_cant_be_the_same(world: World) -> None:
    gated(world).touch()
    (world.root / "fail").touch()
    world.run("recipe", "tiny", "--source", "tiny", code=1)
    (world.root / "fail").unlink()
    (world.root / "tiny" / "src" / "new.py").write_text("1")
    ended = world.run("resume", code=2)
    assert "error[inputs-moved]" in ended.stderr
    assert "source" in ended.stderr
    assert "spark-build recipe tiny --source tiny" in ended.stderr.splitlines()[-1]


def test_a_tree_that_is_gone_is_said_with_the_command(world: World) -> None:
    fingerprint = failed(world, "--env", "TINY=1")
    root = world.wheelhouse / "builds" / fingerprint
    for entry in root.iterdir():
        if entry.name != "logs":
            shutil.rmtree(entry)
    ended = world.run("resume", fingerprint[:8], code=2)
    assert "error[tree-gone]" in ended.stderr
    assert "spark-build recipe tiny --env TINY=1" in ended.stderr.splitlines()[-1]


def test_an_attempt_without_its_command_is_said_to_be_one(world: World) -> None:
    fingerprint = failed(world)
    (world.wheelhouse / "builds" / fingerprint / "logs" / "1" / "request.json").unlink()
    assert "error[not-kept]" in world.run("resume", code=2).stderr


def test_nothing_was_built_yet(world: World) -> None:
    assert "error[build-ref]" in world.run("resume", code=2).stderr


def test_a_resumed_build_that_failed_again_can_be_resumed(world: World) -> None:
    fingerprint = failed(world, "--env", "TINY=1")
    (world.root / "fail").touch()
    world.run("resume", code=1)
    (world.root / "fail").unlink()
    (wheel,) = world.json("resume")["wheels"]
    assert wheel["fingerprint"] == fingerprint


@pytest.mark.parametrize(
    ("setting", "folder"), [("", ".spark-build"), ('[build.config-settings]\nbuilddir = "own"\n', "None")]
)
def test_a_backend_that_builds_in_a_temporary_folder_is_told_one_that_stays(
    world: World, setting: str, folder: str
) -> None:
    project = world.tiny(extra='print("kept in", (config_settings or {}).get("build-dir"), flush=True)\n')
    (project / "backend.py").rename(project / "mesonpy.py")
    (project / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "mesonpy"\nbackend-path = ["."]\n'
    )
    world.git(project, "init", "-q", "-b", "main")
    world.git(project, "add", "-A")
    world.git(project, "commit", "-qm", "first")
    world.tiny_recipe(more=setting)
    world.run("recipe", "tiny")
    (log,) = world.wheelhouse.glob("builds/*/logs/*/build.log")
    assert f"kept in {folder}\n" in log.read_text()
