from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from builder.cli.main import build_parser
from builder.cli.request import pairs
from builder.inputs import Change, Inputs, diff
from builder.plan import Step
from builder.stages import PullDiff, Request, Submodule
from builder.ui import plan as shown
from builder.ui.reasons import grouped, reasons, short
from tests.base_kit import NESTED
from tests.ui_kit import DOCUMENT, FINGERPRINT, NOON, OLDER, pin, plan, stored

if TYPE_CHECKING:
    from builder.digest import Json

HOUSE = Path("/w")


def lines(made: object, **more: object) -> list[str]:
    values = {"wheelhouse": HOUSE, "wheelhouse_from": "configuration", "now": NOON, **more}
    return list(shown.plan_lines(made, **values))  # type: ignore[arg-type]


def test_a_first_build() -> None:
    assert lines(plan()) == [
        "tiny  3f9ac1d2ab  to build",
        "  ● tiny: build",
        "  source     main = 4c1e22f0ab12",
        "             https://example.invalid/tiny",
        "  because    first build of this recipe here",
        "  time       never built here: no estimate; 10 jobs at once",
        "  disk       2.0 GiB at the peak",
        "  label      sb20260921120000.g3f9ac1d2ab",
        "  wheelhouse /w (configuration)",
        "  Run: spark-build recipe tiny",
    ]


def test_what_goes_in_beside_the_source_and_what_the_recipe_advises() -> None:
    unknown = replace(NESTED[1], id="json", pin=pin(kind="archive", tree="unknown"))
    document: dict[str, Json] = {**DOCUMENT, "arch": ["12.0f"], "patches": [{"id": "drop-fa3", "sha256": "0"}]}
    made = replace(
        plan(),
        inputs=Inputs(document=document, fingerprint=FINGERPRINT),
        nested=(*NESTED, unknown),
        lacking=("llvm",),
        retired=("old: the source has it already",),
        advice=(("a wheel is published", "uv pip install x"),),
    )
    told = lines(made)
    assert "  arch       12.1a, which this project builds as 12.0f" in told
    assert "  patches    drop-fa3" in told
    assert "             ▲ patch old: the source has it already" in told
    assert "  nested     5 sources that the tree pulls in, each pinned" in told
    assert "             ▲ 1 without a digest so far: their first fetch gives another fingerprint" in told
    assert "             not at hand: llvm" in told
    assert told[-2:] == ["  ▲ a wheel is published", "    Run: uv pip install x"]


def test_a_rebuild_names_its_reasons_and_the_estimate() -> None:
    old: Json = {"env": {}, "host": {"cuda": {"version": "13.0.88", "digest": "a" * 64}}}
    new: Json = {"env": {"X": "1"}, "host": {"cuda": {"version": "13.0.88", "digest": "b" * 64}}}
    told = lines(plan(old=old, new=new, estimate_s=840))
    assert "  because    variable X set to 1" in told
    assert "             CUDA toolkit (nvcc) replaced: same version, other bytes" in told
    assert "             (against 77c0e1bfff, the nearest stored build)" in told
    assert "  time       about 14m00s; 10 jobs at once" in told


def test_a_hit_says_when_it_was_built_and_asks_for_nothing() -> None:
    told = lines(plan(steps=(Step(output="tiny", decision="hit", wheel=stored()),)))
    assert told[:2] == ["tiny  3f9ac1d2ab  in the wheelhouse", "  ✔ tiny: cached, 11.8 MiB, built 3 days ago"]
    assert not any(word in line for line in told for word in ("Run:", "because", "time ", "disk"))
    assert told[-1] == "  wheelhouse /w (configuration)"


def test_a_plan_for_some_outputs_says_which() -> None:
    steps = (Step(output="a", decision="hit", wheel=stored("a")), Step(output="b", decision="miss"))
    told = lines(plan(steps=steps))
    assert told[1:3] == ["  ✔ a: cached, 11.8 MiB, built 3 days ago", "  ● b: build"]
    assert "  because    not all outputs of this build are stored" in told


@pytest.mark.parametrize(
    ("commit", "wanted"),
    [("4c1e22f0ab12" + "d" * 28, "at 4c1e22f0ab12, files tree:cccccccccc"), (None, "files tree:cccccccccc")],
)
def test_a_folder_is_told_by_its_path(commit: str | None, wanted: str) -> None:
    folder = pin(kind="local", url="file:///home/me/my%20tiny", ref=None, commit=commit, tree="tree:" + "c" * 64)
    assert lines(plan(source=folder))[2:4] == ["  source     /home/me/my tiny", f"             {wanted}"]


def test_a_wheel_that_was_lost_is_the_one_reason() -> None:
    lost = replace(plan(), lost=("the stored wheel is gone: tiny.whl",))
    told = lines(lost)
    assert "  because    the stored wheel is gone: tiny.whl" in told
    assert not any("first build" in line or "nearest" in line for line in told)
    assert shown.plan_json(lost)["reasons"] == ["the stored wheel is gone: tiny.whl"]


def test_a_stale_pin_says_its_age() -> None:
    told = lines(plan(source=pin(stale=True, asked_at=NOON - 7300)))
    assert "             ▲ as of 2 hours ago: the remote wasn't asked" in told


def test_submodules_and_pull_requests_are_part_of_the_source() -> None:
    source = pin(
        submodules=(Submodule(path="3rdparty/x", url="https://example.invalid/x", commit="e" * 40),) * 2,
        pulls=(PullDiff(number=12, base="0" * 40, head="abcdef0" + "0" * 33, sha256="1" * 64),),
    )
    assert "  source     main = 4c1e22f0ab12, 2 submodules, with PR 12 (abcdef0)" in lines(plan(source=source))


def test_an_sdist_is_told_by_its_file_and_hash() -> None:
    source = pin(
        kind="sdist", commit=None, ref=None, version="1.0", tree="sha256:" + "ab" * 32, filename="tiny-1.0.tar.gz"
    )
    told = lines(plan(source=source))
    assert told[0] == "tiny 1.0  3f9ac1d2ab  to build"
    assert told[2:4] == ["  source     tiny-1.0.tar.gz", "             sha256:ababababab"]


def test_no_line_is_wider_than_a_terminal_whatever_changed() -> None:
    old: Json = {"env": {"V": "x" * 300}, "recipe": {"build": {"config_settings": {"cmake.define." + "Y" * 90: "1"}}}}
    new: Json = {"env": {"V": "y" * 300}, "recipe": {"build": {"config_settings": {"cmake.define." + "Y" * 90: "2"}}}}
    assert max(len(line) for line in lines(plan(old=old, new=new))) <= 80


def test_the_command_asks_for_the_same_again() -> None:
    request = Request(
        recipe="tiny",
        ref="main",
        pulls=(3, 4),
        outputs=("a",),
        python="3.12",
        settings={"build.requires-pin": '["cmake<4"]'},
        env={"X": "a b"},
        jobs=4,
        offline=True,
        isolation="none",
    )
    told = shown.command(request, wheelhouse=Path("/my wheels"))
    args = build_parser(["recipe"]).parse_args(shlex.split(told)[1:])
    assert (args.name, args.ref, args.pr, args.output, args.python) == (["tiny"], "main", [3, 4], ["a"], "3.12")
    assert (args.jobs, args.offline, args.isolation, args.wheelhouse) == (4, True, "none", "/my wheels")
    assert pairs(args.settings, "--set") == request.settings
    assert pairs(args.env, "--env") == request.env
    assert lines(plan(), request=Request(recipe="tiny", ref="v1"))[-1] == "  Run: spark-build recipe tiny --ref v1"


def test_json_tells_the_same_with_whole_values() -> None:
    told = shown.plan_json(plan(old={"env": {}}, new={"env": {"X": "1"}}, estimate_s=5))
    assert told["fingerprint"] == FINGERPRINT
    assert told["outputs"] == [{"output": "tiny", "decision": "miss", "path": None, "sha256": None}]
    assert told["reasons"] == ["variable X set to 1"]
    assert told["changes"] == [{"path": "env.X", "kind": "added", "old": None, "new": "1"}]
    assert (told["nearest"], told["estimate_s"], told["disk_bytes"]) == (OLDER, 5, 2 << 30)


PACKAGES: list[Json] = [{"name": f"p{n}", "version": "1", "sha256": ["a"]} for n in range(6)]
NEWER: list[Json] = [{"name": f"p{n}", "version": "2", "sha256": ["b"]} for n in range(6)]
SOURCE: dict[str, Json] = {"kind": "git", "tree": "git:" + "a" * 40, "time": 1, "commit": "7e0b1d2" + "0" * 33}


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        (
            {"source": SOURCE},
            {"source": {**SOURCE, "tree": "git:" + "b" * 40, "time": 2, "commit": "4c1e22f" + "0" * 33}},
            ["source moved 7e0b1d2000 → 4c1e22f000"],
        ),
        (
            {"source": {"kind": "sdist", "tree": "sha256:" + "a" * 64, "version": "0.7.1"}},
            {"source": {"kind": "sdist", "tree": "sha256:" + "b" * 64, "version": "0.7.2"}},
            ["source version 0.7.1 → 0.7.2"],
        ),
        (
            {"source": {"kind": "local", "tree": "tree:" + "a" * 64}},
            {"source": {"kind": "local", "tree": "tree:" + "b" * 64}},
            ["source's files changed: tree:aaaaaaaaaa → tree:bbbbbbbbbb"],
        ),
        ({"source": {"kind": "sdist"}}, {"source": {"kind": "git"}}, ["source is git now, was sdist"]),
        (
            {"source": {"submodules": [{"path": "x.y", "url": "u", "commit": "a" * 40}]}},
            {"source": {"submodules": [{"path": "x.y", "url": "u", "commit": "b" * 40}]}},
            ["submodule x.y aaaaaaaaaa → bbbbbbbbbb"],
        ),
        (
            {"nested": [{"id": "x.y", "commit": "a" * 40}, {"id": "gone", "tree": "t"}]},
            {"nested": [{"id": "x.y", "commit": "b" * 40}, {"id": "new", "tree": "t"}]},
            ["nested source gone removed", "nested source new added", "nested source x.y aaaaaaaaaa → bbbbbbbbbb"],
        ),
        (
            {"nested": [{"id": "llvm", "tree": "sha256:" + "a" * 64, "url": "u"}, {"id": "o", "replaced": "a"}]},
            {"nested": [{"id": "llvm", "replaced": "d"}, {"id": "o", "tree": "sha256:" + "a" * 64}]},
            ["nested source llvm has another in its place", "nested source o is the pinned one again"],
        ),
        (
            {"patches": [{"id": "one", "sha256": "a"}, {"id": "two", "sha256": "b"}]},
            {"patches": [{"id": "one", "sha256": "c"}, {"id": "new", "sha256": "d"}]},
            ["patch new added", "patch one edited", "patch two removed"],
        ),
        (
            {"patches": [{"id": "a", "sha256": "1"}, {"id": "b", "sha256": "2"}]},
            {"patches": [{"id": "b", "sha256": "2"}, {"id": "a", "sha256": "1"}]},
            ["patches in another order"],
        ),
        (
            {"env": {"GONE": "1", "X": "a"}},
            {"env": {"X": "b", "NEW": ""}},
            ["variable GONE no longer set (was 1)", "variable NEW set to ''", "variable X: a → b"],
        ),
        (
            {"recipe": {"build": {"env": {"A": "1"}, "strip": True}}},
            {"recipe": {"build": {"env": {"A": "2"}, "strip": False, "requires_pin": ["cmake<4"]}}},
            [
                "recipe: variable A: 1 → 2",
                "recipe: build.requires-pin set to cmake<4",
                "recipe: build.strip: true → false",
            ],
        ),
        (
            {"host": {"cuda": {"version": "13.0", "digest": "a"}}, "target": {"cuda": "13.0"}},
            {"host": {"cuda": {"version": "13.1", "digest": "b"}}, "target": {"cuda": "13.1"}},
            ["CUDA toolkit (nvcc) 13.0 → 13.1"],
        ),
        (
            {"host": {"tools": {"g++": {"version": "13.2", "digest": "a"}, "ld": {"version": "2", "digest": "a"}}}},
            {"host": {"tools": {"g++": {"version": "13.3", "digest": "b"}, "ld": {"version": "2", "digest": "b"}}}},
            ["g++ 13.2 → 13.3", "ld replaced: same version, other bytes"],
        ),
        (
            {"host": {"tools": {}}},
            {"host": {"tools": {"clang++": {"version": "18", "digest": None}}}},
            ["clang++ 18 added"],
        ),
        (
            {"requires": {"tiny": PACKAGES[:2]}},
            {"requires": {"tiny": [NEWER[0], {"name": "p1", "version": "1", "sha256": ["z"]}, NEWER[2]]}},
            [
                "build requirement p0 1 → 2",
                "build requirement p1 replaced: same version, other bytes",
                "build requirement p2 2 added",
            ],
        ),
        (
            {"requires": {"tiny": PACKAGES}},
            {"requires": {"tiny": NEWER}},
            ["6 build requirements changed: p0, p1, p2, p3, p4, p5"],
        ),
        ({"torch": None}, {"torch": {"version": "2.14", "cxx11abi": True}}, ["built with torch now"]),
        ({"torch": {"version": "2.13"}}, {"torch": {"version": "2.14"}}, ["torch 2.13 → 2.14"]),
        ({"arch": ["12.0f"]}, {"arch": ["12.1a"]}, ["architecture 12.0f → 12.1a"]),
        (
            {"builds-on": {"triton": "a" * 64}},
            {"builds-on": {"triton": "b" * 64}},
            ["triton, which this builds on: aaaaaaaaaa → bbbbbbbbbb"],
        ),
        ({"schema": 1}, {"schema": 2}, ["this spark-build makes other bytes (inputs schema 1 → 2)"]),
        ({"later": 1}, {"later": 2}, ["later: 1 → 2"]),
    ],
)
def test_reasons_in_words(old: Json, new: Json, wanted: list[str]) -> None:
    assert list(reasons(diff(old, new))) == wanted


def test_every_change_is_evidence_of_exactly_one_reason() -> None:
    changes = diff(
        {"source": SOURCE, "requires": {"tiny": PACKAGES}, "env": {}},
        {"source": {**SOURCE, "time": 5}, "requires": {"tiny": NEWER}, "env": {"A": "1", "B": "2"}},
    )
    told = [change for _, found in grouped(changes) for change in found]
    assert sorted(told, key=lambda one: one.path) == sorted(changes, key=lambda one: one.path)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (None, "nothing"),
        ("a" * 64, "aaaaaaaaaa"),
        ("20261124184035", "20261124184035"),
        ("x" * 60, "x" * 47 + "…"),
        ([], "none"),
        (["12.1a", "12.0f"], "12.1a 12.0f"),
        (False, "false"),
        ({"b": 1, "a": None}, '{"a": null, "b": 1}'),
    ],
)
def test_long_values_are_shortened(value: Json, wanted: str) -> None:
    assert short(value) == wanted


def test_why_gives_the_evidence_for_each_reason() -> None:
    changes = diff(
        {"source": SOURCE, "env": {}}, {"source": {**SOURCE, "time": 2, "commit": "4" * 40}, "env": {"X": "1"}}
    )
    told = shown.why_lines("tiny", FINGERPRINT, OLDER, NOON - 2 * 86400, changes, NOON)
    assert told[0].startswith("tiny 3f9ac1d2ab against 77c0e1bfff, built 2 days ago (")
    assert list(told[1:]) == [
        "  variable X set to 1",
        "      + env.X  1",
        "  source moved 7e0b1d2000 → 4444444444",
        "      ~ source.commit  7e0b1d2000 → 4444444444",
        "      ~ source.time  1 → 2",
        "  Each of these alone makes another build.",
    ]


def test_why_without_an_older_build_or_without_a_difference() -> None:
    assert shown.why_lines("tiny", FINGERPRINT, None, None, (), NOON) == (
        "tiny 3f9ac1d2ab: nothing to compare with, no other build of tiny is stored here",
    )
    one = Change(path="env.X", kind="added", old=None, new="1")
    assert "Each" not in shown.why_lines("tiny", FINGERPRINT, OLDER, None, (one,), NOON)[-1]
    assert shown.why_lines("tiny", FINGERPRINT, OLDER, None, (), NOON)[-1] == "  no input differs"


@pytest.mark.parametrize(
    ("seconds", "wanted"),
    [(-5, "just now"), (59, "just now"), (60, "1 minute ago"), (7300, "2 hours ago"), (86400, "1 day ago")],
)
def test_ages_as_people_say_them(seconds: float, wanted: str) -> None:
    assert shown.ago(seconds) == wanted
