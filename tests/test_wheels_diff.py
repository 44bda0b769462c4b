"""``wheels diff``: inputs, files, device code, metadata and size of two wheels, from anywhere."""

from __future__ import annotations

import io
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from builder.audit.compare import compare
from builder.ui import diff as shown
from builder.ui import style
from tests import proof_kit, wheel_kit
from tests.proof_kit import project

if TYPE_CHECKING:
    from pathlib import Path

    from tests.world import World

KERNEL = "__global__ void scale(float *values) { values[0] *= 2; }\n"
NVCC = """
words = [*os.environ["ARCHS"].split(), "-shared", "-Xcompiler", "-fPIC", "-o", made / "kernel.so", "kernel.cu"]
subprocess.run(["nvcc", *words], check=True)
"""


def test_two_builds_of_one_recipe(world: World) -> None:
    repo = world.tiny_repo()
    world.tiny_recipe()
    (old,) = world.wheels("tiny")
    (repo / "src" / "__init__.py").write_text("VALUE = 22\n")
    world.git(repo, "commit", "-qam", "second")
    (new,) = world.wheels("tiny", "--env", "TINY_EXTRA=more")
    done = world.json("wheels", "diff", old.name, str(new))
    assert not done["identical"]
    kinds = {file["path"]: file["kind"] for file in done["files"]}
    assert (kinds["tiny/__init__.py"], kinds["tiny/more"]) == ("changed", "added")
    assert {one["path"] for one in done["inputs"]} >= {"env.TINY_EXTRA", "source.commit"}
    text = world.run("wheels", "diff", old.name, str(new)).stdout
    assert "variable TINY_EXTRA set to more" in text
    assert "source moved" in text
    assert "+ tiny/more  4 B" in text
    assert "~ tiny/__init__.py  10 B → 11 B (+1 B)" in text
    assert "- Version: 1.0+sb" in text


def test_the_same_wheel(world: World) -> None:
    world.tiny_repo()
    world.tiny_recipe()
    (wheel,) = world.wheels("tiny")
    assert (
        f"the same, bit by bit  sha256 {proof_kit.sha256(wheel)}"
        in world.run("wheels", "diff", wheel.name, str(wheel)).stdout
    )
    assert world.json("wheels", "diff", wheel.name, str(wheel))["identical"]


def test_wheels_from_elsewhere_have_no_inputs(world: World) -> None:
    old, new = (wheel_kit.raw(world.root / name, files={"tiny/a": name.encode()}) for name in ("old", "new"))
    done = world.json("wheels", "diff", str(old), str(new))
    assert done["inputs"] is None
    assert [file["path"] for file in done["files"]] == ["tiny/a"]


def test_what_is_no_wheel(world: World) -> None:
    wheel = wheel_kit.raw(world.root)
    world.run("wheels", "diff", str(wheel), "nothing.whl", code=2)
    (world.root / "bad-1.0-py3-none-any.whl").write_bytes(b"no zip")
    world.run("wheels", "diff", str(wheel), "bad-1.0-py3-none-any.whl", code=5)


def test_wheels_of_two_machines_have_no_causes(world: World) -> None:
    """That they differ is no wonder; of one machine the same difference has a cause."""
    old, same, other = (
        wheel_kit.raw(world.root / name, files={"tiny/a": f"/home/{name}/part.c".encode()}, tags=f"py3-none-{tags}")
        for name, tags in (("anna", "linux_aarch64"), ("bert", "linux_aarch64"), ("carl", "linux_x86_64"))
    )
    told = [world.json("wheels", "diff", str(old), str(new))["files"][0]["causes"] for new in (same, other)]
    assert [[cause["id"] for cause in causes] for causes in told] == [["build-path"], []]


@pytest.mark.root
def test_no_room_for_temporary_files(world: World) -> None:
    paths = [wheel_kit.raw(world.root / name, files={"tiny/a": os.urandom(100_000)}) for name in ("old", "new")]
    small = world.root / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(small)], check=True)
    try:
        done = world.run("wheels", "diff", *map(str, paths), code=3, TMPDIR=str(small))
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert f"error[disk-full]: no space left in {small}" in done.stderr
    assert "TMPDIR names another folder" in done.stderr
    assert "goes on where it stopped" not in done.stderr


def test_what_a_terminal_would_act_on_is_spelled_out(tmp_path: Path) -> None:
    evil = "\x1b[2J\x1b]0;title\x07\u202e"
    files = {
        f"tiny/{evil}.py": b"ROOT = '/build/one\x1b[31m/src'\n",
        "tiny/gone\x1b[1m": b"1",
        "tiny/k": b"a\x1b[31mtext",
    }
    old = wheel_kit.raw(tmp_path / "old", files=files, headers=[f"Summary: {evil}", "X\x1b[1m: 1"])
    new = wheel_kit.raw(
        tmp_path / "new",
        files={f"tiny/{evil}.py": b"ROOT = '/build/two\x1b[31m/src'\n", "tiny/k": b"b\x1b[31mtext"},
        headers=[f"Summary: {evil}{evil}"],
    )
    found = compare(old, new, explain=True)
    code = ({evil: (1, 1)}, {evil: (2, 2)})
    lines = list(shown.lines(found, style=style.of(io.StringIO(), {}), width=200, reasons=(evil,), code=code))
    assert all(line.isprintable() for line in lines), lines
    assert r"  ~ tiny/\x1b[2J\x1b]0;title\x07\u202e.py  28 B, the same"[:40] in "\n".join(lines)
    assert r"  - Summary: \x1b[2J\x1b]0;title\x07\u202e" in lines


@pytest.mark.slow  # test_rebuild.py tells device code apart in each run
@pytest.mark.cuda
def test_device_code_by_architecture(world: World) -> None:
    archs = ("-gencode arch=compute_{0},code=sm_{0}", "-gencode arch=compute_{0},code=compute_{0}")
    project(
        world,
        "tiny",
        NVCC,
        files={"kernel.cu": KERNEL},
        more='[system]\ncuda = ">=13.0"\n',
    )
    (old,) = world.wheels("tiny", "--env", f"ARCHS={archs[0].format('121a')}")
    (new,) = world.wheels("tiny", "--env", f"ARCHS={archs[0].format('121a')} {archs[1].format('120')}")
    done = world.json("wheels", "diff", old.name, new.name)["device_code"]
    assert set(done["new"]) == {*done["old"], "compute_120"}
    assert done["old"]["sm_121a"]["images"] == done["new"]["sm_121a"]["images"]


def test_screen(tmp_path: Path) -> None:
    """Golden: what people see of two builds of one source."""
    old = wheel_kit.raw(
        tmp_path / "old",
        files={"tiny/a.py": b"ROOT = '/build/one/src'\n", "tiny/gone": b"x" * 2048, "tiny/same": b"1"},
        headers=["Requires-Dist: torch==2.13.0"],
    )
    new = wheel_kit.raw(
        tmp_path / "new",
        files={"tiny/a.py": b"ROOT = '/build/another/src'\n", "tiny/same": b"1"},
        headers=["Requires-Dist: torch==2.14.0"],
    )
    found = compare(old, new, explain=True)
    looks = style.of(io.StringIO(), {})
    code = ({"sm_121a": (2, 4096)}, {"sm_121a": (2, 4096), "sm_90": (1, 1024)})
    lines = list(shown.lines(found, style=looks, width=72, reasons=("gcc 12.2.0 → 13.3.0",), code=code))
    assert lines[:-1] == [
        "inputs",
        "  gcc 12.2.0 → 13.3.0",
        "files  1 removed, 1 changed",
        "  ~ tiny/a.py  24 B → 28 B (+4 B)",
        "      build-path",
        "        was  ROOT = '/build/one/src'",
        "        is   ROOT = '/build/another/src'",
        "        why  an absolute path of the machine or of the build tree is in",
        "             the wheel",
        "        cure build where namespaces are allowed, so that the tree is at",
        "             the same path each time (`spark-build doctor`); else let",
        "             the project write a relative path",
        "  - tiny/gone  2.0 KiB",
        "device code",
        "  sm_90          none → 1 image 1.0 KiB",
        "  sm_121a        2 images 4.0 KiB, the same",
        "metadata",
        "  - Requires-Dist: torch==2.13.0",
        "  + Requires-Dist: torch==2.14.0",
    ]
    assert lines[-1].startswith("size  ")
    assert shown.verdict(found) == "2 files differ, metadata differs"
