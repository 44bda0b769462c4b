"""A build gets the torch that was locked, with CUDA where it needs that, and can't put another in its place."""

from __future__ import annotations

import base64
import hashlib
import os
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest
import uv

from builder import buildenv, torchguard
from builder.errors import CheckRefused
from builder.stages import Torch
from tests.source_kit import index_pages

if TYPE_CHECKING:
    from pathlib import Path

    from builder.stages import EnvLock
    from tests.world import World


def torch_wheel(folder: Path, version: str, cuda: str | None) -> Path:
    """Write a wheel that is as a torch as far as anybody looks here; `version` may have a local part."""
    info = f"torch-{version}.dist-info"
    files = {
        "torch/__init__.py": f"from torch.version import __version__\ndef compiled_with_cxx11_abi(): return True\n"
        f"from torch import version\nVERSION = {version!r}\n",
        "torch/version.py": "from typing import Optional\n\n"
        f"__version__ = {version!r}\ndebug = False\ncuda: Optional[str] = {cuda!r}\nhip: Optional[str] = None\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tiny\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = [
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()},{len(text)}"
        for path, text in files.items()
    ]
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"torch-{version}-py3-none-any.whl"
    with zipfile.ZipFile(target, "w") as archive:
        for path, text in {**files, f"{info}/RECORD": "\n".join([*rows, f"{info}/RECORD,,", ""])}.items():
            archive.writestr(zipfile.ZipInfo(path, (2020, 1, 1, 0, 0, 0)), text)
    return target


class Bench:
    """An index of torches, and an environment that is made from it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.index = root / "index"
        self.env = {"PATH": os.environ["PATH"], "HOME": str(root), "UV_CACHE_DIR": str(root / "cache")}

    def offer(self, version: str, cuda: str | None) -> Path:
        made = torch_wheel(self.index / "torch", version, cuda)
        index_pages(self.index)
        return made

    def lock(self, torch: Torch) -> EnvLock:
        return buildenv.resolve(
            buildenv.requires(b"[build-system]\nrequires = ['torch']\n", add=(), remove=(), torch=torch),
            output="tiny",
            constraints=(),
            python=sys.executable,
            index_url=self.index.as_uri(),
            env=self.env,
            scratch=self.root,
            torch=torch,
        )

    def create(self, lock: EnvLock, torch: Torch | None = None) -> Path:
        venv = self.root / "venv"
        buildenv.create(
            lock,
            venv,
            python=sys.executable,
            index_url=self.index.as_uri(),
            env=self.env,
            offline=False,
            log=self.root / "env.log",
            on_line=lambda _line: None,
            torch=torch,
        )
        return venv


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_higher_torch_without_cuda_is_never_taken(bench: Bench) -> None:
    bench.offer("2.14.0", "13.0")
    bench.offer("2.15.0", None)
    torch = Torch(version="2.14.0")
    lock = bench.lock(torch)
    assert [(one.name, one.version) for one in lock.packages] == [("torch", "2.14.0")]
    torchguard.require_cuda(torch, bench.create(lock), recipe="tiny")


def test_a_local_version_without_cuda_of_the_same_release_is_refused(bench: Bench) -> None:
    bench.offer("2.14.0", "13.0")
    bench.offer("2.14.0+cpu", None)  # to an installer it is the higher one, and torch==2.14.0 all the same
    torch = Torch(version="2.14.0")
    lock = bench.lock(torch)
    assert [one.version for one in lock.packages] == ["2.14.0+cpu"]
    with pytest.raises(CheckRefused) as told:
        torchguard.require_cuda(torch, bench.create(lock), recipe="tiny")
    assert (told.value.code, told.value.exit_code) == ("torch-cpu", 5)
    assert "torch 2.14.0+cpu is built without" in told.value.summary
    bench.offer("2.14.0+cu130", "13.0")
    exact = Torch(version="2.14.0+cu130")
    torchguard.require_cuda(exact, bench.create(bench.lock(exact)), recipe="tiny")


def test_an_existing_torch_without_cuda_is_refused(bench: Bench) -> None:
    there = Torch(version="2.14.0+cpu", folder=bench.root)
    with pytest.raises(CheckRefused) as told:
        torchguard.require_cuda(there, bench.root, recipe="tiny")
    assert str(bench.root) in told.value.cause
    torchguard.require_cuda(Torch(version="2.14.0+cu130", cuda="13.0", folder=bench.root), bench.root, recipe="tiny")
    torchguard.require_cuda(None, bench.root, recipe="tiny")


def test_an_environment_whose_torch_was_changed_is_made_anew(bench: Bench) -> None:
    bench.offer("2.14.0", "13.0")
    lock = bench.lock(Torch(version="2.14.0"))
    venv = bench.create(lock)
    kept = venv / "kept"
    kept.touch()
    assert bench.create(lock) == venv
    assert kept.exists()
    assert torchguard.changed(venv) == ""
    file = next(venv.glob("lib/python*/site-packages/torch/version.py"))
    file.write_text(file.read_text().replace("'13.0'", "None"))
    assert torchguard.changed(venv) == (
        "the environment had torch 2.14.0 (CUDA 13.0), and has torch 2.14.0 (without CUDA) now"
    )
    bench.create(lock)
    assert not kept.exists()
    assert torchguard.changed(venv) == ""


# --- whole builds ---

INSTALLS = """
import subprocess, sys
subprocess.run([{uv!r}, "pip", "install", "-q", "--no-deps", "--python", sys.executable, {wheel!r}], check=True)
"""

RECIPE = """
schema = 1
name = "tiny"
{more}
[[source]]
kind = "local"
path = "{folder}"
[[output]]
name = "tiny"
"""


def recipe(world: World, more: str = "", extra: str = "") -> None:
    folder = world.tiny(extra=extra)
    world.recipe("tiny", RECIPE.format(folder=folder, more=more))


PINNED = "build.torch = 'pinned'\nbuild.torch-version = '2.14.0'"


@pytest.mark.parametrize("more", [PINNED, ""])
def test_a_hook_that_installs_a_torch_is_refused_and_nothing_is_published(
    bench: Bench, world: World, more: str
) -> None:
    other = torch_wheel(world.root / "elsewhere", "2.15.0", None)
    bench.offer("2.14.0", "13.0")
    recipe(world, more, INSTALLS.format(uv=uv.find_uv_bin(), wheel=str(other)))
    index = {"UV_DEFAULT_INDEX": bench.index.as_uri()}
    for _attempt in range(2):  # the kept tree of the first doesn't help the second
        told = world.run("recipe", "tiny", code=1, **index).stderr
        assert "error[torch-changed]" in told
        assert ("had torch 2.14.0 (CUDA 13.0)" if more else "had no torch") in told
        assert "torch 2.15.0 (without CUDA) now" in told
    assert not list((world.wheelhouse / "wheels").rglob("*.whl"))


@pytest.mark.cuda
def test_a_recipe_that_needs_cuda_refuses_an_index_with_a_higher_torch_without(bench: Bench, world: World) -> None:
    bench.offer("2.14.0", "13.0")
    bench.offer("2.14.0+cpu", None)
    recipe(world, PINNED + "\nsystem.cuda = '>=12'", extra="import torch; print('compiled', torch.__version__)")
    told = world.run("recipe", "tiny", code=5, UV_DEFAULT_INDEX=bench.index.as_uri()).stderr
    assert "error[torch-cpu]" in told
    assert "torch.version.cuda = None" in told
    assert "compiled" not in told
