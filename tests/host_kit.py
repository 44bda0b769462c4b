"""A machine in a folder: programs that log each start, a toolkit, a /proc."""

from __future__ import annotations

import os
import textwrap
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["PATH", "program", "settle", "toolkit"]

PATH = os.environ["PATH"]


def program(folder: Path, name: str, text: str) -> Path:
    """Write an executable shell script."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text("#!/bin/sh\n" + textwrap.dedent(text))
    file.chmod(0o755)
    return file


def toolkit(root: Path, version: str = "13.0.88", *, log: Path | None = None) -> Path:
    """Make a small toolkit whose nvcc is a real binary's stand-in by its command line, and logs each start."""
    release = ".".join(version.split(".")[:2])
    started = f"echo nvcc >> {log}\n" if log else ""
    program(root / "bin", "nvcc", f'{started}echo "Cuda compilation tools, release {release}, V{version}"\n')
    (root / "include").mkdir()
    (root / "include" / "cuda.h").write_text("#define CUDA_VERSION 13000\n")
    (root / "nvvm" / "bin").mkdir(parents=True)
    (root / "nvvm" / "bin" / "cicc").write_bytes(b"\x7fELF cicc of " + version.encode())
    (root / "doc").mkdir()
    (root / "doc" / "manual.txt").write_text("read me")
    return root


def settle(root: Path) -> None:
    """Wait until a digest of this tree that is taken now can be trusted: nobody can set a ctime back."""
    newest = max(path.lstat().st_ctime for path in [root, *root.rglob("*")])
    time.sleep(max(0.0, newest + 0.2 - time.time()))
