from __future__ import annotations

import io
import itertools
import json
import os
import pty
import re
import select as polling
import threading
import time

import pytest

from builder import events
from builder.errors import UsageError
from builder.ui import select, style
from builder.ui.plain import Plain
from tests.ui_kit import FINGERPRINT, HEAD, Clock, Terminal, plain


def started(**more: object) -> events.BuildStarted:
    values: dict[str, object] = {
        "recipe": "tiny",
        "version": "1.0",
        "fingerprint": FINGERPRINT,
        "label": "sb20260921120000.g3f9ac1d2ab",
        "outputs": ("tiny",),
        "attempt": 1,
        "isolation": "namespace",
    }
    return events.BuildStarted(**{**values, **more})  # type: ignore[arg-type]


def lines_of(stream: io.StringIO) -> list[str]:
    return stream.getvalue().splitlines()


def test_each_phase_is_one_line_with_its_duration_at_the_edge() -> None:
    screen, stream = plain(Clock())
    screen.emit(events.PhaseStarted(phase="fetch"))
    screen.emit(events.PhaseEnded(phase="fetch", status="ok", ms=4200, text="at hand"))
    screen.emit(events.PhaseStarted(phase="env", output="tiny", log="/w/env.log"))
    screen.emit(events.PhaseEnded(phase="env", output="tiny", status="ok", ms=71_000, text="14 packages"))
    screen.close()
    assert lines_of(stream) == [
        f"{HEAD} ✔ fetch    at hand" + " " * (80 - 27 - 2) + "4s",
        f"{HEAD} ✔ env      tiny: 14 packages" + " " * (80 - 37 - 5) + "1m11s",
    ]
    assert all(len(line) == 80 for line in lines_of(stream))


def test_a_whole_build_reads_from_top_to_bottom() -> None:
    screen, stream = plain(Clock())
    for event in (
        events.SourcePinned(recipe="tiny", text="main = 4c1e22f0ab12", stale_s=7300),
        events.PlanMade(
            recipe="tiny",
            fingerprint=FINGERPRINT,
            label="x",
            hits=(),
            misses=("tiny",),
            reasons=tuple(f"reason {n}" for n in range(6)),
            estimate_s=840,
        ),
        started(attempt=2),
        events.PhaseStarted(phase="publish"),
        events.PhaseEnded(phase="publish", status="ok", ms=10),
        events.Stored(output="tiny", path="/w/tiny.whl", sha256="ab" * 32, size=12_345_678),
        events.BuildEnded(status="ok", ms=842_000, peak_bytes=3 << 30),
    ):
        screen.emit(event)
    text = [re.sub(rf"^{HEAD} ", "", line) for line in lines_of(stream)]
    assert text[0] == "▲ source   tiny: main = 4c1e22f0ab12, as of 2h01m ago: the remote wasn't asked"
    assert text[1] == "● plan     tiny 3f9ac1d2ab: build tiny; about 14m00s"
    assert text[2:6] == [f"·          because reason {n}" for n in range(4)]
    assert text[6] == "·          and 2 more: spark-build why tiny"
    assert text[7] == "● start    tiny 1.0 as sb20260921120000.g3f9ac1d2ab, attempt 2"
    assert text[9] == "✔ stored   tiny, 11.8 MiB, sha256 abababababababab…"
    assert text[10].startswith("✔ done     tiny 3f9ac1d2ab, peak 3.0 GiB")
    assert text[10].endswith(" 14m02s")


def test_a_build_with_the_network_open_is_told_with_a_warning() -> None:
    screen, stream = plain(Clock())
    screen.emit(started(isolation="none"))
    assert stream.getvalue().startswith(f"{HEAD} ▲ start")
    assert "the build can reach the network" in stream.getvalue()


def test_what_a_hit_goes_through_isnt_told_unless_it_took_long() -> None:
    screen, stream = plain(Clock())
    screen.emit(events.PhaseStarted(phase="lock"))
    screen.emit(events.PhaseEnded(phase="lock", status="ok", ms=1999))
    assert stream.getvalue() == ""
    screen.emit(events.PhaseStarted(phase="lock"))
    screen.emit(events.PhaseEnded(phase="lock", status="ok", ms=2000))
    assert len(lines_of(stream)) == 1
    screen.emit(events.PhaseStarted(phase="lock"))
    screen.emit(events.PhaseEnded(phase="lock", status="failed", ms=1))
    assert len(lines_of(stream)) == 1


def test_a_failure_shows_the_last_twenty_lines_and_where_the_rest_is() -> None:
    screen, stream = plain(Clock())
    screen.emit(events.PhaseStarted(phase="build", output="tiny", log="/w/logs/1/build.log"))
    for number in range(30):
        screen.emit(events.Printed(phase="build", text=f"\x1b[31mline {number}\x1b[0m"))
    screen.emit(events.PhaseEnded(phase="build", output="tiny", status="failed", ms=1000))
    shown = lines_of(stream)
    assert shown[0].startswith(f"{HEAD} ✘ build    tiny")
    assert shown[1].startswith("── last lines of build tiny ──")
    assert shown[2:-1] == [f"  line {number}" for number in range(10, 30)]
    assert shown[-1] == "log: /w/logs/1/build.log"


def test_a_terminal_gets_one_row_a_quoted_line_and_a_log_all_of_it() -> None:
    for live in (True, False):
        screen, stream = plain(Clock(), live=live, width=60)
        screen.emit(events.PhaseStarted(phase="build"))
        screen.emit(events.Printed(phase="build", text="g++ " + "-I/some/where " * 20))
        screen.emit(events.PhaseEnded(phase="build", status="failed", ms=1))
        quoted = lines_of(stream)[2]
        assert (len(quoted) == 60 and quoted.endswith("…")) if live else len(quoted) > 250


def test_lines_of_an_earlier_phase_dont_explain_a_later_failure() -> None:
    screen, stream = plain(Clock())
    screen.emit(events.PhaseStarted(phase="env", log="/w/env.log"))
    screen.emit(events.Printed(phase="env", text="Installed 3 packages"))
    screen.emit(events.PhaseEnded(phase="env", status="ok", ms=1))
    screen.emit(events.PhaseStarted(phase="pack"))
    screen.emit(events.PhaseEnded(phase="pack", status="failed", ms=1))
    assert "Installed" not in stream.getvalue()


def test_a_long_phase_gives_signs_of_life_in_a_log() -> None:
    clock = Clock()
    screen, stream = plain(clock)
    screen.emit(
        events.PlanMade(
            recipe="tiny", fingerprint=FINGERPRINT, label="x", hits=(), misses=("tiny",), reasons=(), estimate_s=100
        )
    )
    screen.emit(events.PhaseStarted(phase="build", output="tiny", log="/w/build.log"))
    for _second in range(70):
        screen.emit(events.Printed(phase="build", text="[3/90] Building x.cu.o"))
        clock.on(1)
        screen.tick()
    told = [line.split(None, 1)[1] for line in lines_of(stream)[1:]]
    assert told == [
        "▸ build    tiny, about 1m40s, log: /w/build.log",
        "▸ build    tiny 32s, about 1m08s left · [3/90] Building x.cu.o",
        "▸ build    tiny 1m02s, about 38s left · [3/90] Building x.cu.o",
    ]


def test_a_build_beyond_its_estimate_says_so() -> None:
    clock = Clock()
    screen, stream = plain(clock, live=True)
    screen.emit(
        events.PlanMade(
            recipe="tiny", fingerprint=FINGERPRINT, label="x", hits=(), misses=("tiny",), reasons=(), estimate_s=10
        )
    )
    screen.emit(events.PhaseStarted(phase="build", output="tiny"))
    clock.on(11)
    screen.tick()
    assert "tiny 11s, longer than usual" in stream.getvalue()


def test_the_estimate_is_for_all_outputs_together() -> None:
    clock = Clock()
    screen, stream = plain(clock, live=True)
    screen.emit(
        events.PlanMade(
            recipe="tiny", fingerprint=FINGERPRINT, label="x", hits=(), misses=("a", "b"), reasons=(), estimate_s=100
        )
    )
    screen.emit(started())
    screen.emit(events.PhaseStarted(phase="build", output="a"))
    screen.emit(events.PhaseEnded(phase="build", output="a", status="ok", ms=60_000))
    screen.emit(events.PhaseStarted(phase="build", output="b"))
    clock.on(10)
    screen.tick()
    assert "b 10s, about 30s left" in stream.getvalue()


def test_a_transfer_tells_bytes_and_rate_at_intervals_and_its_end() -> None:
    clock = Clock()
    screen, stream = plain(clock)
    total = 100 << 20
    for second in range(26):
        screen.emit(events.Fetching(name="llvm.tar.gz", done=second * (4 << 20), total=total))
        screen.tick()
        clock.on(1)
    told = [line.split(None, 1)[1] for line in lines_of(stream)]
    assert told[0] == "▸ fetch    llvm.tar.gz, 8.0 MiB of 100 MiB (8%), 4.0 MiB/s"
    assert told[1] == "▸ fetch    llvm.tar.gz, 48.0 MiB of 100 MiB (48%), 4.0 MiB/s"
    assert told[-1].startswith("✔ fetch    llvm.tar.gz, 100 MiB  ")
    assert told[-1].endswith(" 25s")
    assert len(told) == 4


def test_a_resumed_transfer_counts_its_rate_from_where_it_went_on() -> None:
    clock = Clock()
    screen, stream = plain(clock)
    screen.emit(events.Fetching(name="x", done=90 << 20, total=100 << 20))
    clock.on(4)
    screen.emit(events.Fetching(name="x", done=94 << 20, total=100 << 20))
    screen.tick()
    assert "1.0 MiB/s" in stream.getvalue()


def test_short_transfers_and_phases_leave_no_progress_lines() -> None:
    clock = Clock()
    screen, stream = plain(clock)
    screen.emit(events.Fetching(name="x", done=5, total=None))
    clock.on(1.9)
    screen.tick()
    screen.emit(events.PhaseStarted(phase="patch"))
    clock.on(1.9)
    screen.tick()
    assert stream.getvalue() == ""


def test_waiting_names_the_holder_and_goes_on_saying_so() -> None:
    clock = Clock()
    screen, stream = plain(clock)
    screen.emit(events.Waiting(what="the same build of tiny", holder="process 12: spark-build recipe tiny"))
    for _second in range(31):
        clock.on(1)
        screen.tick()
    screen.emit(events.Note(level="info", text="got it"))
    clock.on(60)
    screen.tick()
    assert [line.split(None, 1)[1] for line in lines_of(stream)] == [
        "◌ waiting  for the same build of tiny, held by process 12: spark-build recipe tiny",
        "▸ waiting  for the same build of tiny, 30s by now",
        "· note     got it",
    ]


@pytest.mark.parametrize(("width", "drawn_to"), [(60, 59), (100, 99), (112, 99), (240, 99)])
def test_a_terminal_gets_one_line_that_is_drawn_over_and_cleared(width: int, drawn_to: int) -> None:
    clock = Clock()
    screen, stream = plain(clock, live=True, width=width)
    screen.emit(events.PhaseStarted(phase="build", output="tiny", log="/w/build.log"))
    screen.emit(events.Printed(phase="build", text="words " * 50 + "x" * 200))
    screen.tick()
    clock.on(1)
    screen.tick()
    drawn = stream.getvalue()
    assert "\n" not in drawn
    frames = drawn.split("\r\x1b[K")[1:]
    assert len(frames) == 2
    assert all(len(frame) == drawn_to and frame.endswith("…") for frame in frames)
    screen.emit(events.PhaseEnded(phase="build", output="tiny", status="ok", ms=1000))
    rest = stream.getvalue()[len(drawn) :]
    assert rest.startswith("\r\x1b[K")
    assert rest.endswith("1s\n")
    screen.close()
    assert stream.getvalue().endswith("1s\n")


def test_a_terminal_wraps_long_lines_under_their_text_and_a_log_doesnt() -> None:
    text = " ".join(f"word{n}" for n in range(20))
    for live in (True, False):
        screen, stream = plain(Clock(), live=live, width=60)
        screen.emit(events.Note(level="warning", text=text))
        shown = lines_of(stream)
        if live:
            assert len(shown) > 1
            assert all(len(line) <= 60 for line in shown)
            assert all(line.startswith(" " * 20 + "word") for line in shown[1:])
        else:
            assert shown == [f"{HEAD} ▲ warning  {text}"]


def test_nothing_is_told_by_colour_alone() -> None:
    shown = []
    for color in (True, False):
        screen, stream = plain(Clock(), color=color)
        for status in ("ok", "failed", "interrupted"):
            screen.emit(events.PhaseStarted(phase="pack"))
            screen.emit(events.PhaseEnded(phase="pack", status=status, ms=1))
        shown.append(stream.getvalue())
    assert "\x1b[" in shown[0]
    assert "\x1b[" not in shown[1]
    assert re.sub(r"\x1b\[[\d;]*m", "", shown[0]) == shown[1]
    assert len({line.split()[1] for line in shown[1].splitlines()}) == 3


def test_an_encoding_without_symbols_gets_letters() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="latin-1")
    screen = Plain(stream, style=style.of(stream, {}), clock=Clock(), beats=False)
    screen.emit(events.PhaseStarted(phase="build"))
    screen.emit(events.Printed(phase="build", text="\u2018nope\u2019 undeclared 漢"))
    screen.emit(events.PhaseEnded(phase="build", status="failed", ms=1, text="a → b…"))
    shown = raw.getvalue().decode("latin-1")
    assert f"{HEAD} x build    a -> b..." in shown
    assert "'nope' undeclared \\u6f22" in shown


@pytest.mark.parametrize(
    ("env", "color", "terminal", "wanted"),
    [
        ({"TERM": "xterm"}, "auto", True, True),
        ({"TERM": "dumb"}, "auto", True, False),
        ({"TERM": "xterm"}, "auto", False, False),
        ({"TERM": "xterm", "NO_COLOR": "1"}, "auto", True, False),
        ({"TERM": "xterm", "NO_COLOR": ""}, "auto", True, True),
        ({"FORCE_COLOR": "1"}, "auto", False, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, "auto", False, False),
        ({"NO_COLOR": "1"}, "always", False, True),
        ({"FORCE_COLOR": "1", "TERM": "xterm"}, "never", True, False),
    ],
)
def test_colour_by_flag_then_environment_then_terminal(
    env: dict[str, str], color: str, *, terminal: bool, wanted: bool
) -> None:
    stream = Terminal() if terminal else io.StringIO()
    assert style.of(stream, env, color).color is wanted


def test_ci_and_pipes_arent_drawn_over() -> None:
    assert style.of(Terminal(), {"TERM": "xterm"}).live
    assert not style.of(Terminal(), {"TERM": "xterm", "CI": "true"}).live
    assert not style.of(io.StringIO(), {"TERM": "xterm"}).live


def test_a_screen_that_cant_be_written_stops_no_build() -> None:
    class Gone(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

    screen = Plain(Gone(), style=style.of(Gone(), {}), clock=Clock(), beats=False)
    screen.emit(events.Note(level="info", text="x"))
    screen.close()


def test_json_screen_writes_events_and_raw_output_as_lines() -> None:
    stream = io.StringIO()
    screen = select.screen("json", stream=stream, env={}, clock=Clock())
    screen.emit(started())
    screen.emit(events.Printed(phase="build", text="hello"))
    screen.close()
    told = [events.parse_line(line) for line in lines_of(stream)]
    assert [raw["kind"] for raw, _ in told] == ["build.started", "phase.printed"]
    assert told[0][1] == started()


def test_the_environment_chooses_only_where_the_flag_doesnt() -> None:
    env = {"SPARK_BUILD_PROGRESS": "json"}
    stream = io.StringIO()
    assert isinstance(select.screen("auto", stream=stream, env=env, clock=Clock()), select.Json)
    assert isinstance(select.screen("quiet", stream=stream, env=env, clock=Clock()), select.Quiet)
    assert isinstance(select.screen("auto", stream=stream, env={}, clock=Clock()), Plain)
    with pytest.raises(UsageError, match="loud"):
        select.screen("auto", stream=stream, env={"SPARK_BUILD_PROGRESS": "loud"}, clock=Clock())


def test_quiet_shows_nothing() -> None:
    stream = io.StringIO()
    screen = select.screen("quiet", stream=stream, env={}, clock=Clock())
    screen.emit(started())
    screen.emit(events.BuildEnded(status="failed", ms=1))
    screen.close()
    assert stream.getvalue() == ""


def test_on_a_real_terminal_the_line_moves_by_itself_and_is_gone_at_the_end() -> None:
    main, child = pty.openpty()
    before = threading.active_count()
    ticks = itertools.count()
    with os.fdopen(child, "w", encoding="utf-8") as stream:
        screen = select.screen("plain", stream=stream, env={"TERM": "xterm"}, clock=lambda: 1000.0 + next(ticks))
        screen.emit(events.PhaseStarted(phase="build", output="tiny"))
        screen.emit(events.Printed(phase="build", text="[1/2] compiling"))
        seen = _read_until(main, lambda text: text.count("\r\x1b[K") >= 3)
        screen.emit(events.PhaseEnded(phase="build", output="tiny", status="ok", ms=5000))
        screen.close()
        seen += _read_until(main, lambda text: text.endswith("\n"))
        assert threading.active_count() == before
    os.close(main)
    assert "\x1b[1mbuild" in seen
    assert "[1/2] compiling" in seen
    last = seen.rsplit("\r\x1b[K", 1)[1]
    assert re.sub(r"\x1b\[[\d;]*m", "", last).split()[1:] == ["✔", "build", "tiny", "5s"]


def _read_until(descriptor: int, enough: object) -> str:
    raw, deadline = b"", time.monotonic() + 30
    while time.monotonic() < deadline:
        ready, _, _ = polling.select([descriptor], [], [], 1)
        if ready:
            raw += os.read(descriptor, 65536)
        if callable(enough) and enough(raw.decode(errors="replace")):
            return raw.decode()
    raise AssertionError(raw)


def test_the_timer_starts_with_the_first_work_and_ends_with_the_screen() -> None:
    before = threading.active_count()
    screen = select.screen("plain", stream=io.StringIO(), env={}, clock=Clock())
    screen.emit(events.SourcePinned(recipe="tiny", text="main = 4c1e22f0ab12"))
    assert threading.active_count() == before
    screen.emit(events.PhaseStarted(phase="fetch"))
    assert threading.active_count() == before + 1
    screen.close()
    assert threading.active_count() == before


def test_every_kind_of_event_can_be_shown() -> None:
    values: dict[str, object] = {"str": "x", "int": 1, "tuple[str, ...]": ("x",), "PhaseName": "build", "Status": "ok"}
    screen, _ = plain(Clock(), live=True)
    for cls in events.KINDS.values():
        fields = {}
        for name, kind in cls.__annotations__.items():
            if name != "kind":
                fields[name] = values.get(str(kind).split(" |", maxsplit=1)[0], "info")
        screen.emit(cls(**fields))
        json.dumps(fields)
        screen.tick()
    screen.close()


@pytest.mark.parametrize(
    ("raw", "wanted"),
    [
        ("\x1b[1;31merror\x1b[0m: x", "error: x"),
        ("10%\r50%\r100%", "100%"),
        ("done\r", "done"),
        ("\x1b]8;;http://x\x07link\x1b]8;;\x07", "link"),
        ("a\tb", "a       b"),
        ("bell\x07", "bell"),
    ],
)
def test_output_of_others_loses_what_moves_the_cursor(raw: str, wanted: str) -> None:
    assert style.clean(raw) == wanted


def test_cutting_counts_columns() -> None:
    assert style.clip("abcdef", 6) == "abcdef"
    assert style.clip("abcdefg", 6) == "abcde…"
    assert style.clip("漢字漢字", 5) == "漢字…"
    assert style.clip("abc", 0) == ""


def test_a_line_with_a_duration_keeps_its_edge_whatever_its_text() -> None:
    screen, stream = plain(Clock(), live=True)
    screen.emit(events.PhaseEnded(phase="pack", status="ok", ms=8000, text="x" * 90))
    screen.emit(events.Note(level="warning", text="see /" + "x" * 90))
    first, second, _see, path = lines_of(stream)
    assert len(first) == 80
    assert first.endswith("x  8s")
    assert second == " " * 20 + "x" * 34
    assert path.strip() == "/" + "x" * 90
