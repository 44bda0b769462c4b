"""What other tools get wrong without a word where the target isn't the machine that they run on."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.bundle_kit import Index

if TYPE_CHECKING:
    from pathlib import Path

    from tests.world import World


@pytest.fixture
def index(tmp_path: Path) -> Index:
    """The newest app needs what has a wheel for glibc 2.34 only, the one before for 2.31, the oldest nothing."""
    made = Index(tmp_path / "public")
    markers = ["intel; platform_machine == 'x86_64'", "arm; platform_machine == 'aarch64'"]
    made.add("app", "1.0", requires=markers)
    made.add("app", "2.0", requires=[*markers, "video"])
    made.add("app", "3.0", requires=[*markers, "video", "tile"])
    made.add("video", tag="cp312-cp312-manylinux_2_31_aarch64")
    made.add("tile", tag="py3-none-manylinux_2_34_aarch64")
    made.add("arm", tag="cp312-cp312-manylinux_2_17_aarch64.manylinux2014_aarch64.manylinux_2_28_aarch64")
    made.add("intel", tag="cp312-cp312-manylinux_2_17_x86_64")
    return made


def exported(world: World, index: Index, platform: str, code: int) -> Any:  # noqa: ANN401  # JSON, or an error's text
    words = ["--platform", platform, "--target-python", "3.12", "--dry-run", "--json"]
    done = world.run("bundle", "export", "x", "app", *words, code=code, SPARK_BUILD_INDEX_URL=index.url)
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("platform", "got", "missing"),
    [
        ("aarch64-manylinux_2_28", "1.0", "video"),
        ("aarch64-manylinux_2_31", "2.0", "tile"),
        ("aarch64-manylinux_2_39", "3.0", ""),
    ],
)
def test_an_older_glibc_is_never_answered_with_an_older_release(
    world: World, index: Index, platform: str, got: str, missing: str
) -> None:
    """Markers are those of the target, a wheel with older tags is taken, and each older answer names what held it back."""
    told = exported(world, index, platform, 5 if missing else 0)
    if missing:
        assert told["error"]["summary"] == f"asked for app, got {got} instead of 3.0"
        assert re.search(rf"{missing}\S* has no (usable )?wheels", told["error"]["cause"])
    else:
        rows = {one["project"]: one for one in told["plan"]["wheels"]}
        assert sorted(rows) == ["app", "arm", "tile", "video"]
        assert rows["app"]["wheel_version"] == got
        assert "manylinux_2_28_aarch64" in rows["arm"]["filename"]


def test_the_platform_that_people_type_is_refused_with_the_right_one(world: World, index: Index) -> None:
    error = exported(world, index, "aarch64-unknown-linux-gnu", 2)["error"]
    assert (error["code"], "--platform aarch64-manylinux_2_39" in error["run"][0]) == ("target-platform", True)
