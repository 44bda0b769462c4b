"""How stored wheels are shown: as lines, as JSON, and what a long run over them has read so far."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TextIO

from builder.recipe.units import show_bytes
from builder.ui.style import clean
from builder.ui.table import table
from builder.wheel.read import header
from builder.wheelhouse import statement
from builder.wheelhouse.publish import signature
from builder.wheelhouse.statement import facts

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
    "note",
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


def note(wheel: Stored, told: Mapping[str, Any]) -> str:
    """Return what is to be said of a wheel's state; `told` has ``reason``, ``superseded`` and ``project_status``."""
    words = [": ".join(filter(None, [wheel.state, told["reason"]]))] if wheel.state != "published" else []
    words += ["superseded"] if told["superseded"] and not words else []
    words += [f"project {told['project_status']}"] if told["project_status"] != "active" else []
    return "; ".join(words)


def list_lines(
    wheels: Sequence[Stored], *, now: float, notes: Mapping[str, str] = MappingProxyType({})
) -> tuple[str, list[str]]:
    """Return a head and one line a wheel; nothing is cut, so that a line can be read by a program.

    `notes` say more than the state of a wheel, by sha256.
    """
    rows = [
        (
            clean(wheel.project),
            clean(wheel.version),
            show_bytes(wheel.size).replace(" ", "").replace("iB", ""),
            age(max(0.0, now - wheel.created)),
            clean(wheel.recipe) or "-",
            clean(notes.get(wheel.sha256, "" if wheel.state == "published" else wheel.state)),
        )
        for wheel in wheels
    ]
    head, *lines = table(_HEAD, rows, width=10_000, shrink=(0,))
    return head, lines


def load(sidecar: Path) -> dict[str, Any]:
    """Return the record beside a wheel; empty where there is none that can be read."""
    try:
        return statement.load(sidecar)[1]
    except (OSError, ValueError):
        return {}


def details(
    wheel: Stored,
    metadata: bytes,
    inputs: Mapping[str, Any] | None,
    record: Mapping[str, Any],
    channels: Sequence[str],
    kept: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return all that is known about one wheel; what isn't known is None.

    `kept` is what `foreign.kept` says: then record and inputs are claims of whoever made it.
    """
    label, said = wheel.version.partition("+")[2], facts(record)
    return {
        **as_json(wheel),
        "label": label if label.startswith("sb") else None,
        "channels": list(channels),
        "summary": header(metadata, "Summary"),
        "metadata_sha256": wheel.metadata_sha256,
        "source": _source(inputs, said),
        "patches": _patches(inputs),
        "claimed": kept is not None,
        "accepted": list((kept or {}).get("accepted", ())),
        "provenance": dict(record) or None,
        "signed": signature(wheel.path).is_file(),
    }


def _source(inputs: Mapping[str, Any] | None, said: Mapping[str, Any]) -> dict[str, Any] | None:
    own = inputs.get("source") if inputs else None
    return {**said.get("source", {}), **own} if isinstance(own, dict) else None


def _patches(inputs: Mapping[str, Any] | None) -> list[str]:
    """Return the names of the patches; inputs of a wheel from elsewhere may hold anything."""
    found = inputs.get("patches") if inputs else None
    return [str(one["id"]) for one in found if isinstance(one, dict) and "id" in one] if isinstance(found, list) else []


def detail_lines(document: Mapping[str, Any]) -> list[str]:
    """Return `details` as lines of a name and a value."""
    source = document["source"] or {}
    record = document["provenance"]
    claimed = document["claimed"]
    said = facts(record)
    by_record = " (claimed by the record it came with)" if claimed and "added" not in said else ""
    by_wheel = " (claimed by the wheel itself)" if claimed else ""
    names = ("url", "ref", "commit", "version", "tree")
    shown = {
        "path": document["path"],
        "sha256": document["sha256"],
        "size": f"{document['size']} bytes ({show_bytes(document['size'])})",
        "project": document["project"],
        "version": document["wheel_version"],
        "summary": document["summary"],
        "requires-python": document["requires_python"],
        "state": ": ".join(filter(None, [document["state"], document.get("reason")])),
        "channels": ", ".join(document["channels"]),
        "label": document["label"],
        "fingerprint": document["fingerprint"],
        "recipe": document["recipe"],
        "output": document["output"],
        "source": _mark(" ".join(f"{name}={source[name]}" for name in names if source.get(name)), by_wheel),
        "patches": _mark(", ".join(document["patches"]), by_wheel),
        "built": _mark(_built(said), by_record),
        "record": f"{document['path']}.provenance.json" if record else "none",
        "signature": f"{document['path']}.provenance.json.sig" if document["signed"] else "none",
    }
    rows = [*shown.items(), *(("let pass", _accepted(one)) for one in document["accepted"])]
    return [f"{name:<16} {clean(str(value))}" for name, value in rows if value]


def _mark(text: str, mark: str) -> str:
    return f"{text}{mark}" if text else ""


def _accepted(one: Mapping[str, str]) -> str:
    where = f" in {one['file']}" if one.get("file") else ""
    return f"{one.get('id')}{where}: {one.get('reason')}"


def _built(record: Mapping[str, Any]) -> str:
    import time  # noqa: PLC0415

    moment = record.get("built") or (record.get("added") or {}).get("time")
    if not isinstance(moment, int):
        return ""
    try:
        words = [time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(moment))]
    except (OverflowError, ValueError, OSError):
        return ""
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
