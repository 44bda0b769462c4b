from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.gate_kit import built, foretell

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
GIB = 1 << 30


@pytest.fixture(scope="session", params=["plain", "sanitized"])
def oracle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory, sanitize=request.param == "sanitized")


def unit(
    source: str, peak: int, *, obj: str = "", kind: str = "cu", flags: str = "", ms: int = 0, curve: str = "-"
) -> tuple[object, ...]:
    return ("unit", source, obj, kind, flags, peak * MIB, ms, curve)


def ask(
    oracle: Path, *history: tuple[object, ...], of: str, obj: str = "", kind: str = "cu", flags: str = ""
) -> tuple[int, int, str]:
    answer = foretell(oracle, [*history, ("ask", of, obj, kind, flags)])[-1].split()
    return round(int(answer[0]) / MIB), int(answer[1]), answer[2]


def test_own_history_is_the_largest_of_the_last_three_and_a_margin(oracle: Path) -> None:
    runs = [unit("a.cu", peak, ms=ms) for peak, ms in ((9000, 1), (1000, 1000), (2000, 2000), (1500, 3000))]
    assert ask(oracle, *runs, of="a.cu") == (2100, 2000, "flags")


def test_other_flags_of_the_unit_come_before_all_others(oracle: Path) -> None:
    history = [unit("a.cu", 1000, obj="x/a.o", flags="f"), unit("a.cu", 3000, obj="y/a.o", flags="f")]
    assert ask(oracle, *history, of="a.cu", obj="x/a.o", flags="f") == (1050, 0, "flags")
    assert ask(oracle, *history, of="a.cu", obj="x/a.o", flags="g") == (1050, 0, "unit")
    assert ask(oracle, *history, of="a.cu", obj="z/b.o", flags="g") == (3150, 0, "source")


def test_a_history_by_source_alone_is_that_of_the_unit(oracle: Path) -> None:
    assert ask(oracle, unit("a.cu", 1000), of="a.cu", obj="x/a.cu.o", flags="f") == (1050, 0, "source")
    assert ask(oracle, unit("", 1000, obj="x/a.cu.o"), of="gen/a.cu", obj="x/a.cu.o", flags="f") == (1050, 0, "source")


def test_twins_differ_in_element_type_only_and_the_largest_counts(oracle: Path) -> None:
    history = [unit("k/f_hdim64_fp16_sm80.cu", 4000, ms=10_000), unit("k/f_hdim64_e4m3_sm80.cu", 4400)]
    assert ask(oracle, *history, of="k/f_hdim64_bf16_sm80.cu") == (4400, 10_000, "twin")
    assert ask(oracle, *history, of="k/f_hdim64_bf16_causal_sm80.cu")[2] == "fallback"
    assert ask(oracle, *history, of="k/f_hdim128_bf16_sm80.cu")[2] == "family"


def test_folder_needs_enough_units_and_takes_the_upper_quarter(oracle: Path) -> None:
    history = [
        unit(f"k/{name}.cu", peak) for name, peak in (("a", 400), ("b", 500), ("c", 600), ("d", 6000), ("e", 700))
    ]
    assert ask(oracle, *history, of="k/new.cu") == (700, 0, "folder")
    assert ask(oracle, *history[:2], of="k/new.cu") == (4096, 0, "fallback")


def test_unknown_cuda_starts_at_four_gib_whatever_is_ordinary(oracle: Path) -> None:
    plain = [("plain", "cu", 1 * GIB), ("plain", "cxx", 2 * GIB)]
    assert ask(oracle, *plain, of="n.cu")[0] == 4096
    assert ask(oracle, *plain, of="n.cpp", kind="cxx") == (2048, 0, "kind")


def test_the_last_hint_that_fits_counts(oracle: Path) -> None:
    hints = [("hint", "csrc/*", 2 * GIB), ("hint", "*c2x*", 6 * GIB)]
    assert ask(oracle, *hints, of="csrc/scaled_mm_c2x.cu") == (6144, 0, "hint")
    assert ask(oracle, *hints, of="csrc/other.cu") == (2048, 0, "hint")


def test_curves_are_combined_by_their_highest_points(oracle: Path) -> None:
    low, high = ",".join(["10"] * 15 + ["90"]), ",".join(["50"] * 16)
    answer = foretell(oracle, [unit("a.cu", 1, curve=low), unit("a.cu", 1, curve=high), ("ask", "a.cu", "", "cu", "")])
    assert answer[-1].split()[4] == ",".join(["50"] * 15 + ["90"])


def test_what_is_learned_in_the_build_counts_at_once_and_tells_of_its_speed(oracle: Path) -> None:
    history = [unit(f"{name}.cu", 1000, ms=10_000) for name in "abcd"]
    learned = [("learn", f"{name}.cu", "", "cu", "", 1000 * MIB, 20_000, "-") for name in "abc"]
    assert ask(oracle, *history, *learned, of="d.cu") == (1050, 20_000, "flags")
    assert ask(oracle, *history, *learned, of="a.cu") == (1050, 20_000, "flags")
    assert ask(oracle, *history, *learned[:2], of="d.cu") == (1050, 10_000, "flags")


def test_lines_that_are_not_understood_are_passed_over(oracle: Path) -> None:
    bad = [
        ("unit", "a"),
        unit("a.cu", -1),
        unit("a.cu", 1, curve="1,2"),
        ("unit", "", "", "cu", "", 1, 1, "-"),
        ("wish",),
    ]
    assert foretell(oracle, [*bad, unit("a.cu", 1)]) == ["taken 0"] * 5 + ["taken 1"]


@pytest.mark.parametrize(
    ("name", "numbers", "masked"),
    [
        ("k/f_hdim64_bf16_sm80.cu", 0, "k/f_hdim64_*_sm80.cu"),
        ("k/f_hdim64_bf16_causal_sm80.cu", 1, "k/f_hdim#_*_causal_sm#.cu"),
        ("sm80_kernel_bfloat16_u4b8_float16.cu", 0, "sm80_kernel_*_*_*.cu"),
        ("halfway.cu", 0, "halfway.cu"),
    ],
)
def test_masks(oracle: Path, name: str, numbers: int, masked: str) -> None:
    assert foretell(oracle, [("mask", name, numbers)]) == [masked]
