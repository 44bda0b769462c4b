"""The history of units: what is kept, what is made of it, and what happens to a build when the file is bad."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.errors import UsageError
from builder.gate import document, seeds
from builder.gate.history import KEPT, History
from builder.gate.units import Unit, machine_class
from builder.recipe import find
from tests.session_kit import MIB, Kept, run_of, short_folder

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder that any user may enter, unlike pytest's own."""
    yield from short_folder()


def opened(folder: Path, sink: Kept | None = None, **more: float) -> History:
    return History(folder / "units.sqlite3", sink=sink or Kept(), clock=lambda: 0.0, **more)


def lines(history: History, recipe: str = "tiny", **more: object) -> list[list[str]]:
    told = history.predictions(recipe, **more)  # type: ignore[arg-type]  # passed on
    return [line.split("\t") for line in told.decode().splitlines()]


def test_a_run_comes_back_as_it_was_newest_first(tmp_path: Path) -> None:
    history = opened(tmp_path)
    first, second = run_of("a.cu", curve=tuple(range(16)), time=1), run_of("b.cu", attempts=3, time=2)
    history.record(first)
    history.record(second)
    assert history.rows("tiny") == (second, first)
    assert opened(tmp_path).rows("tiny") == (second, first)
    assert history.rows("other") == ()
    assert history.rows("tiny", toolchain="t2") == ()


def test_only_the_newest_runs_of_a_unit_are_kept(tmp_path: Path) -> None:
    history = opened(tmp_path)
    for number in range(KEPT + 4):
        history.record(run_of("a.cu", time=number))
    history.record(run_of("a.cu", flags="f2", time=0))
    history.record(run_of("a.cu", recipe="other", time=0))
    of_one = [run.time for run in history.rows("tiny") if run.unit.flags == "f1"]
    assert of_one == list(range(KEPT + 3, 3, -1))
    assert len(history.rows("tiny")) == KEPT + 1
    assert len(history.rows("other")) == 1


def test_foreign_runs_push_out_none_from_here(tmp_path: Path) -> None:
    history = opened(tmp_path)
    history.record(run_of("a.cu", time=1))
    foreign = [run_of("a.cu", time=100 + number, machine="elsewhere") for number in range(KEPT + 3)]
    history.import_document(document.write(foreign))
    assert [run.time for run in history.rows("tiny") if run.origin == "here"] == [1]
    assert len(history.rows("tiny")) == KEPT + 1


def test_predictions_hold_the_last_three_good_runs_oldest_first(tmp_path: Path) -> None:
    history = opened(tmp_path)
    for number in range(5):
        history.record(run_of("a.cu", time=number, peak_bytes=number * MIB, curve=(50,) * 16))
    history.record(run_of("a.cu", time=9, peak_bytes=999 * MIB, outcome="failed"))
    history.record(run_of("a.cu", time=10, peak_bytes=999 * MIB, outcome="stopped"))
    history.record(run_of("a.cu", time=11, peak_bytes=1, cached=True))
    assert lines(history) == [
        ["unit", "a.cu", "x.dir/a.cu.o", "cu", "f1", str(number * MIB), "2000", ",".join(["50"] * 16)]
        for number in (2, 3, 4)
    ]


def test_predictions_prefer_the_same_toolchain(tmp_path: Path) -> None:
    history = opened(tmp_path)
    history.record(run_of("a.cu", time=1, peak_bytes=1 * MIB, toolchain="old"))
    history.record(run_of("a.cu", time=2, peak_bytes=2 * MIB, toolchain="new"))
    assert [line[5] for line in lines(history, toolchain="old")] == [str(1 * MIB)]
    assert [line[5] for line in lines(history, toolchain="third")] == [str(1 * MIB), str(2 * MIB)]


def test_hints_plain_units_and_first_ones_follow(tmp_path: Path) -> None:
    history = opened(tmp_path)
    told = lines(
        history, hints=[("*.cpp", 5), ("*fp8*", 6)], plain={"cu": 7}, first=[Unit(source="bad.cu", object="x/bad.o")]
    )
    assert told == [
        ["hint", "*.cpp", "5"],
        ["hint", "*fp8*", "6"],
        ["plain", "cu", "7"],
        ["first", "bad.cu", "x/bad.o"],
    ]


def test_a_name_never_breaks_a_line(tmp_path: Path) -> None:
    history = opened(tmp_path)
    history.record(run_of("a\tb\nc.cu"))
    assert [len(line) for line in lines(history)] == [8]


SEEDS = """\
# measured on another machine
unit,kind,group,peak_mib,cpu_s,measured
a.cu,cu,own,100,10,1
b.cu,cu,own,200,20,1
c.cu,cu,own,300,30,1
d.cu,cu,own,400,40,1
mod/e.cuda.o,cu,own,500.5,0.5,0
"""


def test_times_from_elsewhere_are_scaled_by_what_both_machines_measured(tmp_path: Path) -> None:
    found, mistakes = seeds.read(SEEDS)
    assert mistakes == ()
    history = opened(tmp_path)
    assert history.speed("tiny", found) == {}
    assert {line[1]: line[6] for line in lines(history, seeds=found)}["d.cu"] == "40000"
    for name, ms in (("a.cu", 20_000), ("b.cu", 60_000), ("c.cu", 60_000)):
        history.record(run_of(name, wall_ms=ms))
    assert history.speed("tiny", found) == {"seed": 2.0}  # of 2, 3 and 2
    told = {line[1] or line[2]: line for line in lines(history, seeds=found)}
    assert told["a.cu"][5:7] == [str(100 * MIB), "20000"]  # from here: the seed is gone
    assert told["d.cu"][5:7] == [str(400 * MIB), "80000"]  # peaks as they are
    assert told["mod/e.cuda.o"][:4] == ["unit", "", "mod/e.cuda.o", "cu"]
    assert told["mod/e.cuda.o"][5:7] == [str(round(500.5 * MIB)), "1000"]


def test_a_seed_named_by_its_object_gives_way_to_the_unit(tmp_path: Path) -> None:
    found, _mistakes = seeds.read(SEEDS)
    history = opened(tmp_path)
    history.record(run_of("gen/e.cu", object="deep/down/mod/e.cuda.o", wall_ms=5000))
    told = [line for line in lines(history, seeds=found) if line[2].endswith("e.cuda.o")]
    assert [line[1] for line in told] == ["gen/e.cu"]


def test_a_failed_unit_is_first_until_it_succeeds(tmp_path: Path) -> None:
    history = opened(tmp_path)
    history.record(run_of("a.cu", outcome="failed", build="abc-1", time=1))
    history.record(run_of("b.cu", outcome="failed", build="abc-1", time=2))
    history.record(run_of("c.cu", outcome="stopped", build="abc-1", time=3))
    history.record(run_of("d.cu", outcome="failed", build="zzz-1", time=4))
    assert [unit.source for unit in history.failed("abc-")] == ["a.cu", "b.cu"]
    history.record(run_of("a.cu", build="abc-2", time=5))
    assert [unit.source for unit in history.failed("abc-")] == ["b.cu"]
    assert history.failed("abc-9") == ()


def test_an_estimate_counts_unknown_units_as_the_mean(tmp_path: Path) -> None:
    history = opened(tmp_path)
    history.record(run_of("a.cu", wall_ms=1000, time=1))
    history.record(run_of("a.cu", wall_ms=3000, time=2, flags="f2"))
    history.record(run_of("b.cu", wall_ms=5000))
    all_of_it = history.estimate("tiny")
    assert (all_of_it.wanted, all_of_it.work_ms, all_of_it.longest_ms) == (2, 8000, 5000)
    asked = [run_of("a.cu").unit, run_of("unknown.cu").unit]
    some = history.estimate("tiny", asked)
    assert (some.wanted, len(some.times), some.work_ms) == (2, 1, 6000)
    found, _mistakes = seeds.read(SEEDS)
    assert history.estimate("tiny", seeds=found).wanted == 5
    assert history.estimate("nobody").work_ms == 0


def test_a_document_carries_peaks_to_another_machine_and_times_as_hints(tmp_path: Path) -> None:
    there = opened(tmp_path / "there")
    (tmp_path / "there").mkdir()
    (tmp_path / "here").mkdir()
    for name in "abcd":
        there.record(run_of(f"{name}.cu", wall_ms=10_000, peak_bytes=500 * MIB, curve=(90,) * 16))
    there.record(run_of("bad.cu", outcome="failed"))
    told = there.export("tiny")
    assert told == there.export("abcdef") == document.write(tuple(reversed(there.rows("tiny")[1:])))
    assert there.export("nothing") == b'{"kind":"spark-build units","units":[],"version":1}'
    assert there.import_document(told) == 0  # it has them already

    here = opened(tmp_path / "here")
    foreign = told.replace(machine_class().encode(), b"aarch64/20/65536")
    assert here.import_document(foreign) == 4
    assert here.import_document(foreign) == 0
    for name in "abc":
        here.record(run_of(f"{name}.cu", wall_ms=5_000, peak_bytes=100 * MIB))
    assert here.speed("tiny") == {"aarch64/20/65536": 0.5}
    line = next(line for line in lines(here) if line[1] == "d.cu")
    assert line[5:] == [str(500 * MIB), "5000", ",".join(["90"] * 16)]
    assert [line[5] for line in lines(here) if line[1] == "a.cu"] == [str(100 * MIB)]
    assert json.loads(here.export("tiny"))["units"][0]["machine"] == machine_class()  # what came in doesn't go out


def good_document() -> dict[str, object]:
    loaded: dict[str, object] = json.loads(document.write([run_of("a.cu")]))
    return loaded


def spoilt(**change: object) -> bytes:
    raw = good_document()
    units = raw["units"]
    assert isinstance(units, list)
    units[0] |= change
    return json.dumps(raw).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b'{"kind": "something else", "version": 1, "units": []}',
        b'{"kind": "spark-build units", "version": 2, "units": []}',
        b'{"kind": "spark-build units", "version": 1}',
        b'{"kind": "spark-build units", "version": 1, "units": [1]}',
        b'{"kind": "spark-build units", "version": 1, "units": [{}]}',
        b"[" * 100_000,
        spoilt(peak_bytes=-1),
        spoilt(peak_bytes=0),
        spoilt(peak_bytes=1 << 60),
        spoilt(peak_bytes=1.5),
        spoilt(peak_bytes=True),
        spoilt(wall_ms="3"),
        spoilt(source="a\tb.cu"),
        spoilt(source="", object=""),
        spoilt(source="a" * 5000),
        spoilt(kind="weird"),
        spoilt(recipe=""),
        spoilt(curve=[1, 2]),
        spoilt(curve=[101] * 16),
        spoilt(machine=None),
    ],
)
def test_a_bad_document_is_refused_whole(tmp_path: Path, data: bytes) -> None:
    history = opened(tmp_path)
    with pytest.raises(UsageError) as raised:
        history.import_document(data)
    assert raised.value.code == "history-document"
    assert raised.value.cause
    assert history.rows("tiny") == ()


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps).map(str.encode)
)
def test_no_bytes_break_the_reader(data: bytes) -> None:
    with pytest.raises(UsageError):
        document.read(data)


WRITER = """
    import sys
    from pathlib import Path
    from builder.gate.history import History
    from tests.session_kit import Kept, run_of
    name, count, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    sink = Kept()
    history = History(folder / "units.sqlite3", sink=sink, clock=lambda: 0.0, busy_s=60)
    for number in range(count):
        history.record(run_of(f"{name}-{number}.cu", time=number))
        print(number, flush=True)
    sys.exit("; ".join(sink.notes()) or 0)
"""


def writer(name: str, count: int, folder: Path) -> subprocess.Popen[str]:
    code = textwrap.dedent(WRITER)
    words = [sys.executable, "-c", code, name, str(count), str(folder)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent)


def test_several_processes_make_and_write_one_file(tmp_path: Path) -> None:
    children = [writer(f"w{number}", 60, tmp_path) for number in range(4)]
    for child in children:
        child.communicate()
    assert [child.returncode for child in children] == [0] * 4
    assert len(opened(tmp_path).rows("tiny")) == 240


def test_a_process_killed_while_writing_damages_nothing(tmp_path: Path) -> None:
    for number in range(4):
        child = writer(f"k{number}", 100_000, tmp_path)
        assert child.stdout is not None
        for _line in range(5 + 7 * number):
            child.stdout.readline()
        child.send_signal(signal.SIGKILL)
        told = len(child.stdout.read().splitlines()) + 5 + 7 * number
        child.wait()
        child.stdout.close()
        sink = Kept()
        history = opened(tmp_path, sink)
        kept = [run for run in history.rows("tiny") if run.unit.source.startswith(f"k{number}-")]
        assert told <= len(kept) <= told + 1  # a kill isn't a power cut: what was told is there
        history.record(run_of("after.cu"))
        assert sink.notes() == []
    database = sqlite3.connect(tmp_path / "units.sqlite3")
    assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()


def used(history: History) -> None:
    """Do everything that a build does; nothing of it may raise."""
    history.record(run_of("a.cu"))
    assert history.rows("tiny") == ()
    assert history.predictions("tiny", plain={"cu": 1}) == b"plain\tcu\t1\n"
    assert history.failed("abc") == ()
    assert history.estimate("tiny").work_ms == 0
    assert history.import_document(document.write([run_of("a.cu")])) == 0
    history.close()


@pytest.mark.parametrize("how", ["text", "zeros", "torn", "folder"])
def test_a_damaged_file_is_told_once_and_stops_nothing(tmp_path: Path, how: str) -> None:
    file = tmp_path / "units.sqlite3"
    history = opened(tmp_path)
    for number in range(200):
        history.record(run_of(f"{number}.cu"))
    history.close()
    for tail in ("-wal", "-shm"):
        file.with_name(file.name + tail).unlink(missing_ok=True)
    data = file.read_bytes()
    if how == "folder":
        file.unlink()
        file.mkdir()
    else:
        spoiled = {"text": b"no database\n" * 999, "zeros": data[:100] + bytes(len(data) - 100), "torn": data[:5000]}
        file.write_bytes(spoiled[how])
    sink = Kept()
    used(opened(tmp_path, sink))
    assert len(sink.notes()) == 1
    assert str(file) in sink.notes()[0]
    if how == "folder":
        return
    command = sink.notes()[0].rpartition("made: ")[2]
    subprocess.run(["sh", "-c", command], check=True)  # what the note says mends it
    fresh = Kept()
    history = opened(tmp_path, fresh)
    history.record(run_of("a.cu"))
    assert len(history.rows("tiny")) == 1
    assert fresh.notes() == []
    assert file.with_name("units.sqlite3.old").is_file()


def test_a_file_of_another_version_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "units.sqlite3"
    database = sqlite3.connect(file)
    database.executescript("CREATE TABLE other (x); PRAGMA user_version=7;")
    database.close()
    sink = Kept()
    used(opened(tmp_path, sink))
    assert len(sink.notes()) == 1
    assert "format 7" in sink.notes()[0]
    database = sqlite3.connect(file)
    assert database.execute("SELECT name FROM sqlite_master").fetchall() == [("other",)]
    database.close()


def test_a_foreign_database_without_a_version_is_left_alone(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "units.sqlite3")
    database.executescript("CREATE TABLE runs (x);")
    database.close()
    sink = Kept()
    used(opened(tmp_path, sink))
    assert "format 0" in sink.notes()[0]


def test_a_lock_that_is_held_costs_rows_and_no_build(tmp_path: Path) -> None:
    history = opened(tmp_path, sink := Kept(), busy_s=0.05)
    history.record(run_of("a.cu"))
    other = sqlite3.connect(tmp_path / "units.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    history.record(run_of("b.cu"))
    history.record(run_of("c.cu"))
    assert [run.unit.source for run in history.rows("tiny")] == ["a.cu"]  # readers don't wait for a writer
    other.execute("ROLLBACK")
    other.close()
    history.record(run_of("d.cu"))
    assert {run.unit.source for run in history.rows("tiny")} == {"a.cu", "d.cu"}
    assert len(sink.notes()) == 1
    assert "locked" in sink.notes()[0]


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    sink = Kept()
    used(opened(tmp_path / "nowhere", sink))
    assert len(sink.notes()) == 1
    assert "can't be written" in sink.notes()[0]


READER = """
    import os, sys
    from pathlib import Path
    os.setuid(65534)
    from builder.gate.history import History
    from tests.session_kit import Kept, run_of
    sink = Kept()
    history = History(Path(sys.argv[1]) / "units.sqlite3", sink=sink, clock=lambda: 0.0)
    print(len(history.rows("tiny")))
    history.record(run_of("b.cu"))
    history.record(run_of("c.cu"))
    print(len(history.rows("tiny")))
    print(len(sink.notes()), sink.notes())
"""


@pytest.mark.root
@pytest.mark.parametrize("wal", [False, True])
def test_a_folder_that_cant_be_written_is_read(short: Path, wal: bool) -> None:  # noqa: FBT001
    history = opened(short)
    history.record(run_of("a.cu"))
    if not wal:
        history.close()
    short.chmod(0o755)
    code = "import builder.gate.history, tests.session_kit\n" + textwrap.dedent(READER)
    words = [sys.executable, "-c", code, str(short)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=Path(__file__).parent.parent, check=False)
    assert done.returncode == 0, done.stderr
    one, two, notes = done.stdout.splitlines()
    assert (one, two) == ("1", "1")
    assert notes.startswith("1 ")
    assert "can't be written" in notes
    history.close()


@pytest.mark.root
def test_a_full_disk_is_told_and_stops_nothing(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(tmp_path)], check=True)
    try:
        history = opened(tmp_path, sink := Kept())
        for number in range(2000):
            history.record(run_of(f"{number}.cu"))
            if sink.notes():
                break
        assert len(sink.notes()) == 1
        assert "no space left" in sink.notes()[0]
        history.close()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_seeds_of_a_stronger_layer_win_and_bad_lines_are_told(tmp_path: Path) -> None:
    for layer, text in (
        ("weak", SEEDS),
        ("strong", "unit,kind,group,peak_mib,cpu_s,measured\na.cu,cu,x,7,1,1\nb.cu,cu,x,-1,1,1\n"),
    ):
        (tmp_path / layer / "seeds").mkdir(parents=True)
        (tmp_path / layer / "seeds" / "tiny.csv").write_text(text)
    sink = Kept()
    both = seeds.find("tiny", [tmp_path / "weak", tmp_path / "strong"], sink)
    found = {one.unit.source or one.unit.object: one for one in both}
    assert found["a.cu"].peak_bytes == 7 * MIB
    assert found["b.cu"].peak_bytes == 200 * MIB
    assert not found["mod/e.cuda.o"].measured
    assert len(sink.notes()) == 1
    assert "line 3: peak_mib is '-1'" in sink.notes()[0]
    assert seeds.find("other", [tmp_path / "weak", tmp_path / "nowhere"], sink) == ()


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("unit,kind\na.cu,cu\n", "no column cpu_s, peak_mib"),
        ("unit,peak_mib,cpu_s\n,1,1\n", "line 2: no unit"),
        ("#x\nunit,peak_mib,cpu_s\na.cu,nan,1\n", "line 3: peak_mib is 'nan', wanted a number from 0 to 1073741824"),
        ("unit,peak_mib,cpu_s\na.cu,1\n", "line 2: cpu_s is '', wanted a number from 0 to 33554432"),
        ("unit,peak_mib,cpu_s\na.cu,0,1\n", "line 2: peak_mib is 0"),
    ],
)
def test_a_bad_line_of_a_seed_is_named(text: str, mistake: str) -> None:
    assert seeds.read(text) == ((), (mistake,))
    assert seeds.read("") == seeds.read("# nothing\n") == ((), ())


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.cu", "cu"),
        ("a.cpp", "cxx"),
        ("m/a.cuda.o", "cu"),
        ("m/a.cu.o", "cu"),
        ("m/a.cpp.o", "cxx"),
        ("x.so", "link"),
        ("?", "other"),
    ],
)
def test_a_seed_without_a_kind_gets_it_from_its_name(name: str, kind: str) -> None:
    ((one,), _mistakes) = seeds.read(f"unit,peak_mib,cpu_s\n{name},1,1\n")
    assert one.unit.kind == kind


def test_the_seeds_that_ship_have_no_mistakes() -> None:
    for file in find.shipped().recipes.glob("seeds/*.csv"):
        found, mistakes = seeds.read(file.read_text())
        assert mistakes == (), file
        assert found, file
        assert file.with_name("..").joinpath(f"{file.stem}.toml").is_file(), file


def test_a_toolchain_of_another_machine_class_is_from_elsewhere(tmp_path: Path) -> None:
    history = opened(tmp_path)
    history.record(run_of("a.cu", machine="aarch64/20/4096", wall_ms=1000))
    assert [run.origin for run in history.rows("tiny")] == ["elsewhere"]
