"""By which rules a wheel was judged: kept with its findings, so that a hit is judged again when they change.

Imported with every hit, so it costs nothing: no judge is loaded for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.digest import sha256_json
from builder.values import fields

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from builder.recipe.model import Check

__all__ = ["RULES", "of"]

#: Grows with every change of what judges say; a test compares it with the judges' own text.
RULES = 2


def of(checks: Sequence[Check], *, target: str, scripts: Mapping[str, str] | None = None) -> str:
    """Return the digest of the rules and of what the recipe says about one output, for `target` (``12.1``).

    `checks` are those of the output, `scripts` the digests of the scripts that they name.
    """
    stated = [{one.name: getattr(check, one.name) for one in fields(check)} for check in checks]
    return sha256_json({"rules": RULES, "target": target, "checks": stated, "scripts": dict(scripts or {})})
