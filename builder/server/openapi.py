"""``/api/openapi.json``: what this server answers, with names that are really there (OpenAPI 3.1).

https://spec.openapis.org/oas/v3.1.0. A parameter can't hold a slash there, so that channels of two words have paths of
their own.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from builder import __version__
from builder.index import listing
from builder.server import simple
from builder.server.negotiate import HTML, JSON, TYPES
from builder.server.openapi_values import RESPONSES, SCHEMAS, SHA256, STRING, ref
from builder.server.shelf import Text
from builder.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp import web

    from builder.server.site import Site
    from builder.wheelhouse import Wheelhouse

__all__ = ["Examples", "describe", "document", "examples"]

_JSON, _HTML = TYPES[JSON], TYPES[HTML]
_PAGE = "text/html"
_WORD = "^[a-z0-9-]{1,64}$"


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """Names that are in a wheelhouse; where it is empty, names that could be."""

    project: str = "triton"
    filename: str = "triton-3.7.1-py3-none-any.whl"
    sha256: str = "0" * 64
    fingerprint: str = "0" * 64
    channel: str = "local"
    group: str = "team"
    member: str = "stable"
    key: str = "ab0123456789abcdefghijklmnopqrst"


async def document(request: web.BaseRequest, site: Site) -> web.StreamResponse:
    """Answer the description."""
    generation = site.fresh(site.now())
    text = site.shelf.get("/api/openapi.json", "")
    if text is None or text.checked != generation:
        found = await site.reading(examples)
        body = json.dumps(describe(found, site.settings.public_url or "/"), ensure_ascii=False).encode()
        text = Text(body, "application/json", checked=generation, label="api", vary="Accept-Encoding")
        site.shelf.put("/api/openapi.json", "", text)
    return simple.send(request, text)


def examples(house: Wheelhouse) -> Examples:
    """Return names of things that `house` has."""
    channels = listing.channels(house)
    found: dict[str, str] = {}
    for name in channels:
        group, slash, member = name.partition("/")
        found |= {"group": group, "member": member} if slash else {"channel": name}
    for channel in ("local", *channels):
        for project in listing.projects(house, channel):
            shown = listing.project(house, channel, project)
            if shown and shown.files:
                wheel = house.get(shown.files[-1].filename)
                found |= {"project": project, "filename": wheel.filename, "sha256": wheel.sha256}
                return Examples(**found, **({"fingerprint": wheel.fingerprint} if wheel.fingerprint else {}))
    return Examples(**found)


def describe(found: Examples, url: str) -> dict[str, Any]:
    """Return the document; `url` is where the server is."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "spark-build index",
            "version": __version__,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": "Wheels as a package index for pip and uv, uploads, and pages for people. HEAD is answered "
            "wherever GET is. Pages have a strong ETag, and answer If-None-Match with 304. Files take Range and If-Range.",
        },
        "servers": [{"url": url}],
        "security": [{}, {"basic": []}, {"bearer": []}],
        "paths": _paths(found),
        "components": {
            "securitySchemes": {
                "basic": {"type": "http", "scheme": "basic", "description": "any user, the token as password"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
            "schemas": SCHEMAS,
            "responses": RESPONSES,
        },
    }


def _paths(found: Examples) -> dict[str, Any]:
    channel = _parameter("channel", found.channel, _WORD, "a channel of one word")
    both = [
        _parameter("group", found.group, _WORD, "first word of a channel"),
        _parameter("member", found.member, _WORD, "second word of it"),
    ]
    name = _parameter("project", found.project, "^[a-z0-9]([a-z0-9-]{0,60}[a-z0-9])?$", "a normalised name")
    sha256 = _parameter("sha256", found.sha256, SHA256, "of the wheel's bytes")
    fingerprint = _parameter("fingerprint", found.fingerprint, SHA256, "sha256 of all that a build was made from")
    format_ = {
        "name": "format",
        "in": "query",
        "description": "the form, in place of the Accept header",
        "schema": {"type": "string", "enum": [_JSON, _HTML, _PAGE]},
    }
    paths: dict[str, Any] = {}
    for above, parameters in (("", []), ("/{channel}", [channel]), ("/{group}/{member}", both)):
        word = {"": "", "/{channel}": "OfChannel"}.get(above, "OfGroupedChannel")
        paths[f"{above}/simple/"] = {
            "parameters": parameters,
            "get": _page(f"listProjects{word}", "the projects of a channel (PEP 503, 691)", "Projects", format_),
        }
        paths[f"{above}/simple/{{project}}/"] = {
            "parameters": [*parameters, name],
            "get": _page(f"getProject{word}", "the wheels of a project (PEP 503, 691, 700, 714)", "Project", format_),
        }
        paths[f"{above}/legacy/"] = {"parameters": parameters, "post": _upload(f"upload{word}")}
    paths |= _files(found, sha256) | _api(found, sha256, fingerprint, channel, both) | _cache(found)
    paths |= _people(found, fingerprint, channel, both, name, sha256)
    paths["/metrics"] = {"get": _get("metrics", "counters for Prometheus", _text("text/plain"), open_=True)}
    paths["/health"] = {"get": _get("health", "whether the catalogue can be read", _ok("Health"), open_=True)}
    paths["/health"]["get"]["responses"]["503"] = {"$ref": "#/components/responses/Refused"}
    return paths


def _parameter(name: str, example: str, pattern: str, text: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": text,
        "schema": {"type": "string", "pattern": pattern},
        "example": example,
    }


def _get(name: str, summary: str, ok: Mapping[str, Any], *, open_: bool = False) -> dict[str, Any]:
    responses: dict[str, Any] = {"200": dict(ok)}
    if not open_:
        responses |= {"4XX": {"$ref": "#/components/responses/Refused"}}
    return {"operationId": name, "summary": summary, "responses": responses, **({"security": []} if open_ else {})}


def _page(name: str, summary: str, schema: str, parameter: dict[str, Any]) -> dict[str, Any]:
    content = {_JSON: {"schema": ref(schema)}, _HTML: STRING, _PAGE: STRING}
    found = _get(name, summary, {"description": "the page", "headers": _TAG, "content": content})
    return {**found, "parameters": [parameter]}


def _ok(schema: str) -> dict[str, Any]:
    return {"description": "the answer", "content": {"application/json": {"schema": ref(schema)}}}


def _text(*types: str) -> dict[str, Any]:
    return {"description": "the answer", "content": dict.fromkeys(types, STRING)}


_TAG = {"ETag": {"description": "strong; another for the gzip form", "schema": {"type": "string"}}}


def _files(found: Examples, sha256: dict[str, Any]) -> dict[str, Any]:
    name = _parameter("filename", found.filename, r"^[A-Za-z0-9_]{1,40}-[A-Za-z0-9_.+!-]{1,100}\.whl$", "of the wheel")
    paths = {}
    for tail, word, summary, kinds in (
        ("", "Wheel", "a wheel; 403 where it is quarantined", ["application/octet-stream"]),
        (".metadata", "Metadata", "its METADATA (PEP 658)", ["text/plain"]),
        (".provenance.json", "Provenance", "the record of how it was made", ["application/json"]),
        (".provenance.json.sig", "Signature", "the signature of the record", ["text/plain"]),
    ):
        content: dict[str, Any] = {one: {"schema": {"type": "object"}} if "json" in one else {} for one in kinds}
        paths[f"/files/{{sha256}}/{{filename}}{tail}"] = {
            "parameters": [sha256, name],
            "get": _get(f"get{word}", summary, {"description": "the bytes", "headers": _TAG, "content": content}),
        }
    return paths


def _secured(operation: dict[str, Any], *, problem: bool = False) -> dict[str, Any]:
    refused = {"$ref": f"#/components/responses/{'Problem' if problem else 'Refused'}"}
    responses = {**operation["responses"], "401": {"$ref": "#/components/responses/Unauthorized"}, "4XX": refused}
    return {**operation, "security": [{"basic": []}, {"bearer": []}], "responses": responses}


def _upload(name: str) -> dict[str, Any]:
    fields: dict[str, Any] = {
        ":action": {"type": "string", "const": "file_upload"},
        "name": {"type": "string", "minLength": 1},
        "version": {"type": "string", "minLength": 1},
        "filetype": {"type": "string", "const": "bdist_wheel"},
        "protocol_version": {"type": "string", "const": "1"},
        "sha256_digest": {"type": "string", "pattern": SHA256},
        "content": {"type": "string", "contentMediaType": "application/octet-stream", "description": "the wheel, last"},
    }
    form = {"type": "object", "properties": fields, "required": sorted(fields)}
    return _secured(
        {
            "operationId": name,
            "summary": "upload a wheel as twine and uv publish do",
            "description": "Answered when the wheel is audited and published. The same bytes again are right, others 409.",
            "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}}},
            "responses": {"200": _text("text/plain")},
        }
    )


def _api(
    found: Examples,
    sha256: dict[str, Any],
    fingerprint: dict[str, Any],
    channel: dict[str, Any],
    both: list[dict[str, Any]],
) -> dict[str, Any]:
    ending = r"\.whl(\.provenance\.json(\.sig)?)?"
    staged = _parameter(
        "filename",
        found.filename,
        rf"^[A-Za-z0-9_]{{1,40}}-[A-Za-z0-9_.+!-]{{1,100}}{ending}$",
        "of the wheel or its record",
    )
    wheel = {"sha256": found.sha256, "filename": found.filename}
    asked = {"channel": None, "replace": False, "wheels": [wheel], "accept": []}
    return {
        "/api/staging/{sha256}/{filename}": {
            "parameters": [sha256, staged],
            "head": _secured(
                {
                    "operationId": "getOffset",
                    "summary": "how much of it is there",
                    "responses": {"200": {"description": "see the headers", "headers": _OFFSET}},
                }
            ),
            "put": _secured(
                {
                    "operationId": "stage",
                    "summary": "send a wheel, or with Content-Range a piece of it",
                    "requestBody": {"required": False, "content": {"application/octet-stream": {"schema": {}}}},
                    "responses": {
                        "201": {"description": "it is there, and its digest is right", "headers": _OFFSET},
                        "202": {"description": "the piece is there", "headers": _OFFSET},
                    },
                }
            ),
        },
        "/api/publish": {
            "post": _secured(
                {
                    "operationId": "publish",
                    "summary": "publish what was staged, together",
                    "requestBody": {
                        "required": True,
                        "content": {"application/json": {"schema": ref("Publish"), "example": asked}},
                    },
                    "responses": {"200": _ok("Published")},
                },
                problem=True,
            )
        },
        "/api/builds/{fingerprint}": {
            "parameters": [fingerprint],
            "get": _get("getBuild", "the published wheels of a build", _ok("Build")),
        },
        "/api/builds/{fingerprint}/events": {
            "parameters": [fingerprint],
            "get": _get(
                "followBuild",
                "what happens in a build, as it happens",
                {"description": "the events", "content": {"text/event-stream": {}}},
            ),
        },
        "/api/channels": {"get": _get("listChannels", "the channels", _ok("Channels"))},
        "/api/channels/{channel}": {
            "parameters": [channel],
            "get": _get("getChannel", "what a channel lists, in its order", _ok("Channel")),
        },
        "/api/channels/{group}/{member}": {
            "parameters": both,
            "get": _get("getGroupedChannel", "what a channel lists, in its order", _ok("Channel")),
        },
        "/api/openapi.json": {"get": _get("describe", "this document", {**_ok("Any"), "headers": _TAG})},
    }


_OFFSET = {
    "Upload-Offset": {"schema": {"type": "integer", "minimum": 0}},
    "Upload-Complete": {"schema": {"type": "string"}},
}


def _cache(found: Examples) -> dict[str, Any]:
    key = _parameter("key", found.key, "^[0-9a-z]{16,64}$", "a key of ccache's, in its layout `flat`")
    value = {"description": "the value", "content": {"application/octet-stream": {}}}
    kept = {"201": {"description": "it is new"}, "204": {"description": "it has taken the place of another"}}
    body = {"required": False, "content": {"application/octet-stream": {"schema": {}}}}
    return {
        "/ccache/{key}": {
            "parameters": [key],
            "get": _get("getCached", "a value of the compile cache", value),
            "put": _secured(
                {"operationId": "putCached", "summary": "keep a value", "requestBody": body, "responses": kept}
            ),
            "delete": _secured(
                {
                    "operationId": "deleteCached",
                    "summary": "drop a value",
                    "responses": {"204": {"description": "it is gone"}, "404": {"description": "it wasn't there"}},
                }
            ),
        }
    }


def _people(
    found: Examples,
    fingerprint: dict[str, Any],
    channel: dict[str, Any],
    both: list[dict[str, Any]],
    name: dict[str, Any],
    sha256: dict[str, Any],
) -> dict[str, Any]:
    del found
    file = _parameter("name", "style.css", "^[a-z0-9.-]{1,40}$", "a file that pages use")
    query = {
        "name": "q",
        "in": "query",
        "description": "words to look for",
        "schema": {"type": "string"},
    }
    pages: dict[str, tuple[str, str, list[dict[str, Any]]]] = {
        "/": ("Front", "the first page, with a search", []),
        "/projects/{project}/": ("ProjectPage", "a project", [name]),
        "/wheels/{sha256}/": ("WheelPage", "a wheel", [sha256]),
        "/builds/": ("BuildsPage", "the builds", []),
        "/builds/{fingerprint}/": ("BuildPage", "a build", [fingerprint]),
        "/channels/": ("ChannelsPage", "the channels", []),
        "/channels/{channel}/": ("ChannelPage", "a channel", [channel]),
        "/channels/{group}/{member}/": ("GroupedChannelPage", "a channel", both),
    }
    paths: dict[str, Any] = {
        path: {"parameters": parameters, "get": _get(f"show{word}", f"page for people: {summary}", _text(_PAGE))}
        for path, (word, summary, parameters) in pages.items()
    }
    paths["/"]["get"]["parameters"] = [query]
    kinds = _text("text/css", "text/javascript", "image/svg+xml")
    paths["/static/{name}"] = {"parameters": [file], "get": _get("getStatic", "what pages use", kinds)}
    return paths
