"""What deciding costs: CPU seconds with all children, medians, side by side with a peer on the same project.

    python benchmarks/hit.py --peer PATH/TO/fromager [--check] [--runs 10] [--keep DIR]

Runs with the `spark-build` beside this Python; both tools should be installed from wheels, each into a venv of its own.
FlashInfer is built once with each of them, which needs the network and a CUDA toolkit; all that is measured runs without.
The peer decides by ``build-sequence`` over a build order of this one project, with its wheel in its own repository: its
shortest way, since ``bootstrap`` would resolve versions first.

Limits that ``--check`` holds: a hit at most 0.25 s CPU and at least 8 times cheaper than the peer; ``--help`` at most 1.5
times ``python -c "import argparse"``; planning 200 recipes over 2,000 catalogue entries at most 0.5 s; and each of one
byte in a patch, a replaced nvcc and another torch in the lock is a miss that names it, within the hit's budget.
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
import tarfile
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

BIN = Path(sys.executable).parent
COMMAND = BIN / "spark-build"
HIT_S, PEER_RATIO, HELP_RATIO, PLAN_S = 0.25, 8.0, 1.5, 0.5
FOUND_WORK = 10
RECIPES = [f"made{number:03}" for number in range(200)]
TORCH = ("--set", 'build.torch="pinned"', "--set", 'build.requires-add=["torch"]', "--torch")
BUILT_TORCH, OTHER_TORCH = "2.13.0", "2.14.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table."""

    what: str
    cpu_s: float
    limit: str = ""
    ok: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Where everything happens, and how often."""

    root: Path
    env: dict[str, str]
    runs: int

    def cpu(self, argv: list[str], *, code: int = 0, env: dict[str, str] | None = None) -> tuple[float, str]:
        """Run `argv`; return user + system seconds of it and all its children, and stdout. Another code ends the run."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(argv, env=env or self.env, cwd=self.root, capture_output=True, text=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode != code:
            sys.exit(f"{' '.join(argv)}: {done.returncode}, wanted {code}\n{done.stdout}\n{done.stderr}")
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout

    def interleaved(self, sides: dict[str, list[str]]) -> dict[str, float]:
        """Return the median of each side; the sides take turns, so a drift of the machine meets all of them."""
        samples: dict[str, list[float]] = {name: [] for name in sides}
        for _run in range(self.runs + 1):
            for name, argv in sides.items():
                samples[name].append(self.cpu(argv)[0])
        return {name: statistics.median(values[1:]) for name, values in samples.items()}

    def missed(
        self,
        what: str,
        argv: list[str],
        named: str,
        change: Callable[[int], None] = lambda _run: None,
        env: dict[str, str] | None = None,
    ) -> Row:
        """Measure a plan that has to be a miss because of `named`; `change` makes another one before each run."""
        seconds = []
        for run in range(1, self.runs + 2):
            change(run)
            took, out = self.cpu(no_network([*argv, "--json"]), code=FOUND_WORK, env=env)
            paths = [one["path"] for one in json.loads(out)["plans"][0]["changes"]]
            if not any(path.startswith(named) for path in paths):
                sys.exit(f"{what}: {paths}, and nothing about {named}")
            seconds.append(took)
        median = statistics.median(seconds[1:])
        return Row(what=f"miss: {what}", cpu_s=median, limit=f"<= {HIT_S} s", ok=median <= HIT_S)


def no_network(argv: list[str]) -> list[str]:
    """Return `argv` in an empty network namespace: a decision must not need one."""
    return ["unshare", "--user", "--map-root-user", "--net", *argv] if os.geteuid() else ["unshare", "--net", *argv]


def prepare(root: Path) -> dict[str, str]:
    """Return the environment of a user with a home and a toolkit of their own."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "SPARK_BUILD_"))}
    env |= {
        "HOME": str(root / "home"),
        "SPARK_BUILD_WHEELHOUSE": str(root / "wheelhouse"),
        "SPARK_BUILD_SOURCES": str(root / "cache" / "sources"),
        "CUDA_HOME": str(root / "cuda"),
    }
    (root / "home").mkdir(parents=True, exist_ok=True)
    shutil.rmtree(root / "home" / ".config", ignore_errors=True)  # what a run that was stopped left
    toolkit = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")).resolve()
    if not (root / "cuda").exists():  # a toolkit of our own, since one of its files is replaced below
        shutil.copytree(toolkit, root / "cuda", symlinks=True)
    return env


def peer_side(bench: Bench, peer: Path) -> list[str]:
    """Return the command with which fromager decides on its own wheel; that is built first where it isn't there."""
    work = bench.root / "peer"
    order = work / "build-order.json"
    env = bench.env | {"PATH": f"{peer.parent}:{bench.env['PATH']}"}  # it starts the uv beside it
    argv = ["env", f"PATH={env['PATH']}", str(peer), f"--output-dir={work}", f"--settings-dir={work / 'settings'}"]
    if order.exists():
        return [*argv, "build-sequence", str(order)]
    print("building FlashInfer once with the peer …", file=sys.stderr)
    for folder in ("settings", "sdists-repo/downloads", "wheels-repo/prebuilt"):
        (work / folder).mkdir(parents=True, exist_ok=True)
    out = bench.cpu([str(COMMAND), "plan", "flashinfer", "--json"])[1]
    pinned = json.loads(out)["plans"][0]["source"]
    sdist = next((bench.root / "cache" / "sources" / "files").glob("*/flashinfer_python-*.tar.gz"))
    shutil.copy(sdist, work / "sdists-repo" / "downloads")
    with tarfile.open(sdist) as archive:
        top = sdist.name.removesuffix(".tar.gz")
        member = archive.extractfile(f"{top}/pyproject.toml")
        assert member is not None  # noqa: S101  # the sdist has one
        needs = tomllib.load(member)["build-system"]["requires"]
    uv, python = str(peer.parent / "uv"), str(peer.parent / "python")
    fetch = [uv, "tool", "run", "--python", python, "pip", "download", "--only-binary", ":all:"]
    bench.cpu([*fetch, "--dest", str(work / "wheels-repo" / "prebuilt"), *needs], env=env)
    (work / "settings" / "flashinfer_python.yaml").write_text(
        'env:\n  FLASHINFER_BUILD_NO_PIP: "1"\n  BUILD_NVEP: "0"\n'
    )
    entry = {
        "type": "toplevel",
        "req": "flashinfer-python",
        "dist": "flashinfer-python",
        "version": pinned["version"],
        "prebuilt": False,
        "source_url": pinned["url"],
        "source_url_type": "sdist",
        "constraint": "",
    }
    draft = work / "draft.json"
    draft.write_text(json.dumps([entry]))
    bench.cpu([*argv, "build-sequence", str(draft)])
    draft.rename(order)
    return [*argv, "build-sequence", str(order)]


def compared(bench: Bench, peer: Path | None) -> list[Row]:
    """Measure hit, peer and start-up in turns."""
    sides = {
        "hit": no_network([str(COMMAND), "recipe", "flashinfer"]),
        "help": [str(COMMAND), "--help"],
        "argparse": [sys.executable, "-c", "import argparse"],
    }
    if peer:
        sides["peer"] = peer_side(bench, peer)
    medians = bench.interleaved(sides)
    hit = medians["hit"]
    rows = [Row(what="hit: recipe flashinfer, no network", cpu_s=hit, limit=f"<= {HIT_S} s", ok=hit <= HIT_S)]
    if peer:
        times = medians["peer"] / hit
        what = f"peer on its built wheel: {times:.1f} times the hit"
        rows.append(Row(what=what, cpu_s=medians["peer"], limit=f">= {PEER_RATIO} times", ok=times >= PEER_RATIO))
    times = medians["help"] / medians["argparse"]
    rows.append(Row(what="python -c 'import argparse'", cpu_s=medians["argparse"]))
    what = f"spark-build --help: {times:.2f} times that"
    rows.append(Row(what=what, cpu_s=medians["help"], limit=f"<= {HELP_RATIO} times", ok=times <= HELP_RATIO))
    return rows


def catalogue(bench: Bench) -> dict[str, str]:
    """Return the environment in which 200 recipes and 2,000 wheels are at hand; made where they aren't."""
    root = bench.root / "plan"
    env = bench.env | {
        "HOME": str(root / "home"),
        "SPARK_BUILD_WHEELHOUSE": str(root / "wheelhouse"),
        "SPARK_BUILD_SOURCES": str(root / "cache" / "sources"),
    }
    plans = [[str(COMMAND), "plan", *RECIPES], [str(COMMAND), "plan", RECIPES[0], *TORCH, BUILT_TORCH]]
    if not (root / "made").exists() or any(
        subprocess.run(plan, env=env, capture_output=True, check=False).returncode for plan in plans
    ):
        shutil.rmtree(root, ignore_errors=True)  # another version of the program may plan otherwise
        print("making 200 recipes and 2,000 catalogue entries …", file=sys.stderr)
        script = Path(__file__).with_name("fill_catalogue.py")
        folders = [env["HOME"], env["SPARK_BUILD_WHEELHOUSE"], env["SPARK_BUILD_SOURCES"]]
        bench.cpu([sys.executable, str(script), *folders, "--torch", BUILT_TORCH], env=env)
        (root / "made").touch()
    for plan in plans:
        bench.cpu(plan, env=env)
    return env


def planning(bench: Bench, env: dict[str, str]) -> list[Row]:
    """Plan all recipes: as they are, changed, and changed in a way that was never planned before."""
    rows = []
    for what, words, code in (
        ("hits", [], 0),
        ("misses, each with its reason", ["--env", "BUILD=again"], FOUND_WORK),
        ("misses, planned for the first time", ["--env", "BUILD=first-{}"], FOUND_WORK),
    ):
        seconds = []
        for run in range(bench.runs + 1):
            fresh = [word.format(f"{os.getpid()}-{run}") for word in words]
            argv = [str(COMMAND), "plan", *RECIPES, *fresh]
            seconds.append(bench.cpu(no_network(argv), code=code, env=env)[0])
        median = statistics.median(seconds[1:])
        limit = f"<= {PLAN_S} s" if "first" not in what else ""
        rows.append(Row(what=f"plan 200 recipes: {what}", cpu_s=median, limit=limit, ok=not limit or median <= PLAN_S))
    return rows


def misses(bench: Bench, planned: dict[str, str]) -> list[Row]:
    """Change one input at a time, see a miss that names it, and put it back."""
    plan = [str(COMMAND), "plan", "flashinfer", "--offline"]
    overlay = bench.root / "home" / ".config" / "spark-build" / "recipes"
    patches = overlay / "patches" / "flashinfer"
    patches.mkdir(parents=True, exist_ok=True)

    def patch(run: int) -> None:
        """Write a patch that differs from the last one by a byte."""
        text = f"--- /dev/null\n+++ b/SPARK\n@@ -0,0 +1 @@\n+{chr(ord('a') + run % 26)}\n".encode()
        (patches / "one.patch").write_bytes(text)
        digest = hashlib.sha256(text).hexdigest()
        (overlay / "flashinfer.toml").write_text(
            f'schema = 1\nname = "flashinfer"\n\n[[patch]]\nid = "one"\nfile = "one.patch"\nsha256 = "{digest}"\n'
        )

    nvcc = bench.root / "cuda" / "bin" / "nvcc"
    kept, times = nvcc.read_bytes(), nvcc.stat()

    def replace(run: int) -> None:
        """Write nvcc with another last byte: same size, same time."""
        nvcc.write_bytes(kept[:-1] + bytes([kept[-1] ^ run]))
        os.utime(nvcc, ns=(times.st_atime_ns, times.st_mtime_ns))

    print("building FlashInfer once with a patch …", file=sys.stderr)
    patch(0)
    bench.cpu([str(COMMAND), "recipe", "flashinfer"])
    rows = [bench.missed("one byte of a patch", plan, "patches[one].sha256", patch)]
    (overlay / "flashinfer.toml").unlink()
    bench.cpu(no_network(plan))  # all as it was: a hit again
    try:
        rows.append(bench.missed("nvcc replaced (same size, same mtime)", plan, "host.cuda.digest", replace))
    finally:
        replace(0)
    bench.cpu(no_network(plan))
    torch = [str(COMMAND), "plan", RECIPES[0], *TORCH]
    bench.cpu([*torch, OTHER_TORCH], code=FOUND_WORK, env=planned)  # resolves it once, by the network
    what = f"torch {OTHER_TORCH} in the lock, {BUILT_TORCH} was built"
    rows.append(bench.missed(what, [*torch, OTHER_TORCH, "--offline"], f"requires.{RECIPES[0]}[torch]", env=planned))
    return rows


def main() -> int:
    """Measure, print, and with ``--check`` judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="a fromager executable")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--keep", type=Path, help="work here and keep it")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    root = (args.keep or Path(tempfile.mkdtemp(prefix="hit-"))).resolve()
    bench = Bench(root=root, env=prepare(root), runs=args.runs)
    print("building FlashInfer once …", file=sys.stderr)
    bench.cpu([str(COMMAND), "recipe", "flashinfer"])
    rows = compared(bench, args.peer.absolute() if args.peer else None)
    planned = catalogue(bench)
    rows += planning(bench, planned)
    rows += misses(bench, planned)
    print(f"medians of {args.runs}, CPU seconds with children")
    for row in rows:
        print(f"{'ok' if row.ok else 'NO':2} {row.cpu_s:7.3f} s  {row.what:56} {row.limit}")
    if not args.keep:
        shutil.rmtree(root)
    return 1 if args.check and not all(row.ok for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
