"""Every finding that there is, and docs/findings.md, which is generated from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from builder.audit.rules import Rule

__all__ = ["page", "rules"]

_HEAD = """\
# Findings

<!-- Generated from the judges in builder/audit. Change them there, then run: python -m builder.cli.reference -->

What `spark-build audit` may find, and what a build and `wheels add` refuse. An **error** refuses the wheel (exit code 5), a
**warning** is something that a user of it will notice, an **info** is good to know. The names are stable: scripts read them
from `--json`, `--accept NAME=REASON` lets one pass, and so does a recipe (never wheel-damaged, wheel-unsafe, wheel-name and
record-lies: that is no wheel, or no honest one):

```toml
[[check]]
kind = "accept"
findings = ["rpath-absolute"]
file = "*/libfoo.so"
reason = "found by dlopen"
```
"""


def rules() -> dict[str, Rule]:
    """Return every rule by its id."""
    return {slug: rule for _title, part in _parts() for slug, rule in part.items()}


def page() -> str:
    """Return docs/findings.md."""
    lines = [_HEAD]
    for title, part in _parts():
        lines += [
            f"## {title}",
            "",
            "| finding | severity | what | why it matters | what to do |",
            "|---|---|---|---|---|",
        ]
        lines += [_line(rule) for rule in part.values()]
        lines.append("")
    return "\n".join(lines).rstrip("\n") + "\n"


def _parts() -> tuple[tuple[str, Mapping[str, Rule]], ...]:
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


def _line(rule: Rule) -> str:
    cells = (f"`{rule.id}`", rule.severity, rule.title, rule.why, rule.help)
    return f"| {' | '.join(' '.join(cell.split()).replace('|', chr(92) + '|') for cell in cells)} |"
