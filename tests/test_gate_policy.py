from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.gate_kit import Player, built, play

if TYPE_CHECKING:
    from pathlib import Path

CURVE = ",".join(["50", "100", "100", "100", "100", "100", "100", "100"] + ["35"] * 8)


@pytest.fixture(scope="session", params=["plain", "sanitized"])
def gate(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory, sanitize=request.param == "sanitized")


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory)


def start(cores: int = 8, available: int = 10_000, reserve: int = 1000, total: int | None = None) -> list[str]:
    total = available - reserve if total is None else total
    return [f"set cores {cores}", "0 open 1", f"0 room 0 {available} {reserve} {total}"]


def only(lines: list[str], *verbs: str) -> list[str]:
    return [line for line in lines if line.split()[1] in verbs]


def test_as_many_start_as_reservations_allow(gate: Path) -> None:
    asked = [f"0 request {unit} 1 3000 1000 flags" for unit in range(1, 6)]
    assert play(gate, [*start(), *asked, "0 decide"]) == ["0 grant 1 3000 1", "0 grant 2 3000 1", "0 grant 3 3000 1"]


def test_promises_count_not_only_what_is_used(gate: Path) -> None:
    events = [*start(), "0 request 1 1 6000 1000 flags", "0 decide", "1 sample 1 100", "1 room 0 9900 1000 9000"]
    assert play(gate, [*events, "1 request 2 1 4000 1000 flags", "1 decide"]) == ["0 grant 1 6000 1"]


def test_cores_and_slots_bound(gate: Path) -> None:
    asked = [f"0 request {unit} 1 10 1000 flags slots 2" for unit in range(1, 6)]
    assert len(play(gate, [*start(cores=5), *asked, "0 decide"])) == 2


def test_a_builds_jobs_bound_it_alone(gate: Path) -> None:
    events = ["set cores 8", "0 open 1 jobs 2", "0 open 2", "0 room 0 9000 0 9000"]
    asked = [f"0 request {unit} {1 + unit % 2} 10 1000 flags" for unit in range(10)]
    granted = [int(line.split()[2]) for line in play(gate, [*events, *asked, "0 decide"])]
    assert sum(unit % 2 == 0 for unit in granted) == 2
    assert sum(unit % 2 == 1 for unit in granted) == 5


def test_a_builds_memory_is_a_room_of_its_own(gate: Path) -> None:
    events = ["set cores 8", "0 open 1 memory 2000", "0 open 2", "0 room 0 9000 0 9000"]
    asked = [f"0 request {unit} {1 + unit % 2} 900 1000 flags" for unit in range(8)]
    granted = [int(line.split()[2]) % 2 for line in play(gate, [*events, *asked, "0 decide"])]
    assert (granted.count(0), granted.count(1)) == (2, 4)


def test_a_build_over_its_memory_loses_its_youngest(gate: Path) -> None:
    events = ["set cores 8", "0 open 1 memory 2000", "0 room 0 9000 0 9000", "0 request 1 1 900 1000 flags", "0 decide"]
    later = ["1 request 2 1 900 1000 flags", "1 decide", "2 sample 1 900", "2 sample 2 1200", "2 decide"]
    assert only(play(gate, [*events, *later]), "kill") == ["2 kill 2"]


def test_a_builds_own_reserve_is_kept(gate: Path) -> None:
    events = ["0 open 1 reserve 6000", "0 open 2", "0 room 0 10000 1000 9000"]
    asked = ["0 request 1 1 5000 9000 flags", "0 request 2 2 4500 1000 flags", "0 decide"]
    assert play(gate, ["set cores 8", *events, *asked])[0] == "0 grant 2 4500 1"


def test_a_reserve_lowers_the_room_for_guesses_too(gate: Path) -> None:
    events = ["set cores 8", "0 open 1 reserve 8500", "0 room 0 10000 1000 9000"]
    asked = [f"0 request {unit} 1 1000 1000 fallback" for unit in range(1, 4)]
    assert play(gate, [*events, *asked, "0 decide"]) == ["0 grant 1 1000 1"]


def test_a_reserve_above_all_there_is_fails_and_says_so(gate: Path) -> None:
    events = ["set cores 8", "0 open 1 reserve 900000", "0 room 0 10000 1000 9000"]
    asked = [f"0 request {unit} 1 1000 1000 fallback" for unit in range(1, 4)]
    lines = play(gate, [*events, *asked, "0 decide"])
    assert [line.split()[1] for line in lines] == ["fail"] * 3
    assert "at most 0.0 GiB can ever be had here" in lines[0]
    assert "--reserve" in lines[0]


def test_a_control_group_bounds_whoever_is_in_it(gate: Path) -> None:
    events = [*start(), "0 room 7 2000 100 1900"]
    asked = [
        "0 request 1 1 1500 1000 flags domains 0,7",
        "0 request 2 1 1500 1000 flags domains 0,7",
        "0 request 3 1 1500 1 flags",
    ]
    assert {line.split()[2] for line in play(gate, [*events, *asked, "0 decide"])} in ({"1", "3"}, {"2", "3"})


def test_the_longest_starts_first_where_memory_is_ample(gate: Path) -> None:
    asked = ["0 request 1 1 900 1000 flags", "0 request 2 1 100 9000 flags", "0 request 3 1 200 5000 flags", "0 decide"]
    assert [line.split()[2] for line in play(gate, [*start(cores=2, available=90_000), *asked])] == ["2", "3"]


def test_memory_times_time_counts_where_memory_is_short(gate: Path) -> None:
    asked = [
        "0 request 1 1 900 5000 flags",
        "0 request 2 1 4000 4000 flags",
        "0 request 3 1 4000 3500 flags",
        "0 decide",
    ]
    assert [line.split()[2] for line in play(gate, [*start(available=5000), *asked])] == ["2"]


def test_large_ones_leave_room_for_small_ones_on_the_other_cores(gate: Path) -> None:
    large = [f"0 request {unit} 1 4000 8000 flags" for unit in (1, 2)]
    small = [f"0 request {unit} 1 500 8000 flags" for unit in range(10, 40)]
    granted = [line.split()[2] for line in play(gate, [*start(), *large, *small, "0 decide"])]
    assert len(granted) == 8
    assert granted[0] == "1"
    assert "2" not in granted


def test_what_ends_before_the_head_can_start_may_pass_it_for_ever(gate: Path) -> None:
    events = [
        "set bypasses 0",
        *start(),
        "0 request 1 1 5000 500000 flags",
        "0 decide",
        "0 request 2 1 6000 600000 flags",
    ]
    short = [f"{100_000 + unit} request {unit} 1 500 1000 flags" for unit in (11, 12)]
    long = ["100020 request 13 1 4000 490000 flags"]
    lines = play(gate, [*events, "0 decide", *short, *long, "100020 decide"])
    assert [line.split()[2] for line in lines] == ["1", "11", "12"]


def test_harmful_bypasses_are_counted_and_timed(gate: Path) -> None:
    events = [
        "set bypasses 2",
        *start(),
        "0 request 1 1 5000 50000 flags",
        "0 decide",
        "0 request 2 1 9000 60000 flags",
    ]
    rest = [f"0 request {unit} 1 100 400000 flags" for unit in range(3, 8)]
    assert len(only(play(gate, [*events, "0 decide", *rest, "0 decide"]), "grant")) == 3
    late = [line.replace("0 request", "60001 request") for line in rest]
    assert len(only(play(gate, [*events, "0 decide", *late, "60001 decide"]), "grant")) == 1


def test_a_reservation_follows_the_curve_once_its_peak_was_seen(gate: Path) -> None:
    events = [*start(), f"0 request 1 1 8400 100000 flags curve {CURVE}", "0 decide", "30000 sample 1 8000"]
    down = ["60000 sample 1 2800", "60000 room 0 7200 1000 9000", "60000 request 2 1 5500 1000 flags", "60000 decide"]
    assert play(gate, [*events, *down])[-1] == "60000 grant 2 5500 1"
    never_seen = ["60000 sample 1 2800", "60000 views"]
    assert "running 8400" in play(gate, [*events[:-1], *never_seen])[-1]


def test_a_unit_above_its_curve_falls_back_to_its_peak(gate: Path) -> None:
    events = [*start(), f"0 request 1 1 8400 100000 flags curve {CURVE}", "0 decide", "30000 sample 1 8000"]
    assert "running 8400" in play(gate, [*events, "90000 sample 1 6000", "90000 views"])[-1]
    assert "running 3080" in play(gate, [*events, "190000 sample 1 2800", "190000 views"])[-1]


def test_an_outgrown_reservation_is_raised(gate: Path) -> None:
    lines = play(
        gate, [*start(), "0 request 1 1 1000 1000 flags", "0 decide", "1 sample 1 2000", "1 decide", "1 views"]
    )
    assert "running 2400 2000" in lines[-1]


def test_promises_on_peaks_are_overcommitted_once_peaks_no_longer_coincide(gate: Path) -> None:
    events = [*start(), "0 request 1 1 4600 100000 flags", "0 request 2 1 4400 100000 flags", "0 decide"]
    young = ["1000 request 3 1 1000 900000 flags", "1000 decide"]
    assert len(play(gate, [*events, *young])) == 2
    assert len(play(gate, [*events, *young, "40000 decide"])) == 3
    assert len(play(gate, [*events, "1000 request 3 1 1300 900000 flags", "40000 decide"])) == 2


def two_running() -> list[str]:
    ask = ["0 request 1 1 3000 90000 flags", "0 decide", "9 request 2 1 3000 90000 flags", "9 decide"]
    return [*start(), *ask, "10 sample 1 2000", "10 sample 2 1000"]


def test_below_the_low_mark_the_youngest_goes_and_never_the_oldest(gate: Path) -> None:
    lines = play(
        gate, [*two_running(), "20 room 0 490 1000 9000", "20 decide", "30 decide", "2100 decide", "9000 decide"]
    )
    assert only(lines, "kill") == ["20 kill 2"]


def test_the_next_victim_waits_for_the_memory_of_the_last(gate: Path) -> None:
    third = ["9 request 3 1 900 90000 flags", "9 decide", "20 room 0 490 1000 9000", "20 decide"]
    lines = play(gate, [*two_running(), *third, "30 decide", "2030 decide"])
    assert only(lines, "kill") == ["20 kill 3", "2030 kill 2"]
    back = ["30 ended 3 us 0", "30 room 0 600 1000 9000", "30 decide", "2030 decide"]
    assert only(play(gate, [*two_running(), *third, *back]), "kill") == ["20 kill 3"]


def test_youth_is_that_of_the_first_start(gate: Path) -> None:
    killed = ["20 room 0 490 1000 9000", "20 decide", "21 ended 2 us 1000", "21 room 0 8000 1000 9000", "21 decide"]
    newer = ["22 request 3 1 1000 90000 flags", "22 decide", "30 room 0 490 1000 9000", "30 decide"]
    lines = play(gate, [*two_running(), *killed, *newer])
    assert only(lines, "kill") == ["20 kill 2", "30 kill 3"]


def test_a_victim_comes_back_with_more_and_alone_in_the_end(gate: Path) -> None:
    with Player(gate) as player:
        player.tell(*start(available=40_000, total=39_000), "0 request 1 1 1000 9000 flags", "0 decide")
        granted = []
        for now, peak in ((10, 1200), (20, 2000), (30, 4000)):
            player.tell(f"{now} ended 1 kernel {peak}")
            granted += player.tell(f"{now} decide")
    assert granted == ["10 grant 1 1800 2", "20 grant 1 3000 3", "30 grant 1 6000 4 alone"]


def test_a_guess_that_has_to_be_alone_waits_for_the_others(gate: Path) -> None:
    events = [*start(), "0 request 1 1 100 0 fallback", "0 request 2 1 100 0 fallback", "0 decide"]
    kills = [line for n in (10, 20, 30) for line in (f"{n} ended 1 kernel 100", f"{n} decide")]
    lines = play(gate, [*events, *kills, "31 decide", "40 ended 2 success 100", "40 decide"])
    assert [line for line in lines if " grant 1 " in line][-2].startswith("20 ")
    assert lines[-1].startswith("40 grant 1 ")
    assert lines[-1].endswith(" alone")


def test_who_was_only_the_youngest_is_not_punished(gate: Path) -> None:
    killed = ["20 room 0 490 1000 9000", "20 decide", "21 ended 2 us 1000", "21 room 0 8000 1000 9000", "21 decide"]
    assert play(gate, [*two_running(), *killed])[-1] == "21 grant 2 3000 2"


def test_own_kills_are_no_attempts_kernel_kills_are(gate: Path) -> None:
    with Player(gate) as player:
        player.tell(*start(), "0 request 1 1 100 9000 flags", "0 decide")
        own = [player.tell(f"{n} ended 1 us 100", f"{n} decide")[0] for n in range(1, 20)]
        kernel = [player.tell(f"{n} ended 1 kernel 100", f"{n} decide")[0] for n in range(20, 24)]
    assert all(line.endswith("again") for line in own)
    assert [line.split()[-1] for line in kernel] == ["again", "again", "again", "done"]


def test_below_the_floor_the_oldest_is_frozen_then_killed(gate: Path) -> None:
    alone = [*start(), "0 request 1 1 3000 90000 flags", "0 decide", "10 sample 1 2000"]
    low = ["20 room 0 200 1000 9000", "20 decide", "319 decide", "320 decide"]
    assert play(gate, [*alone, *low]) == ["0 grant 1 3000 1", "20 freeze 1", "320 kill 1"]
    better = ["20 room 0 200 1000 9000", "20 decide", "30 room 0 600 1000 9000", "30 decide", "9000 decide"]
    assert play(gate, [*alone, *better]) == ["0 grant 1 3000 1", "20 freeze 1", "30 thaw 1"]


def test_a_stopped_oldest_goes_at_once_when_others_take_the_rest(gate: Path) -> None:
    alone = [*start(), "0 request 1 1 3000 90000 flags", "0 decide", "10 sample 1 2000"]
    low = [*alone, "20 room 0 240 1000 9000", "20 decide"]
    assert play(gate, [*low, "25 room 0 170 1000 9000", "25 decide"])[-1] == "25 kill 1"
    assert play(gate, [*low, "25 room 0 200 1000 9000", "25 decide"])[-1] == "20 freeze 1"


def taken_again_and_again(until: int) -> list[str]:
    """A guess starts whenever there seems to be room, and is killed two seconds later as somebody takes it."""
    lines = ["set pause_limit 10000", *start(), "0 request 1 1 4000 0 fallback", "0 room 0 1100 1000 9000", "0 decide"]
    for now in range(0, until, 2000):
        lines += [f"{now + 1900} ended 1 us 300", f"{now + 2000} room 0 1100 1000 9000", f"{now + 2000} decide"]
    return lines


def test_starting_again_and_again_is_no_progress(gate: Path) -> None:
    lines = play(gate, taken_again_and_again(20_000))
    assert len(only(lines, "grant")) == 5
    assert only(lines, "fail")[0].startswith("10000 fail 1 1 needs 3.9 GiB and for 10 s there were only 0.1 GiB")


def test_who_ends_by_itself_shows_that_there_is_memory(gate: Path) -> None:
    asked = ["8000 room 0 1300 1000 9000", "8000 request 2 1 200 900 flags", "8000 decide"]
    events = [*taken_again_and_again(6000), "7900 ended 1 us 300", *asked, "8900 ended 2 success 200"]
    again = [f"{now} decide" for now in (9000, 11_000, 18_999)]
    lines = play(gate, [*events, "8950 room 0 900 1000 9000", *again])
    assert "8000 grant 2 200 1" in lines
    assert not only(lines, "fail")
    assert only(play(gate, [*events, "8950 room 0 900 1000 9000", *again, "19000 decide"]), "fail")


def test_memory_that_is_there_for_seconds_has_come_back(gate: Path) -> None:
    events = [*taken_again_and_again(6000), "7900 ended 1 us 300", "7900 room 0 9000 1000 9000", "7900 decide"]
    short = ["9000 decide", "12000 room 0 900 1000 9000", "12000 ended 1 us 300", "12000 decide"]
    assert only(play(gate, [*events, *short]), "fail")
    more = ["7950 request 2 1 8000 1000 flags", "7950 decide", "9000 decide", "13000 decide"]
    gone = ["14000 room 0 900 1000 9000", "14000 ended 1 us 300", "14000 decide", "23999 decide"]
    assert not only(play(gate, [*events, *more, *gone]), "fail")
    assert only(play(gate, [*events, *more, *gone, "24000 decide"]), "fail")


def test_peaks_that_come_one_after_the_other_may_overlap_otherwise(gate: Path) -> None:
    """The first is past 80 % of its time when the second starts, whose peak comes after that."""
    late = ",".join(str(min(100, 9 * (n + 1))) for n in range(16))
    events = [*start(), f"0 request 1 1 8000 10000 flags curve {late}", "0 decide", "8000 sample 1 6500"]
    room = ["8000 room 0 3500 1000 9000", f"8000 request 2 1 8000 100000 flags curve {late}"]
    assert play(gate, [*events, *room, "8000 decide"])[-1] == "8000 grant 2 8000 1"
    early = [
        line.replace("8000 ", "3000 ", 1).replace("sample 1 6500", "sample 1 2600") for line in (events[-1], *room)
    ]
    assert len(play(gate, [*events[:-1], *early, "3000 decide"])) == 1
    plain = [line.replace(f" curve {late}", "") for line in (*events, *room)]
    assert len(play(gate, [*plain, "8000 decide"])) == 1


def test_a_pause_without_memory_ends_in_failure_after_its_limit(gate: Path) -> None:
    events = [
        *start(),
        "0 room 0 1500 1000 9000",
        "0 request 1 1 3000 9000 flags",
        "0 request 2 1 4000 1 flags",
        "0 decide",
    ]
    assert play(gate, [*events, "599999 decide"]) == []
    lines = play(gate, [*events, "600000 decide"])
    assert [line.split()[1:4] for line in lines] == [["fail", "1", "1"], ["fail", "2", "1"]]
    assert "2.4 GiB have to be freed" in lines[0]


def test_small_ones_go_on_while_others_hold_the_memory(gate: Path) -> None:
    events = [*start(), "0 room 0 1500 1000 9000", "0 request 1 1 3000 9000 flags", "0 decide"]
    small = [f"{n * 100_000} request {n} 1 300 900 flags" for n in (2,)]
    assert play(gate, [*events, *small, "200000 decide"]) == ["200000 grant 2 300 1"]


def test_a_guess_starts_at_once_when_nothing_runs(gate: Path) -> None:
    events = [*start(), "0 room 0 1100 1000 9000", "0 request 1 1 4000 0 fallback", "0 decide"]
    assert play(gate, events) == ["0 grant 1 4000 1"]
    assert play(gate, [line.replace("0 room 0 1100", "0 room 0 1000") for line in events]) == []


def test_a_known_unit_that_can_never_fit_fails_at_once(gate: Path) -> None:
    lines = play(gate, [*start(), "0 request 1 1 20000 1000 flags", "0 request 2 1 10 10 flags", "0 decide"])
    assert [line.split()[1:4] for line in lines] == [["fail", "1", "1"], ["fail", "2", "1"]]
    assert "needs 18.6 GiB" in lines[0]


def test_a_guess_that_can_never_fit_runs_alone(gate: Path) -> None:
    events = [*start(), "0 request 1 1 20000 1000 fallback", "0 request 2 1 10 10 flags", "0 decide"]
    assert play(gate, events) == ["0 grant 1 9000 1 alone"]


def test_a_unit_that_outgrew_all_there_is_fails(gate: Path) -> None:
    events = ["set cores 8", "0 open 1 memory 2000", "0 room 0 9000 0 9000", "0 request 1 1 900 1000 flags", "0 decide"]
    lines = play(gate, [*events, "1 sample 1 2100", "1 decide", "2 ended 1 us 2100", "2 decide"])
    assert lines[1:3] == ["1 kill 1", "2 verdict 1 fail"]
    assert lines[3].startswith("2 fail 1 1 needs more than 2.1 GiB")


def test_builds_share_gib_seconds_by_weight(gate: Path) -> None:
    held = {1: 0.0, 2: 0.0}
    with Player(gate) as player:
        player.tell("set cores 8", "0 open 1 weight 2", "0 open 2", "0 room 0 4000 0 4000")
        sizes = {unit: 1000 if unit % 2 else 500 for unit in range(400)}
        player.tell(
            *[f"0 request {unit} {1 + unit % 2} {size} {1000 + unit * 7} flags" for unit, size in sizes.items()]
        )
        ends: dict[int, int] = {}
        for now in range(0, 60_000, 100):
            over = [unit for unit, end in ends.items() if end <= now]
            decided = player.tell(*[f"{now} ended {unit} success 0" for unit in over], f"{now} decide")
            ends = {unit: end for unit, end in ends.items() if end > now}
            ends |= {int(line.split()[2]): now + 1000 + int(line.split()[2]) * 7 for line in only(decided, "grant")}
            for unit in ends:
                held[1 + unit % 2] += sizes[unit]
    assert held[1] / held[2] == pytest.approx(2, rel=0.2)


def test_paused_builds_start_nothing_and_go_on(gate: Path) -> None:
    events = [
        *start(),
        "0 change 1 paused 1",
        "0 request 1 1 100 100 flags",
        "0 decide",
        "5 change 1 paused 0",
        "5 decide",
    ]
    assert play(gate, events) == ["5 grant 1 100 1"]


def test_a_closed_build_gives_everything_back(gate: Path) -> None:
    events = [
        *start(),
        "0 open 2",
        "0 request 1 1 9000 100 flags",
        "0 decide",
        "0 request 2 2 9000 100 flags",
        "0 decide",
    ]
    assert play(gate, [*events, "1 close 1", "1 decide"])[-1] == "1 grant 2 9000 1"


def test_adopted_units_keep_their_promise(gate: Path) -> None:
    events = [*start(), "50 adopt 1 1 3000 90000 flags 6000 10", "50 request 2 1 4000 9 flags", "50 decide", "50 views"]
    assert [line.split()[3:5] for line in play(gate, events)] == [["running", "6000"], ["waiting", "4000"]]


def test_a_waiting_unit_is_revised_when_more_is_known(gate: Path) -> None:
    events = [*start(), "0 request 1 1 8000 0 fallback", "0 request 2 1 8000 0 fallback", "0 decide"]
    assert play(gate, [*events, "9 revise 2 500 700 twin", "9 decide"])[-1] == "9 grant 2 500 1"


def test_ticks_come_faster_where_memory_is_short_and_falling(gate: Path) -> None:
    events = [*start(), "0 request 1 1 3000 90000 flags", "0 decide", "0 next"]
    falling = [
        "1000 room 0 5000 1000 9000",
        "1000 decide",
        "1000 next",
        "1100 room 0 1000 1000 9000",
        "1100 decide",
        "1100 next",
    ]
    waits = [int(line.split()[2]) for line in only(play(gate, [*events, *falling]), "next")]
    assert waits[0] == 250
    assert 5 <= waits[2] < 20


UNITS = st.lists(
    st.tuples(st.integers(1, 9000), st.integers(60, 200), st.sampled_from(["flags", "fallback"]), st.floats(0.3, 2.0)),
    min_size=1,
    max_size=20,
)
COMFORT = 6000
RUN = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def live(plain: Path, units: list[tuple[int, int, str, float]], *, exact: bool = False) -> tuple[list[str], int, int]:
    """Let all units run on a machine of 10 GB, by seconds: what happened, how many are left, the most used."""
    log: list[str] = []
    with Player(plain) as player:
        player.tell(*start(cores=6))
        truth = {n: min(9000, round(peak * (1 if exact else factor))) for n, (peak, _t, _b, factor) in enumerate(units)}
        for n, (peak, seconds, basis, _factor) in enumerate(units):
            player.tell(f"0 request {n} 1 {peak} {seconds * 1000} {basis}")
        running: dict[int, int] = {}
        left, most = set(truth), 0

        def used(n: int, now: int) -> int:
            return min(truth[n], truth[n] * (now - running[n]) // (units[n][1] * 500))

        now = 0
        while left and now < 30_000_000:
            for n in [n for n, since in running.items() if now - since >= units[n][1] * 1000]:
                running.pop(n)
                left.discard(n)
                player.tell(f"{now} ended {n} success {truth[n]}")
            total = sum(used(n, now) for n in running)
            most = max(most, total)
            samples = [f"{now} sample {n} {used(n, now)}" for n in running]
            decided = player.tell(*samples, f"{now} room 0 {10_000 - total} 1000 9000", f"{now} decide")
            oldest = min(running, key=lambda n: (first[n], n)) if (first := _first_starts(log)) and running else None
            for line in decided:
                verb, unit = line.split()[1], int(line.split()[2])
                assert not (verb == "kill" and unit == oldest and 10_000 - total >= 250), "the oldest was killed"
                if verb == "grant":
                    running[unit] = now
                elif verb == "kill":
                    peak = used(unit, now)
                    running.pop(unit)
                    player.tell(f"{now} ended {unit} us {peak}")
            log += decided
            now += 1000 if total < COMFORT else 100  # the broker looks again in milliseconds where memory is short
    return log, len(left), most


def _first_starts(log: list[str]) -> dict[int, int]:
    first: dict[int, int] = {}
    for line in log:
        when, verb, unit = line.split()[:3]
        if verb == "grant":
            first.setdefault(int(unit), int(when))
    return first


@RUN
@example(units=[(545, 60, "flags", 2.0), (4456, 60, "flags", 2.0), (1, 60, "flags", 1.0)])
@given(units=UNITS)
def test_every_unit_ends_and_the_oldest_is_spared(plain: Path, units: list[tuple[int, int, str, float]]) -> None:
    _log, left, most = live(plain, units)
    assert left == 0
    assert most <= 10_000


@RUN
@given(units=UNITS)
def test_the_same_events_bring_the_same_decisions(plain: Path, units: list[tuple[int, int, str, float]]) -> None:
    assert live(plain, units[:8]) == live(plain, units[:8])


@RUN
@given(units=UNITS)
def test_never_more_is_promised_than_there_is(plain: Path, units: list[tuple[int, int, str, float]]) -> None:
    asked = [f"0 request {n} 1 {peak} {seconds * 1000} flags" for n, (peak, seconds, _b, _f) in enumerate(units)]
    granted = play(plain, ["set overcommit 1", *start(cores=40), *asked, "0 decide"])
    assert sum(int(line.split()[3]) for line in granted) <= 9000
    assert granted


@RUN
@given(large=st.integers(5000, 9000), small=st.integers(100, 3000), seconds=st.integers(1, 300))
def test_a_large_unit_is_not_starved_by_a_stream_of_small_ones(
    plain: Path, large: int, small: int, seconds: int
) -> None:
    """New ones come for ever, and all last longer than they were said to."""
    with Player(plain) as player:
        player.tell(*start(cores=20))
        running: dict[int, int] = {}
        asked = 1
        for now in range(0, 3_000_000, 5000):
            if now == 10_000:
                player.tell(f"{now} request 0 1 {large} 600000 flags")
            ended = [n for n, since in running.items() if now - since >= seconds * 1300]
            running = {n: since for n, since in running.items() if n not in ended}
            player.tell(*[f"{now} ended {n} success {small}" for n in ended])
            player.tell(*[f"{now} request {n} 1 {small} {seconds * 1000} flags" for n in range(asked, asked + 20)])
            asked += 20
            for line in only(player.tell(f"{now} decide"), "grant"):
                running[int(line.split()[2])] = now
            if 0 in running:
                return
    pytest.fail("it never started")
