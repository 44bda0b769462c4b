"""What a recipe's ``[[check]]`` tables say about one of its outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.audit.context import Accepted, Expected
from builder.audit.target import Capability
from builder.recipe.model import checks_of
from builder.recipe.units import parse_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from builder.recipe.model import Check

__all__ = ["of"]


def of(checks: Sequence[Check], output: str, *, target: Capability | None = None) -> Expected:
    """Return what `checks` expect of the wheel of `output`; those without an ``output`` are about every one.

    Several of a kind add up, and of sizes the smallest holds. With `target`, what is said about another one is left out.
    """
    about = checks_of(checks, output)
    stated = [one for one in about if one.kind == "device-code" and _is_for(one, target)]
    sizes = [parse_bytes(one.max) for one in about if one.kind == "size" and one.max]
    return Expected(
        stated=bool(stated),
        require=tuple(pattern for one in stated for pattern in one.require),
        allow_ptx=tuple(pattern for one in stated for pattern in one.allow_ptx),
        allow_absent=tuple(pattern for one in stated for pattern in one.allow_absent),
        max_size=min(sizes, default=None),
        accepted=tuple(
            Accepted(id=slug, file=one.file, reason=one.reason or "")
            for one in about
            if one.kind == "accept"
            for slug in one.findings
        ),
    )


def _is_for(check: Check, target: Capability | None) -> bool:
    return target is None or check.target is None or Capability.parse(check.target) == target
