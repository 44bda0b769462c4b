"""The audit's screen: at the widths that terminals have, without colour, and in an encoding that lacks its symbols."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from builder.audit.context import Accepted
from builder.audit.facts import DeviceCode, File, Program
from builder.ui import audit as shown
from builder.ui.style import Style, span
from builder.values import replace
from tests.test_audit_report import code, finding, library, made
from tests.ui_kit import Clock, Terminal

if TYPE_CHECKING:
    from builder.audit.report import Report

SCREENS = Path(__file__).parent / "fixtures" / "audit-screen"
PLAIN = Style(color=False, live=False, encoding="utf-8")
TIMES = "\N{MULTIPLICATION SIGN}"
WHY = "it installs and imports, and the first call into it ends with an error that says nothing of the reason"
DO = "build it for the target: 12.1a for a DGX Spark, or 12.0f for the whole family"


def units(*parts: tuple[int, tuple[str, ...]]) -> DeviceCode:
    return DeviceCode(units=tuple(unit for count, archs in parts for unit in code(*archs, size=1 << 20).units * count))


MAIN = units(
    (35, ("80", "86", "87", "89", "90", "100", "110", "120f")), (50, ("80", "90a", "100f", "120")), (6, ("PTX 80",))
)


def big() -> Report:
    return made(
        library("big/_flash_2_C.abi3.so", units((76, ("80", "PTX 80"))), size=293 << 20),
        library("big/_C_stable_libtorch.abi3.so", MAIN, size=85 << 20),
        library("big/_quant_C.abi3.so", units((6, ("120a",))), size=1 << 20),
        library("big/cupti/libcupti.so", units((1, ("90a",))), size=5 << 20),
        library("big/cupti-two/libcupti.so", DeviceCode(unknown="a container of kind 9"), size=6 << 20),
        library("big/core.cpython-312-aarch64-linux-gnu.so", size=90 << 20),
        library("big/small.so", size=1 << 10),
        File(
            path="big/bin/ptxas",
            size=28 << 20,
            executable=True,
            program=Program(name="ptxas", version="12.9.86", targets=frozenset({"sm_121a", "sm_90"})),
        ),
        File(
            path="big/bin/nvlink",
            size=5 << 20,
            executable=True,
            program=Program(name="nvlink", version="12.4.1", targets=frozenset({"sm_90"})),
        ),
        File(path="big/__init__.py", size=120),
        findings=(
            finding(
                "device-dead",
                file="big/_quant_C.abi3.so",
                found=f"120a {TIMES}6",
                wanted="120f, 120, 121 or 121a",
                why=WHY,
                help=DO,
            ),
            *(
                finding("rpath-absolute", "warning", f"big/{name}.so", found="/home/builder/lib", wanted="$ORIGIN")
                for name in "abcdefg"
            ),
            finding(
                "dependency-missing", "warning", "big/a.py", found="imports jinja2", wanted="Requires-Dist: jinja2"
            ),
            finding("dependency-missing", "warning", "big/b.py", found="imports yaml", wanted="Requires-Dist: pyyaml"),
            finding("stripped", "info", "big/_C_stable_libtorch.abi3.so"),
            finding("stripped", "info", "big/_flash_2_C.abi3.so"),
            finding("abi3-floor", "info"),
            finding("size", "error", found="900 MiB"),
        ),
        accepted=(Accepted(id="size", reason="both generations are wanted"),),
    )


def lines(report: Report, width: int, *, every: bool = False, style: Style = PLAIN) -> str:
    return "\n".join(shown.lines(report, style=style, width=width, every=every))


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_screen_at_the_widths_of_terminals(width: int) -> None:
    told = lines(big(), width)
    assert told + "\n" == (SCREENS / f"{width}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [10, 20, 28, 30, 34, *range(40, 132, 4), 300])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    told = lines(big(), width, every=True).splitlines()
    assert max(span(line) for line in told) <= width
    assert all(line == line.rstrip() for line in told)


def test_a_narrow_terminal_still_gets_every_column() -> None:
    told = lines(big(), 28).splitlines()
    at = told.index(" _C_stable_libtorch")
    assert told[at + 1 : at + 3] == ["     85.0 MiB  native  75 %", f"     120 {TIMES}50  120f {TIMES}35"]


def test_a_path_is_broken_only_where_the_terminal_would_do_it() -> None:
    path = "/".join(["deep"] * 14)
    report = made(findings=(finding(file=path, found=f"{path} is wrong"),))
    assert path in lines(report, 60)
    narrow = lines(report, 59).splitlines()
    assert max(map(len, narrow)) <= 59
    assert path in "".join(line.strip() for line in narrow)


@pytest.mark.parametrize("width", [12, 59, 80])
def test_what_a_terminal_would_act_on_is_spelled_out(width: int) -> None:
    bad = "\x1b[2J\x1b]0;title\x07\r\u202eso.x\x9b31m\u2028"
    report = made(
        replace(library(f"a/{bad}.so", code("120"), damage=f"cut {bad}")),
        File(path=f"{bad}/ptxas", size=5, program=Program(name="ptxas", version=bad, targets=frozenset({"sm_90"}))),
        findings=(
            finding("one", file=f"a/{bad}\n ✔ not refused", found=f"is {bad}", wanted=f"not {bad}"),
            finding("two", "warning", file=bad, found=bad),
            finding("two", "warning", file=f"{bad}2", found=f"{bad}\nmore"),
            finding("three", file=bad),
        ),
        accepted=(Accepted(id="three", reason=bad),),
    )
    odd = replace(report, contents=replace(report.contents, project=bad, version=bad, filename=f"{bad}.whl"))
    told = lines(odd, width, every=True)
    assert [char for char in told if not char.isprintable()] == ["\n"] * told.count("\n")
    assert told.splitlines() == told.split("\n")
    if width == 80:
        assert " ✘ one  a/\\x1b[2J\\x1b]0;title\\x07\\r\\u202eso.x\\x9b31m\\u2028\\n ✔ not refused" in told
    assert shown.short(finding(file=bad, found=bad), "w.whl").isprintable()


def test_units_that_are_worse_off_are_counted_in_the_table() -> None:
    mixed = made(library("a/one.so", units((1, ("121a",)), (4, ("90a",)))), library("a/two.so", MAIN))
    told = " ".join(lines(mixed, 200).split())
    assert "(4 of 5 absent)" in told
    assert "(6 of 91 by JIT)" in told
    both = made(library("a/one.so", units((1, ("121a",)), (3, ("PTX 80",)), (2, ("90a",)), (1, ("120a",)))))
    assert "(3 of 7 by JIT, 1 dead, 2 absent)" in lines(both, 200)


def test_colour_says_nothing_that_words_do_not_say() -> None:
    coloured = lines(big(), 80, style=Style(color=True, live=True, encoding="utf-8"))
    assert "\x1b[32mnative\x1b[0m" in coloured
    assert "\x1b[31mdead\x1b[0m" in coloured
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == lines(big(), 80)


def test_an_encoding_without_the_symbols_gets_others() -> None:
    style = Style(color=False, live=False, encoding="ascii")
    told = [style.fit(line) for line in shown.lines(big(), style=style, width=80)]
    assert all(line.isascii() for line in told)
    assert any("120 x50  120f x35" in line for line in told)
    assert not any("\\" in line for line in told)


def test_all_shows_notes_small_files_and_every_file_of_a_finding() -> None:
    told = lines(big(), 100, every=True)
    assert " · stripped  2 files" in told
    assert "small" in told.split("DEVICE CODE")[1]
    assert all(f"big/{name}.so: /home/builder/lib" in told for name in "abcdefg")
    assert "--all" not in told


def test_copies_are_one_line() -> None:
    one = library("a/libx.so.1", code("120"))
    report = made(one, replace(one, path="a/libx.so"), replace(one, path="b/libx.so"))
    (row,) = [line for line in lines(report, 80).splitlines() if "native " in line and "libx" in line]
    assert row.split() == ["libx.so.1", f"{TIMES}3", "1.0", "KiB", "native", "100", "%", "120", f"{TIMES}1"]


def test_files_of_one_name_are_told_apart_by_as_few_folders_as_it_takes() -> None:
    paths = ("p/a/x/lib.so", "p/b/x/lib.so", "p/c/lib.so", "p/other.abi3.so")
    told = lines(made(*(library(path, code("120")) for path in paths)), 80)
    assert list(re.findall(r"^ (\S+) +1\.0 KiB", told, re.MULTILINE)) == [
        "a/x/lib.so",
        "b/x/lib.so",
        "c/lib.so",
        "other",
    ]


def test_a_wheel_without_libraries_has_no_table() -> None:
    assert lines(made(File(path="tiny/__init__.py", size=10)), 80).splitlines() == [
        " tiny 1.0",
        " tiny-1.0-py3-none-any.whl",
        " 900 B, 10 B unpacked in 1 file",
        "",
        " no device code",
        "",
        " ✔ not refused",
    ]


def test_what_is_known_of_one_finding_is_told_once() -> None:
    found = [finding(file=name, found=f"{name} is wrong") for name in "ab"]
    told = lines(made(findings=tuple(found)), 80)
    assert told.count("why     because") == told.count("fix     do") == told.count("wanted  that") == 1
    assert "a: a is wrong" in told
    assert "b: b is wrong" in told


def test_a_finding_in_one_line() -> None:
    assert shown.short(finding(file="a.so", found="this\n  and  that"), "w.whl") == "a.so: this and that (a-rule)"
    assert shown.short(finding(), "w.whl") == "w.whl: this (a-rule)"


def test_progress_is_silent_while_it_is_quick() -> None:
    clock, stream = Clock(), io.StringIO()
    with shown.progress(stream, {}, clock) as tell:
        tell("reading: 1 %")
        clock.on(1.9)
        tell("reading: 50 %")
    assert stream.getvalue() == ""


def test_progress_is_a_line_now_and_then_where_there_is_no_terminal() -> None:
    clock, stream = Clock(), io.StringIO()
    with shown.progress(stream, {}, clock) as tell:
        for percent in range(10):
            clock.on(1)
            tell(f"reading: {percent} %")
    assert stream.getvalue().splitlines() == ["reading: 1 %", "reading: 6 %"]


def test_progress_leaves_nothing_on_a_terminal() -> None:
    clock, stream = Clock(), Terminal()
    with shown.progress(stream, {"TERM": "xterm"}, clock) as tell:
        clock.on(3)
        tell("reading: 10 %")
        clock.on(1)
        tell("reading: 20 %")
    assert stream.getvalue() == "\r\x1b[Kreading: 10 %\r\x1b[Kreading: 20 %\r\x1b[K"
