"""What a hit costs: CPU seconds with all children, medians, side by side with a peer on the same project.

    python benchmarks/hit.py --peer PATH/TO/fromager [--check] [--runs 10]

Needs `spark-build` in the same environment and one real build of FlashInfer (made here when it is missing; that needs
the network once). The peer gets its own already-built wheel of the same project first, and then decides again.

Limits that ``--check`` holds: a hit at most 0.25 s CPU and at least 8 times cheaper than the peer; ``--help`` at most 1.5
times ``python -c "import argparse"``; planning 200 recipes over 2,000 catalogue entries at most 0.5 s; and each of one
byte in a patch, a replaced nvcc and another torch is a miss within the hit's budget.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

COMMAND = Path(sys.executable).with_name("spark-build")
HIT_S, PEER_RATIO, HELP_RATIO, PLAN_S = 0.25, 8.0, 1.5, 0.5
FOUND_WORK = 10


@dataclass
class Row:
    """One line of the table."""

    what: str
    cpu_s: float
    limit: str = ""
    ok: bool = True


def cpu(argv: list[str], *, env: dict[str, str], cwd: Path, code: int = 0) -> float:
    """Run `argv` and return user + system seconds of it and all its children; stop when it ends with another code."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(argv, env=env, cwd=cwd, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != code:
        sys.exit(f"{' '.join(argv)}: {done.returncode}, wanted {code}\n{done.stdout}\n{done.stderr}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def interleaved(
    sides: dict[str, tuple[list[str], int]], *, env: dict[str, str], cwd: Path, runs: int
) -> dict[str, float]:
    """Return the median of each side; the sides take turns, so a drift of the machine meets all of them."""
    samples: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(runs + 1):
        for name, (argv, code) in sides.items():
            samples[name].append(cpu(argv, env=env, cwd=cwd, code=code))
    return {name: statistics.median(values[1:]) for name, values in samples.items()}


def no_network(argv: list[str]) -> list[str]:
    """Return `argv` in an empty network namespace: a hit must not need one."""
    return ["unshare", "--user", "--map-root-user", "--net", *argv] if os.geteuid() else ["unshare", "--net", *argv]


def prepare(root: Path) -> dict[str, str]:
    """Return the environment of a user with a home of their own and FlashInfer built."""
    env = dict(os.environ) | {
        "HOME": str(root / "home"),
        "SPARK_BUILD_WHEELHOUSE": str(root / "wheelhouse"),
        "SPARK_BUILD_SOURCES": str(root / "sources"),
        "CUDA_HOME": str(root / "cuda"),
    }
    (root / "home").mkdir(exist_ok=True)
    toolkit = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")).resolve()
    if not (root / "cuda").exists():  # a toolkit of our own, since one of its files is replaced below
        shutil.copytree(toolkit, root / "cuda", symlinks=True)
    print("building FlashInfer once …", file=sys.stderr)
    cpu([str(COMMAND), "recipe", "flashinfer"], env=env, cwd=root)
    return env


def peer_side(peer: Path, root: Path, env: dict[str, str], version: str) -> list[str]:
    """Return the command with which fromager decides on its own already-built wheel."""
    work = root / "peer"
    work.mkdir(exist_ok=True)
    order = work / "build-order.json"
    argv = [
        str(peer),
        f"--work-dir={work / 'work'}",
        f"--sdists-repo={work / 'sdists'}",
        f"--wheels-repo={work / 'wheels'}",
        f"--settings-dir={work / 'overrides'}",
    ]
    if not order.exists():
        print("building it with the peer once …", file=sys.stderr)
        cpu([*argv, "bootstrap", "--sdist-only", f"flashinfer-python=={version}"], env=env, cwd=work)
        found = json.loads((work / "work" / "build-order.json").read_text())
        order.write_text(json.dumps([one for one in found if one["dist"] == "flashinfer-python"]))
        cpu([*argv, "build-sequence", str(order)], env=env, cwd=work)
    return [*argv, "build-sequence", str(order)]


def misses(root: Path, env: dict[str, str], runs: int) -> list[Row]:
    """Change one input at a time, see a miss, and put it back."""
    recipe = [str(COMMAND), "recipe", "flashinfer", "--offline", "--plan"]
    overlay = root / "home" / ".config" / "spark-build" / "recipes"
    patches = overlay / "patches" / "flashinfer"
    patches.mkdir(parents=True, exist_ok=True)
    rows = []

    def measure(what: str) -> None:
        cpu(no_network(recipe), env=env, cwd=root, code=FOUND_WORK)  # what is found out once
        seconds = statistics.median(cpu(no_network(recipe), env=env, cwd=root, code=FOUND_WORK) for _ in range(runs))
        rows.append(Row(what, seconds, f"<= {HIT_S}", seconds <= HIT_S))

    for comment in ("a patch", "one byte of that patch"):
        text = ("--- /dev/null\n+++ b/SPARK\n@@ -0,0 +1 @@\n+" + ("x" if comment == "a patch" else "y") + "\n").encode()
        (patches / "one.patch").write_bytes(text)
        (overlay / "flashinfer.toml").write_text(
            'schema = 1\nname = "flashinfer"\n[[patch]]\nid = "one"\nfile = "one.patch"\n'
            f'sha256 = "{hashlib.sha256(text).hexdigest()}"\n'
        )
        measure(f"miss: {comment}")
    (overlay / "flashinfer.toml").unlink()

    nvcc = root / "cuda" / "bin" / "nvcc"
    kept = nvcc.read_bytes()
    times = nvcc.stat()
    nvcc.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    os.utime(nvcc, ns=(times.st_atime_ns, times.st_mtime_ns))  # same size, same time: only its bytes differ
    measure("miss: nvcc replaced (same size, same mtime)")
    nvcc.write_bytes(kept)
    os.utime(nvcc, ns=(times.st_atime_ns, times.st_mtime_ns))

    for torch in ("2.14.0", "2.15.0"):
        recipe[3:3] = ["--set", 'build.torch="pinned"', "--torch", torch]
        cpu([word for word in recipe if word != "--offline"], env=env, cwd=root, code=FOUND_WORK)
        measure(f"miss: torch {torch}")
        del recipe[3:7]
    return rows


def planning(root: Path, env: dict[str, str], runs: int) -> Row:
    """Plan 200 recipes over a catalogue of 2,000 wheels."""
    home = root / "plan-home"
    script = Path(__file__).with_name("fill_catalogue.py")
    env = env | {
        "HOME": str(home),
        "SPARK_BUILD_WHEELHOUSE": str(root / "plan-wheelhouse"),
        "SPARK_BUILD_SOURCES": str(root / "plan-sources"),
    }
    names = [f"made{number:03}" for number in range(200)]
    if not home.exists():
        print("making 200 recipes and 2,000 catalogue entries …", file=sys.stderr)
        cpu([sys.executable, str(script), str(home), str(root / "plan-wheelhouse")], env=env, cwd=root)
    argv = no_network([str(COMMAND), "plan", *names])
    cpu(argv, env=env, cwd=root, code=FOUND_WORK)
    seconds = statistics.median(cpu(argv, env=env, cwd=root, code=FOUND_WORK) for _ in range(runs))
    return Row("plan of 200 recipes, 2,000 entries", seconds, f"<= {PLAN_S}", seconds <= PLAN_S)


def main() -> int:
    """Measure, print, and with ``--check`` judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="a fromager executable")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--keep", type=Path, help="work here and keep it")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    root = args.keep or Path(tempfile.mkdtemp(prefix="hit-"))
    root.mkdir(parents=True, exist_ok=True)
    env = prepare(root)

    sides = {
        "hit": (no_network([str(COMMAND), "recipe", "flashinfer"]), 0),
        "help": ([str(COMMAND), "--help"], 0),
        "argparse": ([sys.executable, "-c", "import argparse"], 0),
    }
    if args.peer:
        listed = subprocess.run(
            [str(COMMAND), "wheels", "list", "--json"], env=env, capture_output=True, text=True, check=True
        )
        version = json.loads(listed.stdout)["wheels"][0]["version"].split("+")[0]
        sides["peer"] = (peer_side(args.peer, root, env, version), 0)
    medians = interleaved(sides, env=env, cwd=root, runs=args.runs)
    rows = [Row("hit: recipe flashinfer, no network", medians["hit"], f"<= {HIT_S}", medians["hit"] <= HIT_S)]
    if "peer" in medians:
        ratio = medians["peer"] / medians["hit"]
        what = f"peer on its built wheel ({ratio:.1f} x)"
        rows.append(Row(what, medians["peer"], f">= {PEER_RATIO} x", ratio >= PEER_RATIO))
    ratio = medians["help"] / medians["argparse"]
    rows.append(Row("python -c 'import argparse'", medians["argparse"]))
    rows.append(Row(f"spark-build --help ({ratio:.2f} x)", medians["help"], f"<= {HELP_RATIO} x", ratio <= HELP_RATIO))
    rows.append(planning(root, env, args.runs))
    rows += misses(root, env, args.runs)
    print(f"medians of {args.runs}, CPU seconds with children")
    for row in rows:
        print(f"{'ok ' if row.ok else 'NO '} {row.cpu_s:7.3f} s  {row.what:48} {row.limit}")
    if not args.keep:
        shutil.rmtree(root)
    return 1 if args.check and not all(row.ok for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
