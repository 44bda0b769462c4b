"""A real aarch64 wheel passes the audit, and each of its twins that would not work is refused for its own reason."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest

from builder.audit import contents, report
from builder.audit.context import Context
from builder.audit.target import Capability
from tests import gb10_kit, gb10_twins
from tests.gb10_kit import CORE
from tests.gb10_twins import BAD, GOOD, WARNED

if TYPE_CHECKING:
    from pathlib import Path

    from builder.audit.facts import DeviceCode
    from builder.audit.report import Report
    from tests.gb10_kit import Kit
    from tests.gb10_twins import Twin
    from tests.world import World

pytestmark = [pytest.mark.cuda, pytest.mark.network]

GB10 = Capability(12, 1)


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    return gb10_kit.kit(tmp_path_factory)


def audited(twin: Twin, kit: Kit, folder: Path) -> Report:
    torch = gb10_twins.torch(kit, twin.torch) if twin.torch else None
    context = Context(target=GB10, expected=twin.stated, torch=torch)
    return report.audit(twin.make(kit, folder), context)


def named(twins: tuple[Twin, ...]) -> list[object]:
    return [pytest.param(twin, id=twin.name) for twin in twins]


@pytest.mark.parametrize("twin", named(GOOD))
def test_good_twin_passes(kit: Kit, tmp_path: Path, twin: Twin) -> None:
    made = audited(twin, kit, tmp_path)
    assert made.errors == ()
    assert not made.refused
    assert made.total.verdict == twin.verdict


@pytest.mark.parametrize("twin", named(BAD))
def test_bad_twin_is_refused_for_its_own_reason_only(kit: Kit, tmp_path: Path, twin: Twin) -> None:
    made = audited(twin, kit, tmp_path)
    assert made.refused
    assert {one.id for one in made.errors} == {twin.finding, *twin.also}
    finding = next(one for one in made.errors if one.id == twin.finding)
    assert finding.found
    assert finding.why
    assert finding.help


@pytest.mark.parametrize("twin", named(WARNED))
def test_what_can_be_used_all_the_same_is_told_and_not_refused(kit: Kit, tmp_path: Path, twin: Twin) -> None:
    made = audited(twin, kit, tmp_path)
    assert twin.finding in {one.id for one in made.findings if one.severity == "warning"}
    assert made.errors == ()
    assert made.total.verdict == twin.verdict


def test_good_wheel_is_what_its_build_says(kit: Kit) -> None:
    made = report.audit(kit.good, Context(target=GB10))
    core = next(file for file in made.contents.files if file.path == CORE)
    assert core.elf is not None
    assert core.elf.machine == "aarch64"
    assert core.device is not None
    assert [[image.arch for image in unit.images] for unit in core.device.units] == [["sm_121a"]]
    assert made.contents.tags == (gb10_twins.AARCH64,)


def test_device_code_is_the_same_for_every_host(kit: Kit) -> None:
    """Cross or native, by CMake or not, stripped or not: the same kernels, bit by bit."""

    def device(library: bytes) -> DeviceCode | None:
        return contents.examine(io.BytesIO(library), path=CORE, size=len(library), digests=True).device

    cross = device(kit.library("sm_121a"))
    assert cross is not None
    assert [unit.sha256 for unit in cross.units] != [""]
    assert device(kit.library("sm_121a", host=True)) == cross
    assert device(kit.library("sm_121a", strip=False)) == cross
    assert device(kit.members()[CORE]) == cross
    assert device(kit.library("sm_121f")) != cross


#: The recipe is asked for what it expects only: no such repository is ever read.
RECIPE = """
schema = 1
name = "gb10ext"
[[source]]
kind = "git"
url = "https://example.invalid/gb10ext.git"
ref = "main"
[[output]]
name = "gb10ext"
[[check]]
kind = "device-code"
target = "12.1"
require = ["gb10ext/_core*.so"]
"""


@pytest.mark.parametrize(
    "name",
    [
        *("tag-any", "host-elf", "sm-90a", "sm-120a", "ptx-90", "host-suffix", "record-edited"),
        *("runtime-undeclared", "numpy-undeclared", "other-torch", "outside"),
    ],
)
def test_command_refuses_a_bad_twin(kit: Kit, world: World, name: str) -> None:
    twin = next(one for one in BAD if one.name == name)
    world.recipe("gb10ext", RECIPE)
    words = ["--recipe", "gb10ext"]
    if twin.torch:
        words += ["--torch", str(gb10_twins.torch(kit, twin.torch))]
    told = world.json("audit", str(twin.make(kit, world.root)), *words, code=5)
    (found,) = told["reports"]
    assert found["refused"] is True
    assert twin.finding in {one["id"] for one in found["findings"] if one["severity"] == "error"}


def test_command_lets_the_good_wheel_pass(kit: Kit, world: World) -> None:
    world.recipe("gb10ext", RECIPE)
    (found,) = world.json("audit", str(kit.good), "--recipe", "gb10ext")["reports"]
    assert found["refused"] is False
    core = next(one for one in found["files"] if one["path"] == CORE)
    assert [(one["arch"], one["count"]) for one in core["images"]] == [("sm_121a", 1)]
    assert core["coverage"]["verdict"] == "native"
