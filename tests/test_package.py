"""The project's own distribution: made from a clean checkout, installed elsewhere, every command there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from builder.cli.main import COMMANDS

if TYPE_CHECKING:
    from tests.world import World

ROOT = Path(__file__).resolve().parent.parent
UV = str(Path(sys.executable).with_name("uv"))

pytestmark = pytest.mark.network


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist of a clean checkout and the wheel made from that sdist."""
    folder = tmp_path_factory.mktemp("package")
    checkout = folder / "checkout"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in listed.split("\0"):
        if name and (ROOT / name).is_file():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, checkout / name)
    subprocess.run([UV, "build", "-q", "-o", str(folder / "dist"), str(checkout)], check=True)
    return folder


@pytest.fixture(scope="module")
def installed(built: Path) -> Path:
    """The command, in an environment that never saw the checkout."""
    venv = built / "venv"
    (wheel,) = (built / "dist").glob("*.whl")
    subprocess.run([UV, "venv", "-q", "--python", sys.executable, str(venv)], check=True)
    subprocess.run([UV, "pip", "install", "-q", "--python", str(venv / "bin" / "python"), str(wheel)], check=True)
    return venv / "bin" / "spark-build"


def test_wheel_and_sdist_hold_what_the_checkout_holds(built: Path) -> None:
    (wheel,) = (built / "dist").glob("*.whl")
    (sdist,) = (built / "dist").glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name and ".data/" not in name}
    ours = {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "builder").rglob("*") if "__pycache__" not in path.parts
    }
    files = {name for name in ours if (ROOT / name).is_file()}
    recipes = {f"builder/data/recipes/{path.name}" for path in (ROOT / "recipes").glob("*.toml")}
    assert files | recipes <= packed
    assert packed - files - recipes <= {name for name in packed if name.startswith("builder/data/")}
    with tarfile.open(sdist) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    assert {"launcher/enter.c", "CMakeLists.txt", "LICENSE", "README.md"} | files <= names


def test_every_command_runs_where_it_is_installed(installed: Path, world: World) -> None:
    env = world.env() | {"PATH": os.environ["PATH"]}

    def run(*words: str, code: int = 0) -> str:
        done = subprocess.run(
            [str(installed), *words], env=env, cwd=world.root, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    world.tiny_repo()
    world.tiny_recipe()
    assert {"flashinfer", "triton", "vllm", "tiny"} <= set(run("recipes", "list", "--names").split())
    run("recipes", "lint")
    run("recipes", "show", "flashinfer", "--origin")
    run("plan", "tiny", code=10)
    run("fetch", "tiny")
    wheel = run("recipe", "tiny").strip()
    run("why", "tiny")
    for words in (
        ["wheels", "list"],
        ["wheels", "show", Path(wheel).name],
        ["wheels", "verify"],
        ["wheels", "reindex"],
    ):
        run(*words)
    run("index", "export", str(world.root / "out"))
    run("log")
    run("history")
    run("gc", "--dry-run")
    run("completion", "bash")
    subprocess.run([str(installed), "doctor"], env=env, cwd=world.root, capture_output=True, check=False)
    for name in COMMANDS:
        assert "examples:" in run(name, "--help"), name
    assert "spark-build" in run("--version")
