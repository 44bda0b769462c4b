"""Killed at every phase and at random moments: nothing is lost, nothing half-done, and the next run goes on."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, get_args

import pytest

from builder.events import PhaseName
from tests import proof_kit
from tests.proof_kit import COMPILE, Run, finished, project, settled

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.world import World

PHASES = get_args(PhaseName)
OUTPUTS = ("set-a", "set-b", "set-c")
#: Where the random kills fall, most of them while wheels are filed.
WEIGHTS = {"before": 2, "fetch": 1, "build": 3, "pack": 1, "audit": 1, "publish": 7, "filing": 5}
#: How long a kill waits at most after the journal has announced a publish: names and catalogue change then, in seconds.
FILING_S = 0.03


def compiled(world: World) -> None:
    """Make the recipe ``set`` of three wheels, each with compiled code."""
    files = {f"part{number}.c": proof_kit.c_file(number) for number in range(2)}
    project(world, "set", COMPILE, files=files, outputs=OUTPUTS, more='[build.env]\nROUND = "0"\n')


# --- random moments


def measured(world: World) -> dict[str, float]:
    """Build once and return how long each phase took, in seconds; ``before`` is the time until the first."""
    started = time.monotonic()
    with Run.start(world, "recipe", "set") as run:
        run.until("build.started")
        took = {"before": time.monotonic() - started}
        assert len(run.printed()) == len(OUTPUTS)
    for event in run.events:
        if event["kind"] == "phase.ended":
            took[event["phase"]] = took.get(event["phase"], 0.0) + event["ms"] / 1000
    return took


def reach(world: World, run: Run, phase: str) -> None:
    """Return when a phase begins; ``filing`` begins with the journal's word for it."""
    if phase == "before":
        return
    run.until("phase.started", phase="publish" if phase == "filing" else phase)
    journal = world.wheelhouse / "journal.jsonl"
    before = journal.stat().st_size
    while phase == "filing" and journal.stat().st_size == before and run.child.poll() is None:
        time.sleep(0.0005)


def fell(world: World, run: Run) -> str:
    """Return where a kill fell: the phase that had begun, in a publish by what was on the disk."""
    phases = [event for event in run.events if event["kind"].startswith("phase.")]
    if not run.fingerprint():
        return "before the build"
    if phases[-1]["phase"] != "publish":
        return str(phases[-1]["phase"])
    if phases[-1]["kind"] == "phase.ended":
        return "publish, ended"
    sql = "SELECT COUNT(*) FROM wheels WHERE fingerprint=?"
    listed = proof_kit.rows(world.wheelhouse, sql, [run.fingerprint()])
    lines = (world.wheelhouse / "journal.jsonl").read_text().splitlines()
    ops = [json.loads(line)["op"] for line in lines if line.endswith("}")]
    if listed and listed[0][0]:
        return "publish, listed" if ops[-1] == "publish.end" else "publish, listed, not ended"
    if ops[-1] != "publish.begin":
        return "publish, copying"
    placed = list((world.wheelhouse / "wheels").glob(f"*/*.g{run.fingerprint()[:10]}*.whl"))
    return f"publish, {len(placed)} of {len(OUTPUTS)} placed"


def test_random_kills_lose_nothing(
    world: World, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    rounds = 100 if request.config.getoption("--slow") else 6
    chance = random.Random(rounds)  # noqa: S311  # moments, not secrets
    compiled(world)
    took = measured(world)
    printed: dict[Path, str] = {}
    where: Counter[str] = Counter()
    for number in range(1, 4 * rounds):
        if number > rounds and in_publish(where) >= rounds // 3:  # on a busy machine some moments are missed
            break
        mark = f"ROUND={number}-{os.getpid()}-{time.monotonic_ns()}"
        words = ("recipe", "set", "--env", mark)
        phase = chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        with Run.start(world, *words) as run:
            reach(world, run, phase)
            time.sleep(chance.uniform(0, FILING_S if phase == "filing" else took[phase] * 1.2))
            run.kill(group=number % 2 == 0)
            seen = run.printed()
            where[fell(world, run) if run.child.returncode == -signal.SIGKILL else "too late"] += 1
        printed |= {path: proof_kit.sha256(path) for path in seen}
        settled(world, printed, mark)
        with Run.start(world, *words) as again:
            wheels = again.printed()
            assert again.child.returncode == 0, "".join(again.text)
        assert len(wheels) == len(OUTPUTS)
        assert not seen or wheels == seen
        printed |= {path: proof_kit.sha256(path) for path in wheels}
        proof_kit.check_whole(world.wheelhouse)
    settled(world, printed)
    with capsys.disabled():
        if request.config.getoption("--slow"):
            told = (f"  {name:<28}{count:>4}" for name, count in sorted(where.items()))
            print(f"\n{where.total()} kills:", *told, sep="\n")  # noqa: T201
    assert in_publish(where) >= rounds // 3


def in_publish(where: Counter[str]) -> int:
    return sum(count for name, count in where.items() if name.startswith("publish"))


# --- every phase


#: A patch phase, a wheel and a publish that take a moment.
SLOW_STEPS = "(made / 'large').write_bytes(b''.join(hashlib.sha256(b'%d' % n).digest() for n in range(1 << 16)))"


@pytest.mark.parametrize("phase", PHASES)
def test_killed_at_a_phase_again_and_again_the_next_run_comes_there_and_the_last_one_finishes(
    world: World, phase: str
) -> None:
    project(world, "tiny", SLOW_STEPS)
    for how in ("TERM", "group", "command"):
        with Run.start(world, "recipe", "tiny") as run:
            run.until("phase.started", phase=phase)
            run.kill(signal.SIGTERM if how == "TERM" else signal.SIGKILL, group=how == "group")
            assert not run.printed(), how
            assert run.child.returncode == (143 if how == "TERM" else -signal.SIGKILL), how
        settled(world, {})
    finished(world, "tiny")


@pytest.fixture
def index(world: World) -> Iterator[proof_kit.Index]:
    with proof_kit.index(world.root / "index") as served:
        served.add_wheel("helper")
        yield served


@pytest.mark.parametrize(
    ("stall", "what"),
    [
        ("simple/tiny", "pin"),
        ("tiny-1.0.tar.gz", "download"),
        ("simple/helper", "lock"),
        ("helper-1.0-py3-none-any.whl", "env"),
    ],
    ids=lambda value: value.replace("/", "-"),
)
def test_kill_while_a_server_is_waited_for(world: World, index: proof_kit.Index, stall: str, what: str) -> None:
    """Nothing that was started stays behind, not even what hangs on a server; what came half isn't taken for whole."""
    repo = project(world, "tiny", requires=["helper"])
    subprocess.run(
        ["git", "archive", "--format=tar.gz", "--prefix=tiny-1.0/", "-o", index.folder / "tiny-1.0.tar.gz", "HEAD"],
        cwd=repo,
        check=True,
    )
    text = 'schema = 1\nname = "tiny"\n[[source]]\nkind = "sdist"\nproject = "tiny"\nversion = "1.0"\n'
    world.recipe("tiny", text + '[[output]]\nname = "tiny"\n')
    env: Any = {"SPARK_BUILD_INDEX_URL": index.url, "UV_CACHE_DIR": str(world.root / "uv")}
    index.stall = stall
    with Run.start(world, "recipe", "tiny", **env) as run:
        run.wait(index.reached.is_set, what)
        run.kill()
        run.end()
    settled(world, {})
    index.stall = ""
    finished(world, "tiny", **env)


@pytest.mark.parametrize("stall", ["info/refs", "objects"])
def test_kill_while_git_waits_for_its_server(world: World, index: proof_kit.Index, stall: str) -> None:
    repo = project(world, "tiny")
    subprocess.run(["git", "clone", "-q", "--bare", repo, index.folder / "repo.git"], check=True)
    subprocess.run(["git", "update-server-info"], cwd=index.folder / "repo.git", check=True)
    url = index.url.replace("/simple", "/files/repo.git")
    world.tiny_recipe(url=url)
    index.stall = stall
    with Run.start(world, "recipe", "tiny") as run:
        run.wait(index.reached.is_set, stall)
        run.kill()
        run.end()
    settled(world, {})
    index.stall = ""
    finished(world, "tiny")


#: Leaves a process in a session of its own, as a compiler's server does.
DAEMON = "(setsid sleep 300 >/dev/null 2>&1 &); sleep 0.3"


def test_a_daemon_ends_with_its_build_where_there_are_no_namespaces(world: World) -> None:
    project(world, "tiny", f"subprocess.run(['sh', '-c', {DAEMON!r}], check=True)")
    mark = f"ROUND={os.getpid()}-{time.monotonic_ns()}"
    assert world.wheels("tiny", "--isolation", "none", "--env", mark)
    settled(world, {}, mark)


def test_kill_ends_the_build_where_there_are_no_namespaces_too(world: World) -> None:
    script = f"{DAEMON}; touch $HOME/at; sleep 300 & sleep 300"
    project(world, "tiny", f"subprocess.run(['sh', '-c', {script!r}], check=True)")
    mark = f"ROUND={os.getpid()}-{time.monotonic_ns()}"
    with Run.start(world, "recipe", "tiny", "--isolation", "none", "--env", mark) as run:
        run.wait(lambda: list((world.wheelhouse / "builds").glob("*/home/at")), "the build")
        run.kill()
        run.end()
    settled(world, {}, mark)
