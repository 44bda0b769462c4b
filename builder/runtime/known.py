"""Findings out of the catalogue of failures: what leads to one is told by the same words as what it did in a log."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from builder.executor import failures
from builder.executor.diagnosis import UNKNOWN, filled
from builder.host.checks import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from builder.executor.diagnosis import Diagnosis
    from builder.executor.failures import Failure
    from builder.host.checks import Status
    from builder.runtime.environment import Environment

__all__ = ["catalogue", "finding", "in_text", "places", "wanted_torch"]

#: The first torch whose wheel for aarch64 on the public index is the one with CUDA.
_TORCH = (2, 11)
_RELEASE = re.compile(r"\d+(?:\.\d+)+")


def catalogue() -> tuple[Failure, ...]:
    """Return the entries about what happens after the build. Raises CatalogueError and OSError for a damaged catalogue."""
    return tuple(one for one in failures.load() if "use" in one.phases)


def places(environment: Environment) -> dict[str, str]:
    """Return what stands for the places of an entry's texts in this environment."""
    return {**UNKNOWN, "python": environment.quoted, "torch": wanted_torch(environment.version("torch"))}


def wanted_torch(version: str) -> str:
    """Return the requirement that brings the torch with CUDA in the place of `version`, from the public index.

    That has releases only: what a container's vendor or a nightly build calls 2.11.0a0 is not there.
    """
    public = version.partition("+")[0]
    if not public:
        return UNKNOWN["torch"]
    numbers = tuple(int(part) for part in public.split(".")) if _RELEASE.fullmatch(public) else (0,)
    return f"torch=={public}" if numbers >= _TORCH else f"torch>={_TORCH[0]}.{_TORCH[1]}"


def finding(
    failure: str,
    environment: Environment,
    *,
    check: str,
    found: str = "",
    wanted: str = "",
    status: Status = "problem",
    named: Mapping[str, str] | None = None,
) -> Finding:
    """Return a finding by the entry `failure`; `found` stands for its summary, `named` fills the groups of its texts."""
    entry = next(one for one in catalogue() if one.id == failure)
    told = filled(entry, {**places(environment), **(named or {})}, "")
    return of(told, check=check, found=found, wanted=wanted, status=status)


def of(told: Diagnosis, *, check: str, found: str = "", wanted: str = "", status: Status = "problem") -> Finding:
    """Return a finding that says what a diagnosis says."""
    why = f"{told.cause} {told.help[:1].upper()}{told.help[1:]}."
    return Finding(
        id=check, status=status, found=found or told.summary, wanted=wanted, why=why, run=told.run, failure=told.id
    )


def in_text(lines: Iterable[str], named: Mapping[str, str], ignored: frozenset[str] = frozenset()) -> Diagnosis | None:
    """Return what the catalogue says about what one process printed: of the last line that it knows, but for `ignored`."""
    entries = [one for one in catalogue() if one.id not in ignored]
    for line in reversed([line.strip() for line in lines]):
        for entry in entries:
            for pattern in entry.signature:
                if match := pattern.search(line):
                    groups = {key: value or "" for key, value in match.groupdict().items()}
                    return filled(entry, {**named, **groups}, line)
    return None
