"""Connections that are used again: only when nothing is left on them, and never noticed when they end."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from builder.connections import Connections
from builder.source import login
from tests.tls_kit import certificate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

BODY = b"0123456789"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n" + BODY


@dataclass
class Server:
    """Says what `says` gives for the number of a connection and of a request on it; b"" ends the connection.

    `heads` has what was asked, with the number of its connection.
    """

    says: Callable[[int, int], Iterable[bytes]]
    secure: ssl.SSLContext | None = None
    heads: list[tuple[int, str]] = field(default_factory=list)
    url: str = ""
    ended: threading.Event = field(default_factory=threading.Event)
    _open: list[socket.socket] = field(default_factory=list)

    def run(self, listening: socket.socket) -> None:
        for number in range(1000):
            try:
                raw, _address = listening.accept()
            except OSError:
                return
            self._open.append(raw)
            threading.Thread(target=self._serve, args=(raw, number), daemon=True).start()

    def _serve(self, raw: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            sock = stack.enter_context(self.secure.wrap_socket(raw, server_side=True) if self.secure else raw)
            stream = stack.enter_context(sock.makefile("rb"))
            for request in range(1000):
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    line = stream.readline()
                    if not line:
                        return
                    head += line
                self.heads.append((number, head.decode()))
                for part in self.says(number, request):
                    if part == b"":
                        return
                    sock.sendall(part)

    def close(self) -> None:
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    @property
    def connections(self) -> list[int]:
        return [number for number, _head in self.heads]


@contextlib.contextmanager
def serving(
    says: Callable[[int, int], Iterable[bytes]] = lambda _connection, _request: [OK],
    secure: ssl.SSLContext | None = None,
) -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = Server(says, secure)
        server.url = f"{'https' if secure else 'http'}://127.0.0.1:{listening.getsockname()[1]}"
        thread = threading.Thread(target=server.run, args=(listening,))
        thread.start()
        try:
            yield server
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()
            server.close()


def to(url: str, **headers: str) -> urllib.request.Request:
    return urllib.request.Request(url, headers=headers)  # noqa: S310  # of a server here


def asked(connections: Connections, url: str, **headers: str) -> bytes:
    with connections.open(to(url, **headers), timeout=20) as answer:
        return bytes(answer.read())


def test_one_connection_serves_one_thread_for_all_its_requests() -> None:
    with serving() as server, Connections() as connections:
        assert [asked(connections, f"{server.url}/{number}") for number in range(4)] == [BODY] * 4
        thread = threading.Thread(target=asked, args=(connections, server.url))
        thread.start()
        thread.join()
        asked(connections, server.url)
    assert server.connections == [0, 0, 0, 0, 1, 0]
    assert all("connection: close" not in head.lower() for _number, head in server.heads)


@pytest.mark.parametrize("elsewhere", ["ftp://{}/x", "file:///etc/hostname"])
def test_a_redirect_leads_to_http_alone(elsewhere: str) -> None:
    """urllib would fetch by FTP."""
    with serving() as other:
        place = elsewhere.format(other.url.removeprefix("http://"))
        answer = f"HTTP/1.1 302 Found\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n".encode()
        with serving(lambda _connection, _request: [answer]) as server, Connections(login.Redirects) as connections:
            with pytest.raises(urllib.error.HTTPError, match="302") as caught:
                asked(connections, server.url)
            caught.value.close()


def test_what_wasn_t_read_isn_t_taken_for_the_next_answer() -> None:
    with serving() as server, Connections() as connections:
        with connections.open(to(server.url), timeout=20) as answer:
            assert answer.read(4) == BODY[:4]
        assert asked(connections, server.url) == BODY
    assert server.connections == [0, 1]


@pytest.mark.parametrize(
    "after",
    [
        [OK, b""],  # it says nothing, and ends the connection
        [OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1), b""],
        [OK, b"HTTP/1.1 408 Request Timeout\r\n\r\n", b""],  # some servers do before they end one
    ],
)
def test_a_connection_that_ended_is_replaced(after: list[bytes]) -> None:
    with serving(lambda _connection, _request: after) as server, Connections() as connections:
        assert [asked(connections, server.url) for _time in range(3)] == [BODY] * 3
    assert server.connections == [0, 1, 2]


def test_a_connection_that_ends_under_a_request_is_replaced() -> None:
    """The server closes it while the second request is on its way."""

    def says(connection: int, request: int) -> Sequence[bytes]:
        return [b""] if (connection, request) == (0, 1) else [OK]

    with serving(says) as server, Connections() as connections:
        assert [asked(connections, server.url) for _time in range(3)] == [BODY] * 3
    assert server.connections == [0, 0, 1, 1]


def test_what_comes_unasked_is_no_answer() -> None:
    sent = threading.Event()

    def says(connection: int, _request: int) -> Iterator[bytes]:
        yield OK
        if connection == 0:
            yield OK.replace(BODY, b"wrong file")
            sent.set()

    with serving(says) as server, Connections() as connections:
        assert asked(connections, server.url) == BODY
        assert sent.wait(60)
        assert asked(connections, server.url) == BODY


def test_a_new_connection_that_ends_under_a_request_is_a_failure() -> None:
    with (
        serving(lambda _connection, _request: [b""]) as server,
        Connections() as connections,
        pytest.raises(ConnectionError),
    ):
        asked(connections, server.url)
    assert server.connections == [0]


def test_leaving_ends_what_still_comes() -> None:
    """A user who stops it doesn't wait for a server that says nothing more."""
    begun = threading.Event()
    found: list[bytes] = []

    def read(connections: Connections, url: str) -> None:
        with connections.open(to(url), timeout=600) as answer:
            begun.set()
            buffer = memoryview(bytearray(100))
            found.append(bytes(buffer[: answer.readinto(buffer)]))

    with serving(lambda _connection, _request: [OK[:-5]]) as server:
        with Connections() as connections:
            thread = threading.Thread(target=read, args=(connections, server.url))
            thread.start()
            assert begun.wait(60)
        thread.join(60)
        assert not thread.is_alive()
    assert found == [BODY[:5]]


def test_another_host_gets_no_login_though_the_connection_stays() -> None:
    with serving() as other:
        moved = f"HTTP/1.1 302 Found\r\nLocation: {other.url}/there\r\nContent-Length: 10\r\n\r\n".encode() + BODY

        def says(_connection: int, request: int) -> Sequence[bytes]:
            return [OK if request else moved]

        with serving(says) as server, Connections(login.Redirects) as connections:
            assert asked(connections, server.url, Authorization="Basic secret") == BODY
            assert asked(connections, server.url, Authorization="Basic secret") == BODY
    assert server.connections == [0, 0]
    assert ["secret" in head for _number, head in server.heads] == [True, True]
    assert [("/there" in head, "secret" in head) for _number, head in other.heads] == [(True, False)]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a key and a certificate for 127.0.0.1."""
    file = tmp_path_factory.mktemp("certificate") / "both.pem"
    certificate(file, file)
    return file


@pytest.fixture
def secure(both: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """TLS for a server, with a certificate that this process takes."""
    monkeypatch.setenv("SSL_CERT_FILE", str(both))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    return context


def test_one_handshake_serves_many_requests(secure: ssl.SSLContext) -> None:
    with serving(secure=secure) as server, Connections() as connections:
        assert [asked(connections, server.url) for _time in range(3)] == [BODY] * 3
    assert server.connections == [0, 0, 0]


def test_a_stranger_s_certificate_is_refused(secure: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    refused = pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED")
    with serving(secure=secure) as server, Connections() as connections, refused:
        asked(connections, server.url)
    assert server.connections == []


def test_a_proxy_gets_one_tunnel_for_many_requests(secure: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy's login is for the proxy, and the name in the tunnel decides which connection fits."""
    opened: list[bytes] = []

    def tunnel(client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += client.recv(1)
            opened.append(head)
            host, _, port = head.split()[1].decode().partition(":")
            with socket.create_connection((host, int(port))) as far:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                threading.Thread(target=pump, args=(far, client), daemon=True).start()
                pump(client, far)

    def pump(one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)

    def accept(listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=tunnel, args=(listening.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as proxy, serving(secure=secure) as one, serving(secure=secure) as two:
        thread = threading.Thread(target=accept, args=(proxy,))
        thread.start()
        try:
            monkeypatch.setenv("https_proxy", f"http://me:secret@127.0.0.1:{proxy.getsockname()[1]}")
            monkeypatch.setenv("no_proxy", "")
            with Connections() as connections:
                for server in (one, two, one, two):
                    assert asked(connections, server.url) == BODY
        finally:
            proxy.shutdown(socket.SHUT_RDWR)
            thread.join()
    assert [head.split()[1].decode() for head in opened] == [
        server.url.removeprefix("https://") for server in (one, two)
    ]
    assert all(b"Proxy-Authorization: Basic" in head for head in opened)
    assert one.connections == two.connections == [0, 0]
    assert not any("authorization" in head.lower() for _number, head in one.heads + two.heads)
