"""``/api/channels`` and ``/api/channels/<channel>``: what channels there are, and what one lists, in its order."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from aiohttp import web

from builder.errors import SparkError
from builder.index import listing
from builder.server import simple
from builder.server.builds import OFFERED, dumps, row, text
from builder.server.refusal import Refusal
from builder.server.shelf import PAGE
from builder.wheelhouse import overview

if TYPE_CHECKING:
    from collections.abc import Sequence

    from builder.server.shelf import Text
    from builder.server.site import Site
    from builder.wheelhouse import Wheelhouse

__all__ = ["every", "one"]

#: Wheels that are read and sent in one go.
_AT_ONCE = 500


async def every(request: web.BaseRequest, site: Site) -> web.StreamResponse:
    """Answer the channels by name, each with where its pages and its members are."""
    rows = [
        {"name": name, "url": f"channels/{name}", "simple": f"../{name}/simple/"}
        for name in listing.channels(site.house)
    ]
    return simple.send(request, text({"channels": rows}))


async def one(request: web.BaseRequest, site: Site, *, channel: str) -> web.StreamResponse:
    """Answer the wheels of a channel in its order; with ``?project=`` or ``?ref=`` those of a project, or that REF names.

    A REF is a file name, or the start of a fingerprint or sha256. What is withheld isn't there.
    """
    if channel not in listing.channels(site.house):
        raise Refusal(404, "channel-missing", f"there is no channel {channel}")
    asked = parse_qs(simple.query(request)[1:])
    project, ref = (asked.get(key, [""])[0] for key in ("project", "ref"))
    found = await site.reading(lambda house: overview.offered(house, channel, simple.normalised(project), ref))
    up = 2 + channel.count("/")
    if len(found) <= _AT_ONCE:
        return simple.send(request, await site.reading(lambda house: _whole(house, channel, found, up)))
    answer = web.StreamResponse(
        headers={"Content-Type": "application/json", "Cache-Control": PAGE, "Vary": "Accept-Encoding"}
    )
    await answer.prepare(request)
    if request.method != "HEAD":
        await _stream(answer, site, channel, found, up)
    return answer


def _whole(house: Wheelhouse, channel: str, found: Sequence[str], up: int) -> Text:
    return text({"channel": channel, "wheels": _rows(house, found, up)})


def _rows(house: Wheelhouse, found: Sequence[str], up: int) -> list[dict[str, Any]]:
    return [row(wheel, up=up) for wheel in overview.wheels(house, found) if wheel.state in OFFERED]


def _told(house: Wheelhouse, *, found: Sequence[str], up: int) -> str:
    return ",".join(map(dumps, _rows(house, found, up)))


async def _stream(answer: web.StreamResponse, site: Site, channel: str, found: Sequence[str], up: int) -> None:
    """Send the same with a part of it in memory at a time: twenty thousand wheels are 14 MB, and clients many, or slow."""
    await answer.write(f'{{"channel":"{channel}","wheels":['.encode())
    comma = ""
    for start in range(0, len(found), _AT_ONCE):
        part = found[start : start + _AT_ONCE]
        try:
            rows = await site.reading(partial(_told, found=part, up=up))
        except SparkError as error:  # the answer has begun: that it doesn't end tells the client
            site.complain(f"/api/channels/{channel}: {error.code}: {error.summary}: {error.cause}")
            raise ConnectionResetError(error.summary) from error
        if rows:
            await answer.write(f"{comma}{rows}".encode())
            comma = ","
    await answer.write(b"]}\n")
