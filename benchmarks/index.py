"""The index server beside its peers: one run over the same wheels, CPU a request next to wall.

    python benchmarks/index.py [--check] [--files 2001|20000|both] [--only NAME] [--quick] [--keep DIR]

Runs with the `spark-build` beside this Python. It makes a virtual environment with the newest of each peer (by the package
index that is configured), wheels, and a wheelhouse by a real publish, all in a folder of its own that is gone afterwards.
Needs wrk; nginx serves our export where it is installed. A peer that can't be had is a row that says why.

The wheels: 2,001 files (200 projects with 10 versions, and one of 400 MB), 20,001 (2,000 projects and that one). The servers
run side by side and are asked in turns, so that a drift of the machine meets all of them. wrk: one thread, 8 connections,
uv's headers; medians of the rounds. Memory: right after the start, after every page was asked for in both forms, at most
after all load with 8 downloads of 400 MB at once. A new wheel: published by another process, then how long until the page
names it. uv: `uv pip compile` of a graph of 100 packages, cold cache.

Limits that ``--check`` holds for ours: a project page at most 40 microseconds of CPU, `.metadata` likewise; their p99 at 8
clients no worse than pypiron's; at most 0.25 CPU seconds a GB of the big wheel; at most 60 MB resident at 2,001 files and
120 MB at 20,001, not growing under load; up within 0.5 s; a new wheel within 50 ms; uv at most 1.5 times as long as with
nginx on our export, and ahead of pypiron.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from index_measure import Figures, big, crawl, fresh, load, resolve, targets
from index_peers import SERVERS, Place, first
from index_process import Absent, Running
from index_tables import checked, table
from index_wheels import make, published

if TYPE_CHECKING:
    from index_process import Server

ASKED = ("page", "root", "metadata", "wheel")
SIZES = {"2001": 200, "20000": 2000}
#: How often each thing is done: rounds of wrk, seconds of one, runs of uv, starts, new wheels.
FULL, QUICK = (9, 2, 20, 5, 5), (1, 1, 3, 2, 2)
SLOW_S = 2.0


@dataclass(slots=True, kw_only=True)
class Side:
    """A server, what was measured of it, or why nothing was."""

    name: str
    place: Place
    server: Server | None = None
    why: str = ""
    figures: Figures = field(default_factory=Figures)


def prepared(root: Path, files: str, names: list[str], env: dict[str, str]) -> list[Side]:
    """Make wheels and wheelhouse and let each server have them in its form."""
    here = root / files
    print(f"making {files} wheels and publishing them …", file=sys.stderr)
    made = make(here / "wheels", SIZES[files])
    if not (here / "published").exists():
        shutil.rmtree(here / "house", ignore_errors=True)
        published(here / "house", made.files)
        (here / "published").touch()
    sides = []
    for name in names:
        print(f"preparing {name} …", file=sys.stderr)
        work = here / name
        work.mkdir(parents=True, exist_ok=True)
        place = Place(peers=root / "peers", work=work, made=made, house=here / "house", env=env)
        side = Side(name=name, place=place)
        try:
            side.server = SERVERS[name](place)
        except Absent as absent:
            side.why = str(absent)
        sides.append(side)
    return sides


def started(side: Side, times: int) -> Running | None:
    """Start a server several times, one that is slow only once; the last one stays."""
    running = None
    if side.server is not None:
        for _again in range(times):
            if running is not None and side.figures.starts[0] > SLOW_S:
                break
            if running is not None:
                running.stop()
            running = Running(side.server, side.place.work / "log")
            side.figures.starts.append(running.wait_for(*first()))
            side.figures.start_cpu.append(running.cpu_s())
        assert running is not None  # noqa: S101  # it was started
        side.figures.rss["start"] = running.rss_mb()
    return running


def measured(sides: list[Side], counts: tuple[int, int, int, int, int]) -> None:
    """Measure all that run, in turns."""
    rounds, seconds, runs, starts, wheels = counts
    with ExitStack() as stack:
        there = []
        for side in sides:
            print(f"starting {side.name} …", file=sys.stderr)
            try:
                running = started(side, starts)
            except Absent as absent:
                side.server, side.why = None, str(absent)
                continue
            if running is not None:
                stack.callback(running.stop)
                there.append((side, running))
        loaded(there, rounds, seconds)
        for number in range(runs):
            print(f"uv, run {number + 1} of {runs} …", file=sys.stderr)
            for side, running in turned(there, number):
                resolve(running, side.place, side.figures)
        for side, running in there:
            shown = (fresh(running, side.place.work / "new") for _number in range(wheels))
            side.figures.shown = [one for one in shown if one is not None]


def loaded(there: list[tuple[Side, Running]], rounds: int, seconds: int) -> None:
    """Ask for every page once, then for one of each kind under load, and for the big wheel; weigh the memory."""
    urls = {side.name: targets(running) for side, running in there}
    for side, running in there:
        crawl(running, side.place.made.projects)
        side.figures.rss["pages"] = running.rss_mb()
    for number in range(rounds):
        print(f"load, round {number + 1} of {rounds} …", file=sys.stderr)
        for what in ASKED:
            for side, running in turned(there, number):
                if what in urls[side.name]:
                    one = load(running, what, urls[side.name][what], seconds)
                    side.figures.loads.setdefault(what, []).append(one)
        for side, running in there:
            big(running, urls[side.name]["big"], side.figures, times=2)
    for side, running in there:
        big(running, urls[side.name]["big"], Figures(), clients=8)
        side.figures.rss["load"] = running.rss_mb()
        side.figures.rss["peak"] = running.rss_mb(peak=True)


def turned(there: list[tuple[Side, Running]], number: int) -> list[tuple[Side, Running]]:
    """Return the sides with another one first in each round: who comes after whom mustn't count."""
    at = number % max(len(there), 1)
    return there[at:] + there[:at]


def environment(root: Path) -> dict[str, str]:
    """Return the environment of a user with nothing configured."""
    home = root / "home"
    home.mkdir(parents=True, exist_ok=True)
    kept = {key: value for key, value in os.environ.items() if key in {"PATH", "LANG"}}
    return {**kept, "HOME": str(home)}


def main() -> int:
    """Measure, print, and with ``--check`` judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", choices=[*SIZES, "both"], default="both")
    parser.add_argument("--only", action="append", choices=list(SERVERS), help="only this server; may be repeated")
    parser.add_argument("--quick", action="store_true", help="few and short rounds")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="work here and keep it")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_signal: sys.exit(143))  # servers are stopped on the way out
    root = (args.keep or Path(tempfile.mkdtemp(prefix="index-"))).resolve()
    root.mkdir(parents=True, exist_ok=True)
    ok = True
    try:
        for files in SIZES if args.files == "both" else [args.files]:
            sides = prepared(root, files, args.only or list(SERVERS), environment(root))
            measured(sides, QUICK if args.quick else FULL)
            print(table(files, sides))
            for judged in checked(files, sides):
                print(judged.line)
                ok &= judged.ok
    finally:
        if not args.keep:
            shutil.rmtree(root, ignore_errors=True)
    return 1 if args.check and not ok else 0


if __name__ == "__main__":
    sys.exit(main())
