"""Wheels and what lies beside them over HTTP: parts, tags, and never a byte that wasn't published."""

from __future__ import annotations

import hashlib
import json
import os
import random
import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from builder.index import listing
from builder.wheelhouse import states
from tests.server_kit import UV_ACCEPT, drained, ended, serving, tuned
from tests.wheelhouse_kit import opened, publish, seal, wheel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.server_kit import Server

BIG = 3_000_000


def filled(folder: Path) -> Path:
    with opened(folder / "house") as house:
        publish(house, [wheel(folder / "dist", "one"), wheel(folder / "dist", "big", size=BIG)], sign=seal)
        plus = wheel(folder / "dist", "plus", "1.0+sb2.g3")
        publish(house, [wheel(folder / "dist", "plain"), plus], fingerprint="e" * 64)
    return folder / "house"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return filled(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def reader(shared: Path) -> Iterator[Server]:
    """A server over a wheelhouse that no test changes."""
    with serving(shared) as server:
        yield server


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return filled(tmp_path)


@pytest.fixture
def server(root: Path) -> Iterator[Server]:
    with serving(root) as server:
        yield server


def entry_of(root: Path, project: str) -> listing.Entry:
    with opened(root) as house:
        found = listing.project(house, "local", project)
        assert found is not None
        entry = listing.by_sha256(house, found.files[0].sha256)
        assert entry is not None
        return entry


def url_of(entry: listing.Entry) -> str:
    return f"/files/{entry.sha256}/{entry.filename}"


@pytest.mark.parametrize("project", ["one", "big"])
def test_a_wheel_whole_and_in_parts(reader: Server, shared: Path, project: str) -> None:
    entry = entry_of(shared, project)
    data, url, etag = entry.path.read_bytes(), url_of(entry), f'"{entry.sha256}"'
    whole = reader.ask(url)
    for _ in range(2):
        whole = reader.ask(url, Accept_Encoding="gzip")
        assert (whole.status, whole.body) == (200, data)
        assert whole.headers["ETag"] == etag
        assert whole.headers["Cache-Control"] == "max-age=365000000, immutable"
        assert whole.headers["Accept-Ranges"] == "bytes"
        assert whole.headers["Content-Type"] == "application/octet-stream"
        assert "Content-Encoding" not in whole.headers
    bare = reader.ask(url, "HEAD", Range="bytes=0-1")
    assert (bare.status, bare.body) == (200, b"")
    assert {**bare.headers, "Date": ""} == {**whole.headers, "Date": ""}
    size = len(data)
    random.seed(project)
    parts = [(0, 0), (size - 1, size - 1), (0, size - 1)]
    for _ in range(20):
        start = random.randrange(size)  # noqa: S311  # just numbers
        parts.append((start, random.randrange(start, size)))  # noqa: S311
    for first, last in parts:
        part = reader.ask(url, Range=f"bytes={first}-{last}")
        assert (part.status, part.body) == (206, data[first : last + 1])
        assert part.headers["Content-Range"] == f"bytes {first}-{last}/{size}"
        assert part.headers["ETag"] == etag
    assert reader.ask(url, Range="bytes=-100").body == data[-100:]
    assert reader.ask(url, Range=f"bytes={size - 100}-").body == data[-100:]
    assert reader.ask(url, Range="bytes=0-0,2-3").body == data
    for wrong in (f"bytes={size}-", "bytes=-0", "bytes=9-3", "bytes=x"):
        none = reader.ask(url, Range=wrong)
        assert (none.status, none.headers["Content-Range"]) == (416, f"bytes */{size}")


def test_a_part_is_only_of_what_the_client_has(reader: Server, shared: Path) -> None:
    entry = entry_of(shared, "big")
    data, url = entry.path.read_bytes(), url_of(entry)
    same = reader.ask(url, Range="bytes=100-", If_Range=f'"{entry.sha256}"')
    assert (same.status, same.body) == (206, data[100:])
    for other in ('"x"', f'W/"{entry.sha256}"', "Sun, 29 Nov 2026 12:00:00 GMT", ""):
        whole = reader.ask(url, Range="bytes=100-", If_Range=other)
        assert (whole.status, whole.body) == (200, data)


def test_a_wheel_that_the_client_has(reader: Server, shared: Path) -> None:
    for project in ("one", "big"):
        entry = entry_of(shared, project)
        for known in (f'"{entry.sha256}"', f'W/"{entry.sha256}"', f'"x", "{entry.sha256}"', "*"):
            for _ in range(2):
                same = reader.ask(url_of(entry), If_None_Match=known)
                assert (same.status, same.body) == (304, b"")
                assert same.headers["Content-Type"] == "application/octet-stream"
                assert same.headers["ETag"] == f'"{entry.sha256}"'
        assert reader.ask(url_of(entry), If_None_Match='"x"').status == 200


def test_what_lies_beside_a_wheel(reader: Server, shared: Path) -> None:
    entry = entry_of(shared, "one")
    page = json.loads(reader.ask("/simple/one/", Accept=UV_ACCEPT).body)
    for _ in range(2):
        metadata = reader.ask(url_of(entry) + ".metadata")
        assert metadata.body.startswith(b"Metadata-Version: 2.1\nName: one\n")
        assert hashlib.sha256(metadata.body).hexdigest() == page["files"][0]["core-metadata"]["sha256"]
        assert metadata.headers["Cache-Control"] == "max-age=365000000, immutable"
    record = reader.ask(url_of(entry) + ".provenance.json")
    assert record.body == entry.path.with_name(entry.filename + ".provenance.json").read_bytes()
    assert record.headers["Content-Type"] == "application/json"
    assert record.headers["Cache-Control"] == "no-cache"
    assert reader.ask(url_of(entry) + ".provenance.json", If_None_Match=record.headers["ETag"]).status == 304
    signature = reader.ask(url_of(entry) + ".provenance.json.sig")
    assert signature.body == seal(record.body)
    for tail in (".metadata", ".provenance.json", ".provenance.json.sig"):
        bare = reader.ask(url_of(entry) + tail, "HEAD")
        assert (bare.status, bare.body) == (200, b"")
    assert reader.ask(url_of(entry_of(shared, "plain")) + ".provenance.json.sig").status == 404


def test_only_names_that_belong_to_the_bytes(reader: Server, shared: Path) -> None:
    one, big = entry_of(shared, "one"), entry_of(shared, "big")
    for path in (
        f"/files/{one.sha256}/{big.filename}",
        f"/files/{'0' * 64}/{one.filename}",
        f"{url_of(one)}.sig",
        f"{url_of(one)}x",
        f"{url_of(one)}.metadata.metadata",
        f"/files/{one.sha256}/{one.filename[:-1]}",
        f"/files/{one.sha256}/x{one.filename}",
        f"{url_of(one)}.provenance",
        f"/files/{one.sha256}/.metadata",
    ):
        assert reader.ask(path).status == 404, path


def test_a_name_with_a_plus_sign_in_all_its_spellings(reader: Server, shared: Path) -> None:
    url = url_of(entry_of(shared, "plus"))
    for spelled in (url, url.replace("+", "%2B"), url.replace("+", "%2b"), url.replace("plus", "pl%75s")):
        assert reader.ask(spelled).status == 200
        assert reader.ask(f"{spelled}.metadata").status == 200
    assert reader.ask(url.replace("+", "%20")).status == 404


def changed(path: Path, how: str) -> None:
    found = path.stat()
    if how == "cut":
        os.truncate(path, found.st_size // 2)
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    elif how == "changed":
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(bytes(data))
    elif how == "gone":
        path.unlink()
    elif how == "linked":
        path.rename(path.with_name("elsewhere"))
        path.symlink_to("elsewhere")
    elif how == "folder":
        path.unlink()
        path.mkdir()


def test_what_is_not_as_it_was_published_is_never_served(server: Server, root: Path) -> None:
    with opened(root) as house:
        more = [wheel(root.parent / "dist", "small", f"1.{number}") for number in range(5)]
        more += [wheel(root.parent / "dist", "large", f"1.{number}", size=500_000) for number in range(5)]
        stored = publish(house, more, fingerprint="c" * 64)
    for how, one in zip(["cut", "changed", "gone", "linked", "folder"] * 2, stored, strict=True):
        url = f"/files/{one.sha256}/{one.filename}"
        assert server.ask(url).status == server.ask(url).status == 200
        changed(one.path, how)
        for part in ("", "bytes=0-10"):
            for _ in range(2):
                answer = server.ask(url, Range=part)
                assert answer.status == 500
                assert answer.headers["Cache-Control"] == "no-store"
        assert server.ask(url, "HEAD").status == 500
        assert f"{one.filename} isn't served" in server.log
        assert server.ask(f"{url}.metadata").status == 200


def test_states_of_wheels(server: Server, root: Path) -> None:
    with opened(root) as house:
        for project in ("one", "big"):  # touched: read once, and served
            os.utime(entry_of(root, project).path)
            for _ in range(2):
                entry = entry_of(root, project)
                assert server.ask(url_of(entry)).body == entry.path.read_bytes()
        cases: list[tuple[str, Literal["yanked", "quarantined"] | None, int]]
        cases = [("one", "quarantined", 403), ("big", None, 404), ("plain", "yanked", 200)]
        for project, state, status in cases:
            entry = entry_of(root, project)
            url = url_of(entry)
            assert server.ask(url).status == server.ask(f"{url}.metadata").status == 200
            if state:
                states.set(house, [house.get(entry.filename)], state, "it bites")
            else:
                house.remove(house.get(entry.filename))
            time.sleep(0.05)
            for tail in ("", ".metadata", ".provenance.json"):
                for method in ("GET", "HEAD"):
                    assert server.ask(url + tail, method).status == status
            if status == 403:
                assert "it bites" in server.ask(url).text
            files = json.loads(server.ask(f"/simple/{project}/", Accept=UV_ACCEPT).body)["files"]
            assert [one["yanked"] for one in files] == (["it bites"] if state == "yanked" else [])


#: A catalogue on a disk so slow that a wheel may be withheld while its file is looked up.
SLOW = """
import time
from builder.index import listing
quick = listing.by_sha256
def slow(house, sha256):
    found = quick(house, sha256)
    time.sleep(0.5)
    return found
listing.by_sha256 = slow
"""


@pytest.mark.parametrize("tail", ["", ".metadata"])
def test_what_is_withheld_while_it_is_looked_up_is_not_kept_ready(root: Path, tail: str) -> None:
    entry = entry_of(root, "one")
    with ended(tuned(root, first=SLOW)) as server, opened(root) as house:
        asking = threading.Thread(target=server.ask, args=(url_of(entry) + tail,))
        asking.start()
        time.sleep(0.2)
        states.set(house, [house.get(entry.filename)], "quarantined", "it bites")
        asking.join()
        assert server.ask(url_of(entry) + tail).status == 403


def test_a_download_goes_on_where_it_was_cut(reader: Server, shared: Path) -> None:
    """As pip does it: the client hangs up in the middle and asks for the rest, if it is still the same."""
    entry = entry_of(shared, "big")
    data = entry.path.read_bytes()
    descriptors = Path(f"/proc/{reader.process.pid}/fd")
    assert reader.ask("/health").status == 200
    before = len(list(descriptors.iterdir()))
    begun = b""
    for _ in range(30):
        with socket.create_connection((reader.host, reader.port), timeout=10) as client:
            client.sendall(f"GET {url_of(entry)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            begun = client.recv(65536).partition(b"\r\n\r\n")[2]
            while len(begun) < 100_000:
                begun += client.recv(65536)
    for _ in range(200):
        if len(list(descriptors.iterdir())) <= before:
            break
        time.sleep(0.02)
    else:
        pytest.fail("descriptors are left open")
    rest = reader.ask(url_of(entry), Range=f"bytes={len(begun)}-", If_Range=f'"{entry.sha256}"')
    assert rest.status == 206
    assert begun + rest.body == data
    assert "Traceback" not in reader.log


def test_a_wheel_that_is_replaced_while_it_is_sent_is_not_spliced(root: Path) -> None:
    """What is open stays what it was; what is cut ends the connection, so that nobody takes it for whole."""
    entry = entry_of(root, "big")
    data = entry.path.read_bytes()
    with ended(tuned(root)) as server:
        for how in ("replaced", "cut"):
            with socket.socket() as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.settimeout(10)
                client.connect((server.host, server.port))
                client.sendall(f"GET {url_of(entry)} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
                got = client.recv(1000)
                if how == "replaced":
                    other = entry.path.with_name("other")
                    other.write_bytes(bytes(len(data)))
                    entry.path.rename(entry.path.with_name("kept"))
                    other.rename(entry.path)
                    body = (got + drained(client)).partition(b"\r\n\r\n")[2]
                    assert body == data
                    entry.path.with_name("kept").rename(entry.path)
                else:
                    os.truncate(entry.path, 600_000)
                    body = (got + drained(client)).partition(b"\r\n\r\n")[2]
                    assert len(body) < len(data)
                    assert data.startswith(body[:600_000])
        assert server.ask("/health").status == 200


@pytest.mark.slow
def test_memory_does_not_grow_with_what_is_sent(root: Path) -> None:
    with opened(root) as house:
        publish(house, [wheel(root.parent / "dist", "huge", size=100_000_000)], fingerprint="a" * 64)
    entry = entry_of(root, "huge")
    with serving(root) as server:
        server.ask("/simple/huge/")
        before = server.rss_kib()
        for _ in range(3):
            assert hashlib.sha256(server.ask(url_of(entry)).body).hexdigest() == entry.sha256
        assert server.rss_kib() - before < 8_000
