from __future__ import annotations

import contextlib
import json
import os
import pty
import select as polling
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pyte

from tests.world import COMMAND

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.world import World

#: Waits in the build until a file appears, and then fails where there is another one.
GATED = """
import time
root = pathlib.Path({root!r})
print("[1/2] waiting", flush=True)
while not (root / "go").exists():
    time.sleep(0.02)
print("[2/2] going on", flush=True)
assert not (root / "fail").exists()
"""


def wait_for(done: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def gated(world: World) -> Path:
    """Make a project whose build waits for the file that is returned; it can be built from a recipe."""
    world.tiny_repo(extra=GATED.format(root=str(world.root)))
    world.tiny_recipe()
    return world.root / "go"


def logs(world: World) -> list[Path]:
    return sorted(world.wheelhouse.glob("builds/*/logs/*/build.log"))


def building(world: World) -> bool:
    return any("waiting" in log.read_text() for log in logs(world))


def test_a_detached_build_is_left_and_attached_to(world: World) -> None:
    go = gated(world)
    ref = world.run("recipe", "tiny", "--detach")
    assert len(ref.stdout.strip()) == 10
    assert f"spark-build attach {ref.stdout.strip()}" in ref.stderr
    assert "plan     tiny" in ref.stderr
    wait_for(lambda: building(world))
    with subprocess.Popen(
        [str(COMMAND), "attach"], env=world.env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as attached:
        go.touch()
        out, err = attached.communicate(timeout=60)
    assert attached.returncode == 0, err
    assert out.strip().endswith(".whl")
    assert "done     tiny" in err
    again = world.run("attach", ref.stdout.strip())  # ended long ago: told at once
    assert again.stdout == out
    assert world.wheels("tiny", "--detach") == [type(go)(out.strip())]  # a hit needs nobody in the background


def test_the_exit_code_and_the_last_lines_of_a_failure_come_along(world: World) -> None:
    go = gated(world)
    (world.root / "fail").touch()
    world.run("recipe", "tiny", "--detach")
    go.touch()
    ended = world.run("attach", code=1)
    assert "error[build-failed]" in ended.stderr
    assert "AssertionError" in ended.stderr
    assert "spark-build resume" in ended.stderr.splitlines()[-1]
    assert ended.stdout == ""


def test_mistakes_of_a_detached_command_are_told_at_once(world: World) -> None:
    world.tiny_repo()
    world.tiny_recipe()
    ended = world.run("recipe", "tiny", "--ref", "nowhere", "--detach", code=4)
    assert "nowhere" in ended.stderr


def test_ctrl_c_at_attach_leaves_the_build_alone(world: World) -> None:
    go = gated(world)
    world.run("recipe", "tiny", "--detach")
    wait_for(lambda: building(world))
    with subprocess.Popen([str(COMMAND), "attach"], env=world.env(), stderr=subprocess.PIPE, text=True) as attached:
        assert attached.stderr is not None
        assert "start" in attached.stderr.readline()
        attached.send_signal(signal.SIGINT)
        rest = attached.stderr.read()
        assert attached.wait(30) == 130, rest
    assert "left alone" in rest
    go.touch()
    assert world.run("attach").stdout.strip().endswith(".whl")


def test_a_build_whose_terminal_goes_away_goes_on(world: World) -> None:
    go = gated(world)
    pid, descriptor = pty.fork()
    if pid == 0:
        os.chdir(world.root)
        os.execve(COMMAND, [str(COMMAND), "recipe", "tiny"], world.env(TERM="xterm"))  # noqa: S606
    wait_for(lambda: _drained(descriptor) and building(world))
    os.close(descriptor)  # the kernel sends SIGHUP to whoever had this terminal
    go.touch()
    assert world.run("attach").stdout.strip().endswith(".whl")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    (folder,) = (world.home / ".local" / "state" / "spark-build" / "detached").iterdir()
    assert (folder / "out").read_text().strip().endswith(".whl")
    assert "install" in (folder / "log").read_text()


def test_a_build_with_the_live_view_reads_well_in_the_end(world: World) -> None:
    gated(world).touch()
    screen = pyte.Screen(100, 40)
    stream = pyte.ByteStream(screen)
    pid, descriptor = pty.fork()
    if pid == 0:
        os.chdir(world.root)
        os.execve(COMMAND, [str(COMMAND), "recipe", "tiny"], world.env(TERM="xterm", LANG="C.UTF-8"))  # noqa: S606
    with contextlib.suppress(OSError):  # the other side is closed
        while data := os.read(descriptor, 65536):
            stream.feed(data)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(descriptor)
    shown = [line.rstrip() for line in screen.display if line.strip()]
    names = [line.split()[2] for line in shown if line[2:3] == ":"]
    assert names[:6] == ["source", "plan", "start", "fetch", "patch", "env"]
    assert names[6:] == ["build", "pack", "audit", "publish", "stored", "done"]
    assert "install" in shown[-1] or "install" in shown[-2]


def test_a_killed_build_is_told_as_such(world: World) -> None:
    gated(world)
    told = world.json("recipe", "tiny", "--detach")
    wait_for(lambda: building(world))
    os.kill(told["pid"], signal.SIGKILL)
    ended = world.run("attach", told["ref"], code=1)
    assert "error[build-killed]" in ended.stderr


def test_what_was_asked_is_kept_with_the_attempt_without_secrets(world: World) -> None:
    gated(world).touch()
    world.wheels("tiny", "--env", "URL=https://me:hidden@example.invalid/x")
    (kept,) = world.wheelhouse.glob("builds/*/logs/1/request.json")
    told = json.loads(kept.read_bytes())
    assert told["words"][:2] == ["recipe", "tiny"]
    assert told["cwd"] == str(world.root)
    assert "hidden" not in kept.read_text()


def _drained(descriptor: int) -> bool:
    while polling.select([descriptor], [], [], 0)[0]:
        os.read(descriptor, 65536)
    return True
