"""FlashInfer's real repository with its submodules from local snapshots, and what an installed FlashInfer says."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

from tests.source_kit import WHO

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

#: Pull request 4514, which split jit-cache into providers and a shim for 0.7, and main at about that time.
LAYOUTS = {
    "provider": "45f4737ddff758a54004f3d39acf74d6cfac20c4",
    "monolith": "fb28d7242b3506a2348265962041acc1fb56cca4",
}
SNAPSHOTS = {
    "flashinfer": "flashinfer-ai+flashinfer",
    "cutlass": "NVIDIA+cutlass",
    "cccl": "NVIDIA+cccl",
    "spdlog": "gabime+spdlog",
}
#: CUTLASS at the pin of both; snapshots leave out what is large and no text.
CUTLASS = "b46b16d003484063bca4ed365e44095c4c6ed633"
CUTLASS_LACKS = "media/images/cutlass-2.9-implicit-gemm-performance.png"
#: The snapshot of spdlog ends before the pin, 1.14.1.
SPDLOG = "v1.13.0"

_DATE = "1700000000 +0000"


def repositories(folder: Path, snapshots: Path) -> dict[str, str]:
    """Make bare repositories over the objects of `snapshots`; return the [mirrors] that lead to them.

    ``provider`` and ``monolith`` in FlashInfer's are the real commits with one more on top, which puts stand-ins where a
    snapshot lacks the pin: CUTLASS without one picture, spdlog 1.13.0.
    """
    for name, snapshot in SNAPSHOTS.items():
        objects = snapshots / snapshot / "repo" / "objects"
        subprocess.run(["git", "init", "-q", "--bare", folder / f"{name}.git"], check=True)
        (folder / f"{name}.git" / "objects" / "info" / "alternates").write_text(f"{objects}\n")
    cutlass = _on_top(folder, "cutlass", CUTLASS, ["--force-remove", CUTLASS_LACKS])
    spdlog = _git(snapshots / SNAPSHOTS["spdlog"] / "repo", "rev-parse", f"{SPDLOG}^{{commit}}")
    for branch, base in LAYOUTS.items():
        links = [
            word
            for path, commit in {"cutlass": cutlass, "spdlog": spdlog}.items()
            for word in ("--cacheinfo", f"160000,{commit},3rdparty/{path}")
        ]
        _git(folder / "flashinfer.git", "branch", branch, _on_top(folder, "flashinfer", base, links, parents=[base]))
    for name in SNAPSHOTS:  # a pin that no branch holds is asked for by its name
        _git(folder / f"{name}.git", "config", "uploadpack.allowAnySHA1InWant", "true")
    made = {"flashinfer": "flashinfer-ai", "cutlass": "NVIDIA", "cccl": "NVIDIA", "spdlog": "gabime"}
    return {f"https://github.com/{owner}/{name}": str(folder / f"{name}.git") for name, owner in made.items()}


def _on_top(folder: Path, name: str, base: str, changes: list[str], parents: list[str] | None = None) -> str:
    """Commit `changes` of the index of `base` and return the commit."""
    git_dir, index = folder / f"{name}.git", {"GIT_INDEX_FILE": str(folder / f"{name}.index")}
    _git(git_dir, "read-tree", base, env=index)
    _git(git_dir, f"--work-tree={folder}", "update-index", *changes, env=index)
    tree = _git(git_dir, "write-tree", "--missing-ok", env=index)
    words = [word for parent in parents or () for word in ("-p", parent)]
    return _git(git_dir, "commit-tree", tree, *words, "-m", "stand-ins for what the snapshots lack")


def _git(git_dir: Path, *words: str, env: Mapping[str, str] | None = None) -> str:
    variables = {**os.environ, **WHO, "GIT_AUTHOR_DATE": _DATE, "GIT_COMMITTER_DATE": _DATE, **(env or {})}
    command = ["git", "-c", "safe.directory=*", f"--git-dir={git_dir}", *words]
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=True).stdout.strip()


#: Prints what FlashInfer itself found; its warnings go to stderr.
_ASK = """
import json, logging
logging.basicConfig(level=logging.INFO)
import flashinfer
from flashinfer.jit import env
found = [
    {
        "id": one.provider_id,
        "version": one.version,
        "targets": sorted(one.cuda_architectures),
        "modules": sorted(one.modules),
    }
    for one in env.FLASHINFER_AOT_PROVIDERS
]
print(json.dumps({"version": flashinfer.__version__, "providers": found}))
"""


def asked(python: Path, home: Path) -> tuple[dict[str, Any], str]:
    """Return what the FlashInfer of an environment says of the kernels that it found, and all that it warned of.

    Raises AssertionError with its own words where it refuses what is installed beside it.
    """
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "FLASHINFER_NO_DOWNLOAD": "1"}
    done = subprocess.run([python, "-c", _ASK], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found, done.stderr
