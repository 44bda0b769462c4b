"""Every finding that there is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from builder.audit.rules import Rule

__all__ = ["parts", "rules"]


def rules() -> dict[str, Rule]:
    """Return every rule by its id."""
    return {slug: rule for _title, part in parts() for slug, rule in part.items()}


def parts() -> tuple[tuple[str, Mapping[str, Rule]], ...]:
    """Return the rules by the titles that they stand under in docs/findings.md."""
    from builder.audit import crosscheck, device, files, installed, labels, linkage, sets, signed  # noqa: PLC0415
    from builder.pipeline import trial  # noqa: PLC0415

    return (
        ("The wheel as a file", {**files.RULES, **labels.RULES}),
        ("Libraries and programs", linkage.RULES),
        ("Device code", {**device.RULES, **crosscheck.RULES}),
        ("Together with other wheels", sets.RULES),
        ("Running it", trial.RULES),
        ("An environment", installed.RULES),
        ("Signatures", signed.RULES),
    )
