"""What all tests share: opt-in for slow ones, a world of their own for each, and what several files look at, made once."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.engine_kit import engines  # noqa: F401  # a fixture for all
from tests.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.site_kit import Kit
    from tests.upload_kit import Taking


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run tests that take minutes, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    reasons = {
        "slow": None if config.getoption("--slow") else "slow: give --slow",
        "root": None if os.geteuid() == 0 else "needs root",
        "cuda": None if shutil.which("nvcc") or Path("/usr/local/cuda/bin/nvcc").exists() else "needs nvcc",
    }
    for item in items:
        for name, reason in reasons.items():
            if reason and item.get_closest_marker(name):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def known_tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What spark-build finds out about this machine's tools when it first meets them: a second of reading the toolkit."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "tools"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = folder / "sources" / "host"
        if not found.exists():
            first = World(folder)
            first.tiny_repo()
            first.tiny_recipe(more='[system]\ncuda = ">=1"\n')
            first.run("plan", "tiny", code=None)  # where there is no toolkit, it knows the rest
            found.mkdir(parents=True, exist_ok=True)
    return found


@pytest.fixture
def world(tmp_path: Path, known_tools: Path) -> World:
    """A user of their own: home, configuration, wheelhouse, sources; recipes go into `world.recipes`."""
    return World(tmp_path, tools=known_tools)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kit]:
    """A wheelhouse with all that pages for people show. Nobody changes it."""
    from tests import site_house  # noqa: PLC0415  # what few tests need

    made = site_house.fill(tmp_path_factory.mktemp("site") / "house")
    yield made
    made.close()


@pytest.fixture(scope="session")
def site_tree(site: Kit) -> dict[str, bytes]:
    """The pages of it, by path."""
    from builder.pipeline import pages  # noqa: PLC0415

    return dict(pages.tree(site.house))


@pytest.fixture(scope="session")
def taking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Taking]:
    """A server that takes uploads. Each test has projects of its own there."""
    from tests import upload_kit  # noqa: PLC0415

    with upload_kit.taking(tmp_path_factory.mktemp("index") / "wheelhouse") as found:
        yield found


@pytest.fixture(autouse=True, scope="session")
def _quiet_git() -> None:
    """Git asks for an identity in commits; tests bring their own by environment, this only checks that git is there."""
    subprocess.run(["git", "--version"], check=True, capture_output=True)
