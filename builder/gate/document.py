"""The history as a document: canonical JSON that goes with a wheel's record and is taken on another machine.

``{"kind": "spark-build units", "version": 1, "units": [...]}``; a unit has the fields of a run. Peaks are bytes, times
milliseconds of the machine class that it names.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from builder.digest import canonical_json
from builder.errors import UsageError
from builder.gate.units import CURVE, ELSEWHERE, KINDS, Run, Unit

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["VERSION", "read", "write"]

VERSION = 1
KIND = "spark-build units"

#: More than any machine has, in bytes; and more than any unit takes, in milliseconds: a year.
_BYTES = 1 << 50
_MS = 366 * 86_400_000

_LARGEST = 64 << 20
_NAME = 4096
_PERCENT = 100

_NAMES = ("recipe", "source", "object", "kind", "flags", "toolchain", "machine", "version", "build")
_NUMBERS = {
    "peak_bytes": _BYTES,
    "largest_bytes": _BYTES,
    "wall_ms": _MS,
    "cpu_ms": _MS,
    "attempts": 1 << 20,
    "time": 1 << 40,
}


def write(runs: Sequence[Run]) -> bytes:
    """Return the document of `runs`, sorted by unit: equal histories give equal bytes."""
    units = [
        {
            **{name: getattr(run.unit, name) for name in ("source", "object", "kind", "flags")},
            **{name: getattr(run, name) for name in ("recipe", "toolchain", "machine", "version", "build", *_NUMBERS)},
            "curve": list(run.curve),
        }
        for run in runs
    ]
    units.sort(key=canonical_json)
    return canonical_json({"kind": KIND, "version": VERSION, "units": units})


def read(data: bytes) -> tuple[Run, ...]:
    """Return the runs of a document, as runs from elsewhere; raise UsageError ``history-document`` for any other bytes."""
    try:
        return tuple(_run(one, number) for number, one in enumerate(_units(data)))
    except (ValueError, RecursionError) as error:
        raise UsageError(
            "history-document",
            "this is no history of units that spark-build exported",
            cause=str(error) or type(error).__name__,
            help="nothing of it was taken; export it anew where it was made",
        ) from error


def _units(data: bytes) -> list[Any]:
    if len(data) > _LARGEST:
        raise ValueError(f"{len(data)} bytes are more than a history has")
    raw = json.loads(data)
    if not isinstance(raw, dict) or raw.get("kind") != KIND:
        raise ValueError(f'no JSON object with "kind": "{KIND}"')
    if raw.get("version") != VERSION:
        raise ValueError(f"version {raw.get('version')!r}, and this spark-build knows {VERSION}")
    units = raw.get("units")
    if not isinstance(units, list):
        raise ValueError('"units" is no list')  # noqa: TRY004  # one error for all bad documents
    return units


def _run(raw: Any, number: int) -> Run:  # noqa: ANN401  # JSON
    if not isinstance(raw, dict):
        raise ValueError(f"units[{number}] is no object")  # noqa: TRY004
    names = {name: _name(raw, name, number) for name in _NAMES}
    numbers = {name: _number(raw, name, number, most) for name, most in _NUMBERS.items()}
    curve = raw.get("curve", [])
    whole = isinstance(curve, list) and all(type(one) is int and 0 <= one <= _PERCENT for one in curve)
    if not whole or len(curve) not in {0, CURVE}:
        raise ValueError(f"units[{number}].curve is no list of {CURVE} percentages")
    if names["kind"] not in KINDS:
        raise ValueError(f"units[{number}].kind is {names['kind']!r}, wanted one of {', '.join(KINDS)}")
    if not names["recipe"] or not (names["source"] or names["object"]) or not numbers["peak_bytes"]:
        raise ValueError(f"units[{number}] has no recipe, no name or no peak")
    return Run(
        recipe=names["recipe"],
        unit=Unit(source=names["source"], object=names["object"], kind=names["kind"], flags=names["flags"]),
        toolchain=names["toolchain"],
        machine=names["machine"],
        version=names["version"],
        build=names["build"],
        peak_bytes=numbers["peak_bytes"],
        largest_bytes=numbers["largest_bytes"],
        wall_ms=numbers["wall_ms"],
        cpu_ms=numbers["cpu_ms"],
        attempts=max(1, numbers["attempts"]),
        time=numbers["time"],
        curve=tuple(curve),
        origin=ELSEWHERE,
    )


def _name(raw: dict[str, Any], name: str, number: int) -> str:
    value = raw.get(name, "")
    if not isinstance(value, str) or len(value) > _NAME or not value.isprintable():
        raise ValueError(f"units[{number}].{name} is no name")
    return value


def _number(raw: dict[str, Any], name: str, number: int, most: int) -> int:
    value = raw.get(name, 0)
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"units[{number}].{name} is {value!r}, wanted a number from 0 to {most}")
    return value
