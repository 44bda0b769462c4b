from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

import pytest

from builder.ui.region import region, summary
from builder.ui.style import Style, span
from tests.live_kit import GIB, gate, view

if TYPE_CHECKING:
    from builder.events import GateState

ASCII = Style(color=False, live=True, encoding="ascii")


def test_80_columns() -> None:
    assert region(view(), 80, 24) == [
        "─ vllm 0.33.0 · 3f9ac1d2ab · build vllm · 18m22s ──────────────────────────────",
        " edges   ██████████████░░░░░░░░  612/974  62%  ETA 12m (9-14m)",
        " memory  ███████████████████▒▒░  94.2 GiB  ceiling 108  peak 101  free 13.4/121",
        " jobs    ▪▪▪▪▪▪····              6 of 10  memory-bound  12 waiting",
        " ▸ flash_fwd_hdim256_bf16_sm120.cu   2m41s    9.8 GiB  last time 3m10s",
        " ▸ moe_wna16_marlin_gemm_9.cu        1m58s    7.1 GiB  last time 2m02s",
        " ▸ … 4 more",
        " cache 31 hits · 2 requeued · l log · +/- jobs · p pause · ^C stop and keep",
    ]


def test_120_columns_and_a_high_window() -> None:
    assert region(view(), 120, 50) == [
        "─ vllm 0.33.0 · 3f9ac1d2ab · build vllm · 18m22s " + "─" * 61,
        " edges   ██████████████████░░░░░░░░░░  612/974  62%  ETA 12m (9-14m)",
        " memory  ████████████████████████▒▒░░  94.2 GiB  ceiling 108  peak 101  free 13.4/121",
        " jobs    ▪▪▪▪▪▪····                    6 of 10  memory-bound  12 waiting",
        " ▸ flash_fwd_hdim256_bf16_sm120.cu    2m41s    9.8 GiB  last time 3m10s",
        " ▸ moe_wna16_marlin_gemm_9.cu         1m58s    7.1 GiB  last time 2m02s",
        " ▸ cutlass_moe_mm_c3x_sm120.cu        1m12s    6.4 GiB  new file",
        " ▸ 漢字漢字漢字漢字漢字漢字漢字.cpp   1m00s    2.0 GiB  last time 1m01s",
        " ▸ x.cu                                  2s    410 MiB  last time 3s",
        " ▸ … 1 more",
        " cache 31 hits · 2 requeued · l log · +/- jobs · p pause · ^C stop and keep",
    ]


def test_60_columns_without_symbols() -> None:
    assert region(view(), 60, 24, ASCII) == [
        "- vllm 0.33.0 - 3f9ac1d2ab - build vllm - 18m22s ----------",
        " edges   #########......  612/974  62%  ETA 12m (9-14m)",
        " memory  #############=.  94.2/108 GiB  peak 101  free 13.4",
        " jobs    ######----       6 of 10  memory-bound  12 waiting",
        " > ...256_bf16_sm120.cu   2m41s    9.8 GiB  last time 3m10s",
        " > ..._marlin_gemm_9.cu   1m58s    7.1 GiB  last time 2m02s",
        " > ... 4 more",
        " cache 31 hits - 2 requeued - l log - +/- jobs - p pause",
    ]


def test_what_goes_first_where_there_is_little_room() -> None:
    assert [len(region(view(), 80, height)) for height in (36, 24, 15, 12, 9, 8, 3, 1)] == [11, 8, 5, 4, 3, 1, 1, 1]
    assert region(view(), 80, 12)[0].startswith("─ vllm")
    assert region(view(), 80, 9)[0].startswith(" edges")
    assert region(view(), 40, 24)[1] == " edges   612/974  62%  ETA 12m (9-14m)"


@pytest.mark.parametrize("style", [None, ASCII])
def test_no_line_reaches_the_edge_and_a_third_of_the_height_is_enough(style: Style | None) -> None:
    texts: tuple[dict[str, object], ...] = (
        {},
        {"gate": None, "said": "[3/90] " + "漢" * 90},
        {"tail": tuple("x" * 200 for _ in range(20))},
        {"gate": gate(edges=0, left_ms=None)},
        {"gate": gate(jobs=0, slots=0, running=(), ceiling_bytes=0, used_bytes=0, total_bytes=0)},
        {"gate": gate(slots=500, jobs=400), "wanted": 501},
    )
    for more, width, height in itertools.product(texts, (1, 2, 10, 20, 41, 60, 80, 92, 120, 300), (1, 3, 8, 24, 60)):
        lines = region(view(**more), width, height, style)
        assert 1 <= len(lines) <= max(1, height // 3)
        assert all(span(line) <= max(width - 1, 1) for line in lines), (more, width, height)


def test_colour_adds_nothing_but_colour() -> None:
    colored = region(view(), 80, 24, Style(color=True, live=True, encoding="utf-8"))
    assert any("\x1b[" in line for line in colored)
    assert [re.sub(r"\x1b\[[\d;]*m", "", line).rstrip() for line in colored] == region(view(), 80, 24)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (gate(bound="cpu"), "CPU-bound"),
        (gate(bound="pressure"), "machine short of memory"),
        (gate(bound="cpu", paused=True), "paused"),
    ],
)
def test_what_holds_the_jobs_is_said(state: GateState, words: str) -> None:
    assert words in region(view(gate=state), 100, 24)[3]
    assert words in ", ".join(summary(state))


def test_jobs_that_were_asked_for_are_shown_until_they_are_in_force() -> None:
    assert "6 of 10 → 12" in region(view(wanted=12), 100, 24)[3]
    assert "→" not in region(view(wanted=10), 100, 24)[3]


def test_the_log_takes_the_place_of_the_compilers() -> None:
    lines = region(view(tail=tuple(f"line {n}" for n in range(20)), log="/w/build.log"), 100, 24)
    assert lines[4:7] == [" │ line 17", " │ line 18", " │ line 19"]
    assert "log /w/build.log" in lines[-1]


def test_a_line_for_a_log_has_progress_memory_jobs_and_the_rest() -> None:
    assert " · ".join(summary(gate())) == (
        "612/974 edges 62% · memory 94.2 GiB of 108 GiB · 6 of 10 jobs, memory-bound, 12 waiting · ETA 12m (9-14m)"
    )
    assert summary(gate(left_ms=(40_000, 40_900), edges=0))[-1] == "ETA 40s"
    assert summary(gate(left_ms=(50_000, 4_000_000)))[-1] == "ETA 34m (50s-1h06m)"


def test_small_builds_are_told_in_smaller_units() -> None:
    small = gate(used_bytes=300 << 20, ceiling_bytes=500 << 20, peak_bytes=400 << 20, total_bytes=GIB // 2)
    assert "300 MiB  ceiling 500  peak 400" in region(view(gate=small), 100, 24)[2]
