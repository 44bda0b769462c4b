"""The compatibility rule of device code: which chip runs what, and what a file or a wheel is worth by that."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.audit.facts import DeviceCode, Image, Unit
from builder.audit.target import Capability, Coverage, architectures, cover, running, total, verdict
from builder.errors import UsageError

SPARK = Capability(12, 1)

#: Of the kind that decides first to the one that decides last, as the driver goes.
BEST = ("native", "jit", "unknown", "dead", "absent")


def image(word: str, size: int = 8) -> Image:
    """Return the image that ``sm_121a``, ``compute_90``, ``lto_120`` or ``?`` names."""
    if word == "?":
        return Image(kind="unknown", sm=0, size=size)
    prefix, _, rest = word.partition("_")
    kind = {"sm": "cubin", "compute": "ptx", "lto": "lto-ir"}[prefix]
    digits = rest.rstrip("af?")
    return Image(kind=kind, sm=int(digits), variant=rest[len(digits) :], size=size)  # type: ignore[arg-type]


def unit(words: str, section: str = ".nv_fatbin") -> Unit:
    return Unit(images=tuple(map(image, words.split())), section=section)


def code(*units: str, unknown: str = "") -> DeviceCode:
    return DeviceCode(units=tuple(map(unit, units)), unknown=unknown)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("12.1", (12, 1)),
        ("12.1a", (12, 1)),
        ("12.0f", (12, 0)),
        ("sm_121", (12, 1)),
        ("sm_121a", (12, 1)),
        ("compute_90", (9, 0)),
        ("121", (12, 1)),
        ("90", (9, 0)),
        ("8.7", (8, 7)),
        (" 10.3 ", (10, 3)),
    ],
)
def test_target_is_read_in_all_its_spellings(text: str, wanted: tuple[int, int]) -> None:
    assert Capability.parse(text) == Capability(*wanted)
    assert Capability.parse(str(Capability.parse(text))) == Capability(*wanted)


@pytest.mark.parametrize(
    "text", ["", "12", "1.2", "12.", ".1", "12.10", "sm_", "gb10", "12.1b", "-12.1", "१२.१", "1211"]
)
def test_what_names_no_capability_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Capability.parse(text)
    assert caught.value.code == "target"
    assert "12.1" in caught.value.cause


#: What each target makes of each image; a row is an image, a column a target. By hand, from the guide.
TARGETS = ("12.1", "12.0", "11.0", "10.3", "10.0", "9.0", "8.9", "8.7", "8.6", "8.0")
RULE = {
    # image          12.1     12.0     11.0     10.3     10.0     9.0      8.9      8.7      8.6      8.0
    "sm_121": "      native   dead     absent   absent   absent   absent   absent   absent   absent   absent",
    "sm_121f": "     native   dead     absent   absent   absent   absent   absent   absent   absent   absent",
    "sm_121a": "     native   dead     absent   absent   absent   absent   absent   absent   absent   absent",
    "sm_120": "      native   native   absent   absent   absent   absent   absent   absent   absent   absent",
    "sm_120f": "     native   native   absent   absent   absent   absent   absent   absent   absent   absent",
    "sm_120a": "     dead     native   absent   absent   absent   absent   absent   absent   absent   absent",
    "sm_110": "      absent   absent   native   absent   absent   absent   absent   absent   absent   absent",
    "sm_110f": "     absent   absent   native   absent   absent   absent   absent   absent   absent   absent",
    "sm_110a": "     absent   absent   native   absent   absent   absent   absent   absent   absent   absent",
    "sm_101": "      absent   absent   native   absent   absent   absent   absent   absent   absent   absent",
    "sm_101a": "     absent   absent   native   absent   absent   absent   absent   absent   absent   absent",
    "sm_103": "      absent   absent   absent   native   dead     absent   absent   absent   absent   absent",
    "sm_103f": "     absent   absent   absent   native   dead     absent   absent   absent   absent   absent",
    "sm_103a": "     absent   absent   absent   native   dead     absent   absent   absent   absent   absent",
    "sm_100": "      absent   absent   absent   native   native   absent   absent   absent   absent   absent",
    "sm_100f": "     absent   absent   absent   native   native   absent   absent   absent   absent   absent",
    "sm_100a": "     absent   absent   absent   dead     native   absent   absent   absent   absent   absent",
    "sm_90": "       absent   absent   absent   absent   absent   native   absent   absent   absent   absent",
    "sm_90a": "      absent   absent   absent   absent   absent   native   absent   absent   absent   absent",
    "sm_89": "       absent   absent   absent   absent   absent   absent   native   dead     dead     dead",
    "sm_87": "       absent   absent   absent   absent   absent   absent   dead     native   dead     dead",
    "sm_86": "       absent   absent   absent   absent   absent   absent   native   native   native   dead",
    "sm_80": "       absent   absent   absent   absent   absent   absent   native   native   native   native",
    "sm_75": "       absent   absent   absent   absent   absent   absent   absent   absent   absent   absent",
    "compute_121": " jit      dead     absent   absent   absent   absent   absent   absent   absent   absent",
    "compute_121a": "jit      dead     absent   absent   absent   absent   absent   absent   absent   absent",
    "compute_120": " jit      jit      absent   absent   absent   absent   absent   absent   absent   absent",
    "compute_120f": "jit      jit      absent   absent   absent   absent   absent   absent   absent   absent",
    "compute_120a": "dead     jit      absent   absent   absent   absent   absent   absent   absent   absent",
    "compute_103f": "absent   absent   absent   jit      dead     absent   absent   absent   absent   absent",
    "compute_100": " jit      jit      jit      jit      jit      absent   absent   absent   absent   absent",
    "compute_100f": "absent   absent   absent   jit      jit      absent   absent   absent   absent   absent",
    "compute_90a": " absent   absent   absent   absent   absent   jit      absent   absent   absent   absent",
    "compute_90": "  jit      jit      jit      jit      jit      jit      absent   absent   absent   absent",
    "compute_89": "  jit      jit      jit      jit      jit      jit      jit      dead     dead     dead",
    "compute_87": "  jit      jit      jit      jit      jit      jit      jit      jit      dead     dead",
    "compute_80": "  jit      jit      jit      jit      jit      jit      jit      jit      jit      jit",
    "compute_50": "  jit      jit      jit      jit      jit      jit      jit      jit      jit      jit",
    "lto_121": "     absent   absent   absent   absent   absent   absent   absent   absent   absent   absent",
    "?": "           unknown  unknown  unknown  unknown  unknown  unknown  unknown  unknown  unknown  unknown",
}


@pytest.mark.parametrize("word", RULE)
def test_each_chip_runs_what_the_guide_says(word: str) -> None:
    wanted = dict(zip(TARGETS, RULE[word].split(), strict=True))
    assert {target: verdict(image(word), Capability.parse(target)) for target in TARGETS} == wanted
    assert {target: verdict(unit(word), Capability.parse(target)) for target in TARGETS} == wanted


@pytest.mark.parametrize("word", RULE)
def test_capability_10_1_is_the_old_name_of_11_0(word: str) -> None:
    assert verdict(image(word), Capability(10, 1)) == verdict(image(word), Capability(11, 0))


@pytest.mark.parametrize(
    ("images", "wanted"),
    [
        ("sm_120a sm_121a", "native"),
        ("sm_120a compute_120", "jit"),
        ("sm_120a compute_90", "jit"),
        ("sm_120a compute_120a", "dead"),
        ("sm_120a sm_90a", "dead"),
        ("sm_90a sm_100f", "absent"),
        ("sm_80 compute_80", "jit"),
        ("sm_80 ?", "unknown"),
        ("sm_120a ?", "unknown"),
        ("compute_80 ?", "jit"),
        ("sm_120 ?", "native"),
        ("lto_120 sm_90", "absent"),
        ("", "absent"),
    ],
)
def test_unit_is_worth_its_best_image(images: str, wanted: str) -> None:
    assert verdict(unit(images), SPARK) == wanted


@pytest.mark.parametrize(
    ("units", "wanted"),
    [
        (("sm_120f", "sm_120a", "sm_90a", "?"), "native"),
        (("compute_80", "sm_120a", "sm_90a"), "jit"),
        (("compute_80", "?"), "unknown"),
        (("sm_120a", "sm_90a"), "dead"),
        (("sm_90a", "sm_80"), "absent"),
        ((), "none"),
    ],
)
def test_file_is_worth_its_best_unit(units: tuple[str, ...], wanted: str) -> None:
    assert cover(code(*units), SPARK).verdict == wanted


def test_none_is_only_said_of_what_was_read_to_its_end() -> None:
    assert cover(None, SPARK).verdict == "none"
    assert cover(DeviceCode(), SPARK).verdict == "none"
    assert cover(code(unknown="no container at 64"), SPARK).verdict == "unknown"
    assert cover(code("sm_90a", "compute_80", unknown="no container at 64"), SPARK).verdict == "unknown"
    assert cover(code("sm_120", unknown="no container at 64"), SPARK).verdict == "native"


def test_counts_are_of_units_and_bytes_of_images() -> None:
    found = cover(
        DeviceCode(
            units=(
                Unit(images=(image("sm_120", 100), image("sm_90a", 10), image("compute_90", 3))),
                Unit(images=(image("compute_80", 1000),)),
                Unit(images=(image("sm_120a", 7),)),
                Unit(images=(image("?", 5),)),
                Unit(images=(image("sm_80", 30),)),
            )
        ),
        SPARK,
    )
    assert found == Coverage(
        verdict="native",
        native=1,
        jit=1,
        dead=1,
        absent=1,
        unknown=1,
        native_bytes=100,
        jit_bytes=1003,
        other_bytes=52,
    )


def test_relocatable_code_counts_only_where_nothing_was_linked() -> None:
    loose, linked = unit("sm_120", "__nv_relfatbin"), unit("sm_90a")
    assert running(DeviceCode(units=(loose, linked))) == (linked,)
    assert cover(DeviceCode(units=(loose, linked)), SPARK) == Coverage(verdict="absent", absent=1, other_bytes=16)
    assert running(DeviceCode(units=(loose,))) == (loose,)
    assert cover(DeviceCode(units=(loose,)), SPARK).verdict == "native"


@pytest.mark.parametrize(
    ("word", "target", "wanted"),
    [
        ("sm_90?", SPARK, "absent"),
        ("sm_100?", SPARK, "absent"),
        ("sm_121?", SPARK, "native"),
        ("sm_120?", SPARK, "unknown"),
        ("sm_121?", Capability(12, 0), "dead"),
        ("sm_100?", Capability(10, 3), "unknown"),
        ("sm_101?", Capability(11, 0), "native"),
    ],
)
def test_a_letter_that_is_not_noted_matters_only_where_it_decides(word: str, target: Capability, wanted: str) -> None:
    found = cover(code(word), target)
    assert (verdict(image(word), target), found.verdict, found.unknown) == (wanted, wanted, int(wanted == "unknown"))
    assert architectures(code(word)) == {word: 1}


def test_architectures_are_counted_the_oldest_first() -> None:
    found = architectures(code("sm_120f compute_90 sm_90", "sm_120f compute_120", "lto_100", "?"))
    assert list(found.items()) == [
        ("unknown", 1),
        ("sm_90", 1),
        ("compute_90", 1),
        ("lto-ir compute_100", 1),
        ("sm_120f", 2),
        ("compute_120", 1),
    ]
    assert architectures(None) == {}


KNOWN_SMS = (50, 52, 53, 60, 61, 62, 70, 72, 75, 80, 86, 87, 88, 89, 90, 100, 101, 103, 107, 110, 120, 121)
images = st.builds(
    Image,
    kind=st.sampled_from(["cubin", "ptx", "lto-ir", "unknown"]),
    sm=st.sampled_from(KNOWN_SMS),
    variant=st.sampled_from(["", "a", "f", "?"]),
    size=st.integers(0, 1 << 40),
)
units = st.builds(
    Unit, images=st.lists(images, max_size=5).map(tuple), section=st.sampled_from([".nv_fatbin", "a.o", ""])
)
codes = st.builds(DeviceCode, units=st.lists(units, max_size=5).map(tuple), unknown=st.sampled_from(["", "damaged"]))
targets = st.sampled_from(KNOWN_SMS).map(lambda sm: Capability(*divmod(sm, 10)))


@given(units, images, targets)
def test_one_image_more_never_makes_a_unit_worse(one: Unit, more: Image, target: Capability) -> None:
    before = verdict(one, target)
    after = verdict(Unit(images=(*one.images, more), section=one.section), target)
    assert BEST.index(after) <= BEST.index(before)


@given(images, targets)
def test_a_letter_never_makes_code_run_on_more_chips(one: Image, target: Capability) -> None:
    plain, family, exact = (
        verdict(Image(kind=one.kind, sm=one.sm, variant=letter), target) in {"native", "jit"}
        for letter in ("", "f", "a")
    )
    assert exact <= family <= plain


@given(images, targets)
def test_a_letter_that_is_not_noted_is_every_letter_at_once(one: Image, target: Capability) -> None:
    unsure, *sure = (verdict(Image(kind=one.kind, sm=one.sm, variant=letter), target) for letter in ("?", "", "a", "f"))
    assert unsure == (sure[0] if len(set(sure)) == 1 else "unknown")


@given(images, targets)
def test_machine_code_never_runs_on_an_older_chip(one: Image, target: Capability) -> None:
    if verdict(one, target) in {"native", "jit"}:
        assert Capability.of(one.sm) <= target.renamed


@given(codes, targets)
def test_coverage_accounts_for_every_unit_and_every_byte(one: DeviceCode, target: Capability) -> None:
    found = cover(one, target)
    assert found.native + found.jit + found.dead + found.absent + found.unknown == len(one.units)
    assert found.native_bytes + found.jit_bytes + found.other_bytes == sum(
        image.size for unit in one.units for image in unit.images
    )
    assert found.native == sum(verdict(unit, target) == "native" for unit in one.units)
    assert (found.verdict == "native") == bool(found.native)
    assert (found.verdict == "none") == (not one.units and not one.unknown)


@given(st.lists(codes, max_size=4), targets)
def test_a_wheel_is_the_sum_of_its_files(files: list[DeviceCode], target: Capability) -> None:
    together = cover(
        DeviceCode(
            units=tuple(unit for one in files for unit in one.units),
            unknown="damaged" if any(one.unknown for one in files) else "",
        ),
        target,
    )
    summed = total(cover(one, target) for one in files)
    assert summed == together


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("sm_90 sm_90a", "native"),
        ("compute_75 compute_80 compute_90 compute_90a", "jit"),
        ("sm_80 sm_89 sm_100 sm_100f sm_121a compute_100 compute_100f compute_121a", "absent"),
    ],
)
def test_as_a_real_gpu_of_9_0_answered(words: str, said: str) -> None:
    """An H200 with driver 580.159: one kernel for each, by nvcc 13.0; ``absent`` ended with ``no kernel image``."""
    assert {verdict(image(word), Capability(9, 0)) for word in words.split()} == {said}
