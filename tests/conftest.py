"""What all tests share: opt-in for slow ones, and a world of their own for each."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.world import World


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


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A user of their own: home, configuration, wheelhouse, sources; recipes go into `world.recipes`."""
    return World(tmp_path)


@pytest.fixture(autouse=True, scope="session")
def _quiet_git() -> None:
    """Git asks for an identity in commits; tests bring their own by environment, this only checks that git is there."""
    subprocess.run(["git", "--version"], check=True, capture_output=True)
