"""Whether a wheel that carries our label is the build that it says it is, as far as it can be told by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.audit.rules import Rule, table
from builder.digest import sha256_json
from builder.wheel.label import claimed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from builder.audit.context import Context
    from builder.audit.facts import Contents
    from builder.audit.rules import Finding

__all__ = ["RULES", "judge"]

RULES = table(
    Rule(
        id="label-lies",
        severity="error",
        title="its label isn't of the inputs in it",
        why="the label names the fingerprint of a build: label or inputs were changed, or come from another wheel",
        help="build it here instead, or get the wheel again from where it came from",
    ),
)


def judge(contents: Contents, _context: Context) -> Iterator[Finding]:
    """Yield ``label-lies`` where a label stands without its inputs, inputs without their label, or the two don't fit."""
    named = claimed(contents.version)
    if not named and contents.inputs is None:
        return
    if contents.inputs is None:
        found = "it holds no inputs that can be read"
    else:
        try:
            made = sha256_json(contents.inputs)[:10]
        except (TypeError, ValueError, RecursionError):
            made = "no fingerprint"
        if made == named:
            return
        found = f"its inputs give {made}"
    wanted = f"those of {named}" if named else "the label of its inputs"
    yield RULES["label-lies"].finding(found=found, wanted=wanted)
