"""Twenty kills in a real CUDA build: what each of them costs, and whether the wheel is the same in the end.

    python benchmarks/resume.py [--check] [--units 64] [--kills 20] [--seed N] [--keep DIR]

Runs the `spark-build` beside this Python, without a compile cache, which would hide what is compiled again. One build is
left alone; the other one, of the same fingerprint in another wheelhouse, is killed at random moments while it compiles: in
turns the whole process tree with SIGKILL, and only `spark-build`, whose death has to take the rest along. Then the same
command is typed again, or `spark-build resume`. Compilers are counted in /proc. A unit is in flight when its compiler was
started and it or its launcher lived in the last 100 ms before the kill: so long the build tool may take to note its end.

Needs nvcc 13, and the network for scikit-build-core where uv hasn't got it yet.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import cuda_project
from process_watch import Watch, kill_tree

COMMAND = Path(sys.executable).parent / "spark-build"
NAME = "resumed"
FOUND_WORK = 10

#: A unit counts as in flight so long after its launcher's end.
NOTED_S = 0.1

#: How soon after the kill nothing may be left.
GONE_S = 2.0


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of the command. `flight` is what it was in the middle of when it was killed."""

    command: str
    how: str
    wall_s: float
    started: frozenset[str]
    flight: frozenset[str] = frozenset()
    left: tuple[str, ...] = ()
    code: int = -9


@dataclass
class Side:
    """A wheelhouse, and what runs against it."""

    wheelhouse: Path
    env: dict[str, str]
    runs: list[Run] = field(default_factory=list)

    @property
    def wheel(self) -> Path:
        """The one wheel."""
        (found,) = self.wheelhouse.glob(f"wheels/{NAME}/*.whl")
        return found

    def words(self, command: str) -> list[str]:
        """Return the command line."""
        more = ["--compile-cache", "off"] if command == "recipe" else []
        name = [NAME] if command == "recipe" else []
        return [str(COMMAND), command, *name, "--wheelhouse", str(self.wheelhouse), "--progress", "plain", *more]

    def run(self, command: str, *, kill_after_s: float = 0, how: str = "") -> Run:
        """Run to the end, or until `kill_after_s` after the first compiler's start."""
        began = time.monotonic()
        with (self.wheelhouse.parent / f"{self.wheelhouse.name}.log").open("a") as log:
            child = subprocess.Popen(self.words(command), env=self.env, stdout=log, stderr=log)
            watch = Watch(f"SPARK_BUILD_GATE={self.env['SPARK_BUILD_GATE_DIR']}")
            killed = kill_after_s and killed_in_time(child, watch, kill_after_s, how)
            moment = time.monotonic()
            code = child.wait()
            left = tuple(watch.survivors(GONE_S)) if killed else ()
            watch.close()
        flight = [unit for unit in watch.started if killed and watch.seen[unit] > moment - NOTED_S]
        run = Run(
            command=command,
            how=how if killed else "to its end",
            wall_s=moment - began if killed else time.monotonic() - began,
            started=frozenset(watch.started),
            flight=frozenset(flight),
            left=left,
            code=code,
        )
        self.runs.append(run)
        return run


def killed_in_time(child: subprocess.Popen[bytes], watch: Watch, seconds: float, how: str) -> bool:
    """Kill when a compiler has been running for so long; false when the build ended before."""
    while not watch.started and child.poll() is None:
        time.sleep(0.005)
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        if how == "tree":
            kill_tree(child.pid)
        else:
            child.kill()
        return True
    return False


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=64)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--heft", type=int, default=14, help="kernels in a unit")
    parser.add_argument("--longest", type=float, default=4.5, metavar="S", help="a kill's latest moment in a run")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10_000))
    parser.add_argument("--keep", type=Path, metavar="DIR", help="work there, and leave it")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sb-resume-", dir="/tmp") as scratch:
        root = args.keep.resolve() if args.keep else Path(scratch)
        return 0 if compare(root, args) or not args.check else 1


def compare(root: Path, args: argparse.Namespace) -> bool:
    """Run both sides; true when everything holds."""
    cuda_project.write(
        root / "project", root / "config" / "spark-build" / "recipes", name=NAME, units=args.units, heft=args.heft
    )
    print(f"{args.units} units, {os.cpu_count()} cores, {args.kills} kills, seed {args.seed}, no compile cache")
    calm, killed = sides(root)
    whole = calm.run("recipe")
    print(f"undisturbed: rc {whole.code}, {len(whole.started)} compiled, {whole.wall_s:.1f} s", flush=True)
    good = disturb(killed, args) and whole.code == 0 and len(whole.started) == args.units
    if not good:
        return False
    one, other = (hashlib.sha256(side.wheel.read_bytes()).hexdigest() for side in (calm, killed))
    same = one == other and calm.wheel.name == killed.wheel.name
    print(f"wheels: {one[:16]} undisturbed, {other[:16]} killed: {'the same bytes' if same else 'DIFFER'}")
    print("holds" if same else "FAILS")
    return same


def sides(root: Path) -> tuple[Side, Side]:
    """Return two wheelhouses that have planned the same build at the same moment, so that the label is one."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "SPARK_BUILD_"))}
    env |= {"XDG_CONFIG_HOME": str(root / "config"), "SPARK_BUILD_SOURCES": str(root / "sources")}
    both = [
        Side(root / name, env | {"SPARK_BUILD_GATE_DIR": str(root / f"gate-{name}")}) for name in ("calm", "killed")
    ]
    for side in both:
        Path(side.env["SPARK_BUILD_GATE_DIR"]).mkdir()
    first, second = both
    planned = subprocess.run([*first.words("recipe"), "--plan"], env=env, stdout=subprocess.DEVNULL, check=False)
    if planned.returncode != FOUND_WORK:
        sys.exit(f"the plan ended with {planned.returncode}")
    shutil.copytree(first.wheelhouse, second.wheelhouse, symlinks=True)
    return first, second


@dataclass
class Account:
    """What was compiled so far, and what kills broke off that hasn't been compiled again yet."""

    compiled: set[str] = field(default_factory=set)
    owed: set[str] = field(default_factory=set)
    again: int = 0
    flights: int = 0
    started: int = 0

    def take(self, run: Run) -> tuple[frozenset[str], frozenset[str]]:
        """Take a run in; return what it compiled again, and what of that no kill had broken off."""
        repeated = run.started & self.compiled
        lost = repeated - self.owed
        self.compiled |= run.started
        self.owed = (self.owed - run.started) | run.flight
        self.again += len(repeated)
        self.flights += len(run.flight)
        self.started += len(run.started)
        return repeated, lost


def disturb(side: Side, args: argparse.Namespace) -> bool:
    """Kill and go on, again and again, then let it end; true when each kill cost no more than what was in flight."""
    dice = random.Random(args.seed)  # noqa: S311  # moments, not secrets
    account, good, began = Account(), True, time.monotonic()
    print("run  command   killed           s  started  again  in flight  lost  left")
    for number in range(1, args.kills + 1):
        command = "recipe" if number == 1 else dice.choice(["recipe", "resume"])
        how = "tree" if number % 2 else "spark-build"
        run = side.run(command, kill_after_s=dice.uniform(0.05, args.longest), how=how)
        good = show(number, run, account) and run.code == -9 and good  # noqa: PLR2004  # SIGKILL
    run = side.run("recipe")
    good = show(args.kills + 1, run, account) and run.code == 0 and good
    print(
        f"{account.flights} units in flight at {args.kills} kills, {account.again} compiled again, "
        f"{account.started} compiled in all, {time.monotonic() - began:.1f} s"
    )
    return good and len(account.compiled) == args.units


def show(number: int, run: Run, account: Account) -> bool:
    """Print a row; true when nothing was lost and nothing survived."""
    repeated, lost = account.take(run)
    counts = f"{len(run.started):>7}  {len(repeated):>5}  {len(run.flight):>9}  {len(lost):>4}  {len(run.left):>4}"
    print(f"{number:>3}  {run.command:<8}  {run.how:<12}  {run.wall_s:>4.1f}  {counts}", flush=True)
    for text in (*sorted(lost), *run.left):
        print(f"     {text}")
    return not lost and not run.left


if __name__ == "__main__":
    sys.exit(main())
