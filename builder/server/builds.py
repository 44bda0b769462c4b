"""``/api/builds/<fingerprint>``: what there is of one build. Who builds it elsewhere asks here first."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from builder.index import listing
from builder.server import simple
from builder.server.refusal import Refusal
from builder.server.shelf import Text
from builder.wheelhouse.publish import signature

if TYPE_CHECKING:
    from aiohttp import web

    from builder.server.site import Site
    from builder.stages import Stored
    from builder.wheelhouse import Wheelhouse

__all__ = ["OFFERED", "dumps", "of_fingerprint", "row", "text"]

#: States of wheels whose files are handed out.
OFFERED = frozenset({"published", "yanked"})


async def of_fingerprint(request: web.BaseRequest, site: Site, *, fingerprint: str) -> web.StreamResponse:
    """Answer the published wheels of a build, of each output the newest; 404 where there is none."""
    return simple.send(request, await site.reading(lambda house: _found(house, fingerprint)))


def _found(house: Wheelhouse, fingerprint: str) -> Text:
    wheels = [wheel for wheel in house.find(fingerprint) if _is_offered(house, wheel)]
    if not wheels:
        raise Refusal(404, "build-missing", f"no published wheel has the fingerprint {fingerprint}")
    return text({"fingerprint": fingerprint, "wheels": [row(wheel, up=2) for wheel in wheels]})


def _is_offered(house: Wheelhouse, wheel: Stored) -> bool:
    """Whether its file is handed out: it isn't withheld, and neither is its project."""
    found = listing.by_sha256(house, wheel.sha256)
    return found is not None and found.state in OFFERED


def row(wheel: Stored, *, up: int) -> dict[str, Any]:
    """Return a wheel for programs; links are relative, and `up` says how many folders the root of the server is above."""
    place = f"{'../' * up}files/{wheel.sha256}/{quote(wheel.filename, safe='')}"
    return {
        "output": wheel.output,
        "project": wheel.project,
        "version": wheel.version,
        "filename": wheel.filename,
        "sha256": wheel.sha256,
        "size": wheel.size,
        "metadata_sha256": wheel.metadata_sha256,
        "fingerprint": wheel.fingerprint or None,
        "recipe": wheel.recipe or None,
        "requires_python": wheel.requires_python,
        "created": wheel.created,
        "state": wheel.state,
        "url": place,
        "provenance": f"{place}.provenance.json",
        "signature": f"{place}.provenance.json.sig" if signature(wheel.path).is_file() else None,
    }


def text(document: dict[str, Any]) -> Text:
    """Return a document as it is sent; not on the loop: a large one is packed."""
    return Text(f"{dumps(document)}\n".encode(), "application/json", checked="", vary="Accept-Encoding")


#: Writes JSON as it is sent.
dumps = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
