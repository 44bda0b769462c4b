"""What the broker and a build say to each other, as bytes and as values. One packet is one message.

To the broker: the verb alone on the first line, then ``key value`` lines. Its answer to ``build`` looks the same. All else
from it is one JSON object with one key, which says what it is. Numbers and texts that are missing or of another type are
taken as 0 and empty: a broker of another version is no reason to end a build.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Literal

from builder.events import GateState, UnitEnded, UnitRequeued
from builder.gate.units import CURVE, KINDS, Run, Unit, machine_class

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "LARGEST",
    "answer",
    "end_of",
    "message",
    "number",
    "parse",
    "requeue_of",
    "run_of",
    "state_of",
    "text",
    "unit_of",
]

#: No packet is larger, in bytes.
LARGEST = 1 << 18

_SHOWN = 12
_STOPS = frozenset({1, 2, 15})
_BY_SIGNAL = 128
_OUT_OF_MEMORY = 75
_PERCENT = 100


def message(verb: str, fields: Mapping[str, object]) -> bytes:
    """Return a packet to the broker; line ends in values become blanks."""
    lines = [verb, *(f"{key} {str(value).translate({10: ' ', 13: ' '})}" for key, value in fields.items())]
    return "\n".join(lines).encode(errors="surrogateescape")


def answer(packet: bytes) -> tuple[str, dict[str, str]]:
    """Return the verb and the fields of an answer."""
    verb, *lines = packet.decode(errors="replace").split("\n")
    return verb.strip(), {key: value for key, _blank, value in (line.partition(" ") for line in lines) if key}


def parse(packet: bytes) -> tuple[str, dict[str, Any]]:
    """Return what a JSON packet is and what it holds; an empty word when it is none."""
    try:
        raw = json.loads(packet)
    except (ValueError, RecursionError):
        return "", {}
    if not isinstance(raw, dict):
        return "", {}
    return next(((str(key), value) for key, value in raw.items() if isinstance(value, dict)), ("", {}))


def state_of(raw: Mapping[str, Any], *, peak_bytes: int) -> GateState:
    """Return the event of a ``state`` packet; what only the build knows is left at its default."""
    bounds: dict[str, Literal["memory", "cpu", "idle", "pressure"]]
    bounds = {"memory": "memory", "cpu": "cpu", "pressure": "pressure"}
    used = number(raw, "used")
    return GateState(
        used_bytes=used,
        promised_bytes=number(raw, "promised"),
        ceiling_bytes=number(raw, "ceiling"),
        peak_bytes=max(peak_bytes, used),
        available_bytes=number(raw, "available"),
        total_bytes=number(raw, "total"),
        jobs=number(raw, "jobs"),
        slots=number(raw, "slots"),
        waiting=number(raw, "waiting"),
        bound=bounds.get(text(raw, "bound"), "idle"),
        paused=raw.get("paused") is True,
        running=tuple(
            (
                text(one, "name"),
                number(one, "used"),
                number(one, "since_ms"),
                number(one, "last_ms"),
                text(one, "basis"),
            )
            for one in _objects(raw.get("running"))
        )[:_SHOWN],
    )


def unit_of(raw: Mapping[str, Any]) -> Unit:
    """Return who the unit of a packet is."""
    kind = text(raw, "kind")
    return Unit(
        source=text(raw, "source"),
        object=text(raw, "object"),
        kind=kind if kind in KINDS else "other",
        flags=text(raw, "flags"),
    )


def end_of(raw: Mapping[str, Any]) -> UnitEnded:
    """Return the event of a ``unit`` packet; `code` is 128 and the signal where a signal ended it, as in a shell."""
    signal = number(raw, "signal")
    return UnitEnded(
        name=text(raw, "name") or text(raw, "source") or text(raw, "object"),
        unit=text(raw, "source") or text(raw, "object"),
        ok=raw.get("ok") is True,
        peak_bytes=number(raw, "peak"),
        reserved_bytes=number(raw, "reserved"),
        ms=number(raw, "wall_ms"),
        wait_ms=number(raw, "wait_ms"),
        attempts=max(1, number(raw, "attempt")),
        code=_BY_SIGNAL + signal if signal else number(raw, "code"),
        beside=number(raw, "beside"),
        available_bytes=number(raw, "available_at_end"),
    )


def run_of(raw: Mapping[str, Any], *, recipe: str, toolchain: str, version: str, build: str, time: int) -> Run:
    """Return what the history keeps of a ``unit`` packet."""
    ended = end_of(raw)
    stopped = ended.code - _BY_SIGNAL in _STOPS or ended.code == _OUT_OF_MEMORY
    return Run(
        recipe=recipe,
        unit=unit_of(raw),
        peak_bytes=ended.peak_bytes,
        largest_bytes=number(raw, "largest"),
        wall_ms=ended.ms,
        cpu_ms=number(raw, "cpu_ms"),
        curve=_curve(text(raw, "curve")),
        attempts=ended.attempts,
        outcome="ok" if ended.ok else "stopped" if stopped else "failed",
        toolchain=toolchain,
        machine=machine_class(),
        version=version,
        build=build,
        time=time,
    )


def requeue_of(raw: Mapping[str, Any]) -> UnitRequeued:
    """Return the event of a ``requeue`` packet."""
    return UnitRequeued(
        name=text(raw, "name"),
        by="kernel" if text(raw, "why") == "kernel" else "gate",
        used_bytes=number(raw, "used"),
        next_bytes=number(raw, "next"),
    )


_LARGEST = 1 << 62
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def number(raw: Mapping[str, Any], key: str) -> int:
    """Return a whole number of a packet, 0 when there is none; what no database holds is cut down."""
    value = raw.get(key, 0)
    try:
        return max(-_LARGEST, min(int(value), _LARGEST)) if isinstance(value, int | float | str) else 0
    except (ValueError, OverflowError):
        return 0


def text(raw: Mapping[str, Any], key: str) -> str:
    """Return a text of a packet, empty when there is none; what a terminal would take for a command is replaced."""
    value = raw.get(key)
    return _CONTROL.sub("?", value) if isinstance(value, str) else ""


def _objects(value: object) -> Iterable[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _curve(told: str) -> tuple[int, ...]:
    points = tuple(int(one) for one in told.split(",") if one.isdigit() and int(one) <= _PERCENT)
    return points if len(points) == CURVE else ()
