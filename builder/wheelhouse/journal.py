"""The append-only record of every change of state.

One JSON object a line: ``seq``, ``t`` (seconds), ``op``, its values, and ``crc``, the first 16 hex digits of the sha256 of
the line's canonical JSON without it. A line is synced before what it announces happens. A torn last line, as a power cut
leaves it, is cut off by the next writer; a bad line anywhere else is damage.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from builder.digest import canonical_json, sha256_bytes
from builder.errors import WheelhouseError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["append", "read"]


def append(path: Path, *, now: float, op: str, **values: Any) -> None:  # noqa: ANN401  # any JSON
    """Append one entry and sync it. The caller holds the wheelhouse's write lock."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        tail = os.pread(descriptor, min(size, 1 << 20), max(0, size - (1 << 20)))
        if tail and not tail.endswith(b"\n"):  # torn by a power cut: it announced something that never began
            os.ftruncate(descriptor, size - len(tail) + tail.rfind(b"\n") + 1)
            tail = tail[: tail.rfind(b"\n") + 1]
        entry = {"seq": _last_seq(tail) + 1, "t": int(now), "op": op, **values}
        entry["crc"] = _crc(entry)
        data = canonical_json(entry) + b"\n"
        written = os.write(descriptor, data)
        if written != len(data):
            os.ftruncate(descriptor, os.fstat(descriptor).st_size - written)
            raise OSError(28, "No space left on device", str(path))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _last_seq(tail: bytes) -> int:
    lines = tail.splitlines()
    if not lines:
        return 0
    try:
        return int(json.loads(lines[-1])["seq"])
    except (ValueError, KeyError, TypeError):
        return len(lines)


def _crc(entry: dict[str, Any]) -> str:
    return sha256_bytes(canonical_json({key: value for key, value in entry.items() if key != "crc"}))[:16]


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Yield every entry; stop before a torn last line; raise WheelhouseError ``journal-damaged`` for any other bad one."""
    if not path.exists():
        return
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            entry = _parse(line)
            if entry is None:
                if not line.endswith(b"\n"):
                    return
                raise WheelhouseError(
                    "journal-damaged",
                    f"{path} is damaged in line {number}",
                    help="put the line right from a copy, or cut the file there: later changes are then unknown",
                )
            yield entry


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    if not isinstance(entry, dict) or entry.get("crc") != _crc(entry):
        return None
    return entry
