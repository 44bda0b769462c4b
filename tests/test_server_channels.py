"""What a channel lists, for programs: the same in one piece and in many, and as cheap for many wheels as for few."""

from __future__ import annotations

import contextlib
import json
import socket
from typing import TYPE_CHECKING

from builder.wheelhouse import channel, states
from tests.server_kit import ended, tuned
from tests.wheelhouse_kit import opened, publish, wheel

if TYPE_CHECKING:
    from pathlib import Path

    from tests.server_kit import Server

#: A channel of three wheels is sent as one of thousands is.
PIECES = "from builder.server import channels; channels._AT_ONCE = 2"
MANY, SLOW = 20_000, 6


def listed(server: Server, path: str) -> list[str]:
    answer = server.ask(path)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    return [one["filename"] for one in json.loads(answer.body)["wheels"]]


def test_a_channel_in_pieces_is_the_channel_in_one(tmp_path: Path) -> None:
    root = tmp_path / "house"
    with opened(root) as house:
        found = publish(house, [wheel(tmp_path / "dist", name) for name in ("a", "b", "c", "d", "e", "f")])
        channel.promote(house, "team/x", [found[at] for at in (5, 3, 0, 1, 4)])
        states.set(house, [found[3]], "quarantined", "it bites")
        states.set(house, [found[1]], "yanked", "old")
        states.status(house, "e", "quarantined", "taken over")
        names = [one.filename for one in found]
    with ended(tuned(root)) as whole, ended(tuned(root, first=PIECES)) as pieces:
        for server in (whole, pieces):
            assert listed(server, "/api/channels/team/x") == [names[at] for at in (5, 0, 1)]
            assert listed(server, "/api/channels/local") == [names[at] for at in (0, 1, 2, 5)]
            assert listed(server, "/api/channels/local?project=B") == [names[1]]
            assert listed(server, f"/api/channels/local?ref={found[2].sha256[:9]}") == [names[2]]
            assert listed(server, f"/api/channels/local?ref={names[2]}") == [names[2]]
            for nothing in (f"ref={found[2].sha256[:3]}", f"ref={names[3]}", "project=d", "project=zz", "ref=%25"):
                assert listed(server, f"/api/channels/local?{nothing}") == []
            assert server.ask("/api/channels/nobody").status == 404
            head = server.ask("/api/channels/local", "HEAD")
            assert (head.status, head.body) == (200, b"")
        path = "/api/channels/team/x"
        assert json.loads(whole.ask(path).body) == json.loads(pieces.ask(path).body)


def test_memory_does_not_grow_with_a_channel_and_those_who_ask(tmp_path: Path) -> None:
    root = tmp_path / "house"
    with opened(root) as house:
        (first,) = publish(house, [wheel(tmp_path / "dist", "many")])
        own = {"sha256": "printf('%064x', ?)", "filename": "printf('more_%d-1-py3-none-any.whl', ?)"}
        values = ",".join(own.get(row[1], row[1]) for row in house.catalogue.rows("PRAGMA table_info(wheels)"))
        with house.catalogue.transaction() as db:  # only what the catalogue says is asked for
            wheels = [(number, number, first.sha256) for number in range(MANY)]
            db.executemany(f"INSERT INTO wheels SELECT {values} FROM wheels WHERE sha256=?", wheels)  # noqa: S608  # a column each
            members = [(number, number + 9) for number in range(MANY)]
            db.executemany("INSERT INTO members VALUES ('local', printf('%064x', ?), ?)", members)
    with ended(tuned(root)) as server, contextlib.ExitStack() as stack:
        size = len(server.ask("/api/channels/local").body)
        assert len(listed(server, "/api/channels/local")) == MANY + 1
        before = server.rss_kib()
        for _ in range(SLOW):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # else the kernel keeps all of it
            client.settimeout(60)
            client.connect((server.host, server.port))
            client.sendall(b"GET /api/channels/local HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert client.recv(1) == b"H"  # and nothing more: all of the answer is to be kept by somebody
        assert (server.rss_kib() - before) * 1024 < SLOW * size / 2
