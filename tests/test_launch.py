"""The launcher with real compilers and a real socket: retries, signals, output, objects, a broker that goes away."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.hook_kit import CUDA
from tests.launch_kit import Broker, Place, built, comes, descendants_named, gone, grant, state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.launch_kit import Client, Packet

GOOD = "int f(void) { return 1; }\n"


@pytest.fixture(params=["shipped", "sanitized"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Place:
    return Place(built(tmp_path_factory, sanitized=request.param == "sanitized"), tmp_path)


def freeze_once(pid: Path) -> Callable[[Client, Packet], None]:
    """Return a rule that stops the compiler at its first report, when it has written who it is."""

    def rule(client: Client, packet: Packet) -> None:
        grant(client, packet)
        if packet["verb"] == "at" and client.attempt == 1:
            client.attempt += 1
            comes(lambda: pid.exists() and pid.read_text())
            client.send("freeze")

    return rule


def test_compile_asks_runs_and_reports(place: Place) -> None:
    broker = Broker(place.gate)
    place.write("src/csrc/a.c", GOOD)
    assert place.run("gcc", "-O2", "-c", "src/csrc/a.c", "-o", "a.o") == ("", "")
    assert (place.tree / "a.o").exists()
    unit, end = broker.wait_for("unit"), broker.wait_for("end")
    assert (unit["build"], unit["kind"], unit["source"]) == ("b1", "c", "csrc/a.c")
    assert unit["object"] == f"{place.tree.name}/a.o"
    assert (unit["slots"], unit["retry"], unit["name"]) == ("1", "1", "a.c")
    assert (end["code"], end["signal"], end["killed"]) == ("0", "0", "0")
    assert int(end["largest"]) > 1 << 20
    assert int(end["peak"]) >= int(end["largest"])
    assert list(place.scratch.iterdir()) == []


def test_error_of_a_compiler_is_passed_on_once_and_exactly(place: Place) -> None:
    broker = Broker(place.gate)
    place.write("a.c", "int f(void) { return missing; }\n")
    command = ["gcc", "-c", "a.c", "-o", "a.o"]
    plain = subprocess.run(command, cwd=place.tree, env=place.env(), capture_output=True, check=False)
    assert place.run("gcc", "-c", "a.c", "-o", "a.o", code=plain.returncode) == ("", plain.stderr.decode())
    assert broker.wait_for("end")["killed"] == "0"
    assert broker.verbs()[:2] == ["unit", "end"]


def test_killed_attempt_leaves_no_output_and_no_object(place: Place) -> None:
    def kill_first(client: Client, packet: Packet) -> None:
        if packet["verb"] == "unit":
            client.go()
        elif packet["verb"] == "at" and client.attempt == 1:
            comes((place.tree / "second").exists)
            client.send("kill")
        elif packet["verb"] == "end" and client.attempt == 1:
            client.send("again")
            client.go()
        elif packet["verb"] == "end":
            client.send("done")

    broker = Broker(place.gate, kill_first)
    place.compiler(
        "gcc",
        'echo out$$; echo err$$ >&2; echo "$TMPDIR" >> tmpdirs; echo x > "$TMPDIR"/left\n'
        "if test -e second; then test -e a.o && echo partial; echo whole > a.o; exit 0; fi\n"
        "echo half > a.o; touch second; exec sleep 60",
    )
    out, err = place.run("gcc", "-c", "a.c", "-o", "a.o")
    assert (out.count("out"), err.count("err")) == (1, 1)
    assert "partial" not in out
    assert (place.tree / "a.o").read_text() == "whole\n"
    assert [end["signal"] for end in broker.all("end")] == ["9", "0"]
    assert list(place.scratch.iterdir()) == []
    first, second = (place.tree / "tmpdirs").read_text().split()
    assert first == second  # the same unit has the same paths
    assert first.startswith(str(place.scratch))


def test_large_output_keeps_its_streams_apart(place: Place) -> None:
    _broker = Broker(place.gate)
    place.compiler("gcc", "seq 1 200000; seq 1 100000 >&2; exit 3")
    out, err = place.run("gcc", "-c", "a.c", code=3)
    assert out.splitlines() == [str(number) for number in range(1, 200_001)]
    assert err.splitlines() == [str(number) for number in range(1, 100_001)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_reaches_the_compiler_and_nothing_is_left(place: Place, number: signal.Signals) -> None:
    broker = Broker(place.gate)
    mark = str(3_000_000 + os.getpid() * 10 + number)
    place.compiler("gcc", f"echo half > a.o; sleep {mark} & exec sleep {mark}")
    process = place.start("gcc", "-c", "a.c", "-o", "a.o")
    broker.wait_for("at")
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == -number
    assert gone(mark)
    assert not (place.tree / "a.o").exists()


def test_signal_ends_one_that_waits(place: Place) -> None:
    broker = Broker(place.gate, lambda _client, _packet: None)
    process = place.start("gcc", "-c", "a.c")
    broker.wait_for("unit")
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGTERM


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 42", 42), ("kill -SEGV $$", -11), ("kill -9 $$", -9)]
)
def test_status_is_exactly_the_compilers(place: Place, script: str, code: int) -> None:
    broker = Broker(place.gate)
    place.compiler("gcc", script)
    assert place.run("gcc", "-c", "a.c", code=code) == ("", "")
    assert broker.wait_for("end")["killed"] == str(int(code == -9))


def test_fail_ends_with_75_and_one_line(place: Place) -> None:
    def refuse(client: Client, packet: Packet) -> None:
        if packet["verb"] == "unit":
            client.send("fail", text="a\x1b[2J\x7fé.cu needs 90 GiB; free some")

    _broker = Broker(place.gate, refuse)
    assert place.run("gcc", "-c", "a.c", code=75) == ("", "spark-build: a?[2J?é.cu needs 90 GiB; free some\n")


def test_freeze_stops_the_compiler_and_thaw_goes_on(place: Place) -> None:
    broker = Broker(place.gate, freeze_once(place.tree / "pid"))
    place.compiler("gcc", "echo $$ > pid; exec sleep 0.3")
    process = place.start("gcc", "-c", "a.c")
    broker.wait_for("at")
    comes(lambda: state((place.tree / "pid").read_text().strip()) == "T")
    broker.clients[0].send("thaw")
    process.communicate(timeout=30)
    assert process.returncode == 0


def test_a_frozen_compiler_goes_on_when_its_broker_is_gone(place: Place) -> None:
    broker = Broker(place.gate, freeze_once(place.tree / "pid"))
    place.compiler("gcc", "echo $$ > pid; exec sleep 0.3")
    process = place.start("gcc", "-c", "a.c")
    broker.wait_for("at")
    comes(lambda: state((place.tree / "pid").read_text().strip()) == "T")
    broker.close()
    process.communicate(timeout=30)
    assert process.returncode == 0


def test_a_terminals_stop_holds_the_compiler_and_going_on_lets_it(place: Place) -> None:
    broker = Broker(place.gate)
    place.compiler("gcc", "echo $$ > pid; exec sleep 0.5")
    process = place.start("gcc", "-c", "a.c")
    broker.wait_for("at")
    comes(lambda: (place.tree / "pid").exists() and (place.tree / "pid").read_text())
    process.send_signal(signal.SIGTSTP)
    comes(lambda: state((place.tree / "pid").read_text().strip()) == state(process.pid) == "T")
    process.send_signal(signal.SIGCONT)
    process.communicate(timeout=30)
    assert process.returncode == 0


def test_version_questions_and_probes_ask_nobody(place: Place) -> None:
    broker = Broker(place.gate)
    place.write("CMakeFiles/CMakeScratch/x/a.c", GOOD)
    assert "Free Software" in place.run("gcc", "--version")[0]
    place.run("gcc", "-E", "-x", "c", "-", text=b"int x;\n")
    place.run("gcc", "-c", "CMakeFiles/CMakeScratch/x/a.c", "-o", "a.o")
    assert place.run("echo", "-c", "a.c")[0] == "-c a.c\n"
    assert broker.seen == []


def test_stdin_is_passed_and_such_a_unit_cant_be_run_again(place: Place) -> None:
    broker = Broker(place.gate)
    place.run("gcc", "-x", "c", "-c", "-", "-o", "a.o", text=GOOD.encode())
    assert (place.tree / "a.o").exists()
    assert broker.wait_for("unit")["retry"] == "0"


def test_below_a_compiler_nobody_is_asked(place: Place) -> None:
    broker = Broker(place.gate)
    links = place.root / "links"
    links.mkdir()
    (links / "gcc").symlink_to(place.program)
    (links / "g++").symlink_to(place.program)
    place.write("a.c", GOOD)
    place.compiler("g++", "exec gcc -c a.c -o a.o")
    path = f"{links}:{place.bin}:{os.environ['PATH']}"
    place.run("g++", "-c", "a.cc", "-o", "a.o", PATH=path, SPARK_BUILD_LINKS=str(links))
    assert (place.tree / "a.o").exists()
    assert broker.verbs().count("unit") == 1


def test_by_a_link_the_next_program_of_that_name_runs(place: Place) -> None:
    broker = Broker(place.gate)
    links = place.root / "links"
    links.mkdir()
    for name in ("gcc", "c++-99"):
        (links / name).symlink_to(place.program)
    place.write("a.c", GOOD)
    env = place.env(PATH=f"{links}:{os.environ['PATH']}", SPARK_BUILD_LINKS=str(links))
    for word in ("gcc", str(links / "gcc")):
        subprocess.run([word, "-c", "a.c", "-o", "a.o"], env=env, cwd=place.tree, check=True, timeout=30)
    assert broker.verbs().count("unit") == 2
    missing = subprocess.run(
        [str(links / "c++-99"), "-c", "a.c"], env=env, capture_output=True, check=False, timeout=30
    )
    assert missing.returncode == 127


def test_compiler_goes_on_without_its_broker_and_is_told_to_the_next(place: Place) -> None:
    first = Broker(place.gate)
    place.compiler("gcc", "echo said; while ! test -e go; do sleep 0.05; done; echo o > a.o")
    process = place.start("gcc", "-c", "a.c", "-o", "a.o")
    first.wait_for("at")
    first.close()
    second = Broker(place.gate, name="broker-0-2.sock")
    unit = second.wait_for("unit")
    assert (unit["held"], unit["attempt"]) == (str(1 << 30), "1")
    assert int(unit["started"]) > 0
    assert int(unit["used"]) > 0
    (place.tree / "go").touch()
    assert process.communicate(timeout=30) == (b"said\n", b"")
    assert process.returncode == 0
    assert second.wait_for("end")["code"] == "0"


def test_without_a_broker_the_semaphore_lets_one_run_at_a_time(place: Place) -> None:
    script = "mkdir busy || exit 9; sleep 0.2; rmdir busy"
    place.compiler("gcc", script)
    processes = [place.start("gcc", "-c", f"{name}.c") for name in "abc"]
    for process in processes:
        assert process.communicate(timeout=30) == (b"", b"")
        assert process.returncode == 0


def test_what_is_no_brokers_file_keeps_nobody_waiting(place: Place) -> None:
    place.compiler("gcc", "exec sleep $SECONDS_TO_SLEEP")
    lock = place.gate / "broker.lock"
    os.mkfifo(lock)
    place.run("gcc", "-c", "a.c", SECONDS_TO_SLEEP="0")
    mark = str(5_000_000 + os.getpid())
    process = place.start("gcc", "-c", "a.c", SECONDS_TO_SLEEP=mark)
    comes(lambda: descendants_named(mark))
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGTERM
    assert gone(mark)
    lock.unlink()
    lock.write_text("broker-0-1.sock\n" * 1000)
    place.run("gcc", "-c", "a.c", SECONDS_TO_SLEEP="0")


def test_script_without_a_first_line_runs_as_in_a_shell(place: Place) -> None:
    _broker = Broker(place.gate)
    script = place.bin / "gcc"
    script.write_text('exec echo "$0" "$@"\n')
    script.chmod(0o755)
    assert place.run("gcc", "-c", "a b.c")[0] == f"{script} -c a b.c\n"
    assert place.run("gcc", "--version")[0] == f"{script} --version\n"


def test_output_is_held_back_on_the_disk(place: Place) -> None:
    broker = Broker(place.gate)
    place.compiler("gcc", "echo said; readlink /proc/$$/fd/1 /proc/$$/fd/2")
    out = place.run("gcc", "-c", "a.c")[0].splitlines()
    broker.wait_for("end")
    assert out[0] == "said"
    assert [line.startswith(f"{place.scratch}/sb-") for line in out[1:]] == [True, True]
    assert list(place.scratch.iterdir()) == []


def test_where_there_never_was_a_broker_nobody_waits_for_one(place: Place) -> None:
    place.compiler("gcc", "exit 0")
    gate = place.root / "dead"
    gate.mkdir()
    (gate / "broker.lock").write_text("broker-0-1.sock\n")
    waits = place.start("gcc", "-c", "a.c", SPARK_BUILD_GATE=str(gate), SPARK_BUILD_FALLBACK="2")
    time.sleep(0.5)  # were it to wait, too, it would end after the other one
    runs = place.start("gcc", "-c", "b.c", SPARK_BUILD_FALLBACK="2")
    runs.communicate(timeout=30)
    assert waits.poll() is None
    waits.communicate(timeout=30)
    assert waits.returncode == runs.returncode == 0


def test_without_a_broker_a_killed_compiler_runs_again(place: Place) -> None:
    place.compiler("gcc", "echo run >> runs; test $(wc -l < runs) -ge 3 || kill -9 $$; echo fine")
    assert place.run("gcc", "-c", "a.c")[0] == "fine\n"
    assert (place.tree / "runs").read_text().count("run") == 3
    place.compiler("gcc", "echo run >> always; kill -9 $$")
    place.run("gcc", "-c", "a.c", code=-9)
    assert (place.tree / "always").read_text().count("run") == 4


def test_old_object_stays_when_the_compiler_never_touched_it(place: Place) -> None:
    _broker = Broker(place.gate)
    place.write("a.o", "old")
    place.compiler("gcc", "exit 1")
    place.run("gcc", "-c", "a.c", "-o", "a.o", code=1)
    assert (place.tree / "a.o").read_text() == "old"


def test_missing_compiler_and_missing_gate(place: Place) -> None:
    assert place.run("no-such-compiler", code=127)[0] == ""
    env = {key: value for key, value in place.env().items() if key != "SPARK_BUILD_GATE"}
    place.write("a.c", GOOD)
    subprocess.run([str(place.program), "gcc", "-c", "a.c"], env=env, cwd=place.tree, check=True, timeout=30)
    assert (place.tree / "a.o").exists()


def test_curve_has_sixteen_points(place: Place) -> None:
    broker = Broker(place.gate)
    place.compiler(
        "gcc", "exec python3 -c 'import time; x = bytearray(50 << 20); time.sleep(0.6); del x; time.sleep(0.6)'"
    )
    place.run("gcc", "-c", "a.c")
    end = broker.wait_for("end")
    points = [int(point) for point in end["curve"].split(",")]
    assert len(points) == 16
    assert max(points) > 90
    assert points[-1] < 60
    assert int(end["peak"]) > 50 << 20


@pytest.mark.root
def test_kernels_kill_is_told_by_the_counter(place: Place, group: Path) -> None:
    broker = Broker(place.gate)
    place.compiler("gcc", "python3 -c 'x = bytearray(400 << 20)' || { echo lost; exit 1; }")
    code, out = run_in(group, place, "gcc", "-c", "a.c")
    assert (code, out) == (1, "lost\n")
    assert broker.wait_for("end")["killed"] == "1"


@pytest.mark.root
def test_after_a_kernels_kill_it_runs_again_with_more(place: Place, group: Path) -> None:
    def make_room(client: Client, packet: Packet) -> None:
        if packet["verb"] == "unit":
            client.go()
        elif packet["verb"] == "end" and packet["killed"] == "1":
            (group / "memory.limit_in_bytes").write_text(str(400 << 20))
            client.send("again")
            client.go()
        elif packet["verb"] == "end":
            client.send("done")

    broker = Broker(place.gate, make_room)
    place.compiler(
        "gcc", "echo half > a.o; echo said; python3 -c 'x = bytearray(150 << 20)' || exit 1; echo whole > a.o"
    )
    assert run_in(group, place, "gcc", "-c", "a.c", "-o", "a.o") == (0, "said\n")
    assert (place.tree / "a.o").read_text() == "whole\n"
    assert [(end["killed"], end["code"]) for end in broker.all("end")] == [("1", "1"), ("0", "0")]


def run_in(group: Path, place: Place, *words: str) -> tuple[int, str]:
    """Run the launcher in a control group."""
    argv = ["sh", "-c", f'echo $$ > {group}/tasks; exec "$@"', "sh", str(place.program), *words]
    done = subprocess.run(
        argv, env=place.env(), cwd=place.tree, stdout=subprocess.PIPE, text=True, check=False, timeout=60
    )
    return done.returncode, done.stdout


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Path]:
    """Give a memory control group of 100 MiB, version 1."""
    top = tmp_path.__class__("/sys/fs/cgroup/memory")
    if not (top / "memory.limit_in_bytes").exists():
        pytest.skip("no memory control group of version 1")
    made = top / f"launch-{os.getpid()}-{abs(hash(str(tmp_path))) % 10**9}"
    made.mkdir()
    (made / "memory.limit_in_bytes").write_text(str(100 << 20))
    yield made
    made.rmdir()


# Through the compile cache


@pytest.mark.parametrize(
    ("source", "command"),
    [
        ("a.cc", "g++ -O1 -MMD -MF a.d -c a.cc -o a.o"),
        pytest.param("a.cu", f"{CUDA}/bin/nvcc -arch=sm_121a -MD -MF a.d -c a.cu -o a.o", marks=pytest.mark.cuda),
    ],
)
def test_a_hit_asks_nobody(place: Place, source: str, command: str) -> None:
    broker = Broker(place.gate)
    place.cache()
    place.write(source, "int f() { return 1; }\n")
    place.run(*command.split())
    made = (place.tree / "a.o").read_bytes()
    (unit,) = broker.all("unit")
    assert (unit["source"], unit["object"]) == (str(place.tree / source).removeprefix(f"{place.tree}/"), "tree/a.o")
    (place.tree / "a.o").unlink()
    place.run(*command.split())
    assert (place.tree / "a.o").read_bytes() == made
    assert len(broker.all("unit")) == 1


def test_refusal_and_error_come_through_the_cache(place: Place) -> None:
    def refuse(client: Client, packet: Packet) -> None:
        if packet["verb"] == "unit" and packet["name"] == "big.c":
            client.send("fail", text="big.c needs 90 GiB")
        else:
            grant(client, packet)

    broker = Broker(place.gate, refuse)
    place.cache()
    place.write("big.c", GOOD)
    place.write("bad.c", "int f(void) { return missing; }\n")
    assert place.run(*compile_of("big.c"), code=75) == ("", "spark-build: big.c needs 90 GiB\n")
    assert "missing" in place.run(*compile_of("bad.c"), code=1)[1]
    assert [unit["name"] for unit in broker.all("unit")] == ["big.c", "bad.c"]  # none of them a second time


def test_cache_that_cant_be_started_says_so(place: Place) -> None:
    place.cache()
    place.write("a.c", GOOD)
    cache = place.bin / "ccache"
    cache.write_bytes(b"#!/no/such/program\n")
    cache.chmod(0o755)
    err = place.run(*compile_of("a.c"), code=127, SPARK_BUILD_CCACHE=str(cache))[1]
    assert err == f"spark-build-launch: {cache}: No such file or directory\n"


@pytest.mark.parametrize("runs", [True, False])
def test_signal_goes_through_the_cache(place: Place, *, runs: bool) -> None:
    broker = Broker(place.gate, grant if runs else lambda _client, _packet: None)
    place.cache()
    place.write("a.c", GOOD)
    mark = str(4_000_000 + os.getpid() * 10 + runs)
    place.compiler("gcc", f"echo half > a.o; exec sleep {mark}")
    process = place.start(*compile_of("a.c"))
    broker.wait_for("at" if runs else "unit")
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGTERM
    assert gone(mark)
    assert not (place.tree / "a.o").exists()
    comes(lambda: "gone" in broker.verbs())


def compile_of(name: str) -> list[str]:
    """Return a command that makes ``a.o``."""
    return ["gcc", "-MD", "-MF", "a.d", "-c", name, "-o", "a.o"]
