"""Two programs, one after the other, with what passes between them counted."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from builder import proc
from builder.errors import HostError

ENV = {"PATH": os.environ["PATH"]}
MIB = 1 << 20


def python(code: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", code]


def quiet(_passed: int) -> None:
    pass


def test_every_byte_arrives_and_is_counted(tmp_path: Path) -> None:
    data = os.urandom(5 * MIB + 7)
    (tmp_path / "data").write_bytes(data)
    heard: list[int] = []
    source, sink = proc.piped(["cat", str(tmp_path / "data")], ["sha256sum"], env=ENV, tell=heard.append)
    assert source.ok
    assert sink.ok
    assert sink.out.split()[0] == hashlib.sha256(data).hexdigest()
    assert heard == sorted(heard)
    assert heard[-1] == len(data)


def test_what_both_say_is_kept_and_how_they_ended() -> None:
    source, sink = proc.piped(
        ["sh", "-c", "echo one; echo from the source >&2; exit 3"],
        ["sh", "-c", "cat; echo from the sink >&2; exit 4"],
        env=ENV,
        tell=quiet,
    )
    assert (source.code, source.err) == (3, "from the source\n")
    assert (sink.code, sink.out, sink.err) == (4, "one\n", "from the sink\n")


def test_of_much_that_is_said_the_end_is_kept() -> None:
    _source, sink = proc.piped(["true"], python("print('x' * 300_000); print('the end')"), env=ENV, tell=quiet)
    assert sink.out.endswith("xx\nthe end\n")
    assert len(sink.out) == 64 << 10


def test_a_sink_that_ends_early_ends_the_source() -> None:
    source, sink = proc.piped(["yes"], ["head", "-c", "100000"], env=ENV, tell=quiet)
    assert sink.ok
    assert source.code < 0


def test_a_source_that_waits_is_ended_with_its_sink() -> None:
    source, sink = proc.piped(["sleep", "300"], ["sh", "-c", "exit 255"], env=ENV, tell=quiet)
    assert source.code < 0  # by a signal, long before its end
    assert sink.code == 255


def test_a_slow_sink_is_waited_for_and_told_about_meanwhile() -> None:
    heard: list[int] = []
    slow = python("import sys, time; time.sleep(1); sys.exit(len(sys.stdin.buffer.read()) != 200_000)")
    _source, sink = proc.piped(["head", "-c", "200000", "/dev/zero"], slow, env=ENV, tell=heard.append)
    assert sink.ok
    assert heard[-1] == 200_000
    assert len([one for one in heard if one < 200_000]) >= 3


def test_what_the_teller_raises_ends_both() -> None:
    def tell(passed: int) -> None:
        if passed:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        proc.piped(["yes", "piped-and-interrupted"], ["sh", "-c", "sleep 271"], env=ENV, tell=tell)
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert "yes piped-and-interrupted" not in running
    assert "sleep 271" not in running


def test_nothing_is_left_open_and_nothing_runs_when_one_isnt_there() -> None:
    before = set(Path("/proc/self/fd").iterdir())
    for pair in ((["no-such-program"], ["cat"]), (["sleep", "272"], ["no-such-program"])):
        with pytest.raises(HostError) as caught:
            proc.piped(*pair, env=ENV, tell=quiet)
        assert caught.value.code == "tool-missing"
    assert "sleep 272" not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert len(set(Path("/proc/self/fd").iterdir())) == len(before)


def test_what_a_sink_leaves_in_the_background_isnt_waited_for() -> None:
    _source, sink = proc.piped(["echo", "one"], ["sh", "-c", "sleep 273 & cat"], env=ENV, tell=quiet)
    assert sink.out == "one\n"
    assert "sleep 273" not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
