"""What a stopped build has made: finished objects are kept, half-written ones aren't taken for whole."""

from __future__ import annotations

import os
import re
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from builder.executor import workspace
from tests import proof_kit
from tests.proof_kit import Run, finished, project, settled

if TYPE_CHECKING:
    from pathlib import Path

    from builder.stages import Workspace
    from tests.world import World

# --- objects


#: A compiler that keeps a record; it waits before `WAIT_AT` until the file ``go`` is there.
COMPILER = """#!/bin/sh
here={here}
object=$(echo "$*" | sed 's/.*-o //; s/ .*//')
case $object in
*{wait_at}.o) echo waiting >> $here/waiting; timeout 30 sh -c "while [ ! -e $here/go ]; do sleep 0.02; done" || exit ;;
esac
cc "$@" && echo $object >> $here/compiled
"""
NINJA = """rule cc
  command = ./compiler -c $in -o $out
{rules}
build all: phony {objects}
"""
MAKE = """all: {objects}
%.o: %.c
\t./compiler -c $< -o $@
"""
COUNT = 20
WAIT_AT = 12


def objects(world: World, tool: str) -> Path:
    """Make a project of C files that `tool` compiles, and return the folder of its record."""
    record = world.root / "record"
    record.mkdir()
    names = [f"part{number:02}" for number in range(COUNT)]
    files: dict[str, str | bytes] = {f"{name}.c": f"int {name}(void) {{ return 1; }}\n" for name in names}
    files["compiler"] = COMPILER.format(here=record, wait_at=names[WAIT_AT])
    made = " ".join(f"{name}.o" for name in names)
    files["build.ninja"] = NINJA.format(rules="\n".join(f"build {name}.o: cc {name}.c" for name in names), objects=made)
    files["Makefile"] = MAKE.format(objects=made)
    run = {"ninja": "['ninja', '-j', '2', 'all']", "make": "['make', '-j', '2', 'all']"}[tool]
    steps = f"""
    os.chmod("compiler", 0o755)
    subprocess.run({run}, check=True)
    for name in sorted(pathlib.Path(".").glob("*.o")):
        shutil.copy(name, made)
    """
    project(world, "tiny", steps, files=files)
    return record


def compiled_once(record: Path) -> tuple[set[str], set[str]]:
    """Return the objects that were compiled, and those of them that were compiled again."""
    told = record / "compiled"
    counted = Counter(told.read_text().split() if told.exists() else ())
    return set(counted), {name for name, times in counted.items() if times > 1}


def stopped_at_the_waiting_one(world: World, record: Path, signum: int) -> tuple[Run, Path]:
    """Build until a compiler waits and nothing else is left to do at its side; then send `signum`."""
    with Run.start(world, "recipe", "tiny") as run:
        run.wait((record / "waiting").exists, "the compiler that waits")
        run.wait(lambda: len(compiled_once(record)[0]) >= COUNT - 1, "the others")
        (space,) = (path for path in (world.wheelhouse / "builds").iterdir() if len(path.name) == 64)
        log = space / "src" / ".ninja_log"
        if log.exists():  # a command that ended a moment ago is still running to ninja, which then deletes its output
            run.wait(
                lambda: len(re.findall(r"\.o\t", log.read_text())) >= COUNT - 1, "ninja's own record of the others"
            )
        for made in (space / "src").glob("*.o"):  # as if the build had gone on for a minute since
            os.utime(made, (made.stat().st_atime, made.stat().st_mtime - 60))
        (space / "src" / "newest").touch()
        run.kill(signum)
        run.end()
    settled(world, {})
    (record / "go").touch()
    return run, space


@pytest.mark.parametrize("tool", ["ninja", "make"])
@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)], ids=["TERM", "INT", "KILL"]
)
def test_finished_objects_are_not_compiled_again(world: World, signum: int, code: int, tool: str) -> None:
    record = objects(world, tool)
    run, space = stopped_at_the_waiting_one(world, record, signum)
    assert run.child.returncode == code
    assert (space / "src" / "part00.o").exists()
    if code > 0:
        text = "".join(run.text)
        assert "error[interrupted]" in text
        assert "spark-build recipe tiny" in text
    finished(world, "tiny")
    once, again = compiled_once(record)
    assert len(once) == COUNT
    assert not again


def test_object_written_just_before_a_kill_is_compiled_again(world: World) -> None:
    """Make takes a file by its time alone; so the youngest ones are dropped, and only those."""
    record = objects(world, "make")
    with Run.start(world, "recipe", "tiny") as run:
        run.wait((record / "waiting").exists, "the compiler that waits")
        run.wait(lambda: len(compiled_once(record)[0]) >= COUNT - 1, "the others")
        run.kill()
        run.end()
    settled(world, {})
    (record / "go").touch()
    finished(world, "tiny")
    assert len(compiled_once(record)[1]) == COUNT - 1


# --- torn files


#: Copies like setuptools' build_py: not atomically, and never again when the target isn't older. Waits in the middle.
COPIES = """
here, target = pathlib.Path({here!r}), made / "large"
if not target.exists() or target.stat().st_mtime < pathlib.Path("large").stat().st_mtime:
    data = pathlib.Path("large").read_bytes()
    with target.open("wb") as stream:
        stream.write(data[: len(data) // 2])
        stream.flush()
        (here / "half").touch()
        end = time.monotonic() + 30
        while not (here / "go").exists():
            assert time.monotonic() < end, "nobody gave the word"
            time.sleep(0.02)
        stream.write(data[len(data) // 2 :])
"""


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM], ids=["KILL", "TERM"])
def test_file_that_was_half_copied_does_not_get_into_the_wheel(world: World, signum: int) -> None:
    whole = os.urandom(1 << 20)
    here = world.root / "record"
    here.mkdir()
    project(world, "tiny", COPIES.format(here=str(here)), files={"large": whole})
    with Run.start(world, "recipe", "tiny") as run:
        run.wait((here / "half").exists, "the middle of the copy")
        run.kill(signum)
        run.end()
    settled(world, {})
    (here / "go").touch()
    assert proof_kit.wheel_text(finished(world, "tiny"), "tiny/large") == whole


# --- another boot


@pytest.fixture
def tree(tmp_path: Path) -> Workspace:
    """A tree in which a build was at work in an earlier boot: an old object, a young one, an empty one, the source."""
    (tmp_path / "boot").write_text("one\n")
    space = workspace.open_tree(tmp_path / "builds", "f" * 64, "tiny", fixed=True, boot=tmp_path / "boot")
    space.src.mkdir()
    (space.src / "source.c").write_text("int x;\n")
    workspace.note_tree(space)
    now = time.time()
    for name, age, text in (("old.o", 300, "x"), ("young.o", 20, "x"), ("newest.o", 0, "x"), ("empty.o", 900, "")):
        (space.src / name).write_text(text)
        os.utime(space.src / name, (now - age, now - age))
    return space


def left(space: Workspace, boot: str) -> list[str]:
    place = space.root.parent.parent / "boot"
    place.write_text(boot)
    workspace.open_tree(space.root.parent, space.root.name, "tiny", fixed=True, boot=place)
    return sorted(path.name for path in space.src.iterdir())


def test_power_cut_drops_objects_that_may_not_have_reached_the_disk(tree: Workspace) -> None:
    assert left(tree, "two\n") == ["old.o", "source.c"]
    assert left(tree, "two\n") == ["old.o", "source.c"]


def test_same_boot_keeps_every_object_of_a_build_that_was_not_at_work(tree: Workspace) -> None:
    assert left(tree, "one\n") == ["empty.o", "newest.o", "old.o", "source.c", "young.o"]


def test_kill_of_a_build_at_work_drops_the_newest_objects_only(tree: Workspace) -> None:
    workspace.mark(tree, "building")
    assert left(tree, "one\n") == ["empty.o", "old.o", "source.c", "young.o"]


def test_ninja_knows_its_own_unfinished_objects_after_a_kill_and_not_after_a_power_cut(tree: Workspace) -> None:
    workspace.mark(tree, "building")
    (tree.src / ".ninja_log").write_text("# ninja log v6\n")
    assert "newest.o" in left(tree, "one\n")
    assert "newest.o" not in left(tree, "two\n")


def test_power_cut_leaves_ninjas_records_without_which_all_is_made_again(tree: Workspace) -> None:
    for name in (".ninja_log", ".ninja_deps"):
        (tree.src / name).write_text("# of just now\n")
    assert left(tree, "two\n") == [".ninja_deps", ".ninja_log", "old.o", "source.c"]
