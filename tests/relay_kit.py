"""A relay between a client and a server that passes every byte on, writes down what was asked, and can do harm on purpose.

It speaks just enough HTTP/1.1 to know where a message ends; a body that shouldn't be there is a fault that it remembers.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_CHUNK = 1 << 16
_NO_BODY = frozenset([204, 304])


class Stream(Protocol):
    """What is read of a connection."""

    def readline(self) -> bytes: ...
    def read(self, size: int, /) -> bytes: ...


@dataclass
class Seen:
    """One request and what was answered; header names in lower case, `sent` counts the bytes of body that were passed on."""

    method: str
    path: str
    headers: dict[str, str]
    connection: int
    status: int = 0
    answer: dict[str, str] = field(default_factory=dict)
    sent: int = 0

    @property
    def is_page(self) -> bool:
        return self.path.endswith("/")

    @property
    def is_wheel(self) -> bool:
        return self.path.endswith(".whl")

    @property
    def is_metadata(self) -> bool:
        return self.path.endswith(".metadata")


@dataclass
class Relay:
    """A relay that runs. The hooks may be set at any time.

    `ask` may change a request; `alter` a whole body, None leaves it as it is; `cut` says after how many bytes of a body
    both connections are cut, None lets it pass; `turn` gives another status, None leaves it.
    """

    url: str
    upstream: tuple[str, int]
    seen: list[Seen] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    connections: int = 0
    ask: Callable[[Seen], None] | None = None
    alter: Callable[[Seen, bytes], bytes | None] | None = None
    cut: Callable[[Seen], int | None] | None = None
    turn: Callable[[Seen], int | None] | None = None

    def clear(self) -> None:
        self.seen.clear()
        self.faults.clear()
        self.connections = 0
        self.ask = self.alter = self.cut = self.turn = None

    def pages(self) -> list[Seen]:
        return [one for one in self.seen if one.is_page]

    def wheels(self, method: str = "GET") -> list[Seen]:
        return [one for one in self.seen if one.is_wheel and one.method == method]

    def metadata(self) -> list[Seen]:
        return [one for one in self.seen if one.is_metadata]

    # --- one connection

    def _serve(self, client: socket.socket) -> None:
        self.connections += 1
        number = self.connections
        with contextlib.suppress(OSError), client, socket.create_connection(self.upstream, timeout=60) as server:
            asked, answered = client.makefile("rb"), server.makefile("rb")
            while head := _head(asked):
                if not self._pass(head, number, client, server, asked, answered):
                    return
            server.settimeout(0.02)
            with contextlib.suppress(TimeoutError):
                if left := answered.read(1):
                    self.faults.append(f"bytes after the last answer: {left!r}")

    def _pass(
        self,
        head: list[bytes],
        number: int,
        client: socket.socket,
        server: socket.socket,
        asked: Stream,
        answered: Stream,
    ) -> bool:
        """Pass one request and its answer on; return whether the connection goes on."""
        method, target, _version = head[0].decode().split(" ", 2)
        seen = Seen(method, target.partition("?")[0], _fields(head), number)
        self.seen.append(seen)
        if self.ask is not None:
            self.ask(seen)
        if self.alter is not None:
            seen.headers["accept-encoding"] = "identity"
        server.sendall(_text(f"{method} {target} HTTP/1.1", seen.headers))
        for chunk in _body(asked, int(seen.headers.get("content-length", 0))):
            server.sendall(chunk)
        head = _head(answered)
        if not head or not head[0].startswith(b"HTTP/1.1 "):
            self.faults.append(f"no answer to {method} {target}: {head[:1]!r}")
            return False
        seen.status, seen.answer = int(head[0].split()[1]), _fields(head)
        if self.turn is not None and (other := self.turn(seen)):
            seen.status, head[0] = other, f"HTTP/1.1 {other} Turned\r\n".encode()
        return self._answer(seen, head[0].decode().strip(), client, answered)

    def _answer(self, seen: Seen, status: str, client: socket.socket, answered: Stream) -> bool:
        fields = seen.answer
        if seen.method == "HEAD" or seen.status in _NO_BODY:
            client.sendall(_text(status, fields))
            return fields.get("connection", "") != "close"
        whole = int(fields["content-length"])
        if self.alter is not None and seen.status == 200:
            body = answered.read(whole)
            changed = self.alter(seen, body)
            body = body if changed is None else changed
            client.sendall(_text(status, {**fields, "content-length": str(len(body))}) + body)
            seen.sent = len(body)
            return True
        client.sendall(_text(status, fields))
        limit = self.cut(seen) if self.cut is not None else None
        for chunk in _body(answered, whole if limit is None else min(whole, limit)):
            client.sendall(chunk)
            seen.sent += len(chunk)
        return seen.sent == whole and fields.get("connection", "") != "close"


def _head(stream: Stream) -> list[bytes]:
    lines = []
    while (line := stream.readline()) not in {b"", b"\r\n"}:
        lines.append(line)
    return lines


def _fields(head: list[bytes]) -> dict[str, str]:
    pairs = (line.decode("latin-1").partition(":") for line in head[1:])
    return {name.strip().lower(): value.strip() for name, _colon, value in pairs}


def _text(first: str, fields: dict[str, str]) -> bytes:
    lines = [first, *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def _body(stream: Stream, size: int) -> Iterator[bytes]:
    while size and (chunk := stream.read(min(size, _CHUNK))):
        size -= len(chunk)
        yield chunk


@contextlib.contextmanager
def relayed(url: str) -> Iterator[Relay]:
    """Give a relay before the server at `url`; its own ends with a slash, too."""
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        relay = Relay(url=f"http://127.0.0.1:{port}{parts.path}", upstream=(parts.hostname, parts.port))

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _address = listening.accept()
                    threading.Thread(target=relay._serve, args=(client,), daemon=True).start()  # noqa: SLF001

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield relay
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()
