"""Triton, really built: upstream's commit of January 2026 on the distribution's LLVM 22, with the network cut.

Opt-in: SPARK_BUILD_TRITON_MIRROR names a bare repository that holds the commit. SPARK_BUILD_TRITON_CACHE names a folder for
compiled objects that outlives the test; without it, it takes half an hour of CPU time. SPARK_BUILD_TRITON_PYTHON names the
interpreter that the wheel is for (default: the one that runs the tests).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tomli_w
from uv import find_uv_bin

from tests.triton_kit import EXAMPLE, SHIPPED
from tests.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMIT = "50b2f739a63aa3a291ffebd7ee3be4308ba6feb7"
#: The interpreter that the wheel is for, with its headers.
PYTHON = os.environ.get("SPARK_BUILD_TRITON_PYTHON", sys.executable)
LLVM = Path("/usr/lib/llvm-22")
FIXTURES = Path(__file__).parent / "fixtures" / "triton"
MIRROR = os.environ.get("SPARK_BUILD_TRITON_MIRROR")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.cuda,
    pytest.mark.network,
    pytest.mark.skipif(not MIRROR, reason="SPARK_BUILD_TRITON_MIRROR names no mirror of upstream"),
    pytest.mark.skipif(not (LLVM / "lib" / "cmake" / "lld").exists(), reason="liblld-22-dev isn't installed"),
]

#: For a lab: nothing is optimised, and the headers of LLVM are read once.
FLAGS = "-O0 -Wno-error"


def precompiled(folder: Path) -> Path:
    """Return the precompiled headers of LLVM and MLIR in `folder`, made when they aren't there."""
    made = folder / "mlir.pch"
    if not made.exists():
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(FIXTURES / "precompiled.h", folder / "mlir.h")
        words = "-D__STDC_FORMAT_MACROS -fPIC -std=gnu++17 -fvisibility=hidden -fno-exceptions -fno-rtti -O0"
        command = [str(LLVM / "bin" / "clang++"), *words.split(), f"-I{LLVM}/include", "-x", "c++-header"]
        subprocess.run([*command, "mlir.h", "-o", made.name], cwd=folder, check=True)
    return made


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A user whose recipes hold the documented overlay, and a mirror whose main is the commit."""
    world = World(tmp_path_factory.mktemp("triton"))
    cache = Path(os.environ.get("SPARK_BUILD_TRITON_CACHE") or world.root / "cache")
    upstream = world.root / "mirror" / "triton-lang" / "triton"
    world.git(world.root, "clone", "-q", "--bare", "--no-tags", str(MIRROR), str(upstream))
    world.git(upstream, "update-ref", "refs/heads/main", COMMIT)
    shutil.copytree(EXAMPLE, world.recipes, dirs_exist_ok=True)
    patch = FIXTURES / "lab-flags.patch"
    shutil.copy(patch, world.patches / "triton")
    overlay = world.recipes / "triton.toml"
    text = overlay.read_text().replace("-DTRITON_BUILD_UT=OFF", "-DTRITON_BUILD_UT=OFF " + " ".join(_cheap(cache)))
    # Without it ccache takes nothing that is compiled with precompiled headers.
    text = text.replace("[build.env]\n", '[build.env]\nCCACHE_SLOPPINESS = "pch_defines,time_macros"\n')
    digest = hashlib.sha256(patch.read_bytes()).hexdigest()
    more: dict[str, Any] = {"patch": [{"id": "lab-flags", "file": patch.name, "sha256": digest, "license": "MIT"}]}
    more["resources"] = {"disk": "3GiB"}
    overlay.write_text(f"{text}\n{tomli_w.dumps(more)}")
    mirrors = {"https://github.com/triton-lang/": f"{upstream.parent}/"}
    config = {"mirrors": mirrors, "compile-cache": {"path": str(cache / "ccache")}}
    (world.config / "config.toml").write_text(tomli_w.dumps(config))
    yield world
    if sys.exc_info()[0] is None:
        shutil.rmtree(world.wheelhouse / "builds", ignore_errors=True)


def _cheap(cache: Path) -> list[str]:
    header = precompiled(cache / "pch")
    return ["-DCMAKE_BUILD_TYPE=Lab", f"'-DCMAKE_CXX_FLAGS_LAB={FLAGS}'", f"'-DLAB_FLAGS=-include-pch;{header}'"]


def build(lab: World, *words: str, code: int = 0) -> tuple[Path, str]:
    """Build what `words` say and return the wheel and what was told."""
    path = f"{LLVM}/bin:{os.environ['PATH']}"
    done = lab.run("recipe", "triton", "--python", PYTHON, *words, code=code, PATH=path, SPARK_BUILD_PROGRESS="plain")
    return Path(done.stdout.strip()), done.stderr


@pytest.fixture(scope="module")
def built(lab: World) -> tuple[Path, str]:
    return build(lab, "--ref", "main")


@pytest.fixture(scope="module")
def wheel(built: tuple[Path, str]) -> Path:
    return built[0]


def test_the_build_is_cut_off_and_its_version_names_the_commit(wheel: Path) -> None:
    assert re.match(r"triton-3\.6\.0\+sb\d{14}\.g[0-9a-f]{10}\.git50b2f739-cp\d+-cp\d+-linux_", wheel.name)
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("spark-build/inputs.json")]
        known = {one["id"]: one for one in json.loads(archive.read(name))["nested"]}
        assert all("replaced" in one for one in known.values())
        tools = [archive.read(f"triton/backends/nvidia/bin/{tool}") for tool in ("ptxas", "ptxas-blackwell")]
    assert all(tool.startswith(b"\x7fELF") for tool in tools)
    record = json.loads(wheel.with_name(f"{wheel.name}.provenance.json").read_text())
    assert '"namespace"' in json.dumps(record)


def test_kernels_become_machine_code_by_the_ptxas_of_the_wheel(lab: World, wheel: Path) -> None:
    venv, script = lab.root / "clean", SHIPPED.parent / "checks" / "triton-compile.py"
    uv(lab, "venv", "-q", "--python", PYTHON, str(venv))
    uv(lab, "pip", "install", "-q", "--python", str(venv), str(wheel))
    env = {"PATH": "/usr/bin:/bin", "HOME": str(lab.root / "empty"), "SPARK_BUILD_TARGET": "12.1"}
    words = [str(venv / "bin" / "python"), str(script)]
    done = subprocess.run(words, env=env, cwd=lab.root, capture_output=True, text=True, check=True)
    assert re.search(r"add: sm_121a, \d{4,} bytes", done.stdout)
    assert re.search(r"dot: sm_121a, \d{4,} bytes", done.stdout)


def test_the_same_again_is_a_hit(lab: World, wheel: Path) -> None:
    assert build(lab, "--ref", "main")[0] == wheel
    assert build(lab, "--ref", COMMIT)[0] == wheel


def test_torch_and_it_are_installed_by_the_command_that_is_printed(lab: World, built: tuple[Path, str]) -> None:
    venv = lab.root / "with-torch"
    uv(lab, "venv", "-q", "--python", PYTHON, str(venv))
    wheel, said = built
    (line,) = [line for line in said.splitlines() if line.startswith("# with torch, ")]
    path = f"{Path(find_uv_bin()).parent}:{os.environ['PATH']}"
    command = line.split(": ", 1)[1].replace("uv pip install", "uv pip install -q")
    env = lab.env(PATH=path, VIRTUAL_ENV=str(venv))
    subprocess.run(["/bin/bash", "-c", command], env=env, cwd=lab.root, check=True)
    code = "import torch, triton, importlib.metadata as m; print(m.version('triton'))"
    words = [str(venv / "bin" / "python"), "-c", code]
    told = subprocess.run(words, capture_output=True, text=True, check=True, cwd=lab.root).stdout.strip()
    assert told == wheel.name.split("-")[1]


def test_a_new_commit_is_a_miss_that_compiles_only_what_changed(lab: World, wheel: Path) -> None:
    upstream, work = lab.root / "mirror" / "triton-lang" / "triton", lab.root / "work"
    lab.git(lab.root, "clone", "-q", "-b", "main", str(upstream), str(work))
    unit, module = work / "lib" / "Tools" / "LayoutUtils.cpp", work / "python" / "triton" / "testing.py"
    unit.write_text(f"{unit.read_text()}\nnamespace mlir::triton {{ int aSymbolThatWasNotThere() {{ return 1; }} }}\n")
    module.write_text(f"{module.read_text()}# a line more\n")
    lab.git(work, "commit", "-qam", "a unit and a module")
    lab.git(work, "push", "-q", "origin", "main")
    commit = lab.git(work, "rev-parse", "HEAD")
    told = lab.run("why", "triton", "--ref", "main", "--python", PYTHON, PATH=f"{LLVM}/bin:{os.environ['PATH']}").stdout
    assert f"source moved {COMMIT[:10]} → {commit[:10]}" in told
    other, _said = build(lab, "--ref", "main")
    assert other != wheel
    (log,) = [
        one for one in lab.wheelhouse.glob("builds/*/logs/*/ccache-triton.log") if "LayoutUtils.cpp" in _missed(one)
    ]
    assert _missed(log) == ["LayoutUtils.cpp"]


def _missed(log: Path) -> list[str]:
    """Return the units that the compile cache didn't have, from its log: ``# path`` and what happened, a line each."""
    records = log.read_text().split("# ")[1:]
    return [Path(record.splitlines()[0]).name for record in records if "cache_miss" in record.splitlines()]


def uv(lab: World, *words: str) -> None:
    subprocess.run([find_uv_bin(), *words], env=lab.env(), cwd=lab.root, check=True)
