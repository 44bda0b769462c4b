"""The append-only record of every change of state.

One JSON object a line: ``seq``, ``t`` (seconds; the order is that of ``seq``), ``op``, its values, and ``crc``, the first
16 hex digits of the sha256 of the line's canonical JSON without it. A line is synced before what it announces happens, and a
line may be of any length. A torn last line, as a power cut leaves it (cut off, or with a hole of zero bytes), announced
something that never began: the next writer cuts it off. A bad line anywhere else is damage.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shlex
from typing import TYPE_CHECKING, Any

from builder import durable
from builder.digest import canonical_json, sha256_bytes
from builder.errors import WheelhouseError
from builder.stages import Stored
from builder.values import fields

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["append", "read", "row", "stored"]

#: What is read from the end at first; doubled while the last line is longer.
_TAIL = 1 << 16


def append(path: Path, *, now: float, op: str, **values: Any) -> None:  # noqa: ANN401  # any JSON
    """Append one entry and sync it. The caller holds the wheelhouse's write lock.

    Raises OSError, and the journal is as it was; WheelhouseError ``journal-damaged`` when its last line is no entry.
    """
    made = not path.exists()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        end, last = _last_line(descriptor)
        if end != os.fstat(descriptor).st_size:
            os.ftruncate(descriptor, end)
        entry = {"seq": _seq(last, path) + 1, "t": int(now), "op": op, **values}
        entry["crc"] = _crc(entry)
        _write(descriptor, canonical_json(entry) + b"\n", end, path)
    finally:
        os.close(descriptor)
    if made:
        durable.sync_folder(path.parent)


def _last_line(descriptor: int) -> tuple[int, bytes]:
    """Return where the last whole line ends, and that line; what a power cut tore isn't one."""
    end, line = _line_before(descriptor, os.fstat(descriptor).st_size)
    while b"\0" in line:
        end, line = _line_before(descriptor, end - len(line))
    return end, line


def _line_before(descriptor: int, end: int) -> tuple[int, bytes]:
    start, step, data = end, _TAIL, b""
    while start > 0:
        start, step = max(0, start - step), step * 2
        data = os.pread(descriptor, end - len(data) - start, start) + data
        newline = data.rfind(b"\n")
        before = data.rfind(b"\n", 0, max(newline, 0))
        if newline >= 0 and (before >= 0 or start == 0):
            return start + newline + 1, data[before + 1 : newline + 1]
    return 0, b""


def _seq(line: bytes, path: Path) -> int:
    if not line:
        return 0
    entry = _parse(line)
    if entry is None:
        raise _damaged(path, "$")
    return int(entry["seq"])


def _write(descriptor: int, data: bytes, end: int, path: Path) -> None:
    try:
        if os.write(descriptor, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))  # noqa: TRY301  # as the kernel would say
        os.fsync(descriptor)
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, end)
        raise


def _crc(entry: dict[str, Any]) -> str:
    return sha256_bytes(canonical_json({key: value for key, value in entry.items() if key != "crc"}))[:16]


def read(path: Path, *, but: tuple[bytes, ...] = ()) -> Iterator[dict[str, Any]]:
    """Yield every entry; stop before a torn last line; raise WheelhouseError ``journal-damaged`` for any other bad one.

    Lines that begin with one of `but` are passed over, unread.
    """
    for number, line, last in _lines(path):
        if line.startswith(but):
            continue
        if last and (not line.endswith(b"\n") or b"\0" in line):  # as the next writer sees it
            return
        entry = _parse(line)
        if entry is None:
            raise _damaged(path, str(number))
        yield entry


def row(wheel: Stored) -> dict[str, Any]:
    """Return a wheel as the journal keeps it: without its place, its time in milliseconds (canonical JSON has no floats)."""
    kept: dict[str, Any] = {one.name: getattr(wheel, one.name) for one in fields(wheel) if one.name != "path"}
    kept["created_ms"] = round(kept.pop("created") * 1000)
    return kept


def stored(root: Path, kept: Mapping[str, Any]) -> Stored:
    """Return a wheel of the wheelhouse at `root` from its row."""
    values = dict(kept)
    created = values.pop("created_ms") / 1000
    return Stored(**values, created=created, path=root / "wheels" / kept["project"] / kept["filename"])


def _lines(path: Path) -> Iterator[tuple[int, bytes, bool]]:
    """Yield number, text, and whether it is the last, of each line; nothing when there is no journal."""
    if not path.exists():
        return
    with path.open("rb") as stream:
        line, number = stream.readline(), 1
        while line:
            following = stream.readline()
            yield number, line, not following
            line, number = following, number + 1


def _damaged(path: Path, line: str) -> WheelhouseError:
    return WheelhouseError(
        "journal-damaged",
        f"{path} is damaged: {'its last line' if line == '$' else f'line {line}'} is no entry",
        help="put a copy in its place, or take that line out: wheels that only it knew come back unpublished",
        run=(f"sed -i.damaged '{line}d' {shlex.quote(str(path))}", "spark-build wheels reindex"),
    )


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
        if isinstance(entry, dict) and entry.get("crc") == _crc(entry) and isinstance(entry.get("seq"), int):
            return entry
    except (ValueError, TypeError, RecursionError):
        pass
    return None
