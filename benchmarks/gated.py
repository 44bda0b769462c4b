"""Run a command at the gate and say what came of it, as one JSON object on stdout.

``python benchmarks/gated.py --programs DIR --gate DIR --root DIR --history FILE [--memory MIB] ... -- COMMAND…``

It is what a build does: the broker is started on demand, the history is read before and written while units end. Ends with
the command's code, or 7 when the memory policy ended the build.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from builder.events import GateState, Note, UnitEnded, UnitRequeued
from builder.gate.session import Terms, opened

if TYPE_CHECKING:
    from builder.events import Event

MIB = 1 << 20


class Ledger:
    """Keeps what the figures need."""

    def __init__(self) -> None:
        self.kills = {"gate": 0, "kernel": 0}
        self.shares: list[tuple[float, int]] = []
        self.notes: list[str] = []
        self.units: list[dict[str, object]] = []

    def emit(self, event: Event) -> None:
        """Take `event`."""
        if isinstance(event, UnitRequeued):
            self.kills[event.by] += 1
        elif isinstance(event, GateState):
            self.shares.append((time.monotonic(), event.used_bytes))
        elif isinstance(event, Note):
            self.notes.append(event.text)
        elif isinstance(event, UnitEnded):
            self.units.append(
                {"name": event.name, "ok": event.ok, "peak": event.peak_bytes, "attempts": event.attempts}
            )


def main() -> int:
    """Run the command."""
    words = sys.argv[1:]
    cut = words.index("--")
    args, command = parse(words[:cut]), words[cut + 1 :]
    ledger = Ledger()
    options = ["--idle", "2", "--cores", str(args.cores)]
    for name in ("reserve", "meminfo", "pause", "tick_log", "cgroup_root"):
        value = getattr(args, name)
        options += [f"--{name.replace('_', '-')}", str(value)] if value is not None else []
    terms = Terms(
        recipe=args.recipe,
        recipe_folders=args.seeds,
        build=args.build,
        history=args.history,
        sink=ledger,
        clock=time.time,
        plain={"cxx": args.plain * MIB, "cu": args.plain * MIB, "c": args.plain * MIB},
        memory_bytes=args.memory * MIB,
        pause_ms=int((args.pause or 0) * 1000),
        env={"SPARK_BUILD_GATE_DIR": str(args.gate)},
        broker=args.programs / "spark-build-broker",
        options=tuple(options),
    )
    started = time.monotonic()
    with opened(terms) as session:
        env = {**os.environ, **session.env, "SPARK_BUILD_ROOT": str(args.root), "SPARK_BUILD_SLOTS": str(args.root)}
        done = subprocess.run(
            command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
    wall = time.monotonic() - started
    code = 7 if session.stopped else done.returncode
    told = {
        "code": code,
        "command_code": done.returncode,
        "started": started,
        "wall_s": wall,
        "own_kills": ledger.kills["gate"],
        "kernel_requeues": ledger.kills["kernel"],
        "units": ledger.units,
        "shares": ledger.shares,
        "gate": bool(session.folder),
        "notes": ledger.notes,
        "stopped": f"{session.stopped.summary}: {session.stopped.cause}" if session.stopped else "",
        "tail": done.stdout[-1500:],
    }
    json.dump(told, sys.stdout)
    return code


def parse(words: list[str]) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=Path, required=True, help="where spark-build-broker lies")
    parser.add_argument("--gate", type=Path, required=True, help="the runtime folder")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--history", type=Path, required=True)
    parser.add_argument("--recipe", default="fakes")
    parser.add_argument("--seeds", type=Path, action="append", default=[], help="a folder of recipes, with seeds")
    parser.add_argument("--build", default="torture-1")
    parser.add_argument("--memory", type=int, default=0, metavar="MIB")
    parser.add_argument("--plain", type=int, default=128, metavar="MIB", help="what an unknown unit is taken to need")
    parser.add_argument("--cores", type=int, default=20)
    parser.add_argument("--reserve", type=int, metavar="BYTES")
    parser.add_argument("--meminfo", type=Path)
    parser.add_argument("--pause", type=float, metavar="SECONDS")
    parser.add_argument("--tick-log", type=Path)
    parser.add_argument("--cgroup-root", type=Path, help="where the broker looks for control groups")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
