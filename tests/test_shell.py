"""The kept workspace of a build that really failed: a shell in it, its failed unit again, a patch out of it."""

from __future__ import annotations

import os
import pty
import select
import shutil
import tempfile
import time
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.world import COMMAND, World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass
class Apart(World):
    """A world with a broker of its own, so that no other build on the machine is waited for."""

    gate: str

    def env(self, **more: str) -> dict[str, str]:
        return super().env(SPARK_BUILD_GATE_DIR=self.gate, **more)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with tempfile.TemporaryDirectory(prefix="sb-gate-") as gate:  # a socket's path has to be short
        yield Apart(tmp_path, gate)


#: A C project in three ways; each compiles two units, and only the second is wrong.
WAYS = {
    "printed": """
import subprocess
for name in ("good", "bad"):
    print(f"gcc -DWITH_CARE -c {name}.c -o {name}.o", flush=True)
    subprocess.run(["gcc", "-DWITH_CARE", "-c", f"{name}.c", "-o", f"{name}.o"], check=True)
""",
    "make": """
import subprocess
pathlib.Path("sub").mkdir(exist_ok=True)
pathlib.Path("sub/Makefile").write_text(
    "all: good.o bad.o\\n%.o: ../%.c\\n\\t@gcc -DWITH_CARE -c $< -o $@\\n"
)
subprocess.run(["make", "-C", "sub"], check=True)
""",
    "ninja": """
import subprocess
pathlib.Path("out").mkdir(exist_ok=True)
pathlib.Path("out/build.ninja").write_text(
    "rule cc\\n  command = gcc -DWITH_CARE -c $in -o $out\\n"
    "build good.o: cc ../good.c\\nbuild bad.o: cc ../bad.c\\n"
)
subprocess.run(["ninja", "-C", "out"], check=True)
""",
}
BAD = "int bad(void) { return missing; }\n"


def broken(world: World, way: str) -> Path:
    """Let a build of such a project fail; return the kept source tree."""
    folder = world.tiny(extra=WAYS[way])
    (folder / "good.c").write_text("int good(void) { return 1; }\n")
    (folder / "bad.c").write_text(BAD)
    world.git(folder, "init", "-q", "-b", "main")
    world.git(folder, "add", "-A")
    world.git(folder, "commit", "-qm", "first")
    world.tiny_recipe(more='[system]\ngcc = ">=1"\n')
    failed = world.run("recipe", "tiny", code=1)
    assert "missing" in failed.stderr
    (tree,) = world.wheelhouse.glob("builds/*/src")
    return tree


@pytest.mark.parametrize("way", WAYS)
def test_the_failed_unit_runs_again_alone(world: World, way: str) -> None:
    if way == "ninja" and not shutil.which("ninja"):
        pytest.skip("no ninja on this machine")
    tree = broken(world, way)
    again = world.run("rerun", "tiny", code=1)
    assert "bad.c:1:" in again.stdout
    assert "-DWITH_CARE" in again.stdout + again.stderr
    assert "good.c" not in again.stdout + again.stderr
    assert "failed again" in again.stderr
    (tree / "bad.c").write_text("int bad(void) { return 2; }\n")
    told = world.json("rerun", tree.parent.name[:8])
    assert told["code"] == 0
    # Resuming would put back what was changed.
    assert told["run"] == [f"spark-build patch save tiny ID --kept {tree.parent.name[:10]}"]


def test_a_step_without_a_unit_runs_again_whole(world: World) -> None:
    world.tiny_repo(extra='print("before", flush=True)\nraise SystemExit("not today")\n')
    world.tiny_recipe()
    world.run("recipe", "tiny", code=1)
    again = world.run("rerun", code=1)
    assert again.stdout.splitlines()[:1] == ["before"]
    assert "not today" in again.stdout
    assert "the build step of tiny failed again" in again.stderr


def test_a_shell_sees_what_the_build_sees_and_what_it_changes_becomes_a_patch(world: World) -> None:
    tree = broken(world, "make")
    asked = "pwd; echo $SOURCE_DATE_EPOCH $HOME; command -v gcc; ls /sys/class/net; exit 7"
    done = world.run("shell", "tiny", "-c", asked, code=7)
    place, facts, compiler, *networks = done.stdout.splitlines()
    told = world.json("shell", "tiny")
    assert place == told["folder"]
    assert facts == f"{told['env']['SOURCE_DATE_EPOCH']} {told['env']['HOME']}"
    assert compiler.endswith("/gate/gcc")
    assert "SPARK_BUILD_DEBUG" not in told["env"]
    assert told["argv"][0].endswith("spark-build-enter")
    assert networks
    refused = world.run("shell", "tiny", code=2)
    assert "error[no-terminal]" in refused.stderr
    assert "spark-build shell" in refused.stderr
    world.run("shell", "tiny", "-c", "sed -i s/missing/2/ bad.c && echo 'V = 1' > extra.py && make -C sub")
    mine = world.root / "mine.py"
    mine.write_text("V = 2\n")
    for path in (str(mine), "missing.py", "../mine.py"):
        assert "error[patch-add]" in world.run("patch", "save", "tiny", "fix", "--add", path, code=2).stderr
    away = world.root / "away"  # a name that would lead out of the folder of trees
    away.mkdir()
    assert "error[patch-id]" in world.run("patch", "save", "tiny", "../../../away", "--kept", code=2).stderr
    assert (mine.exists(), away.exists()) == (True, True)
    saved = world.run("patch", "save", "tiny", "fix", "--add", str(tree / "extra.py"))
    text = (world.patches / "tiny/fix.patch").read_text()
    assert saved.stdout.strip().endswith("fix.patch")
    assert "+int bad(void) { return 2; }" in text
    assert "+V = 1" in text
    assert "bad.o" not in text
    (wheel,) = world.wheels("tiny")
    assert zipfile.is_zipfile(wheel)
    assert (tree / "bad.c").read_text() != BAD


def test_without_a_kept_tree_it_is_said_how_to_get_one(world: World) -> None:
    none = world.run("shell", "tiny", "-c", "true", code=2)
    assert "error[build-ref]" in none.stderr
    world.tiny_repo()
    world.tiny_recipe()
    world.wheels("tiny")
    for words in (("shell", "tiny", "-c", "true"), ("rerun", "tiny"), ("patch", "save", "tiny", "x")):
        gone = world.run(*words, code=2)
        assert "error[tree-gone]" in gone.stderr
        assert "spark-build patch new tiny ID" in gone.stderr


def test_a_shell_on_a_terminal(world: World) -> None:
    broken(world, "printed")
    child, terminal = pty.fork()
    if not child:
        os.chdir(world.root)
        os.execve(COMMAND, [str(COMMAND), "shell", "tiny"], world.env(TERM="xterm"))  # noqa: S606
    os.write(terminal, b"sh -c 'echo $((40 + 2)) $TERM '$0'; exec sleep 100'\n")
    seen = read_until(terminal, b"42 xterm /bin/bash")  # by the child, so that has the terminal
    os.write(terminal, b"\x03")  # ends the sleep, not the shell
    seen += read_until(terminal, b"(tiny ")
    os.write(terminal, b"echo still $((1 + 1)) here; exit 5\n")
    seen += read_until(terminal, b"still 2 here")
    _pid, status = os.waitpid(child, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 5
    assert b"(tiny " in seen
    assert b"no job control" not in seen


def read_until(terminal: int, wanted: bytes) -> bytes:
    seen, limit = b"", time.monotonic() + 60
    while wanted not in seen:
        assert time.monotonic() < limit, seen
        if select.select([terminal], [], [], 1)[0]:
            seen += os.read(terminal, 4096)
    return seen
