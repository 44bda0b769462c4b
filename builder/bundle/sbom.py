"""``sbom.cdx.json``: the wheels of a bundle as CycloneDX 1.6, with what each declares that it needs of the others.

https://cyclonedx.org/docs/1.6/json/
"""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

from builder.digest import sha256_json
from builder.wheel.read import header, headers, normalised
from builder.wheel.sbom import purl

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from builder.bundle.resolve import Piece
    from builder.bundle.target import Target

__all__ = ["text"]


def text(pieces: Sequence[Piece], metadata: Mapping[str, bytes], target: Target, *, asked: Sequence[str]) -> bytes:
    """Return the bill of `pieces`, whose METADATA is given by sha256. The same pieces give the same bytes."""
    names = {piece.project for piece in pieces}
    identity = sha256_json({"target": target.platform, "wheels": sorted(piece.sha256 for piece in pieces)})
    roots = sorted({name for name in map(_name, asked) if name in names})
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'urn:spark-build:bundle:{identity}')}",
        "version": 1,
        "metadata": {
            "lifecycles": [{"phase": "pre-build"}],
            "tools": {"components": [{"type": "application", "name": "spark-build"}]},
            "component": {"type": "application", "bom-ref": "bundle", "name": f"bundle for {target.platform}"},
        },
        "components": [_component(piece, metadata[piece.sha256]) for piece in pieces],
        "dependencies": [
            {"ref": "bundle", "dependsOn": roots or sorted(names)},
            *(
                {"ref": piece.project, "dependsOn": sorted(set(_needed(metadata[piece.sha256], target)) & names)}
                for piece in pieces
            ),
        ],
        "compositions": [{"aggregate": "incomplete", "assemblies": ["bundle"]}],
    }
    return (json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _name(requirement: str) -> str:
    from builder.buildenv import normalised as project  # noqa: PLC0415

    return project(requirement)


def _component(piece: Piece, metadata: bytes) -> dict[str, Any]:
    one: dict[str, Any] = {
        "type": "library",
        "bom-ref": piece.project,
        "name": piece.project,
        "version": piece.version,
        "purl": purl("pypi", piece.project, piece.version),
        "hashes": [{"alg": "SHA-256", "content": piece.sha256}],
        "properties": [{"name": "spark-build:file", "value": piece.filename}],
    }
    if expression := header(metadata, "License-Expression"):
        one["licenses"] = [{"expression": expression}]
    return one


def _needed(metadata: bytes, target: Target) -> Iterator[str]:
    """Yield the projects that a wheel declares to need on the target, extras apart."""
    from packaging.requirements import InvalidRequirement, Requirement  # noqa: PLC0415

    for line in headers(metadata, "Requires-Dist"):
        try:
            one = Requirement(line)
        except InvalidRequirement:
            continue
        if one.marker is None or one.marker.evaluate({**target.markers, "extra": ""}):
            yield normalised(one.name)
