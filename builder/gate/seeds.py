"""Seed histories: what units took where a recipe was first measured, so that the first build on a machine isn't blind.

``recipes/seeds/<recipe>.csv``, in every folder that may hold recipes; a stronger layer's line about a unit replaces a weaker
one's. Lines that begin with ``#`` are comments; the first other one names the columns: ``unit`` (a source, or an object's
last two path parts), ``kind``, ``group``, ``peak_mib``, ``cpu_s`` and ``measured`` (1, or 0 for a figure that was inferred).
"""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

from builder.events import Note
from builder.gate.units import KINDS, Unit
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from builder.events import Sink

__all__ = ["FOLDER", "Seed", "find", "read"]

#: The folder beside the recipes.
FOLDER = "seeds"

_OBJECTS = (".o", ".obj", ".lo")
_SUFFIXES = {
    ".cu": "cu",
    ".cpp": "cxx",
    ".cc": "cxx",
    ".cxx": "cxx",
    ".c": "c",
    ".rs": "rust",
    ".so": "link",
    ".a": "link",
}
_MIB = 1 << 20
_MOST_MIB = 1 << 30
_MOST_S = 1 << 25


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """What one unit took elsewhere; `unit` has either a source or an object. `measured` is False for an inferred figure."""

    unit: Unit
    peak_bytes: int
    cpu_ms: int
    group: str = ""
    measured: bool = True


def find(recipe: str, folders: Iterable[Path], sink: Sink) -> tuple[Seed, ...]:
    """Return the seeds of `recipe` from folders of recipes, weakest first; a note tells of lines that couldn't be read."""
    found: dict[tuple[str, str], Seed] = {}
    for folder in folders:
        file = folder / FOLDER / f"{recipe}.csv"
        try:
            seeds, mistakes = read(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            seeds, mistakes = (), (str(error),)
        if mistakes:
            more = f" and {len(mistakes) - 1} more" if len(mistakes) > 1 else ""
            sink.emit(Note(level="warning", text=f"{file}: {mistakes[0]}{more}; passed over"))
        found |= {(seed.unit.source, seed.unit.object): seed for seed in seeds}
    return tuple(found.values())


def read(text: str) -> tuple[tuple[Seed, ...], tuple[str, ...]]:
    """Return the seeds of a file's text, and what is wrong with the lines that are none."""
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip() and line[0] != "#"]
    rows = csv.DictReader([line for _number, line in lines])
    missing = {"unit", "peak_mib", "cpu_s"} - set(rows.fieldnames or ())
    if missing:
        return (), (f"no column {', '.join(sorted(missing))}",) if lines else ()
    seeds, mistakes = [], []
    for (number, _line), row in zip(lines[1:], rows, strict=False):
        try:
            seeds.append(_seed(row))
        except ValueError as error:
            mistakes.append(f"line {number}: {error}")
    return tuple(seeds), tuple(mistakes)


def _seed(row: dict[str, str | None]) -> Seed:
    name = (row["unit"] or "").strip()
    if not name or not name.isprintable():
        raise ValueError("no unit")
    peak, cpu = _number(row, "peak_mib", _MOST_MIB), _number(row, "cpu_s", _MOST_S)
    if not peak:
        raise ValueError("peak_mib is 0")
    is_object = name.endswith(_OBJECTS)
    told = row.get("kind") or ""
    kind = told if told in KINDS else _kind(name)
    unit = Unit(object=name, kind=kind) if is_object else Unit(source=name, kind=kind)
    measured = (row.get("measured") or "1").strip() not in {"0", "no", "false"}
    return Seed(
        unit=unit,
        peak_bytes=round(peak * _MIB),
        cpu_ms=round(cpu * 1000),
        group=row.get("group") or "",
        measured=measured,
    )


def _number(row: dict[str, str | None], column: str, most: int) -> float:
    text = row[column] or ""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= most:
        raise ValueError(f"{column} is {text!r}, wanted a number from 0 to {most}")
    return value


def _kind(name: str) -> str:
    """Return a unit's kind by its name: of an object, by what stands before ``.o`` (``x.cuda.o``, ``x.cu.o``)."""
    for suffix in _OBJECTS:
        name = name.removesuffix(suffix)
    if name.endswith((".cuda", ".cu")):
        return "cu"
    return next((kind for suffix, kind in _SUFFIXES.items() if name.endswith(suffix)), "other")
