"""install.sh where there is nothing but python3: a root of its own, no network, no pip, no venv, no ensurepip."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.bundle_kit import PLATFORM, UV, Index, cut_off

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.world import World

PYTHON3 = Path("/usr/bin/python3")
#: It lies where the path of a plain user may not lead.
CHROOT = shutil.which("chroot", path=f"{os.environ['PATH']}:/usr/sbin:/sbin") or "chroot"
LEFT_OUT = ("ensurepip", "venv", "test", "idlelib", "lib2to3", "dist-packages", "__pycache__")

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not PYTHON3.exists(), reason="the distribution's python3 isn't here"),
]


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A root with a shell, dirname, and the distribution's python3 with its library, and no more than these load."""
    root, python = tmp_path / "root", PYTHON3.resolve()
    library = Path("/usr/lib") / python.name
    shutil.copytree(library, root / library.relative_to("/"), ignore=shutil.ignore_patterns(*LEFT_OUT), symlinks=False)
    programs = {Path("/bin/sh"): "bin/sh", Path("/usr/bin/dirname"): "usr/bin/dirname", python: "usr/bin/python3"}
    for source, target in programs.items():
        _copy(source.resolve(), root / target)
    for file in _loaded([*programs, *(library / "lib-dynload").glob("*.so")]):
        _copy(file, root / str(file).lstrip("/"))
    for folder in ("tmp", "dev", "proc", "opt"):
        (root / folder).mkdir()
    os.mknod(root / "dev" / "null", 0o20666, os.makedev(1, 3))
    return root


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


def _loaded(files: Iterable[Path]) -> set[Path]:
    """The libraries that programs and modules load, under the names that they are looked for, and the loader."""
    done = subprocess.run(["ldd", *map(str, files)], capture_output=True, text=True, check=False)
    return {Path(found) for found in re.findall(r"(?:=> |^\s+)(/\S+) \(", done.stdout, re.MULTILINE)}


def test_python3_alone_is_enough(world: World, tmp_path: Path, bare: Path) -> None:
    index = Index(tmp_path / "public")
    index.add("app", "2.0", requires=["base"], text=b"VALUE = 42\n")
    index.add("base")
    index.add_uv()
    words = ["--platform", PLATFORM, "--target-python", PYTHON3.resolve().name.removeprefix("python")]
    world.run("bundle", "export", "bundle", "app", *words, SPARK_BUILD_INDEX_URL=index.url)
    for file in _loaded([UV]):
        _copy(file, bare / str(file).lstrip("/"))
    shutil.copytree(world.root / "bundle", bare / "opt" / "bundle")
    inside = [CHROOT, str(bare)]
    done = cut_off([*inside, "/bin/sh", "/opt/bundle/install.sh", "/opt/venv"], env={"PATH": os.environ["PATH"]})
    assert done.returncode == 0, done.stderr
    assert done.stdout == "/opt/venv/bin/python\n"
    ran = cut_off([*inside, "/opt/venv/bin/python", "-c", "import app, base; print(app.VALUE)"])
    assert ran.stdout == "42\n", ran.stderr
    flipped = bare / "opt" / "bundle" / "pylock.toml"
    flipped.write_bytes(flipped.read_bytes().replace(b"2.0", b"2.1"))
    done = cut_off([*inside, "/bin/sh", "/opt/bundle/install.sh", "/opt/second"], env={"PATH": os.environ["PATH"]})
    assert done.returncode == 5
    assert "pylock.toml: has other bytes" in done.stderr
    assert not (bare / "opt" / "second").exists()
