"""``doctor --env``: environments that are really broken, each told with the mend, and good ones with nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from builder.runtime import known, quantization
from tests.doctor_kit import Place, compiled
from tests.world import COMMAND

if TYPE_CHECKING:
    from builder.host.checks import Finding
    from tests.world import World

CUDA = Path("/usr/local/cuda")
PTXAS = CUDA / "bin" / "ptxas"

#: Says which version it is, and knows no chip.
OLD_PTXAS = """\
#!/bin/sh
[ "$1" = --version ] && exec {ptxas} --version
echo "ptxas fatal   : Value 'sm_121a' is not defined for option 'gpu-name'" >&2
exit 255
"""

#: The real compiler, without the folders that it is told to look for headers in.
BLIND_GCC = """\
#!/bin/bash
words=()
while [ $# -gt 0 ]; do [ "$1" = -I ] && shift || words+=("$1"); shift; done
exec /usr/bin/gcc "${words[@]}"
"""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "venv")


def only(found: list[Finding], name: str) -> Finding:
    (one,) = [one for one in found if one.id == name]
    return one


def problems(found: list[Finding]) -> list[tuple[str, str]]:
    return [(one.id, one.failure) for one in found if one.status == "problem"]


# torch ----------------------------------------------------------------------------------------------------------------


def test_a_whole_torch_is_good(place: Place) -> None:
    place.torch()
    found = place.found()
    assert problems(found) == []
    assert only(found, "torch").found == "2.15.0 with CUDA 13.2, code for sm_120"


def test_the_cpu_build_is_told_with_the_same_version(place: Place) -> None:
    place.torch("2.14.0+cpu", cuda=None)
    one = only(place.found(), "torch")
    assert (one.status, one.failure) == ("problem", "torch-cpu")
    assert "torch.version.cuda is None" in one.found
    assert one.run[0] == f"uv pip install --python {place.python} --reinstall 'torch==2.14.0'"


def test_where_the_index_has_no_cuda_of_that_version_a_newer_one_is_named(place: Place) -> None:
    place.torch("2.9.1", cuda=None)
    assert only(place.found(), "torch").run[0].endswith("--reinstall 'torch>=2.11'")


def test_a_torch_without_its_cuda_library(place: Place) -> None:
    place.torch(lib=False)
    assert problems(place.found()) == [("torch", "torch-cuda-library-missing")]


def test_what_needs_the_lost_library_is_told_as_the_same(place: Place) -> None:
    """A real extension, linked to a libtorch_cuda.so that isn't there any more: the loader's own words."""
    place.torch(lib=False)
    library = compiled(
        place.site / "torch/lib/libtorch_cuda.so", "int f(void) { return 1; }\n", "-Wl,-soname,libtorch_cuda.so"
    )
    module = compiled(
        place.root / "kernels.so", "int f(void); int PyInit_kernels(void) { return f(); }\n", str(library)
    )
    library.unlink()
    place.install("kernels", "1.0", {"kernels.so": module})
    found = place.found(imports=("kernels",))
    assert problems(found) == [("torch", "torch-cuda-library-missing"), ("import", "torch-cuda-library-missing")]
    one = only(found, "import")
    assert "libtorch_cuda.so: cannot open shared object file" in one.found
    assert one.why == "as above"


def test_a_torch_for_other_chips(place: Place) -> None:
    place.torch(flags="sm_80 sm_90")
    assert problems(place.found()) == [("torch", "no-kernel-image")]
    assert only(place.found(), "torch").run == (f"uv pip install --python {place.python} 'torch>=2.11'",)
    assert problems(place.found(target="9.0")) == []


def test_a_torch_that_the_driver_has_to_compile_is_a_warning(place: Place) -> None:
    place.torch(flags="sm_80 compute_90")
    one = only(place.found(), "torch")
    assert (one.status, one.failure) == ("warn", "")
    assert "compute_90" in one.why


@pytest.mark.parametrize(("cuda", "told"), [("13.2", []), (None, [("torch", "torch-cpu")])])
def test_a_torch_that_lies_elsewhere_is_asked(
    place: Place, tmp_path: Path, cuda: str | None, told: list[tuple[str, str]]
) -> None:
    """As one that is developed: a path among the packages leads to it."""
    place.torch(cuda=cuda)
    (tmp_path / "source").mkdir()
    (place.site / "torch").rename(tmp_path / "source/torch")
    (place.site / "torch.pth").write_text(f"{tmp_path / 'source'}\n")
    assert problems(place.found()) == told


def test_a_library_in_condas_own_folder_is_there(place: Place) -> None:
    place.torch(lib=False)
    (place.root / "lib/libtorch_cuda.so").touch()
    assert problems(place.found()) == []


@pytest.mark.parametrize(
    ("version", "wanted"),
    [
        ("2.14.0+cpu", "torch==2.14.0"),
        ("2.10.0", "torch>=2.11"),
        ("2.11.0a0+145a3a7bda.nv26.01", "torch>=2.11"),  # as NVIDIA's containers have it
        ("2.15.0.dev20260101+cu130", "torch>=2.11"),
        ("", "torch==VERSION"),
    ],
)
def test_the_torch_that_is_named_is_one_that_the_index_has(version: str, wanted: str) -> None:
    assert known.wanted_torch(version) == wanted


def test_vllm_without_torch(place: Place) -> None:
    place.install("vllm", "0.33.0", {"vllm/__init__.py": ""})
    assert "none, and vllm imports it" in only(place.found(), "torch").found


# ptxas ----------------------------------------------------------------------------------------------------------------


@pytest.mark.cuda
def test_the_bundled_assembler_is_run(place: Place) -> None:
    place.triton("3.9.0", PTXAS)
    one = only(place.found(), "ptxas")
    assert (one.status, one.found[:15]) == ("ok", "ptxas-blackwell")
    assert "knows sm_121a" in one.found


@pytest.mark.cuda
def test_an_assembler_that_is_older_than_the_chip(place: Place) -> None:
    """The toolkit's ptxas is asked for a chip that it can't know: its own words, and no toolkit that could do better."""
    place.triton("3.9.0", PTXAS)
    one = only(place.found(target="14.9"), "ptxas")
    assert (one.status, one.failure) == ("problem", "ptxas-blackwell-too-old")
    assert "Value 'sm_149a' is not defined for option 'gpu-name'" in one.found
    assert one.run == (
        "sudo apt install cuda-toolkit-13-0",
        "export TRITON_PTXAS_BLACKWELL_PATH=/usr/local/cuda/bin/ptxas",
    )


@pytest.mark.cuda
@pytest.mark.parametrize("target", ["8.0", "8.6", "8.7", "8.9", "9.0", "10.0", "10.3", "11.0", "12.0"])
def test_the_kernel_is_one_that_the_chip_can_have(place: Place, target: str) -> None:
    """Each chip came with a version of PTX; in an older one its name is an error, whatever the assembler knows."""
    place.triton("3.9.0", PTXAS)
    old = place.site / "triton/backends/nvidia/bin/ptxas"
    old.symlink_to(PTXAS)
    assert only(place.found(target=target), "ptxas").status == "ok"


@pytest.mark.cuda
def test_a_variable_that_names_a_bad_assembler_is_to_be_unset(place: Place, tmp_path: Path) -> None:
    place.triton("3.9.0", PTXAS)
    old = tmp_path / "ptxas"  # answers --version, and knows no chip
    old.write_text(OLD_PTXAS.format(ptxas=PTXAS))
    old.chmod(0o755)
    one = only(place.found(TRITON_PTXAS_BLACKWELL_PATH=str(old)), "ptxas")
    assert (one.status, one.run) == ("problem", ("unset TRITON_PTXAS_BLACKWELL_PATH",))
    assert only(place.found(TRITON_PTXAS_PATH=str(old)), "ptxas").status == "ok"  # it is not asked for this chip


@pytest.mark.cuda
def test_a_variable_that_names_nothing_is_a_warning(place: Place) -> None:
    place.triton("3.9.0", PTXAS)
    first, second = (one for one in place.found(TRITON_PTXAS_BLACKWELL_PATH="/nowhere/ptxas") if one.id == "ptxas")
    assert (first.status, first.run) == ("warn", ("unset TRITON_PTXAS_BLACKWELL_PATH",))
    assert second.status == "ok"


@pytest.mark.cuda
def test_a_variable_that_is_passed_over_is_a_warning(place: Place) -> None:
    place.triton("3.9.0", PTXAS)
    first, second = (one for one in place.found(TRITON_PTXAS_BLACKWELL_PATH="/bin/false") if one.id == "ptxas")
    assert (first.status, second.status) == ("warn", "ok")
    assert "/bin/false" in first.found


def test_a_triton_without_assembler(place: Place) -> None:
    place.triton("3.9.0", None)
    one = only(place.found(), "ptxas")
    assert (one.status, one.failure) == ("problem", "ptxas-missing")
    assert "Cannot find ptxas-blackwell" in one.found


# FlashInfer -----------------------------------------------------------------------------------------------------------

TOLERANT = (
    "log('Ignoring incompatible flashinfer-cubin package', 'Ignoring incompatible flashinfer-jit-cache package')\n"
)


def flashinfer(place: Place, version: str, env: str = "", **siblings: str) -> None:
    place.torch()
    place.install("flashinfer-python", version, {"flashinfer/__init__.py": "", "flashinfer/jit/env.py": env})
    for name, other in siblings.items():
        place.install(name.replace("_", "-"), other, {f"{name}/__init__.py": ""})


@pytest.mark.parametrize(
    ("siblings", "failure", "command"),
    [
        (
            {"flashinfer_cubin": "0.6.13"},
            "cubin-version-mismatch",
            "uv pip uninstall --python {python} flashinfer-cubin",
        ),
        (
            {"flashinfer_jit_cache": "0.7.1+cu130"},
            "jit-cache-version-mismatch",
            "spark-build recipe flashinfer --ref main --with jit-cache",
        ),
        (
            {"flashinfer_jit_cache": "0.7.2+a", "flashinfer_jit_cache_sm121a": "0.7.2+b"},
            "jit-cache-version-mismatch",
            "spark-build recipe flashinfer --ref main --with jit-cache",
        ),
    ],
)
def test_siblings_of_another_version(place: Place, siblings: dict[str, str], failure: str, command: str) -> None:
    flashinfer(place, "0.7.2", **siblings)
    one = only(place.found(), "flashinfer")
    assert (one.status, one.failure) == ("problem", failure)
    assert one.run[0] == command.format(python=place.python)


def test_newer_ones_pass_over_them_with_a_warning(place: Place) -> None:
    flashinfer(place, "0.7.4", TOLERANT, flashinfer_cubin="0.6.13")
    assert only(place.found(), "flashinfer").status == "warn"


@pytest.mark.parametrize(
    ("siblings", "told"),
    [
        ({}, "no kernels ahead of time"),
        ({"flashinfer_cubin": "0.7.2"}, "no kernels ahead of time"),
        ({"flashinfer_jit_cache": "0.7.2+cu130"}, "kernels in flashinfer-jit-cache"),
        (
            {"flashinfer_jit_cache": "0.7.2+cu130", "flashinfer_jit_cache_sm121a": "0.7.2+cu130"},
            "kernels in flashinfer-jit-cache-sm121a",
        ),
        (
            {"flashinfer_jit_cache": "0.7.2+cu130", "flashinfer_jit_cache_sm120f": "0.7.2+cu130"},
            "kernels in flashinfer-jit-cache-sm120f",
        ),
    ],
)
def test_siblings_that_agree(place: Place, siblings: dict[str, str], told: str) -> None:
    flashinfer(place, "0.7.2", **siblings)
    one = only(place.found(), "flashinfer")
    assert (one.status, told in one.found) == ("ok", True), one.found


def test_kernels_of_another_chip_are_told(place: Place) -> None:
    flashinfer(place, "0.7.2", flashinfer_jit_cache="0.7.2+cu130", flashinfer_jit_cache_sm100a="0.7.2+cu130")
    one = only(place.found(), "flashinfer")
    assert (one.status, one.wanted) == ("warn", "kernels for 12.1, a DGX Spark")


def test_a_check_that_is_turned_off_is_told(place: Place) -> None:
    flashinfer(place, "0.7.2", flashinfer_cubin="0.6.13")
    told = [one.found for one in place.found(FLASHINFER_DISABLE_VERSION_CHECK="1") if one.id == "flashinfer"]
    assert told[1] == "FLASHINFER_DISABLE_VERSION_CHECK is set"


def test_nothing_bounds_the_compilers(place: Place) -> None:
    flashinfer(place, "0.7.2")
    assert only(place.found(), "jobs").status == "warn"
    assert only(place.found(MAX_JOBS="4"), "jobs").status == "ok"


# vLLM -----------------------------------------------------------------------------------------------------------------

LISTS = [
    ('from typing import Literal\nQuantizationMethods = Literal["awq", "modelopt_fp4", "compressed-tensors"]\n', "ok"),
    ('QUANTIZATION_METHODS: list[str] = ["awq", "modelopt_fp4", "compressed-tensors"]\n', "ok"),
    ('from typing import Literal\nQuantizationMethods = Literal["awq", "nvfp4", "compressed-tensors"]\n', "problem"),
    ('QUANTIZATION_METHODS = {"awq": A, "gptq": B}\n', "problem"),
    ("QUANTIZATION = 1\n", "info"),
    ("def (\n", "info"),
]


@pytest.mark.parametrize(("text", "status"), LISTS)
def test_vllms_own_list_says_whether_nvfp4_is_known(place: Place, text: str, status: str) -> None:
    place.torch()
    place.install("vllm", "0.33.0", {"vllm/model_executor/layers/quantization/__init__.py": text})
    one = only(place.found(), "quantization")
    assert one.status == status
    assert (one.failure == "quantization-unknown") == (status == "problem")
    if status == "ok":
        assert "leave that flag out" in one.found


def test_a_list_that_cannot_be_read_is_empty(tmp_path: Path) -> None:
    assert quantization.methods(tmp_path / "missing.py") == frozenset()


def test_an_extension_that_calls_a_kernel_of_another_chip(place: Place) -> None:
    """Compiled and imported for real: the file says it, and the loader does."""
    name = "_Z20cutlass_moe_mm_sm100RN2at6TensorERKS0_S3_S3_S3_S3_S3_S3_S3_S3_S3_bb"
    place.torch()
    module = compiled(place.root / "_C.so", f"extern char {name}; char *PyInit__C(void) {{ return &{name}; }}\n")
    place.install("vllm", "0.11.0", {"vllm/__init__.py": "from vllm import _C\n", "vllm/_C.so": module})
    found = place.found(imports=("vllm",))
    assert problems(found) == [("symbols", "cutlass-moe-symbol-missing"), ("import", "cutlass-moe-symbol-missing")]
    assert f"undefined symbol: {name}" in only(found, "import").found
    assert only(found, "symbols").run == ("spark-build recipe vllm",)


# CUDA -----------------------------------------------------------------------------------------------------------------


def linked(place: Place, library: str) -> Path:
    """Return an extension module that is linked to `library`, which is nowhere any more."""
    made = compiled(place.root / "stub" / library, "int cudaFree(void *p) { return 0; }\n", f"-Wl,-soname,{library}")
    module = compiled(
        place.root / "ext.so", "int cudaFree(void *); int PyInit_ext(void) { return cudaFree(0); }\n", str(made)
    )
    made.unlink()
    return module


def test_an_extension_for_another_major_version_of_cuda(place: Place) -> None:
    place.torch()
    place.install("ext", "1.0+cu128", {"ext.so": linked(place, "libcudart.so.12")})
    found = place.found(imports=("ext",))
    assert problems(found) == [("cuda", "cuda-major-mismatch"), ("import", "cuda-major-mismatch")]
    one = only(found, "cuda")
    assert one.found == "ext 1.0+cu128 needs libcudart.so.12 (ext.so), and torch is for CUDA 13"
    assert one.run[-1] == f"spark-build recipe ext --torch existing --python {place.python}"


def test_an_extension_for_the_cuda_that_is_there(place: Place) -> None:
    place.torch()
    place.install("ext", "1.0", {"ext.so": linked(place, "libcudart.so.13")})
    assert problems(place.found()) == []


def test_the_other_major_version_is_fine_where_its_library_is_brought(place: Place) -> None:
    place.torch()
    place.install("ext", "1.0", {"ext.so": linked(place, "libcudart.so.12")})
    place.install("nvidia-cuda-runtime-cu12", "12.8.90", {"nvidia/cuda_runtime/lib/libcudart.so.12": ""})
    assert problems(place.found()) == []


def driver(tmp_path: Path, version: str) -> Path:
    """Return a root with a driver's word about itself, as a GB10's and an H200's write it."""
    file = tmp_path / "root/proc/driver/nvidia/version"
    file.parent.mkdir(parents=True)
    file.write_text(f"NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {version}  Release Build  (nixbld@)\n")
    return tmp_path / "root"


@pytest.fixture(scope="session")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Libraries with device code, as nvcc makes them."""
    folder = tmp_path_factory.mktemp("kernels")
    (folder / "k.cu").write_text("__global__ void k(int *p) { *p = 1; }\nvoid f(int *p) { k<<<1, 1>>>(p); }\n")
    made = {}
    for name, codes in {"sm90": "sm_90", "dead": "sm_120a", "own": "sm_121a", "ptx": "compute_90"}.items():
        arch = f"arch={codes.replace('sm_', 'compute_')},code={codes}"
        words: list[str | Path] = [
            CUDA / "bin/nvcc",
            "-gencode",
            arch,
            "-shared",
            "-Xcompiler",
            "-fPIC",
            "k.cu",
            "-o",
            f"{name}.so",
        ]
        subprocess.run(words, cwd=folder, check=True)
        made[name] = folder / f"{name}.so"
    return made


@pytest.mark.cuda
@pytest.mark.parametrize(
    ("name", "failure"), [("sm90", "no-kernel-image"), ("dead", "no-kernel-image"), ("own", ""), ("ptx", "")]
)
def test_kernels_for_other_chips(place: Place, kernels: dict[str, Path], name: str, failure: str) -> None:
    place.torch()
    place.install("flashinfer-jit-cache", "0.7.2", {"flashinfer_jit_cache/k.so": kernels[name]})
    told = problems(place.found())
    assert told == ([("kernels", failure)] if failure else [])
    if failure:
        one = only(place.found(), "kernels")
        assert one.run == (f"spark-build audit --env {place.python}", "spark-build recipe flashinfer --arch 12.1a")


@pytest.mark.cuda
def test_a_bare_cubin_is_neither_good_nor_bad(place: Place, kernels: dict[str, Path]) -> None:
    """Of many the one for the chip is taken, by its name: flashinfer-cubin has none for 12.x, and nothing is lost."""
    cubin = kernels["sm90"].with_name("k.cubin")
    subprocess.run([CUDA / "bin/nvcc", "-arch=sm_90", "-cubin", "k.cu", "-o", cubin], cwd=cubin.parent, check=True)
    place.torch()
    place.install("flashinfer-cubin", "0.7.2", {"flashinfer_cubin/k.cubin": cubin})
    assert [one.id for one in place.found()] == ["python", "driver", "torch"]


@pytest.mark.cuda
def test_ptx_that_is_newer_than_the_driver(place: Place, kernels: dict[str, Path], tmp_path: Path) -> None:
    place.torch(cuda="12.9")
    place.install("ext", "1.0", {"ext/k.so": kernels["ptx"]})
    found = place.found(root=driver(tmp_path, "570.133.20"))
    assert problems(found) == [("driver", "ptx-newer-than-driver")]
    told = [one.found for one in found if one.id == "driver"]
    assert told[0] == "570.133.20"
    assert "570.133.20, and ext holds PTX ISA 9." in told[1]


@pytest.mark.cuda
def test_ptx_that_the_driver_knows(place: Place, kernels: dict[str, Path], tmp_path: Path) -> None:
    place.torch(cuda="13.0")
    place.install("ext", "1.0", {"ext/k.so": kernels["ptx"]})
    assert problems(place.found(root=driver(tmp_path, "999.01"))) == []


def test_a_driver_that_is_older_than_torchs_cuda(place: Place, tmp_path: Path) -> None:
    place.torch(cuda="13.2")
    found = place.found(root=driver(tmp_path, "570.133.20"))
    assert problems(found) == [("driver", "driver-too-old")]
    assert [one.wanted for one in found if one.status == "problem"] == ["r580 or newer"]


# what is compiled where it runs -----------------------------------------------------------------------------------------

WANTS = {"compiler": "triton", "nvcc": "flashinfer-python"}


def test_no_compiler(place: Place, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    found = place.found(wants={"compiler": "triton"}, PATH=str(tmp_path / "empty"))
    assert problems(found) == [("compiler", "run-time-compiler-missing")]


def test_no_python_headers(place: Place, tmp_path: Path) -> None:
    """The real compiler, which isn't told where the headers are."""
    gcc = tmp_path / "gcc"
    gcc.write_text(BLIND_GCC)
    gcc.chmod(0o755)
    found = place.found(wants={"compiler": "triton"}, CC=str(gcc))
    assert problems(found) == [("headers", "run-time-headers-missing")]
    assert only(found, "headers").run == (f"sudo apt install python3.{sys.version_info.minor}-dev",)


def test_a_compiler_that_does_not_work(place: Place) -> None:
    found = place.found(wants={"compiler": "triton"}, CC="/bin/false")
    assert problems(found) == [("compiler", "run-time-compiler-missing")]


def test_no_nvcc(place: Place) -> None:
    flashinfer(place, "0.7.2")
    one = only(place.found(wants=WANTS, CUDA_HOME="/nowhere"), "nvcc")
    assert (one.status, one.failure) == ("problem", "run-time-nvcc-missing")


def test_an_nvcc_that_is_older_than_the_chip(place: Place, tmp_path: Path) -> None:
    flashinfer(place, "0.7.2")
    nvcc = tmp_path / "bin/nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text("#!/bin/sh\necho \"nvcc fatal   : Unsupported gpu architecture 'compute_121a'\" >&2\nexit 1\n")
    nvcc.chmod(0o755)
    one = only(place.found(wants=WANTS, CUDA_HOME=str(tmp_path)), "nvcc")
    assert (one.status, one.failure, one.wanted) == ("problem", "run-time-nvcc-too-old", "CUDA 12.9 or newer")


def test_no_nvcc_is_a_warning_where_kernels_come_ahead(place: Place) -> None:
    flashinfer(place, "0.7.2", flashinfer_jit_cache="0.7.2")
    assert only(place.found(wants=WANTS, CUDA_HOME="/nowhere"), "nvcc").status == "warn"


@pytest.mark.cuda
def test_a_toolkit_to_run_with_does_not_link(place: Place, tmp_path: Path) -> None:
    """As the vendor's wheels are: nvcc is there, and libcudart.so under that name isn't."""
    flashinfer(place, "0.7.2")
    home = tmp_path / "cuda"
    home.mkdir()
    for name in ("bin", "include", "nvvm", "targets"):
        (home / name).symlink_to(CUDA.resolve() / name)
    one = only(place.found(wants=WANTS, CUDA_HOME=str(home)), "nvcc")
    assert (one.status, one.failure) == ("problem", "run-time-nvcc-missing")
    assert "the linker finds no -lcudart" in one.found


@pytest.mark.cuda
def test_a_toolkit_with_its_stub_compiles_and_links(place: Place, tmp_path: Path) -> None:
    flashinfer(place, "0.7.2")
    home = tmp_path / "cuda"
    home.mkdir()
    for name in ("bin", "include", "nvvm", "targets"):
        (home / name).symlink_to(CUDA.resolve() / name)
    (home / "lib64").mkdir()
    for file in (CUDA.resolve() / "lib64").glob("libcudart*"):
        (home / "lib64" / file.name).symlink_to(file)
    compiled(home / "lib64/stubs/libcuda.so", "int cuInit(unsigned n) { return 0; }\n", "-Wl,-soname,libcuda.so.1")
    one = only(place.found(wants=WANTS, CUDA_HOME=str(home)), "nvcc")
    assert one.status == "ok", one
    (home / "lib64/stubs/libcuda.so").unlink()
    assert only(place.found(wants=WANTS, CUDA_HOME=str(home)), "nvcc").status == "warn"  # comes with the driver


# the environment itself -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("import os; os._exit(3)", "python ended with 3"),
        ("import ctypes; ctypes.string_at(0)", "python was ended by signal 11"),
        ("raise SystemExit('no GPU, no fun')", "SystemExit: no GPU, no fun"),
        ("import nothing_like_it", "ModuleNotFoundError: No module named 'nothing_like_it'"),
        ("1/0", "ZeroDivisionError"),
    ],
)
def test_an_import_that_fails_ends_no_other(place: Place, code: str, told: str) -> None:
    place.install("bad", "1.0", {"bad.py": code})
    found = place.found(imports=("json", "bad", "csv"))
    first, second = (one for one in found if one.id == "import")
    assert first.status == "problem"
    assert f"import bad: {told}" in first.found
    assert (second.status, second.found) == ("ok", "json, csv")


def test_what_a_package_prints_is_no_answer(place: Place) -> None:
    place.install("loud", "1.0", {"loud.py": 'import os\nprint("{}")\nos.write(1, b"{}\\n")\n'})
    assert [one.found for one in place.found(imports=("loud",)) if one.id == "import"] == ["loud"]


def test_an_import_that_wants_the_driver_is_no_problem(place: Place) -> None:
    made = compiled(place.root / "stub/libcuda.so.1", "int cuInit(int n) { return 0; }\n", "-Wl,-soname,libcuda.so.1")
    module = compiled(place.root / "ext.so", "int cuInit(int); int PyInit_ext(void) { return cuInit(0); }\n", str(made))
    made.unlink()
    place.install("ext", "1.0", {"ext.so": module})
    one = only(place.found(imports=("ext",)), "import")
    assert (one.status, "no driver here" in one.found) == ("info", True)


def test_only_the_exception_itself_says_that_there_is_no_driver(place: Place) -> None:
    """Packages say so on the way, and go on; what ends them is another thing."""
    first = "ImportError('libcuda.so.1: cannot open shared object file')"
    code = f"try:\n    raise {first}\nexcept ImportError as error:\n    print(error)\n    import nothing_like_it\n"
    place.install("bad", "1.0", {"bad.py": code})
    one = only(place.found(imports=("bad",)), "import")
    assert (one.status, one.failure) == ("problem", "")
    assert "No module named 'nothing_like_it'" in one.found


def test_an_import_that_hangs_is_stopped(place: Place) -> None:
    place.install("slow", "1.0", {"slow.py": "import time\ntime.sleep(3600)\n"})
    one = only(place.found(imports=("slow",), limit_s=3.0), "import")
    assert one.status == "problem"
    assert "gave no answer in 3 s" in one.found


def test_a_daemon_that_an_import_leaves_is_ended(place: Place, tmp_path: Path) -> None:
    """With a session of its own, and our pipe in its hands."""
    code = (
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
        f"        open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n        time.sleep(3600)\n    os._exit(0)\n"
        f"while not os.path.exists({str(tmp_path / 'pid')!r}):\n    time.sleep(0.01)\n"
    )
    place.install("daemon", "1.0", {"daemon.py": code})
    assert only(place.found(imports=("daemon",)), "import").status == "ok"
    status = Path("/proc", (tmp_path / "pid").read_text(), "status")
    assert not status.exists() or "State:\tZ" in status.read_text()


def test_a_python_that_prints_without_end(place: Place) -> None:
    place.python.unlink()
    place.python.write_text("#!/bin/sh\nyes\n")
    place.python.chmod(0o755)
    (one,) = place.found()
    assert (one.id, one.status) == ("python", "problem")


def test_names_that_a_shell_or_a_terminal_would_act_on_are_passed_over(place: Place) -> None:
    """Whoever made an image chose the names in it: none of these gets into a command to copy."""
    module = linked(place, "libcudart.so.12")
    for name in ("x$(touch y)", "a\nb", "\x1b]0;title\x07", "e;id"):
        place.install(name, "1.0", {f"{name}.so": module})
    place.install("good", "1.0'$(id)", {"good.so": module})
    assert [one.id for one in place.found()] == ["python", "driver"]


def test_where_there_is_no_torch_none_is_told(place: Place) -> None:
    place.install("ext", "1.0", {"ext.so": linked(place, "libcudart.so.12")})
    assert only(place.found(), "cuda").found == "ext 1.0 needs libcudart.so.12 (ext.so), and nothing here brings it"


def test_only_what_is_of_no_use_any_more_is_to_be_emptied(place: Place) -> None:
    """`uv venv --clear` removes whatever is in a folder."""
    place.python.unlink()
    place.python.write_text("#!/bin/sh\nexit 1\n")
    place.python.chmod(0o755)
    assert only(place.found(), "python").run == (f"{place.python} -V",)
    settings = place.root / "pyvenv.cfg"
    settings.write_text("home = /nowhere/bin\n")
    assert only(place.found(), "python").run[1] == f"uv venv --clear {place.root}"
    settings.unlink()  # as /usr is
    assert only(place.found(), "python").run == (f"{place.python} -V",)


def test_a_temporary_folder_that_is_not_there_is_passed_over(place: Place) -> None:
    place.torch()
    assert problems(place.found(TMPDIR="/nowhere")) == []


def test_without_any_temporary_folder_it_ends(world: World, place: Place) -> None:
    """No file can be written at all: the limit of a shell does it to root, too."""
    words = f"ulimit -f 0; exec {COMMAND} doctor --env {place.root} --json"
    done = subprocess.run(["sh", "-c", words], env=world.env(), cwd="/", capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)["findings"]
    assert (done.returncode, [one["id"] for one in found]) == (5, ["python"]), done.stderr
    assert "no folder for temporary files can be made" in found[0]["found"]


@pytest.mark.root
def test_an_environment_that_cannot_be_written_is_looked_at(world: World, place: Place) -> None:
    place.torch()
    words = f"mount --bind {place.root} {place.root} && mount -o remount,bind,ro {place.root} && exec {COMMAND} doctor"
    argv = ["unshare", "--mount", "sh", "-c", f"{words} --env {place.root}"]
    done = subprocess.run(argv, env=world.env(), cwd="/", capture_output=True, text=True, check=False)
    assert (done.returncode, "nothing is known to be wrong" in done.stdout) == (0, True), done.stderr


def test_an_interpreter_that_is_gone_ends_it(place: Place) -> None:
    place.torch()
    place.python.unlink()
    place.python.write_text("#!/nowhere/python\n")
    place.python.chmod(0o755)
    found = place.found()
    assert [(one.id, one.status) for one in found] == [("python", "problem")]


def test_nothing_is_left_behind(place: Place, tmp_path: Path) -> None:
    place.torch()
    place.install(
        "cached",
        "1.0",
        {"cached.py": "from pathlib import Path\nPath.home().joinpath('x').mkdir()\nPath('y').write_text('')\n"},
    )
    home = tmp_path / "home"
    home.mkdir()
    before = sorted(place.root.rglob("*"))
    assert problems(place.found(imports=("cached",), wants=WANTS, HOME=str(home), TMPDIR=str(home), MAX_JOBS="1")) in (
        [],
        [("nvcc", "run-time-nvcc-missing")],
    )
    assert sorted(place.root.rglob("*")) == before
    assert list(home.iterdir()) == []


def test_the_command_tells_5_and_the_failure(world: World, place: Place) -> None:
    place.torch(cuda=None)
    told = world.json("doctor", "--env", str(place.root), code=5)
    assert told["problems"] == 1
    assert {one["id"]: one["failure"] for one in told["findings"]}["torch"] == "torch-cpu"
    done = world.run("doctor", "--env", str(place.python), code=5)
    assert "1 problem" in done.stdout
    assert "--reinstall 'torch==2.15.0'" in done.stdout


def test_the_command_imports_what_a_recipe_names(world: World, place: Place) -> None:
    place.torch()
    place.install("flashinfer-python", "0.7.4", {"flashinfer/__init__.py": "raise ImportError('as it is')\n"})
    found = world.json("doctor", "--env", str(place.root), code=5, MAX_JOBS="1")["findings"]
    assert "import flashinfer: ImportError: as it is" in [one["found"] for one in found]


def test_a_manifest_says_what_has_to_import(world: World, place: Place, tmp_path: Path) -> None:
    manifest = {
        "kind": "spark-build bundle", "format": 1, "files": {}, "wheels": [],
        "target": {"python": "3.12", "machine": "x86_64", "glibc": "2.39", "platform": "x"},
        "needs": [{"id": "compiler", "what": "a C compiler", "why": "x", "run": "y"}],
        "run": {"env": {}, "imports": ["gone"]},
    }  # fmt: skip
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    place.torch()
    words = ("--env", str(place.root), "--manifest", str(tmp_path / "manifest.json"))
    found = world.json("doctor", *words, code=5)["findings"]
    assert "import gone: ModuleNotFoundError: No module named 'gone'" in [one["found"] for one in found]
    assert "compiler" in [one["id"] for one in found]
    done = world.run("doctor", "--env", str(place.root), "--manifest", "nothing.json", code=2)
    assert "error[not-a-bundle]" in done.stderr


@pytest.mark.parametrize(("name", "code"), [("nothing", "no-environment"), ("target", "no-interpreter")])
def test_what_is_no_environment(world: World, name: str, code: str) -> None:
    folder = world.root / "target"
    (folder / "x-1.0.dist-info").mkdir(parents=True)
    assert f"error[{code}]" in world.run("doctor", "--env", name, code=2).stderr


def test_the_own_environment_is_no_exception(world: World) -> None:
    """The interpreter that runs the tests: no torch in it, nothing to complain about."""
    told = world.json("doctor", "--env", sys.prefix)
    assert [one["id"] for one in told["findings"]][:2] == ["python", "driver"]


def test_commands_are_good_for_paths_with_blanks(tmp_path: Path) -> None:
    place = Place(tmp_path / "my env")
    place.torch(cuda=None)
    assert only(place.found(), "torch").run[0].startswith(f"uv pip install --python '{place.python}' --reinstall ")


def test_damaged_records_are_passed_over(place: Place) -> None:
    place.torch()
    for name, text in {"a": '"' + "x" * 200_000, "b": "../../../../etc/\x00.so,,\n", "c": "\udcff.so,,\n"}.items():
        place.install(name, "1.0", {})
        (place.site / f"{name}-1.0.dist-info/RECORD").write_text(text, errors="surrogateescape")
    assert problems(place.found()) == []
