from __future__ import annotations

import os
import sqlite3
import subprocess
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from builder import history
from builder.history import Past

if TYPE_CHECKING:
    from collections.abc import Iterator

ONE = Past(
    recipe="triton",
    output="triton",
    phase="build",
    ms=60_000,
    peak_bytes=1 << 30,
    status="ok",
    when=100.0,
    fingerprint="f" * 64,
    host="aarch64",
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "house" / "history.sqlite3"


def fill(file: Path, *ones: Past) -> None:
    for one in ones:
        history.record(file, one)


def test_what_was_recorded_comes_back_newest_first(file: Path) -> None:
    fill(file, ONE, replace(ONE, when=300.0, peak_bytes=None), replace(ONE, recipe="vllm", when=200.0))
    assert [one.when for one in history.past(file, limit=10)] == [300.0, 200.0, 100.0]
    assert history.past(file, recipe="triton", limit=1) == (replace(ONE, when=300.0, peak_bytes=None),)


def test_nothing_is_known_of_a_file_that_is_not_there(file: Path) -> None:
    assert history.past(file, limit=10) == ()
    assert history.estimate(file, "triton", ["triton"]) is None
    assert not file.parent.exists()


def test_the_estimate_is_the_median_of_the_newest_good_builds(file: Path) -> None:
    times = [90_000, 10_000, 20_000]
    fill(file, *(replace(ONE, ms=ms, when=float(number)) for number, ms in enumerate(times)))
    assert history.estimate(file, "triton", ["triton"]) == 20
    fill(
        file,
        replace(ONE, ms=1, status="failed", when=9.0),
        replace(ONE, ms=1, status="interrupted", when=9.0),
        replace(ONE, ms=1, phase="env", when=9.0),
        replace(ONE, ms=1, recipe="other", when=9.0),
    )
    assert history.estimate(file, "triton", ["triton"]) == 20


def test_builds_of_long_ago_count_no_more(file: Path) -> None:
    fill(file, *(replace(ONE, ms=900_000, when=float(number)) for number in range(history.SAMPLE)))
    fill(file, *(replace(ONE, ms=5_000, when=1000.0 + number) for number in range(history.SAMPLE)))
    assert history.estimate(file, "triton", ["triton"]) == 5


def test_outputs_are_built_one_after_the_other(file: Path) -> None:
    fill(file, ONE, replace(ONE, output="second", ms=30_000))
    assert history.estimate(file, "triton", ["triton", "second"]) == 90
    assert history.estimate(file, "triton", ["triton", "never-built"]) is None
    assert history.estimate(file, "triton", []) is None


def test_another_kind_of_machine_says_nothing_about_this_one(file: Path) -> None:
    fill(file, ONE, replace(ONE, host="x86_64", ms=2_000, when=200.0))
    assert history.estimate(file, "triton", ["triton"], host="aarch64") == 60
    assert history.estimate(file, "triton", ["triton"], host="riscv64") is None


@pytest.mark.parametrize("damage", [b"no database at all" * 500, b"SQLite format 3\0" + b"\xff" * 8000])
def test_a_damaged_file_is_set_aside_and_the_next_build_recorded(file: Path, damage: bytes) -> None:
    file.parent.mkdir()
    file.write_bytes(damage)
    assert history.past(file, limit=10) == ()
    assert history.estimate(file, "triton", ["triton"]) is None
    assert file.read_bytes() == damage, "who only reads changes nothing"
    notes: list[str] = []
    history.record(file, ONE, note=notes.append)
    assert history.past(file, limit=10) == (ONE,)
    assert file.with_name("history.sqlite3.damaged-1").read_bytes() == damage
    assert [str(file) in note and "damaged-1" in note for note in notes] == [True]
    file.write_bytes(damage)
    history.record(file, ONE)
    assert file.with_name("history.sqlite3.damaged-2").exists()


def test_a_half_written_file_is_damaged_too(file: Path) -> None:
    fill(file, *(replace(ONE, when=float(number)) for number in range(400)))
    os.truncate(file, file.stat().st_size // 2 // 4096 * 4096)
    history.record(file, ONE)
    assert history.past(file, limit=1) == (ONE,)


def test_one_that_is_locked_is_left_and_said_so(file: Path) -> None:
    fill(file, ONE)
    holder = sqlite3.connect(file, isolation_level=None)
    holder.execute("begin exclusive")
    notes: list[str] = []
    history.record(file, replace(ONE, when=2.0), note=notes.append, busy_s=0.1)
    holder.close()
    assert [note for note in notes if "locked" in note] == notes != []
    assert history.past(file, limit=10) == (ONE,)
    assert list(file.parent.glob("*.damaged*")) == []


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A file system with a history, mounted read-only."""
    folder = tmp_path / "media"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)], check=True)
    try:
        fill(folder / "history.sqlite3", ONE)
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        yield folder / "history.sqlite3"
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.root
def test_a_history_on_read_only_media_is_read_and_not_written(read_only: Path) -> None:
    notes: list[str] = []
    history.record(read_only, replace(ONE, when=2.0), note=notes.append)
    assert history.past(read_only, limit=10) == (ONE,)
    assert history.estimate(read_only, "triton", ["triton"]) == 60
    assert len(notes) == 1


def _record_many(file: str, start: int) -> None:
    for number in range(20):
        history.record(Path(file), replace(ONE, when=float(start + number)))


def test_several_processes_may_record_at_once(file: Path) -> None:
    spawn = get_context("spawn")
    workers = [spawn.Process(target=_record_many, args=(str(file), 100 * number)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(history.past(file, limit=1000)) == 60
