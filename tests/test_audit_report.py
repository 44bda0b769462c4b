"""Reports: what is let pass, what refuses, in which order, and what a program reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from builder.audit import expect, report
from builder.audit.context import Accepted, Context, Expected
from builder.audit.facts import Contents, DeviceCode, Elf, File, Image, Program, Unit
from builder.audit.report import Report, counted, percent
from builder.audit.rules import NEVER, Finding
from builder.audit.target import Capability, cover, total
from builder.recipe.model import Check
from builder.values import replace

GB10 = Capability.parse("12.1")


def finding(slug: str = "a-rule", severity: str = "error", file: str = "", **more: str) -> Finding:
    values = {"found": "this", "wanted": "that", "why": "because", "help": "do", **more}
    return Finding(id=slug, severity=severity, file=file, **values)  # type: ignore[arg-type]


def code(*archs: str, size: int = 100) -> DeviceCode:
    """One container with an image for each of `archs`: ``120f``, or ``PTX 80``."""
    images = []
    for arch in archs:
        name = arch.removeprefix("PTX ")
        number = name.rstrip("af")
        kind = "ptx" if name != arch else "cubin"
        images.append(Image(kind=kind, sm=int(number), variant=name[len(number) :], size=size))  # type: ignore[arg-type]
    return DeviceCode(units=(Unit(images=tuple(images)),))


def library(path: str, device: DeviceCode | None = None, *, size: int = 1000, damage: str = "") -> File:
    elf = Elf(machine="aarch64", bits=64, kind="shared")
    return File(path=path, size=size, sha256=path, elf=elf, device=device or DeviceCode(), damage=damage)


def contents(*files: File, filename: str = "tiny-1.0-py3-none-any.whl") -> Contents:
    return Contents(
        where=Path("/w") / filename, filename=filename, project="tiny", version="1.0", size=900, files=tuple(files)
    )


def made(*files: File, findings: tuple[Finding, ...] = (), accepted: tuple[Accepted, ...] = ()) -> Report:
    """A report without any judge, so that its findings are those that are given."""
    coverage = {file.path: cover(file.device, GB10) for file in files if file.device is not None}
    bare = Report(
        contents=contents(*files),
        target=GB10,
        coverage=coverage,
        total=total(coverage.values()),
        findings=(),
        accepted=accepted,
    )
    return bare.plus(findings)


def test_errors_come_first_then_files_and_what_was_let_pass_last() -> None:
    found = (
        finding("note", "info", "a.so"),
        finding("two", "error", "b.so"),
        finding("let", "error", "a.so"),
        finding("mild", "warning", "a.so"),
        finding("one", "error", "a.so"),
    )
    told = made(findings=found, accepted=(Accepted(id="let", reason="so"),))
    assert [one.id for one in told.findings] == ["one", "two", "let", "mild", "note"]
    assert [one.id for one in told.errors] == ["one", "two"]
    assert [one.id for one in told.open] == ["one", "two", "mild", "note"]


@pytest.mark.parametrize(
    ("pattern", "file", "passes"),
    [
        ("*", "a/b.so", True),
        ("*", "", True),
        ("*/b.so", "a/b.so", True),
        ("*/B.so", "a/b.so", False),
        ("b.so", "a/b.so", False),
    ],
)
def test_a_finding_passes_by_its_id_and_a_pattern_on_its_file(pattern: str, file: str, *, passes: bool) -> None:
    told = made(
        findings=(finding(file=file),), accepted=(Accepted(id="a-rule", file=pattern, reason="found by dlopen"),)
    )
    assert told.refused is not passes
    assert told.findings[0].severity == "error"
    assert told.findings[0].accepted == ("found by dlopen" if passes else "")
    assert made(findings=(finding("other", file=file),), accepted=told.accepted).refused


def test_what_a_run_found_is_let_pass_as_well() -> None:
    told = made(accepted=(Accepted(id="a-rule", reason="so"),))
    assert not told.refused
    assert not told.plus([finding()]).refused
    assert told.plus([finding("other")]).refused


@pytest.mark.parametrize("slug", sorted(NEVER))
def test_what_makes_it_no_wheel_is_never_let_pass(slug: str) -> None:
    one = made(findings=(finding(slug),), accepted=(Accepted(id=slug, reason="I know"),))
    assert one.refused
    assert one.plus([finding(slug, file="more")]).errors[1].accepted == ""


def test_only_errors_refuse() -> None:
    assert not made(findings=(finding(severity="warning"), finding(severity="info"))).refused


def test_images_are_counted_by_kind_and_architecture_machine_code_first() -> None:
    units = code("PTX 80", "120f", "90a", "120").units + code("120", "PTX 80", size=7).units
    assert [(one.arch, one.kind, one.count, one.size) for one in counted(DeviceCode(units=units))] == [
        ("sm_90a", "cubin", 1, 100),
        ("sm_120", "cubin", 2, 107),
        ("sm_120f", "cubin", 1, 100),
        ("compute_80", "ptx", 2, 107),
    ]
    assert counted(None) == ()


def test_the_whole_is_the_sum_of_its_files() -> None:
    told = made(library("a.so", code("120", "90a")), library("b.so", code("PTX 80", size=50)), library("c.so"))
    assert (told.total.verdict, told.total.native, told.total.jit) == ("native", 1, 1)
    assert told.device_bytes == 250
    assert told.device_line() == (
        "40 % of 250 B device code is native to 12.1, 20 % goes through the driver's compiler, 40 % is never used there"
    )
    assert told.line().startswith("tiny: 40 % of")


def test_a_line_tells_how_many_findings_are_open() -> None:
    found = (finding(), finding("w", "warning"), finding("x", "warning"), finding("n", "info"))
    assert made(findings=found).line() == "tiny: no device code, 1 error, 2 warnings"


def test_what_cannot_be_read_is_told_beside_what_can() -> None:
    broken = library("a.so", DeviceCode(unknown="a container of a kind that isn't known"))
    assert made(broken).device_line() == "no device code, 1 file can't be read to the end"
    assert made(broken, library("b.so", code("120")), library("c.so", damage="it ends early")).device_line() == (
        "100 % of 100 B device code is native to 12.1, 2 files can't be read to the end"
    )


@pytest.mark.parametrize(
    ("part", "whole", "shown"),
    [(0, 0, "0 %"), (0, 9, "0 %"), (9, 9, "100 %"), (1, 1000, "<1 %"), (999, 1000, ">99 %"), (1, 3, "33 %")],
)
def test_a_share_is_all_or_nothing_only_where_it_is(part: int, whole: int, shown: str) -> None:
    assert percent(part, whole) == shown


def test_programs_read_a_stable_document() -> None:
    program = File(
        path="bin/ptxas", size=5, program=Program(name="ptxas", version="13.0", targets=frozenset({"sm_121a", "sm_90"}))
    )
    told = made(
        library("a.so", code("120f", "PTX 80")),
        File(path="a.py", size=10),
        program,
        library("bad.so", damage="it ends early"),
        findings=(finding(file="a.so"), finding("mild", "warning")),
        accepted=(Accepted(id="a-rule", reason="so"),),
    )
    none = {
        "verdict": "none",
        "units": dict.fromkeys(("native", "jit", "dead", "absent", "unknown"), 0),
        "bytes": dict.fromkeys(("native", "jit", "other"), 0),
    }
    native = {
        "verdict": "native",
        "units": {**dict.fromkeys(("jit", "dead", "absent", "unknown"), 0), "native": 1},
        "bytes": {"native": 100, "jit": 100, "other": 0},
    }
    empty: dict[str, object] = {"images": [], "unknown": None, "program": None, "machine": None, "coverage": None}
    rest = {"found": "this", "wanted": "that", "why": "because", "help": "do"}
    assert json.loads(json.dumps(told.as_json())) == {
        "version": 1,
        "wheel": {
            "filename": "tiny-1.0-py3-none-any.whl",
            "project": "tiny",
            "version": "1.0",
            "sha256": None,
            "size": 900,
            "tags": [],
            "files": 4,
            "unpacked": 2015,
        },
        "target": "12.1",
        "files": [
            {
                **empty,
                "path": "a.so",
                "size": 1000,
                "machine": "aarch64",
                "coverage": native,
                "images": [
                    {"kind": "cubin", "arch": "sm_120f", "count": 1, "bytes": 100},
                    {"kind": "ptx", "arch": "compute_80", "count": 1, "bytes": 100},
                ],
            },
            {
                **empty,
                "path": "bin/ptxas",
                "size": 5,
                "program": {"name": "ptxas", "version": "13.0", "targets": ["sm_121a", "sm_90"]},
            },
            {
                **empty,
                "path": "bad.so",
                "size": 1000,
                "machine": "aarch64",
                "coverage": none,
                "unknown": "it ends early",
            },
        ],
        "total": native,
        "findings": [
            {**rest, "id": "a-rule", "severity": "error", "file": "a.so", "accepted": "so"},
            {**rest, "id": "mild", "severity": "warning", "file": "", "accepted": None},
        ],
        "refused": False,
    }


def test_judges_are_told_what_the_recipe_expects() -> None:
    whole = contents(library("tiny/a.so", code("90a")))
    context = Context(target=GB10, expected=Expected(stated=True))
    told = report.judge(whole, context)
    assert told.refused
    assert all(one.file in {"", "tiny/a.so"} for one in told.errors)
    slugs = {one.id for one in told.errors}
    let = tuple(Accepted(id=slug, reason="for a test") for slug in slugs)
    assert not report.judge(whole, replace(context, expected=replace(context.expected, accepted=let))).refused


CHECKS = (
    Check(kind="device-code", target="12.1", output="one", require=("*_C*",), allow_ptx=("*_fa2*",)),
    Check(kind="device-code", target="12.1a", allow_absent=("*_fa3*",)),
    Check(kind="device-code", target="9.0", require=("*_hopper*",)),
    Check(kind="size", max="400MiB"),
    Check(kind="size", output="one", max="300MiB"),
    Check(kind="accept", findings=("a", "b"), file="*.so", reason="so"),
    Check(kind="import", run="import one"),
)


def test_checks_about_an_output_add_up_and_the_smallest_size_holds() -> None:
    one = expect.of(CHECKS, "one", target=GB10)
    assert (one.stated, one.require, one.allow_ptx, one.allow_absent) == (True, ("*_C*",), ("*_fa2*",), ("*_fa3*",))
    assert one.max_size == 300 << 20
    assert one.accepted == tuple(Accepted(id=slug, file="*.so", reason="so") for slug in "ab")


def test_what_is_said_about_another_output_or_target_is_left_out() -> None:
    two = expect.of(CHECKS, "two", target=GB10)
    assert (two.require, two.allow_absent, two.max_size) == ((), ("*_fa3*",), 400 << 20)
    assert expect.of(CHECKS, "two", target=Capability.parse("9.0")).require == ("*_hopper*",)
    assert expect.of(CHECKS, "two").require == ("*_hopper*",)
    assert expect.of((), "two") == Expected()
    assert not expect.of(CHECKS[3:], "one").stated


def test_of_an_environment_each_finding_names_its_package() -> None:
    other = made(findings=(finding("a", file="x/y.so"), finding("b", "warning")))
    second = replace(other, contents=replace(other.contents, project="two"))
    every = report.together([other, second], Path("/env"), "env")
    assert [one.file for one in every.findings] == ["x/y.so (tiny)", "x/y.so (two)", "tiny", "two"]
