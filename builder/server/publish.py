"""``POST /api/publish``: what was staged is audited together, and published in one step.

::

    {"channel": "team/nightly", "replace": false,
     "wheels": [{"sha256": "…", "filename": "…"}],
     "accept": [{"id": "rpath-absolute", "reason": "found by dlopen"}]}

``channel`` may be null: ``local``, where all of them go, is all then. They are appended to it, or with ``replace`` are all
that it lists. ``accept`` and ``replace`` take the scope admin.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from typing import TYPE_CHECKING, Any

from aiohttp import web

from builder.server import body, pool, refusal, staging, upload
from builder.server.refusal import Refusal

if TYPE_CHECKING:
    from pathlib import Path

    from builder.server.site import Site

__all__ = ["publish"]

_MOST = 256


async def publish(request: web.BaseRequest, site: Site) -> web.StreamResponse:
    """Publish a set; answer with what became of each wheel when that is durable, or with the audit's findings."""
    try:
        return await _publish(request, site)
    except Refusal as refused:
        return refusal.answer(refused, accept="application/json")


async def _publish(request: web.BaseRequest, site: Site) -> web.StreamResponse:
    asked = _parsed(await body.whole(request, site, site.settings.max_document))
    name = asked["channel"]
    site.tokens.allow(request, "publish", name or "local")
    if asked["accept"] or asked["replace"]:
        site.tokens.allow(request, "admin", name or "local")
    wheels, folders = [], []
    for sha256, filename in asked["wheels"]:
        path = staging.place(site, sha256, filename)
        there = path.exists()
        folders += [path.parent] if there else []
        wheels.append({"sha256": sha256, "filename": filename, "path": str(path) if there else None})
    job = {"root": str(site.settings.root), "wheels": wheels, **{key: asked[key] for key in _KEYS - {"wheels"}}}
    answer = await pool.of(site).ask(job)
    if "error" in answer:
        code = answer["error"]["code"]
        if code == "wheel-torn":  # else it would count as sent
            await asyncio.shield(site.thread(_drop, folders))
        elif code.startswith(
            ("record-", "signature-", "signer-")
        ):  # who sends another, or none, isn't held to this one
            await asyncio.shield(site.thread(staging.drop_records, folders))
        return _problem(answer)
    await asyncio.shield(site.thread(_drop, folders))
    site.look()  # who published sees it at once
    site.metrics.add("uploads_total", sum(not one["cached"] for one in answer["wheels"]))
    rows = [{**one, "url": f"/files/{one['sha256']}/{one['filename']}"} for one in answer["wheels"]]
    return web.json_response(
        {"channel": name, "replaced": asked["replace"], "wheels": rows}, headers={"Cache-Control": "no-store"}
    )


_KEYS = frozenset({"channel", "replace", "wheels", "accept"})


def _parsed(data: bytes) -> dict[str, Any]:
    """Return the request, checked; raise Refusal 400 with what is wrong."""
    try:
        asked = json.loads(data)
    except (ValueError, RecursionError):
        raise Refusal(400, "json", "the body isn't JSON") from None
    if not isinstance(asked, dict) or asked.keys() - _KEYS:
        raise Refusal(400, "json", f"wanted an object with {', '.join(sorted(_KEYS))}")
    channel, replace = asked.get("channel"), asked.get("replace", False)
    if not (channel is None or _is_text(channel)):
        raise Refusal(400, "json", "channel: wanted a text or null")
    if not isinstance(replace, bool) or (replace and channel in {None, "local"}):
        raise Refusal(400, "json", "replace: wanted true or false, and a channel other than local")
    wheels, accept = asked.get("wheels"), asked.get("accept", [])
    if not isinstance(wheels, list) or not 0 < len(wheels) <= _MOST or not all(map(_is_wheel, wheels)):
        raise Refusal(400, "json", f"wheels: wanted 1 to {_MOST} of {{sha256, filename}}")
    if not isinstance(accept, list) or len(accept) > _MOST or not all(map(_is_accepted, accept)):
        raise Refusal(400, "json", "accept: wanted a list of {id, reason}")
    named = [(one["sha256"], one["filename"]) for one in wheels]
    if len({sha256 for sha256, _filename in named}) < len(named) or len({name for _sha256, name in named}) < len(named):
        raise Refusal(400, "json", "wheels: one is named twice")
    return {
        "channel": None if channel == "local" else channel,
        "replace": replace,
        "wheels": named,
        "accept": [f"{one['id']}={one['reason']}" for one in accept],
    }


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value) and value.isprintable()


def _is_wheel(value: object) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"sha256", "filename"}
        and all(map(_is_text, value.values()))
        and re.fullmatch("[0-9a-f]{64}", value["sha256"]) is not None
    )


def _is_accepted(value: object) -> bool:
    return isinstance(value, dict) and value.keys() == {"id", "reason"} and all(map(_is_text, value.values()))


def _problem(answer: dict[str, Any]) -> web.Response:
    """Return the error with its findings (RFC 9457)."""
    found = upload.refused(answer)
    document = {
        "title": "the set isn't published",
        "status": found.status,
        "code": found.code,
        "detail": found.summary,
        "help": found.help,
        "findings": answer["findings"],
    }
    return web.Response(
        status=found.status,
        body=json.dumps(document).encode(),
        headers={"Content-Type": "application/problem+json", "Cache-Control": "no-store"},
    )


def _drop(folders: list[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
