"""`log` and `history`, and the finding of attempts behind both."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import termios
import time
from typing import TYPE_CHECKING, Any

import pytest

from builder import events
from builder.errors import UsageError
from builder.pipeline import builds
from builder.wheelhouse import locks
from tests.ui_kit import NOON
from tests.world import COMMAND

if TYPE_CHECKING:
    from pathlib import Path

    from tests.world import World

ONE, TWO = "1a" * 32, "1b" * 32


def attempt(
    house: Path, fingerprint: str, number: int, *more: events.Event, at: float = NOON, recipe: str = "tiny"
) -> Path:
    """Write the events of an attempt as the pipeline does."""
    logs = house / "builds" / fingerprint / "logs" / str(number)
    logs.mkdir(parents=True)
    with (logs / "events.jsonl").open("a") as stream:
        sink = events.JsonLines(stream, build=fingerprint[:12], clock=lambda: at)
        sink.emit(
            events.BuildStarted(
                recipe=recipe,
                version="1.0",
                fingerprint=fingerprint,
                label="sb1",
                outputs=(recipe,),
                attempt=number,
                isolation="namespace",
            )
        )
        for event in more:
            sink.emit(event)
    return logs


def ended(status: str = "ok", **more: Any) -> events.BuildEnded:  # noqa: ANN401  # fields of an event
    return events.BuildEnded(status=status, ms=65_000, **more)  # type: ignore[arg-type]


def failed_in(phase: str) -> tuple[events.Event, ...]:
    return (
        events.PhaseStarted(phase=phase),  # type: ignore[arg-type]
        events.PhaseEnded(phase=phase, status="failed", ms=5),  # type: ignore[arg-type]
        ended("failed", code="build-failed", summary="it failed"),
    )


def test_attempts_come_newest_first_with_how_they_ended(tmp_path: Path) -> None:
    attempt(tmp_path, ONE, 1, *failed_in("build"), at=NOON)
    attempt(tmp_path, ONE, 2, ended(peak_bytes=5), at=NOON + 10)
    attempt(tmp_path, TWO, 1, ended("interrupted"), at=NOON + 5, recipe="other")
    found = builds.attempts(tmp_path)
    assert [(one.recipe, one.attempt, one.outcome, one.phase, one.ms) for one in found] == [
        ("tiny", 2, "ok", None, 65_000),
        ("other", 1, "interrupted", None, 65_000),
        ("tiny", 1, "failed", "build", 65_000),
    ]
    assert (found[0].peak_bytes, found[0].started, found[2].code) == (5, NOON + 10, "build-failed")
    assert [one.recipe for one in builds.attempts(tmp_path, recipe="other")] == ["other"]


def test_a_file_without_an_end_was_killed_unless_its_lock_is_held(tmp_path: Path) -> None:
    attempt(tmp_path, ONE, 1, events.PhaseStarted(phase="env"), at=NOON)
    attempt(tmp_path, ONE, 2, events.PhaseStarted(phase="build"), at=NOON + 1)
    assert [(one.outcome, one.phase) for one in builds.attempts(tmp_path)] == [("killed", "build"), ("killed", "env")]
    with locks.held(tmp_path / "locks" / ONE):
        assert [one.outcome for one in builds.attempts(tmp_path)] == ["running", "killed"]


def built(output: str, minutes: int, status: str = "ok") -> events.Event:
    return events.PhaseEnded(phase="build", status=status, ms=minutes * 60_000, output=output)  # type: ignore[arg-type]


def test_an_estimate_is_the_sum_of_the_medians_of_each_outputs_newest_builds(tmp_path: Path) -> None:
    for number, minutes in enumerate([500] * 3 + [10] * 7 + [20] * 3, 1):
        attempt(tmp_path, ONE, number, built("tiny", minutes), ended(), at=NOON + number)
    attempt(tmp_path, TWO, 1, built("second", 5), built("tiny", 900, "failed"), at=NOON + 99)
    attempt(tmp_path, TWO, 2, built("tiny", 900), at=NOON + 99, recipe="other")
    assert builds.estimate(tmp_path, "tiny", ["tiny"]) == 600
    assert builds.estimate(tmp_path, "tiny", ["tiny", "second"]) == 900
    assert builds.estimate(tmp_path, "tiny", ["tiny", "never-built"]) is None
    assert builds.estimate(tmp_path, "tiny", []) is None
    assert builds.estimate(tmp_path / "nowhere", "tiny", ["tiny"]) is None


def test_torn_and_strange_files_are_passed_over_or_read_as_far_as_they_go(tmp_path: Path) -> None:
    logs = attempt(tmp_path, ONE, 1, *failed_in("pack"))
    with (logs / "events.jsonl").open("a") as stream:
        stream.write('{"v":1,"kind":"build.en')
    strange = tmp_path / "builds" / TWO / "logs" / "1"
    strange.mkdir(parents=True)
    (strange / "events.jsonl").write_bytes(b"\xff\xfe no events\n")
    (one,) = builds.attempts(tmp_path)
    assert (one.outcome, one.phase) == ("failed", "pack")


def test_the_end_is_found_behind_megabytes_of_progress(tmp_path: Path) -> None:
    many = [events.Fetching(name="x", done=n, total=None) for n in range(20_000)]
    attempt(tmp_path, ONE, 1, *many, *failed_in("fetch"))
    (one,) = builds.attempts(tmp_path)
    assert (one.outcome, one.phase, one.recipe) == ("failed", "fetch", "tiny")


def test_a_ref_is_the_start_of_a_fingerprint_or_counts_from_the_newest(tmp_path: Path) -> None:
    attempt(tmp_path, ONE, 1, *failed_in("build"), at=NOON)
    attempt(tmp_path, ONE, 2, ended(), at=NOON + 1)
    attempt(tmp_path, TWO, 1, ended(), at=NOON + 2)
    found = builds.attempts(tmp_path)
    assert builds.choose(found, None) == builds.choose(found, "^1") == builds.choose(found, "1b") == found[0]
    assert builds.choose(found, "^2").attempt == builds.choose(found, "1a").attempt == 2
    assert builds.choose(found, None, failed=True).attempt == 1
    for ref, words in (
        ("1", "several"),
        ("ffff", "no attempt"),
        ("^4", "no attempt"),
        ("^x", "no attempt"),
        ("^0", "no"),
    ):
        with pytest.raises(UsageError, match=words) as caught:
            builds.choose(found, ref)
        assert ONE[:10] in caught.value.cause
        assert TWO[:10] in caught.value.cause
    with pytest.raises(UsageError, match="1b names no failed attempt"):
        builds.choose(found, "1b", failed=True)
    with pytest.raises(UsageError) as empty:
        builds.choose((), None)
    assert empty.value.cause == "nothing was built in this wheelhouse yet"


def test_log_shows_what_a_real_build_printed(world: World) -> None:
    world.tiny_repo(extra='print("hello from the backend", flush=True)')
    world.tiny_recipe()
    built = world.json("recipe", "tiny")["wheels"][0]["fingerprint"]
    done = world.run("log")
    assert "hello from the backend" in done.stdout
    assert f"tiny 1.0 {built[:10]}, attempt 1: ok" in done.stderr
    assert world.run("log", built[:6], "--phase", "build").stdout == done.stdout
    told = [events.parse_line(line) for line in world.run("log", "--events").stdout.splitlines()]
    assert isinstance(told[0][1], events.BuildStarted)
    assert isinstance(told[-1][1], events.BuildEnded)
    assert all(event is not None for _, event in told)
    missing = world.run("log", "--phase", "audit", code=2)
    assert "build" in missing.stderr


def test_a_failed_build_is_found_by_its_own_words(world: World) -> None:
    world.tiny_repo(extra='print("a.c:3:5: error: nope undeclared", flush=True)\nraise SystemExit(1)')
    world.tiny_recipe()
    failed = world.run("recipe", "tiny", code=1)
    assert "cause: a.c:3:5: error: nope undeclared" in failed.stderr
    command = next(line for line in failed.stderr.splitlines() if "spark-build log" in line).split("spark-build ")[1]
    done = world.run(*command.split())
    assert "a.c:3:5: error: nope undeclared" in done.stdout
    assert "failed in build" in done.stderr
    shown = world.json("log", "--failed")
    assert shown["attempt"]["outcome"] == "failed"
    assert list(shown["logs"]) == ["build"]


def test_history_is_a_table_and_json(world: World) -> None:
    assert "nothing was built" in world.run("history").stderr
    world.tiny_repo()
    world.tiny_recipe()
    world.run("recipe", "tiny")
    head, row = world.run("history").stdout.splitlines()
    assert head.split() == ["when", "recipe", "version", "build", "try", "outcome", "took", "memory"]
    assert row.split()[0] == "✔"
    assert "tiny" in row
    (one,) = world.json("history")["attempts"]
    assert (one["recipe"], one["outcome"], one["attempt"]) == ("tiny", "ok", 1)
    assert world.json("history", "other")["attempts"] == []


def test_history_keeps_to_eighty_columns_and_says_what_is_left_out(world: World) -> None:
    for number in range(1, 5):
        attempt(
            world.wheelhouse,
            ONE,
            number,
            *failed_in("publish"),
            at=NOON + number,
            recipe="a-recipe-with-a-very-long-name",
        )
    done = world.run("history", "--limit", "3")
    assert len(done.stdout.splitlines()) == 4
    assert max(len(line) for line in done.stdout.splitlines()) <= 80
    assert "1 older" in done.stderr


def test_history_of_a_name_that_was_never_built_says_which_were(world: World) -> None:
    for name in ("flashinfer", "triton"):
        attempt(world.wheelhouse, ONE if name == "triton" else TWO, 1, recipe=name)
    told = world.run("history", "vllm").stderr
    assert "no build of vllm is known" in told
    assert told.endswith("only of flashinfer, triton\n")


def test_history_fits_a_narrow_terminal(world: World) -> None:
    attempt(world.wheelhouse, ONE, 1, *failed_in("publish"), recipe="flashinfer-with-a-long-name")
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 40))
    subprocess.run([str(COMMAND), "history"], env=world.env(), stdout=theirs, check=True)
    os.close(theirs)
    told = os.read(ours, 10_000).decode().splitlines()
    os.close(ours)
    assert len(told) == 2
    assert max(map(len, told)) <= 40
    assert told[1].startswith("✘")
    assert ONE[:10] in told[1]


def test_a_killed_build_is_told_as_killed_and_its_log_is_there(world: World) -> None:
    world.tiny_repo(extra='print("before the kill", flush=True)\nimport time\ntime.sleep(60)')
    world.tiny_recipe()
    child = subprocess.Popen(
        [str(COMMAND), "recipe", "tiny"], env=world.env(), cwd=world.root, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = builds.attempts(world.wheelhouse)
        if found and any("before the kill" in log.read_text() for log in found[0].logs.glob("build.log")):
            break
        time.sleep(0.05)
    assert builds.attempts(world.wheelhouse)[0].outcome == "running"
    child.send_signal(signal.SIGKILL)
    child.wait()
    while builds.attempts(world.wheelhouse)[0].outcome == "running" and time.monotonic() < deadline:
        time.sleep(0.05)
    (one,) = world.json("history")["attempts"]
    assert (one["outcome"], one["phase"]) == ("killed", "build")
    assert "before the kill" in world.run("log", "--failed").stdout
