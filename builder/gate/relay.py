"""A compile cache on another machine, for builds whose network is cut.

A build reaches no host, but it reaches a unix socket in its own tree. ccache (4.13) can ask a helper on such a socket
instead of a server, and this is one: a thread of spark-build, outside, that passes on what it is asked over HTTP or HTTPS.
So the token stays outside, too, and one slow or dead server is found out once and not by every compile.

Protocol: ``doc/remote_storage_helper_spec.md`` in ccache's sources, version 1. Server: GET, HEAD and PUT of opaque values at
``<url>/<first two digits of the key>/<the rest>``, as ccache itself lays them out over HTTP, so both can share a server.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import queue
import shutil
import socket
import struct
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import quote, unquote, urlsplit

from builder.values import dataclass

if TYPE_CHECKING:
    from io import BufferedReader
    from types import TracebackType

__all__ = ["Relay", "Served"]

SOCKET = "ccache.sock"

#: What an address of a unix socket holds (unix(7)), with some room.
_LONGEST = 100

#: The greeting: protocol 1, one capability: get, put and remove.
_GREETING = bytes([1, 1, 0])

_OK, _NOOP, _ERROR = b"\x00", b"\x01", b"\x02"
_GET, _PUT, _REMOVE, _STOP = range(4)

#: An object of a large kernel has 12 MB; what is far beyond isn't asked for by ccache.
_LARGEST = 1 << 30

_TIMEOUT_S = 10.0

#: How long a server that didn't answer is left alone: compiles go on without it.
_AWAY_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What the relay did: values got and put, requests that failed, and the last reason."""

    got: int = 0
    put: int = 0
    failed: int = 0
    reason: str = ""


class Relay:
    """A helper for the build in `root`, seen by it as `inside`. Use it as a context; outside of one nobody is answered.

    `url` may carry a user and a secret; `token` is sent as a bearer token. Neither gets into the build.
    """

    def __init__(self, url: str, *, root: Path, inside: Path, token: str | None = None) -> None:
        self._server = _Server(url, token)
        self._folder, seen = root, inside
        if len(os.fsencode(inside / SOCKET)) > _LONGEST:
            self._folder = seen = Path(tempfile.mkdtemp(prefix="spark-build-"))
        self._own = self._folder != root
        self.socket = seen / SOCKET
        self._listener = socket.socket(socket.AF_UNIX)

    def __enter__(self) -> Self:
        """Listen. A socket that an earlier run left is replaced."""
        (self._folder / SOCKET).unlink(missing_ok=True)
        folder = os.open(self._folder, os.O_PATH | os.O_DIRECTORY)
        try:  # the path outside may be longer than an address
            self._listener.bind(f"/proc/self/fd/{folder}/{SOCKET}")
        finally:
            os.close(folder)
        (self._folder / SOCKET).chmod(0o600)
        self._listener.listen(512)
        threading.Thread(target=self._accept, name="compile-cache", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening; who still waits for an answer gets none, and compiles."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        (self._folder / SOCKET).unlink(missing_ok=True)
        if self._own:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._server.close()

    @property
    def storage(self) -> str:
        """Where ccache finds it: CCACHE_REMOTE_STORAGE. Its time limits are longer than those for the server."""
        return f"crsh:{quote(str(self.socket))} data-timeout=15s request-timeout=60s"

    def served(self) -> Served:
        """Return what was done so far."""
        return self._server.served()

    def _accept(self) -> None:
        while True:
            try:
                client, _address = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(client,), name="compile-cache-client", daemon=True).start()

    def _talk(self, client: socket.socket) -> None:
        """Answer one ccache until it leaves."""
        with client, contextlib.suppress(OSError, EOFError), client.makefile("rb") as stream:
            client.sendall(_GREETING)
            while True:
                asked = stream.read(1)
                if not asked:
                    return
                if asked[0] == _STOP:  # the relay is this program's to stop, not a build's
                    client.sendall(_OK)
                    return
                client.sendall(self._answer(asked[0], stream))

    def _answer(self, asked: int, stream: BufferedReader) -> bytes:
        key = _read(stream, _read(stream, 1)[0]).hex()
        if asked == _GET:
            value = self._server.get(key)
            return _NOOP if value is None else _OK + struct.pack("=Q", len(value)) + value
        if asked == _PUT:
            flags = _read(stream, 1)[0]
            (size,) = struct.unpack("=Q", _read(stream, 8))
            if size > _LARGEST:
                raise EOFError
            return _OK if self._server.put(key, _read(stream, size), overwrite=bool(flags & 1)) else _NOOP
        if asked == _REMOVE:  # one build's trouble with an entry is no reason to take it from all others
            return _NOOP
        text = b"unknown request"
        return _ERROR + bytes([len(text)]) + text


def _read(stream: BufferedReader, size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise EOFError
    return data


class _Server:
    """The server that the relay stands for. Trouble with it is counted and never raised."""

    def __init__(self, url: str, token: str | None) -> None:
        self._parts = urlsplit(url)
        self._headers = {"User-Agent": "spark-build"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        elif self._parts.username is not None:
            login = f"{unquote(self._parts.username)}:{unquote(self._parts.password or '')}"
            self._headers["Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
        self._idle: queue.LifoQueue[http.client.HTTPConnection] = queue.LifoQueue()
        self._lock = threading.Lock()
        self._away_until = 0.0
        self._read_only = False
        self._served = Served()

    def get(self, key: str) -> bytes | None:
        """Return the value of `key`, or None."""
        status, body = self._ask("GET", key)
        if status != http.client.OK:
            return None
        self._count(got=1)
        return body

    def put(self, key: str, value: bytes, *, overwrite: bool) -> bool:
        """Store a value; return whether the server has it now because of that."""
        if self._read_only or (not overwrite and self._ask("HEAD", key)[0] == http.client.OK):
            return False
        status, _body = self._ask("PUT", key, value)
        if status in {http.client.UNAUTHORIZED, http.client.FORBIDDEN, http.client.METHOD_NOT_ALLOWED}:
            self._read_only = True
        stored = 200 <= status < 300  # noqa: PLR2004  # RFC 9110, 15.3
        self._count(put=int(stored))
        return stored

    def served(self) -> Served:
        with self._lock:
            return self._served

    def close(self) -> None:
        """Close what is idle."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()

    def _ask(self, method: str, key: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Return status and body; status 0 when there is no answer."""
        if time.monotonic() < self._away_until:
            return 0, b""
        path = f"{self._parts.path.rstrip('/')}/{key[:2]}/{key[2:]}"
        try:
            status, data = self._exchange(method, path, body)
        except (OSError, http.client.HTTPException) as error:
            self._away_until = time.monotonic() + _AWAY_S
            self._count(failed=1, reason=f"{self._parts.hostname}: {str(error) or type(error).__name__}")
            return 0, b""
        if status >= 400 and status != http.client.NOT_FOUND:  # noqa: PLR2004  # RFC 9110, 15.5
            self._count(failed=1, reason=f"{self._parts.hostname}: {method} was answered by {status}")
        return status, data

    def _exchange(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        """Do one request; a connection that was idle may be gone, so there a new one is tried, too."""
        while True:
            connection, used = self._connection()
            try:
                connection.request(method, path, body, self._headers)
                answer = connection.getresponse()
                data = answer.read()
            except (OSError, http.client.HTTPException):
                connection.close()
                if used:
                    continue
                raise
            if answer.will_close:
                connection.close()
            else:
                self._idle.put(connection)
            return answer.status, data

    def _connection(self) -> tuple[http.client.HTTPConnection, bool]:
        with contextlib.suppress(queue.Empty):
            return self._idle.get_nowait(), True
        host = self._parts.hostname or ""
        make = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        return make(host, self._parts.port, timeout=_TIMEOUT_S), False

    def _count(self, *, got: int = 0, put: int = 0, failed: int = 0, reason: str = "") -> None:
        with self._lock:
            old = self._served
            self._served = Served(
                got=old.got + got, put=old.put + put, failed=old.failed + failed, reason=reason or old.reason
            )
