"""What channels listed before, from the journal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from builder.values import dataclass
from builder.wheelhouse import journal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from builder.wheelhouse.store import Wheelhouse

__all__ = ["Promotion", "before", "read"]


#: It lists all that comes, and has no history.
_LOCAL = "local"

#: How publishes begin in the journal that enter nothing else, in canonical JSON: nearly all of it, and long. The second is
#: what they were before publishes could append to channels.
_OTHERS = (b'{"also":{},"channel":"local",', b'{"channel":"local","crc":')


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """One of a channel's states, by sha256 in its order; `number` counts from 1 and stays, `time` is in seconds.

    `how` is ``promote``, ``append``, ``publish`` (wheels came with an upload) or ``rollback``; `back` is the number that a
    rollback went back to.
    """

    number: int
    time: float
    wheels: tuple[str, ...]
    how: str = "promote"
    back: int | None = None


def read(house: Wheelhouse) -> dict[str, list[Promotion]]:
    """Return what every channel listed, oldest first. Goes through the whole journal."""
    found: dict[str, list[Promotion]] = {}
    pending: dict[str, Mapping[str, Any]] = {}
    now: dict[str, dict[str, None]] = {}
    for entry in journal.read(house.root / "journal.jsonl", but=_OTHERS):
        match entry["op"]:
            case "promote":
                now[entry["channel"]] = dict.fromkeys(entry["wheels"])
                _add(found, entry, entry["channel"], now[entry["channel"]])
            case "publish.begin":
                pending[entry["id"]] = entry
            case "publish.undo":
                pending.pop(entry["id"], None)
            case "publish.end" if begun := pending.pop(entry["id"], None):
                for name, digests in _published(begun):
                    now.setdefault(name, {}).update(dict.fromkeys(digests))
                    _add(found, {"how": "publish", **begun}, name, now[name])
            case "remove":
                for members in now.values():
                    members.pop(entry["sha256"], None)
    return found


def _published(entry: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Yield what a publish appended to channels that have a history; ``local`` has none."""
    if entry["channel"] not in {None, _LOCAL}:
        yield entry["channel"], [row["sha256"] for row in entry["wheels"]]
    yield from entry.get("also", {}).items()


def _add(found: dict[str, list[Promotion]], entry: Mapping[str, Any], name: str, wheels: Iterable[str]) -> None:
    past = found.setdefault(name, [])
    past.append(
        Promotion(
            number=len(past) + 1,
            time=entry["created_ms"] / 1000 if "created_ms" in entry else float(entry["t"]),
            wheels=tuple(wheels),
            how=entry.get("how", "promote"),
            back=entry.get("back"),
        )
    )


def before(past: Sequence[Promotion], now: Sequence[str]) -> Promotion | None:
    """Return what a rollback without a number goes to: the last that isn't as `now`, before that to which one went last."""
    at = past[-1] if past else None
    while at is not None and (at.back is not None or list(at.wheels) == list(now)):
        number = at.back if at.back is not None else at.number - 1
        at = past[number - 1] if number else None
    return at
