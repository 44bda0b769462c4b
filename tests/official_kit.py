"""The official aarch64 wheels that the tables in the documentation are about.

They are taken from the folder that SPARK_BUILD_OFFICIAL_WHEELS names, else downloaded by pip as it is set up here: 1.1 GB.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

WHEELS = {
    "vllm": "vllm==0.33.0",
    "triton": "triton==3.9.0",
    "flashinfer_python": "flashinfer-python==0.7.2.post1",
    "torch": "torch==2.14.0",
}

_TAGS = [
    *("--python-version=3.12", "--implementation=cp", "--abi=cp312", "--abi=abi3", "--abi=none"),
    *("--platform=manylinux_2_28_aarch64", "--platform=manylinux_2_27_aarch64", "--platform=any"),
]


def wheel(name: str, cache: Path) -> Path:
    """Return the official wheel of `name`, a key of `WHEELS`, in `cache` when it has to be downloaded."""
    given = os.environ.get("SPARK_BUILD_OFFICIAL_WHEELS")
    folder, spec = Path(given or cache), WHEELS[name]
    wanted = f"{name}-{spec.partition('==')[2]}-*.whl"
    if not given and not list(folder.glob(wanted)):
        words = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", *_TAGS]
        subprocess.run([*words, "--dest", str(folder), spec], check=True)
    found = sorted(folder.glob(wanted))
    if not found:
        pytest.skip(f"no {wanted} in {folder}")
    return found[-1]
