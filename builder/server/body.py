"""The body of a request, taken in blocks: never more of it in memory than one, and never longer waited for than is said."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import aiohttp

from builder.server.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp import web

    from builder.server.site import Site

__all__ = ["BLOCK", "blocks", "drain", "length", "whole"]

BLOCK = 1 << 20
_ENDLESS = frozenset({408, 411, 413})


def length(request: web.BaseRequest, most: int) -> int:
    """Return the bytes of the body, as the client says; raise Refusal 411 where it doesn't, 413 for more than `most`."""
    said = request.content_length
    if said is None or "Transfer-Encoding" in request.headers:
        raise Refusal(411, "length", "say with Content-Length how long the body is")
    if said > most:
        raise Refusal(413, "body-long", f"the body has {said} bytes, and more than {most} aren't taken")
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Refusal(415, "body-encoded", "send the body as it is, without Content-Encoding")
    return said


async def blocks(request: web.BaseRequest, site: Site) -> AsyncIterator[bytes]:
    """Yield the body in blocks of about `BLOCK` bytes, also what came before it ended in the middle.

    Raises Refusal 408 when nothing came for `Settings.stall_s`, ConnectionResetError when the client is gone.
    """
    waiting, size, ended = [], 0, False
    while not ended:
        trouble: Exception | None = None
        try:
            async with asyncio.timeout(site.settings.stall_s):
                data = await request.content.readany()
            waiting.append(data)
            size += len(data)
            ended = not data
        except TimeoutError:
            trouble = Refusal(408, "stalled", f"nothing came for {site.settings.stall_s:.0f} s")
        except (aiohttp.ClientError, ConnectionError):
            trouble = ConnectionResetError()
        if size and (size >= BLOCK or ended or trouble):
            yield b"".join(waiting)
            waiting, size = [], 0
        if trouble:
            raise trouble


async def whole(request: web.BaseRequest, site: Site, most: int) -> bytes:
    """Return the body at once; raise what `length` and `blocks` do."""
    length(request, most)
    return b"".join([block async for block in blocks(request, site)])


async def drain(request: web.BaseRequest, site: Site, refused: Refusal | None = None) -> None:
    """Read what is left, and forget it: who is still sending looks at the answer only afterwards.

    Who was `refused` for stalling, for sending too much, or for not saying how much it is, isn't waited for.
    """
    if refused is not None and refused.status in _ENDLESS:
        return
    with contextlib.suppress(Refusal, ConnectionError):
        async for _block in blocks(request, site):
            pass
