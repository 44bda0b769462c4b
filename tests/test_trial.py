"""Wheels installed and run in environments of their own, on this machine, offline."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from builder.audit import contents
from builder.audit.facts import File, Program
from builder.executor import isolation
from builder.pipeline import trial
from builder.recipe.model import Check
from builder.values import replace
from tests import wheel_kit

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from builder.audit.facts import Contents
    from builder.audit.rules import Finding


@pytest.fixture
def bench(tmp_path: Path) -> trial.Bench:
    """Everything that a trial needs, with nothing at hand: an empty cache, no network."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "UV_CACHE_DIR": str(tmp_path / "uv")}
    return trial.Bench(
        python=sys.executable,
        env=env,
        index_url=None,
        scratch=scratch,
        isolation=isolation.probe(env, wanted="auto"),
        scripts={},
        target="12.1",
    )


def made(folder: Path, files: Mapping[str, bytes], *headers: str) -> Contents:
    """Return the contents of a real wheel ``tiny`` with `files`."""
    path = folder / "tiny-1.0-py3-none-any.whl"
    wheel_kit.write(path, wheel_kit.contents("tiny", "1.0", files, headers), modes=dict.fromkeys(files, 0o755))
    return contents.read(path)


def ids(found: list[Finding]) -> list[tuple[str, str]]:
    return [(one.id, one.severity) for one in found]


def test_what_imports_is_fine(tmp_path: Path, bench: trial.Bench) -> None:
    wheel = made(tmp_path, {"tiny/__init__.py": b"", "other.py": b"import tiny"})
    assert trial.run(wheel, [], bench) == []


def test_an_import_that_nobody_stated_is_a_warning_and_a_stated_one_an_error(
    tmp_path: Path, bench: trial.Bench
) -> None:
    wheel = made(tmp_path, {"tiny/__init__.py": b"import nowhere_to_be_found"})
    found = trial.run(wheel, [], bench)
    assert ids(found) == [("run-import", "warning")]
    assert "nowhere_to_be_found" in found[0].found
    stated = trial.run(wheel, [Check(kind="import", run="import tiny")], bench)
    assert ids(stated) == [("run-check", "error")]


def test_what_it_declares_is_installed_with_it_and_nothing_else(tmp_path: Path, bench: trial.Bench) -> None:
    folder = tmp_path / "beside"
    other = folder / "other-2.0-py3-none-any.whl"
    wheel_kit.write(other, wheel_kit.contents("other", "2.0", {"other/__init__.py": b"answer = 42"}))
    wheel = made(
        tmp_path, {"tiny/__init__.py": b"import other; assert other.answer == 42"}, "Requires-Dist: other==2.0"
    )
    assert ids(trial.run(wheel, [], bench)) == [("run-untried", "info")]
    assert trial.run(wheel, [], bench, beside=[other]) == []


def test_online_a_wheel_that_cannot_be_installed_is_refused(tmp_path: Path, bench: trial.Bench) -> None:
    empty = tmp_path / "index"
    empty.mkdir()
    wheel = made(tmp_path, {"tiny/__init__.py": b""}, "Requires-Dist: tiny-needs-this==9")
    online = replace(bench, offline=False, index_url=empty.as_uri())
    assert ids(trial.run(wheel, [], online)) == [("run-install", "error")]


def test_our_wheel_wins_over_a_pin_of_another(tmp_path: Path, bench: trial.Bench) -> None:
    folder = tmp_path / "beside"
    pinning = folder / "pinning-1-py3-none-any.whl"
    members = wheel_kit.contents("pinning", "1", {"pinning.py": b""}, ["Requires-Dist: tiny==0.9"])
    wheel_kit.write(pinning, members)
    wheel = made(tmp_path, {"tiny/__init__.py": b"import pinning"})
    assert trial.run(wheel, [], bench, beside=[pinning]) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"import tiny; print(tiny.__name__)", ""),
        (b"raise SystemExit('too slow')", "too slow"),
        (b"import os; os.abort()", "signal 6"),
    ],
)
def test_scripts(tmp_path: Path, bench: trial.Bench, text: bytes, said: str) -> None:
    script = tmp_path / "look.py"
    script.write_bytes(text)
    wheel = made(tmp_path, {"tiny/__init__.py": b""})
    found = trial.run(wheel, [Check(kind="script", script="look.py")], replace(bench, scripts={"look.py": script}))
    assert [one.id for one in found] == (["run-check"] if said else [])
    assert said in "".join(one.found for one in found)


def test_a_command_has_to_end_well_and_say_what_is_wanted(tmp_path: Path, bench: trial.Bench) -> None:
    wheel = made(tmp_path, {"tiny/__init__.py": b"", "tiny-1.0.data/scripts/tell": b"#!/bin/sh\necho release 13.0\n"})
    right = Check(kind="command", run="tell", matches="release 1[0-9]")
    wrong = Check(kind="command", run="tell", matches="release 14")
    missing = Check(kind="command", run="not-a-program")
    found = trial.run(wheel, [right, wrong, missing], bench)
    assert ids(found) == [("run-check", "error")] * 2
    assert "release 13.0" in found[0].found
    assert "not-a-program" in found[1].found


def test_a_wrapper_in_place_of_a_bundled_tool_is_found(tmp_path: Path, bench: trial.Bench) -> None:
    wheel = made(tmp_path, {"tiny/__init__.py": b"", "tiny/bin/ptxas": b'#!/bin/sh\nexec /opt/cuda/bin/ptxas "$@"\n'})
    tool = File(path="tiny/bin/ptxas", size=1, program=Program(name="ptxas", version="13.0.88"))
    found = trial.run(replace(wheel, files=(*wheel.files, tool)), [], bench)
    assert [(one.id, one.file) for one in found] == [("run-tool", "tiny/bin/ptxas")]


def test_another_machines_wheel_is_not_run(tmp_path: Path, bench: trial.Bench) -> None:
    path = tmp_path / "tiny-1.0-cp311-cp311-linux_riscv64.whl"
    wheel_kit.write(path, wheel_kit.contents("tiny", "1.0", {"tiny/__init__.py": b""}))
    assert ids(trial.run(contents.read(path), [], bench)) == [("run-untried", "info")]
    found = trial.run(contents.read(path), [Check(kind="import", run="import tiny")], bench)
    assert ids(found) == [("run-untried", "warning")]
    assert "riscv64" in found[0].found


def test_a_missing_driver_says_nothing_about_the_wheel(tmp_path: Path, bench: trial.Bench) -> None:
    text = b"raise ImportError('libcuda.so.1: cannot open shared object file')"
    wheel = made(tmp_path, {"tiny/__init__.py": text})
    assert ids(trial.run(wheel, [Check(kind="import", run="import tiny")], bench)) == [("run-untried", "info")]


def test_what_wants_a_gpu_waits_for_being_asked(tmp_path: Path, bench: trial.Bench) -> None:
    wheel = made(tmp_path, {"tiny/__init__.py": b""})
    check = Check(kind="import", run="raise SystemExit('ran')", gpu=True)
    assert ids(trial.run(wheel, [check], bench)) == [("run-untried", "info")]
    assert ids(trial.run(wheel, [check], replace(bench, gpu=True))) == [("run-check", "error")]


def test_nothing_of_the_caller_gets_in(tmp_path: Path, bench: trial.Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "leaked.py").write_text("")
    wheel = made(tmp_path, {"tiny/__init__.py": b"import os\nassert 'PYTHONPATH' not in os.environ\nimport leaked"})
    assert ids(trial.run(wheel, [], bench)) == [("run-import", "warning")]


def test_the_network_is_cut(tmp_path: Path, bench: trial.Bench) -> None:
    text = b"import socket\nsocket.create_connection(('192.0.2.1', 80), timeout=5)"
    wheel = made(tmp_path, {"tiny/__init__.py": text})
    found = trial.run(wheel, [], bench)
    assert ids(found) == [("run-import", "warning")]
    assert "timed out" not in found[0].found


def test_the_part_of_a_log_that_is_about_an_output(tmp_path: Path) -> None:
    log = tmp_path / "build.log"
    log.write_text("-- Not building Marlin: another output\n-- Not building Marlin kernels\n-- done\n")
    begin, end = log.read_text().index("-- Not building Marlin kernels"), log.stat().st_size
    check = Check(kind="log", forbid=("Not building Marlin", "Not building SM12x"))
    assert [one.found for one in trial.logged([check], (log, begin, end))] == ["-- Not building Marlin kernels"]
    assert list(trial.logged([Check(kind="log", forbid=("something else",))], (log, 0, end))) == []
    assert ids(list(trial.logged([check], None))) == [("run-untried", "warning")]
    assert list(trial.logged([], None)) == []


def test_a_check_that_could_not_be_run_is_a_warning(tmp_path: Path, bench: trial.Bench) -> None:
    wheel = made(tmp_path, {"tiny/__init__.py": b""}, "Requires-Dist: nowhere==1")
    assert ids(trial.run(wheel, [Check(kind="import", run="import tiny")], bench)) == [("run-untried", "warning")]


def test_output_without_end_is_stopped(tmp_path: Path, bench: trial.Bench) -> None:
    wheel = made(tmp_path, {"tiny/__init__.py": b"while True: print('x' * 100_000)"})
    found = trial.run(wheel, [Check(kind="import", run="import tiny")], bench)
    assert ids(found) == [("run-check", "error")]
    assert "printed more than" in found[0].found


def test_only_the_loaders_own_words_mean_a_missing_driver(tmp_path: Path, bench: trial.Bench) -> None:
    wheel = made(tmp_path, {"tiny/__init__.py": b"x = = 'libcuda.so.1: cannot open shared object file'"})
    assert ids(trial.run(wheel, [Check(kind="import", run="import tiny")], bench)) == [("run-check", "error")]


def test_a_path_with_every_odd_character(tmp_path: Path, bench: trial.Bench) -> None:
    folder = tmp_path / "a #b %20 [c] ü"
    folder.mkdir()
    assert trial.run(made(folder, {"tiny/__init__.py": b""}), [], bench) == []
