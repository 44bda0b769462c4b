"""Sending a part of a file to a client: by the kernel, without reading it."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiohttp import web

__all__ = ["send"]

#: As much as the kernel takes at a time; it takes what fits into the socket's buffer.
_AT_ONCE = 16 << 20
#: What is read at a time where TLS has to encrypt it.
_CHUNK = 256 * 1024


async def send(
    request: web.BaseRequest, answer: web.StreamResponse, descriptor: int, start: int, end: int, *, stall_s: float
) -> None:
    """Send the bytes from `start` to `end` of an open file as the body of `answer`, whose head was sent.

    A client that takes nothing for `stall_s` seconds is cut off. Raises ConnectionError then, when the client is gone, and
    when the file turns out to be shorter.
    """
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the client is gone")
    if transport.get_extra_info("sslcontext") is not None:
        await _by_hand(answer, descriptor, start, end)
        return
    transport.set_write_buffer_limits(0)
    await request.writer.drain()  # the head is out: what follows goes past the transport
    transport.set_write_buffer_limits()
    job = _Sending(transport, descriptor, start, end, stall_s)
    try:
        await job.done
    finally:
        job.close()


async def _by_hand(answer: web.StreamResponse, descriptor: int, start: int, end: int) -> None:
    while start < end:
        data = os.pread(descriptor, min(_CHUNK, end - start), start)
        if not data:
            raise ConnectionResetError("the file has become shorter")
        start += len(data)
        await answer.write(data)


class _Sending:
    """Gives the socket more whenever it takes more. `done` ends when all is sent, or with an error.

    The socket's transport has nothing to write meanwhile; the kernel is asked by a second descriptor of the same socket, as
    the loop knows each only once.
    """

    def __init__(self, transport: asyncio.Transport, descriptor: int, start: int, end: int, stall_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._from = descriptor
        self._start, self._end = start, end
        self._stall_s = stall_s
        self._seen = start
        self.done: asyncio.Future[None] = self._loop.create_future()
        self._to = os.dup(transport.get_extra_info("socket").fileno())
        self._loop.add_writer(self._to, self._more)
        self._timer = self._loop.call_later(stall_s, self._look)

    def close(self) -> None:
        """Let go of the socket."""
        self._timer.cancel()
        self._loop.remove_writer(self._to)
        os.close(self._to)

    def _more(self) -> None:
        try:
            sent = os.sendfile(self._to, self._from, self._start, min(_AT_ONCE, self._end - self._start))
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._fail(ConnectionResetError(f"the client is gone: {error.strerror}"))
            return
        if not sent:
            self._fail(ConnectionResetError("the file has become shorter"))
            return
        self._start += sent
        if self._start >= self._end and not self.done.done():
            self._loop.remove_writer(self._to)
            self.done.set_result(None)

    def _look(self) -> None:
        if self._seen == self._start:
            self._fail(ConnectionResetError("the client takes nothing"))
            return
        self._seen = self._start
        self._timer = self._loop.call_later(self._stall_s, self._look)

    def _fail(self, error: Exception) -> None:
        self._loop.remove_writer(self._to)
        self._transport.abort()
        if not self.done.done():
            self.done.set_exception(error)
