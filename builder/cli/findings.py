"""docs/findings.md, which is generated from every finding that there is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.pipeline.findings import parts, rules

if TYPE_CHECKING:
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


def page() -> str:
    """Return docs/findings.md."""
    lines = [_HEAD]
    for title, part in parts():
        lines += [
            f"## {title}",
            "",
            "| finding | severity | what | why it matters | what to do |",
            "|---|---|---|---|---|",
        ]
        lines += [_line(rule) for rule in part.values()]
        lines.append("")
    return "\n".join(lines).rstrip("\n") + "\n"


def _line(rule: Rule) -> str:
    cells = (f"`{rule.id}`", rule.severity, rule.title, rule.why, rule.help)
    return f"| {' | '.join(' '.join(cell.split()).replace('|', chr(92) + '|') for cell in cells)} |"
