"""Whole builds of vLLM and FlashInfer on a machine that doesn't exist: the gate's policy against a static number of jobs.

``python benchmarks/simulate.py [--programs DIR] [--seeds N] [--check]``

Units, peaks and times are those of ``recipes/seeds``, measured ones first. A unit rises to its peak over 30 % of its time,
holds it to 45 %, then keeps 35 % of it; one row holds the peak to the end. The policy is the very class that the broker
runs, the predictions are those of its oracle, from a history with the errors that the row names. Ratios are to the bound
max(CPU / cores, peak x time / ceiling, longest unit); by curve less is needed than that bound counts. Each row is the
worst over all seeds of the random numbers. Errors are even between plus and minus their figure, or (the rows with
"sigma") normal with that standard deviation, for peaks and times alike.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

SEEDS = Path(__file__).resolve().parent.parent / "recipes/seeds"
CEILINGS = (100, 60, 30)
#: Times of units that were only measured on a slower-clocked run or not at all, to the machine that most were measured on:
#: the ratio of both over the units of each group that were measured on it. One unit had not ended there after 855 s.
SCALE = {"own": 1.38, "fa2": 1.21, "marlin": 1.54}
LONGEST, LONGEST_S = "csrc/quantization/w8a8/cutlass/scaled_mm_c2x.cu", 900.0
#: By ceiling: the largest ratio to the bound, and the minutes that vLLM may take by curve with errors in time.
RATIO, BY_CURVE = {100: 1.25, 60: 1.15, 30: 1.25}, {60: 23.0, 30: 36.0}
WORST_SIZED = {60: 70.0, 30: 136.0}
TOLERANCE = 0.05

HISTORY = {
    "ours": [],
    "ours, half of the units known": ["--known", "0.5"],
    "ours, 30 % error, 10 % unseen": ["--known", "0.9", "--noise-peak", "0.3", "--noise-time", "0.3"],
    "ours, sigma 30 %, 10 % unseen": ["--known", "0.9", "--noise-peak", "0.3", "--noise-time", "0.3", "--normal", "1"],
    "ours, peaks held to the end": ["--hold", "1"],
    "ours, 256 asked for at a time": ["--window", "256"],
    "ours by curve": ["--curve", "1"],
    "ours by curve, 20 % error in time": ["--curve", "1", "--noise-time", "0.2"],
    "ours by curve, sigma 20 % in time": ["--curve", "1", "--noise-time", "0.2", "--normal", "1"],
}
MODEL = ["--model", "57", "--model-at", "500", "--model-over", "40", "--cap", "0"]
LOADED = {
    "ours, 57 GiB model at 500 s": MODEL,
    "  the same, half known": [*MODEL, "--known", "0.5"],
    "  the same, 30 % error, 10 % unseen": [*MODEL, *HISTORY["ours, 30 % error, 10 % unseen"]],
    "  the same, by curve": [*MODEL, "--curve", "1"],
}
STATIC = {
    "MAX_JOBS=4": ["--jobs", "4"],
    "8 GiB a job": ["--jobs", "8gib"],
    "-j for the worst unit": ["--jobs", "worst"],
    "-j20": ["--jobs", "cores"],
}
#: Rows whose ratio is only shown: harder than what is promised, or a matter of what the project asks for first.
SHOWN = {"ours, sigma 30 %, 10 % unseen", "ours, peaks held to the end", "ours, 256 asked for at a time"}


@dataclass(frozen=True)
class Row:
    """The worst of all seeds."""

    project: str
    ceiling: int
    name: str
    minutes: float
    bound: float
    ratio: float
    most_gib: float
    over_gib: float
    kills: int
    kernel_kills: int
    dead: bool


def units(project: str, folder: Path) -> Path:
    """Return a file of the units of `project` as the simulator reads them."""
    lines = (SEEDS / f"{project}.csv").read_text().splitlines()
    rows = [
        row for row in csv.DictReader(line for line in lines if not line.startswith("#")) if row.get("group") != "fa3"
    ]
    file = folder / f"{project}.csv"
    with file.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(("name", "cpu_s", "peak_mib", "kind"))
        for row in rows:
            known = row.get("group") is None or row["measured"] == "2"
            seconds = float(row["cpu_s"]) * (1 if known else SCALE[row["group"]])
            seconds = LONGEST_S if row["unit"] == LONGEST else seconds
            writer.writerow((row["unit"], round(seconds, 2), row["peak_mib"], row["kind"]))
    return file


def run(program: Path, file: Path, ceiling: int, name: str, options: list[str], seeds: int) -> Row:
    """Return the worst of `seeds` runs."""
    chance = any(word in options for word in ("--known", "--noise-time", "--noise-peak"))
    outcomes = []
    for seed in range(1, (seeds if chance else 1) + 1):
        argv = [str(program), str(file), "--ceiling", str(ceiling), "--seed", str(seed), *options]
        outcomes.append(json.loads(subprocess.run(argv, check=True, capture_output=True, text=True).stdout))
    return Row(
        project=file.stem,
        ceiling=ceiling,
        name=name,
        minutes=max(one["makespan_s"] for one in outcomes) / 60,
        bound=outcomes[0]["bound_s"] / 60,
        ratio=max(one["ratio"] for one in outcomes),
        most_gib=max(one["most_gib"] for one in outcomes),
        over_gib=max(one["over_gib"] for one in outcomes),
        kills=max(one["kills"] for one in outcomes),
        kernel_kills=max(one["kernel_kills"] for one in outcomes),
        dead=any(one["died"] or one["failed"] for one in outcomes),
    )


def mistakes(row: Row) -> list[str]:
    """Return what `row` breaks of what is promised."""
    where = f"{row.project} at {row.ceiling} GiB, {row.name.strip()}"
    if row.name in STATIC:
        wanted = WORST_SIZED.get(row.ceiling) if (row.project, row.name) == ("vllm", "-j for the worst unit") else None
        off = wanted is not None and abs(row.minutes / wanted - 1) > TOLERANCE
        return [f"{where}: {row.minutes:.1f} min, and it should be about {wanted}"] if off else []
    found = []
    if row.dead or row.kernel_kills:
        found.append(f"{where}: killed by the kernel, or given up")
    if row.over_gib > 0 and row.name not in LOADED:
        found.append(f"{where}: {row.over_gib:.2f} GiB above the ceiling")
    if row.name not in SHOWN and row.ratio > RATIO[row.ceiling]:
        found.append(f"{where}: {row.ratio:.3f} of the bound, at most {RATIO[row.ceiling]}")
    limit = (
        BY_CURVE.get(row.ceiling) if row.project == "vllm" and "by curve" in row.name and "error" in row.name else None
    )
    if limit is not None and row.minutes > limit:
        found.append(f"{where}: {row.minutes:.1f} min, at most {limit}")
    return found


def show(rows: list[Row], seeds: int) -> None:
    """Print the tables."""
    print(
        f"20 cores; the worst of {seeds} seeds; minutes; 'over' is true use above the ceiling (above what a loaded model"
    )
    print("leaves of it: the upper half of the machine's reserve may be used for a moment)")
    for project in dict.fromkeys(row.project for row in rows):
        for ceiling in CEILINGS:
            here = [row for row in rows if (row.project, row.ceiling) == (project, ceiling)]
            print(f"\n{project}, {ceiling} GiB; bound {here[0].bound:.1f} min")
            print(f"  {'':36} {'min':>6} {'ratio':>6} {'peak GiB':>9} {'over':>6} {'kills':>6} {'kernel':>7}")
            for row in here:
                time = "dead" if row.dead else f"{row.minutes:.1f}"
                ratio = "-" if row.dead else f"{row.ratio:.3f}"
                print(
                    f"  {row.name:36} {time:>6} {ratio:>6} {row.most_gib:9.1f} {row.over_gib:6.1f} {row.kills:6}"
                    f" {row.kernel_kills:7}"
                )


def main() -> int:
    """Run all."""
    parser = argparse.ArgumentParser(description="The gate's policy against a static number of jobs, simulated")
    parser.add_argument("--programs", type=Path, default=Path("build/launcher"), help="folder of spark-build-simulate")
    parser.add_argument("--seeds", type=int, default=5, help="runs of each row that has random numbers")
    parser.add_argument("--check", action="store_true", help="end with 1 if a promise is broken")
    args = parser.parse_args()
    program = args.programs / "spark-build-simulate"
    if not program.exists():
        make = "cmake -S . -B build -G Ninja && ninja -C build all spark-build-simulate"
        print(f"no {program}: {make}, then --programs build/launcher")
        return 2
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(run, program, file, ceiling, name, options, args.seeds)
            for file in (units("vllm", Path(folder)), units("flashinfer", Path(folder)))
            for ceiling in CEILINGS
            for name, options in (HISTORY | (LOADED if ceiling == max(CEILINGS) else {}) | STATIC).items()
        ]
        rows = [job.result() for job in jobs]
    show(rows, args.seeds)
    decision = subprocess.run([program, "--decisions"], check=True, capture_output=True, text=True).stdout.strip()
    print(f"\none decision with 500 waiting and 64 running: {decision}")
    broken = [text for row in rows for text in mistakes(row)]
    print("\n".join(["", *broken]) if broken else "\nall promises hold")
    return 1 if args.check and broken else 0


if __name__ == "__main__":
    sys.exit(main())
