"""The broker over its socket: who may start, what is told to whom, and what happens when somebody dies."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.broker_kit import GIB, LAUNCHER, MIB, broker_in, gone, plain, until
from tests.hook_kit import program

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.broker_kit import Broker, Client

KEYS = [
    "build",
    "kind",
    "source",
    "slots",
    "retry",
    "held",
    "attempt",
    "started",
    "used",
    "code",
    "signal",
    "peak",
    "wall",
    "curve",
    "id",
    "memory",
    "jobs",
    "weight",
    "hang",
    "paused",
    "reserve",
    "killed",
]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with broker_in(tmp_path) as one:
        yield one


def test_unit_runs_and_its_end_is_told(broker: Broker) -> None:
    control = broker.opened()
    one = broker.unit("a.cc")
    assert one.expect("go")["attempt"] == "1"
    one.say("at", used=300 * MIB)
    one.end(peak=400 * MIB, largest=350 * MIB, wall=1234, cpu=1000, curve=",".join(["50"] * 15 + ["100"]))
    one.expect("done")
    told = control.event("unit")
    assert (told["name"], told["ok"], told["peak"], told["largest"]) == ("a.cc", True, 400 * MIB, 350 * MIB)
    assert (told["wall_ms"], told["attempt"], told["attempts_us"]) == (1234, 1, 0)
    assert told["curve"].endswith("50,100")


def test_open_answer_names_cores_memory_and_basis(broker: Broker) -> None:
    told = broker.control().expect("open")
    assert told == {"cores": "4", "total": str(64 * GIB), "room": str(60 * GIB), "basis": "MemAvailable"}
    assert broker.control("c", memory=8 * GIB).expect("open")["basis"] == "--memory"


def test_only_as_many_run_as_there_are_cores(broker: Broker) -> None:
    control = broker.opened()
    units = [broker.unit(f"{number}.cc") for number in range(6)]
    running = control.event("state", lambda state: state["jobs"] == 4 and state["waiting"] == 2)
    assert running["bound"] == "cpu"
    going = [one for one in units if not one.silent(0.1)]
    assert len(going) == 4
    for one in going[:2]:
        one.expect("go")
        one.end()
        one.expect("done")
    control.event("state", lambda state: state["jobs"] == 4 and state["waiting"] == 0)


def test_promises_stay_under_the_room(broker: Broker) -> None:
    control = broker.opened(predictions=plain({f"{number}.cc": 20 * GIB for number in range(4)}))
    for number in range(4):
        broker.unit(f"{number}.cc")
    state = control.event("state", lambda state: state["waiting"] > 0 and state["jobs"] > 0)
    assert state["bound"] == "memory"
    assert state["used"] + state["promised"] <= state["ceiling"]
    assert state["jobs"] == 2


def test_what_was_learnt_is_used_for_the_next_run(broker: Broker) -> None:
    control = broker.opened()
    for _ in range(2):
        one = broker.unit("heavy.cu", kind="cu")
        one.expect("go")
        one.end(peak=9 * GIB)
        one.expect("done")
    control.event("unit")
    assert control.event("unit")["reserved"] >= 9 * GIB


def test_youngest_is_killed_and_requeued_when_memory_goes(broker: Broker) -> None:
    control = broker.opened()
    units = []
    for name in ("old.cc", "young.cc"):
        one = broker.unit(name)
        one.expect("go")
        one.say("at", used=2 * GIB)
        units.append(one)
        time.sleep(0.01)
    broker.memory(int(1.9 * GIB))
    old, young = units
    young.expect("kill")
    assert old.silent(0.2)
    young.end(signal=9, killed=1, peak=2 * GIB)
    young.expect("again")
    requeue = control.event("requeue")
    assert (requeue["name"], requeue["why"]) == ("young.cc", "us")
    broker.memory(60 * GIB)
    assert young.expect("go")["attempt"] == "2"
    young.end()
    young.expect("done")
    assert control.event("unit")["attempts_us"] == 1


def test_kernel_kill_is_run_again_with_more(broker: Broker) -> None:
    control = broker.opened()
    one = broker.unit("a.cc")
    first = int(one.expect("go")["bytes"])
    one.end(code=1, killed=1, peak=first)
    one.expect("again")
    assert control.event("requeue")["why"] == "kernel"
    assert int(one.expect("go")["bytes"]) > first
    one.end()
    one.expect("done")
    assert control.event("unit")["attempts_kernel"] == 1


def test_what_cannot_be_run_again_keeps_its_result(broker: Broker) -> None:
    control = broker.opened()
    one = broker.unit("a.cc", retry=0)
    one.expect("go")
    one.end(code=1, killed=1)
    one.expect("done")
    assert control.event("unit")["ok"] is False


def test_compile_error_is_passed_on_at_once(broker: Broker) -> None:
    control = broker.opened()
    one = broker.unit("a.cc")
    one.expect("go")
    one.end(code=1, killed=0)
    one.expect("done")
    assert control.event("unit")["code"] == 1


def test_pause_and_jobs_take_effect(broker: Broker) -> None:
    control = broker.opened()
    control.say("change", paused=1)
    control.event("state", lambda state: state["paused"])
    one = broker.unit("a.cc")
    assert one.silent()
    control.say("change", paused=0, jobs=1)
    one.expect("go")
    assert broker.unit("b.cc").silent()
    control.event("state", lambda state: state["waiting"] == 1 and state["slots"] == 1 and state["jobs"] == 1)


def test_control_that_goes_ends_its_build(broker: Broker) -> None:
    control = broker.opened()
    running, other = broker.unit("a.cc"), broker.unit("c.cc", build="other")
    running.expect("go")
    other.expect("go")
    control.close()
    assert "ended" in running.expect("fail")["text"]
    other.end()
    other.expect("done")


def test_build_fails_when_memory_stays_away(tmp_path: Path) -> None:
    with broker_in(tmp_path, "--pause", "0.5") as broker:
        control = broker.opened()
        one = broker.unit("a.cc")
        one.expect("go")
        one.say("at", used=GIB)
        broker.memory(100 * MIB)
        failed = False
        while not failed:
            verb, _ = one.told()
            failed = verb == "fail"
            if verb == "kill":
                one.end(signal=9, killed=1, peak=GIB)
        assert control.event("fail")["text"]
        assert broker.unit("b.cc").expect("fail")


def test_hung_unit_is_told_once_with_its_command(broker: Broker) -> None:
    control = broker.opened(hang=200)
    one = broker.unit("a.cc", command='cc "a.cc" \\ ü')
    one.expect("go")
    assert control.event("hung")["command"] == 'cc "a.cc" \\ ü'
    one.end()
    control.event("unit")


def test_slow_control_loses_states_but_no_unit(broker: Broker) -> None:
    control = broker.opened()
    for number in range(1500):
        one = broker.unit(f"{number}.cc")
        one.expect("go")
        one.end()
        one.expect("done")
        broker.clients.pop().close()
    names = [control.event("unit")["name"] for _ in range(1500)]
    assert names == [f"{number}.cc" for number in range(1500)]


def test_text_that_is_no_utf8_becomes_good_json(broker: Broker) -> None:
    control = broker.opened()
    one = broker.client()
    one.socket.send(b'unit\nbuild b\nname a\xff"\\\x01\xc3\xbc\nkind cxx')
    one.expect("go")
    one.end()
    assert control.event("unit")["name"] == 'a\ufffd"\\\x01ü'


def test_five_hundred_wait_and_all_get_their_turn(broker: Broker) -> None:
    units = {one.socket.fileno(): one for one in (broker.unit(f"{number}.cc") for number in range(500))}
    ready = selectors.DefaultSelector()
    for one in units.values():
        ready.register(one.socket, selectors.EVENT_READ, one)
    while units:
        events = ready.select(30)
        assert events
        for key, _ in events:
            one = key.data
            verb, _values = one.told()
            if verb == "go":
                one.end()
            else:
                assert verb == "done"
                ready.unregister(one.socket)
                del units[one.socket.fileno()]
    ready.close()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    packets=st.lists(
        st.one_of(
            st.binary(min_size=1, max_size=200),
            st.builds(
                lambda verb, pairs: "\n".join([verb, *(f"{key} {value}" for key, value in pairs)]).encode(),
                st.sampled_from(["unit", "at", "end", "build", "change", "go"]),
                st.lists(
                    st.tuples(
                        st.sampled_from(KEYS),
                        st.one_of(st.integers(), st.sampled_from(["-", "nan", "1,2,3", "b"]), st.text(max_size=20)),
                    ),
                    max_size=8,
                ),
            ),
        ),
        max_size=6,
    )
)
def test_no_client_can_bring_it_down(broker: Broker, packets: list[bytes]) -> None:
    one = broker.client()
    for packet in packets:
        try:
            one.socket.send(packet)
        except OSError:
            break
    broker.clients.pop().close()
    assert broker.process is not None
    assert broker.process.poll() is None


def test_too_long_a_packet_ends_only_its_client(broker: Broker) -> None:
    one, other = broker.client(), broker.client()
    one.socket.send(b"unit\nname " + b"x" * 100_000)
    assert one.hear() == b""
    other.unit("a.cc").expect("go")


def test_two_starters_make_one_broker(tmp_path: Path) -> None:
    with broker_in(tmp_path, start=False) as broker:
        argv = [str(program("spark-build-broker")), "--folder", str(broker.folder), "--idle", "1", *broker.options]
        started = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(4)]
        told = {one.communicate(timeout=30)[0] for one in started}
        assert len(told) == 1
        assert {one.returncode for one in started} == {0}
        pid = int(told.pop().strip().removesuffix(".sock").rpartition("-")[2])
        broker.unit("a.cc").expect("go")
        broker.clients.pop().close()
        until(lambda: gone(pid))
        assert not list(broker.folder.glob("*.sock"))


def launch(broker: Broker, tmp_path: Path, name: str) -> tuple[subprocess.Popen[bytes], list[int]]:
    mark = tmp_path / name
    process = subprocess.Popen([sys.executable, "-c", LAUNCHER, str(broker.folder), name, str(mark)])
    until(mark.exists)
    return process, [int(word) for word in mark.read_text(encoding="utf-8").split()]


def test_death_of_a_launcher_kills_its_whole_group(broker: Broker, tmp_path: Path) -> None:
    control = broker.opened()
    launcher, pids = launch(broker, tmp_path, "a.cc")
    time.sleep(0.3)
    launcher.kill()
    launcher.wait()
    until(lambda: all(gone(pid) for pid in pids))
    control.event("state", lambda state: state["jobs"] == 0)


def test_kill_reaches_the_compiler_of_a_launcher_that_sleeps(broker: Broker, tmp_path: Path) -> None:
    old = broker.unit("old.cc")
    old.expect("go")
    launcher, pids = launch(broker, tmp_path, "young.cc")
    launcher.send_signal(signal.SIGSTOP)
    broker.memory(GIB)
    until(lambda: all(gone(pid) for pid in pids))
    launcher.kill()
    launcher.wait()


def test_next_broker_keeps_the_promises_of_a_killed_one(broker: Broker) -> None:
    peaks = {f"{number}.cc": 25 * GIB for number in range(3)}
    control = broker.opened(predictions=plain(peaks))
    holders = [broker.unit(f"{number}.cc") for number in range(2)]
    held = [one.expect("go")["bytes"] for one in holders]
    control.event("state", lambda state: state["jobs"] == 2)
    broker.kill()
    broker.start()
    control = broker.opened(predictions=plain(peaks))
    assert control.event("state")["jobs"] == 2
    back = [
        broker.unit(f"{number}.cc", held=bytes_held, attempt=1, started=500, used=GIB)
        for number, bytes_held in enumerate(held)
    ]
    for one in back:
        one.expect("thaw")
    waiting = broker.unit("2.cc")
    state = control.event("state", lambda state: state["waiting"] == 1)
    assert state["jobs"] == 2
    assert waiting.silent(0.2)
    for one in back:
        one.end(peak=25 * GIB)
        one.expect("done")
    waiting.expect("go")


@pytest.mark.root
def test_second_user_takes_part(broker: Broker, tmp_path: Path) -> None:
    if not Path("/usr/bin/python3").exists():
        pytest.skip("no Python that another user can start")
    for folder in [tmp_path, *tmp_path.parents[:3]]:
        folder.chmod(folder.stat().st_mode | 0o011)
    mark = broker.folder / "other"
    argv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/python3", "-c", LAUNCHER]
    process = subprocess.Popen([*argv, str(broker.folder), "theirs.cc", str(mark)])
    until(mark.exists)
    pids = [int(word) for word in mark.read_text(encoding="utf-8").split()]
    process.kill()
    process.wait()
    until(lambda: all(gone(pid) for pid in pids))


@pytest.mark.root
def test_real_control_group_bounds_what_is_granted(broker: Broker) -> None:
    controller = Path("/sys/fs/cgroup/memory")
    if not (controller / "memory.limit_in_bytes").exists():
        pytest.skip("no version-1 memory controller")
    group = controller / f"spark-build-test-{os.getpid()}"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(GIB), encoding="utf-8")
        predictions = plain({f"{number}.cc": 400 * MIB for number in range(4)})
        child = os.fork()
        if child == 0:  # a client is where its connection was made
            (group / "cgroup.procs").write_text("0", encoding="utf-8")
            os._exit(_granted_inside(broker, predictions))
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 2
    finally:
        until(lambda: _removed(group))


def _granted_inside(broker: Broker, predictions: str) -> int:
    try:
        control = broker.control(predictions=predictions)
        if not control.expect("open")["basis"].startswith("cgroup v1 /spark-build-test-"):
            return 100
        units: list[Client] = [broker.unit(f"{number}.cc") for number in range(4)]
        control.event("state", lambda state: state["waiting"] + state["jobs"] == 4 and state["jobs"] > 0)
        return sum(not one.silent(0.2) for one in units)
    except BaseException:  # noqa: BLE001  # a forked child may not run the parent's tests
        return 101


def _removed(group: Path) -> bool:
    try:
        group.rmdir()
    except OSError:
        return False
    return True


def test_limit_in_a_fake_version_2_tree_is_honoured(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for name, text in {
        "memory.max": str(4 * GIB),
        "memory.current": str(2 * GIB),
        "memory.stat": f"anon 5\ninactive_file {GIB}\n",
        "memory.events": "oom 0\noom_kill 0\n",
    }.items():
        (tree / name).write_text(text, encoding="utf-8")
    with broker_in(tmp_path, "--cgroup-root", str(tree)) as broker:
        told = broker.control().expect("open")
        assert told["basis"].startswith("cgroup v2 /")
        assert int(told["room"]) == 3 * GIB - 4 * GIB // 25
