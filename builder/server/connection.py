"""A connection: aiohttp's, with limits that it lacks, and a short way for answers that lie ready.

aiohttp waits for ever for the end of a request's head, and for a client to take its answer; both have an end here. It also
starts a task for every connection and for every request, which costs three times what all the rest of a page does: a request
for a text that is on the shelf, and still holds, is answered where its bytes come in, and a connection that asks for nothing
else never has a task.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http_exceptions import LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.tcp_helpers import tcp_keepalive
from aiohttp.web_protocol import RequestHandler, _ErrInfo

from builder.errors import SparkError
from builder.server import negotiate, refusal
from builder.server.refusal import Refusal
from builder.server.shelf import NOT_MODIFIED

if TYPE_CHECKING:
    import asyncio

    from aiohttp.http_parser import RawRequestMessage

    from builder.server.shelf import Text
    from builder.server.site import Site

__all__ = ["Connection", "Server"]

SERVER = "spark-build"
#: Of a request's line, and of each header. What all headers of a request may take together.
MAX_LINE, MAX_HEADERS, MAX_HEAD = 8190, 64, 32 * 1024


class Request(web.BaseRequest):
    """A request; its answer doesn't tell which versions of what made it."""

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        response.headers["Server"] = SERVER


class Server(web.Server):
    """Makes a `Connection` for each client."""

    def __init__(self, handler: Any, site: Site) -> None:  # noqa: ANN401  # aiohttp's type isn't public
        super().__init__(handler, request_factory=self._request)
        self.site = site

    def _request(self, message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> Request:  # noqa: ANN401  # as above
        return Request(message, payload, protocol, writer, task, self._loop)

    def __call__(self) -> RequestHandler:
        """Return the protocol of a new connection."""
        return Connection(self, self.site, loop=self._loop)


class Connection(RequestHandler):
    """One client's connection."""

    __slots__ = ("_deadline", "_head", "_site", "_stalled")

    def __init__(self, manager: Server, site: Site, *, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            manager,
            loop=loop,
            keepalive_timeout=site.settings.idle_s,
            access_log=None,  # type: ignore[arg-type]  # ours is written elsewhere
            max_line_size=MAX_LINE,
            max_field_size=MAX_LINE,
            max_headers=MAX_HEADERS,
            lingering_time=site.settings.linger_s,
            auto_decompress=False,
        )
        self._site = site
        self._head = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the client in, unless there are too many."""
        metrics = self._site.metrics
        metrics.connections += 1
        # As RequestHandler does, but for the task: `_begin` starts that when there is something for it to do.
        BaseProtocol.connection_made(self, transport)
        assert self._manager is not None and self.transport is not None  # noqa: PT018, S101  # until it is lost
        tcp_keepalive(self.transport)
        self._manager.connection_made(self, self.transport)
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        self._keepalive_handle = self._loop.call_at(self._next_keepalive_close_time, self._process_keepalive)
        if metrics.connections > self._site.settings.connections:
            metrics.add("connections_refused_total")
            self.force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Let go of what was for this client."""
        self._site.metrics.connections -= 1
        for timer in (self._deadline, self._stalled):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    # --- what comes in

    def data_received(self, data: bytes) -> None:
        """Parse; answer what lies ready, leave the rest to the connection's task."""
        waiter = self._waiter
        if not self._is_idle or self._messages:
            super().data_received(data)
            return
        self._waiter = None  # not woken for what is answered here
        try:
            super().data_received(data)
        finally:
            self._waiter = waiter
        if not self._messages:
            if self._buffer_paused:  # all that waited was answered
                self._resume_reading_for_buffer()
            if data:
                self._await_head(len(data))
            return
        self._head = 0
        while self._messages and self._answer_at_once():
            self._messages.popleft()
            self._parser.message_consumed()  # type: ignore[union-attr]  # there is one
        if self._messages:
            self._begin()
        elif self._buffer_paused:  # the parser holds back what came in the same go: others first
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """Take up what the parser held back."""
        if self.transport is not None and self._is_idle:
            self.data_received(b"")

    @property
    def _is_idle(self) -> bool:
        """Whether no request is worked on: there is no task, or it waits."""
        return self._task_handler is None or (self._waiter is not None and not self._waiter.done())

    def _begin(self) -> None:
        """Let the task take up what was parsed."""
        if self._task_handler is None:
            self._task_handler = self._loop.create_task(self.start())
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def close(self) -> None:
        """Take no more requests; close when what is worked on is answered."""
        super().close()
        if self._task_handler is None and self.transport is not None:
            self.transport.close()

    def _await_head(self, size: int) -> None:
        """Bound the time and the bytes that the head of a request takes."""
        if not self._head:
            at = self._loop.time() + self._site.settings.head_s
            if self._deadline is not None:
                self._deadline.cancel()
            self._deadline = self._loop.call_at(at, self._head_late)
        self._head += size
        if self._head > MAX_HEAD:
            self._refuse_now(431, "the head of the request is too large")

    def _process_keepalive(self) -> None:
        """Close an idle connection; one that has begun a request has another deadline."""
        if self._head:
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        super()._process_keepalive()
        if self._keepalive_handle is None and self._task_handler is None:
            self.force_close()

    def _head_late(self) -> None:
        self._deadline = None
        if self._head and self._is_idle:
            self._refuse_now(408, "the request took too long")

    def _refuse_now(self, status: int, text: str) -> None:
        """Say so and hang up; nothing of the request was understood yet."""
        self._site.metrics.observe("bad", status, 0, 0.0)
        if self.transport is not None:
            self.transport.write(
                f"HTTP/1.1 {status} {refusal.TITLES[status]}\r\nServer: {SERVER}\r\nContent-Type: text/plain\r\n"
                f"Content-Length: {len(text) + 1}\r\nConnection: close\r\n\r\n{text}\n".encode()
            )
        self.force_close()

    def _answer_at_once(self) -> bool:
        """Answer the first message from the shelf; return whether that was possible."""
        message, payload = self._messages[0]
        if (
            payload is not EMPTY_PAYLOAD
            or isinstance(message, _ErrInfo)
            or self._paused
            or message.method != "GET"
            or message.should_close
            or message.upgrade
            or self._upgraded
            or len(named := message.headers.getall("Host", [])) != 1
            or not self._site.is_ours(named[0])
        ):
            return False
        now = self._loop.time()
        text, user = self._ready(message, now) or (None, "")
        if text is None or self.transport is None:
            return False
        headers = message.headers
        packed = bool(text.encoded) and negotiate.takes_gzip(headers.get("Accept-Encoding", ""))
        known = headers.get("If-None-Match")
        status = NOT_MODIFIED if known is not None and text.matches(known) else text.status
        body = b"" if status == NOT_MODIFIED else text.current(headers, packed=packed)
        if body is None:
            return False
        self.transport.write(
            b"".join((text.line(status, packed=packed), rfc822_formatted_time().encode(), b"\r\n\r\n", body))
        )
        self._next_keepalive_close_time = now + self._keepalive_timeout
        site = self._site
        site.metrics.observe(text.label, status, len(body), self._loop.time() - now)
        if site.log is not None:
            site.log_line(message, self.peername, status, len(body), user)
        return True

    def _ready(self, message: RawRequestMessage, now: float) -> tuple[Text, str] | None:
        """Return the text for a request and whose token it has, if there is one that still holds and may be read."""
        site, path, headers = self._site, message.path, message.headers
        kind = "" if path.startswith("/files/") else negotiate.kind_of(headers.get("Accept", ""))
        text = site.shelf.get(path, kind) or site.absent.get(path, "")
        if text is None:
            return None
        try:
            if text.checked != site.fresh(now):
                return None
            holder = site.tokens.judge(headers.get("Authorization"), "read")
        except (Refusal, SparkError):  # said on the longer way
            return None
        return text, holder.name

    # --- what goes out

    def pause_writing(self) -> None:
        """See to it that a client that takes nothing doesn't hold the connection for ever."""
        super().pause_writing()
        self._watch(self._left())

    def resume_writing(self) -> None:
        """Go on."""
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        super().resume_writing()

    def _left(self) -> int:
        return self.transport.get_write_buffer_size() if self.transport is not None else 0

    def _watch(self, before: int) -> None:
        self._stalled = self._loop.call_later(self._site.settings.stall_s, self._look, before)

    def _look(self, before: int) -> None:
        self._stalled = None
        left = self._left()
        if left and left >= before and self.transport is not None:
            self._site.metrics.add("stalled_total")
            self.transport.abort()
        elif left:
            self._watch(left)

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Answer what isn't HTTP, and errors past all handlers; the connection is closed after it."""
        if isinstance(exc, ConnectionError) or request.writer.output_size > 0:
            raise ConnectionResetError("nobody is there, or an answer was begun already")
        if isinstance(exc, LineTooLong):
            status, message = 431, "a line of the request is too long"
        elif status == 400:  # noqa: PLR2004
            message = "that isn't a request of HTTP/1.1"
        else:
            self._site.complain(f"an answer failed: {type(exc).__name__}: {exc}")
            message = "the server failed"
        answer = refusal.answer(Refusal(status, "bad", message), accept="")
        answer.force_close()
        self._site.metrics.observe("bad", status, answer.body_length, 0.0)
        return answer

    def log_exception(self, *args: Any, **_kw: Any) -> None:  # noqa: ANN401  # as aiohttp calls it
        """Write an error of the protocol as one line."""
        self._site.complain(f"connection: {args[0] if args else ''}: {time.strftime('%H:%M:%S')}")
