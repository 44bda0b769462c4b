"""The real FlashInfer: the Python wheel from archive and git, kernels of 12.1a with their shim, accepted by FlashInfer.

The sources are local snapshots, which SPARK_BUILD_SNAPSHOTS names (OWNER+NAME/repo); the index gives build requirements.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests import flashinfer_kit, vllm_kit
from tests.world import COMMAND, World

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = [pytest.mark.slow, pytest.mark.network, pytest.mark.cuda, pytest.mark.root]

XQA = "xqa_input_bf16_kv_cache_bf16_output_bf16_page_size_16_head_dim_{}_*"
#: 50 units, of the cheap ones: attention for one query, with and without a sliding window, and the cache's page table.
MODULES = [XQA.format(64), XQA.format(128), "page"]
UNITS = 50


class Real(World):
    """A world in which FlashInfer's repository and its submodules are local, with a whole toolkit and a torch."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        mirrors = flashinfer_kit.repositories(root / "up", vllm_kit.snapshots())
        rows = "".join(f'"{url}" = "{path}"\n' for url, path in mirrors.items())
        (self.config / "config.toml").write_text(f"[mirrors]\n{rows}")
        self.uv("venv", "torch", "--python", "3.11")
        self.uv("pip", "install", "--python", "torch", "torch==2.14.0", "nvidia-curand", "apache-tvm-ffi>=0.1.11,<0.2")
        (wheels,) = (root / "torch" / "lib").glob("python*/site-packages/nvidia/cu13")
        self.cuda = vllm_kit.toolkit(root / "cuda", wheels)

    def env(self, **more: str) -> dict[str, str]:
        cuda = getattr(self, "cuda", None)
        return super().env(**({"CUDA_HOME": str(cuda)} if cuda else {}), **more)

    def uv(self, *words: str) -> str:
        command = [str(COMMAND.with_name("uv")), "-q", *words]
        done = subprocess.run(command, env=self.env(), cwd=self.root, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def words(self, branch: str, modules: Sequence[str] = ()) -> list[str]:
        """Return the words that ask for kernels from `branch`."""
        torch = str(self.root / "torch" / "bin" / "python")
        chosen = ["--set", f"build.modules={json.dumps(modules)}"] if modules else []
        return ["flashinfer", "--ref", branch, "--with", "jit-cache", "--torch", torch, *chosen]

    def built(self, *words: str) -> list[Path]:
        """Fetch, then build with the network cut and everything frozen; return the wheels."""
        self.run("fetch", *words)
        done = subprocess.run(
            vllm_kit.offline("recipe", *words, "--offline"),
            env=self.env(),
            cwd=self.root,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return [Path(line) for line in done.stdout.splitlines()]

    def installed(self, name: str, wheels: Sequence[Path]) -> Path:
        """Install `wheels` together into a copy of torch's environment, as they resolve; return its interpreter."""
        self.uv("venv", name, "--python", "3.11")
        self.uv("pip", "install", "--python", name, "torch==2.14.0", *map(str, wheels))
        return self.root / name / "bin" / "python"

    def units(self) -> list[dict[str, Any]]:
        """Return the compiler runs of all builds, as the gate saw them."""
        files = (self.wheelhouse / "builds").glob("*/logs/*/events.jsonl")
        events = [json.loads(line) for file in files for line in file.read_text().splitlines()]
        return [one for one in events if one["kind"] == "unit.ended"]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Real:
    return Real(tmp_path_factory.mktemp("flashinfer"))


@pytest.fixture(scope="module")
def kernels(real: Real) -> list[Path]:
    """The three wheels of one build: Python, provider, shim."""
    return real.built(*real.words("provider", MODULES))


def member(wheel: Path, name: str) -> str:
    with zipfile.ZipFile(wheel) as archive:
        (found,) = (one for one in archive.namelist() if one.endswith(name))
        return archive.read(found).decode()


def version_of(wheel: Path) -> str:
    return wheel.name.split("-")[1]


def test_python_wheel_from_the_source_archive(real: Real) -> None:
    (wheel,) = real.built("flashinfer")
    assert re.fullmatch(r"flashinfer_python-0\.7\.2\.post1\+sb\w+\.g\w+-py3-none-any\.whl", wheel.name)
    assert f'__version__ = "{version_of(wheel)}"' in member(wheel, "flashinfer/_build_meta.py")


def test_three_wheels_have_one_version_wherever_it_stands(kernels: list[Path]) -> None:
    python, provider, shim = kernels
    (version,) = {version_of(one) for one in kernels}
    assert version.startswith("0.6.18+sb")
    assert f'__version__ = "{version}"' in member(python, "flashinfer/_build_meta.py")
    assert f'__version__ = "{version}"' in member(shim, "flashinfer_jit_cache/_build_meta.py")
    assert f'__version__ = "{version}"' in member(provider, "sm121a/_build_meta.py")
    assert json.loads(member(provider, "manifest.json"))["version"] == version
    assert f"Requires-Dist: flashinfer-jit-cache-sm121a=={version}" in member(shim, ".dist-info/METADATA")


def test_only_the_chosen_modules_are_compiled_each_through_the_gate(real: Real, kernels: list[Path]) -> None:
    manifest = json.loads(member(kernels[1], "manifest.json"))
    assert manifest["cuda_architectures"] == ["sm121a"]
    assert len(manifest["modules"]) == 17
    assert {one.partition("_")[0] for one in manifest["modules"]} == {"xqa", "page"}
    compiled = [one for one in real.units() if one["unit"].endswith(".cu")]
    assert len(compiled) == UNITS
    assert all(one["ok"] and one["peak_bytes"] and one["reserved_bytes"] for one in compiled)


def test_every_library_holds_code_for_121a_and_nothing_else(real: Real, kernels: list[Path]) -> None:
    (report,) = real.json("audit", str(kernels[1]))["reports"]
    held = {file["path"]: {(one["kind"], one["arch"]) for one in file["images"]} for file in report["files"]}
    assert len(held) == 17
    assert {one for each in held.values() for one in each} == {("cubin", "sm_121a")}
    assert report["total"]["verdict"] == "native"


def test_flashinfer_accepts_what_was_built_together(real: Real, kernels: list[Path]) -> None:
    python = real.installed("serve", kernels)
    found, said = flashinfer_kit.asked(python, real.home)
    assert "Ignoring" not in said
    (provider,) = found["providers"]
    assert provider["id"] == "sm121a"
    assert provider["targets"] == ["sm121a"]
    assert provider["version"] == found["version"] == version_of(kernels[0])
    assert len(provider["modules"]) == 17
    meta = next((real.root / "serve" / "lib").glob("python*/site-packages/flashinfer/_build_meta.py"))
    meta.write_text(meta.read_text().replace(found["version"], "0.6.18+sbother"))
    with pytest.raises(AssertionError, match="does not match flashinfer version"):  # the control: FlashInfer does look
        flashinfer_kit.asked(python, real.home)


def test_before_providers_one_wheel_holds_the_kernels(real: Real) -> None:
    python, whole = real.built(*real.words("monolith", ["page"]))
    assert version_of(whole) == version_of(python)
    with zipfile.ZipFile(whole) as archive:
        libraries = [name for name in archive.namelist() if name.endswith(".so")]
    assert [name.rpartition("/purelib/")[2] for name in libraries] == ["flashinfer_jit_cache/jit_cache/page/page.so"]


def test_pattern_that_matches_no_module_is_told_by_name(real: Real) -> None:
    done = real.run("recipe", *real.words("provider", ["tomorrow_*"]), code=None)
    assert done.returncode != 0
    assert "FLASHINFER_AOT_MODULES: no module matches tomorrow_*" in done.stderr


@pytest.mark.parametrize("arch", ["12.0a"])
def test_architecture_that_a_gb10_does_not_load_is_refused(real: Real, arch: str) -> None:
    done = real.run("plan", "flashinfer", "--arch", arch, code=2)
    assert "does not load on a GB10" in done.stderr
    assert os.environ.get("SPARK_BUILD_SNAPSHOTS")
