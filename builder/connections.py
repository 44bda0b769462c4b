"""Connections that are used again: two hundred files from one host cost one handshake a thread, and none starts slowly anew.

urllib finds proxies, follows redirects and asks for logins, but closes each connection behind its answer. Here it gets one
that only looks as if it was closed. A connection belongs to the thread that opened it, and carries one request at a time.
"""

from __future__ import annotations

import contextlib
import http
import http.client
import select
import socket
import ssl
import threading
import urllib.request
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Connections"]


class Connections:
    """Opens URLs over connections that stay; leaving the block closes them, and ends what still comes over one.

    Proxies and certificates are those of the process's environment, which are read once.
    """

    def __init__(self, *handlers: type[urllib.request.BaseHandler]) -> None:
        self._kept: dict[tuple[object, ...], tuple[http.client.HTTPConnection, http.client.HTTPResponse]] = {}
        self._opener = urllib.request.build_opener(_Http(self), _Https(self), *handlers)

    def open(self, request: urllib.request.Request, *, timeout: float) -> Any:  # noqa: ANN401  # urllib says no type
        """Return the answer to a request without a body; raise as urllib does."""
        return self._opener.open(request, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        while self._kept:
            sock = self._kept.popitem()[1][0].sock
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads from it, and leaves it its descriptor
                sock.close()

    def keep(
        self, key: tuple[object, ...], connection: http.client.HTTPConnection, answer: http.client.HTTPResponse
    ) -> None:
        """Keep a connection for the time when `answer` was read."""
        self._kept[key] = connection, answer

    def take(self, key: tuple[object, ...]) -> http.client.HTTPConnection | None:
        """Return a connection that nobody uses and that is still open."""
        if key not in self._kept:
            return None
        connection, answer = self._kept.pop(key)
        # What is left of a body would be taken for the next answer.
        if answer.isclosed() and answer.length == 0 and connection.sock is not None and not _speaks(connection.sock):
            return connection
        connection.close()
        return None


def _speaks(sock: socket.socket) -> bool:
    """Whether something comes unasked: the end, or worse."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


class _Http(urllib.request.HTTPHandler):
    def __init__(self, pool: Connections) -> None:
        super().__init__()
        self._pool = pool

    def http_open(self, req: urllib.request.Request) -> Any:  # noqa: ANN401  # urllib's method
        return self.do_open(_lending(self._pool, http.client.HTTPConnection), req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, pool: Connections) -> None:
        self._pool, self._secure = pool, ssl.create_default_context()
        super().__init__(context=self._secure)

    def https_open(self, req: urllib.request.Request) -> Any:  # noqa: ANN401  # urllib's method
        return self.do_open(_lending(self._pool, http.client.HTTPSConnection, context=self._secure), req)


def _lending(pool: Connections, kind: Callable[..., http.client.HTTPConnection], **how: Any) -> Any:  # noqa: ANN401
    """Return what urllib calls in order to get a connection."""

    def lend(host: str, *, timeout: float) -> _Lent:
        return _Lent(pool, (threading.get_ident(), kind, host), lambda: kind(host, timeout=timeout, **how))

    return lend


class _Lent:
    """As much of http.client.HTTPConnection as urllib calls: one request and its answer."""

    sock = None  # urllib closes what it finds there

    def __init__(
        self, pool: Connections, key: tuple[object, ...], connect: Callable[[], http.client.HTTPConnection]
    ) -> None:
        self._pool, self._key, self._connect = pool, key, connect
        self._tunnel: tuple[str, Mapping[str, str]] | None = None
        self._used: http.client.HTTPConnection | None = None
        self._answer: http.client.HTTPResponse | None = None

    def set_debuglevel(self, level: int) -> None:
        """Nobody debugs here."""

    def set_tunnel(self, host: str, headers: Mapping[str, str]) -> None:
        """Go through the proxy to `host`."""
        self._tunnel, self._key = (host, headers), (*self._key, host)

    def request(self, method: str, url: str, body: None, headers: Mapping[str, str], **_how: object) -> None:
        """Ask, over a connection that was kept where one is still open."""
        asked = method, url, body, {name: value for name, value in headers.items() if name != "Connection"}
        self._used = self._pool.take(self._key)
        if self._used is not None:
            # What was ended over there just now is no failure of this request: it was never looked at.
            with contextlib.suppress(ConnectionError):
                self._used.request(*asked)
                self._answer = self._used.getresponse()
                if self._answer.status != http.HTTPStatus.REQUEST_TIMEOUT:  # said before (RFC 9110, 15.5.9)
                    return
            self._answer = None
            self._used.close()
        self._used = self._connect()
        if self._tunnel:
            self._used.set_tunnel(self._tunnel[0], headers=dict(self._tunnel[1]))
        self._used.request(*asked)

    def getresponse(self) -> http.client.HTTPResponse:
        """Return the answer to it."""
        assert self._used is not None  # noqa: S101  # urllib asked before
        if self._answer is None:
            self._answer = self._used.getresponse()
        self._pool.keep(self._key, self._used, self._answer)
        return self._answer

    def close(self) -> None:
        """Give up: urllib does so where asking failed."""
        if self._used is not None:
            self._used.close()
