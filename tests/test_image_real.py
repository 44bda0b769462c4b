"""The final image with the real projects: FlashInfer of ours, Triton's own wheel, torch for CUDA 13; checked, and compiling.

``pytest tests/test_image_real.py --slow``: a quarter of an hour, the package index, 4 GB of downloads and 40 GB of disk.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from builder.image.engine import Container
from tests.world import World

if TYPE_CHECKING:
    from pathlib import Path

    from tests.engine_kit import Engines, Kit

pytestmark = [pytest.mark.slow, pytest.mark.network, pytest.mark.cuda, pytest.mark.root]

#: Debian 13 has glibc 2.41 and Python 3.13, and no nvcc 13: that comes as wheels, of torch's CUDA. The newest nvvm, which
#: nvcc's metadata would let in, writes PTX that this ptxas doesn't read.
NAMES = ["flashinfer-python", "triton", "torch"]
NVCC = [f"nvidia-{part}==13.2.*" for part in ("cuda-nvcc", "nvvm", "cuda-crt")]
TARGET = ["--platform", "x86_64-manylinux_2_39", "--target-python", "3.13"]

INSIDE = """
import json, os
env = dict(os.environ)  # before flashinfer, which names a ptxas itself
import pathlib, torch, triton, flashinfer
library = pathlib.Path(torch.__file__).parent / "lib" / "libtorch_cuda.so"
print(json.dumps({
    "cuda": torch.version.cuda, "library": library.exists(), "arch": torch.cuda.get_arch_list(),
    "flashinfer": flashinfer.__version__, "env": env, "uid": os.getuid(),
    "interfaces": [line.partition(":")[0].strip() for line in open("/proc/net/dev").readlines()[2:]],
}))
"""

#: Down to machine code for a GB10, as at the first request of a server: Triton by its own ptxas, FlashInfer by nvcc.
COMPILES = """
import json, pathlib, triton, triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

@triton.jit
def double(source, target, count, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(target + at, 2 * tl.load(source + at, mask=at < count), mask=at < count)

source = ASTSource(double, {"source": "*fp32", "target": "*fp32", "count": "i32"}, {"BLOCK": 128})
made = triton.compile(source, target=GPUTarget("cuda", 121, 32))
from flashinfer.jit.page import gen_page_module
spec = gen_page_module()
spec.build(verbose=True)
print()
print(json.dumps({
    "ptx": made.asm["ptx"].count(".target sm_121a"), "cubin": len(made.asm["cubin"]),
    "library": spec.jit_library_path.stat().st_size, "ninja": spec.ninja_path.read_text(),
}))
"""


@pytest.fixture(scope="module")
def kit(engines: Engines) -> Kit:
    return engines.get("buildah-chroot")


@pytest.fixture(scope="module")
def image(kit: Kit, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    world = World(tmp_path_factory.mktemp("real"))
    world.run("recipe", "flashinfer")
    words = [
        "image",
        *NAMES,
        *NVCC,
        "-t",
        "real:1",
        *TARGET,
        "--base",
        kit.base("ready"),
        "--engine",
        kit.engine,
        "--json",
    ]
    told: dict[str, Any] = json.loads(world.run(*words, code=0, **kit.env).stdout)["image"]
    return told


def said(kit: Kit, tag: str, text: str, folder: Path, **env: str) -> dict[str, Any]:
    """Run a program inside and return the last line that it prints."""
    folder.chmod(0o755)
    (folder / "program.py").write_text(text)
    mounts = {folder: "/program"}
    ran = kit.find().run(tag, ["python", "/program/program.py"], Container(mounts=mounts, env=env))
    assert ran.ok, ran.out + ran.err
    found: dict[str, Any] = json.loads(ran.out.splitlines()[-1])
    return found


def test_it_is_checked_and_imports_without_a_network(image: dict[str, Any], kit: Kit, tmp_path: Path) -> None:
    found = said(kit, image["tag"], INSIDE, tmp_path)
    assert found["interfaces"] in ([], ["lo"])
    assert found["uid"] == 1000
    assert found["cuda"].startswith("13.")
    assert found["library"]
    assert any(arch.startswith("sm_12") for arch in found["arch"])
    assert "+" in found["flashinfer"]  # ours
    assert found["env"]["MAX_JOBS"] == "2"
    assert found["env"]["FLASHINFER_NO_DOWNLOAD"] == "1"
    assert not [name for name in found["env"] if name.startswith("TRITON_PTXAS")]  # its own knows the chip


def test_kernels_are_compiled_for_a_gb10_inside(image: dict[str, Any], kit: Kit, tmp_path: Path) -> None:
    found = said(kit, image["tag"], COMPILES, tmp_path, FLASHINFER_CUDA_ARCH_LIST="12.1a")
    assert found["ptx"]
    assert found["cubin"]
    assert found["library"]
    assert "sm_121a" in found["ninja"]
