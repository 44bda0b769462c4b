"""The same fingerprint gives the same bytes: by another user, on another day, in another place."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import elsewhere_kit, proof_kit
from tests.elsewhere_kit import NOBODY
from tests.proof_kit import COMPILE, project
from tests.world import COMMAND

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.world import World

DAY_S = 86_400

#: Leaves in the build's log what it saw of its surroundings.
TELL = """
print("saw", int(time.time()), os.getuid(), sys.prefix, flush=True)
"""

KERNEL = """
#include <cstdio>
namespace {
__device__ int counter;
__global__ void scale(float *values, float by) { values[threadIdx.x] *= by; counter = 1; }
}
void launch(float *values) { scale<<<1, 32>>>(values, 2.0f); }
"""
#: As CMake calls it: by the absolute path.
NVCC = """
source = pathlib.Path("kernel.cu").resolve()
subprocess.run(["nvcc", "-arch=sm_121a", "-shared", "-Xcompiler", "-fPIC", "-o", made / "kernel.so", source], check=True)
"""
CUDA = '[system]\ncuda = ">=13.0"\n'


@pytest.fixture
def folder() -> Iterator[Path]:
    with elsewhere_kit.open_folder() as found:
        yield found


def planned_twice(world: World, name: str, folder: Path) -> World:
    """Plan a build, so that it has its label, and return a copy of all in another place that belongs to another user."""
    world.run("plan", name, code=10)
    return elsewhere_kit.moved(world, folder / "somewhere" / "else", owner=NOBODY)


def by_another_user_tomorrow(other: World, name: str, **env: str) -> tuple[Path, ...]:
    """Build in `other` as another user, a day later, with another umask, time zone and language."""
    variables = {"TZ": "Asia/Kathmandu", "LANG": "tr_TR.UTF-8", "LC_ALL": "tr_TR.UTF-8", "USER": "nobody"}
    done = subprocess.run(
        elsewhere_kit.elsewhere(COMMAND, "recipe", name, preload=elsewhere_kit.clock(other.root.parent, DAY_S)),
        env=other.env(**variables, **env),
        cwd=other.root,
        umask=0o077,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return tuple(Path(line) for line in done.stdout.splitlines())


def saw(world: World) -> tuple[int, int, str]:
    """Return clock, user and prefix as the one build of a world saw them."""
    (log,) = (world.wheelhouse / "builds").glob("*/logs/*/build.log")
    found = re.search(r"^saw (\d+) (\d+) (\S+)$", log.read_text(), re.MULTILINE)
    assert found
    return int(found[1]), int(found[2]), found[3]


def check_surroundings(world: World, other: World, name: str) -> None:
    """The second build was really made elsewhere: without this, equal bytes would prove nothing."""
    (clock, user, prefix), (later, nobody, same) = saw(world), saw(other)
    assert user == 0
    assert nobody == NOBODY
    assert abs(later - clock - DAY_S) < 3600
    assert prefix == same == f"/sb/{name}/venv/{name}"


@pytest.mark.root
@pytest.mark.parametrize(
    ("steps", "files", "more"),
    [
        pytest.param("(made / 'module.py').write_text('VALUE = 1')", {}, "", id="python"),
        pytest.param(COMPILE, {"part.c": proof_kit.c_file(1)}, "", id="c"),
        pytest.param(
            COMPILE,
            {"part.c": proof_kit.c_file(1)},
            '[build]\nstrip = "debug"\n',
            id="c-stripped",
            marks=pytest.mark.slow,
        ),
        pytest.param(NVCC, {"kernel.cu": KERNEL}, CUDA, id="cuda", marks=pytest.mark.cuda),
    ],
)
def test_same_bytes_by_another_user_on_another_day(
    world: World, folder: Path, steps: str, files: dict[str, str | bytes], more: str
) -> None:
    project(world, "tiny", TELL + steps, files=files, more=more)
    other = planned_twice(world, "tiny", folder)
    (first,) = world.wheels("tiny")
    (second,) = by_another_user_tomorrow(other, "tiny", UV_CACHE_DIR=str(other.root / "uv"))
    check_surroundings(world, other, "tiny")
    assert second.name == first.name
    assert proof_kit.sha256(second) == proof_kit.sha256(first)


@pytest.mark.root
def test_build_that_writes_down_the_time_is_seen(world: World, folder: Path) -> None:
    """The control: what depends on the surroundings makes other bytes in this very way of building twice."""
    project(world, "tiny", TELL + "(made / 'when').write_text(str(time.time()))")
    other = planned_twice(world, "tiny", folder)
    (first,) = world.wheels("tiny")
    (second,) = by_another_user_tomorrow(other, "tiny", UV_CACHE_DIR=str(other.root / "uv"))
    assert second.name == first.name
    assert proof_kit.sha256(second) != proof_kit.sha256(first)
    when = [float(proof_kit.wheel_text(wheel, "tiny/when")) for wheel in (first, second)]
    assert when[1] - when[0] > DAY_S - 3600


def test_forced_rebuild_gives_the_same_bytes(world: World) -> None:
    project(world, "tiny", TELL + COMPILE, files={"part.c": proof_kit.c_file(1)})
    (first,) = world.wheels("tiny")
    digest = proof_kit.sha256(first)
    assert world.wheels("tiny", "--force") == [first]
    assert proof_kit.sha256(first) == digest
    assert len(list((world.wheelhouse / "wheels" / "tiny").glob("*.whl"))) == 1


def symbols(wheel: Path) -> set[bytes]:
    """Return the names that a compiler made for what is in an anonymous namespace."""
    return set(re.findall(rb"_ZN\w*_GLOBAL__N__\w+", proof_kit.wheel_text(wheel, "tiny/kernel.so")))


@pytest.mark.cuda
@pytest.mark.parametrize("isolation", ["namespace", pytest.param("none", marks=pytest.mark.slow)])
def test_path_of_a_kernel_gets_into_its_symbols_where_it_is_not_fixed(
    world: World, folder: Path, isolation: str
) -> None:
    """Why every tree appears at the same path: nvcc makes names out of it."""
    project(world, "tiny", NVCC, files={"kernel.cu": KERNEL}, more=CUDA)
    world.run("plan", "tiny", code=10)
    other = elsewhere_kit.moved(world, folder / "other")
    (first,) = world.wheels("tiny", "--isolation", isolation)
    (second,) = other.wheels("tiny", "--isolation", isolation)
    assert symbols(first)
    assert (symbols(first) == symbols(second)) is (isolation == "namespace")
    assert (proof_kit.sha256(first) == proof_kit.sha256(second)) is (isolation == "namespace")


@pytest.mark.root
@pytest.mark.cuda
@pytest.mark.network
@pytest.mark.slow
def test_flashinfer_is_the_same_by_another_user_on_another_day(
    world: World, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = planned_twice(world, "flashinfer", folder)
    took = [time.monotonic()]
    (first,) = world.wheels("flashinfer")
    took.append(time.monotonic())
    (second,) = by_another_user_tomorrow(other, "flashinfer", UV_CACHE_DIR=str(other.root / "uv"))
    took.append(time.monotonic())
    digests = [proof_kit.sha256(wheel) for wheel in (first, second)]
    with capsys.disabled():
        text = f"{took[1] - took[0]:.0f} s and {took[2] - took[1]:.0f} s, sha256 {digests[0]} and {digests[1]}"
        print(f"\n{first.name}, {first.stat().st_size} bytes: {text}")  # noqa: T201
    assert second.name == first.name
    assert digests[0] == digests[1]
