"""A real vLLM 0.33.0 with the network cut: its whole configure, units before and after the patches, kernels of its own.

`SPARK_BUILD_SNAPSHOTS` names the sources (`tests.vllm_kit`); the index gives vLLM's source archive, torch and the build
requirements. Neither front end nor FlashKDA: there are no crates here, and no snapshot of vLLM's own FlashKDA.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import zipfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.vllm_kit import RELEASES, offline, put_in_place, toolkit, unpacked
from tests.world import COMMAND, World

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.vllm_kit import Put

pytestmark = [pytest.mark.slow, pytest.mark.cuda, pytest.mark.network, pytest.mark.root]

VERSION = "0.33.0"
QUTLASS = "e74319e3405ce6d71965732880f5dc1f52371f64"

#: What copies Python files, compiles a line of C for DeepGEMM's stand-in, or is empty on 12.x.
CHEAP = (
    *("triton_kernels", "_vllm_fa4_cutedsl_C", "fmha_sm100", "tml_fa4", "_deep_gemm_C"),
    *("_flashmla_C", "_flashmla_extension_C", "_deepselect_C", "spinloop", "fs_io_C", "cumem_allocator"),
)

#: The cheapest units with device code of `_C_stable_libtorch`: they don't make a whole extension.
KERNELS = """\
    cuda_utils_kernels
    quantization/w8a8/cutlass/scaled_mm_c3x_sm120
    quantization/fp4/activation_nvfp4_quant_fusion_kernels
    quantization/fp4/nvfp4_scaled_mm_entry
    quantization/fp4/nvfp4_quant_kernels
    quantization/fp4/nvfp4_quant_entry
    fp32_router_gemm_entry
    nvfp4_kv_cache_kernels
    quantization/fp4/nvfp4_experts_quant
    quantization/awq/gemm_kernels
    quantization/marlin/awq_marlin_repack
    attention/dcp_utils/dcp_direct_kv_gather
    ngram_embedding_kernels
    quantization/marlin/marlin_int4_fp8_preprocess
    attention/merge_attn_states
    attention/dcp_utils/dcp_direct_q_gather
    quantization/fused_kernels/fused_silu_mul_block_quant
    cuda_view
    muse_spark_mul_tanh_soft_cap_kernel
    quantization/marlin/gptq_marlin_repack
    pos_encoding_kernels
    vocab_parallel_embedding_kernels
    custom_all_reduce
    quantization/w8a8/cutlass/scaled_mm_entry
    attention/dcp_utils/dcp_direct_a2a_lse_reduce
    dsv3_fused_a_gemm
    hisparse_kernels
    quantization/activation_kernels
"""

#: The floor of 0.33.0 is gcc 13, for <format> in DeepGEMM and DeepSelect; neither's host code is compiled here.
FLOOR = """\
--- a/CMakeLists.txt
+++ b/CMakeLists.txt
@@ -1691,7 +1691,7 @@ endif()
 # provides only from GCC 13 onward.
 if (VLLM_GPU_LANG STREQUAL "CUDA"
     AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU"
-    AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS "13")
+    AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS "12")
   message(FATAL_ERROR
     "GCC >= 13 is required to build vLLM with CUDA (found ${CMAKE_CXX_COMPILER_VERSION}). "
     "The DeepGEMM and DeepSelect dependencies use C++20 <format> in host code, "
"""

#: Leaves out extensions, as much as a test's time asks for.
ONLY = """\
--- a/setup.py
+++ b/setup.py
@@ -1619,6 +1619,8 @@ if _build_custom_ops():
         ext_modules.append(CMakeExtension(name="vllm._C_stable_libtorch"))
         ext_modules.append(CMakeExtension(name="vllm._moe_C_stable_libtorch"))
{blank}
+ext_modules = [one for one in ext_modules if one.name.rpartition(".")[2] in {names!r}]
+
 package_data = {{
     "vllm": [
         "py.typed",
"""

#: Leaves out all units of one extension but some.
SOME = """\
--- a/CMakeLists.txt
+++ b/CMakeLists.txt
@@ -1265,6 +1265,{after} @@ if(VLLM_GPU_LANG STREQUAL "CUDA" OR VLLM_GPU_LANG STREQUAL "HIP")
     endif()
   endif()
{blank}
+  set(VLLM_STABLE_EXT_SRC {units})
   message(STATUS "Enabling C_stable extension.")
   list(REMOVE_DUPLICATES VLLM_STABLE_EXT_SRC)
   define_extension_target(
"""


class Bench(World):
    """A world with real sources in place, a whole toolkit, torch, and a recipe layer of its own."""

    put: Mapping[str, Put]
    cuda: Path
    python: Path

    def prepare(self) -> None:
        self.put = put_in_place(self.root / "put", QUTLASS)
        venv = self.root / "torch"
        self._uv("venv", str(venv))
        self.python = venv / "bin" / "python"
        wanted = ["torch==2.14.0", "cmake>=3.26.1,<5", "ninja", "setuptools<81", "setuptools-scm>=8", "setuptools-rust"]
        self._uv("pip", "install", "-p", str(self.python), *wanted)
        (wheels,) = venv.glob("lib/python*/site-packages/nvidia/cu13")
        self.cuda = toolkit(self.root / "cuda", wheels)

    def _uv(self, *words: str) -> None:
        uv = COMMAND.with_name("uv")
        subprocess.run([str(uv), *words], env=self.env(), capture_output=True, check=True)

    def env(self, **more: str) -> dict[str, str]:
        made = super().env(**more)
        return made | ({"CUDA_HOME": str(self.cuda)} if hasattr(self, "cuda") else {})

    def overlay(self, *extensions: str, some: str = "") -> None:
        """Lay the machine's own layer: sources in place, the compiler's floor, only these extensions, `some` of one."""
        (self.patches / "vllm").mkdir(exist_ok=True)
        parts = ["[system]", 'gcc = ">=12"', "apt = []", "[resources]", 'disk = "8GiB"']
        parts += ["[[check]]", 'id = "device-code"']
        kernels = [f"*{one}*" for one in extensions if one not in CHEAP]
        parts += [f"require = {json.dumps(kernels)}"]
        only = ONLY.format(names=[*extensions], blank=" ")
        for name, text in (("floor", FLOOR), ("only", only), *((("some", some),) if some else ())):
            (self.patches / "vllm" / f"{name}.patch").write_text(text)
            digest = hashlib.sha256(text.encode()).hexdigest()
            parts += ["[[patch]]", f'id = "{name}"', f'file = "{name}.patch"', f'sha256 = "{digest}"']
        for name, put in self.put.items():
            parts += ["[[fetch]]", f'id = "{name}"', f'path = "{put.path}"']
        self.recipe("vllm", "\n".join(parts))

    def build(self, *words: str) -> Path:
        """Build with no network at all, and return the wheel."""
        command = offline("recipe", "vllm", "--without", "rust", "--offline", *words)
        done = subprocess.run(command, env=self.env(), cwd=self.root, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return Path(done.stdout.strip())

    def log(self) -> str:
        """Return the newest build's log."""
        newest = self.json("history", "vllm")["attempts"][0]
        return (Path(newest["logs"]) / "build.log").read_text(errors="replace")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    made = Bench(tmp_path_factory.mktemp("vllm"))
    made.prepare()
    made.overlay(*CHEAP)
    made.run("fetch", "vllm", "--without", "rust")
    return made


def test_configure_is_whole_without_a_network(bench: Bench) -> None:
    """All ten are there by upstream's own way, and the extensions without device code make a wheel."""
    wheel = bench.build()
    log = bench.log()
    kinds = Counter(one.what.split()[0] for one in bench.put.values())
    assert kinds == {"exact": 1, "other": 4, "stand-in": 5}
    for said in ("DeepGEMM", "DeepSelect", "fmha_sm100", "FlashMLA", "FlashKDA", "QuTLASS", "tml-fa4"):
        assert f"{said} is available at" in log
    assert "triton_kernels is available at" in log
    assert "vllm-flash-attn is available at" in log
    assert "Generating done" in log
    assert "CUDA supported target architectures: 12.0f" in log
    assert "FA2 built for: 12.0f" in log
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        # FlashAttention-4 was copied and its imports rewritten: a local source given in vLLM's own way would leave a link.
        cute = [name for name in names if name.startswith("vllm/vllm_flash_attn/cute/")]
        assert cute
        assert not any(b"from flash_attn.cute" in archive.read(name) for name in cute)
    assert {"vllm/spinloop.abi3.so", "vllm/fs_io_C.abi3.so", "vllm/cumem_allocator.abi3.so"} <= set(names)
    assert "cp38-abi3" in wheel.name


def test_kernels_through_the_gate(bench: Bench) -> None:
    """28 units with device code of vLLM's own, by our launcher, native for the chip."""
    sources = [f"csrc/{name}.cu" for name in KERNELS.split()]
    bench.overlay(*CHEAP, "_C_stable_libtorch", some=SOME.format(after=7, blank=" ", units=" ".join(sources)))
    bench.build()
    told = json.loads(bench.run("history", "vllm", "--units").stdout)["units"]
    compiled = {one["source"] for one in told}
    assert sum(any(name.endswith(source) for name in compiled) for source in sources) == len(sources) == 28


def units(bench: Bench, tree: Path, arch: str) -> Counter[str]:
    """Configure `tree` by CMake itself; count what its setup.py's extensions take, by device code."""
    build = tree.with_name(f"{tree.name}-build")
    words = [
        f"-DFETCHCONTENT_SOURCE_DIR_{name.upper().replace('-', '_')}={put.path}" for name, put in bench.put.items()
    ]
    words += [f"-DFETCHCONTENT_SOURCE_DIR_VLLM-FLASH-ATTN={bench.put['vllm-flash-attn'].path}"]
    for name in ("deepgemm", "qutlass"):
        shutil.copytree(bench.put[name].path, tree / ".deps" / f"{name}-src", dirs_exist_ok=True)
    bin_dir = bench.python.parent
    env = bench.env(TORCH_CUDA_ARCH_LIST=arch, PATH=f"{bin_dir}:{bench.cuda}/bin:{os.environ['PATH']}")
    command = ["unshare", "-rn", "cmake", str(tree), "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", *words]
    command += [f"-DVLLM_PYTHON_EXECUTABLE={bench.python}", f"-DFETCHCONTENT_BASE_DIR={tree}/.deps"]
    command += ["-DVLLM_TARGET_DEVICE=cuda", f"-DCMAKE_CUDA_COMPILER={bench.cuda}/bin/nvcc"]
    build.mkdir()
    done = subprocess.run(
        [*command, "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON"],
        cwd=build,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    listed = set(re.findall(r'CMakeExtension\(\s*name="[\w.]*?(\w+)"', (tree / "setup.py").read_text()))
    found: Counter[str] = Counter()
    for one in json.loads((build / "compile_commands.json").read_text()):
        target = re.search(r"CMakeFiles/([^/]+)\.dir/", one["command"])
        if target and target[1] in listed:
            found["all"] += 1
            codes = sorted(set(re.findall(r"code=(\w+)", one["command"]))) if one["file"].endswith(".cu") else ["host"]
            found[" ".join(codes) or "none"] += 1
    return found


def test_units_before_and_after_each_patch(bench: Bench) -> None:
    shipped = Path(__file__).parents[1] / "patches" / "vllm"

    def tree(name: str, *patched: str) -> Path:
        made = unpacked(VERSION, bench.root / "sources", bench.root / name)
        (made / "floor.patch").write_text(FLOOR)
        for patch in (made / "floor.patch", *(shipped / f"{one}.patch" for one in patched)):
            subprocess.run(
                ["git", "apply", str(patch)], cwd=made, env=bench.env(GIT_CEILING_DIRECTORIES="/"), check=True
            )
        return made

    assert VERSION in RELEASES
    plain = units(bench, tree("plain"), "12.0f")
    dropped = units(bench, tree("dropped", "drop-fa3"), "12.0f")
    native = units(bench, tree("native", "drop-fa3", "fa2-native"), "12.0f")
    chip = units(bench, tree("chip", "drop-fa3", "fa2-native", "sm121a"), "12.1a")
    assert (plain["all"], dropped["all"], native["all"], chip["all"]) == (398, 204, 204, 204)
    assert (plain["none"], dropped["none"]) == (192, 0)
    assert dropped["compute_80 sm_80"] - native["compute_80 sm_80"] == 76
    assert native["sm_120f"] - dropped["sm_120f"] == 76
    assert chip["sm_121a"] == native["sm_120f"]
    assert chip["sm_120f"] == 0
