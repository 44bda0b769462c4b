"""The gate's pure half as a program: built once a session, driven by lines."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pytest

ROOT = Path(__file__).parent.parent


def cmake() -> list[str]:
    """Return the command of the CMake that the tests bring along: the machine's own may be too old."""
    return [str(Path(sys.prefix) / "bin/cmake")]


def built(factory: pytest.TempPathFactory, *, sanitize: bool = False) -> Path:
    """Return the simulator, built once for all workers of this session."""
    base = factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    return build(shared / ("gate-sanitized" if sanitize else "gate-plain"), sanitize=sanitize)


def build(folder: Path, *, sanitize: bool = False) -> Path:
    """Return the simulator, built in `folder` by whoever comes first."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        program = folder / "launcher/spark-build-simulate"
        if not program.exists():
            options = [
                "-G",
                "Ninja",
                "-DCMAKE_BUILD_TYPE=Release",
                f"-DSPARK_BUILD_SANITIZE={'ON' if sanitize else 'OFF'}",
            ]
            _run([*cmake(), "-S", str(ROOT), "-B", str(folder), *options])
            _run([*cmake(), "--build", str(folder), "--target", "spark-build-simulate"])
        return program


def _run(argv: Sequence[str]) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def play(program: Path, events: Iterable[str]) -> list[str]:
    """Return the decisions that follow from `events` (launcher/broker/trace.hpp), a line each."""
    done = subprocess.run([program, "--trace"], input="\n".join(events), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-500:] + done.stderr
    return done.stdout.splitlines()


class Player:
    """A policy that is asked line by line, for tests whose next event depends on the last decision."""

    def __init__(self, program: Path) -> None:
        self.process = subprocess.Popen([program, "--trace"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.log: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()
        assert self.process.returncode == 0

    def tell(self, *lines: str) -> list[str]:
        """Return what the policy decides after `lines`; a call of `next` at the end marks where its answer ends."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("".join(f"{line}\n" for line in lines) + "-1 next\n")
        self.process.stdin.flush()
        answer: list[str] = []
        while not (line := self.process.stdout.readline()).startswith("-1 next"):
            assert line, self.log[-20:]
            answer.append(line.rstrip("\n"))
        self.log += [*lines, *answer]
        return answer


def foretell(program: Path, questions: Iterable[Sequence[object]]) -> list[str]:
    """Return the answers of the oracle, a line each."""
    text = "\n".join("\t".join(map(str, fields)) for fields in questions)
    done = subprocess.run([program, "--predict"], input=text, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()
