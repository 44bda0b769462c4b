"""What a build would have taken with four jobs, the bound, and what is left: values in, values out."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from builder.gate.left import Pace, left_ms
from builder.gate.saved import Ran, bound, busy_ms, saved_ms, scheduled_ms
from builder.gate.units import Unit

GIB = 1 << 30


def ran(asked: int, wall: int, *, ended: int | None = None, peak: int = 0) -> Ran:
    return Ran(asked_ms=asked, ended_ms=asked + wall if ended is None else ended, wall_ms=wall, peak_bytes=peak)


units = st.lists(
    st.builds(
        lambda asked, wall, wait, peak: ran(asked, wall, ended=asked + wait + wall, peak=peak),
        st.integers(0, 100_000),
        st.integers(0, 50_000),
        st.integers(0, 50_000),
        st.integers(0, 10 * GIB),
    ),
    max_size=40,
)


def test_each_unit_starts_where_one_ended() -> None:
    held = [ran(number, wall) for number, wall in enumerate((8, 1, 1, 1, 1, 9))]
    assert scheduled_ms(held, 4) == 10  # 8 | 1 1 | 1 9 | 1
    assert scheduled_ms(held, 1) == 21
    assert scheduled_ms(held, 100) == 9
    assert scheduled_ms([], 4) == 0


def test_the_order_is_that_of_asking() -> None:
    late = [ran(5, 10), ran(1, 4), ran(2, 4)]
    assert scheduled_ms(late, 2) == 14  # the long one asked last


@given(units, st.integers(1, 64))
def test_a_schedule_lies_between_its_bounds(held: list[Ran], jobs: int) -> None:
    total, longest = sum(one.wall_ms for one in held), max((one.wall_ms for one in held), default=0)
    took = scheduled_ms(held, jobs)
    assert max(longest, -(-total // jobs)) <= took <= total
    assert took <= -(-total // jobs) + longest  # Graham's


def test_pauses_between_units_are_no_compiling() -> None:
    assert busy_ms([ran(0, 10), ran(5, 10), ran(100, 10)]) == 25
    assert busy_ms([ran(0, 100), ran(10, 10)]) == 100
    assert busy_ms([]) == 0


@given(units)
def test_busy_time_is_no_longer_than_the_span(held: list[Ran]) -> None:
    spans = [(one.asked_ms, one.ended_ms) for one in held]
    whole = max((end for _asked, end in spans), default=0) - min((asked for asked, _end in spans), default=0)
    assert max((one.wall_ms for one in held), default=0) <= busy_ms(held) <= whole


def test_what_twenty_cores_save_against_four_jobs() -> None:
    held = [ran(0, 60_000) for _number in range(20)]
    assert saved_ms(held, cores=20) == 5 * 60_000 - 60_000
    assert saved_ms(held, cores=20, jobs=10) == 60_000


def test_two_cores_have_no_four_jobs() -> None:
    held = [ran(0, 10, ended=20), ran(0, 10, ended=20), ran(0, 10), ran(0, 10)]
    assert saved_ms(held, cores=2) == 0  # on four it would be -10, on one 20
    assert saved_ms(held, cores=0) == 20


@given(units, st.integers(1, 64))
def test_nothing_is_saved_below_nothing(held: list[Ran], cores: int) -> None:
    saved = saved_ms(held, cores=cores)
    assert saved >= 0
    assert saved <= sum(one.wall_ms for one in held)


def test_the_bound_is_the_strongest_of_three() -> None:
    held = [ran(0, 1000, peak=8 * GIB), ran(0, 1000, peak=4 * GIB), ran(0, 100, peak=GIB)]
    whole = bound(held, cores=2, ceiling_bytes=10 * GIB)
    assert (whole.cpu_ms, whole.memory_ms, whole.longest_ms, whole.ms) == (1050, 1210, 1000, 1210)
    assert bound(held, cores=2, ceiling_bytes=0).ms == 1050
    assert bound(held, cores=20, ceiling_bytes=100 * GIB).ms == 1000
    assert bound([], cores=2, ceiling_bytes=1).ms == 0


def units_of(*times: int) -> dict[Unit, int]:
    return {Unit(source=f"{number}.cu"): ms for number, ms in enumerate(times)}


def test_known_units_are_shared_out_to_the_jobs() -> None:
    known = units_of(*[10_000] * 40)
    assert left_ms(known, Pace(jobs=10)) == (34_000, 46_000)
    assert left_ms(known, Pace(jobs=20)) == (17_000, 23_000)


def test_the_build_tools_count_says_how_many_are_left() -> None:
    known = units_of(*[10_000] * 40)
    assert left_ms(known, Pace(jobs=10, done=90, edges=100)) == (8_500, 11_500)
    assert left_ms(known, Pace(jobs=10, done=100, edges=100)) == (0, 0)
    assert left_ms(known, Pace(jobs=10, done=120, edges=100)) == (0, 0)


def test_unknown_units_widen_the_range() -> None:
    low, high = left_ms(units_of(10_000), Pace(jobs=1, done=0, edges=10)) or (0, 0)
    assert low < 100_000 < high
    assert (high - low) / 100_000 > 1
    ended = Pace(jobs=1, done=5, edges=10, ended=[(0, 3000)])
    assert left_ms({}, ended) == (round(15_000 * 0.25), round(15_000 * 1.75))


def test_nothing_known_is_no_estimate() -> None:
    assert left_ms({}, Pace(jobs=0)) is None
    assert left_ms({}, Pace(jobs=3, done=1, edges=10)) is None


def test_the_longest_that_runs_is_never_cut_short() -> None:
    assert left_ms(units_of(1000), Pace(jobs=20, done=9, edges=10, running=[90_000])) == (90_000, 103_500)


def test_a_slow_day_counts() -> None:
    known = units_of(*[10_000] * 10)
    slow = Pace(jobs=1, ended=[(1000, 2000)] * 5)
    assert left_ms(known, slow) == (170_000, 230_000)
    assert left_ms(known, Pace(jobs=1, ended=[(1000, 2000)] * 4)) == (85_000, 115_000)  # too few
    assert left_ms(known, Pace(jobs=1, ended=[(100, 200)] * 9)) == (85_000, 115_000)  # too short


@given(
    st.lists(st.integers(0, 10**6), max_size=20),
    st.floats(0, 64),
    st.integers(0, 50),
    st.integers(0, 50),
    st.lists(st.integers(0, 10**6), max_size=5),
)
def test_a_range_is_a_range(times: list[int], jobs: float, done: int, edges: int, running: list[int]) -> None:
    pace = Pace(jobs=jobs, done=done, edges=edges, running=running)
    found = left_ms(units_of(*times), pace)
    assert found is None or 0 <= found[0] <= found[1]


def test_more_done_is_never_more_left() -> None:
    known = units_of(*range(1000, 60_000, 1000))
    left = [left_ms(known, Pace(jobs=4, done=done, edges=80)) or (0, 0) for done in range(81)]
    assert all(later[1] <= sooner[1] for sooner, later in pairwise(left))
