from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from builder import proc
from builder.errors import HostError
from builder.gate import place

ENV = {"PATH": os.environ["PATH"]}


def alive(pid: int) -> bool:
    """Whether a process exists and isn't a zombie that waits for its parent."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return text.rpartition(")")[2].split()[0] not in {"Z", "X"}


def wait_until_gone(pid: int) -> None:
    for _turn in range(200):
        if not alive(pid):
            return
        time.sleep(0.05)
    raise AssertionError(pid)


def wait_for(path: Path) -> str:
    for _turn in range(400):
        if path.exists() and (text := path.read_text()).endswith("\n"):
            return text.strip()
        time.sleep(0.05)
    raise AssertionError(path)


def open_descriptors() -> set[str]:
    """Return the numbers that are open now; the one that lists them closes before the next is opened."""
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def python(code: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", code]


def test_capture_returns_status_output_and_errors_apart() -> None:
    done = proc.capture(["sh", "-c", "echo out; echo err >&2; exit 3"], env=ENV)
    assert (done.code, done.ok, done.out, done.err, done.raw) == (3, False, "out\n", "err\n", b"out\n")


def test_capture_tells_a_signal_as_a_negative_status() -> None:
    assert proc.capture(["sh", "-c", "kill -9 $$"], env=ENV).code == -9


def test_capture_passes_more_stdin_than_a_pipe_holds_while_it_reads_as_much() -> None:
    data = os.urandom(1 << 20)
    assert proc.capture(["cat"], env=ENV, stdin=data).raw == data


def test_capture_minds_no_child_that_leaves_stdin_unread() -> None:
    assert proc.capture(["true"], env=ENV, stdin=b"x" * (1 << 20)).ok


def test_capture_without_stdin_gives_end_of_file() -> None:
    assert proc.capture(["cat"], env=ENV).out == ""


def test_output_that_is_no_utf8_is_kept_raw_and_read_with_replacements() -> None:
    done = proc.capture(["printf", r"a\377b"], env=ENV)
    assert (done.raw, done.out) == (b"a\xffb", "a�b")


def test_a_child_gets_only_the_environment_that_was_given() -> None:
    assert proc.capture(["/usr/bin/env"], env={"ONLY": "1"}).out == "ONLY=1\n"


@pytest.mark.parametrize("cwd", [None, Path("/no/such/folder")])
def test_what_cannot_be_started_is_named(cwd: Path | None, tmp_path: Path) -> None:
    program = "no-such-program" if cwd is None else "true"
    with pytest.raises(HostError) as told:
        proc.capture([program], env=ENV, cwd=cwd)
    assert (told.value.code, told.value.exit_code) == ("tool-missing", 3)
    assert program in told.value.summary
    with pytest.raises(HostError, match="can't be started"):
        proc.run([program], env=ENV, cwd=cwd or tmp_path, log=tmp_path / "log")


def test_capture_kills_the_whole_group_at_the_time_out(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    with pytest.raises(HostError) as told:
        proc.capture(["sh", "-c", f"sleep 600 & echo $! > {pid}; wait"], env=ENV, timeout_s=1)
    assert told.value.code == "tool-timeout"
    wait_until_gone(int(wait_for(pid)))


def test_a_time_out_also_ends_a_child_that_never_stops_printing() -> None:
    with pytest.raises(HostError, match="no answer"):
        proc.capture(["yes"], env=ENV, timeout_s=0.3)


def test_a_child_may_close_its_output_and_work_on(tmp_path: Path) -> None:
    done = proc.run(
        ["sh", "-c", f"exec >&- 2>&-; sleep 0.3; echo late > {tmp_path}/late"],
        env=ENV,
        cwd=tmp_path,
        log=tmp_path / "log",
    )
    assert done.ok
    assert (tmp_path / "late").read_text() == "late\n"


def test_capture_does_not_wait_for_one_that_the_leader_left_behind(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    done = proc.capture(["sh", "-c", f"sleep 600 & echo $! > {pid}; echo done"], env=ENV)
    assert (done.code, done.out) == (0, "done\n")
    wait_until_gone(int(wait_for(pid)))


def test_capture_does_not_wait_for_one_that_left_the_group(tmp_path: Path) -> None:
    """Such a one can't be killed with the group, and holds the pipe open."""
    pid = tmp_path / "pid"
    done = proc.capture(["sh", "-c", f"setsid sh -c 'echo $$ > {pid}; exec sleep 600' & echo done"], env=ENV)
    left = int(wait_for(pid))
    assert (done.code, done.out) == (0, "done\n")
    assert alive(left)
    os.kill(left, signal.SIGKILL)


def test_what_the_leader_left_behind_may_still_say_its_last_words(tmp_path: Path) -> None:
    lines: list[str] = []
    words = ["sh", "-c", "(sleep 0.3; echo second) & echo first"]
    proc.run(words, env=ENV, cwd=tmp_path, log=tmp_path / "log", on_line=lines.append)
    assert lines == ["first", "second"]


def test_one_that_was_left_behind_and_never_stops_printing_is_ended(tmp_path: Path) -> None:
    done = proc.run(["sh", "-c", "yes & exit 0"], env=ENV, cwd=tmp_path, log=tmp_path / "log")
    assert done.ok


def test_run_gives_lines_to_log_and_callback_as_they_come(tmp_path: Path) -> None:
    log = tmp_path / "log"
    lines: list[str] = []
    log.write_text("before\n")
    done = proc.run(["printf", r"one\r\n\ntwo\377\nno end"], env=ENV, cwd=tmp_path, log=log, on_line=lines.append)
    assert done.ok
    assert lines == ["one", "", "two�", "no end"]
    assert log.read_bytes() == b"before\none\r\n\ntwo\xff\nno end"


def test_run_tells_the_peak_of_its_largest_process(tmp_path: Path) -> None:
    """From a process of its own: a child's peak is never told below what its parent held when it was started."""
    code = (
        "import sys; from pathlib import Path; from builder import proc\n"
        "for size in (0, 200 << 20):\n"
        "    words = ['sh', '-c', f'{sys.executable} -I -S -c \"x = bytearray({size})\"; true']\n"
        "    print(proc.run(words, env={'PATH': '/usr/bin:/bin'}, cwd=Path.cwd(), log=Path('log')).peak_bytes)\n"
    )
    told = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    small, large = map(int, told.split())
    assert small < 100 << 20
    assert 200 << 20 < large < 300 << 20


def test_run_stops_the_group_after_its_time(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    with pytest.raises(HostError) as told:
        proc.run(
            ["sh", "-c", f"sleep 600 & echo $! > {pid}; wait"],
            env=ENV,
            cwd=tmp_path,
            log=tmp_path / "log",
            timeout_s=1,
        )
    assert told.value.code == "tool-timeout"
    wait_until_gone(int(wait_for(pid)))


def test_an_error_of_the_callback_ends_the_group_and_goes_on(tmp_path: Path) -> None:
    pid = tmp_path / "pid"

    def refuse(line: str) -> None:
        raise ValueError(line)

    with pytest.raises(ValueError, match="ready"):
        proc.run(
            ["sh", "-c", f"sleep 600 & echo $! > {pid}; echo ready; wait"],
            env=ENV,
            cwd=tmp_path,
            log=tmp_path / "log",
            on_line=refuse,
        )
    wait_until_gone(int(wait_for(pid)))


RUNNER = """
import sys
from pathlib import Path
from builder import proc
try:
    sweep = len(sys.argv) > 2
    proc.run(["sh", "-c", sys.argv[1]], env={"PATH": "/usr/bin:/bin"}, cwd=Path.cwd(), log=Path("log"), sweep=sweep)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("stubborn", [False, True])
def test_ctrl_c_takes_the_whole_group_down(tmp_path: Path, *, stubborn: bool) -> None:
    """A real SIGINT to the process that waits; the build's group is another one, so the terminal wouldn't reach it."""
    trap = "trap '' TERM;" if stubborn else "trap 'echo polite > said; exit' TERM;"
    script = f"{trap} sleep 600 & echo $! > pid; while :; do sleep 0.1; done"
    with subprocess.Popen([sys.executable, "-c", RUNNER, script], cwd=tmp_path) as runner:
        child = int(wait_for(tmp_path / "pid"))
        runner.send_signal(signal.SIGINT)
        assert runner.wait(60) == 130
    wait_until_gone(child)
    assert (tmp_path / "said").exists() is not stubborn


DAEMON = "(setsid sh -c 'echo $$ > pid; exec sleep 600' >/dev/null 2>&1 &); until [ -s pid ]; do sleep 0.01; done"


@pytest.mark.parametrize("stubborn", [False, True])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_sweep_ends_daemons_when_it_is_interrupted(tmp_path: Path, number: int, *, stubborn: bool) -> None:
    trap = "trap '' TERM;" if stubborn else ""
    script = f"{trap} {DAEMON}; while :; do sleep 0.1; done"
    with subprocess.Popen([sys.executable, "-c", RUNNER, script, "sweep"], cwd=tmp_path) as runner:
        daemon = int(wait_for(tmp_path / "pid"))
        runner.send_signal(number)
        assert runner.wait(60) == (130 if number == signal.SIGINT else -number)
    wait_until_gone(daemon)


def test_a_sweep_ends_daemons_at_the_end_and_at_the_time_out(tmp_path: Path) -> None:
    def swept(script: str, timeout_s: float | None = None) -> int:
        return proc.run(
            ["sh", "-c", script], env=ENV, cwd=tmp_path, log=tmp_path / "log", timeout_s=timeout_s, sweep=True
        ).code

    assert swept(f"{DAEMON}; exit 3") == 3
    assert not alive(int(wait_for(tmp_path / "pid")))
    (tmp_path / "pid").unlink()
    with pytest.raises(HostError, match="stopped after"):
        swept(f"{DAEMON}; sleep 600", timeout_s=1)
    assert not alive(int(wait_for(tmp_path / "pid")))


def test_a_sweep_leaves_the_broker_that_other_builds_use(tmp_path: Path) -> None:
    """It is started by this process, not by the build, and goes into a session of its own like any daemon."""
    with tempfile.TemporaryDirectory() as folder:  # a socket's path has to be short
        place.start(Path(folder))
        assert proc.run(["sh", "-c", DAEMON], env=ENV, cwd=tmp_path, log=tmp_path / "log", sweep=True).ok
        line = place.connect(Path(folder))
        assert line is not None
        broker: int = struct.unpack("3i", line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        line.close()
        os.kill(broker, signal.SIGTERM)
        wait_until_gone(broker)
    assert not alive(int(wait_for(tmp_path / "pid")))


def test_nothing_of_a_finished_child_is_left_open(tmp_path: Path) -> None:
    before = open_descriptors()
    proc.capture(["cat"], env=ENV, stdin=b"x")
    proc.run(["echo"], env=ENV, cwd=tmp_path, log=tmp_path / "log")
    with pytest.raises(HostError):
        proc.capture(["sleep", "9"], env=ENV, timeout_s=0.1)
    assert open_descriptors() == before
