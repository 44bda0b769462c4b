"""Whether a wheel can be filed under its name, and under the fingerprint that it says it has."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from builder.errors import CheckRefused, UsageError

if TYPE_CHECKING:
    from builder.stages import Stored, Wheel
    from builder.wheelhouse.publish import Filing
    from builder.wheelhouse.store import Wheelhouse

__all__ = ["known"]


def known(house: Wheelhouse, wheel: Wheel, filing: Filing) -> Stored | None:
    """Return the wheel as stored when the same bytes are there and listed, None when it can be filed.

    Raises UsageError ``name-taken`` when its name stands for other bytes; CheckRefused ``build-taken`` for a foreign one.
    """
    if house.taken(wheel.filename, wheel.sha256):
        raise UsageError(
            "name-taken",
            f"{wheel.filename} already stands for other bytes",
            cause="a name never gets new bytes: clients keep what they downloaded under it",
            help="give the wheel another version or build number",
            run=(f"spark-build wheels list {shlex.quote(wheel.project)} --all",),
        )
    for stored in house.catalogue.stored("sha256=? AND state<>'unpublished'", (wheel.sha256,)):
        if house.is_whole(stored):
            return stored
    if filing.foreign and filing.fingerprint:
        _refuse_stand_in(house, wheel, filing)
    return None


def _refuse_stand_in(house: Wheelhouse, wheel: Wheel, filing: Filing) -> None:
    for stored in house.catalogue.stored("fingerprint=? AND state<>'unpublished'", (filing.fingerprint,)):
        if wheel.output == stored.output and stored.sha256 != wheel.sha256 and house.is_whole(stored):
            names = shlex.join([stored.filename, str(wheel.path)])
            raise CheckRefused(
                "build-taken",
                f"{wheel.filename} says it is the build {filing.fingerprint[:10]}, which is here with other bytes",
                cause=f"{stored.filename} has that fingerprint",
                help="one from elsewhere never stands in for it; compare the two",
                run=(f"spark-build wheels diff {names}",),
            )
