from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from builder.errors import WheelhouseError
from builder.wheelhouse import journal
from tests import wheelhouse_kit as kit

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


def add(file: Path, key: str, size: int = 0) -> None:
    journal.append(file, now=1.9, op="remember", kind="k", key=key, value={"text": "x" * size})


def keys(file: Path) -> list[tuple[int, str]]:
    return [(entry["seq"], entry["key"]) for entry in journal.read(file)]


@pytest.mark.parametrize("size", [0, 1 << 16, (1 << 16) - 150, 3 << 20])
def test_entries_of_any_length_are_counted_on(file: Path, size: int) -> None:
    for key in "abc":
        add(file, key, size)
    assert keys(file) == [(1, "a"), (2, "b"), (3, "c")]


@pytest.mark.parametrize("size", [10, 3 << 20])
@pytest.mark.parametrize("kept", ["all but the line end", "half"])
def test_a_torn_last_line_of_any_length_is_cut_off(file: Path, size: int, kept: str) -> None:
    add(file, "a")
    start = file.stat().st_size
    add(file, "torn", size)
    length = file.stat().st_size - start
    with file.open("r+b") as stream:
        stream.truncate(start + (length // 2 if kept == "half" else length - 1))
    assert keys(file) == [(1, "a")]
    add(file, "b")
    assert keys(file) == [(1, "a"), (2, "b")]


def test_a_first_line_that_is_torn_leaves_an_empty_journal(file: Path) -> None:
    file.write_bytes(b'{"seq":1,"op"')
    assert keys(file) == []
    add(file, "a")
    assert keys(file) == [(1, "a")]


def test_a_hole_of_zero_bytes_at_the_end_is_torn_and_not_damage(file: Path) -> None:
    add(file, "a")
    with file.open("ab") as stream:
        stream.write(b"\0" * 5000 + b'"}\n')
    assert keys(file) == [(1, "a")]
    add(file, "b")
    assert keys(file) == [(1, "a"), (2, "b")]


@pytest.mark.parametrize("line", [0, 1, 2])
def test_a_changed_byte_is_damage_wherever_it_is(file: Path, line: int) -> None:
    for key in "abc":
        add(file, key)
    lines = file.read_bytes().splitlines(keepends=True)
    lines[line] = lines[line].replace(b'"remember"', b'"forgotte"')
    file.write_bytes(b"".join(lines))
    with pytest.raises(WheelhouseError) as caught:
        list(journal.read(file))
    assert caught.value.code == "journal-damaged"
    subprocess.run(["sh", "-c", caught.value.run[0]], check=True)
    assert len(keys(file)) == 2


def test_nothing_is_appended_to_a_damaged_last_line(file: Path) -> None:
    add(file, "a")
    file.write_bytes(file.read_bytes().replace(b'"remember"', b'"forgotte"'))
    before = file.read_bytes()
    with pytest.raises(WheelhouseError):
        add(file, "b")
    assert file.read_bytes() == before


def test_an_append_reads_the_end_only(file: Path) -> None:
    """What a journal of 10,000 entries costs is told by what is read, not by a clock."""
    add(file, "a", 1000)
    line = file.read_bytes()
    entry = json.loads(line)
    assert entry["seq"] == 1
    with file.open("ab") as stream:
        stream.write(line * 10_000)
    code = (
        "import sys, pathlib; from builder.wheelhouse import journal\n"
        "io = lambda: int(open('/proc/self/io').read().split()[1])\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "journal.append(path, now=0, op='warm')\n"
        "before = io(); journal.append(path, now=0, op='x'); print(io() - before)\n"
    )
    read = int(kit.finished(kit.child(code, str(file))))
    assert 0 < read < 1 << 18
    assert file.stat().st_size > 10_000_000


@pytest.mark.root
def test_a_full_disk_leaves_the_journal_as_it_was(tmp_path: Path) -> None:
    with kit.small_disk(tmp_path / "disk", "256k") as disk:
        file = disk / "journal.jsonl"
        add(file, "a", 3000)
        before = file.read_bytes()
        ballast = kit.fill(disk)
        with pytest.raises(OSError, match="No space left"):
            add(file, "b", 20_000)
        assert file.read_bytes() == before
        ballast.unlink()
        add(file, "b", 20_000)
        assert keys(file) == [(1, "a"), (2, "b")]
