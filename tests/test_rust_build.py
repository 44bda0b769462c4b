"""A build with Rust: the toolchain behind rustup's stand-ins, and crates from the folder that stands in for the registry."""

from __future__ import annotations

import os
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.world import World

pytestmark = pytest.mark.skipif(shutil.which("cargo") is None, reason="needs cargo")

MAIN = 'fn main() { println!("VALUE = {}", dep::value()); }\n'
BUILDS = """
import subprocess
subprocess.run(["cargo", "build", "-q", "--locked"], check=True)
told = subprocess.run(["target/debug/app"], check=True, capture_output=True, text=True).stdout
pathlib.Path("src/__init__.py").write_text(told)
"""


def crate(name: str, more: str = "") -> str:
    return f'[package]\nname = "{name}"\nversion = "0.1.0"\nedition = "2021"\n{more}'


def test_a_recipe_builds_its_crates_with_the_network_cut(world: World) -> None:
    dep = world.root / "dep"
    (dep / "src").mkdir(parents=True)
    (dep / "Cargo.toml").write_text(crate("dep"))
    (dep / "src" / "lib.rs").write_text("pub fn value() -> u32 { 42 }\n")
    world.git(dep, "init", "-q", "-b", "main")
    world.git(dep, "add", "-A")
    world.git(dep, "commit", "-qm", "first")
    folder = world.tiny(extra=BUILDS)
    (folder / "Cargo.toml").write_text(crate("app", f'[dependencies]\ndep = {{ git = "{dep.as_uri()}" }}\n'))
    (folder / "src" / "main.rs").write_text(MAIN)
    rustup, cargo = os.environ.get("RUSTUP_HOME", str(Path.home() / ".rustup")), str(world.root / "cargo")
    env = world.env(RUSTUP_HOME=rustup, CARGO_HOME=cargo)
    subprocess.run(["cargo", "generate-lockfile", "-q"], cwd=folder, env=env, check=True)
    world.git(folder, "init", "-q", "-b", "main")
    world.git(folder, "add", "-A")
    world.git(folder, "commit", "-qm", "first")
    world.tiny_recipe(
        more="""
        [system]
        rust = ">=1.70"
        [[fetch]]
        id = "crates"
        kind = "crates"
        lockfile = "Cargo.lock"
        """
    )
    world.run("fetch", "tiny", RUSTUP_HOME=rustup, CARGO_HOME=cargo)
    shutil.rmtree(dep)
    (wheel,) = world.wheels("tiny", "--offline", RUSTUP_HOME=rustup, CARGO_HOME=cargo)
    assert zipfile.ZipFile(wheel).read("tiny/__init__.py") == b"VALUE = 42\n"
    assert world.wheels("tiny", "--offline", RUSTUP_HOME=rustup, CARGO_HOME=cargo) == [wheel]
