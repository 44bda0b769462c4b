"""The values that requests and answers hold, as the description of the server has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["RESPONSES", "SCHEMAS", "SHA256", "STRING", "ref"]

SHA256 = "^[0-9a-f]{64}$"
STRING = {"schema": {"type": "string"}}


def ref(name: str) -> dict[str, str]:
    """Return what stands for a schema of that name."""
    return {"$ref": f"#/components/schemas/{name}"}


_DIGEST = {"type": "string", "pattern": SHA256}
_NULLABLE = {"type": ["string", "null"]}


def _object(required: Mapping[str, Any], optional: Mapping[str, Any] | None = None, **more: object) -> dict[str, Any]:
    properties = {**required, **(optional or {})}
    return {"type": "object", "required": sorted(required), "properties": properties, **more}


_META = _object({"api-version": {"type": "string", "const": "1.4"}})
_FILE = _object(
    {
        "filename": {"type": "string"},
        "url": {"type": "string", "format": "uri-reference"},
        "hashes": _object({"sha256": _DIGEST}),
        "size": {"type": "integer", "minimum": 0},
        "upload-time": {"type": "string", "format": "date-time"},
        "yanked": {"type": ["boolean", "string"]},
        "core-metadata": _object({"sha256": _DIGEST}),
    },
    {"requires-python": {"type": "string"}},
)
_WHEEL = _object(
    {
        "project": {"type": "string"},
        "version": {"type": "string"},
        "filename": {"type": "string"},
        "sha256": _DIGEST,
        "size": {"type": "integer"},
        "url": {"type": "string", "format": "uri-reference"},
    },
    {"provenance": _NULLABLE, "signature": _NULLABLE},
)
_LIST = {"type": "array", "items": ref("Wheel")}
SCHEMAS: dict[str, Any] = {
    "Any": {"type": "object"},
    "Projects": _object(
        {"meta": _META, "projects": {"type": "array", "items": _object({"name": {"type": "string"}})}},
    ),
    "Project": _object(
        {
            "meta": _META,
            "name": {"type": "string"},
            "versions": {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
            "files": {"type": "array", "items": _FILE},
        },
        {"project-status": _object({"status": {"enum": ["archived", "quarantined", "deprecated"]}})},
    ),
    "Wheel": _WHEEL,
    "Build": _object({"fingerprint": _DIGEST, "wheels": _LIST}),
    "Channels": _object(
        {"channels": {"type": "array", "items": _object({"name": {"type": "string"}, "url": {"type": "string"}})}}
    ),
    "Channel": _object({"channel": {"type": "string"}, "wheels": _LIST}),
    "Publish": _object(
        {
            "wheels": {
                "type": "array",
                "minItems": 1,
                "maxItems": 256,
                "items": _object(
                    {"sha256": _DIGEST, "filename": {"type": "string", "pattern": r"^[!-.0-~]+\.whl$"}},
                    additionalProperties=False,
                ),
            }
        },
        {
            "channel": {"type": ["string", "null"], "pattern": "^[a-z0-9-]{1,64}(/[a-z0-9-]{1,64})?$"},
            "replace": {
                "type": "boolean",
                "default": False,
                "description": "the channel lists these alone; takes admin",
            },
            "accept": {
                "type": "array",
                "maxItems": 256,
                "description": "findings of the audit that are all right; takes admin",
                "items": _object(
                    {"id": {"type": "string", "minLength": 1}, "reason": {"type": "string", "minLength": 1}},
                    additionalProperties=False,
                ),
            },
        },
        additionalProperties=False,
    ),
    "Published": _object(
        {
            "channel": _NULLABLE,
            "replaced": {"type": "boolean"},
            "wheels": {"type": "array", "items": {"type": "object"}},
        }
    ),
    "Health": _object({"status": {"const": "ok"}}),
    "Problem": _object(
        {
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "code": {"type": "string"},
            "detail": {"type": "string"},
        },
        {"help": {"type": "string"}, "findings": {"type": ["array", "object", "null"]}},
    ),
}
_REFUSED = {
    "text/plain": STRING,
    "text/html": STRING,
    "application/problem+json": {"schema": ref("Problem")},
}
RESPONSES: dict[str, Any] = {
    "Refused": {"description": "why not, as text, or as RFC 9457 says", "content": _REFUSED},
    "Problem": {"description": "why not (RFC 9457)", "content": _REFUSED},
    "Unauthorized": {
        "description": "this takes a token",
        "headers": {"WWW-Authenticate": {"required": True, "schema": {"type": "string"}}},
        "content": _REFUSED,
    },
}
