"""The shipped catalogue: it is sound, each entry finds what it is for, and none finds what another is for."""

from __future__ import annotations

import argparse
import importlib.resources
import shlex
from typing import TYPE_CHECKING

import pytest

from builder.cli.main import COMMANDS, build_parser
from builder.executor import failures
from builder.executor.diagnosis import UnitFacts, diagnose
from builder.executor.failures import CatalogueError

if TYPE_CHECKING:
    from builder.executor.failures import Failure

CATALOGUE = failures.load()

TRACE = 'Traceback (most recent call last):\n  File "setup.py", line 3, in <module>\n    build()\n'

# What tools print. Those of gcc, ld, nvcc, ptxas, CMake, ninja, git, rustup and the dynamic loader are copied from runs.
SAMPLES = [
    ("compiler-killed", "nvcc error   : 'cicc' died due to signal 9 (Kill signal)"),
    ("compiler-killed", "c++: fatal error: Killed signal terminated program cc1plus\ncompilation terminated."),
    ("compiler-killed", "collect2: fatal error: ld terminated with signal 9 [Killed]"),
    ("step-killed", "[1/2] x\nFAILED: [code=137] a.o\nsh -c 'exec cc a.c'\n[2/2] y"),
    ("step-killed", "make[2]: *** [CMakeFiles/y.dir/build.make:70: CMakeFiles/y] Killed"),
    ("step-killed", "FAILED: a.o\ng++ -c a.cc\nKilled\nninja: build stopped: subcommand failed."),
    ("compiler-crashed-crowded", "nvcc error   : 'ptxas' died due to signal 11 (Invalid memory reference)"),
    ("compiler-crashed", "nvcc error   : 'cicc' died due to signal 6"),
    ("compiler-crashed", "g++: internal compiler error: Segmentation fault signal terminated program cc1plus"),
    ("allocation-failed", "virtual memory exhausted: Cannot allocate memory"),
    ("allocation-failed", "cc1plus: out of memory allocating 65536 bytes after a total of 7000000 bytes"),
    ("driver-out-of-memory", "NVRM: nvCheckOkFailedNoLog: Check failed: Out of memory [NV_ERR_NO_MEMORY] (0x00000051)"),
    ("disk-full", "cc.s: Fatal error: can't fill 256 bytes in section .data of big.o: 'No space left on device'"),
    ("disk-full", "<built-in>: fatal error: when writing output to k.cpp4.ii: No space left on device"),
    (
        "clone-failed",
        "CMake Error at c.cmake:9 (message):\n  Failed to clone repository: 'https://github.com/NVIDIA/cutlass'\n",
    ),
    ("clone-failed", "CMake Error at FetchContent.cmake:1622 (message):\n  Build step for cutlass failed: 1\n"),
    ("clone-failed", "fatal: unable to access 'https://github.com/x/': Could not resolve host: github.com"),
    ("llvm-not-there", "error: HTTP Error 404: The specified blob does not exist."),
    ("llvm-not-there", "error: HTTP Error 409: Public access is not permitted on this storage account."),
    ("checksum-manifest-offline", "RuntimeError: Failed to fetch the checksum manifest for artifact pin 1a2b"),
    ("index-not-reached", "ERROR: No matching distribution found for wheel>=0.40"),
    ("crates-offline", "error: failed to get `serde` as a dependency of package `x v0.1.0`"),
    ("host-not-resolved", "curl: (6) Could not resolve host: download.pytorch.org"),
    ("step-timed-out", TRACE + "subprocess.TimeoutExpired: Command '['x']' timed out after 60 seconds"),
    (
        "gcc-too-old",
        "CMake Error at CMakeLists.txt:99 (message):\n  GCC >= 13 is required to build vLLM with CUDA (found 12.2.0).\n",
    ),
    ("format-header-missing", "f.cc:1:10: fatal error: format: No such file or directory"),
    ("cxx-header-missing", "f.cc:1:10: fatal error: expected: No such file or directory"),
    ("cxx-standard-unknown", "g++: error: unrecognized command-line option '-std=c++26'"),
    (
        "gcc-too-new",
        (
            "/usr/local/cuda/include/crt/host_config.h:143:2: error: #error -- unsupported GNU version! "
            "gcc versions later than 15 are not supported! The nvcc flag '-allow-unsupported-compiler' can be used"
        ),
    ),
    (
        "glibc-against-cuda-headers",
        (
            "/usr/include/mathcalls.h(206): error: exception specification is incompatible with that of previous function "
            '"rsqrt" (declared at line 629)'
        ),
    ),
    ("arch-unknown-to-nvcc", "nvcc fatal   : Unsupported gpu architecture 'compute_121a'"),
    (
        "arch-unknown-to-ptxas-blackwell",
        "ptxas-blackwell fatal   : Value 'sm_110a' is not defined for option 'gpu-name'",
    ),
    ("arch-unknown-to-ptxas", "ptxas fatal   : Value 'sm_121a' is not defined for option 'gpu-name'"),
    (
        "instruction-needs-family-target",
        (
            "ptxas q.ptx, line 4; error   : Instruction 'cvt with .e2m1x2' not supported on .target 'sm_121'\n"
            "ptxas fatal   : Ptx assembly aborted due to errors"
        ),
    ),
    (
        "ptx-version-too-low",
        "LLVM ERROR: PTX version 8.6 does not support target 'sm_121a'. Minimum required PTX version is 8.8.",
    ),
    ("ptxas-fatal", "ptxas fatal   : Unresolved extern function 'foo'"),
    ("host-compiler-broken", "nvcc fatal   : Failed to preprocess host compiler properties."),
    (
        "no-architectures-left",
        "CMake Error at u.cmake:9 (x):\n  No supported CUDA architectures; the build would produce a binary\n  that\n",
    ),
    ("cuda-not-found", TRACE + "AssertionError: CUDA_HOME is not set"),
    (
        "cuda-not-found",
        "CMake Error at CMakeDetermineCUDACompiler.cmake:603 (message):\n  Failed to detect a default CUDA architecture.\n",
    ),
    ("cuda-header-missing", "a.cpp:4:10: fatal error: cusparse.h: No such file or directory"),
    ("cuda-header-missing", 'k.cu(3): catastrophic error: cannot open source file "curand_kernel.h"'),
    ("cutlass-missing", "a.cu:4:10: fatal error: cute/tensor.hpp: No such file or directory"),
    ("cutlass-missing", 'm.cu(9): error: argument list for class template "cute::SM100_MMA_F8F6F4_SS" is missing'),
    ("submodules-missing", "RuntimeError: git submodule update failed and submodules are missing"),
    ("python-headers-missing", "h.cc:1:10: fatal error: Python.h: No such file or directory"),
    (
        "python-headers-missing",
        (
            "CMake Error at FindPackageHandleStandardArgs.cmake:230 (message):\n"
            "  Could NOT find Python (missing: Python_INCLUDE_DIRS Development.Module\n  Development.SABIModule) (found\n"
        ),
    ),
    ("system-header-missing", "cpu/numa_utils.cpp:2:12: fatal error: numa.h: No such file or directory"),
    ("torch-header-missing", "a.cpp:1:10: fatal error: torch/csrc/stable/tensor.h: No such file or directory"),
    ("binding-header-missing", "m.cc:1:10: fatal error: nanobind/nanobind.h: No such file or directory"),
    (
        "binding-header-missing",
        (
            "CMake Error at CMakeLists.txt:3 (find_package):\n"
            '  By not providing "Findpybind11.cmake" in CMAKE_MODULE_PATH '
            'this project has\n  asked CMake to find a package configuration file provided by "pybind11",\n  but\n'
        ),
    ),
    ("header-missing", "a.cc:1:10: fatal error: generated/ops.h: No such file or directory"),
    ("libcuda-not-found", "/usr/bin/ld: cannot find -lcuda: No such file or directory"),
    ("library-not-found", "/usr/bin/ld: cannot find -lzzz: No such file or directory"),
    (
        "glibcxx-missing",
        "mlir-tblgen: /lib64/libstdc++.so.6: version `GLIBCXX_3.4.30' not found (required by mlir-tblgen)",
    ),
    ("wrong-machine", "/bin/sh: 1: /opt/llvm/bin/mlir-tblgen: Exec format error"),
    (
        "undefined-at-link",
        "u.cc:(.text+0x5): undefined reference to `bar()'\ncollect2: error: ld returned 1 exit status",
    ),
    ("version-not-detected", "LookupError: setuptools-scm was unable to detect version for /src."),
    ("git-dubious-ownership", "fatal: detected dubious ownership in repository at '/src'\nTo add an exception, call:"),
    (
        "git-dubious-ownership",
        "fatal: detected dubious ownership in repository at '/src'\n"
        + TRACE
        + "LookupError: setuptools-scm was unable to detect version for /src.",
    ),
    ("torch-without-cuda", "RuntimeError: Unknown runtime environment"),
    (
        "torch-cuda-mismatch",
        (
            "RuntimeError: The detected CUDA version (12.8) mismatches the version that was used to compile PyTorch (13.0). "
            "Please make sure to use the same CUDA versions."
        ),
    ),
    (
        "precompiled-wheel-missing",
        "ValueError: No precompiled vllm wheel found for architecture aarch64 from repo https://x",
    ),
    ("shim-without-provider", "RuntimeError: A shim build requires FLASHINFER_JIT_CACHE_PROVIDER_ARCHS"),
    ("rust-toolchain-missing", "error: toolchain '1.95-x86_64-unknown-linux-gnu' is not installed"),
    ("rust-toolchain-missing", "error: can't find Rust compiler"),
    ("setuptools-rust-missing", "ModuleNotFoundError: No module named 'setuptools_rust'"),
    (
        "cmake-dropped-old-policies",
        (
            "CMake Error at CMakeLists.txt:1 (cmake_minimum_required):\n"
            "  Compatibility with CMake < 3.5 has been removed from CMake.\n"
        ),
    ),
    (
        "cmake-command-removed",
        'CMake Error at CMakeLists.txt:5 (exec_program):\n  Unknown CMake command "exec_program".\n',
    ),
    (
        "cmake-too-old",
        (
            "CMake Error at CMakeLists.txt:1 (cmake_minimum_required):\n"
            "  CMake 3.99 or higher is required.  You are running version 3.25.1\n"
        ),
    ),
    (
        "cmake-package-missing",
        (
            "CMake Error at CMakeLists.txt:3 (find_package):\n"
            '  By not providing "FindNotThere.cmake" in CMAKE_MODULE_PATH '
            'this project has\n  asked CMake to find a package configuration file provided by "NotThere",\n  but\n'
        ),
    ),
    ("generator-missing", 'CMake Error: CMake was unable to find a build program corresponding to "Ninja".'),
    ("build-module-missing", TRACE + "ModuleNotFoundError: No module named 'jinja2'"),
    ("patch-does-not-apply", "error: patch failed: csrc/a.cu:12\nerror: csrc/a.cu: patch does not apply"),
    ("patch-does-not-apply", "error: csrc/a.cu: No such file or directory"),
    ("warnings-are-errors", "a.cc:3:7: error: unused variable 'x' [-Werror=unused-variable]"),
    ("gsan-needs-clang", "RuntimeError: Missing LLVM tools: clang++ is required to build gsan.ll"),
    ("ptxas-not-bundled", "RuntimeError: Cannot find ptxas-blackwell"),
    ("cutlass-moe-symbol-missing", "ImportError: _C.abi3.so: undefined symbol: _Z20cutlass_moe_mm_sm100RN2at6TensorE"),
    ("built-against-other-torch", "ImportError: _C.abi3.so: undefined symbol: _ZN3c104cuda9SetDeviceEa"),
    (
        "torch-cuda-library-missing",
        "ImportError: libtorch_cuda.so: cannot open shared object file: No such file or directory",
    ),
    ("cuda-major-mismatch", "OSError: libcudart.so.12: cannot open shared object file: No such file or directory"),
    ("ptx-newer-than-driver", "RuntimeError: CUDA error: the provided PTX was compiled with an unsupported toolchain."),
    ("no-kernel-image", "RuntimeError: CUDA error: no kernel image is available for execution on the device"),
    ("kernel-guard-sm120", "This kernel only supports sm120."),
    ("operation-not-compiled", "RuntimeError: No compiled get_cutlass_moe_mm_data for compute capability 121"),
    ("operation-not-compiled", "RuntimeError: No supported CUDA architectures found for major versions [10]."),
    ("rust-extension-missing", "ModuleNotFoundError: No module named 'vllm._rust_tool_parser'"),
    (
        "cubin-version-mismatch",
        "RuntimeError: flashinfer-cubin version (0.6) does not match flashinfer version (0.7.2)",
    ),
    (
        "platform-tag-too-new",
        "error: x has no wheels with a matching platform tag (e.g., `manylinux_2_39_aarch64`)",
    ),
    ("triton-backends-missing", "ImportError: cannot import name 'backends' from 'triton.backends' (unknown location)"),
    ("triton-kernels-mismatch", "ModuleNotFoundError: No module named 'triton_kernels.routing'"),
    ("torch-cpu", "AssertionError: Torch not compiled with CUDA enabled"),
    ("quantization-unknown", "Value error, Unknown quantization method: nvfp4. Must be one of ['awq', 'fp8']"),
    ("quantization-unknown", "Value error, Unknown quantization method: . Must be one of ['awq', 'fp8']"),
    ("ptxas-too-old", "ptxas fatal   : Value 'sm_121a' is not defined for option 'gpu-name'"),
    ("run-time-nvcc-too-old", "nvcc fatal   : Unsupported gpu architecture 'compute_121a'"),
    ("ptxas-blackwell-too-old", "ptxas-blackwell fatal   : Value 'sm_149a' is not defined for option 'gpu-name'"),
    ("ptxas-missing", "RuntimeError: Cannot find ptxas-blackwell"),
    (
        "triton-llvm-too-new",
        "LLVM ERROR: PTX version 8.6 does not support target 'sm_121a'. Minimum required PTX version is 8.8.",
    ),
    ("ptx-newer-than-driver", "RuntimeError: Triton Error [CUDA]: CUDA_ERROR_UNSUPPORTED_PTX_VERSION"),
    ("no-kernel-image", "CUDA driver error: CUDA_ERROR_NO_BINARY_FOR_GPU"),
    (
        "jit-cache-version-mismatch",
        "RuntimeError: flashinfer-jit-cache-sm121a version (0.7.2+b) does not match flashinfer-jit-cache version (0.7.2+a).",
    ),
    ("driver-library-missing", "ImportError: libcuda.so.1: cannot open shared object file: No such file or directory"),
    ("driver-library-missing", "RuntimeError: Failed to infer device type, please set the environment variable"),
    (
        "driver-too-old",
        "RuntimeError: The NVIDIA driver on your system is too old (found version 12080). Please update your GPU driver",
    ),
    (
        "run-time-compiler-missing",
        "RuntimeError: Failed to find C compiler. Please specify via CC environment variable",
    ),
    ("run-time-headers-missing", "main.c:5:10: fatal error: Python.h: No such file or directory"),
    (
        "run-time-nvcc-missing",
        "RuntimeError: Could not find nvcc and default cuda_home='/usr/local/cuda' doesn't exist",
    ),
    ("run-time-nvcc-missing", "/bin/sh: 1: /usr/local/cuda/bin/nvcc: not found"),
    (
        "toolkit-mixed",
        "ptxas /tmp/compute_121.ptx, line 9; fatal   : Unsupported .version 9.5; current version is '9.2'",
    ),
    ("run-time-compilation-killed", "nvcc error   : 'cicc' died due to signal 9 (Kill signal)"),
    ("gpu-memory-short", "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."),
    (
        "gpu-memory-short",
        "ValueError: Free memory on device (40.1/119.7 GiB) on startup is less than desired GPU memory utilization (0.9)",
    ),
    (
        "shared-memory-small",
        "RuntimeError: unable to write to file </torch_1>: No space left on device: '/dev/shm/torch_1'",
    ),
    ("cache-unwritable", "PermissionError: [Errno 13] Permission denied: '/cache/flashinfer'"),
    ("glibc-too-old", "ImportError: /lib/libc.so.6: version `GLIBC_2.38' not found (required by /opt/venv/_C.abi3.so)"),
    ("cache-too-old-for-nvcc", "called for preprocessing: nvcc --generate-dependencies-with-compile"),
    ("permission-denied", TRACE + "PermissionError: [Errno 13] Permission denied: '/usr/lib/x'"),
    ("input-missing", "ninja: error: 'missing.cc', needed by 'a.o', missing and no known rule to make it"),
    (
        "killed-silently",
        "subprocess.CalledProcessError: Command '['cmake', '--build', '.']' returned non-zero exit status 137.",
    ),
]

#: Entry, and those general ones that would answer if it weren't there.
GENERAL = {
    "compiler-killed": {"compiler-crashed", "allocation-failed"},
    "compiler-crashed-crowded": {"compiler-crashed"},
    "step-killed": {"killed-silently"},
    "clone-failed": {"host-not-resolved"},
    "cutlass-missing": {"header-missing"},
    "cuda-header-missing": {"header-missing"},
    "python-headers-missing": {"header-missing", "cmake-package-missing"},
    "system-header-missing": {"header-missing"},
    "torch-header-missing": {"header-missing"},
    "binding-header-missing": {"header-missing", "cmake-package-missing"},
    "libcuda-not-found": {"library-not-found"},
    "setuptools-rust-missing": {"build-module-missing"},
    "git-dubious-ownership": {"version-not-detected"},
}


def diagnosed(entry: Failure, text: str, entries: tuple[Failure, ...]) -> str | None:
    crowd = UnitFacts(name="a.cu", beside=3) if "crowded" in entry.needs else None
    found = diagnose(
        text.splitlines(),
        recipe=entry.recipes[0] if entry.recipes else "triton" if entry.id.startswith("triton") else "mylib",
        phase=entry.phases[0] if entry.phases else "build",
        unit=crowd,
        catalogue=entries,
    )
    return found.id if found else None


def entry(name: str) -> Failure:
    return next(one for one in CATALOGUE if one.id == name)


@pytest.mark.parametrize(("name", "text"), SAMPLES)
def test_an_entry_finds_what_it_is_for(name: str, text: str) -> None:
    assert diagnosed(entry(name), text, CATALOGUE) == name


@pytest.mark.parametrize(("name", "text"), SAMPLES)
def test_no_other_entry_finds_it(name: str, text: str) -> None:
    rest = tuple(one for one in CATALOGUE if one.id != name)
    other = diagnosed(entry(name), text, rest)
    assert other is None or other in GENERAL.get(name, set())


def test_every_entry_has_a_sample() -> None:
    assert {one.id for one in CATALOGUE} == {name for name, _ in SAMPLES}


@pytest.mark.parametrize(
    "line",
    [
        "-- Performing Test HAS_ERROR_FLAG - Failed",
        "fatal: not a git repository (or any of the parent directories): .git",
        "-- Could NOT find OpenMP_CXX (missing: OpenMP_CXX_FLAGS)",
        "a.cc:3:5: warning: 'x' is deprecated [-Wdeprecated]",
        "[12/90] Building CUDA object CMakeFiles/_C.dir/csrc/killed_format.cu.o",
        "copying triton/backends/nvidia/bin/ptxas -> build",
        "ptxas info    : 0 bytes gmem",
        "#$ rm tmpxft_killed.cubin",
        "-- Looking for C++ include numa.h - not found",
        "Preparing editable metadata (pyproject.toml): finished with status 'done'",
        "ModuleNotFoundError was handled",
    ],
)
def test_what_every_build_prints_is_no_failure(line: str) -> None:
    for name in ("triton", "vllm", "flashinfer", "mylib"):
        assert diagnose([line], recipe=name, codes=(1,)) is None


def test_commands_to_type_are_commands(subtests: pytest.Subtests) -> None:
    parser = build_parser(list(COMMANDS))
    for one in CATALOGUE:
        for command in one.run:
            words = shlex.split(command.format_map(_Filled("x1")))
            if words[0] == "spark-build" and words[1] in COMMANDS:
                with subtests.test(id=one.id, command=command):
                    assert isinstance(parser.parse_args(words[1:]), argparse.Namespace)


class _Filled(dict[str, str]):
    def __init__(self, value: str) -> None:
        self.value = value

    def __missing__(self, _key: str) -> str:
        return self.value


def test_the_catalogue_is_a_part_of_the_package() -> None:
    file = importlib.resources.files("builder.executor").joinpath("failures.toml")
    assert file.is_file()
    assert failures.CATALOGUE.read_bytes() == file.read_bytes()


SOUND = {"id": "a-b", "summary": "s", "cause": "c", "fix": "f", "signature": ["x(?P<one>y)"]}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"colour": "red"}, "unknown key colour"),
        ({"id": "A b"}, "is no slug"),
        ({"summary": ""}, "summary has to be a text"),
        ({"signature": "x"}, "signature has to be a list"),
        ({"signature": ["("]}, "signature '('"),
        ({"signature": []}, "neither signature nor needs"),
        ({"phases": ["compile"]}, "phases has no 'compile'"),
        ({"needs": ["luck"]}, "needs has no 'luck'"),
        ({"memory": 1}, "memory has to be true or false"),
        ({"fix": "see {two}"}, "nothing fills {two}"),
        ({"fix": "see {one}", "signature": ["x(?P<one>y)", "z"]}, "nothing fills {one}"),
        ({"run": ["a {"]}, "'a {'"),
        ({"log": ["("]}, "log '('"),
        ({"packages": {"a.h": "a"}}, "packages needs the group header"),
        ({"packages": {"a.h": 1}}, "packages has to be a table of texts"),
    ],
)
def test_a_mistake_is_told(change: dict[str, object], told: str) -> None:
    assert failures.parse({"failure": [SOUND]})[0].id == "a-b"
    with pytest.raises(CatalogueError) as caught:
        failures.parse({"failure": [SOUND | change]})
    assert told in str(caught.value)


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(CatalogueError) as caught:
        failures.parse({"failure": [SOUND, SOUND, SOUND | {"id": "c", "signature": ["["]}, 3], "other": 1})
    text = str(caught.value)
    assert "unknown table other" in text
    assert "a-b: is there twice" in text
    assert "c: signature '['" in text
    assert "entry 4 is no table" in text
    with pytest.raises(CatalogueError, match=r"no \[\[failure\]\]"):
        failures.parse({})


def test_the_page_shows_every_entry() -> None:
    page = failures.page()
    for one in CATALOGUE:
        assert f"\n## {one.id}\n" in page
        assert one.fix in page
