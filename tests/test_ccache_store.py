"""The server as a store for compile caches: ccache itself and our relay as clients, and requests of all kinds."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING

import pytest

from builder.gate.relay import Relay
from tests.hook_kit import Bench, sha, write
from tests.server_kit import serving, token
from tests.test_gated import project

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.server_kit import Answer, Server
    from tests.world import World

SOURCES = {
    "a.cpp": '#include "a.h"\nconst char *where() { return __FILE__; }\nint value() { return VALUE; }\n',
    "a.h": "#define VALUE 1\n",
}
KEY = "0a/1b2c3d4e5f6a7b8c9d0e1f2a3b4c5d6e7f8091a2"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    place = tmp_path / "index" / "wheelhouse"
    place.mkdir(parents=True)
    return place


@pytest.fixture
def tokens(root: Path) -> dict[str, str]:
    return {"writer": token(root, "writer", "publish"), "reader": token(root, "reader", "read")}


@pytest.fixture
def server(root: Path, tokens: dict[str, str]) -> Iterator[Server]:
    assert tokens
    with serving(root, "--ccache-size", "4MiB") as running:
        yield running
        assert "Traceback" not in running.log


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path / "tree", cache=tmp_path / "cache")
    write(made.src, SOURCES)
    return made


def compile_(bench: Bench, remote: str, out: str = "a.o") -> None:
    words = ("g++", "-O1", "-MD", "-c", str(bench.src / "a.cpp"), "-o", out)
    bench.compile(*words, env=bench.env(remote=remote))


def elsewhere(bench: Bench, name: str = "cache-2") -> Bench:
    """Another machine: nothing in its own cache, the same tree."""
    other = Bench(bench.root, cache=bench.root.parent / name)
    other.compiled()
    return other


def ask(server: Server, method: str, key: str, secret: str = "", body: bytes | None = None) -> Answer:
    more = {"Authorization": f"Bearer {secret}"} if secret else {}
    return server.ask(f"/ccache/{key}", method, body, **more)


def held(root: Path) -> dict[str, int]:
    files = [path for path in (root / "ccache").rglob("*") if path.is_file()]
    return {str(path.relative_to(root / "ccache")): path.stat().st_size for path in files}


@pytest.mark.parametrize("layout", ["", " layout=flat", " layout=bazel"])
def test_what_ccache_stored_another_machine_takes(
    server: Server, root: Path, tokens: dict[str, str], bench: Bench, layout: str
) -> None:
    place = f"{server.url}ccache".replace("http://", f"http://u:{tokens['writer']}@") + layout
    compile_(bench, place, "one.o")
    assert len(held(root)) == 2  # the list of headers, and the object
    other = elsewhere(bench)
    compile_(other, place.replace(tokens["writer"], tokens["reader"]), "two.o")
    assert other.compiled() == 0
    assert sha(bench.src / "one.o") == sha(bench.src / "two.o")
    assert bench.statistics().remote_hits == 1


def test_our_relay_and_ccache_share_it(server: Server, root: Path, tokens: dict[str, str], bench: Bench) -> None:
    url = f"{server.url}ccache"
    with Relay(url, root=bench.root, inside=bench.root, token=tokens["writer"]) as relay:
        compile_(bench, relay.storage, "one.o")
        assert (relay.served().put, relay.served().failed) == (2, 0)
    other = elsewhere(bench)
    with Relay(url, root=bench.root, inside=bench.root, token=tokens["reader"]) as relay:
        compile_(other, relay.storage, "two.o")
        assert other.compiled() == 0
        assert relay.served().got == 2
    third = elsewhere(bench, "cache-3")
    compile_(third, url, "three.o")  # reading is open on this machine
    assert third.compiled() == 0
    before = held(root)
    with Relay(url, root=bench.root, inside=bench.root, token=tokens["reader"]) as relay:
        write(bench.src, {"a.h": "#define VALUE 2\n"})
        compile_(elsewhere(bench, "cache-4"), relay.storage)
        assert "403" in relay.served().reason
    assert held(root) == before


def test_a_build_elsewhere_takes_the_objects_of_the_first(
    world: World, server: Server, root: Path, tokens: dict[str, str]
) -> None:
    """By the installed command: `[compile-cache] url`, the token from the environment, nothing of it in the build."""
    project(world)
    said = ""
    for name in ("one", "two"):
        config = f'[compile-cache]\nurl = "{server.url}ccache"\npath = "{world.root / name}"\n'
        (world.config / "config.toml").write_text(config)
        said = world.run(
            "recipe",
            "tiny",
            "--wheelhouse",
            str(world.root / f"house-{name}"),
            SPARK_BUILD_CACHE_TOKEN=tokens["writer"],
        ).stderr
        assert "failed" not in said
    assert "3 from the compile cache" in said
    assert len(held(root)) == 6


def test_who_may_do_what(server: Server, tokens: dict[str, str]) -> None:
    assert ask(server, "PUT", KEY, body=b"value").status == 401
    assert ask(server, "PUT", KEY, tokens["reader"], b"value").status == 403
    assert ask(server, "GET", KEY).status == 404
    assert ask(server, "PUT", KEY, tokens["writer"], b"value").status == 201
    assert ask(server, "PUT", KEY, tokens["writer"], b"value 2").status == 204
    assert ask(server, "GET", KEY).body == b"value 2"
    head = ask(server, "HEAD", KEY)
    assert (head.status, head.body, head.headers["Content-Length"]) == (200, b"", "7")
    assert ask(server, "DELETE", KEY).status == 401
    assert ask(server, "DELETE", KEY, tokens["reader"]).status == 403
    assert ask(server, "DELETE", KEY, tokens["writer"]).status == 204
    assert ask(server, "DELETE", KEY, tokens["writer"]).status == 404
    large = os.urandom(1_500_000)
    assert ask(server, "PUT", KEY, tokens["writer"], large).status == 201
    assert ask(server, "GET", KEY).body == large
    assert ask(server, "POST", KEY, tokens["writer"], b"x").status == 405
    assert ask(server, "PUT", KEY, tokens["writer"], b"").status == 204
    assert ask(server, "GET", KEY).body == b""


WRONG = (
    "x",
    "../../../etc/passwd",
    "0a/../../../tokens.toml",
    "0a%2f..%2f..%2ftokens.toml",
    "0a/.hidden",
    "0A/1B2C3D4E5F6A7B8C9D0E1F2A3B4C5D6E7F8091A2",
    "0a/" + "b" * 200,
    "0a/b/c/d",
    "0a/1b2c3d4e5f6a7b8c9d0e1f2a3b4c5d6e7f8091a2/",
    "..",
    "0a/1b2c3d4e5f6a7b8c9d0e1f2a3b4c5d6e7f80\x0091a2".replace("\0", "%00"),
)


def test_only_keys_of_ccache_are_keys(server: Server, root: Path, tokens: dict[str, str]) -> None:
    outside = sorted(path for path in root.parent.rglob("*") if path.suffix not in {".log", ".sqlite3-wal"})
    for key in WRONG:
        for method, body in (("GET", None), ("HEAD", None), ("PUT", b"x"), ("DELETE", None)):
            assert ask(server, method, key, tokens["writer"], body).status in {400, 404}, key
    assert held(root) == {}
    after = sorted(path for path in root.parent.rglob("*") if path.suffix not in {".log", ".sqlite3-wal"})
    assert {path.name for path in after} - {path.name for path in outside} <= {"ccache"}


def test_half_a_value_is_never_seen(server: Server, root: Path, tokens: dict[str, str]) -> None:
    assert ask(server, "PUT", KEY, tokens["writer"], b"whole").status == 201
    head = f"PUT /ccache/{KEY} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {tokens['writer']}\r\n"
    head += "Content-Length: 3000000\r\n\r\n"
    with socket.create_connection((server.host, server.port)) as client:
        client.sendall(head.encode() + bytes(2_500_000))
        while not [size for name, size in held(root).items() if name.startswith(".") and size]:
            time.sleep(0.01)
        assert ask(server, "GET", KEY).body == b"whole"
    while any(name.startswith(".") for name in held(root)):
        time.sleep(0.01)
    assert held(root) == {KEY: 5}
    too_large = ask(server, "PUT", KEY, tokens["writer"], bytes(5 << 20))
    assert too_large.status == 413
    chunked = head.replace("Content-Length: 3000000", "Connection: close\r\nTransfer-Encoding: chunked") + "0\r\n\r\n"
    assert server.raw(chunked.encode()).startswith(b"HTTP/1.1 411 ")


def test_it_holds_no_more_than_it_may_and_drops_what_wasn_t_asked_for(
    server: Server, root: Path, tokens: dict[str, str]
) -> None:
    def key(number: int) -> str:
        return f"{number:02d}/{'c' * 40}"

    for number in range(4):
        assert ask(server, "PUT", key(number), tokens["writer"], os.urandom(1_000_000)).status == 201
    for number in range(4):
        os.utime(root / "ccache" / key(number), (number + 1, number + 1))
    assert ask(server, "GET", key(0)).status == 200  # it is the youngest now
    assert ask(server, "PUT", key(4), tokens["writer"], os.urandom(1_000_000)).status == 201
    while sum(held(root).values()) > 4 << 20:
        time.sleep(0.01)
    assert ask(server, "GET", key(0)).status == 200
    assert ask(server, "GET", key(4)).status == 200
    assert ask(server, "GET", key(1)).status == 404


def test_values_of_no_bytes_fill_no_disk(server: Server, root: Path, tokens: dict[str, str]) -> None:
    for number in range(1100):  # of 4 KiB each, at least: more than there is room for
        assert ask(server, "PUT", f"{number % 90 + 10}/{number:040d}", tokens["writer"], b"").status == 201
    deadline = time.monotonic() + 20
    while len(held(root)) > 1024:
        assert time.monotonic() < deadline
        time.sleep(0.01)
