"""Who may do what: the token file, the commands that write it, and a server that reads it while it runs."""

from __future__ import annotations

import base64
import os
import socket
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from builder.errors import SparkError
from builder.server import tokens
from builder.server.refusal import Refusal
from tests.server_kit import JSON, drained, serving, token
from tests.wheelhouse_kit import opened, publish, wheel
from tests.world import COMMAND

if TYPE_CHECKING:
    from pathlib import Path

    from tests.world import World

EVERYWHERE = "0.0.0.0"  # noqa: S104  # what a team binds
NOW = 1_800_000_000.0  # 2027-01-15


def basic(secret: str, user: str = "__token__") -> str:
    return "Basic " + base64.b64encode(f"{user}:{secret}".encode()).decode()


def loaded(path: Path, *, open_reads: bool = False, said: list[str] | None = None) -> tokens.Tokens:
    found = tokens.Tokens(
        path, open_reads=open_reads, clock=lambda: NOW, complain=(said if said is not None else []).append
    )
    found.load()
    return found


def status(found: tokens.Tokens, header: str | None, scope: str, channel: str | None = None) -> int:
    try:
        found.judge(header, scope, channel)
    except Refusal as refused:
        asks = refused.headers.get("WWW-Authenticate", "").startswith("Basic realm=")
        return refused.status if asks == (refused.status == 401) else 0
    return 200


def test_scopes_hold_what_lies_below_them(tmp_path: Path) -> None:
    secrets = {scope: token(tmp_path, scope, scope) for scope in ("read", "publish", "admin")}
    found = loaded(tmp_path / "tokens.toml")
    for held, secret in secrets.items():
        for wanted in ("read", "publish", "admin"):
            enough = ["read", "publish", "admin"].index(held) >= ["read", "publish", "admin"].index(wanted)
            for header in (basic(secret), basic(secret, "anybody"), f"Bearer {secret}", f"bearer   {secret} "):
                assert status(found, header, wanted) == (200 if enough else 403)
    assert found.judge(basic(secrets["publish"]), "publish").name == "publish"


def test_who_has_none_or_a_wrong_one_is_asked_for_one(tmp_path: Path) -> None:
    secret = token(tmp_path, "ci", "publish")
    found = loaded(tmp_path / "tokens.toml")
    wrong = [None, "", "Basic", "Basic !!", basic(""), basic(secret[:-1]), basic(secret + "x"), f"Bearer {secret}x",
    "Bearer",
             f"Digest {secret}", secret, basic(tokens.digest(secret)), f"Bearer {'x' * 5000}",
             "Basic " + "A" * 4000]  # fmt: skip
    assert {status(found, header, scope) for header in wrong for scope in ("read", "publish", "admin")} == {401}
    assert status(found, None, "open") == 200
    assert status(loaded(tmp_path / "tokens.toml", open_reads=True), None, "read") == 200
    assert status(loaded(tmp_path / "none.toml"), basic("x"), "publish") == 401


def test_channels_and_days_bound_a_token(tmp_path: Path) -> None:
    secret = token(tmp_path, "nightly", "publish", channels=("nightly/*", "local"))
    found = loaded(tmp_path / "tokens.toml")
    for channel, wanted in (("nightly/a", 200), ("local", 200), ("stable", 403), ("nightly", 403), (None, 200)):
        assert status(found, basic(secret), "publish", channel) == wanted
    for day, wanted in (("2027-01-15", 401), ("2027-01-16", 200), ("2020-01-01", 401)):
        secret = token(tmp_path / day, "x", "read", expires=day)
        assert status(loaded(tmp_path / day / "tokens.toml"), basic(secret), "read") == wanted


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[token]]\nname = 'a'\n", ["sha256: wanted 64", "scopes: wanted a list"]),
        ("[[token]]\nname = ''\nsha256 = 'zz'\nscopes = ['root']\nchanels = []\n", ["name", "sha256", "unknown word",
        "chanels"]),
        ("[[token]]\nname = 1\nscopes = 'read'\nexpires = 'soon'\nchannels = 'x'\n", ["name", "scopes", "expires",
        "channels"]),
        ("token = 1\n", ["[[token]]"]),
        ("other = 1\n", ["unknown key other"]),
        ("[[token]\n", ["Expected"]),
    ],
)  # fmt: skip
def test_every_mistake_of_the_file_is_told(tmp_path: Path, text: str, said: list[str]) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(SparkError) as caught:
        tokens.read(path)
    assert caught.value.code == "tokens-wrong"
    assert all(word in caught.value.cause for word in said), caught.value.cause


def test_a_file_that_others_can_write_is_refused(tmp_path: Path) -> None:
    token(tmp_path, "ci")
    path = tmp_path / "tokens.toml"
    for mode in (0o620, 0o602, 0o666):
        path.chmod(mode)
        with pytest.raises(SparkError) as caught:
            tokens.read(path)
        assert (caught.value.code, caught.value.run) == ("tokens-writable", (f"chmod 600 {path}",))
    path.chmod(0o644)
    assert [one.name for one in tokens.read(path)] == ["ci"]


def test_two_of_one_name_are_a_mistake(tmp_path: Path) -> None:
    token(tmp_path, "ci")
    token(tmp_path, "ci")
    with pytest.raises(SparkError, match="isn't a token file"):
        tokens.read(tmp_path / "tokens.toml")


def test_the_commands_make_list_and_revoke(world: World) -> None:
    new = ("index", "token", "new")
    made = world.run(*new, "ci", "--scope", "publish", "--channel", "nightly/*", "--expires", "2099-12-31")
    secret = made.stdout.strip()
    path = world.wheelhouse / "tokens.toml"
    assert secret.startswith("sbt_")
    assert secret not in made.stderr + path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text(path.read_text() + "\n# kept\n")
    other = world.json(*new, "other one", "--scope", "read")["token"]
    listed = world.json("index", "token", "list")["tokens"]
    assert [(one["name"], one["scopes"], one["channels"], one["expires"]) for one in listed] == [
        ("ci", ["publish"], ["nightly/*"], "2099-12-31"),
        ("other one", ["read"], [], None),
    ]
    assert tokens.digest(other["secret"]) == listed[1]["sha256"]
    assert "token-name" in world.run(*new, "ci", "--scope", "read", code=2).stderr
    assert "2099-13" in world.run(*new, "x", "--scope", "read", "--expires", "2099-13", code=2).stderr
    assert world.run("index", "token", "list").stdout.splitlines() == [
        "ci  publish  to nightly/*  until 2099-12-31",
        "other one  read",
    ]
    world.run("index", "token", "revoke", "other one")
    assert "token-missing" in world.run("index", "token", "revoke", "other one", code=2).stderr
    assert "# kept" in path.read_text()
    assert [one.name for one in tokens.read(path)] == ["ci"]


def test_reads_take_a_token_where_others_can_reach_the_port(tmp_path: Path) -> None:
    root = tmp_path / "house"
    with opened(root) as house:
        publish(house, [wheel(tmp_path / "dist", "one")])
    reader, publisher = token(root, "reader", "read"), token(root, "ci", "publish")
    with serving(root, "--bind", EVERYWHERE) as server:
        server.url = server.url.replace(server.host, "127.0.0.1")
        assert "without TLS" in server.log
        page = "/simple/one/"
        for _ in range(2):  # the second could come from what lies ready
            asked = server.ask(page, Accept=JSON)
            assert asked.status == 401
            assert asked.headers["WWW-Authenticate"] == 'Basic realm="spark-build", charset="UTF-8"'
            for secret in (reader, publisher):
                assert server.ask(page, Accept=JSON, Authorization=basic(secret)).status == 200
        for path in ("/", "/simple/", "/api/channels", "/simple/nobody/", "/static/x.css"):
            assert server.ask(path).status == 401
        assert server.ask("/health").status == server.ask("/metrics").status == 200
        assert server.ask("/nothing").status == 404
        assert server.ask("/legacy/", "POST", b"", Authorization=basic(reader)).status == 403
        assert server.ask("/legacy/", "POST", b"").status == 401
        assert server.ask("/legacy/", "PUT", b"").status == 405
    with serving(root, "--closed-reads") as server:
        assert server.ask("/simple/one/", Accept=JSON).status == 401
    with serving(root, "--bind", EVERYWHERE, "--open-reads") as server:
        server.url = server.url.replace(server.host, "127.0.0.1")
        assert server.ask("/simple/one/", Accept=JSON).status == 200


def test_a_running_server_sees_changes_of_the_file(tmp_path: Path) -> None:
    root = tmp_path / "house"
    first = token(root, "first", "publish")
    with serving(root) as server:

        def becomes(secret: str, wanted: set[int]) -> bool:
            for _ in range(100):
                if server.ask("/legacy/", "POST", b"", Authorization=basic(secret)).status in wanted:
                    return True
                time.sleep(0.05)
            return False

        entered = {400, 411, 415, 422, 501}  # let in, and then not understood
        assert becomes(first, entered)
        second = token(root, "second", "publish")
        assert becomes(second, entered)
        (root / "tokens.toml").chmod(0o666)
        assert becomes(first, {401})
        assert "can be written by others" in server.log
        (root / "tokens.toml").chmod(0o600)
        assert becomes(first, entered)
        os.replace(root / "tokens.toml", root / "gone.toml")  # noqa: PTH105  # at once
        assert becomes(first, {401})
        assert first not in server.log + second
        assert second not in server.log


def test_who_may_not_upload_is_told_before_sending(tmp_path: Path) -> None:
    root = tmp_path / "house"
    secret = token(root, "ci", "publish")
    with serving(root) as server:
        head = "PUT /ccache/ab0123456789abcdefghijklmnop HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
        head += "Expect: 100-continue\r\n"
        refused = server.raw(f"{head}Connection: close\r\n\r\n".encode(), timeout=1)
        assert refused.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
        with socket.create_connection((server.host, server.port), timeout=10) as client:
            client.sendall(f"{head}Authorization: {basic(secret)}\r\nConnection: close\r\n\r\n".encode())
            assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.sendall(b"bytes")
            assert drained(client).startswith(b"HTTP/1.1 201 Created\r\n")


def test_no_token_is_ever_written_to_a_log(tmp_path: Path) -> None:
    root = tmp_path / "house"
    secret = token(root, "ci", "publish")
    log = tmp_path / "access.log"
    with serving(root, "--access-log", str(log)) as server:
        server.ask("/simple/", Accept=JSON, Authorization=basic(secret))
        server.ask(f"/simple/?token={secret}", Accept=JSON, Referer=f"http://u:{secret}@x/")
        server.ask("/legacy/", "POST", b"", Authorization=f"Bearer {secret}")
        server.raw(f"GET http://u:{secret}@x/simple/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        lines: list[str] = []
        while len(lines) < 4:  # a line is written when its answer is sent
            time.sleep(0.01)
            lines = log.read_text().splitlines()
        assert secret not in server.log
    assert secret not in log.read_text()
    assert '"GET /simple/?token=*** HTTP/1.1" 200' in lines[1]
    assert " - ci [" in lines[2]


def test_of_many_that_are_made_and_revoked_at_once_none_is_lost(world: World) -> None:
    path = world.wheelhouse / "tokens.toml"
    world.run("index", "token", "new", "old", "--scope", "read")

    def start(*words: str) -> subprocess.Popen[str]:
        command = [str(COMMAND), "index", "token", *words]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=world.env())

    begun = [start("new", f"ci-{number}", "--scope", "publish") for number in range(8)] + [start("revoke", "old")]
    said = [one.communicate() for one in begun]
    assert [one.returncode for one in begun] == [0] * 9, said
    assert {one.name for one in tokens.read(path)} == {f"ci-{number}" for number in range(8)}
    assert {tokens.digest(out.strip()) for out, _err in said[:-1]} == {one.sha256 for one in tokens.read(path)}


@pytest.mark.parametrize(
    "form",
    [
        'token = [{{name = "ci", sha256 = "{0}", scopes = ["publish"]}}]\n',
        '[["token"]]\nname = "ci"\nsha256 = "{0}"\nscopes = ["publish"]\n',
        '[[token]]\nname = "ci"\nsha256 = "{0}"\nscopes = ["publish"]\nchannels = [\n"""\n[[token]]""",\n]\n',
    ],
)
def test_a_file_that_the_commands_do_not_understand_is_left_to_its_owner(world: World, form: str) -> None:
    path = world.wheelhouse / "tokens.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(form.format("0" * 64))
    path.chmod(0o600)
    assert [one.name for one in tokens.read(path)] == ["ci"]
    assert "tokens-shape" in world.run("index", "token", "revoke", "ci", code=2).stderr
    assert [one.name for one in tokens.read(path)] == ["ci"]
    world.run("index", "token", "new", "other", "--scope", "read", code=None)
    assert tokens.read(path)[0].name == "ci"  # it can still be read: else nobody would have any right
