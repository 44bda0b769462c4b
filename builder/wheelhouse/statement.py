"""The record beside a wheel: an in-toto statement about its bytes, and what records of either shape say.

``_type``, ``subject`` (the one wheel, by sha256), ``predicateType`` and ``predicate``; for a wheel that was built here the
predicate is SLSA provenance v1 (`builder.pipeline.provenance` makes it), for one from elsewhere without a record `ADDED`.
Wheelhouses of older versions hold a flat record instead: ``subject`` is an object there, and the rest lies beside it.

https://in-toto.io/Statement/v1, https://slsa.dev/spec/v1.0/provenance
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from builder import bounded

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = [
    "ADDED",
    "BUILD_TYPE",
    "PROVENANCE",
    "RUN",
    "STATEMENT",
    "about",
    "claims",
    "facts",
    "load",
    "odd",
    "parse",
    "subject",
    "text",
]

STATEMENT = "https://in-toto.io/Statement/v1"
PROVENANCE = "https://slsa.dev/provenance/v1"
#: What our parameters mean; those of other build types are none of ours.
BUILD_TYPE = "urn:spark-build:recipe:v1"
#: Says no more than that a file was taken in: when, under which name, and for which inputs, if it holds any.
ADDED = "urn:spark-build:added:v1"

#: The byproduct whose annotations are what was true of the run: host, isolation, gate, units, attempt.
RUN = "run"

#: A record with the history of ten thousand units and several audits has a tenth of that.
_LIMIT = 64 << 20
#: Ours nest less than twenty deep.
_DEPTH = 64

_TYPES: dict[str, type | tuple[type, ...]] = {
    "recipe": str,
    "recipe-file": str,
    "fingerprint": str,
    "label": str,
    "source": dict,
    "jobs": int,
    "built": int,
    "attempt": int,
    "isolation": dict,
    "host": dict,
    "gate": dict,
    "units": dict,
    "compressor": str,
    "added": dict,
}


def load(path: Path) -> tuple[bytes, dict[str, Any]]:
    """Return the record at `path`, as its bytes and as what they say; raise FileNotFoundError, or ValueError as `parse`."""
    data = bounded.read(path, _LIMIT)
    return data, parse(data)


def parse(data: bytes) -> dict[str, Any]:
    """Return what a record says; raise ValueError, which says why, for what is no JSON object or can't be handled."""
    try:
        found = json.loads(data)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except UnicodeDecodeError:
        raise ValueError("it is no UTF-8") from None
    if not isinstance(found, dict):
        raise ValueError("it is no object")  # noqa: TRY004  # of the file, not of an argument
    level: list[Any] = [found]
    for _ in range(_DEPTH):
        level = [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return found
    raise ValueError("it is nested too deep")


def about(record: Mapping[str, Any], name: str, sha256: str) -> dict[str, Any]:
    """Return `record` as the statement about one wheel."""
    return {**record, "_type": STATEMENT, "subject": [{"name": name, "digest": {"sha256": sha256}}]}


def text(record: Mapping[str, Any]) -> bytes:
    """Return a record as it is written: these bytes are signed."""
    return (json.dumps(record, indent=2, sort_keys=True) + "\n").encode()


def subject(record: object) -> str:
    """Return the sha256 of the file that a record is about; empty for what is no record."""
    match record:
        case {"subject": [{"digest": {"sha256": str(sha256)}}]} | {"subject": {"sha256": str(sha256)}}:
            return sha256
    return ""


def facts(record: object) -> dict[str, Any]:
    """Return what a record of either shape says, flat; what it doesn't say, or not as it should, isn't there.

    Keys: ``recipe``, ``recipe-file``, ``fingerprint``, ``label``, ``source``, ``jobs``, ``built`` (seconds), ``attempt``,
    ``isolation``, ``host``, ``gate``, ``units``, ``compressor``; ``added`` for a file that was taken in.
    """
    return {name: value for name, value in _said(record).items() if name not in _TYPES or _fits(name, value)}


def odd(record: object) -> tuple[str, ...]:
    """Return the names of the facts that a record states as something else than they are: text for a table, say."""
    return tuple(sorted(name for name, value in _said(record).items() if name in _TYPES and not _fits(name, value)))


def _fits(name: str, value: object) -> bool:
    return isinstance(value, _TYPES[name]) and not isinstance(value, bool)


def _said(record: object) -> dict[str, Any]:
    match record:
        case {"predicateType": str(kind), "predicate": dict(predicate)} if kind == PROVENANCE:
            return _provenance(predicate)
        case {"predicateType": str(kind), "predicate": dict(predicate)} if kind == ADDED:
            return dict(predicate)
        case {"_type": _} | {"predicateType": _}:
            return {}
        case dict(flat):
            return flat
    return {}


def claims(record: object) -> dict[str, str]:
    """Return what a record claims of ``fingerprint``, ``label`` and ``recipe``, whatever its build type is."""
    said = _said(record)
    match record:
        case {"predicateType": str(kind), "predicate": dict(predicate)} if kind == PROVENANCE:
            said = _parameters(predicate) | said
    return {name: said[name] for name in ("fingerprint", "label", "recipe") if isinstance(said.get(name), str)}


def _provenance(predicate: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    match predicate:
        case {"buildDefinition": {"buildType": str(kind)}} if kind == BUILD_TYPE:
            found |= _parameters(predicate) | _run(predicate)
    match predicate:
        case {"runDetails": {"metadata": {"finishedOn": str(moment)}}}:
            found |= _seconds(moment)
    return found


def _parameters(predicate: Mapping[str, Any]) -> dict[str, Any]:
    match predicate:
        case {"buildDefinition": {"externalParameters": dict(external), "internalParameters": dict(internal)}}:
            own = {name: internal[name] for name in ("fingerprint", "label", "jobs") if name in internal}
            return own | {name: external[name] for name in ("recipe", "recipe-file", "source") if name in external}
    return {}


def _run(predicate: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    match predicate:
        case {"runDetails": {"byproducts": list(byproducts)}}:
            for one in byproducts:
                match one:
                    case {"name": str(name), "annotations": dict(run)} if name == RUN:
                        found |= run
    return found


def _seconds(moment: str) -> dict[str, int]:
    try:
        return {"built": int(datetime.fromisoformat(moment).astimezone(UTC).timestamp())}
    except (ValueError, OverflowError):
        return {}
