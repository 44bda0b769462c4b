"""The sources of a real vLLM, as far as a folder of git snapshots has them.

`SPARK_BUILD_SNAPSHOTS` names a folder with one bare repository for each of `<owner>+<name>/repo`. Snapshots may lack large
files, so what is taken from one is its files, not its commit. What no snapshot has is stood in for by the few files that
vLLM's CMake files ask for; nothing of these gets compiled for 12.x, DeepGEMM apart.
"""

from __future__ import annotations

import os
import re
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.world import COMMAND

RELEASES = {
    "0.33.0": "f4c33c2503d52bb411146afa9618a4f48bed68912f617e6803ac8d76e4c74112",
    "0.14.1": "c7c6d0a729d29e70ac10baacbc7186930da24f8ae34f60451330527ff0be84ac",
}

_FMHA = "__init__ _jit_cache api bench_utils jit msa_warmup nvfp4_kv q8kv4_decode_adapter q8kv4_prefill_adapter sparse"
_SETUP = """\
from setuptools import Extension, setup
ext = Extension("deep_gemm._C_extension", ["csrc/python_api.cpp"], py_limited_api=True)
setup(name="deep_gemm", version="0", packages=["deep_gemm"], ext_modules=[ext])
"""
_MODULE = """\
#define Py_LIMITED_API 0x030A0000
#include <Python.h>
static PyModuleDef module = {PyModuleDef_HEAD_INIT, "_C_extension", 0, 0, 0, 0, 0, 0, 0};
PyMODINIT_FUNC PyInit__C_extension() { return PyModule_Create(&module); }
"""

#: What vLLM 0.33.0 asks for by name of the repositories that no snapshot has.
STAND_INS = {
    "deepgemm": {
        **{f"deep_gemm/{name}.py": "" for name in ("__init__", "locality_domain", "_C")},
        **{f"deep_gemm/{name}/__init__.py": "" for name in ("utils", "testing", "legacy", "mega")},
        "deep_gemm/include/deep_gemm/common.cuh": "#pragma once\n",
        "third-party/cutlass/include/cutlass/cutlass.h": "#pragma once\n",
        "third-party/deep_jit/include/deep_jit/jit.hpp": "#pragma once\n",
        "csrc/python_api.cpp": _MODULE,
        "setup.py": _SETUP,
    },
    "deepselect": {"README": "stand-in\n"},
    "fmha-sm100": {
        **{f"python/fmha_sm100/{name}.py": "" for name in (*_FMHA.split(), "sparse_fmha_adapter")},
        **{
            f"python/fmha_sm100/{name}/__init__.py": "" for name in ("decode_q8kv4", "kvouter", "prefill_q8kv4", "cute")
        },
        **{
            f"python/fmha_sm100/{name}/x.h": "#pragma once\n"
            for name in ("csrc", "cutlass/include", "cutlass/tools/util/include")
        },
    },
    "flashmla": {"flash_mla/flash_mla_interface.py": "import torch\nflash_mla_cuda = torch.ops._flashmla_C\n"},
    "tml-fa4": {"flash_attn/cute/__init__.py": "", "flash_attn/cute/interface.py": "import flash_attn.cute\n"},
}


@dataclass(frozen=True)
class Put:
    """A folder in place of a nested source. `what` says what it is: exact pin, other commit, stand-in."""

    path: Path
    what: str


def snapshots() -> Path:
    """Return the folder of snapshots, or skip."""
    folder = os.environ.get("SPARK_BUILD_SNAPSHOTS")
    if not folder:
        pytest.skip("real sources: SPARK_BUILD_SNAPSHOTS names a folder of bare repositories, OWNER+NAME/repo")
    return Path(folder)


def unpacked(version: str, sources: Path, folder: Path) -> Path:
    """Unpack the source archive of a release, fetched into `sources` before, and return its tree."""
    archive = sources / "files" / RELEASES[version] / f"vllm-{version}.tar.gz"
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")
    return folder / f"vllm-{version}"


def files_of(snapshot: Path, revision: str, dest: Path) -> tuple[str, ...]:
    """Lay the files of a commit in `dest`; return those that the snapshot lacks."""
    dest.mkdir(parents=True)
    env = {**os.environ, "GIT_INDEX_FILE": str(dest.with_suffix(".index")), "GIT_DIR": str(snapshot)}
    git = ["git", "-c", "safe.directory=*", "-c", "core.bare=false", f"--work-tree={dest}"]
    subprocess.run([*git, "read-tree", revision], env=env, check=True)
    # It goes on behind a file that it can't read, and ends with an error.
    subprocess.run([*git, "checkout-index", "-a", "-f"], env=env, cwd=dest, capture_output=True, check=False)
    listed = subprocess.run(
        [*git, "ls-files", "-z", "--stage"], env=env, capture_output=True, text=True, check=True
    ).stdout
    entries = [line.split("\t", 1) for line in listed.split("\0") if line]
    return tuple(path for meta, path in entries if not meta.startswith("160000") and not os.path.lexists(dest / path))


def commit_of(snapshot: Path, revision: str) -> str:
    """Return a commit's full name."""
    words = ["git", "-c", "safe.directory=*", f"--git-dir={snapshot}", "rev-parse", f"{revision}^{{commit}}"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def _gitlink(snapshot: Path, revision: str, path: str) -> str:
    words = ["git", "-c", "safe.directory=*", f"--git-dir={snapshot}", "ls-tree", revision, path]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()[2]


def put_in_place(folder: Path, qutlass: str) -> dict[str, Put]:
    """Lay everything that vLLM 0.33.0 clones in `folder`: real files where there is a snapshot, `qutlass` at its pin."""
    there = snapshots()
    made: dict[str, Put] = {}

    def real(name: str, repository: str, revision: str, what: str, submodules: dict[str, str]) -> None:
        snapshot, dest = there / repository / "repo", folder / name
        lacking = files_of(snapshot, revision, dest)
        for path, other in submodules.items():
            (dest / path).rmdir()
            files_of(there / other / "repo", _gitlink(snapshot, revision, path), dest / path)
        note = f", less {', '.join(lacking)}" if lacking else ""
        made[name] = Put(dest, f"{what} {repository.replace('+', '/')}@{commit_of(snapshot, revision)[:12]}{note}")

    cutlass = "NVIDIA+cutlass"
    real("cutlass", cutlass, "HEAD", "other commit", {})
    real("triton-kernels", "lightseekorg+triton", "abce3c88f", "other commit", {})
    real("qutlass", "IST-DASLab+qutlass", qutlass, "exact pin", {})
    real("flashkda", "MoonshotAI+FlashKDA", "HEAD", "other repository", {"cutlass": cutlass})
    real("vllm-flash-attn", "vllm-project+flash-attention", "HEAD", "other commit", {"csrc/cutlass": cutlass})
    for name, files in STAND_INS.items():
        for path, text in files.items():
            file = folder / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        made[name] = Put(folder / name, "stand-in")
    return made


def toolkit(folder: Path, wheels: Path) -> Path:
    """Complete this machine's toolkit by the libraries of torch's CUDA `wheels` (``nvidia/cu13``), as vLLM's CMake needs.

    nvcc has to be a real copy: it finds its own folder by where it lies.
    """
    root = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")).resolve()
    arch = f"{os.uname().machine.replace('aarch64', 'sbsa')}-linux"
    (folder / "targets" / arch).mkdir(parents=True)
    for name in ("bin", "nvvm"):
        subprocess.run(["cp", "-a", root / name, folder / name], check=True)
    for name, own in (("include", root / "include"), ("lib", root / "lib64")):
        for source in (wheels / name, own.resolve()):
            (folder / name).mkdir(exist_ok=True)
            subprocess.run(["cp", "-asf", f"{source}/.", folder / name], check=True)
        (folder / "targets" / arch / name).symlink_to(f"../../{name}")
    (folder / "lib64").symlink_to("lib")
    for library in (folder / "lib").glob("lib*.so.*"):
        plain = library.with_name(re.sub(r"\.so\..*", ".so", library.name))
        if not os.path.lexists(plain):
            plain.symlink_to(library.name)
    stubs = folder / "lib" / "stubs"
    stubs.mkdir(exist_ok=True)
    stub = ["gcc", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-x", "c", "-", "-o", str(stubs / "libcuda.so")]
    subprocess.run(stub, input="int cuInit(unsigned flags) { return 0; }", text=True, check=True)
    return folder


def offline(*words: str) -> list[str]:
    """Return the command line of `spark-build` without any network."""
    return ["unshare", "-rn", str(COMMAND), *words]
