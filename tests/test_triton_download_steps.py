"""Upstream's own download steps, as they were at five commits, with stand-in archives and no network.

Opt-in: SPARK_BUILD_TRITON_MIRROR names a bare repository with upstream's history. Of the tree only CMakeLists.txt is cut
behind the download; setup.py, build_helpers.py, the pins and the packaging are upstream's.
"""

from __future__ import annotations

import json
import os
import subprocess
import zipfile
from typing import TYPE_CHECKING

import pytest
import tomli_w

from tests.triton_kit import JSON, LLVM, NVIDIA, REDIST, SUFFIX, Upstream, shipped_fetches

if TYPE_CHECKING:
    from pathlib import Path

    from tests.world import World

MIRROR = os.environ.get("SPARK_BUILD_TRITON_MIRROR")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.network,
    pytest.mark.skipif(not MIRROR, reason="SPARK_BUILD_TRITON_MIRROR names no mirror of upstream"),
]

#: Where release branches were cut, and one commit of main: each has another layout.
COMMITS = {
    "3.5": "abce3c88f05e8dba40bfacf68acf0ee3869afb5e",
    "3.6": "004d7f5f58c2299a714e20c214893d4907dc8509",
    "3.7": "6d2e38bfe1c96f7cacaf85661fe28d73473ca133",
    "3.8": "5838701feb5ce8131137b541460058495b23b154",
    "2026-08": "f4fca2c0bc0e19930d2be76bb06ee7b232b60e86",
}

_PROJECT = "cmake_minimum_required(VERSION 3.20)\nproject(triton CXX C)\n"
_END = "\nadd_custom_target(mlir-doc)\n"


def tree(world: World, commit: str) -> Path:
    """Make a repository of upstream's tree at `commit`, whose CMake stops behind the download."""
    folder = world.root / "triton"
    folder.mkdir()
    archive = subprocess.run(["git", "-C", str(MIRROR), "archive", commit], check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive, check=True)
    text = (folder / "CMakeLists.txt").read_text()
    cut = text.split("\nif(TRITON_BUILD_WITH_CCACHE)", 1)[0]
    (folder / "CMakeLists.txt").write_text((cut if "build_helpers.py" in cut else _PROJECT) + _END)
    world.git(folder, "init", "-q", "-b", "main")
    world.git(folder, "add", "-A", "-f")
    world.git(folder, "commit", "-qm", "upstream's tree")
    return folder


def offer(upstream: Upstream, folder: Path) -> None:
    """Make the archives that this tree's programs ask for."""
    pins = json.loads((folder / "cmake" / "nvidia-toolchain-version.json").read_text())
    for version in set(pins.values()):
        for package in ("nvcc", "cuobjdump", "nvdisasm", "crt", "cudart", "cupti"):
            archive = f"cuda_{package}-{REDIST}-{version}-archive"
            tool = "ptxas" if package == "nvcc" else package
            script = f"#!/bin/sh\necho 'release, V{version}'\n"
            files = {f"{archive}/bin/{tool}": script, f"{archive}/include/{package}.h": version}
            files[f"{archive}/lib/lib{package}.so.{version}"] = version
            upstream.offer(f"{NVIDIA}/cuda_{package}/{REDIST}/{archive}.tar.xz", files)
    upstream.offer(f"{JSON}/v3.11.3/include.zip", {"include/nlohmann/json.hpp": "json"})
    old, new = folder / "cmake" / "llvm-hash.txt", folder / "cmake" / "llvm-info.json"
    if old.exists():
        name = f"llvm-{old.read_text()[:8]}-{SUFFIX}"
        upstream.offer(f"{LLVM}/{name}.tar.gz", {f"{name}/bin/FileCheck": "LLVM"})
        return
    info = json.loads(new.read_text())
    name = f"llvm-{info['llvm_hash'][:8]}-{SUFFIX}-{info['build_number']}"
    digest = upstream.offer(f"{LLVM}/{name}.tar.gz", {f"{name}/bin/FileCheck": "LLVM"})
    info["sha256sum"][SUFFIX] = digest  # only upstream has the bytes of its own
    new.write_text(json.dumps(info))
    upstream.world.git(folder, "commit", "-qam", "the stand-in's digest")


@pytest.mark.parametrize("name", COMMITS)
def test_upstreams_own_step_downloads_nothing(world: World, name: str) -> None:
    upstream = Upstream(world)
    folder = tree(world, COMMITS[name])
    offer(upstream, folder)
    source = {"kind": "git", "url": folder.as_uri(), "ref": "main"}
    made = {"schema": 1, "name": "step", "source": [source], "output": [{"name": "triton"}], "fetch": shipped_fetches()}
    env = {"TRITON_BUILD_PROTON": "OFF", "TRITON_APPEND_CMAKE_ARGS": "-DTRITON_BUILD_UT=OFF"}
    reason = "nothing is compiled here"
    check = [{"kind": "accept", "findings": ["module-missing"], "reason": reason}]
    world.recipe("step", tomli_w.dumps(made | {"build": {"hook": "cmake", "env": env}, "check": check}))
    upstream.mirrors()
    (wheel,) = world.wheels("step")
    with zipfile.ZipFile(wheel) as archive:
        names = [one.removeprefix("triton/backends/nvidia/") for one in archive.namelist()]
        blackwell = name != "3.5"
        tools = {"bin/ptxas", "bin/cuobjdump", "bin/nvdisasm"} | ({"bin/ptxas-blackwell"} if blackwell else set())
        assert tools <= set(names)
        assert {"include/cudart.h", "include/cupti.h"} <= set(names)
        assert any(one.startswith("lib/cupti/libcupti") for one in names)
        assert any(one.startswith("lib/cupti-blackwell/") for one in names) == (name not in {"3.5", "3.6"})
