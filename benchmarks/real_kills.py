"""Real compilers in a control group that is too small for them, with wrong predictions: the gate against plain ``-j 6``.

``python benchmarks/real_kills.py [--programs DIR] [--check]``

Six g++ in 450 MiB that are taken to need 60 MiB each, six nvcc in 330 MiB that are taken to need 40. Three sides: a broker
that sees the control group, one that is shown an empty tree of them and takes the whole machine to be free, so that the
kernel kills and the launcher has to survive it, and no gate. Needs root.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from memory_group import limited

MIB = 1 << 20
HERE = Path(__file__).resolve().parent
COUNT = 6

CXX = """\
#include <algorithm>
#include <functional>
#include <iostream>
#include <map>
#include <random>
#include <regex>
#include <string>
template <int N> int f(const std::string &s)
{
    std::map<std::string, std::vector<std::function<int(int)>>> m;
    std::regex r("a+" + std::to_string(N));
    std::mt19937 g(N);
    std::vector<int> v(100);
    std::shuffle(v.begin(), v.end(), g);
    std::sort(v.begin(), v.end(), [](int a, int b) { return a % (N + 2) < b % (N + 2); });
    m[s].push_back([](int x) { return x + N; });
    return std::regex_match(s, r) + m[s][0](v[0]) + f<N - 1>(s);
}
template <> int f<0>(const std::string &) { return 0; }
int unit_NUMBER(const std::string &s) { return f<UNITS>(s); }
"""
CUDA = """\
template <int N> __global__ void k(float *p, int n)
{
    float a[N];
    for (int i = 0; i < N; i++)
        a[i] = p[(threadIdx.x * i + NUMBER) % n];
#pragma unroll
    for (int i = 0; i < N; i++)
        for (int j = 1; j < 8; j++)
            a[i] = fmaf(a[(i + j) % N], a[i], __sinf(a[(i * j) % N]));
    for (int i = 0; i < N; i++)
        p[i] += a[i];
}
template <int N> void go(float *p) { k<N><<<1, 32>>>(p, N); go<N - 4>(p); }
template <> void go<0>(float *) {}
void unit_NUMBER(float *p) { go<UNITS>(p); }
"""


@dataclass(frozen=True)
class Tool:
    """A compiler and the place that is too small for it."""

    name: str
    words: str
    suffix: str
    source: str
    limit_mib: int
    guess_mib: int


TOOLS = (
    Tool("g++", "g++ -O2 -c $in -o $out", "cc", CXX.replace("UNITS", "12"), 450, 60),
    Tool("nvcc", "nvcc -O3 -arch=sm_80 -c $in -o $out", "cu", CUDA.replace("UNITS", "48"), 330, 40),
)


def project(folder: Path, tool: Tool, launcher: Path | None) -> None:
    """Write the ninja project."""
    folder.mkdir()
    front = f"{launcher} " if launcher else ""
    lines = ["rule cc", f"  command = {front}{tool.words}", ""]
    for number in range(COUNT):
        (folder / f"u{number}.{tool.suffix}").write_text(tool.source.replace("NUMBER", str(number)))
        lines.append(f"build u{number}.o: cc u{number}.{tool.suffix}")
    (folder / "build.ninja").write_text("\n".join(lines) + "\n")


@dataclass(frozen=True)
class Outcome:
    """What one side did: the table's line, whether all came out, and the kernel's kills."""

    line: str
    well: bool
    kernel_kills: int


def side(folder: Path, tool: Tool, where: Path | None, *, blind: bool = False) -> Outcome:
    """Build six units at the gate of `where`, which doesn't see the control group when `blind`, or without a gate."""
    kind = ("blind" if blind else "gate") if where else "plain"
    tree = folder / f"{tool.name}-{kind}"
    project(tree, tool, where / "spark-build-launch" if where else None)
    command = ["ninja", "-k", "0", "-C", str(tree), "-j", str(COUNT)]
    if where:
        command = [
            sys.executable, str(HERE / "gated.py"), "--programs", str(where), "--gate", str(tree / "gate"),
            "--root", str(tree), "--history", str(tree / "history"), "--plain", str(tool.guess_mib),
            *(["--cgroup-root", str(nothing(folder))] if blind else []),
            "--build", f"{tree.name}-1", "--", *command,
        ]  # fmt: skip
    with limited("spark-build-kills", tool.limit_mib * MIB) as group:
        done = subprocess.run(
            group.inside(command), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False
        )
        kills, peak = group.kernel_kills(), group.peak_bytes() / MIB
    told = json.loads(done.stdout) if where and done.stdout else {}
    units = [unit["peak"] / MIB for unit in told.get("units", ()) if unit["ok"]]
    each = f"{max(units):.0f}" if units else ""
    objects = len(list(tree.glob("*.o")))
    shown = {"gate": "gate", "blind": "gate that doesn't see the group", "plain": f"-j{COUNT}"}[kind]
    name = f"{tool.name} in {tool.limit_mib} MiB, {shown}"
    own = told.get("own_kills", "")
    line = f"| {name} | {done.returncode} | {objects}/{COUNT} | {kills} | {own} | {each} | {peak:.0f} |"
    return Outcome(line, done.returncode == 0 and objects == COUNT, kills)


def nothing(folder: Path) -> Path:
    """Return an empty tree of control groups."""
    empty = folder / "no-groups"
    empty.mkdir(exist_ok=True)
    return empty


def compare(folder: Path, tool: Tool, programs: Path) -> list[str]:
    """Print the lines of all sides of a compiler; return which goals were missed."""
    wrong = []
    for where, blind in ((programs, False), (programs, True), (None, False)):
        outcome = side(folder, tool, where, blind=blind)
        print(outcome.line, flush=True)
        if outcome.well != (where is not None):
            wrong.append(f"{outcome.line}: was to {'finish' if where else 'fail'}")
        if blind and not outcome.kernel_kills:
            wrong.append(f"{outcome.line}: the kernel was to kill")
    return wrong


def main() -> int:
    """Run all sides."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=Path, default=Path(sys.prefix) / "bin")
    parser.add_argument("--check", action="store_true", help="exit 1 when a goal is missed")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kills-"))
    wrong: list[str] = []
    try:
        with limited("spark-build-probe", 64 * MIB) as group:
            print(group.kind)
        print("| side | rc | objects | kernel kills | own kills | largest unit MiB | peak MiB |")
        print("|---|---|---|---|---|---|---|")
        for tool in TOOLS:
            if shutil.which(tool.name) is None:
                print(f"| {tool.name} is not here | | | | | | |")
                continue
            wrong += compare(folder, tool, args.programs)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for text in wrong:
        print(f"missed: {text}")
    return 1 if args.check and wrong else 0


if __name__ == "__main__":
    sys.exit(main())
