"""How stored wheels are shown: as lines, as JSON, and what a long run over them has read so far."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TextIO

from builder.recipe.units import show_bytes
from builder.ui.table import table
from builder.wheel.read import header

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from builder.stages import Stored
    from builder.wheelhouse.reindex import Report

__all__ = [
    "Progress",
    "age",
    "as_json",
    "detail_lines",
    "details",
    "list_lines",
    "load",
    "report_json",
    "report_lines",
]

_HEAD = ("PROJECT", "VERSION", "SIZE", "AGE", "RECIPE", "STATE")

#: Seconds between two lines about a run over many wheels.
_TELL_S = 5.0


def age(seconds: float) -> str:
    """Return an age in at most four columns: ``3h``, ``12d``."""
    for size, unit in ((86400 * 365, "y"), (86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return "now"


def as_json(wheel: Stored) -> dict[str, object]:
    """Return a wheel for programs."""
    return {
        "project": wheel.project,
        "wheel_version": wheel.version,
        "filename": wheel.filename,
        "path": str(wheel.path),
        "sha256": wheel.sha256,
        "size": wheel.size,
        "created": wheel.created,
        "recipe": wheel.recipe,
        "output": wheel.output,
        "fingerprint": wheel.fingerprint,
        "state": wheel.state,
        "requires_python": wheel.requires_python,
    }


def list_lines(wheels: Sequence[Stored], *, now: float) -> tuple[str, list[str]]:
    """Return a head and one line a wheel; nothing is cut, so that a line can be read by a program."""
    rows = [
        (
            wheel.project,
            wheel.version,
            show_bytes(wheel.size).replace(" ", "").replace("iB", ""),
            age(max(0.0, now - wheel.created)),
            wheel.recipe or "-",
            "" if wheel.state == "published" else wheel.state,
        )
        for wheel in wheels
    ]
    head, *lines = table(_HEAD, rows, width=10_000, shrink=(0,))
    return head, lines


def load(sidecar: Path) -> dict[str, Any]:
    """Return the record beside a wheel; empty where there is none that can be read."""
    try:
        record = json.loads(sidecar.read_bytes())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def details(
    wheel: Stored,
    metadata: bytes,
    inputs: Mapping[str, Any] | None,
    record: Mapping[str, Any],
    channels: Sequence[str],
) -> dict[str, Any]:
    """Return all that is known about one wheel; what isn't known is None."""
    label = wheel.version.partition("+")[2]
    return {
        **as_json(wheel),
        "label": label if label.startswith("sb") else None,
        "channels": list(channels),
        "summary": header(metadata, "Summary"),
        "metadata_sha256": wheel.metadata_sha256,
        "source": {**record.get("source", {}), **inputs["source"]} if inputs and "source" in inputs else None,
        "patches": [patch["id"] for patch in inputs.get("patches", [])] if inputs else [],
        "provenance": dict(record) or None,
    }


def detail_lines(document: Mapping[str, Any]) -> list[str]:
    """Return `details` as lines of a name and a value."""
    source = document["source"] or {}
    record = document["provenance"] or {}
    names = ("url", "ref", "commit", "version", "tree")
    shown = {
        "path": document["path"],
        "sha256": document["sha256"],
        "size": f"{document['size']} bytes ({show_bytes(document['size'])})",
        "project": document["project"],
        "version": document["wheel_version"],
        "summary": document["summary"],
        "requires-python": document["requires_python"],
        "state": document["state"],
        "channels": ", ".join(document["channels"]),
        "label": document["label"],
        "fingerprint": document["fingerprint"],
        "recipe": document["recipe"],
        "output": document["output"],
        "source": " ".join(f"{name}={source[name]}" for name in names if source.get(name)),
        "patches": ", ".join(document["patches"]),
        "built": _built(record),
        "record": f"{document['path']}.provenance.json" if record else "none",
    }
    return [f"{name:<16} {value}" for name, value in shown.items() if value]


def _built(record: Mapping[str, Any]) -> str:
    import time  # noqa: PLC0415

    moment = record.get("built") or (record.get("added") or {}).get("time")
    if not isinstance(moment, int):
        return ""
    words = [time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(moment))]
    words += ["added from a file"] if "added" in record else []
    isolation, host = record.get("isolation"), record.get("host")
    words += [f"isolation {isolation['level']}"] if isinstance(isolation, dict) and "level" in isolation else []
    words += [f"on {host['machine']}"] if isinstance(host, dict) and "machine" in host else []
    return ", ".join(words)


class Progress:
    """Tells on a stream how far a run over many wheels is, when it takes long."""

    def __init__(self, stream: TextIO, clock: Callable[[], float]) -> None:
        self._stream = stream
        self._clock = clock
        self._last = clock()

    def read(self, done: int, total: int) -> None:
        """Take note that `done` of `total` wheels were read."""
        if self._clock() - self._last >= _TELL_S:
            self._last = self._clock()
            self._stream.write(f"read {done} of {total} wheels\n")
            self._stream.flush()


def report_json(report: Report) -> dict[str, object]:
    """Return what a reindex found, for programs."""
    return {
        "listed": report.listed,
        "unpublished": list(report.unpublished),
        "left_out": list(report.left_out),
        "missing": list(report.missing),
    }


def report_lines(report: Report) -> list[str]:
    """Return what a reindex found: a count, and a line for each file that isn't as it was published."""
    lines = [f"{report.listed} wheel{'' if report.listed == 1 else 's'} listed"]
    lines += [f"unpublished: {name}" for name in report.unpublished]
    lines += [f"left out: {text}" for text in report.left_out]
    lines += [f"missing: {name}" for name in report.missing]
    return lines
