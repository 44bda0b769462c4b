"""The local version that a fingerprint puts behind a wheel's version.

``<version>+sb<YYYYMMDDHHMMSS>.g<first 10 of the fingerprint>``, then upstream's own local parts. Ours comes first, so
that labelled versions sort by time whatever upstream appends; the hash segment starts with a letter, since a segment of
digits would be compared as a number (PEP 440). A rebuild with other bits has ``r2`` at the end of the hash segment: as a
segment of its own it would sort below upstream parts such as ``sm121``, and nobody would be moved to it. A local version
still satisfies ``==<version>``, and pip and uv move an environment to a higher one, which they don't for a higher build
tag.
"""

from __future__ import annotations

import re
import time

from builder.errors import BuildFailed

__all__ = ["claimed", "labelled", "make", "moment", "plain", "unlabelled"]

_OURS = re.compile(r"sb\d{14}\.g([0-9a-f]{10})(r\d+)?(\.|$)")


def make(first_planned_s: float, fingerprint: str, *, revision: int = 0) -> str:
    """Return the label: UTC time of the fingerprint's first plan, first ten of the fingerprint, ``r<N>`` from N = 2 on."""
    moment = time.strftime("%Y%m%d%H%M%S", time.gmtime(first_planned_s))
    tail = f"r{revision}" if revision > 1 else ""
    return f"sb{moment}.g{fingerprint[:10]}{tail}"


def plain(version: str) -> str:
    """Return the public part of `version`."""
    return version.partition("+")[0]


def claimed(version: str) -> str:
    """Return the first ten of the fingerprint that the label in `version` names; empty where it has no label of ours."""
    found = _OURS.match(version.partition("+")[2])
    return found[1] if found else ""


def moment(version: str) -> int | None:
    """Return the time that the label in `version` names, in seconds; None where it has no label of ours, or no such time."""
    from calendar import timegm  # noqa: PLC0415  # a hit makes labels and reads none

    local = version.partition("+")[2]
    try:
        return timegm(time.strptime(local[2:16], "%Y%m%d%H%M%S")) if _OURS.match(local) else None
    except ValueError:
        return None


def unlabelled(version: str) -> str | None:
    """Return `version` without our label, upstream's own local parts kept; None where it has no label of ours."""
    public, _plus, local = version.partition("+")
    found = _OURS.match(local)
    return None if found is None else "+".join(filter(None, [public, local[found.end() :]]))


def labelled(version: str, label: str) -> str:
    """Return `version` with `label` as the first part of its local version, in the spelling of PEP 440.

    A project that was handed the label by environment may carry it already, anywhere in its local part, and without the
    revision that was found out later; it stands in the result once, in front. Raises BuildFailed ``version-invalid``.
    """
    from packaging.version import InvalidVersion, Version  # noqa: PLC0415  # not on the hit path

    try:
        found = Version(version)
    except InvalidVersion as error:
        raise BuildFailed(
            "version-invalid",
            f"the build gave its wheel the version {version!r}, which no installer takes",
            help="the project's version has to be as PEP 440 wants it; where it comes from git, a tag may be missing",
        ) from error
    return f"{found.public}+{'.'.join([label, *_others(found.local, label)])}"


def _others(local: str | None, label: str) -> list[str]:
    """Return the parts of a local version that aren't the label, nor the label with another revision."""
    parts = local.split(".") if local else []
    moment, _dot, shown = label.partition(".")
    mark = re.compile(re.escape(re.sub(r"r\d+$", "", shown)) + r"(r\d+)?")
    for start in range(len(parts) - 1):
        if parts[start] == moment and mark.fullmatch(parts[start + 1]):
            return [*parts[:start], *parts[start + 2 :]]
    return parts
