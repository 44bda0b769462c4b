"""One file over HTTP: what makes two halves one file, how patient a transfer is, and what a full disk leaves."""

from __future__ import annotations

import email.message
import hashlib
import random
import subprocess
import threading
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from builder import transfer
from builder.bundle import download
from builder.bundle.resolve import Piece
from builder.errors import HostError, SourceError
from builder.transfer import Again
from builder.upstream import server as upstream
from tests import bundle_kit
from tests.source_kit import Outside, Reply, in_turn, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from tests.source_kit import Server

DATA = random.Random(1).randbytes(700_000)  # noqa: S311  # just bytes
DIGEST = hashlib.sha256(DATA).hexdigest()
NAME = "big-1.0-py3-none-any.whl"


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as made:
        yield made


def asking(server: Server) -> Callable[[Mapping[str, str]], Any]:
    def ask(headers: Mapping[str, str]) -> Any:  # noqa: ANN401  # as urllib says it
        request = urllib.request.Request(f"{server.url}/x", headers=dict(headers))  # noqa: S310  # a server here
        return urllib.request.urlopen(request, timeout=20)  # noqa: S310

    return ask


def tagged(tag: str, data: bytes = DATA, **more: Any) -> Reply:  # noqa: ANN401  # fields
    return Reply(data, headers={"ETag": tag}, **more)


def left(tmp_path: Path, server: Server, reply: Reply) -> Path:
    """Return what a transfer leaves that a broken connection ended."""
    server.replies["/x"] = reply
    part = tmp_path / "x.part"
    with pytest.raises(Again, match="the connection ended after 300000 of 700000 bytes"):
        transfer.complete(part, asking(server), sha256=None)
    assert part.stat().st_size == 300_000
    server.seen.clear()
    return part


def test_without_a_digest_halves_are_put_together_by_what_the_server_says_of_them(
    tmp_path: Path, server: Server
) -> None:
    part = left(tmp_path, server, tagged('"one"', cut=300_000))
    server.replies["/x"] = tagged('"one"')
    told: list[tuple[int, int | None, int]] = []
    got = transfer.complete(part, asking(server), sha256=None, tell=lambda *now: told.append(now))
    assert server.ranges("/x") == ["bytes=300000-"]
    assert server.seen[0][1]["if-range"] == '"one"'
    assert (got.sha256, got.received) == (DIGEST, 400_000)
    assert (told[0], told[-1][:2], sum(came for *_, came in told)) == ((300_000, 700_000, 0), (700_000,) * 2, 400_000)
    assert [file.name for file in tmp_path.iterdir()] == ["x.part"]


@pytest.mark.parametrize("headers", [{}, {"ETag": 'W/"weak"'}])
def test_without_a_digest_and_a_word_of_the_server_a_beginning_is_worth_nothing(
    tmp_path: Path, server: Server, headers: dict[str, str]
) -> None:
    part = left(tmp_path, server, Reply(DATA, headers=headers, cut=300_000))
    server.replies["/x"] = Reply(DATA)
    assert transfer.complete(part, asking(server), sha256=None).received == len(DATA)
    assert server.ranges("/x") == [""]


def test_a_mark_that_a_kill_left_empty_is_none(tmp_path: Path, server: Server) -> None:
    part = left(tmp_path, server, tagged('"one"', cut=300_000))
    part.with_name("x.part.mark").write_text("")
    server.replies["/x"] = tagged('"one"')
    assert transfer.complete(part, asking(server), sha256=None).sha256 == DIGEST
    assert server.ranges("/x") == [""]


def test_a_new_file_takes_the_place_of_the_old_ones_beginning(tmp_path: Path, server: Server) -> None:
    part = left(tmp_path, server, tagged('"one"', cut=300_000))
    server.replies["/x"] = tagged('"two"', b"y" * 600_000, cut=0, ranges=False)
    with pytest.raises(Again):
        transfer.complete(part, asking(server), sha256=None)
    assert (part.read_bytes(), part.with_name("x.part.mark").read_text()) == (b"", '"two"')


def test_a_part_of_what_was_asked_for_isn_t_taken_for_all_of_it(tmp_path: Path, server: Server) -> None:
    """A server may send less than the range (RFC 9110, 15.3.7), and says how long the file is."""
    part = left(tmp_path, server, tagged('"one"', cut=300_000))
    told = {"ETag": '"one"', "Content-Range": "bytes 300000-499999/700000"}
    server.replies["/x"] = in_turn(Reply(DATA[300_000:500_000], status=206, headers=told), tagged('"one"'))
    with pytest.raises(Again, match="the connection ended after 500000 of 700000 bytes"):
        transfer.complete(part, asking(server), sha256=None)
    assert transfer.complete(part, asking(server), sha256=None).sha256 == DIGEST
    assert server.ranges("/x") == ["bytes=300000-", "bytes=500000-"]


@pytest.mark.parametrize(
    ("changed", "asked"),
    [
        ("Fri, 01 Jan 2027 00:00:00 GMT", "Fri, 01 Jan 2027 00:00:01 GMT"),
        ("Fri, 01 Jan 2027 00:00:01 GMT", "Fri, 01 Jan 2027 00:00:01 GMT"),
        ("Fri, 01 Jan 2027 00:00:00 GMT", ""),
        ("yesterday", "Fri, 01 Jan 2027 00:00:01 GMT"),
    ],
)
def test_a_time_tells_files_apart_once_its_second_is_over(
    tmp_path: Path, server: Server, changed: str, asked: str
) -> None:
    """Two files of one second have the same time (RFC 9110, 13.1.5)."""
    steady = (changed, asked) == ("Fri, 01 Jan 2027 00:00:00 GMT", "Fri, 01 Jan 2027 00:00:01 GMT")
    server.replies["/x"] = Reply(DATA, headers={"Last-Modified": changed}, cut=300_000)
    part = tmp_path / "x.part"

    def ask(headers: Mapping[str, str]) -> Any:  # noqa: ANN401  # as urllib says it
        answer = asking(server)(headers)
        del answer.headers["Date"]
        answer.headers["Date"] = asked
        return answer

    with pytest.raises(Again):
        transfer.complete(part, ask, sha256=None)
    server.seen.clear()
    server.replies["/x"] = Reply(DATA)
    assert transfer.complete(part, ask, sha256=None).sha256 == DIGEST
    assert [(headers.get("range"), headers.get("if-range")) for _path, headers in server.seen] == [
        ("bytes=300000-", changed) if steady else (None, None)
    ]


def test_a_file_that_another_process_writes_to_is_begun_anew(tmp_path: Path, server: Server) -> None:
    """Both would have the right digest in hand, and the wrong bytes on the disk."""
    server.replies["/x"] = Reply(DATA)
    part = tmp_path / "x.part"
    more = [b"of another"]

    def tell(_done: int, _total: int | None, came: int) -> None:
        if came and more:
            with part.open("ab") as stream:
                stream.write(more.pop())

    with pytest.raises(Again, match="something else writes"):
        transfer.complete(part, asking(server), sha256=DIGEST, tell=tell)
    assert not part.exists()
    assert transfer.complete(part, asking(server), sha256=DIGEST, tell=tell).sha256 == DIGEST
    assert part.read_bytes() == DATA


def test_wrong_halves_are_put_together_once_and_no_more(tmp_path: Path, server: Server) -> None:
    """Each connection breaks in the middle: nothing ever comes in one go."""
    wrong = DATA[:-1] + b"?"
    half = Reply(wrong, cut=300_000)
    server.replies["/x"] = in_turn(half, Reply(wrong), half, Reply(wrong), half)
    part = tmp_path / "x.part"

    def persist(action: Callable[[], str]) -> str:
        return transfer.persistently(action, tries=2, done=lambda: transfer.size_of(part), wait=lambda _seconds: None)

    got = transfer.complete(part, asking(server), sha256=DIGEST, persist=persist)
    assert got.sha256 == hashlib.sha256(wrong).hexdigest()
    assert server.ranges("/x") == ["", "bytes=300000-"] * 2
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_comes_in_pieces_is_hashed_once(tmp_path: Path, server: Server) -> None:
    """Else a hundred breaks of a file of 3 GB read 150 GB of the disk: what an earlier call left is read, nothing else."""
    part = left(tmp_path, server, tagged('"one"', cut=300_000))
    once = tagged('"one"', cut=100_000)
    server.replies["/x"] = in_turn(once, once, once, tagged('"one"'))

    def persist(action: Callable[[], str]) -> str:
        def changed() -> str:
            try:
                return action()
            finally:
                part.write_bytes(bytes(part.stat().st_size))  # who reads it again gets another digest

        return transfer.persistently(changed, tries=2, done=lambda: transfer.size_of(part), wait=lambda _seconds: None)

    assert transfer.complete(part, asking(server), sha256=None, persist=persist).sha256 == DIGEST
    assert server.ranges("/x") == [f"bytes={start}-" for start in (300_000, 400_000, 500_000, 600_000)]


# --- patience


def refused(status: int, **headers: str) -> Again:
    told = email.message.Message()
    for name, value in headers.items():
        told[name.replace("_", "-")] = value
    error = Again()
    error.__cause__ = urllib.error.HTTPError("http://host.invalid/", status, "Later", told, None)
    return error


def patience(*outcomes: Again | int, tries: int = 4) -> tuple[list[float], Again | None]:
    """Return how long was waited in turn, and what it gave up with: a number is bytes that came before it broke."""
    waited: list[float] = []
    state, script = [0], iter(outcomes)

    def action() -> str:
        match next(script, None):
            case Again() as error:
                raise error
            case int() as came:
                state[0] = came
                raise Again from ConnectionResetError("reset")
        return "done"

    try:
        transfer.persistently(action, tries=tries, done=lambda: state[0], wait=waited.append)
    except Again as error:
        return waited, error
    return waited, None


def test_what_brings_nothing_is_tried_again_some_times() -> None:
    waited, error = patience(*[refused(503)] * 9)
    assert waited == [0.5, 1.0, 2.0]
    assert str(error) == "503 Later"


def test_what_brings_something_is_tried_again_for_ever() -> None:
    assert patience(*range(1, 101), tries=2) == ([0.25] * 100, None)


def test_what_brings_the_same_bytes_again_brings_nothing() -> None:
    """A server that breaks off at one place, or that starts anew each time, isn't asked for ever."""
    waited, error = patience(500, 0, 500, 0, 500, 0, 500)
    assert waited == [0.25, 0.5, 1.0, 2.0]
    assert str(error) == "reset"


def test_a_server_says_when_to_come_again() -> None:
    waited, _error = patience(
        refused(429, Retry_After="7"), refused(503, Retry_After="9999"), refused(503, Retry_After="Fri, 1 Jan 2100")
    )
    assert waited == [7.0, 30.0, 2.0]


# --- the disk, and files that are longer than they may be


def piece(server: bundle_kit.Served) -> Piece:
    url = f"{server.url.removesuffix('simple')}{NAME}"
    return Piece(project="big", version="1.0", filename=NAME, url=url, size=len(DATA), sha256=DIGEST)


@pytest.fixture
def www(tmp_path: Path) -> Path:
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / NAME).write_bytes(DATA)
    return tmp_path / "www"


@pytest.mark.root
def test_a_disk_that_has_room_for_half_of_the_last_bytes_says_so_and_keeps_them(tmp_path: Path, www: Path) -> None:
    """The kernel writes what fits, and reports no error with it."""
    outside = Outside(tmp_path / "user")
    small = tmp_path / "user" / "sources"
    small.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=640k", "none", str(small)], check=True)
    try:
        with bundle_kit.serving(www) as server:
            with pytest.raises(HostError) as caught:
                download.bring([piece(server)], outside.sources)
            assert caught.value.code == "disk-full"
            (part,) = small.glob("files/*/*.part")
            have = part.stat().st_size
            assert 524_288 < have < len(DATA)
            subprocess.run(["mount", "-o", "remount,size=4m", str(small)], check=True)
            done = download.bring([piece(server)], outside.sources)
            assert done.received == len(DATA) - have
            assert download.place_of(piece(server), outside.sources).read_bytes() == DATA
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_more_than_the_index_says_is_refused_before_it_fills_the_disk(tmp_path: Path, www: Path) -> None:
    outside = Outside(tmp_path / "user")
    with bundle_kit.serving(www, changed=lambda _name, data: data * 2) as server, pytest.raises(SourceError) as caught:
        download.bring([piece(server)], outside.sources)
    assert (caught.value.code, caught.value.cause) == ("hash-mismatch", f"it has more than {len(DATA)} bytes")
    assert not list(outside.sources.root.rglob(f"{NAME}*"))


def test_a_body_that_drips_is_looked_at_drop_by_drop(server: Server) -> None:
    """Else the time that a wheel may take is looked at when the buffer is full, which takes days."""
    held = threading.Event()
    server.replies["/x"] = Reply(DATA, cut=1000, hold=held)
    with upstream.of(server.url, env={}).asked("x") as answer:
        assert answer.readinto(memoryview(bytearray(1 << 18))) == 1000
        held.set()
