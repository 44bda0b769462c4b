from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select as polling
import signal
import struct
import sys
import termios
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from builder import events
from builder.ui import select
from builder.ui.live import Live
from builder.ui.plain import Plain
from builder.ui.style import Style
from tests.live_kit import Window, gate, live
from tests.test_ui_plain import started
from tests.ui_kit import Clock

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZES = [(120, 40), (80, 24), (60, 12), (80, 3)]


def note(number: int) -> events.Note:
    return events.Note(level="info", text=f"note {number}")


@dataclass
class Asked:
    """Controls that keep what they were asked."""

    changes: list[dict[str, object]] = field(default_factory=list)

    def change(self, *, jobs: int | None = None, paused: bool | None = None) -> None:
        self.changes.append({key: value for key, value in (("jobs", jobs), ("paused", paused)) if value is not None})


@pytest.mark.parametrize(("columns", "rows"), SIZES)
def test_permanent_lines_stay_whole_above_the_region(columns: int, rows: int) -> None:
    window, clock = Window(columns, rows), Clock()
    screen = live(window, clock)
    screen.emit(events.PhaseStarted(phase="build", output="tiny", log="/w/build.log"))
    for number in range(100):
        screen.emit(events.Printed(phase="build", text=f"\x1b[2J[{number}/100] step"))
        screen.emit(gate(done=number))
        screen.emit(note(number))
        clock.on(1)
        screen.tick()
    during = window.shown()
    screen.close()
    after = window.shown()
    notes = [f"note {number}" for number in range(100)]
    assert [line.split("note     ")[-1] for line in after] == notes
    assert during[: len(after)] == after
    assert len(during) - len(after) == min(max(rows // 3, 1), 12) or rows // 3 > 8
    assert any("99/974" in line for line in during[len(after) :])


def test_each_frame_is_one_write_in_one_piece_for_the_terminal() -> None:
    window = Window(80, 24)
    screen = live(window)
    screen.emit(events.PhaseStarted(phase="build"))
    screen.emit(gate())
    screen.tick()
    screen.emit(note(1))
    screen.close()
    assert len(window.writes) >= 2
    assert all(text.startswith("\x1b[?2026h") and text.endswith("\x1b[?2026l") for text in window.writes)
    assert all(text.count("\x1b[?2026h") == 1 for text in window.writes)


def test_what_looks_the_same_isnt_drawn_again_and_bursts_are_one_frame() -> None:
    window = Window(80, 24)
    screen = live(window)
    screen.emit(events.PhaseStarted(phase="build"))
    screen.emit(gate())
    screen.tick()
    before = len(window.writes)
    screen.tick()
    for _number in range(1000):
        screen.emit(gate(done=700))
    assert len(window.writes) == before
    for number in range(1000):
        screen.emit(note(number))
    assert len(window.writes) <= before + 40  # four a second, on however slow a machine
    screen.close()
    assert sum("note " in line for line in window.shown()) == 1000


@pytest.mark.parametrize(
    "sizes", [[(120, 40), (60, 12), (90, 30)], [(60, 20), (120, 20)], [(80, 24), (80, 9), (80, 24)]]
)
def test_a_change_of_size_leaves_no_mess(sizes: list[tuple[int, int]]) -> None:
    window, clock = Window(*sizes[0]), Clock()
    screen = live(window, clock)
    screen.emit(started())
    screen.emit(events.PhaseStarted(phase="build"))
    for columns, rows in sizes:
        window.screen.resize(rows, columns)
        screen.emit(gate())
        clock.on(1)
        screen.tick()
        shown = window.shown()
        assert sum(line.startswith("─ tiny") for line in shown) <= 1
        assert sum(line.startswith(" memory") for line in shown) == (1 if rows >= 9 else 0)
    screen.close()
    assert not [line for line in window.shown() if line.startswith((" memory", " jobs", " edges", "─"))]


def test_folded_lines_are_counted_where_terminals_fold() -> None:
    window = Window(80, 24)
    screen = Live(
        window,
        style=Style(color=False, live=True, encoding="utf-8"),
        clock=Clock(),
        env={"TERM": "xterm"},
        area=lambda: (40, 24),
        beats=False,
    )
    screen._spans = [79, 60, 10, 75]  # noqa: SLF001  # as a frame of 80 columns left them
    assert screen._top(40, erase=False) == "\r\x1b[5A"  # noqa: SLF001


PROGRAM = """
import signal, sys, termios, time
from builder import events
from builder.ui import select
from tests.live_kit import gate

class Controls:
    def change(self, *, jobs=None, paused=None):
        screen.emit(events.Note(level="info", text=f"asked {jobs} {paused}"))

def end(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGINT, end)
screen = select.screen("auto", stream=sys.stderr, env={"TERM": "xterm"}, clock=time.time, keys=0, controls=Controls())
try:
    screen.emit(events.PhaseStarted(phase="build", log="/w/build.log"))
    screen.emit(events.Printed(phase="build", text="the last line"))
    while True:
        screen.emit(gate())
        time.sleep(0.05)
except KeyboardInterrupt:
    screen.close()
    flags = termios.tcgetattr(0)[3]
    print("left", bool(flags & termios.ICANON), bool(flags & termios.ECHO), flush=True)
"""


#: A shell in short: a job in the foreground, which is sent on as soon as it was stopped.
SHELL = """
import os, signal, sys, termios
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
job = os.fork()
if job == 0:
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    os.execv(sys.executable, [sys.executable, "-c", sys.argv[1]])
while os.WIFSTOPPED(os.waitpid(job, os.WUNTRACED)[1]):
    print("stopped with", bool(termios.tcgetattr(0)[3] & termios.ICANON), flush=True)
    os.killpg(job, signal.SIGCONT)
"""


@dataclass
class Session:
    """A process whose controlling terminal is `descriptor`."""

    pid: int
    descriptor: int
    seen: str = ""

    def until(self, pattern: str) -> str:
        deadline = time.monotonic() + 30
        while not (found := re.search(pattern, self.seen)):
            assert time.monotonic() < deadline, self.seen[-3000:]
            if polling.select([self.descriptor], [], [], 1)[0]:
                self.seen += os.read(self.descriptor, 65536).decode(errors="replace")
        self.seen = self.seen[found.end() :]
        return found[0]

    def press(self, text: str) -> None:
        os.write(self.descriptor, text.encode())

    def canonical(self) -> bool:
        return bool(termios.tcgetattr(self.descriptor)[3] & termios.ICANON)


@pytest.fixture
def session() -> Iterator[Session]:
    pid, descriptor = pty.fork()
    if pid == 0:
        os.chdir(Path(__file__).parent.parent)
        os.execv(sys.executable, [sys.executable, "-c", SHELL, PROGRAM])  # noqa: S606
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    yield Session(pid, descriptor)
    os.close(descriptor)  # hangs up on the whole session
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_keys_change_jobs_pause_and_show_the_log(session: Session) -> None:
    session.until("p pause")
    session.press("+")
    session.until("asked 11 None")
    session.press("-")
    session.until("asked (9|10) None")
    session.press("p")
    session.until("asked None True")
    session.press("l")
    session.until("the last line")
    assert not session.canonical()
    session.press("\x1b[Aq")
    session.until("left True True")


def test_ctrl_c_puts_the_terminal_right(session: Session) -> None:
    session.until("p pause")
    session.press("\x03")
    session.until("left True True")


def test_a_stop_gives_the_terminal_back_and_going_on_takes_it_again(session: Session) -> None:
    session.until("p pause")
    session.press("\x1a")
    session.until("stopped with True")
    session.until("p pause")
    session.press("+")
    session.until("asked 11 None")
    assert not session.canonical()


def test_a_live_view_needs_a_terminal_on_both_sides() -> None:
    main, child = pty.openpty()
    reading, writing = os.pipe()
    with os.fdopen(child, "w") as stream:

        def chosen(progress: str = "auto", keys: int | None = child, **env: str) -> type:
            screen = select.screen(progress, stream=stream, env={"TERM": "xterm", **env}, clock=Clock(), keys=keys)
            return type(screen)

        assert chosen() is Live
        assert chosen(keys=reading) is Plain
        assert chosen(keys=None) is Plain
        assert chosen(TERM="dumb") is Plain
        assert chosen(CI="1") is Plain
        assert chosen("plain") is Plain
        assert chosen("live", keys=None) is Live
        assert chosen(SPARK_BUILD_PROGRESS="live", keys=None) is Live
    for descriptor in (main, reading, writing):
        os.close(descriptor)


def test_after_a_hang_up_nothing_is_written() -> None:
    window = Window(80, 24)
    screen = live(window)
    screen.emit(events.PhaseStarted(phase="build"))
    screen.tick()
    before = len(window.writes)
    screen.hang_up()
    screen.emit(note(1))
    screen.emit(events.PhaseEnded(phase="build", status="ok", ms=1))
    screen.close()
    assert len(window.writes) == before


def test_what_the_gate_does_becomes_permanent_lines() -> None:
    window, clock = Window(100, 40), Clock()
    screen = live(window, clock)
    screen.emit(started())
    screen.emit(events.PhaseStarted(phase="build"))
    screen.emit(gate())
    screen.emit(gate(paused=True))
    screen.emit(gate(paused=True))
    screen.emit(gate(bound="pressure"))
    clock.on(1)
    screen.emit(gate(bound="pressure"))
    screen.emit(events.UnitRequeued(name="a.cu", by="gate", used_bytes=5 << 30, next_bytes=8 << 30))
    screen.emit(events.UnitRequeued(name="b.cu", by="kernel", used_bytes=1 << 30, next_bytes=2 << 30))
    ended: dict[str, Any] = {"unit": "u", "peak_bytes": 3 << 30, "reserved_bytes": 1, "ms": 61_000, "wait_ms": 0}
    screen.emit(events.UnitEnded(name="c.cu", ok=True, **ended))
    screen.emit(events.UnitEnded(name="d.cu", ok=False, code=1, **ended))
    screen.emit(events.PhaseEnded(phase="build", status="failed", ms=1))
    screen.emit(events.BuildEnded(status="failed", ms=1))
    screen.close()
    told = [line.split(None, 1)[1] for line in window.shown()[1:]]
    assert told[:2] == ["■ pause    nothing new is started until it goes on", "● pause    going on"]
    assert told[2] == "▲ memory   the machine is short of it: 13.4 GiB of 121 GiB are free; 6 jobs run"
    assert told[3] == "▲ requeue  a.cu was stopped at 5.0 GiB: runs again with 8.0 GiB"
    assert told[4] == "▲ requeue  b.cu was killed by the kernel at 1.0 GiB: runs again with 2.0 GiB"
    assert re.fullmatch(r"✘ unit     d.cu failed \(exit 1\), peak 3.0 GiB +1m01s", told[5])
    assert "2 requeued" in told[-1]
