"""The whole chain as it is in a build: ninja, launcher, compile cache, launcher, broker, history."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from builder.events import UnitEnded
from builder.gate import ccache, hooks, session
from builder.gate.history import History
from tests.hook_kit import CCACHE, program
from tests.launch_kit import comes
from tests.session_kit import MIB, Kept, short_folder, terms

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from builder.gate.session import Session
    from builder.gate.tally import Summary

UNITS = 8


@dataclass
class Project:
    """Eight units under ninja, every compile through the launcher."""

    root: Path
    gate: Path
    kept: Kept = field(default_factory=Kept)

    def __post_init__(self) -> None:
        (self.root / "src").mkdir(parents=True)
        hooks.make_links(self.root / "gate", program(hooks.PROGRAM), ["g++"])
        rule = f"rule cc\n  command = {self.root}/gate/g++ -O1 -MD -MF $out.d -c $in -o $out\n"
        builds = [f"build obj/u{n}.o: cc src/u{n}.cc" for n in range(UNITS)]
        (self.root / "build.ninja").write_text("\n".join([rule, *builds, ""]))
        for n in range(UNITS):
            (self.root / f"src/u{n}.cc").write_text(
                f"#include <map>\nint f{n}() {{ return std::map<int, int>()[{n}]; }}\n"
            )

    @property
    def objects(self) -> list[Path]:
        return list(self.root.glob("obj/*.o"))

    @property
    def wheelhouse(self) -> Path:
        return self.root.parent / "wheelhouse"

    def log(self, attempt: int) -> Path:
        return self.root / f"ccache-{attempt}.log"

    def env(self, opened: Session, attempt: int) -> dict[str, str]:
        settings = ccache.Settings(
            folder=self.root.parent / "ccache",
            namespace="chain",
            root=self.root,
            fixed=False,
            launcher=self.root / "gate" / hooks.PROGRAM,
            log=self.log(attempt),
        )
        assert opened.folder
        made = hooks.Terms(
            gate=opened.folder,
            build=opened.env[session.BUILD],
            root=self.root,
            links=self.root / "gate",
            env={"PATH": os.environ["PATH"], "TMPDIR": str(self.root)},
            cores=4,
            ccache=CCACHE,
            cache=ccache.variables(settings),
        )
        return {"TMPDIR": str(self.root), "HOME": str(self.root), **hooks.variables(made)}

    def terms(self, attempt: int) -> session.Terms:
        return terms(
            self.gate,
            self.wheelhouse,
            self.kept,
            build=session.build_id("f" * 40, attempt),
            plain={"cxx": 64 * MIB, "link": 64 * MIB},
            broker=program("spark-build-broker"),
            options=("--idle", "1", "--cores", "4"),
        )

    def start(self, opened: Session, attempt: int) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["ninja", "-C", str(self.root)],
            env=self.env(opened, attempt),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def build(self, attempt: int) -> Summary:
        """Build all that isn't there, and return what the gate did."""
        with session.opened(self.terms(attempt)) as opened:
            finish(self.start(opened, attempt))
        return opened.summary

    def broker(self) -> int:
        """Return the process that holds the gate."""
        return int((self.gate / "broker.lock").read_text().split(".")[0].rpartition("-")[2])


def finish(ninja: subprocess.Popen[str]) -> None:
    out, _err = ninja.communicate(timeout=60)
    assert ninja.returncode == 0, out


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    for folder in short_folder():
        yield Project(tmp_path / "tree", folder)


def test_all_are_built_and_remembered_and_hits_ask_nobody(project: Project) -> None:
    summary = project.build(1)
    assert (summary.units, summary.requeues, summary.kernel_kills) == (UNITS, 0, 0)
    assert len(project.objects) == UNITS
    assert {unit.name for unit in project.kept.of(UnitEnded)} == {f"u{n}.cc" for n in range(UNITS)}
    history = History(project.wheelhouse / "units.sqlite3", sink=project.kept, clock=time.time)
    rows = history.rows("tiny")
    history.close()
    assert {row.unit.source for row in rows} == {f"u{n}.cc" for n in range(UNITS)}
    assert all(row.outcome == "ok" and row.peak_bytes > MIB and row.unit.flags for row in rows)

    before = {path.name: path.read_bytes() for path in project.objects}
    for path in project.objects:
        path.unlink()
    assert project.build(2).units == 0
    assert ccache.statistics(project.log(2)).hits == UNITS
    assert {path.name: path.read_bytes() for path in project.objects} == before


def test_a_broker_that_is_killed_in_the_middle_ends_no_build(project: Project) -> None:
    with session.opened(project.terms(1)) as opened:
        ninja = project.start(opened, 1)
        comes(lambda: project.kept.of(UnitEnded) or ninja.poll() is not None)
        first = project.broker()
        os.kill(first, signal.SIGKILL)
        assert len(project.objects) < UNITS
        finish(ninja)
        assert len(project.objects) == UNITS
        assert project.broker() != first
    assert len(project.kept.of(UnitEnded)) >= UNITS - 4  # what ended while there was none is known to nobody
