"""The local version that a fingerprint puts behind a wheel's version.

``<version>+sb<YYYYMMDDHHMMSS>.g<first 10 of the fingerprint>``, then upstream's own local parts. Ours comes first, so
that labelled versions sort by time whatever upstream appends; the hash segment starts with a letter, since a segment of
digits would be compared as a number (PEP 440). A local version still satisfies ``==<version>``, and pip and uv move an
environment to a higher one, which they don't for a higher build tag.
"""

from __future__ import annotations

import re
import time

__all__ = ["carries", "labelled", "make", "plain"]

_LOCAL = re.compile(r"[-_.]")


def make(first_planned_s: float, fingerprint: str, *, revision: int = 0) -> str:
    """Return the label: UTC time of the fingerprint's first plan, first ten of the fingerprint, ``.r<N>`` from N = 2 on."""
    moment = time.strftime("%Y%m%d%H%M%S", time.gmtime(first_planned_s))
    tail = f".r{revision}" if revision > 1 else ""
    return f"sb{moment}.g{fingerprint[:10]}{tail}"


def plain(version: str) -> str:
    """Return the public part of `version`."""
    return version.partition("+")[0]


def labelled(version: str, label: str) -> str:
    """Return `version` with `label` as the first part of its local version; unchanged when it carries it already."""
    if carries(version, label):
        return version
    public, _plus, local = version.partition("+")
    parts = [part.lower() for part in _LOCAL.split(local) if part]
    ours = label.split(".")
    if parts[: len(ours)] != ours:  # taken from the environment by the project, but in another place
        parts = [*ours, *(part for part in parts if part not in ours)]
    return f"{public}+{'.'.join(parts)}"


def carries(version: str, label: str) -> bool:
    """Whether `version` has `label` in front of its local part."""
    local = version.partition("+")[2]
    return local == label or local.startswith(f"{label}.")
