"""Wheels of a fingerprint that are no hit any more: withheld, changed or gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.wheelhouse import records

if TYPE_CHECKING:
    from collections.abc import Sequence

    from builder.stages import Stored
    from builder.wheelhouse.store import Wheelhouse

__all__ = ["newest", "told", "withheld"]


def newest(house: Wheelhouse, fingerprint: str, found: Sequence[Stored]) -> tuple[Stored, ...]:
    """Return the newest wheel that was published of each output of `fingerprint` but for those in `found`."""
    there = {wheel.output for wheel in found}
    stored = house.catalogue.stored("fingerprint=? AND state<>'unpublished'", (fingerprint,))
    return tuple({wheel.output: wheel for wheel in stored if wheel.output not in there}.values())


def withheld(house: Wheelhouse, wheel: Stored) -> str:
    """Return what a wheel is that isn't offered any more, with the reason; empty for one that is."""
    status = house.recall(records.PROJECT, wheel.project) or {}
    if status.get("status") == "quarantined":
        return _because(f"of a quarantined project, {wheel.project}", status.get("reason"))
    if wheel.state == "published":
        return ""
    return _because(wheel.state, (house.recall(records.WITHHELD, wheel.sha256) or {}).get("reason"))


def _because(what: str, reason: str | None) -> str:
    return f"{what} ({reason})" if reason else what


def told(house: Wheelhouse, wheel: Stored) -> str:
    """Return what became of a wheel that is no hit."""
    if why := withheld(house, wheel):
        return f"the stored wheel is {why}: {wheel.filename}"
    return f"the stored wheel {'was changed' if wheel.path.exists() else 'is gone'}: {wheel.filename}"
