"""Real CUDA units of FlashInfer inside a memory limit: without the gate, with it, and out of the compile cache.

``python benchmarks/cuda.py FOLDER --programs DIR --ccache FILE [--check]``

``FOLDER`` is what ``benchmarks/cuda_units.py`` made; ``DIR`` holds the native programs. Needs root, nvcc 13 and ninja.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from memory_group import limited

from builder.gate import ccache

GIB = 1 << 30
HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Row:
    """What came of one side."""

    name: str
    code: int
    wall_s: float
    built: int
    peak_gib: float
    kernel_kills: int
    requeues: int = 0
    hits: int = 0
    kind: str = ""


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--programs", type=Path, required=True)
    parser.add_argument("--ccache", type=Path, required=True)
    parser.add_argument("--limit", type=float, default=12, metavar="GIB")
    parser.add_argument("--jobs", type=int, default=64)
    parser.add_argument("--patience", type=float, default=120, metavar="S", help="how long the ungated side may take")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch) / "tree"
        shutil.copytree(args.folder, tree)
        units = (tree / "build.ninja").read_text().count("\nbuild ")
        print(f"{units} units, {os.cpu_count()} cores, limit {args.limit:g} GiB, MAX_JOBS={args.jobs}")
        rows = [show(gated(tree, args, Path(scratch), name)) for name in ("gated, seeds only", "from the cache")]
        moved = Path(scratch) / "elsewhere"
        tree.rename(moved)
        rows.append(show(gated(moved, args, Path(scratch), "moved, from the cache")))
        bare = show(ungated(moved, args))
    cold, warm, other = rows
    good = (
        bare.code != 0
        and all(row.code == 0 and row.built == units and row.peak_gib <= args.limit for row in rows)
        and min(warm.hits, other.hits) == units
    )
    print(
        f"cache: {warm.hits}/{units} hits, {cold.wall_s / warm.wall_s:.0f} times faster; {'holds' if good else 'FAILS'}"
    )
    return 0 if good or not args.check else 1


def show(row: Row) -> Row:
    """Print a row and return it."""
    print(
        f"{row.name:<24} rc {row.code:>3}  {row.wall_s:7.1f} s  {row.built:>3} built  peak {row.peak_gib:5.2f} GiB  "
        f"kernel kills {row.kernel_kills}  run again {row.requeues}  hits {row.hits}  {row.kind}",
        flush=True,
    )
    return row


def clean(tree: Path) -> None:
    """Leave nothing built."""
    for name in (".ninja_log", ".ninja_deps"):
        (tree / name).unlink(missing_ok=True)
    shutil.rmtree(tree / "out", ignore_errors=True)


def built(tree: Path) -> int:
    """Return how many objects are there."""
    return len(list(tree.glob("out/*/*.o")))


def ungated(tree: Path, args: argparse.Namespace) -> Row:
    """Let ninja start all at once."""
    clean(tree)
    started = time.monotonic()
    with limited("cuda", int(args.limit * GIB)) as group:
        words = group.inside(["ninja", "-C", str(tree), f"-j{args.jobs}"])
        try:
            code = subprocess.run(words, stdout=subprocess.DEVNULL, check=False, timeout=args.patience).returncode
        except subprocess.TimeoutExpired:
            code = 124  # no end in sight: code is read from disk again and again, as there is no memory to keep it in
        wall = time.monotonic() - started
        peak, kills = group.peak_bytes() / GIB, group.kernel_kills()
        return Row("ungated", code, wall, built(tree), peak, kills, kind=group.kind)


def gated(tree: Path, args: argparse.Namespace, scratch: Path, name: str) -> Row:
    """Let every compiler ask first, over the compile cache."""
    clean(tree)
    launcher = args.programs.resolve() / "spark-build-launch"
    text = (tree / "build.ninja").read_text().replace("launcher =\n", f"launcher = {launcher}\n", 1)
    (tree / "gated.ninja").write_text(text)
    log = scratch / f"{name}.log"
    settings = ccache.Settings(
        folder=scratch / "ccache", namespace="cuda", root=tree, fixed=False, launcher=launcher, log=log
    )
    env = {
        **os.environ,
        **ccache.variables(settings),
        "SPARK_BUILD_CCACHE": str(args.ccache.resolve()),
        "PYTHONPATH": str(HERE.parent),
    }
    words = [sys.executable, str(HERE / "gated.py"), "--programs", str(args.programs.resolve())]
    words += ["--gate", str(scratch / "gate"), "--root", str(tree), "--history", str(scratch / "units.sqlite3")]
    words += ["--recipe", "flashinfer", "--seeds", str(HERE.parent / "recipes"), "--build", f"cuda-{len(name)}"]
    words += ["--cores", str(os.cpu_count()), "--plain", "4096"]
    words += ["--", "ninja", "-C", str(tree), "-f", "gated.ninja", f"-j{args.jobs}"]
    with limited("cuda", int(args.limit * GIB)) as group:
        done = subprocess.run(group.inside(words), env=env, stdout=subprocess.PIPE, text=True, check=False)
        told = json.loads(done.stdout)
        if told["code"]:
            print(told["tail"], told["stopped"], told["notes"])
        return Row(
            name,
            told["code"],
            told["wall_s"],
            built(tree),
            group.peak_bytes() / GIB,
            group.kernel_kills(),
            told["own_kills"] + told["kernel_requeues"],
            ccache.statistics(log).hits,
            group.kind,
        )


if __name__ == "__main__":
    sys.exit(main())
