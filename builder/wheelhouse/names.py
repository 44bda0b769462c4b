"""Whether a wheel can be filed under its name, and under the fingerprint that it says it has."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from builder.errors import CheckRefused, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from builder.stages import Stored, Wheel
    from builder.wheelhouse.publish import Filing
    from builder.wheelhouse.store import Wheelhouse

__all__ = ["known", "meaning", "of"]


def known(house: Wheelhouse, wheel: Wheel, filing: Filing) -> Stored | None:
    """Return the wheel as stored when the same bytes are there and listed, None when it can be filed.

    Raises UsageError ``name-taken`` when its name stands for other bytes, for a foreign one in any spelling; CheckRefused
    ``build-taken`` for a foreign one.
    """
    if house.taken(wheel.filename, wheel.sha256):
        raise _taken(wheel, f"{wheel.filename} already stands for other bytes")
    for stored in house.catalogue.stored("sha256=? AND state<>'unpublished'", (wheel.sha256,)):
        if house.is_whole(stored):
            return stored
    if filing.foreign:
        if filing.fingerprint:
            _refuse_stand_in(house, wheel, filing)
        if other := _spelled_otherwise(house, wheel):
            raise _taken(wheel, f"{wheel.filename} is another spelling of {other}, which stands for other bytes")
    return None


def of(house: Wheelhouse, digests: Iterable[str]) -> dict[str, str]:
    """Return the file names of wheels by sha256, also of those that were removed."""
    wanted = frozenset(digests)
    rows = house.catalogue.rows("SELECT sha256, filename FROM names")
    return {str(sha256): str(filename) for sha256, filename in rows if sha256 in wanted}


def _taken(wheel: Wheel, summary: str) -> UsageError:
    return UsageError(
        "name-taken",
        summary,
        cause="a name never gets new bytes: clients keep what they downloaded under it",
        help="give the wheel another version or build number",
        run=(f"spark-build wheels list {shlex.quote(wheel.project)} --all",),
    )


def _spelled_otherwise(house: Wheelhouse, wheel: Wheel) -> str:
    """Return the name of other bytes that is, to installers, the name of `wheel`: ``Tiny-1.0-…`` for ``tiny-1.0.0-…``."""
    rows = house.catalogue.rows(
        "SELECT filename FROM names WHERE sha256<>? AND "
        "replace(replace(lower(substr(filename, 1, instr(filename, '-') - 1)), '.', ''), '_', '')=?",
        (wheel.sha256, wheel.project.replace("-", "")),
    )
    own = meaning(wheel.filename) if rows else ()
    return next((str(name) for (name,) in rows if meaning(name) == own), "")


def meaning(filename: str) -> tuple[Any, ...]:
    """Return what a wheel's name means to installers, whatever its spelling."""
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename  # noqa: PLC0415  # not on the hit path

    try:
        return parse_wheel_filename(filename)
    except InvalidWheelFilename:
        return (filename,)


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
