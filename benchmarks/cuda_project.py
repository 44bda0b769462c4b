"""A small real CUDA project: kernels in each file, built into one library by CMake through scikit-build-core."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PYPROJECT = """\
[build-system]
requires = ["scikit-build-core>=0.11"]
build-backend = "scikit_build_core.build"
[project]
name = "{name}"
version = "1.0"
"""

CMAKE = """\
cmake_minimum_required(VERSION 3.24)
project({name} LANGUAGES CXX CUDA)
set(CMAKE_CUDA_ARCHITECTURES 121a)
file(GLOB units CONFIGURE_DEPENDS unit_*.cu)
add_library({name} SHARED ${{units}})
install(TARGETS {name} DESTINATION {name})
"""

UNIT = """\
template <int Threads, int Each> __global__ void stir_{n}(float *values)
{{
    __shared__ float shared[Threads];
    float own[Each];
    for (int i = 0; i < Each; i++) own[i] = values[threadIdx.x * Each + i] + {n};
    for (int turn = 0; turn < {turns}; turn++) {{
        shared[threadIdx.x] = own[turn % Each];
        __syncthreads();
#pragma unroll
        for (int i = 0; i < Each; i++) own[i] = fmaf(own[(i + 1) % Each], shared[(threadIdx.x + i) % Threads], own[i]);
        __syncthreads();
    }}
    for (int i = 0; i < Each; i++) values[threadIdx.x * Each + i] = own[i];
}}
void run_{n}(float *values)
{{
{calls}
}}
"""

RECIPE = """\
schema = 1
name = "{name}"
[[source]]
kind = "git"
url = "file://{project}"
ref = "main"
[system]
cuda = ">=13"
[build]
hook = "cmake"
[[output]]
name = "{name}"
[resources]
disk = "100MiB"
mem-per-job = "1GiB"
classes = [{{ match = "*unit_*.cu", mem = "512MiB" }}]
"""


def write(folder: Path, recipes: Path, *, name: str, units: int, heft: int) -> None:
    """Write the project as a git repository into `folder`, and its recipe into `recipes`; `heft` is kernels a unit."""
    folder.mkdir(parents=True)
    (folder / "pyproject.toml").write_text(PYPROJECT.format(name=name))
    (folder / "CMakeLists.txt").write_text(CMAKE.format(name=name))
    for n in range(units):
        sizes = [(32 * (1 + k % 8), 2 + k) for k in range(heft + n % 3)]
        calls = "\n".join(f"    stir_{n}<{threads}, {each}><<<1, {threads}>>>(values);" for threads, each in sizes)
        (folder / f"unit_{n:02}.cu").write_text(UNIT.format(n=n, turns=3 + n % 5, calls=calls))
    git = ["git", "-c", "user.name=bench", "-c", "user.email=bench@example.invalid", "-C", str(folder)]
    subprocess.run([*git, "init", "-q", "-b", "main"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "units"], check=True)
    recipes.mkdir(parents=True)
    (recipes / f"{name}.toml").write_text(RECIPE.format(name=name, project=folder))
