"""Versions of installed Debian packages, read from dpkg's own file (deb-control(5)), without a process."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from builder.host.digests import Digests

__all__ = ["STATUS", "parse", "versions"]

STATUS = Path("/var/lib/dpkg/status")


def versions(names: Iterable[str], digests: Digests, status: Path = STATUS) -> dict[str, str | None] | None:
    """Return the versions of `names`, None for one that isn't installed; None as a whole where there is no dpkg."""
    wanted = sorted(set(names))
    if not os.path.exists(status):  # noqa: PTH110
        return None

    def look() -> str:
        at_hand = parse(status.read_text(errors="replace"))
        return json.dumps({name: at_hand.get(name) for name in wanted})

    question = f"versions {digests.sha256(status)} {' '.join(wanted)}"
    found: dict[str, str | None] = json.loads(digests.answer(question, look))
    return found


def parse(text: str) -> dict[str, str]:
    """Return {package: version} of all stanzas that say ``installed``; what a package provides has its version, too."""
    found: dict[str, str] = {}
    virtual: dict[str, str] = {}
    for stanza in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in stanza.splitlines() if line[:1] not in {" ", ""} and ": " in line)
        if not fields.get("Status", "").endswith(" installed") or "Version" not in fields:
            continue
        found.setdefault(fields.get("Package", ""), fields["Version"])
        for entry in fields.get("Provides", "").split(","):
            if words := entry.split():
                virtual.setdefault(words[0], fields["Version"])
    return virtual | found
