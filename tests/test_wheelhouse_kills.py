"""SIGKILL at the lines of builder/wheelhouse one after the other, and at random moments of another process."""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from builder.digest import sha256_file
from builder.wheelhouse.reindex import reindex
from tests import wheelhouse_kit as kit

if TYPE_CHECKING:
    from collections.abc import Iterator

OPERATIONS = ["publish", "also", "replace", "remove", "promote", "rollback", "withhold", "remember", "reindex"]
LONG = {"also", "rollback", "withhold"}


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: a kill leaves the same there, and a sync takes no time."""
    shm = Path("/dev/shm")  # noqa: S108  # a folder of our own in it
    if not shm.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=shm) as folder:
        yield Path(folder)


def kill_lines(folder: Path, operation: str, parts: int, part: int) -> int:
    code = "import sys; from tests import wheelhouse_kit; wheelhouse_kit.kill_at_every_line(*sys.argv[1:])"
    process = kit.child(code, str(folder), operation, str(parts), str(part))
    out, err = process.communicate()
    assert process.returncode == 0, err
    return int(out)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_kill_at_any_line_leaves_a_whole_wheelhouse(memory: Path, operation: str) -> None:
    """Every thirteenth line, of the longer ones every 29th; --slow takes them all."""
    lines = kill_lines(memory, operation, 29 if operation in LONG else 13, 3)
    assert lines > 100


@pytest.mark.slow
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_kill_at_every_line_leaves_a_whole_wheelhouse(memory: Path, operation: str) -> None:
    assert kill_lines(memory, operation, 1, 1) > 100


PUBLISHER = """
import pathlib, sys
from tests import wheelhouse_kit as kit
root, first = pathlib.Path(sys.argv[1]), int(sys.argv[2])
wheels = sorted((root / "dist").glob("*.whl"))
with kit.opened(root / "house") as house:
    print("open", flush=True)
    for number in range(first, first + 1000):
        made = [kit.wheel(root / "dist" / str(number), name, f"{number}.0", size=100_000) for name in ("a", "b", "c")]
        for one in kit.publish(house, made, fingerprint=f"{number:064x}", inputs={"number": number}):
            print(one.path, one.sha256, flush=True)
"""


def test_kills_at_random_moments_of_publishing_sets(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    moments = random.Random(7)  # noqa: S311  # moments of kills
    printed: dict[Path, str] = {}
    for kill in range(25 if request.config.getoption("--slow") else 10):
        process = kit.child(PUBLISHER, str(tmp_path), str(kill * 1000))
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        time.sleep(moments.uniform(0.0, 0.15))
        process.kill()
        out, _err = process.communicate()
        for line in out.splitlines():
            if len(line.split()) == 2 and len(line.split()[1]) == 64:
                printed[Path(line.split()[0])] = line.split()[1]
        listed = kit.whole(tmp_path / "house")
        sets: dict[str, set[str]] = {}
        for name in listed:
            sets.setdefault(name.split("-")[1], set()).add(name[0])
        assert all(names == {"a", "b", "c"} for names in sets.values())
        shutil.rmtree(tmp_path / "dist", ignore_errors=True)
    assert printed
    for path, sha256 in printed.items():
        assert sha256_file(path) == sha256


@pytest.mark.parametrize("deleted", [False, True])
@pytest.mark.parametrize("step", ["_place", "_enter"])
def test_a_publish_that_was_announced_is_completed_by_the_next_opening_or_reindex(
    memory: Path,
    step: str,
    deleted: bool,  # noqa: FBT001  # a case
) -> None:
    """Killed between the journal and the catalogue: everything is there but the listing."""
    code = """
import pathlib, sys
from tests import wheelhouse_kit as kit
root = pathlib.Path(sys.argv[1])
with kit.opened(root / "house") as house:
    made = [kit.wheel(root / "dist", name) for name in ("a", "b")]
    kit.kill_in(sys.argv[2])
    kit.publish(house, made, fingerprint="a" * 64, inputs={"name": "x"})
"""
    root = memory / "house"
    kit.finished(kit.child(code, str(memory), step), code=-9)
    if deleted:
        for file in root.glob("catalog.sqlite3*"):
            file.unlink()
        assert reindex(root, clock=time.time).listed == 2
    with kit.opened(root) as house:
        assert {one.output for one in house.find("a" * 64)} == {"a", "b"}
        assert house.inputs("a" * 64) == {"name": "x"}
        assert house.channels(house.find("a" * 64)[0]) == ("local",)
    kit.whole(root)
    kept = kit.contents(root)
    reindex(root, clock=time.time)
    assert kit.contents(root) == kept
