"""A build's place at the gate: what is asked, what becomes of what is told, and a broker that dies, lies or is missing."""

from __future__ import annotations

import io
import json
import os
import signal
import stat
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from builder.errors import HostError
from builder.events import GateState, JsonLines, Note, UnitEnded, UnitRequeued
from builder.gate import packets, place, session
from builder.gate.history import History
from builder.recipe.model import MemoryClass, Resources
from tests.session_kit import MIB, FakeBroker, Kept, run_of, short_folder, terms, unit_packet, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from builder.events import Event

STATE = {
    "t": 5,
    "available": 800 * MIB,
    "reserve": 100 * MIB,
    "total": 1000 * MIB,
    "used": 400 * MIB,
    "promised": 50 * MIB,
    "ceiling": 700 * MIB,
    "room": 300 * MIB,
    "jobs": 3,
    "slots": 20,
    "waiting": 7,
    "paused": False,
    "bound": "memory",
    "running": [{"name": "a.cu", "used": 300 * MIB, "since_ms": 1000, "last_ms": 5000, "basis": "flags"}],
}


@pytest.fixture
def gate() -> Iterator[Path]:
    """A runtime folder."""
    yield from short_folder()


@pytest.fixture
def fake(gate: Path) -> Iterator[FakeBroker]:
    broker = FakeBroker(gate)
    yield broker
    broker.close()


def test_a_build_is_opened_with_caps_and_all_that_is_known(fake: FakeBroker, gate: Path, tmp_path: Path) -> None:
    (tmp_path / "recipes" / "seeds").mkdir(parents=True)
    (tmp_path / "recipes" / "seeds" / "tiny.csv").write_text("unit,peak_mib,cpu_s\nseed.cu,9,1\n")
    sink = Kept()
    wanted = terms(
        gate,
        tmp_path / "house",
        sink,
        recipe_folders=[tmp_path / "recipes"],
        hints=[("*.cpp", 5)],
        plain={"cu": 6},
        memory_bytes=1,
        reserve_bytes=2,
        jobs=3,
        weight=4,
        hang_ms=5,
        pause_ms=6,
    )
    history = History(wanted.history, sink=sink, clock=time.time)
    history.record(run_of("bad.cu", outcome="failed", build="abcdefabcdef-0"))
    history.record(run_of("good.cu"))
    history.close()
    with session.opened(wanted) as opened:
        assert opened.env == {"SPARK_BUILD_GATE": str(gate), "SPARK_BUILD_BUILD": "abcdefabcdef-1"}
    assert fake.asked[0].splitlines() == [
        *("build", "id abcdefabcdef-1", "memory 1", "reserve 2", "jobs 3", "weight 4", "hang 5", "pause 6")
    ]
    (known,) = fake.known
    assert known.splitlines() == [
        f"unit\tseed.cu\t\tcu\t\t{9 * MIB}\t1000\t-",
        f"unit\tgood.cu\tx.dir/good.cu.o\tcu\tf1\t{100 * MIB}\t2000\t-",
        "hint\t*.cpp\t5",
        "plain\tcu\t6",
        "first\tbad.cu\tx.dir/bad.cu.o",
    ]
    assert sink.events == []


def test_units_are_kept_and_told(fake: FakeBroker, gate: Path, tmp_path: Path) -> None:
    sink = Kept()
    with session.opened(terms(gate, tmp_path / "house", sink, hits=lambda: 4)) as opened:
        fake.tell("state", **STATE)
        fake.tell("unit", **unit_packet("a.cu", curve=",".join(["50"] * 16)))
        fake.tell("unit", **unit_packet("b.cu", ok=False, code=1))
        fake.tell("unit", **unit_packet("c.cu", ok=False, code=0, signal=2, attempt=3))
        fake.tell("requeue", name="a.cu", why="us", used=5, next=6)
        fake.tell("requeue", name="b.cu", why="kernel", used=7, next=8)
    ended = sink.of(UnitEnded)
    assert [(one.name, one.ok, one.code, one.attempts) for one in ended] == [
        *(("a.cu", True, 0, 1), ("b.cu", False, 1, 1), ("c.cu", False, 130, 3))
    ]
    assert (ended[0].peak_bytes, ended[0].ms, ended[0].wait_ms, ended[0].beside) == (300 * MIB, 1500, 100, 2)
    assert sink.of(UnitRequeued) == [
        UnitRequeued(name="a.cu", by="gate", used_bytes=5, next_bytes=6),
        UnitRequeued(name="b.cu", by="kernel", used_bytes=7, next_bytes=8),
    ]
    summary = opened.summary
    assert (summary.units, summary.failed, summary.requeues, summary.kernel_kills) == (3, 2, 1, 1)
    assert (summary.peak_bytes, summary.hits) == (400 * MIB, 4)
    rows = History(tmp_path / "house" / "units.sqlite3", sink=sink, clock=time.time).rows("tiny")
    assert [(run.unit.source, run.outcome) for run in rows] == [
        *(("c.cu", "stopped"), ("b.cu", "failed"), ("a.cu", "ok"))
    ]
    assert rows[2].curve == (50,) * 16
    assert (rows[2].peak_bytes, rows[2].largest_bytes, rows[2].cpu_ms) == (300 * MIB, 250 * MIB, 1400)
    assert (rows[2].toolchain, rows[2].version, rows[2].build) == ("t1", "1.0", "abcdefabcdef-1")


def test_a_state_carries_what_only_the_build_knows(fake: FakeBroker, gate: Path, tmp_path: Path) -> None:
    wanted = terms(gate, tmp_path / "house", sink := Kept(), hits=lambda: 9)
    history = History(wanted.history, sink=sink, clock=time.time)
    for number in range(4):
        history.record(run_of(f"{number}.cu", wall_ms=9000))
    history.close()
    with session.opened(wanted) as opened:
        opened.progress(6, 10)
        fake.tell("state", **STATE)
        fake.tell("state", **(STATE | {"used": 100 * MIB, "bound": "strange", "running": "no list"}))
        until(lambda: [one for one in sink.of(GateState) if one.used_bytes == 100 * MIB])
    first = next(one for one in sink.of(GateState) if one.used_bytes == 400 * MIB)
    last = sink.of(GateState)[-1]
    assert (first.done, first.edges, first.hits, first.bound) == (6, 10, 9, "memory")
    assert first.running == (("a.cu", 300 * MIB, 1000, 5000, "flags"),)
    assert first.left_ms is not None
    assert (last.peak_bytes, last.bound, last.running) == (400 * MIB, "idle", ())


def test_progress_reaches_the_screen_when_the_gate_is_silent(fake: FakeBroker, gate: Path, tmp_path: Path) -> None:
    assert fake.folder == gate
    with session.opened(terms(gate, tmp_path / "house", sink := Kept())) as opened:
        opened.progress(1, 10)  # all from the compile cache: no unit, no state
        opened.progress(2, 10)  # too soon for another
    (state,) = sink.of(GateState)
    assert (state.done, state.edges, state.total_bytes, state.slots) == (1, 10, 1000, 20)


def test_caps_are_changed_while_it_runs(fake: FakeBroker, gate: Path, tmp_path: Path) -> None:
    with session.opened(terms(gate, tmp_path / "house", Kept())) as opened:
        opened.change(jobs=3)
        opened.change(paused=True)
        opened.change(memory_bytes=7, paused=False)
        opened.change()
        until(lambda: len(fake.asked) == 4)
    assert fake.asked[1:] == ["change\njobs 3", "change\npaused 1", "change\nmemory 7\npaused 0"]


def test_a_hung_compiler_is_told_with_its_command(fake: FakeBroker, gate: Path, tmp_path: Path) -> None:
    with session.opened(terms(gate, tmp_path / "house", sink := Kept())):
        fake.tell("hung", name="a.cu", command="nvcc -c a.cu", since_ms=1_300_000, used=3 << 30)
    assert sink.events == [Note(level="warning", text="a.cu has been compiling for 21m40s, with 3.0 GiB: nvcc -c a.cu")]


@pytest.mark.parametrize(
    ("peak", "total", "code"), [(20 << 30, 10 << 30, "unit-too-large"), (1 << 30, 10 << 30, "memory-short")]
)
def test_a_build_that_memory_stopped_says_why(
    fake: FakeBroker, gate: Path, tmp_path: Path, peak: int, total: int, code: str
) -> None:
    with session.opened(terms(gate, tmp_path / "house", Kept(), resume=("spark-build resume abc",))) as opened:
        fake.tell("fail", text="no room for ten minutes", unit="a.cu", peak=peak, total=total)
        until(lambda: opened.stopped)
        fake.tell("fail", text="and again", unit="b.cu", peak=0, total=0)
    error = opened.stopped
    assert error is not None
    assert (error.code, error.exit_code, error.cause) == (code, 7, "no room for ten minutes")
    assert error.run == ("spark-build resume abc",)
    assert "a.cu" in error.summary
    assert "the largest are " in error.help
    if code == "unit-too-large":
        assert "20.0 GiB" in error.summary
        assert "10.0 GiB" in error.summary


@pytest.mark.parametrize(
    "packet",
    [
        b"no json",
        b"\xff\xff",
        b"[1, 2]",
        b"{}",
        b'{"state": 3}',
        b'{"unit": {}}',
        b'{"later": {"x": 1}}',
        b"[" * 50_000,
        b'{"state": {"used": "many", "jobs": null, "t": 1e999, "running": [1, {}]}}',
        b'{"unit": {"source": "x.cu", "peak": NaN, "wall_ms": Infinity, "curve": "1,2,x"}}',
        b'{"requeue": {"why": 3}}',
        b'{"fail": 7}',
    ],
)
def test_a_packet_of_another_version_ends_nothing(fake: FakeBroker, gate: Path, tmp_path: Path, packet: bytes) -> None:
    with session.opened(terms(gate, tmp_path / "house", sink := Kept())) as opened:
        fake.send(packet)
        fake.tell("unit", **unit_packet("after.cu"))
    assert opened.stopped is None
    assert [one.name for one in sink.of(UnitEnded)][-1] == "after.cu"
    assert sink.notes() == []


def test_what_the_broker_still_has_to_tell_is_waited_for(fake: FakeBroker, gate: Path, tmp_path: Path) -> None:
    with session.opened(terms(gate, tmp_path / "house", sink := Kept())):
        until(lambda: fake.asked)
        for number in range(150):
            fake.tell("unit", **unit_packet(f"{number}.cu"))
    assert len(sink.of(UnitEnded)) == 150


def ended(sink: Kept, name: str) -> bool:
    return any(one.name == name for one in sink.of(UnitEnded))


def holds(held: list[str], count: int) -> bool:
    return len(held) == count


def test_a_new_broker_takes_over(gate: Path, tmp_path: Path) -> None:
    first = FakeBroker(gate)
    with session.opened(terms(gate, tmp_path / "house", sink := Kept(), jobs=8)) as opened:
        first.tell("unit", **unit_packet("a.cu"))
        until(lambda: sink.of(UnitEnded))
        opened.change(jobs=2, paused=True)
        until(lambda: len(first.asked) == 2)
        second = first
        for number in range(3):
            second.close()
            second = FakeBroker(gate)
            until(partial(holds, second.asked, 2))
            second.tell("unit", **unit_packet(f"b{number}.cu"))
            until(partial(ended, sink, f"b{number}.cu"))
    assert "jobs 2" in second.asked[0]
    assert second.asked[1] == "change\npaused 1"
    assert "unit\ta.cu\t" in second.known[0]  # learned in this build, by way of the history
    second.close()
    assert sink.notes() == ["the gate's broker was lost; another one has taken over, and the build goes on"]
    assert opened.summary.units == 4


def test_a_broker_that_stays_away_ends_nothing(gate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_RETRY_S", (0.0, 0.01, 0.01))
    broker = FakeBroker(gate)
    lost = tmp_path / "no-such-program"
    with session.opened(terms(gate, tmp_path / "house", sink := Kept(), broker=lost)) as opened:
        broker.close()
        until(sink.notes)
        opened.change(jobs=3)
        opened.progress(1, 2)
    assert len(sink.notes()) == 1
    assert str(lost) in sink.notes()[0]
    assert opened.stopped is None


@pytest.mark.parametrize("answer", [b"refused\ntext you are not welcome", b"", b"?"])
def test_a_broker_that_refuses_is_told(
    gate: Path, tmp_path: Path, answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_ANSWER_S", 0.2)
    broker = FakeBroker(gate, answer=answer)
    with session.opened(terms(gate, tmp_path / "house", sink := Kept())) as opened:
        assert opened.env == {"SPARK_BUILD_BUILD": "abcdefabcdef-1"}
        assert opened.folder is None
        opened.change(jobs=1)
        opened.progress(1, 2)
    (note,) = sink.notes()
    assert note.startswith("no memory gate: ")
    assert "not welcome" in note or answer != b"refused\ntext you are not welcome"
    assert opened.summary.units == 0
    broker.close()


def test_no_broker_is_a_warning(gate: Path, tmp_path: Path) -> None:
    with session.opened(terms(gate, tmp_path / "house", sink := Kept(), broker=Path("/nowhere/broker"))) as opened:
        assert opened.folder is None
    assert "/nowhere/broker" in sink.notes()[0]


def test_a_broker_that_cant_start_is_a_warning(gate: Path, tmp_path: Path) -> None:
    program = tmp_path / "broker"
    program.write_text("#!/bin/sh\necho no memory here >&2\nexit 1\n")
    program.chmod(0o755)
    with session.opened(terms(gate, tmp_path / "house", sink := Kept(), broker=program)):
        pass
    assert "no memory here" in sink.notes()[0]


class Broken:
    """A screen that went away, and a file on a full disk."""

    def __init__(self) -> None:
        self.count = 0

    def emit(self, _event: Event) -> None:
        self.count += 1
        raise BrokenPipeError(32, "Broken pipe")


def test_a_sink_that_fails_is_told_at_the_end_and_nothing_is_lost(fake: FakeBroker, gate: Path, tmp_path: Path) -> None:
    broken = Broken()

    def build() -> None:
        with session.opened(terms(gate, tmp_path / "house", broken)):
            for number in range(5):
                fake.tell("unit", **unit_packet(f"{number}.cu"))
            until(lambda: broken.count == 5)

    with pytest.raises(BrokenPipeError):
        build()
    rows = History(tmp_path / "house" / "units.sqlite3", sink=Kept(), clock=time.time).rows("tiny")
    assert len(rows) == 5


def test_an_error_of_the_build_goes_before_the_sinks(fake: FakeBroker, gate: Path, tmp_path: Path) -> None:
    def build() -> None:
        with session.opened(terms(gate, tmp_path / "house", Broken())):
            fake.tell("unit", **unit_packet("a.cu"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build()
    assert [one.name for one in threading.enumerate() if one.name == "gate"] == []


def test_lines_of_several_threads_dont_mix() -> None:
    stream = io.StringIO()
    sink = session.Guarded(JsonLines(stream, build="b", clock=time.time))
    note = Note(level="info", text="x" * 500)

    def emit() -> None:
        for _number in range(200):
            sink.emit(note)

    threads = [threading.Thread(target=emit) for _one in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    numbers = [json.loads(line)["seq"] for line in stream.getvalue().splitlines()]
    assert numbers == list(range(1, 801))


def test_a_bad_history_is_no_reason_to_do_without_the_gate(fake: FakeBroker, gate: Path, tmp_path: Path) -> None:
    (tmp_path / "house").mkdir()
    (tmp_path / "house" / "units.sqlite3").write_bytes(b"no database\n" * 100)
    with session.opened(terms(gate, tmp_path / "house", sink := Kept(), plain={"cu": 1})):
        fake.tell("unit", **unit_packet("a.cu"))
    assert fake.known == ["plain\tcu\t1\n"]
    assert len(sink.of(UnitEnded)) == 1
    assert len(sink.notes()) == 1


def test_descriptors_and_threads_are_given_back(fake: FakeBroker, gate: Path, tmp_path: Path) -> None:
    def held() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    with session.opened(terms(gate, tmp_path / "house", Kept())):
        pass
    until(fake.is_left)
    before = held()
    for _number in range(10):
        with session.opened(terms(gate, tmp_path / "house", Kept())):
            pass
    until(fake.is_left)
    assert held() <= before  # what earlier tests left may go meanwhile


def test_a_value_never_breaks_a_message() -> None:
    assert packets.message("build", {"id": "a\nfoo 1", "jobs": 3}) == b"build\nid a foo 1\njobs 3"
    assert packets.answer(b"open\ncores 3\nbasis cgroup v1 /x\n") == ("open", {"cores": "3", "basis": "cgroup v1 /x"})


def test_a_recipes_words_become_hints() -> None:
    resources = Resources(mem_per_job="1GiB", link_mem="6GiB", classes=(MemoryClass(match="*.cpp", mem="512MiB"),))
    hints, plain = session.expected(resources)
    assert hints == (("*.cpp", 512 * MIB),)
    assert (plain["cu"], plain["cxx"], plain["link"]) == (4 << 30, 1 << 30, 6 << 30)


# The runtime folder


def test_the_folder_is_made_for_its_user_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pattern = str(Path(tempfile.gettempdir(), f"sb-made-{os.getpid()}-{{uid}}"))
    made = Path(pattern.format(uid=os.geteuid()))
    monkeypatch.setattr(place, "MADE_BY_ADMIN", tmp_path / "none")
    monkeypatch.setattr(place, "MADE_ON_DEMAND", pattern)
    mask = os.umask(0o077)
    try:
        assert place.folder({}) == made
        assert stat.S_IMODE(made.stat().st_mode) == 0o700
        assert place.folder({}) == made
    finally:
        os.umask(mask)
        made.rmdir()


def test_an_admins_folder_goes_first_and_the_users_word_before_all(
    gate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "MADE_BY_ADMIN", gate)
    assert place.folder({}) == gate
    named = gate / "mine"
    assert place.folder({"SPARK_BUILD_GATE_DIR": str(named)}) == named
    assert stat.S_IMODE(named.stat().st_mode) == 0o700
    for wrong in ("relative", f"{gate}/{'x' * 100}", "/proc/nothing", "/dev/null", str(tmp_path / "a" / "b")):
        with pytest.raises(HostError) as raised:
            place.folder({"SPARK_BUILD_GATE_DIR": wrong})
        assert raised.value.code == "gate-folder"
        assert raised.value.run


def test_traps_are_refused(gate: Path) -> None:
    link = gate / "link"
    link.symlink_to(gate)
    loose = gate / "loose"
    loose.mkdir()
    loose.chmod(0o777)
    for trap in (link, loose):
        with pytest.raises(HostError) as raised:
            place.folder({"SPARK_BUILD_GATE_DIR": str(trap)})
        assert raised.value.code == "gate-folder"


@pytest.mark.parametrize(
    "text", ["", "broker-0-1.sock\n", "../../etc/passwd\n", "broker-0-1.sock/../x", "\udcff", "broker-0-1.sock\nmore\n"]
)
def test_a_lock_that_names_nothing_is_no_broker(gate: Path, text: str) -> None:
    (gate / "broker.lock").write_bytes(text.encode(errors="surrogateescape"))
    assert place.connect(gate) is None


# With the real broker, where it has been built


def real_broker() -> Path:
    for candidate in (place.program(), os.environ.get("SPARK_BUILD_TEST_BROKER")):
        if candidate and os.access(candidate, os.X_OK):
            return Path(candidate)
    pytest.skip("no broker is installed")


def broker_pid(gate: Path) -> int:
    return int((gate / "broker.lock").read_text().split("-")[2].partition(".")[0])


@pytest.fixture
def tidy(gate: Path) -> Iterator[None]:
    """No broker is left of a test."""
    yield
    line = place.connect(gate)
    if line is not None:
        line.close()
        os.kill(broker_pid(gate), signal.SIGTERM)


@pytest.mark.usefixtures("tidy")
def test_the_broker_is_started_outlives_us_and_is_shared(gate: Path, tmp_path: Path) -> None:
    program = real_broker()
    first = place.reach(gate, file=program, options=("--idle", "20"))
    pid = broker_pid(gate)
    again = place.reach(gate, file=Path("/nowhere"))
    assert broker_pid(gate) == pid
    assert os.getsid(pid) != os.getsid(0)
    first.close()
    again.close()
    place.start(gate, file=program)  # another one finds that it isn't needed
    assert broker_pid(gate) == pid
    with session.opened(terms(gate, tmp_path / "house", sink := Kept(), broker=program)) as opened:
        assert opened.env["SPARK_BUILD_GATE"] == str(gate)
    assert sink.notes() == []


@pytest.mark.usefixtures("tidy")
def test_a_real_broker_that_is_killed_is_replaced(gate: Path, tmp_path: Path) -> None:
    program = real_broker()
    with session.opened(terms(gate, tmp_path / "house", sink := Kept(), broker=program)) as opened:
        pid = broker_pid(gate)
        os.kill(pid, signal.SIGKILL)
        until(sink.notes)
        assert broker_pid(gate) != pid
        opened.change(paused=True)
        until(lambda: [one for one in sink.of(GateState) if one.paused])
    assert len(sink.notes()) == 1


@pytest.mark.root
def test_a_folder_of_somebody_else_is_not_taken(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o777)
    os.chown(theirs, 65534, 65534)
    theirs.chmod(0o1777)
    with pytest.raises(HostError) as caught:
        place.folder({place.VARIABLE: str(theirs)})
    assert "belongs to user 65534" in caught.value.cause


def test_a_pipe_in_place_of_the_lock_is_no_broker(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / place.LOCK)
    assert place.connect(tmp_path) is None
