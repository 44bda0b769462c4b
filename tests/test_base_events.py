from __future__ import annotations

import dataclasses
import io
import json
from typing import get_type_hints

import pytest

from builder import events
from builder.events import KINDS, Event, JsonLines, Note, PhaseEnded, PhaseStarted, PlanMade, Printed, Tee, parse_line

PLAN = PlanMade(
    recipe="triton",
    fingerprint="f" * 64,
    label="sb20260101000000.gffffffffff",
    hits=(),
    misses=("triton", "ä"),
    reasons=("new",),
    estimate_s=None,
)


def written(*some: Event, printed: bool = False) -> list[str]:
    stream = io.StringIO()
    sink = JsonLines(stream, build="f" * 12, clock=lambda: 1767225600.5, printed=printed)
    for event in some:
        sink.emit(event)
    return stream.getvalue().splitlines()


def test_a_line_has_head_and_fields() -> None:
    (line,) = written(PLAN)
    assert json.loads(line) == {
        "v": events.VERSION,
        "t": "2026-01-01T00:00:00.500Z",
        "build": "f" * 12,
        "seq": 1,
        "kind": "plan.made",
        "recipe": "triton",
        "fingerprint": "f" * 64,
        "label": "sb20260101000000.gffffffffff",
        "hits": [],
        "misses": ["triton", "ä"],
        "reasons": ["new"],
        "estimate_s": None,
    }
    assert "ä" in line


def sample(cls: type[Event]) -> Event:
    hints = get_type_hints(cls)
    values: dict[str, object] = {}
    for field in dataclasses.fields(cls):
        text = str(hints[field.name])
        values[field.name] = (
            ("a", "b") if "tuple" in text else 7 if text in {"<class 'int'>", "int | None"} else f"x {field.name}"
        )
    return cls(**values)


@pytest.mark.parametrize("cls", KINDS.values(), ids=KINDS.keys())
def test_every_event_comes_back_as_it_was(cls: type[Event]) -> None:
    event = sample(cls)
    (line,) = written(event, printed=True)
    raw, back = parse_line(line)
    assert back == event
    assert raw["kind"] == cls.kind


def test_kinds_are_unique_and_complete() -> None:
    named = {getattr(events, name) for name in events.__all__ if isinstance(getattr(events, name), type)}
    assert set(KINDS.values()) == {cls for cls in named if issubclass(cls, Event) and cls is not Event}
    assert len({cls.kind for cls in KINDS.values()}) == len(KINDS)


def test_raw_output_is_left_to_the_logs_and_takes_no_number() -> None:
    some = (PhaseStarted(phase="build"), Printed(phase="build", text="[1/9]"), Note(level="info", text="x"))
    assert [json.loads(line)["seq"] for line in written(*some)] == [1, 2]
    assert [json.loads(line)["kind"] for line in written(*some, printed=True)] == [
        "phase.started",
        "phase.printed",
        "note",
    ]


@pytest.mark.parametrize("cut", [1, 20, -1])
def test_a_line_torn_by_a_power_cut_is_a_value_error(cut: int) -> None:
    (line,) = written(PLAN)
    with pytest.raises(ValueError, match=r"."):
        parse_line(line[:cut])


@pytest.mark.parametrize("line", ["", "\0\0\0\0", "[]", "7", '"text"', "null"])
def test_what_is_no_json_object_is_a_value_error(line: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_line(line)


def test_a_kind_of_a_later_version_is_passed_on_unread() -> None:
    raw, event = parse_line('{"v": 9, "kind": "gate.waits", "unit": "a.cu"}')
    assert event is None
    assert raw["unit"] == "a.cu"


def test_a_field_of_a_later_version_is_left_out() -> None:
    (line,) = written(PhaseEnded(phase="build", status="ok", ms=5))
    more = json.dumps(json.loads(line) | {"cpu_ms": 9})
    raw, event = parse_line(more)
    assert event == PhaseEnded(phase="build", status="ok", ms=5)
    assert raw["cpu_ms"] == 9


def test_an_event_that_lacks_a_field_is_none() -> None:
    assert parse_line('{"kind": "phase.ended", "phase": "build"}')[1] is None


def test_a_tee_passes_on_in_order() -> None:
    class Names:
        def __init__(self, name: str) -> None:
            self.name = name

        def emit(self, event: Event) -> None:
            seen.append(f"{self.name} {event.kind}")

    seen: list[str] = []
    tee = Tee(Names("a"), Names("b"))
    tee.emit(PLAN)
    tee.emit(Note(level="info", text=""))
    assert seen == ["a plan.made", "b plan.made", "a note", "b note"]
