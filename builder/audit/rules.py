"""Rules: what may be found, how bad it is, why it matters, what to do. Each judge declares its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["NEVER", "Finding", "Rule", "Severity", "table"]

#: An ``error`` refuses the wheel; a ``warning`` is something that a user will notice; an ``info`` is good to know.
Severity = Literal["error", "warning", "info"]

#: What makes a file no wheel, or no honest one: nobody can let that pass.
NEVER = frozenset({"wheel-damaged", "wheel-unsafe", "wheel-name", "record-lies"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was found in one file, or in the wheel as a whole (`file` is empty), with why and what to do.

    `accepted` is the reason by which a recipe or the user let an error pass; it refuses nothing then.
    """

    id: str
    severity: Severity
    file: str
    found: str
    wanted: str
    why: str
    help: str
    accepted: str = ""

    def as_json(self) -> dict[str, object]:
        """Return what ``--json`` prints and what the catalogue keeps."""
        return {
            "id": self.id,
            "severity": self.severity,
            "file": self.file,
            "found": self.found,
            "wanted": self.wanted,
            "why": self.why,
            "help": self.help,
            "accepted": self.accepted or None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One thing that may be wrong. `id` is a stable slug that scripts, recipes and ``--accept`` name."""

    id: str
    severity: Severity
    title: str
    why: str
    help: str

    def finding(self, *, file: str = "", found: str, wanted: str = "", severity: Severity | None = None) -> Finding:
        """Return what was found under this rule; `severity` only where the case is milder or worse than usual."""
        return Finding(
            id=self.id,
            severity=severity or self.severity,
            file=file,
            found=found,
            wanted=wanted,
            why=self.why,
            help=self.help,
        )


def table(*rules: Rule) -> Mapping[str, Rule]:
    """Return `rules` by id; a judge looks them up so."""
    return {rule.id: rule for rule in rules}
