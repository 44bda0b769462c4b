"""Somebody else takes memory while a build runs, and two builds share it: with a control group, and by MemAvailable alone.

``python benchmarks/pressure.py [--programs DIR] [--check]``

The workload is that of ``torture.py``. In the first half a control group holds everything. In the second there is none, as
memory of a GB10's GPU is charged to none: the broker reads a file in the format of /proc/meminfo that a thread writes every
10 ms, 1,600 MiB less what the compilers and the other process really hold. Needs root.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fakes
from memory_group import limited, swap

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memory_group import Group

MIB = 1 << 20
HERE = Path(__file__).resolve().parent
TICK_S = 0.01
PAGE = os.sysconf("SC_PAGESIZE")
#: The reserve that a control group of this size gets, and the simulated machine is given.
RESERVE_MIB = 64
SHARE = 1.2
#: How a build ends that the memory policy stopped.
OUT_OF_MEMORY = 7
#: No build here takes so long.
PATIENCE_S = 150.0

HOG = """
import sys, time
size, ramp, hold = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
open("/proc/self/oom_score_adj", "w").write("-900")
held = []
for _ in range(size // 8):
    held.append(bytearray(b"x") * (8 << 20))
    time.sleep(ramp * 8 / size)
time.sleep(hold)
"""


class Machine:
    """A place with a fixed amount of memory: a real control group, or a simulated machine."""

    def __init__(self, group: Group | None, meminfo: Path | None, compiler: Path) -> None:
        self.group = group
        self.meminfo = meminfo
        self.least = fakes.LIMIT_MIB * MIB
        self._compiler = compiler
        self._hogs: list[int] = []
        self._over = threading.Event()

    @property
    def kind(self) -> str:
        """What tables say of it."""
        return self.group.kind if self.group else f"MemAvailable alone (simulated total), {swap()}"

    def inside(self, words: list[str]) -> list[str]:
        """Return a command that runs in it."""
        return self.group.inside(words) if self.group else words

    def options(self) -> list[str]:
        """Return what `gated.py` has to be told."""
        return ["--meminfo", str(self.meminfo), "--reserve", str(RESERVE_MIB * MIB)] if self.meminfo else []

    def harm(self) -> int:
        """Return the kernel's kills; of a simulated machine, 1 when it would have run out."""
        return self.group.kernel_kills() if self.group else int(self.least <= 0)

    def peak_mib(self) -> float:
        """Return the most that was taken."""
        return self.group.peak_bytes() / MIB if self.group else fakes.LIMIT_MIB - self.least / MIB

    def hog(self, mib: int, ramp_s: float, hold_s: float) -> subprocess.Popen[bytes]:
        """Start somebody who takes memory in it."""
        words = [sys.executable, "-c", HOG, str(mib), str(ramp_s), str(hold_s)]
        child = subprocess.Popen(self.inside(words))
        self._hogs.append(child.pid)
        return child

    def watch(self) -> None:
        """Write the meminfo file until `stop`."""
        while self.meminfo is not None and not self._over.wait(TICK_S):
            left = fakes.LIMIT_MIB * MIB - sum(self._held())
            self.least = min(self.least, left)
            fresh = self.meminfo.with_suffix(".new")
            fresh.write_text(f"MemTotal: {fakes.LIMIT_MIB << 10} kB\nMemAvailable: {max(left, 0) >> 10} kB\n")
            fresh.rename(self.meminfo)

    def stop(self) -> None:
        """End `watch`."""
        self._over.set()

    def _held(self) -> Iterator[int]:
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, ValueError, IndexError):
                ours = int(folder.name) in self._hogs or (folder / "exe").readlink() == self._compiler
                if ours:
                    yield int((folder / "statm").read_text().split()[1]) * PAGE


@contextlib.contextmanager
def machine(compiler: Path, folder: Path, *, grouped: bool) -> Iterator[Machine]:
    """Give a machine of 1,600 MiB."""
    if grouped:
        with limited("spark-build-pressure", fakes.LIMIT_MIB * MIB) as group:
            yield Machine(group, None, compiler)
        return
    file = folder / f"meminfo-{time.monotonic_ns()}"
    file.write_text(f"MemTotal: {fakes.LIMIT_MIB << 10} kB\nMemAvailable: {fakes.LIMIT_MIB << 10} kB\n")
    made = Machine(None, file, compiler)
    thread = threading.Thread(target=made.watch)
    thread.start()
    try:
        yield made
    finally:
        made.stop()
        thread.join()


@dataclass(frozen=True)
class Setting:
    """What all scenarios share."""

    folder: Path
    compiler: Path
    programs: Path
    grouped: bool

    def start(
        self, place: Machine, tree: Path, gate: Path, *options: str, front: tuple[str, ...] = ()
    ) -> subprocess.Popen[str]:
        """Start a build of `tree`, written before."""
        words = [
            *front, sys.executable, str(HERE / "gated.py"), "--programs", str(self.programs), "--gate", str(gate),
            "--root", str(tree), "--history", str(tree / "history"), "--cores", str(fakes.SLOTS), *place.options(),
            "--build", f"{tree.name}-1", *options, "--", "ninja", "-C", str(tree), "-j", "200",
        ]  # fmt: skip
        return subprocess.Popen(place.inside(words), stdout=subprocess.PIPE, text=True)

    def tree(self, name: str, these: tuple[fakes.Fake, ...]) -> Path:
        """Return a new project."""
        tree = self.folder / f"{name}-{'group' if self.grouped else 'meminfo'}"
        fakes.project(tree, self.compiler, self.programs / "spark-build-launch", these, prefix=f"{name}_")
        return tree


def ended(build: subprocess.Popen[str]) -> dict[str, Any]:
    """Return the report of a build that was started; one that doesn't end is ended, and has code None."""
    try:
        text = build.communicate(timeout=PATIENCE_S)[0]
    except subprocess.TimeoutExpired:
        build.kill()
        build.communicate()
        return {
            "code": None,
            "wall_s": PATIENCE_S,
            "own_kills": "?",
            "shares": [],
            "started": 0.0,
            "stopped": "never ended",
        }
    return (
        dict(json.loads(text))
        if text.strip()
        else {"code": build.returncode, "wall_s": 0, "own_kills": 0, "shares": []}
    )


def show(name: str, told: dict[str, Any], built: int, place: Machine, note: str = "") -> None:
    """Print a line of the table."""
    cells = (
        name,
        told["code"],
        f"{told['wall_s']:.1f}",
        built,
        place.harm(),
        told["own_kills"],
        f"{place.peak_mib():.0f}",
    )
    print(f"| {' | '.join(map(str, cells))} | {note} |", flush=True)


def for_a_while(setting: Setting) -> list[str]:
    """Half of the budget is taken for 10 s in the middle."""
    tree = setting.tree("while", fakes.units())
    with machine(setting.compiler, setting.folder, grouped=setting.grouped) as place:
        build = setting.start(place, tree, tree / "gate")
        time.sleep(5)
        hog = place.hog(fakes.BUDGET_MIB // 2, 1.0, 10.0)
        told = ended(build)
        hog.kill()
        hog.wait()
        show("half taken for 10 s", told, fakes.built(tree), place)
        well = told["code"] == 0 and fakes.built(tree) == fakes.COUNT and place.harm() == 0
    return [] if well else [f"half taken for 10 s: {told['code']}, {told.get('tail', '')}"]


def for_good(setting: Setting) -> list[str]:
    """All is taken and not given back; then the same command again."""
    tree = setting.tree("good", fakes.units())
    with machine(setting.compiler, setting.folder, grouped=setting.grouped) as place:
        build = setting.start(place, tree, tree / "gate", "--pause", "4")
        time.sleep(5)
        hog = place.hog(fakes.LIMIT_MIB - RESERVE_MIB - 40, 10.0, 600.0)
        told = ended(build)
        kept = {file.name: file.stat().st_mtime_ns for file in (tree / "obj").glob("*.o")}
        show("taken for good", told, len(kept), place, told.get("stopped", "")[:90])
        hog.kill()
        hog.wait()
    with machine(setting.compiler, setting.folder, grouped=setting.grouped) as place:
        again = ended(setting.start(place, tree, tree / "gate2"))
        same = sum((tree / "obj" / name).stat().st_mtime_ns == when for name, when in kept.items())
        show("the same again", again, fakes.built(tree), place, f"{same} of {len(kept)} objects kept")
    well = (
        told["code"] == OUT_OF_MEMORY and again["code"] == 0 and same == len(kept) and fakes.built(tree) == fakes.COUNT
    )
    return [] if well else [f"taken for good: {told['code']}, then {again['code']}: {again.get('tail', '')}"]


def two(setting: Setting) -> list[str]:
    """Two builds share; the second has process numbers and mounts of its own, and doesn't see the first one's tree."""
    first, second = (setting.tree(name, fakes.units()) for name in ("one", "two"))
    gate = setting.folder / f"gate-{setting.grouped}"
    gate.mkdir(mode=0o1777)
    script = 'mount --make-rprivate / && mount -t tmpfs none "$0" && mount -t proc proc /proc && exec "$@"'
    front = ("unshare", "--pid", "--fork", "--mount", "/bin/sh", "-c", script, str(first))
    with machine(setting.compiler, setting.folder, grouped=setting.grouped) as place:
        one = setting.start(place, first, gate)
        other = setting.start(place, second, gate, front=front)
        reports = [ended(one), ended(other)]
        until = min(told["started"] + told["wall_s"] for told in reports if told["wall_s"]) if reports else 0.0
        shares = [held(told["shares"], until) for told in reports]
        ratio = max(shares) / min(shares) if min(shares) else float("inf")
        for name, told, tree, share in zip(
            ("one of two", "in namespaces"), reports, (first, second), shares, strict=True
        ):
            show(name, told, fakes.built(tree), place, f"{share:.1f} GiB s while both ran")
    well = all(told["code"] == 0 for told in reports) and ratio <= SHARE
    return [] if well else [f"two builds: {[told['code'] for told in reports]}, shares {ratio:.2f}"]


def held(shares: list[list[float]], until: float) -> float:
    """Return GiB-seconds of a build up to a moment."""
    return sum(used * (min(then, until) - at) for (at, used), (then, _) in itertools.pairwise(shares) if at < until) / (
        1 << 30
    )


SCENARIOS = (for_a_while, for_good, two)


def main() -> int:
    """Run all scenarios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=Path, default=Path(sys.prefix) / "bin")
    parser.add_argument("--only", choices=[one.__name__ for one in SCENARIOS], action="append", default=[])
    parser.add_argument("--check", action="store_true", help="exit 1 when a goal is missed")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="pressure-"))
    wrong: list[str] = []
    try:
        compiler = fakes.compiler(folder)
        for grouped in (True, False):
            with machine(compiler, folder, grouped=grouped) as place:
                print(f"\n{place.kind}; {fakes.LIMIT_MIB} MiB, {fakes.SLOTS} slots, no history\n")
            print("| scenario | rc | wall s | built | kernel kills (or ran out) | own kills | peak MiB | |")
            print("|---|---|---|---|---|---|---|---|")
            setting = Setting(folder, compiler, args.programs, grouped)
            for scenario in SCENARIOS:
                wrong += scenario(setting) if not args.only or scenario.__name__ in args.only else []
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for text in wrong:
        print(f"missed: {text}")
    return 1 if args.check and wrong else 0


if __name__ == "__main__":
    sys.exit(main())
