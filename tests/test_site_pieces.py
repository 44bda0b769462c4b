"""The pieces of the pages for people: words, plots, stories of builds, what device code is for, and search."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from builder import events
from builder.pipeline import pages
from builder.site import device, gather, parts, plot, project, search, story, words
from builder.site import front as front_page
from builder.site.frame import Place
from tests import site_events, site_kit
from tests.site_page import Page

if TYPE_CHECKING:
    from pathlib import Path


def test_words() -> None:
    assert [
        words.duration(ms).replace("\u00a0", " ")
        for ms in (7, 4200, 59_600, 750_000, 3_600_000, 9_120_000, 200_000_000)
    ] == [
        "7 ms",
        "4.2 s",
        "1 min",
        "12 min 30 s",
        "1 h",
        "2 h 32 min",
        "2 d 7 h",
    ]
    assert words.percent(999, 1000) == ">99\u00a0%"
    assert words.percent(1, 1000) == "<1\u00a0%"
    assert words.percent(0, 1000) == "0\u00a0%"
    assert words.count(1204, "wheel") == "1,204 wheels"
    assert 'datetime="2026-11-28T' in words.when(site_kit.NOW)
    assert words.when(1e300) == "<span>unknown</span>"
    assert words.when(float("nan")) == "<span>unknown</span>"


def test_what_a_wheel_runs_on() -> None:
    assert (
        parts.made_for("vllm-0.33.0-cp310-abi3-manylinux_2_39_aarch64.whl")
        == "CPython 3.10 and newer, Linux aarch64, glibc 2.39"
    )
    assert (
        parts.made_for("a-1-cp312-cp312-manylinux_2_28_x86_64.manylinux_2_34_x86_64.whl")
        == "CPython 3.12, Linux x86_64, glibc 2.28"
    )
    assert parts.made_for("a-1-py2.py3-none-any.whl") == "Python 2, any machine"
    assert parts.made_for("a-1-1-cp312-cp312-linux_aarch64.whl") == "CPython 3.12, Linux aarch64"
    assert parts.made_for("no wheel") == ""


def test_what_the_target_makes_of_device_code() -> None:
    held = site_kit.images(
        ("cubin", "sm_90a", 1, 900),
        ("cubin", "sm_120", 1, 5),
        ("cubin", "sm_121a", 1, 9),
        ("ptx", "compute_90", 1, 9),
        ("cubin", "odd", 1, 1),
    )
    found = device.by_architecture(
        site_kit.report([site_kit.library("a.so", 1, held), site_kit.library("b.so", 1, held)])
    )
    assert [(one.arch, one.verdict, one.count) for one in found] == [
        ("sm_121a", "native", 2),
        ("sm_120", "native", 2),
        ("compute_90", "jit", 2),
        ("sm_90a", "absent", 2),
        ("odd", "unknown", 2),
    ]


def test_a_story_of_torn_and_foreign_lines() -> None:
    started = {"recipe": "a", "version": "1", "fingerprint": "f", "label": "l", "outputs": ["a"], "attempt": 1}
    unit = {"name": "x", "unit": "u", "ok": True, "peak_bytes": "much", "reserved_bytes": 1, "ms": 1, "wait_ms": 1}
    told = story.tell(
        [
            line("10:00:00", "build.started", isolation="seccomp", **started),
            "[1]",
            "{",
            '{"t": "never", "kind": "note", "level": "warning", "text": "x"}',
            line("10:00:01", "of another version"),
            line("10:00:02", "phase.started", phase="build"),
            line("10:00:03", "unit.ended", **unit),
        ]
    )
    assert (told.lines, told.isolation, told.units) == (7, "seccomp", 0)
    assert [(one.name, one.status, one.ms) for one in told.phases] == [("build", "running", None)]


def line(time: str, kind: str, **values: object) -> str:
    return json.dumps({"t": f"2026-11-01T{time}.000Z", "kind": kind, **values})


def test_a_long_build_keeps_its_peak_in_the_curve() -> None:
    lines = []
    for number in range(5000):
        state = site_events.gate_state(99 * site_kit.GIB if number == 1234 else site_kit.GIB, 1, 1, 1)
        at = f"{number // 3600:02}:{number // 60 % 60:02}:{number % 60:02}"
        lines.append(line(at, state.kind, **site_events.fields_of(state)))
    told = story.tell(lines)
    assert len(told.samples) <= 240
    assert max(told.samples, key=lambda one: one.used_bytes).s == 1234


def test_plots_say_in_words_what_they_show(site_tree: dict[str, bytes]) -> None:
    page = Page(site_tree["projects/vllm/index.html"])
    assert [found["role"] for found in page.all("svg") if found["class"] == "plot"] == ["group", "group"]
    assert (
        "6 builds, between 1\u00a0h\u00a028\u00a0min and 2\u00a0h\u00a032\u00a0min. The table below has each."
        in page.text
    )
    marks = [
        found
        for tag, found in page.elements
        if tag == "a" and "builds/" in str(found.get("href")) and found.get("aria-label")
    ]
    assert len(marks) == 12
    (caption,) = [each for each in page.text.splitlines() if "Builds, newest first" in each][:1]
    assert caption
    one = plot.curve("a", "t", "d", [plot.Dot(x=5.0, y=0.0, told="x", href="#")], kind="ms")
    assert "NaN" not in one
    assert project.times(Place("projects/x/"), []) is None


def found_by(query: str, site: site_kit.Kit) -> list[str]:
    from builder.site.tree import hits  # noqa: PLC0415

    return [one.folder for one in search.find(hits(pages.source(site.house)), query)]


def test_search(site: site_kit.Kit) -> None:
    newest = site.house.list_wheels(project="vllm")[-1]
    assert found_by("vllm", site)[0] == "projects/vllm/"
    assert found_by("FLASHINFER_jit", site)[0] == "projects/flashinfer-jit-cache/"
    assert found_by("flashinfer", site)[:2] == ["projects/flashinfer-jit-cache/", "projects/flashinfer-python/"]
    assert "builds/" in found_by("flashinfer", site)[2]  # the recipe's name, in full
    assert found_by("stable", site) == [f"channels/{site_kit.STABLE}/"]
    assert found_by(newest.sha256[:8], site) == [f"wheels/{newest.sha256}/"]
    assert set(found_by(newest.fingerprint[:10], site)) == {f"wheels/{newest.sha256}/", f"builds/{newest.fingerprint}/"}
    assert found_by(newest.version, site) == [f"wheels/{newest.sha256}/"]
    assert found_by("triton 3.9", site)[0] == "projects/triton/"
    assert found_by("", site) == []
    assert found_by("no such thing", site) == []


def test_the_page_of_a_search_says_what_was_found() -> None:
    none = Page(front_page.render(None, query="<b>"))
    assert "Nothing is called “<b>”." in none.text
    assert not none.all("b")


def test_search_finds_the_same_in_the_script(site: site_kit.Kit, site_tree: dict[str, bytes]) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node; the browser's tests show it, too")
    queries = [
        "vllm",
        "3.8",
        "flash",
        "cu130",
        site.house.list_wheels()[-1].sha256[:6],
        "x_y",
        "triton main",
        "3.8.0+sb2026",
    ]
    script = site_tree["static/spark.js"].decode()
    cut = script[script.index("function score(") : script.index("function target(")]
    rows = site_tree["static/search.js"].decode()
    each = f"{json.dumps(queries)}.map((query) => search(rows, query, 50).map((row) => row[3]))"
    code = f"{cut}\nconst sparkIndex = (rows) => console.log(JSON.stringify({each}));\n{rows}"
    ran = subprocess.run([node, "-e", code], capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout) == [found_by(query, site) for query in queries]


def test_a_wheel_is_held_against_the_one_before_it_for_the_same_machine(tmp_path: Path) -> None:
    kit = site_kit.Kit(tmp_path / "house")
    made = [
        kit.wheel("tiny", "1.0", site_kit.inputs("tiny", "1.0", f"{number}a" * 20), days=9 - number, tags=tags)
        for number, tags in enumerate(
            ["cp312-cp312-linux_aarch64", "cp313-cp313-linux_aarch64", "cp312-cp312-linux_aarch64"]
        )
    ]
    source = pages.source(kit.house)
    found = [source.wheel(one.sha256) for one in made]
    kit.close()
    assert [one.before.row.wheel.sha256 if one and one.before else None for one in found] == [
        None,
        None,
        made[0].sha256,
    ]


def test_a_front_page_of_many_packages_is_made_in_few_queries(tmp_path: Path) -> None:
    kit = site_kit.Kit(tmp_path / "house")
    for number in range(30):
        kit.wheel(f"p{number}", "1.0", None, days=number)
    asked: list[str] = []
    rows = kit.house.catalogue.rows

    def counted(sql: str, values: object = ()) -> list[tuple[object, ...]]:
        asked.append(sql)
        return rows(sql, values)  # type: ignore[arg-type]

    kit.house.catalogue.rows = counted  # type: ignore[method-assign]
    page = Page(front_page.render(gather.Source(kit.house, pages.Told(kit.root)).front()))
    kit.close()
    assert len([found for found in page.attribute("href") if found.startswith("projects/p")]) == 30
    assert len(asked) < 60


def test_events_that_pages_know_are_those_that_are() -> None:
    """A new kind of event has to be thought about: shown, or left out."""
    assert set(events.KINDS) == {
        "build.ended",
        "build.started",
        "fetch.progress",
        "gate.state",
        "lock.waiting",
        "note",
        "phase.ended",
        "phase.printed",
        "phase.started",
        "plan.made",
        "source.pinned",
        "unit.ended",
        "unit.requeued",
        "wheel.stored",
    }
