"""From a source to a published wheel, by way of the audit; what it refuses is never published."""

from __future__ import annotations

import json
import shlex
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from tests import gb10_kit
from tests.proof_kit import check_whole, rows

if TYPE_CHECKING:
    from tests.world import World

pytestmark = [pytest.mark.cuda, pytest.mark.network]

RECIPE = """
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
requires-add = ["cmake>=3.26"]  # else the backend asks for it in the midst of the build, which is planned again then

[build.env]
CUDAARCHS = "${{arch}}-real"

[[arch-map]]
arch = "12.1a"
to = ["121a"]

[[output]]
name = "gb10ext"

[[check]]
id = "device-code"
kind = "device-code"
target = "12.1"
require = ["gb10ext/_core*.so"]

[[check]]
id = "import"
kind = "import"
run = "import gb10ext; assert gb10ext.host_add(40, 2) == 42, gb10ext.cuda_runtime_version() >= 13000"
"""

ACCEPT = """
[[check]]
kind = "accept"
findings = ["device-required", "device-absent", "device-nothing"]
reason = "only a test"
"""


@pytest.fixture
def ext(world: World) -> World:
    """A user with the fixture's sources and a recipe for it."""
    source = world.root / "gb10ext"
    shutil.copytree(gb10_kit.PROJECT, source)
    world.recipe("gb10ext", RECIPE.format(source=source))
    return world


def refused(world: World, *words: str) -> dict[str, Any]:
    """Build, be refused, and return the error; nothing is published, and the wheel is kept for a closer look."""
    done = world.run("recipe", "gb10ext", *words, "--json", code=5)
    error: dict[str, Any] = json.loads(done.stdout)["error"]
    assert error["code"] == "audit-refused"
    assert rows(world.wheelhouse, "SELECT filename FROM wheels") == []
    assert not list((world.wheelhouse / "wheels").rglob("*.whl"))
    return error


def test_native_build_for_the_target_is_audited_and_published(ext: World) -> None:
    (wheel,) = ext.wheels("gb10ext")
    check_whole(ext.wheelhouse)
    report = ext.json("audit", str(wheel))
    assert report["reports"][0]["refused"] is False
    assert report["reports"][0]["total"]["verdict"] == "native"
    assert ext.wheels("gb10ext") == [wheel]


def test_build_for_another_gpu_is_refused_and_kept(ext: World) -> None:
    forced = ("--env", "CUDAARCHS=90a-real")
    error = refused(ext, *forced)
    assert "sm_90a" in error["cause"]
    assert "device-required" in error["cause"]
    # what the error says to type next shows the same
    program, *words = shlex.split(error["run"][0])
    assert program == "spark-build"
    (report,) = ext.json(*words, code=5)["reports"]
    assert {one["id"] for one in report["findings"] if one["severity"] == "error"} >= {
        "device-required",
        "device-nothing",
    }
    # and it's published without a compiler once the recipe lets it pass
    ext.recipe("gb10ext", RECIPE.format(source=ext.root / "gb10ext") + ACCEPT)
    (wheel,) = ext.wheels("gb10ext", *forced)
    check_whole(ext.wheelhouse)
    assert len(list((ext.wheelhouse / "builds").glob("*/logs/*/build.log"))) == 1
    (report,) = ext.json("audit", str(wheel))["reports"]
    assert {one["accepted"] for one in report["findings"] if one["severity"] == "error"} == {"only a test"}


@pytest.mark.slow
def test_undeclared_import_is_refused(ext: World) -> None:
    module = ext.root / "gb10ext" / "src" / "gb10ext" / "__init__.py"
    module.write_text(f"import numpy\n{module.read_text()}")
    error = refused(ext)
    assert "numpy" in error["cause"]
