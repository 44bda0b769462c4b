"""``doctor --env`` on real packages of the public index, broken as people break them; the mend that is printed, done.

pytest tests/test_doctor_real.py --slow   (6 GB of wheels, 10 GB of disk; a few minutes from a warm cache)
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.doctor_kit import UV

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.world import World

pytestmark = [pytest.mark.slow, pytest.mark.network]

#: vLLM's extension alone, for its package imports a hundred others first.
LOAD = """
import importlib.util as util, torch
util.module_from_spec(util.spec_from_file_location("_C", "vllm/_C.abi3.so"))
"""

PTXAS = Path("/usr/local/cuda/bin/ptxas")


class Real:
    """A virtual environment that uv fills from the index."""

    def __init__(self, root: Path, world: World) -> None:
        self.root, self.world = root, world
        subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, root], check=True)

    @property
    def site(self) -> Path:
        return next((self.root / "lib").glob("python3.*/site-packages"))

    def install(self, *words: str) -> None:
        subprocess.run([UV, "pip", "install", "--quiet", "--python", self.root / "bin/python", *words], check=True)

    def problems(self, **env: str) -> dict[str, dict[str, Any]]:
        """Return the problems by id; of two of one id the first."""
        done = self.world.run("doctor", "--env", str(self.root), "--json", code=None, MAX_JOBS="2", **env)
        found = json.loads(done.stdout)["findings"]
        assert done.returncode == (5 if any(one["status"] == "problem" for one in found) else 0)
        return {one["id"]: one for one in reversed(found) if one["status"] == "problem"}

    def follow(self, command: str) -> None:
        """Run a command that was printed."""
        words = shlex.split(command)
        assert words[0] == "uv", command
        subprocess.run([UV, *words[1:]], check=True, capture_output=True)


@pytest.fixture
def real(world: World, tmp_path: Path) -> Iterator[Real]:
    made = Real(tmp_path / "venv", world)
    yield made
    subprocess.run(["rm", "-rf", made.root], check=True)  # 7 GB


def test_the_official_closure_is_good(real: Real) -> None:
    real.install("torch>=2.15", "triton", "flashinfer-python")
    lacks = real.problems()
    assert set(lacks) <= {"nvcc"}, lacks  # a toolkit to link with need not be on this machine


def test_a_torch_that_lost_its_library_is_mended_by_what_is_printed(real: Real) -> None:
    real.install("torch>=2.15")
    (real.site / "torch/lib/libtorch_cuda.so").unlink()
    found = real.problems()
    assert found["torch"]["failure"] == found["import"]["failure"] == "torch-cuda-library-missing"
    assert "ImportError: libtorch_cuda.so: cannot open shared object file" in found["import"]["found"]
    real.follow(found["torch"]["run"][0])
    assert real.problems() == {}


def test_the_last_cpu_torch_for_aarch64(real: Real) -> None:
    """What `pip install torch==2.10.0` gave on a Spark. Its own Python isn't run: its files say it."""
    real.install("--no-deps", "--python-platform", "aarch64-manylinux_2_39", "torch==2.10.0")
    one = real.problems()["torch"]
    assert one["failure"] == "torch-cpu"
    assert one["found"].startswith("2.10.0+cpu is the CPU build")
    assert one["run"][0].endswith("--reinstall 'torch>=2.11'")


@pytest.mark.cuda
def test_triton_3_5_takes_its_own_old_ptxas(real: Real) -> None:
    real.install("triton==3.5.1")
    one = real.problems()["ptxas"]
    assert one["failure"] == "ptxas-too-old"
    assert "ptxas fatal   : Value 'sm_121a' is not defined for option 'gpu-name'" in one["found"]
    assert one["run"] == [f"export TRITON_PTXAS_PATH={PTXAS}"]
    assert real.problems(TRITON_PTXAS_PATH=str(PTXAS)) == {}


def test_a_newer_triton_with_an_old_ptxas_in_its_way(real: Real, tmp_path: Path) -> None:
    old = tmp_path / "old"
    real.install("triton>=3.9")
    subprocess.run(
        [UV, "pip", "install", "-q", "--python", sys.executable, "--target", old, "--no-deps", "triton==3.5.1"],
        check=True,
    )
    ptxas = old / "triton/backends/nvidia/bin/ptxas"
    one = real.problems(TRITON_PTXAS_BLACKWELL_PATH=str(ptxas))["ptxas"]
    assert one["run"] == ["unset TRITON_PTXAS_BLACKWELL_PATH"]
    assert real.problems(TRITON_PTXAS_PATH=str(ptxas)) == {}  # not asked for this chip
    assert real.problems() == {}
    subprocess.run(["rm", "-rf", old], check=True)


def test_an_nvcc_of_wheels_that_do_not_belong_together(real: Real) -> None:
    """No metadata pins nvcc's parts to each other: cicc 13.5 writes PTX that ptxas 13.2 doesn't know."""
    real.install(
        "nvidia-cuda-nvcc==13.2.*", "nvidia-nvvm>=13.5", "nvidia-cuda-crt", "nvidia-cuda-runtime", "nvidia-cuda-cccl"
    )
    real.install("--no-deps", "flashinfer-python")
    home = str(next(real.site.glob("nvidia/cu13")))
    one = real.problems(CUDA_HOME=home)["nvcc"]
    assert one["failure"] == "toolkit-mixed", one
    assert "Unsupported .version" in one["found"]
    real.follow(one["run"][0])
    assert "the linker finds no -lcudart" in real.problems(CUDA_HOME=home)["nvcc"]["found"]  # it compiles now


def test_a_cubin_package_that_an_update_left_behind(real: Real) -> None:
    """FlashInfer 0.7.1 itself refuses to be imported, in the words that the catalogue knows."""
    real.install("flashinfer-python==0.7.1", "flashinfer-cubin==0.4.1", "torch>=2.15")
    found = real.problems(FLASHINFER_NO_DOWNLOAD="1")
    assert found["flashinfer"]["failure"] == found["import"]["failure"] == "cubin-version-mismatch"
    assert "flashinfer-cubin version (0.4.1) does not match flashinfer version (0.7.1)" in found["import"]["found"]
    real.follow(found["flashinfer"]["run"][0])
    assert set(real.problems()) <= {"nvcc"}


def test_a_vllm_for_cuda_12_beside_a_torch_for_13(real: Real) -> None:
    """0.8.5 called the method nvfp4; it is linked to libcudart.so.12."""
    real.install("torch>=2.15")
    real.install("--no-deps", "vllm==0.8.5.post1")
    found = real.problems()
    assert found["quantization"]["failure"] == "quantization-unknown"
    assert found["cuda"]["failure"] == "cuda-major-mismatch"
    assert "vllm 0.8.5.post1 needs libcudart.so.12" in found["cuda"]["found"]
    done = subprocess.run(
        [real.root / "bin/python", "-c", LOAD], cwd=real.site, capture_output=True, text=True, check=False
    )
    told = diagnosed(real, done.stderr)
    assert told == "cuda-major-mismatch", done.stderr


def diagnosed(real: Real, text: str) -> str:
    """Return what `doctor --log` says about what a process printed."""
    (real.world.root / "x.log").write_text(text)
    found = real.world.json("doctor", "--log", "x.log", code=5)["findings"]
    return str(found[0]["failure"])
