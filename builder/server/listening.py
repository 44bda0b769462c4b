"""Taking clients in.

Without TLS a connection is made where its client knocks. asyncio's own server starts a task for each, and goes round its
loop three times before the first byte is read; a resolver opens some fifty connections in a tenth of a second, and waits
for them.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

__all__ = ["Listening", "listen"]

_BACKLOG = 1024
#: So many clients are taken in before those that are here get their turn.
_AT_ONCE = 64
#: When files or memory have run out, knocking is heard again after so many seconds.
_PAUSE_S = 1.0
_OUT_OF = frozenset([errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])


class Listening(Protocol):
    """What listens on `port`."""

    port: int

    def close(self) -> None:
        """Listen no more."""


class _Sockets:
    """Sockets that listen; `make` gives the protocol of a new connection."""

    def __init__(self, sockets: list[socket.socket], make: Callable[[], asyncio.Protocol]) -> None:
        self.port: int = sockets[0].getsockname()[1]
        self._loop = asyncio.get_running_loop()
        self._sockets = sockets
        self._make = make
        for one in sockets:
            self._loop.add_reader(one, self._accept, one)

    def close(self) -> None:
        """Listen no more."""
        while self._sockets:
            one = self._sockets.pop()
            self._loop.remove_reader(one)
            one.close()

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            try:
                client, _address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _OUT_OF:
                    raise
                self._loop.remove_reader(listening)
                self._loop.call_later(_PAUSE_S, self._again, listening)
                return
            client.setblocking(False)  # noqa: FBT003  # the standard library's
            self._loop._make_socket_transport(client, self._make())  # type: ignore[attr-defined]  # noqa: SLF001  # see `listen`

    def _again(self, listening: socket.socket) -> None:
        if listening in self._sockets:
            self._loop.add_reader(listening, self._accept, listening)


async def listen(
    make: Callable[[], asyncio.Protocol], bind: str, port: int, context: ssl.SSLContext | None
) -> Listening:
    """Listen on all addresses that `bind` means; raise OSError as `loop.create_server` does."""
    loop: Any = asyncio.get_running_loop()
    if context is not None or not hasattr(loop, "_make_socket_transport"):  # not a loop of CPython's as they are so far
        return _Asyncios(await loop.create_server(make, bind, port, ssl=context, backlog=_BACKLOG, reuse_address=True))
    found = await loop.getaddrinfo(bind, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _name, address in dict.fromkeys(found):
            sockets.append(one := socket.socket(family, kind, protocol))
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind(address)
            one.listen(_BACKLOG)
            one.setblocking(False)  # noqa: FBT003
    except OSError:
        for one in sockets:
            one.close()
        raise
    return _Sockets(sockets, make)


class _Asyncios:
    """The same by asyncio's own server."""

    def __init__(self, server: asyncio.Server) -> None:
        self._server = server
        self.port: int = server.sockets[0].getsockname()[1]

    def close(self) -> None:
        """Listen no more."""
        self._server.close()
