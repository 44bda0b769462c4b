"""What no client of good will sends: as bytes over a socket, so that no library makes it better on the way."""

from __future__ import annotations

import contextlib
import itertools
import re
import socket
import time
from typing import TYPE_CHECKING

import pytest

from builder.index import listing
from tests.server_kit import UV_ACCEPT, drained, ended, serving, tuned
from tests.wheelhouse_kit import opened, publish, wheel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.server_kit import Server

SECRET = b"the-text-that-nobody-gets"
HEAD = "Host: x\r\nAccept: */*\r\n"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("abuse")
    root = folder / "house"
    with opened(root) as house:
        publish(house, [wheel(folder / "dist", "one"), wheel(folder / "dist", "big", size=6_000_000)])
    (folder / "secret.txt").write_bytes(SECRET)
    (root / "secret.txt").write_bytes(SECRET)
    return root


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[Server]:
    with serving(root) as server:
        yield server


def path_of(root: Path, project: str) -> str:
    with opened(root) as house:
        found = listing.project(house, "local", project)
        assert found is not None
        return f"/files/{found.files[0].sha256}/{found.files[0].filename}"


def statuses(answer: bytes) -> list[int]:
    return [int(found) for found in re.findall(rb"HTTP/1\.[01] (\d{3}) ", answer)]


def forms(root: Path) -> list[bytes]:
    """Ways out of a folder, as scanners and frameworks' advisories have them."""
    digest = path_of(root, "one").split("/")[2]
    prefixes = [
        "/", "/files/", f"/files/{digest}/", "/static/", "/simple/", "/simple/one/", "/ccache/", "/projects/",
        "/api/builds/",
        "/team/simple/", "http://x/", "/channels/",
    ]  # fmt: skip
    ups = [
        "../", "..%2f", "%2e%2e/", "%2e%2e%2f", ".%2e/", "%2E%2E%2F", "..\\", "..%5c", "%252e%252e%252f", "..%c0%af",
        "%c0%ae%c0%ae/", "....//", "..;/", "/%2e/../", "%uff0e%uff0e/", "..%00/", "./../", "\xff\xfe../",
    ]  # fmt: skip
    targets = ["secret.txt", "etc/passwd", "tokens.toml", "catalog.sqlite3", "journal.jsonl"]
    ways = [p + up * depth + t for p, up, depth in itertools.product(prefixes, ups, (1, 5)) for t in targets[:2]]
    ways += [p + t for p in prefixes for t in [*targets, "/etc/passwd", "%2fetc%2fpasswd", "\\etc\\passwd"]]
    return [way.encode("latin-1") for way in ways]


def test_no_way_out_of_what_the_catalogue_names(server: Server, root: Path) -> None:
    tried = forms(root)
    assert len(set(tried)) > 300
    for method, ways in ((b"GET", tried), (b"HEAD", tried[::7])):
        for way in ways:
            answer = server.raw(method + b" " + way + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert statuses(answer) in ([301], [400], [404]), (way, answer)
            assert SECRET not in answer
            assert b"root:" not in answer


def test_a_redirect_never_leads_to_another_host(server: Server) -> None:
    for path in ("//evil.example/simple/One", "/simple/One", "/simple/One?x=//evil", "/simple/%2f%2fevil/",
    "//evil/simple",
                 "/simple/ONE/", "/projects/One", "http://evil.example/simple", "/simple",
                 "/\\evil/simple"):  # fmt: skip
        answer = server.raw(f"GET {path} HTTP/1.1\r\n{HEAD}Connection: close\r\n\r\n".encode())
        for place in re.findall(rb"\r\nLocation: (.*?)\r\n", answer):
            assert not place.startswith((b"//", b"http", b"\\", b"/\\")), (path, place)


def test_floods_of_headers_end_with_a_word(server: Server) -> None:
    many = "".join(f"X-{number}: y\r\n" for number in range(5000))
    for head in (many, f"X: {'y' * 1_000_000}\r\n", f"{'X' * 100_000}: y\r\n", "X: y\r\n" * 70):
        answer = server.raw(f"GET /health HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode())
        assert statuses(answer) in ([400], [431]), answer[:200]
    long = server.raw(f"GET /simple/{'a' * 100_000}/ HTTP/1.1\r\n\r\n".encode())
    assert statuses(long) in ([400], [414], [431])
    assert server.ask("/health").status == 200


def test_a_head_without_end_is_bounded(server: Server) -> None:
    """Lines that each pass, and never the empty one."""
    with socket.create_connection((server.host, server.port), timeout=10) as client:
        with contextlib.suppress(OSError):
            client.sendall(b"GET / HTTP/1.1\r\n")
            for number in range(100_000):
                client.sendall(b"X-%d: %s\r\n" % (number, b"y" * 1000))
        answer = drained(client)
    assert statuses(answer) in ([400], [431], []), answer
    assert server.ask("/health").status == 200


SMUGGLED = [
    ("both lengths", "POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
    "0\r\n\r\n"),
    ("two lengths", "POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 60\r\n\r\n", ""),
    ("a list of lengths", "POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 0, 60\r\n\r\n", ""),
    ("a signed length", "POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: +0\r\n\r\n", ""),
    ("a negative length", "POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", ""),
    ("a hex length", "POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 0x0\r\n\r\n", ""),
    ("an unknown coding", "POST /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n", ""),
    ("chunked not last", "POST /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
    "0\r\n\r\n"),
    ("a blank before the colon", "POST /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n",
    "0\r\n\r\n"),
    ("a folded line", "POST /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\r\n chunked\r\n\r\n", "0\r\n\r\n"),
    ("a tab", "POST /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\x0bchunked\r\n\r\n", "0\r\n\r\n"),
    ("a bare LF", "POST /health HTTP/1.1\r\nHost: x\nContent-Length: 0\r\n\r\n", ""),
    ("a bare CR", "POST /health HTTP/1.1\r\nHost: x\rContent-Length: 60\r\n\r\n", ""),
    ("a NUL", "POST /health HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n", ""),
    ("a bad chunk", "POST /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", "zz\r\n"),
    ("a chunk of a signed size", "POST /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
    "+0\r\n\r\n"),
    ("no host name", "GET /health HTTP/1.1\r\n: x\r\n\r\n", ""),
    ("no host", "GET /simple/one/ HTTP/1.1\r\nConnection: close\r\n\r\n", ""),
    ("two hosts", "GET /simple/one/ HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n", ""),
    ("a huge chunk", "POST /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", "fffffffffffffffff\r\n"),
]  # fmt: skip


@pytest.mark.parametrize(("head", "body"), [one[1:] for one in SMUGGLED], ids=[one[0] for one in SMUGGLED])
def test_what_can_be_read_in_two_ways_is_not_read_as_two_requests(server: Server, head: str, body: str) -> None:
    inner = "GET /simple/one/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = server.raw((head + body + inner).encode("latin-1"), timeout=3, shut=True)
    assert 200 not in statuses(answer), answer
    assert statuses(answer)[-1:] in ([400], [405], [])


def test_a_body_where_none_is_wanted_is_not_a_request(server: Server) -> None:
    inner = b"GET /simple/one/ HTTP/1.1\r\nHost: x\r\n\r\n"
    head = b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(inner)
    last = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = server.raw(head + inner + last)
    assert statuses(answer) == [200, 200]
    assert answer.count(b'{"status": "ok"}') == 2


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x00" * 5000,
        b"\r\n" * 20_000,
        b"GET\r\n\r\n",
        b"GET /health\r\n\r\n",
        b"GET /health HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET  /health HTTP/1.1\r\nHost: x\r\n\r\n",
        b"get /health HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http:// HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET * HTTP/1.1\r\nHost: x\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET ? HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /simple/one/ HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
        bytes(range(256)) * 8,
    ],
)  # fmt: skip
def test_garbage_ends_without_a_crash(server: Server, data: bytes) -> None:
    answer = server.raw(data, timeout=2, shut=True)
    assert all(status < 500 for status in statuses(answer)), answer
    assert server.process.poll() is None
    assert "Traceback" not in server.log
    assert server.ask("/health").status == 200


@pytest.mark.parametrize("method", ["TRACE", "OPTIONS", "PATCH", "PUT", "DELETE", "POST", "CONNECT", "PROPFIND"])
def test_other_methods_are_told_which_there_are(server: Server, method: str) -> None:
    for path in ("/simple/", "/simple/one/", "/health", "/metrics", "/"):
        answer = server.raw(f"{method} {path} HTTP/1.1\r\n{HEAD}Connection: close\r\n\r\n".encode(), timeout=3)
        if method == "CONNECT":  # a path is no target for it
            assert statuses(answer) in ([400], [405])
            continue
        assert statuses(answer) == [405], answer
        assert b"\r\nAllow: GET, HEAD\r\n" in answer
    missing = server.raw(f"{method} /nothing HTTP/1.1\r\n{HEAD}Connection: close\r\n\r\n".encode(), timeout=3)
    assert statuses(missing) in ([404], [400])


def test_a_method_that_nobody_knows(server: Server) -> None:
    answer = server.raw(f"BREW /simple/ HTTP/1.1\r\n{HEAD}Connection: close\r\n\r\n".encode(), timeout=3)
    assert statuses(answer) in ([400], [405])


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    """Those that lie ready, those that take a task, wheels and errors, all in one go."""
    server.ask("/simple/one/", Accept=UV_ACCEPT)
    paths = [
        "/simple/one/",
        "/health",
        "/simple/pip/",
        "/nothing",
        "/simple/one/",
        "/metrics",
        "/simple/big/",
        "/health",
    ]
    asked = [path for _ in range(30) for path in paths]
    data = "".join(f"GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {UV_ACCEPT}\r\n\r\n" for path in asked[:-1])
    data += f"GET {asked[-1]} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    wanted = [404 if path in {"/simple/pip/", "/nothing"} else 200 for path in asked]
    assert statuses(server.raw(data.encode())) == wanted


def test_thousands_at_once_that_lie_ready(server: Server) -> None:
    """More than are parsed at a time, and than a buffer holds."""
    server.ask("/simple/one/", Accept=UV_ACCEPT)
    one = f"GET /simple/one/ HTTP/1.1\r\nHost: x\r\nAccept: {UV_ACCEPT}\r\n"
    for count in (31, 32, 33, 64, 65, 3000):
        answer = server.raw(f"{one}\r\n".encode() * (count - 1) + f"{one}Connection: close\r\n\r\n".encode())
        assert statuses(answer) == [200] * count


def test_a_request_in_small_pieces(server: Server) -> None:
    with socket.create_connection((server.host, server.port), timeout=10) as client:
        for (
            byte
        ) in f"GET /simple/one/ HTTP/1.1\r\nHost: x\r\nAccept: {UV_ACCEPT}\r\nConnection: close\r\n\r\n".encode():
            client.send(bytes([byte]))
        assert statuses(drained(client)) == [200]


def test_slow_clients_are_ended_and_hinder_nobody(root: Path) -> None:
    with ended(tuned(root, head_s=3.0, idle_s=3.0)) as server, contextlib.ExitStack() as stack:
        slow = []
        for number in range(500):
            client = stack.enter_context(socket.create_connection((server.host, server.port), timeout=20))
            client.sendall(b"GET /simple/one/ HTTP/1.1\r\nX-Slow: "[: number % 36])
            slow.append(client)
        for _ in range(200):
            assert server.ask("/simple/one/", Accept=UV_ACCEPT).status == 200
        late = [drained(client) for client in slow]
        begun = {answer[:12] for number, answer in enumerate(late) if number % 36}
        assert begun == {b"HTTP/1.1 408"}
        assert {answer for number, answer in enumerate(late) if not number % 36} == {b""}
        assert server.ask("/health").status == 200


def test_a_byte_now_and_then_makes_no_head_longer(root: Path) -> None:
    """Slowloris: each piece comes in time, the whole never."""
    with ended(tuned(root, head_s=1.5)) as server:
        with socket.create_connection((server.host, server.port), timeout=10) as client:
            client.sendall(b"GET / HTTP/1.1\r\n")
            sent = 0
            with contextlib.suppress(OSError):
                for _ in range(100):
                    client.sendall(b"X: y\r\n")
                    sent += 1
                    time.sleep(0.1)
            assert sent < 100
        assert "408" in next(line for line in server.ask("/metrics").text.splitlines() if 'route="bad"' in line)


def test_clients_that_take_nothing_are_ended(root: Path) -> None:
    """Half of them ask for a wheel that no buffer holds, the others for pages by the thousand; nobody reads."""
    with ended(tuned(root, stall_s=1.0)) as server, contextlib.ExitStack() as stack:
        wanted = path_of(root, "big")
        clients = []
        for number in range(16):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect((server.host, server.port))
            client.setblocking(False)  # noqa: FBT003  # its only name
            path = wanted if number % 2 else "/simple/one/"
            with contextlib.suppress(BlockingIOError):
                client.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() * (1 if number % 2 else 9000))
            clients.append(client)
        for _ in range(50):
            assert server.ask("/simple/one/", Accept=UV_ACCEPT).status == 200
        for _ in range(200):
            lines = server.ask("/metrics").text.splitlines()
            if next(line for line in lines if line.startswith("sparkbuild_connections ")).endswith(" 1"):
                break
            time.sleep(0.1)
        else:
            pytest.fail("they are still there")
        assert server.rss_kib() < 150_000


def test_more_clients_than_are_wanted(root: Path) -> None:
    with ended(tuned(root, connections=20)) as server, contextlib.ExitStack() as stack:
        there = []
        for _ in range(60):
            client = stack.enter_context(socket.create_connection((server.host, server.port), timeout=5))
            with contextlib.suppress(OSError):
                client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            there.append(client)
        answers = []
        for client in there:
            try:
                answers.append(client.recv(100)[:12])
            except OSError:
                answers.append(b"")
        assert answers.count(b"HTTP/1.1 200") == 20
        assert answers.count(b"") == 40


def test_heads_of_authorization_that_nobody_sends(server: Server) -> None:
    values = [
        "Basic",
        "Basic =",
        "Basic !!!",
        f"Basic {'A' * 7000}",
        "Bearer",
        "Bearer ",
        "Digest x",
        "Basic Og==",
        "\x7f",
    ]
    for value in values:
        data = f"POST /legacy/ HTTP/1.1\r\nHost: x\r\nAuthorization: {value}\r\nContent-Length: 0\r\n"
        data += "Connection: close\r\n\r\n"
        assert statuses(server.raw(data.encode("latin-1"))) in ([401], [400])


def test_a_strangers_page_cannot_read_what_is_open_on_this_machine(root: Path) -> None:
    def status(server: Server, host: str) -> int:
        head = f"GET /simple/one/ HTTP/1.1\r\nHost: {host}\r\nAccept: {UV_ACCEPT}\r\n"
        return int(server.raw(f"{head}Connection: close\r\n\r\n".encode()).split()[1])

    def kept(server: Server, host: str) -> int:  # what lies ready is answered on another way
        head = f"GET /simple/one/ HTTP/1.1\r\nHost: {host}\r\nAccept: {UV_ACCEPT}\r\n\r\n"
        with socket.create_connection((server.host, server.port), timeout=10) as client:
            client.sendall(head.encode())
            return int(client.recv(4096).split()[1])

    with serving(root) as server:
        port = server.port
        for host in (f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}", "box", "app.localhost", "LOCALHOST."):
            assert (status(server, host), kept(server, host)) == (200, 200), host
        for host in (
            "evil.example.com",
            f"evil.example.com:{port}",
            "127.0.0.1.evil.com",
            "localhost.evil.com",
            "a.b.",
        ):
            assert (status(server, host), kept(server, host)) == (421, 421), host
    config = root.parent / "config.toml"
    config.write_text('[index]\npublic-url = "https://Wheels.example.com:8443/x/"\n')
    with serving(root, env={"SPARK_BUILD_CONFIG": str(config)}) as server:
        assert status(server, "wheels.example.com") == kept(server, "wheels.example.com:8443") == 200
        assert status(server, "other.example.com") == 421
    with serving(root, "--open-reads") as server:
        assert status(server, "evil.example.com") == kept(server, "evil.example.com") == 200
