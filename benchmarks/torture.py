"""Sixty compilers of 25 to 600 MiB in a control group of 1,600 MiB: the gate against a static ``-j``.

``python benchmarks/torture.py [--programs DIR] [--check]``

Each side builds the same project in a control group of its own, with a real limit that the kernel enforces: by the gate with
the history of a run before, by the gate without any, by ``-j 2`` (safe for the worst two units), and by the ``-j`` that fits
units of mean size. Needs root for the control group. Everything, the broker too, runs inside it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fakes
from memory_group import limited

MIB = 1 << 20
HERE = Path(__file__).resolve().parent
#: Goals: of the bound with and without history, and how much slower the safe static number has to be.
WARM, COLD, STATIC = 1.2, 1.5, 3.5


@dataclass(frozen=True)
class Row:
    """What one side did."""

    name: str
    code: int
    wall_s: float
    built: int
    kernel_kills: int
    own_kills: int
    peak_mib: float
    tail: str = ""


def programs() -> Path:
    """Return the folder of the installed programs."""
    return Path(sys.prefix) / "bin"


def gated(folder: Path, compiler: Path, where: Path, history: Path, name: str, *options: str) -> Row:
    """Build at the gate, with what `history` holds, which grows."""
    tree = folder / name.replace(" ", "-").replace(",", "")
    fakes.project(tree, compiler, where / "spark-build-launch", fakes.units())
    with limited("spark-build-torture", fakes.LIMIT_MIB * MIB) as group:
        words = [
            sys.executable, str(HERE / "gated.py"), "--programs", str(where), "--gate", str(tree / "gate"),
            "--root", str(tree), "--history", str(history), "--memory", str(fakes.BUDGET_MIB),
            "--cores", str(fakes.SLOTS), "--build", f"{tree.name}-1", *options,
            "--", "ninja", "-C", str(tree), "-j", "200",
        ]  # fmt: skip
        done = subprocess.run(group.inside(words), stdout=subprocess.PIPE, text=True, check=False)
        told: dict[str, Any] = (
            json.loads(done.stdout) if done.stdout.strip() else {"wall_s": 0.0, "own_kills": 0, "tail": "no report"}
        )
        if not told.get("gate", True):
            told["tail"] = f"no gate: {told['notes']}"
        return Row(
            name, done.returncode, told["wall_s"], fakes.built(tree), group.kernel_kills(), told["own_kills"],
            group.peak_bytes() / MIB, told["tail"] + told.get("stopped", ""),
        )  # fmt: skip


def static(folder: Path, compiler: Path, jobs: int, name: str) -> Row:
    """Build with a fixed number of jobs and no gate."""
    tree = folder / name.replace(" ", "-").replace(",", "")
    fakes.project(tree, compiler, None, fakes.units())
    with limited("spark-build-torture", fakes.LIMIT_MIB * MIB) as group:
        started = time.monotonic()
        words = group.inside(["ninja", "-C", str(tree), "-j", str(jobs)])
        done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        wall = time.monotonic() - started
        peak, kills = group.peak_bytes() / MIB, group.kernel_kills()
    return Row(name, done.returncode, wall, fakes.built(tree), kills, 0, peak, done.stdout[-300:])


def show(rows: list[Row], bound_s: float) -> None:
    """Print the table."""
    print("| side | rc | wall s | x of bound | built | kernel kills | own kills | peak MiB |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        ratio = f"{row.wall_s / bound_s:.2f}" if row.code == 0 else "dead"
        cells = (row.name, row.code, f"{row.wall_s:.1f}", ratio, f"{row.built}/{fakes.COUNT}")
        print(
            f"| {' | '.join(map(str, cells))} | {row.kernel_kills} | {row.own_kills} | {row.peak_mib:.0f} |", flush=True
        )


def failures(rows: list[Row], bound_s: float) -> list[str]:
    """Return which goals were missed."""
    warm, cold, worst, mean = rows
    wrong = []
    for row, most in ((warm, WARM), (cold, COLD)):
        if row.code or row.built != fakes.COUNT:
            wrong.append(f"{row.name}: rc {row.code}, {row.built} built: {row.tail}")
        if row.kernel_kills:
            wrong.append(f"{row.name}: {row.kernel_kills} kernel kills")
        if row.wall_s > most * bound_s:
            wrong.append(f"{row.name}: {row.wall_s / bound_s:.2f} x the bound, at most {most}")
    if worst.code or worst.wall_s < STATIC * warm.wall_s:
        wrong.append(f"{worst.name}: rc {worst.code}, {worst.wall_s / warm.wall_s:.2f} x ours, at least {STATIC}")
    if mean.code == 0:
        wrong.append(f"{mean.name} was expected to die")
    return wrong


def main() -> int:
    """Run all sides."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=Path, default=programs(), help="where the launcher and the broker lie")
    parser.add_argument("--check", action="store_true", help="exit 1 when a goal is missed")
    args = parser.parse_args()
    these = fakes.units()
    bound_s = fakes.bound_s(these)
    mean_jobs = fakes.BUDGET_MIB // fakes.MEAN_MIB
    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    try:
        compiler = fakes.compiler(folder)
        with limited("spark-build-probe", fakes.LIMIT_MIB * MIB) as group:
            print(f"{group.kind}, limit {fakes.LIMIT_MIB} MiB, budget {fakes.BUDGET_MIB} MiB, {fakes.SLOTS} slots")
        print(
            f"bounds: peak x time / budget {bound_s:.1f} s, "
            f"by slots {sum(one.seconds for one in these) / fakes.SLOTS:.1f} s, "
            f"memory really held {fakes.true_integral_s(these):.1f} s",
            flush=True,
        )
        history = folder / "history.sqlite3"
        cold = gated(folder, compiler, args.programs, history, "gate, cold")
        warm = gated(folder, compiler, args.programs, history, "gate, with history")
        rows = [
            warm,
            cold,
            static(folder, compiler, 2, "static, -j2"),
            static(folder, compiler, mean_jobs, f"static, -j{mean_jobs}"),
        ]
        show(rows, bound_s)
        wrong = failures(rows, bound_s)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for text in wrong:
        print(f"missed: {text}")
    return 1 if args.check and wrong else 0


if __name__ == "__main__":
    sys.exit(main())
