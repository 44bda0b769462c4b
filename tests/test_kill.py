"""Killed at every phase and at random moments: nothing is lost, nothing half-done, and the next run goes on."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from builder.executor import workspace
from tests import proof_kit
from tests.proof_kit import COMPILE, Run, project
from tests.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

PHASES = ("pin", "lock", "fetch", "patch", "env", "build", "pack", "audit", "publish")
OUTPUTS = ("set-a", "set-b", "set-c")
#: Where the random kills fall, most of them while wheels are filed.
WEIGHTS = {"before": 2, "fetch": 1, "build": 3, "pack": 1, "audit": 1, "publish": 7, "filing": 5}
#: How long a kill waits at most after the journal has announced a publish: names and catalogue change then, in seconds.
FILING_S = 0.03


def compiled(world: World) -> None:
    """Make the recipe ``set`` of three wheels, each with compiled code."""
    files = {f"part{number}.c": proof_kit.c_file(number) for number in range(2)}
    project(world, "set", COMPILE, files=files, outputs=OUTPUTS, more='[build.env]\nROUND = "0"\n')


def settled(world: World, printed: dict[Path, str], *marks: str) -> None:
    """What must hold right after a kill: listed wheels are whole, printed ones are there, nothing of the build lives."""
    proof_kit.check_listed(world.wheelhouse)
    for path, digest in printed.items():
        assert proof_kit.sha256(path) == digest
    proof_kit.until(lambda: not proof_kit.alive(world.root, *marks), "the end of every process", limit_s=10)


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


def test_random_kills_lose_nothing(world: World, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    rounds = 100 if request.config.getoption("--slow") else 12
    chance = random.Random(rounds)
    compiled(world)
    took = measured(world)
    printed: dict[Path, str] = {}
    where: Counter[str] = Counter()
    for number in range(1, rounds + 1):
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
            print(f"\n{rounds} kills:", *(f"  {name:<28}{count:>4}" for name, count in sorted(where.items())), sep="\n")  # noqa: T201
    assert sum(count for name, count in where.items() if name.startswith("publish")) >= rounds // 3


# --- every phase


#: A patch phase, a wheel and a publish that take a moment.
SLOW_STEPS = "(made / 'large').write_bytes(b''.join(hashlib.sha256(b'%d' % n).digest() for n in range(1 << 16)))"


@pytest.mark.parametrize("how", ["command", "group", "TERM"])
@pytest.mark.parametrize("phase", PHASES)
def test_kill_at_a_phase_and_the_next_run_finishes(world: World, phase: str, how: str) -> None:
    project(world, "tiny", SLOW_STEPS)
    with Run.start(world, "recipe", "tiny") as run:
        run.until("phase.started", phase=phase)
        run.kill(signal.SIGTERM if how == "TERM" else signal.SIGKILL, group=how == "group")
        assert not run.printed()
        assert run.child.returncode == (143 if how == "TERM" else -signal.SIGKILL)
    settled(world, {})
    began = [event["phase"] for event in run.events if event["kind"] == "phase.started"]
    assert began[: PHASES.index(phase) + 1] == list(PHASES[: PHASES.index(phase) + 1])
    finished(world, "tiny")


def finished(world: World, name: str, *words: str, **env: str) -> Path:
    """Run to the end, check all there is, and return the one wheel."""
    (wheel,) = world.wheels(name, *words, **env)
    assert world.wheels(name, *words, **env) == [wheel]
    proof_kit.check_whole(world.wheelhouse)
    return wheel


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
    env = {"SPARK_BUILD_INDEX_URL": index.url, "UV_CACHE_DIR": str(world.root / "uv")}
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


# --- objects


#: A compiler that keeps a record; it waits before `WAIT_AT` until the file ``go`` is there.
COMPILER = """#!/bin/sh
here={here}
object=$(echo "$*" | sed 's/.*-o //; s/ .*//')
case $object in
*{wait_at}.o) echo waiting >> $here/waiting; while [ ! -e $here/go ]; do sleep 0.02; done ;;
esac
cc "$@" && echo $object >> $here/compiled
"""
NINJA = """rule cc
  command = ./compiler -c $in -o $out
{rules}
build all: phony {objects}
"""
MAKE = """all: {objects}
%.o: %.c
\t./compiler -c $< -o $@
"""
COUNT = 20
WAIT_AT = 12


def objects(world: World, tool: str) -> Path:
    """Make a project of C files that `tool` compiles, and return the folder of its record."""
    record = world.root / "record"
    record.mkdir()
    names = [f"part{number:02}" for number in range(COUNT)]
    files: dict[str, str | bytes] = {f"{name}.c": f"int {name}(void) {{ return 1; }}\n" for name in names}
    files["compiler"] = COMPILER.format(here=record, wait_at=names[WAIT_AT])
    made = " ".join(f"{name}.o" for name in names)
    files["build.ninja"] = NINJA.format(
        rules="\n".join(f"build {name}.o: cc {name}.c" for name in names), objects=made
    )
    files["Makefile"] = MAKE.format(objects=made)
    run = {"ninja": "['ninja', '-j', '2', 'all']", "make": "['make', '-j', '2', 'all']"}[tool]
    steps = f"""
    os.chmod("compiler", 0o755)
    subprocess.run({run}, check=True)
    for name in sorted(pathlib.Path(".").glob("*.o")):
        shutil.copy(name, made)
    """
    project(world, "tiny", steps, files=files)
    return record


def compiled_once(record: Path) -> tuple[set[str], set[str]]:
    """Return the objects that were compiled, and those of them that were compiled again."""
    told = record / "compiled"
    counted = Counter(told.read_text().split() if told.exists() else ())
    return set(counted), {name for name, times in counted.items() if times > 1}


def stopped_at_the_waiting_one(world: World, record: Path, signum: int) -> tuple[Run, Path]:
    """Build until a compiler waits and nothing else is left to do at its side; then send `signum`."""
    with Run.start(world, "recipe", "tiny") as run:
        run.wait(lambda: (record / "waiting").exists(), "the compiler that waits")
        run.wait(lambda: len(compiled_once(record)[0]) >= COUNT - 1, "the others")
        (space,) = (path for path in (world.wheelhouse / "builds").iterdir() if len(path.name) == 64)
        for made in (space / "src").glob("*.o"):  # as if the build had gone on for a minute since
            os.utime(made, (made.stat().st_atime, made.stat().st_mtime - 60))
        (space / "src" / "newest").touch()
        run.kill(signum)
        run.end()
    settled(world, {})
    (record / "go").touch()
    return run, space


@pytest.mark.parametrize("tool", ["ninja", "make"])
@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)], ids=["TERM", "INT", "KILL"]
)
def test_finished_objects_are_not_compiled_again(world: World, signum: int, code: int, tool: str) -> None:
    record = objects(world, tool)
    run, space = stopped_at_the_waiting_one(world, record, signum)
    assert run.child.returncode == code
    assert (space / "src" / "part00.o").exists()
    if code > 0:
        text = "".join(run.text)
        assert "error[interrupted]" in text
        assert "spark-build recipe tiny" in text
    finished(world, "tiny")
    once, again = compiled_once(record)
    assert len(once) == COUNT
    assert not again


def test_object_written_just_before_a_kill_is_compiled_again(world: World) -> None:
    """Make takes a file by its time alone; so the youngest ones are dropped, and only those."""
    record = objects(world, "make")
    with Run.start(world, "recipe", "tiny") as run:
        run.wait(lambda: (record / "waiting").exists(), "the compiler that waits")
        run.wait(lambda: len(compiled_once(record)[0]) >= COUNT - 1, "the others")
        run.kill()
        run.end()
    settled(world, {})
    (record / "go").touch()
    finished(world, "tiny")
    assert len(compiled_once(record)[1]) == COUNT - 1


# --- torn files


#: Copies like setuptools' build_py: not atomically, and never again when the target isn't older. Waits in the middle.
COPIES = """
here, target = pathlib.Path({here!r}), made / "large"
if not target.exists() or target.stat().st_mtime < pathlib.Path("large").stat().st_mtime:
    data = pathlib.Path("large").read_bytes()
    with target.open("wb") as stream:
        stream.write(data[: len(data) // 2])
        stream.flush()
        (here / "half").touch()
        while not (here / "go").exists():
            time.sleep(0.02)
        stream.write(data[len(data) // 2 :])
"""


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM], ids=["KILL", "TERM"])
def test_file_that_was_half_copied_does_not_get_into_the_wheel(world: World, signum: int) -> None:
    whole = os.urandom(1 << 20)
    here = world.root / "record"
    here.mkdir()
    project(world, "tiny", COPIES.format(here=str(here)), files={"large": whole})
    with Run.start(world, "recipe", "tiny") as run:
        run.wait((here / "half").exists, "the middle of the copy")
        run.kill(signum)
        run.end()
    settled(world, {})
    (here / "go").touch()
    assert proof_kit.wheel_text(finished(world, "tiny"), "tiny/large") == whole


# --- another boot


@pytest.fixture
def tree(tmp_path: Path) -> workspace.Workspace:
    """A tree in which a build was at work in an earlier boot: an old object, a young one, an empty one, the source."""
    (tmp_path / "boot").write_text("one\n")
    space = workspace.open_tree(tmp_path / "builds", "f" * 64, "tiny", fixed=True, boot=tmp_path / "boot")
    space.src.mkdir()
    (space.src / "source.c").write_text("int x;\n")
    workspace.note_tree(space)
    now = time.time()
    for name, age, text in (("old.o", 300, "x"), ("young.o", 20, "x"), ("newest.o", 0, "x"), ("empty.o", 900, "")):
        (space.src / name).write_text(text)
        os.utime(space.src / name, (now - age, now - age))
    return space


def left(space: workspace.Workspace, boot: str) -> list[str]:
    place = space.root.parent.parent / "boot"
    place.write_text(boot)
    workspace.open_tree(space.root.parent, space.root.name, "tiny", fixed=True, boot=place)
    return sorted(path.name for path in space.src.iterdir())


def test_power_cut_drops_objects_that_may_not_have_reached_the_disk(tree: workspace.Workspace) -> None:
    assert left(tree, "two\n") == ["old.o", "source.c"]
    assert left(tree, "two\n") == ["old.o", "source.c"]


def test_same_boot_keeps_every_object_of_a_build_that_was_not_at_work(tree: workspace.Workspace) -> None:
    assert left(tree, "one\n") == ["empty.o", "newest.o", "old.o", "source.c", "young.o"]


def test_kill_of_a_build_at_work_drops_the_newest_objects_only(tree: workspace.Workspace) -> None:
    workspace.mark(tree, "building")
    assert left(tree, "one\n") == ["empty.o", "old.o", "source.c", "young.o"]


def test_ninja_knows_its_own_unfinished_objects_after_a_kill_and_not_after_a_power_cut(tree: workspace.Workspace) -> None:
    workspace.mark(tree, "building")
    (tree.src / ".ninja_log").write_text("# ninja log v6\n")
    assert "newest.o" in left(tree, "one\n")
    assert "newest.o" not in left(tree, "two\n")
