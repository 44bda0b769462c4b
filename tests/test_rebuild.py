"""Building again from recorded inputs: the same bits, or which file, and why; and nothing is published."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests import gb10_kit, proof_kit, wheel_kit
from tests.proof_kit import COMPILE, Run, project

if TYPE_CHECKING:
    from tests.world import World

#: The compiler takes the time from the clock when it isn't told another.
LEAK_TIME = 'os.environ.pop("SOURCE_DATE_EPOCH")\n' + COMPILE
LEAK_PATH = '(made / "config.py").write_text(f"ROOT = {os.getcwd()!r}")\n'
KERNEL = """
__global__ void scale(float *values, float by) { values[threadIdx.x] *= by; }
const char *when() { return __DATE__ " " __TIME__; }
void launch(float *values) { scale<<<1, 32>>>(values, 2.0f); }
"""
NVCC = """
os.environ.pop("SOURCE_DATE_EPOCH")
words = ["-arch=sm_121a", "-shared", "-Xcompiler", "-fPIC", "-o", made / "kernel.so", "kernel.cu"]
subprocess.run(["nvcc", *words], check=True)
"""


def state(world: World) -> dict[str, Any]:
    """Return all that a publish would change."""
    house = world.wheelhouse
    files = {
        str(file.relative_to(house)): proof_kit.sha256(file)
        for folder in ("wheels", "index")
        for file in (house / folder).rglob("*")
        if file.is_file()
    }
    tables = {
        name: proof_kit.rows(house, f"SELECT * FROM {name}")  # noqa: S608  # our own names
        for name in ("wheels", "names", "members", "inputs", "plans", "findings")
    }
    return {"files": files, "tables": tables, "journal": (house / "journal.jsonl").read_bytes()}


def trees(world: World) -> list[Path]:
    return list((world.wheelhouse / "builds").glob(".rebuild-*"))


def same(world: World, wheel: Path) -> None:
    """Rebuild, and find the same bits, and a wheelhouse to which nothing was done."""
    before = state(world)
    done = world.json("rebuild", wheel.name, "--check")
    assert done["identical"]
    for one in done["wheels"]:
        assert one["new"]["sha256"] == one["old"]["sha256"] == proof_kit.sha256(Path(one["old"]["path"]))
    assert state(world) == before
    assert trees(world) == []


def other(world: World, wheel: Path) -> dict[str, Any]:
    """Rebuild, find other bits, and nothing done to the wheelhouse; return what is said of each file."""
    before = state(world)
    done = world.json("rebuild", wheel.name, "--check", code=5)
    assert not done["identical"]
    assert state(world) == before
    assert trees(world) == []
    return {file["path"]: file for one in done["wheels"] for file in one["files"]}


def refused(
    world: World, wheel: Path, *words: str, code: int = 3, whole: bool = False, ref: str = ""
) -> dict[str, Any]:
    """Return the error: of the wheel's name, with `whole` of its path, or of `ref`."""
    before = state(world)["files"]
    named = ref or (str(wheel) if whole else wheel.name)
    done = world.run("rebuild", named, "--check", "--json", *words, code=code)
    assert state(world)["files"] == before
    assert trees(world) == []
    error: dict[str, Any] = json.loads(done.stdout)["error"]
    return error


# --- the same bits


def test_pure_python_comes_out_the_same(world: World) -> None:
    world.tiny_repo()
    world.tiny_recipe()
    (wheel,) = world.wheels("tiny")
    same(world, wheel)
    done = world.run("rebuild", wheel.name, "--check")
    assert proof_kit.sha256(wheel) in done.stdout
    assert "the same, bit by bit" in done.stdout


def test_compiled_code_comes_out_the_same_and_is_compiled_anew(world: World) -> None:
    project(world, "tiny", COMPILE, files={"part.c": proof_kit.c_file(1)})
    (wheel,) = world.wheels("tiny")
    cached = len(list((world.root / "sources" / "ccache").rglob("*")))
    same(world, wheel)
    assert len(list((world.root / "sources" / "ccache").rglob("*"))) == cached


def test_a_branch_that_moved_is_taken_at_the_commit_of_then(world: World) -> None:
    repo = world.tiny_repo()
    world.tiny_recipe()
    (wheel,) = world.wheels("tiny")
    (repo / "src" / "__init__.py").write_text("VALUE = 2\n")
    world.git(repo, "commit", "-qam", "second")
    same(world, wheel)


def test_what_was_asked_for_is_asked_again(world: World) -> None:
    world.tiny_repo()
    world.tiny_recipe()
    (wheel,) = world.wheels("tiny", "--env", "TINY_EXTRA=a b", "--set", "build.env.OTHER=1")
    same(world, wheel)


def test_all_outputs_of_a_build_are_compared(world: World) -> None:
    project(world, "pair", '(made / "x").write_text(NAME)', outputs=("one", "two"))
    wheels = world.wheels("pair")
    done = world.json("rebuild", world.json("wheels", "show", wheels[0].name)["wheel"]["fingerprint"][:12], "--check")
    assert [Path(one["old"]["path"]) for one in done["wheels"]] == wheels


def test_a_folder_is_built_again_while_it_is_the_same(world: World) -> None:
    folder = world.tiny()
    world.tiny_recipe()
    (wheel,) = world.wheels("tiny", "--source", str(folder))
    same(world, wheel)
    (folder / "src" / "__init__.py").write_text("VALUE = 2\n")
    error = refused(world, wheel)
    assert error["code"] == "inputs-moved"
    assert "source's files changed" in error["cause"]


def test_build_requirements_are_those_of_then(world: World) -> None:
    """Also where they were resolved again meanwhile, for a later build."""
    with proof_kit.index(world.root / "files") as served:
        env: dict[str, Any] = {"SPARK_BUILD_INDEX_URL": served.url, "UV_CACHE_DIR": str(world.root / "uv")}
        served.add_wheel("dep")
        project(world, "tiny", "import dep; (made / 'dep').write_text(dep.__file__)", requires=["dep"])
        (wheel,) = world.wheels("tiny", **env)
        for file in list(served.folder.glob("dep-1.0*")):
            file.rename(world.root / file.name)
        newer(world.root / "dep-1.0-py3-none-any.whl", served.folder)
        (later,) = world.wheels("tiny", "--relock", **env)
        assert later.name != wheel.name
        for file in world.root.glob("dep-1.0*"):
            file.rename(served.folder / file.name)
        done = world.json("rebuild", wheel.name, "--check", **env)
        assert done["identical"]


def newer(wheel: Path, folder: Path) -> None:
    """Put the next version of a wheel into a folder."""
    target = folder / wheel.name.replace("1.0", "1.1")
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name.replace("1.0", "1.1"), old.read(name).replace(b"Version: 1.0\n", b"Version: 1.1\n", 1))
        metadata = old.read("dep-1.0.dist-info/METADATA").replace(b"1.0", b"1.1")
    target.with_name(f"{target.name}.metadata").write_bytes(metadata)


def test_pull_request_is_laid_on_again_while_it_is_the_same(world: World) -> None:
    repo = world.tiny_repo()
    world.git(repo, "checkout", "-qb", "pull")
    (repo / "src" / "__init__.py").write_text("VALUE = 3\n")
    world.git(repo, "commit", "-qam", "pull")
    world.git(repo, "update-ref", "refs/pull/7/head", "HEAD")
    world.git(repo, "checkout", "-q", "main")
    world.tiny_recipe()
    (wheel,) = world.wheels("tiny", "--pr", "7")
    same(world, wheel)
    world.git(repo, "checkout", "-q", "pull")
    (repo / "src" / "__init__.py").write_text("VALUE = 4\n")
    world.git(repo, "commit", "-qam", "pull again")
    world.git(repo, "update-ref", "refs/pull/7/head", "HEAD")
    world.git(repo, "checkout", "-q", "main")
    assert "pull requests laid on changed" in refused(world, wheel)["cause"]


# --- which wheel is meant


def test_a_file_counts_by_its_bytes(world: World) -> None:
    world.tiny_repo()
    world.tiny_recipe()
    (wheel,) = world.wheels("tiny")
    known = proof_kit.sha256(wheel)
    folder = world.root / "elsewhere"
    folder.mkdir()
    copy = Path(shutil.copy(wheel, folder / "renamed.whl"))
    assert world.json("rebuild", str(copy), "--check")["identical"]
    assert world.json("rebuild", "elsewhere/renamed.whl", "--check")["identical"]

    changed = folder / wheel.name
    changed.write_bytes(wheel.read_bytes() + b"x")
    (world.root / wheel.name).write_bytes(wheel.read_bytes() + b"x")
    for ref in (str(changed), wheel.name):  # the second one is in the folder that the command runs in
        error = refused(world, Path(ref), whole=True, code=5)
        assert error["code"] == "wheel-other"
        assert known in error["cause"]
        assert proof_kit.sha256(changed) in error["cause"]
    foreign = wheel_kit.raw(folder, "other")
    error = refused(world, foreign, whole=True, code=5)
    assert error["code"] == "wheel-other"
    assert proof_kit.sha256(foreign) in error["cause"]

    for missing in (f"/nonexistent/{wheel.name}", f"nothing/{wheel.name}", f"{folder}/"):
        assert refused(world, Path(missing), ref=missing, code=2)["code"] == "wheel-missing"
    wheel.write_bytes(wheel.read_bytes() + b"x")
    wheel.write_bytes(wheel.read_bytes()[:-1] + b"y")
    assert refused(world, wheel, whole=True, code=6)["code"] == "wheel-changed"


@pytest.mark.parametrize("ref", ["", " "])
def test_no_wheel_at_all_is_said(world: World, ref: str) -> None:
    world.run("wheels", "add", str(wheel_kit.raw(world.root)))
    done = world.run("rebuild", ref, "--check", code=2)
    assert "REF is empty: wanted a wheel's file name" in done.stderr


# --- other bits


def test_time_that_is_compiled_in_is_found(world: World) -> None:
    project(world, "tiny", LEAK_TIME, files={"part.c": proof_kit.c_file(1)})
    (wheel,) = world.wheels("tiny")
    time.sleep(1)
    files = other(world, wheel)
    assert list(files) == ["tiny/part.so"]
    (cause,) = (one for one in files["tiny/part.so"]["causes"] if one["id"] == "date-time")
    assert cause["where"] == ".rodata"
    assert cause["old"] != cause["new"]
    assert cause["key"] == "build.env"
    done = world.run("rebuild", wheel.name, "--check", code=5)
    assert "date-time in .rodata" in done.stdout
    assert "error[rebuild-differs]" in done.stderr
    assert "SOURCE_DATE_EPOCH" in done.stdout


def test_path_that_is_written_down_is_found(world: World) -> None:
    project(world, "tiny", LEAK_PATH)
    (wheel,) = world.wheels("tiny", "--isolation", "none")
    files = other(world, wheel)
    assert list(files) == ["tiny/config.py"]
    (cause,) = files["tiny/config.py"]["causes"]
    assert cause["id"] == "build-path"
    assert str(world.wheelhouse / "builds") in cause["old"]
    assert ".rebuild-" in cause["new"]


def test_path_is_the_same_where_the_tree_is_at_a_fixed_place(world: World) -> None:
    project(world, "tiny", LEAK_PATH)
    (wheel,) = world.wheels("tiny", "--isolation", "namespace")
    same(world, wheel)


def test_file_that_only_one_build_has(world: World) -> None:
    project(world, "tiny", '(made / f"at-{time.time_ns()}").write_text("x")')
    (wheel,) = world.wheels("tiny")
    assert sorted(one["kind"] for one in other(world, wheel).values()) == ["added", "removed"]


def test_kept_wheels_are_there_until_the_next_gc(world: World) -> None:
    project(world, "tiny", '(made / "at").write_text(str(time.time_ns()))')
    (wheel,) = world.wheels("tiny")
    done = world.json("rebuild", wheel.name, "--check", "--keep", code=5)
    (kept,) = Path(done["kept"]).glob("*.whl")
    assert kept.name == wheel.name
    assert proof_kit.sha256(kept) == done["wheels"][0]["new"]["sha256"] != proof_kit.sha256(wheel)
    told = world.json("wheels", "diff", str(wheel), str(kept))
    assert [file["path"] for file in told["files"]] == ["tiny/at"]
    assert told["inputs"] == []
    world.run("gc")
    assert trees(world) == []
    assert wheel.exists()


@pytest.mark.cuda
def test_device_code_is_told_apart_from_host_code(world: World) -> None:
    project(
        world, "tiny", NVCC, files={"kernel.cu": KERNEL}, more='[system]\ncuda = ">=13.0"\n[build]\nstrip = "all"\n'
    )
    (wheel,) = world.wheels("tiny")
    files = other(world, wheel)
    assert list(files) == ["tiny/kernel.so"]
    assert files["tiny/kernel.so"]["device"] == "equal"
    assert files["tiny/kernel.so"]["host"] == "differs"
    assert "date-time" in {one["id"] for one in files["tiny/kernel.so"]["causes"]}


# --- what can't be built again


def test_recipe_that_was_edited_is_named(world: World) -> None:
    world.tiny_repo()
    world.tiny_recipe()
    (wheel,) = world.wheels("tiny")
    world.tiny_recipe(more='[build.env]\nMORE = "1"\n')
    error = refused(world, wheel)
    assert error["code"] == "inputs-moved"
    assert "variable MORE set to 1" in error["cause"]


def test_recipe_that_is_gone_or_broken_is_told_as_such(world: World) -> None:
    world.tiny_repo()
    recipe = world.tiny_recipe()
    (wheel,) = world.wheels("tiny")
    for text in (None, "broken ["):
        recipe.unlink() if text is None else recipe.write_text(text)
        error = refused(world, wheel)
        assert error["code"] == "inputs-moved"
        assert error["summary"].startswith("tiny ")
        assert "can't be built again" in error["summary"]
        assert not any("recipes new" in command for command in error["run"])
        (command,) = error["run"]
        world.run(*command.split()[1:])


@pytest.mark.root
def test_wheelhouse_that_cannot_be_written(world: World) -> None:
    world.tiny_repo()
    world.tiny_recipe()
    (wheel,) = world.wheels("tiny")
    house = str(world.wheelhouse)
    subprocess.run(["mount", "--bind", house, house], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", house], check=True)
        done = world.run("rebuild", wheel.name, "--check", "--json", code=3)
        error = json.loads(done.stdout)["error"]
        assert error["code"] == "unwritable"
        copy, again = (command.replace("COPY", str(world.root / "copy")).split() for command in error["run"])
        subprocess.run(copy, check=True)
        assert "the same, bit by bit" in world.run(*again[1:]).stdout
    finally:
        subprocess.run(["umount", house], check=True)


def test_stopped_rebuild_keeps_nothing_and_does_not_say_so(world: World) -> None:
    mark, slow = world.root / "mark", world.root / "slow"
    project(
        world,
        "tiny",
        f"pathlib.Path({str(mark)!r}).touch()\ntime.sleep(float(os.path.exists({str(slow)!r})) * 600)",
    )
    (wheel,) = world.wheels("tiny")
    slow.touch()
    said = []
    for words in (["rebuild", wheel.name, "--check"], ["recipe", "tiny", "--force"]):
        mark.unlink()
        with Run.start(world, *words) as run:
            run.wait(mark.exists, "the backend")
            run.kill(signal.SIGINT)
            run.end()
            assert run.child.returncode == 130
            said.append("".join(run.text))
    assert "stopped by Ctrl-C" in said[0]
    assert "kept" not in said[0]
    assert "stopped by Ctrl-C; what was built so far is kept" in said[1]


def test_compiler_that_was_replaced_is_named(world: World) -> None:
    project(world, "tiny", COMPILE, files={"part.c": proof_kit.c_file(1)}, more='[system]\ntools = ["gcc"]\n')
    folder = world.root / "bin"
    folder.mkdir()
    gcc = shutil.which("gcc")
    assert gcc
    (folder / "gcc").write_text(f'#!/bin/sh\nexec {gcc} "$@"\n')
    (folder / "gcc").chmod(0o755)
    path = f"{folder}:{os.environ['PATH']}"
    (wheel,) = world.wheels("tiny", PATH=path)
    world.run("rebuild", wheel.name, "--check", PATH=path)
    (folder / "gcc").write_text(f'#!/bin/sh\n# another one\nexec {gcc} "$@"\n')
    done = world.run("rebuild", wheel.name, "--check", code=3, PATH=path)
    assert "error[inputs-moved]" in done.stderr
    assert "gcc replaced: same version, other bytes" in done.stderr


def test_wheel_from_elsewhere_and_unknown_ones_are_refused(world: World) -> None:
    world.run("wheels", "add", str(wheel_kit.raw(world.root)))
    assert refused(world, Path("tiny-1.0-py3-none-any.whl"), code=2)["code"] == "no-inputs"
    assert refused(world, Path("nothing.whl"), code=2)["code"] == "wheel-ref"


def test_wheel_that_was_changed_is_no_measure(world: World) -> None:
    world.tiny_repo()
    world.tiny_recipe()
    (wheel,) = world.wheels("tiny")
    wheel.write_bytes(wheel.read_bytes() + b"x")
    assert refused(world, wheel, code=6)["code"] == "wheel-changed"


def test_failed_rebuild_leaves_its_tree_for_a_look(world: World) -> None:
    flag = world.root / "flag"
    project(world, "tiny", f'assert not os.path.exists({str(flag)!r}), "planted"')
    (wheel,) = world.wheels("tiny")
    before = state(world)
    flag.touch()
    done = world.run("rebuild", wheel.name, "--check", code=1)
    assert "planted" in done.stderr
    assert "it was built from the same inputs before" in done.stderr
    assert state(world) == before
    assert len(trees(world)) == 1
    world.run("gc")
    assert trees(world) == []


def test_killed_rebuild_leaves_a_tree_that_gc_takes(world: World) -> None:
    mark = world.root / "mark"
    project(
        world,
        "tiny",
        f"pathlib.Path({str(mark)!r}).touch()\ntime.sleep(float(os.path.exists({str(world.root / 'slow')!r})) * 600)",
    )
    (wheel,) = world.wheels("tiny", "--isolation", "none")
    before = state(world)
    mark.unlink()
    (world.root / "slow").touch()
    with Run.start(world, "rebuild", wheel.name, "--check") as run:
        run.wait(mark.exists, "the backend")
        (tree,) = trees(world)
        held = world.json("gc", "--dry-run")
        assert [one["why"] for one in held["items"] if one["path"] == str(tree)] == ["is being built"]
        run.kill(signal.SIGKILL)
        run.end()
    proof_kit.settled(world, {wheel: proof_kit.sha256(wheel)})
    assert state(world) == before
    world.run("history")
    assert ".rebuild" not in world.run("history").stdout
    assert world.run("resume", code=2).stderr.count("nothing-to-resume") == 1
    world.run("gc")
    assert trees(world) == []
    (world.root / "slow").unlink()
    same(world, wheel)


# --- the real ones


@pytest.mark.cuda
@pytest.mark.network
@pytest.mark.slow
def test_scikit_build_core_project_comes_out_the_same(world: World) -> None:
    source = world.root / "gb10ext"
    shutil.copytree(gb10_kit.PROJECT, source)
    world.recipe(
        "gb10ext",
        f"""
        schema = 1
        name = "gb10ext"
        [[source]]
        kind = "local"
        path = "{source}"
        [system]
        cuda = ">=13.0"
        headers = true
        [build]
        hook = "cmake"
        [build.env]
        CUDAARCHS = "${{arch}}-real"
        [[arch-map]]
        arch = "12.1a"
        to = ["121a"]
        [[output]]
        name = "gb10ext"
        """,
    )
    (wheel,) = world.wheels("gb10ext")
    same(world, wheel)


@pytest.mark.network
@pytest.mark.slow
def test_flashinfer_comes_out_the_same(world: World) -> None:
    (wheel,) = world.wheels("flashinfer")
    same(world, wheel)
