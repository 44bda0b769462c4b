"""``wheels push`` and ``wheels pull``: sets of wheels over a real server, whatever is killed on the way."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from builder.cli.pull import PREFIX
from builder.errors import CheckRefused, SourceError
from builder.upstream import fetch, offers, push
from builder.upstream import server as servers
from builder.wheelhouse import channel
from tests import wheelhouse_kit as kit
from tests.relay_kit import relayed
from tests.server_kit import serving, started, token
from tests.test_signature import allow, make_key
from tests.tls_kit import certificate
from tests.upstream_kit import colleague
from tests.world import COMMAND, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.relay_kit import Seen
    from tests.server_kit import Server

#: A wheel that takes a while, even on this machine.
LARGE = 96 << 20

TINY = 'schema = 1\nname = "tiny"\n[[source]]\nkind = "git"\nurl = "file:///nowhere"\nref = "main"\n'
TINY += '[[output]]\nname = "tiny"\n'


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Server]:
    """The server of a team, which is empty, and knows a token for each scope."""
    place = World(tmp_path / "far")
    for scope in ("read", "publish", "admin"):
        (tmp_path / scope).write_text(token(place.wheelhouse, scope, scope))
    with serving(place) as running:
        yield running


def filled(world: World, *names: str, to: str | None = None, **more: Any) -> list[str]:  # noqa: ANN401  # passed on
    """Add small wheels, and let a channel list them; return their file names."""
    wheels = [kit.make_wheel(world.root / "dl", name, **more) for name in names]
    world.run("wheels", "add", *map(str, wheels))
    if to:
        with kit.opened(world.wheelhouse) as opened:
            channel.promote(opened, to, [opened.get(wheel.name) for wheel in wheels])
    return [wheel.name for wheel in wheels]


def listed(server: Server, name: str = "local") -> list[str]:
    return [one["filename"] for one in json.loads(server.ask(f"/api/channels/{name}").body)["wheels"]]


def may(server: Server, root: Path, scope: str) -> dict[str, Any]:
    """Return the environment of somebody with such a token."""
    return {"SPARK_BUILD_TOKEN": (root / scope).read_text(), "SPARK_BUILD_UPSTREAM": server.url}


# --- push


def test_a_build_is_pushed_with_all_that_is_said_of_it(world: World, far: Server, tmp_path: Path) -> None:
    key = make_key(tmp_path, "alice")
    world.config.mkdir(parents=True, exist_ok=True)
    (world.config / "config.toml").write_text(f'[signing]\nkey = "{key}"\n')
    world.tiny_repo()
    world.tiny_recipe()
    (row,) = world.json("recipe", "tiny")["wheels"]
    env = may(far, tmp_path, "publish")
    told = world.json("wheels", "push", row["fingerprint"][:10], "--to-channel", "team/new", **env)
    assert [(one["filename"], one["sent"]) for one in told["wheels"]] == [(Path(row["path"]).name, True)]
    assert listed(far) == listed(far, "team/new") == [Path(row["path"]).name]
    (there,) = json.loads(far.ask(f"/api/builds/{row['fingerprint']}").body)["wheels"]
    for url, tail in (
        (there["url"], ""),
        (there["provenance"], ".provenance.json"),
        (there["signature"], ".provenance.json.sig"),
    ):
        assert far.ask(url.removeprefix("../..")).body == Path(row["path"] + tail).read_bytes()
    again = world.run("wheels", "push", row["fingerprint"][:10], "--to-channel", "team/new", **env)
    assert "0 of 1 sent" in again.stderr
    assert "was there" in again.stdout
    other = colleague(tmp_path / "other", world)
    (taken,) = other.json("recipe", "tiny", SPARK_BUILD_UPSTREAM=far.url)["wheels"]
    assert taken["sha256"] == row["sha256"]
    assert not list(other.wheelhouse.glob("builds/*/logs/*/build.log"))


def test_a_channel_keeps_its_order_there_and_back(world: World, far: Server, tmp_path: Path) -> None:
    names = filled(world, "zeta", "alpha", "mid", to="team/stable")
    filled(world, "other")
    env = may(far, tmp_path, "publish")
    world.run("wheels", "push", "--channel", "team/stable", "--to-channel", "nightly", **env)
    assert listed(far, "nightly") == names
    assert sorted(listed(far)) == sorted(names)
    other = World(tmp_path / "other")
    done = other.run("wheels", "pull", "--channel", "nightly", "--into", "mine", "--from", far.url)
    assert [Path(line).name for line in done.stdout.splitlines()] == names
    with kit.opened(other.wheelhouse) as opened:
        assert [one.filename for one in channel.members(opened, "mine")] == names
    again = other.run("wheels", "pull", "--channel", "nightly", "--into", "mine", "--from", far.url)
    assert (again.stdout, "0 of 3 fetched" in again.stderr) == (done.stdout, True)
    assert not list(other.wheelhouse.glob("builds/.pull-*"))


def test_each_refusal_says_what_to_type(world: World, far: Server, tmp_path: Path) -> None:
    filled(world, "tiny")
    push = ("wheels", "push", "tiny-1.0-py3-none-any.whl")

    def refused(code: int, *words: str, **env: Any) -> dict[str, Any]:  # noqa: ANN401  # passed on
        error: dict[str, Any] = world.json(*push, *words, code=code, **env)["error"]
        assert error["run"], error
        return error

    assert refused(2)["code"] == "upstream-unset"
    assert refused(2, "--to", "ftp://x/")["code"] == "upstream-url"
    nobody = refused(4, "--to", far.url)
    assert (nobody["code"], "401" in nobody["summary"]) == ("upstream-denied", True)
    assert "SPARK_BUILD_TOKEN" in nobody["help"]
    reader = refused(4, **may(far, tmp_path, "read"))
    assert (reader["code"], "lacks the scope publish" in reader["cause"]) == ("upstream-denied", True)
    env = may(far, tmp_path, "publish")
    assert "admin" in refused(4, "--to-channel", "x", "--replace", **env)["cause"]
    assert listed(far) == []
    other = World(tmp_path / "other")
    filled(other, "tiny", text=b"VALUE = 2\n")
    other.run(*push, **env)
    assert refused(2, **env)["code"] == "name-taken"


def test_what_the_audit_there_refuses_is_shown_and_can_be_let_pass(world: World, far: Server, tmp_path: Path) -> None:
    wheel = kit.own_wheel(world.root / "dl", inputs={"name": "tiny"})
    world.run("wheels", "add", str(wheel))
    there = World(tmp_path / "far")
    there.recipe("tiny", TINY + '[[check]]\nkind = "size"\nmax = "1B"\n')
    error = world.json("wheels", "push", wheel.name, code=5, **may(far, tmp_path, "publish"))["error"]
    assert error["code"] == "audit-refused"
    assert "size-limit" in error["summary"] + error["cause"]
    assert error["run"][0].endswith('--accept ID="REASON"')
    assert listed(far) == []
    world.run("wheels", "push", wheel.name, "--accept", "size-limit=small", **may(far, tmp_path, "admin"))
    assert listed(far) == [wheel.name]


@pytest.mark.slow
def test_a_push_that_is_killed_goes_on_where_it_was(world: World, far: Server, tmp_path: Path) -> None:
    (name,) = filled(world, "tiny", size=LARGE)
    env = may(far, tmp_path, "publish")
    with subprocess.Popen([str(COMMAND), "wheels", "push", name], env=world.env(**env), cwd=world.root) as pushing:
        _wait(lambda: far_part(tmp_path) is not None)
        pushing.kill()
    assert pushing.returncode == -signal.SIGKILL
    assert listed(far) == []
    there = far_part(tmp_path)
    assert there is not None
    offset = 0
    while offset < there.stat().st_size:  # what was on the way still arrives
        offset = there.stat().st_size
        time.sleep(0.5)
    seen: list[int] = []
    wheel = world.wheelhouse / "wheels" / "tiny" / name
    sent = push.Sent(path=wheel, filename=name, sha256=there.parent.name, size=wheel.stat().st_size)
    server = servers.of(far.url, env=env)
    push.stage(server, sent, wheel, name, lambda told: seen.append(told.done))
    assert seen[0] - (1 << 18) == offset
    world.run("wheels", "push", name, **env)
    assert listed(far) == [name]
    assert hashlib.sha256(far.ask(f"/files/{sent.sha256}/{name}").body).hexdigest() == sent.sha256


@pytest.mark.slow
def test_a_push_outlives_the_server(world: World, tmp_path: Path) -> None:
    (name,) = filled(world, "tiny", size=LARGE)
    root = World(tmp_path / "far")
    root.wheelhouse.mkdir()
    (tmp_path / "publish").write_text(token(root.wheelhouse))
    first = started(root.wheelhouse, env=root.env())
    env = may(first, tmp_path, "publish")
    words = [str(COMMAND), "wheels", "push", name]
    with subprocess.Popen(words, env=world.env(**env), cwd=world.root, stdout=subprocess.PIPE, text=True) as pushing:
        _wait(lambda: far_part(tmp_path) is not None)
        first.kill()
        hang_up(first)
        second = started(root.wheelhouse, "--port", str(first.port), env=root.env())
        try:
            assert pushing.wait(60) == 0
            assert listed(second) == [name]
        finally:
            second.stop()
            hang_up(second)


def hang_up(server: Server) -> None:
    assert server.process.stdout is not None
    server.process.stdout.close()


def far_part(tmp_path: Path) -> Path | None:
    """Return what has arrived of a large wheel, once that is some of it."""
    found = (tmp_path / "far" / "wheelhouse" / "uploads" / "staging").glob("*/*.whl.part")
    return next((one for one in found if one.stat().st_size > 4 << 20), None)


def _wait(until: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not until():
        assert time.monotonic() < end
        time.sleep(0.002)


# --- pull


@pytest.fixture
def near(tmp_path: Path) -> Iterator[tuple[World, Server]]:
    """A server with two versions of ``tiny`` and ``other``, and who asks it."""
    far = World(tmp_path / "far")
    filled(far, "tiny", version="1.0")
    filled(far, "tiny", version="2.0")
    filled(far, "other")
    with serving(far) as running:
        yield World(tmp_path / "near"), running


def test_a_project_means_its_newest_wheel(near: tuple[World, Server]) -> None:
    world, server = near
    told = world.json("wheels", "pull", "Tiny", "other-1.0-py3-none-any.whl", "--from", server.url)
    assert [one["filename"] for one in told["wheels"]] == ["tiny-2.0-py3-none-any.whl", "other-1.0-py3-none-any.whl"]
    assert [one["cached"] for one in told["wheels"]] == [False, False]
    assert [one["cached"] for one in world.json("wheels", "pull", "tiny", "--from", server.url)["wheels"]] == [True]
    digest = told["wheels"][1]["sha256"]
    assert world.json("wheels", "pull", digest[:12], "--from", server.url)["wheels"][0]["sha256"] == digest


def test_what_isn_t_there_is_told_with_a_command(near: tuple[World, Server]) -> None:
    world, server = near
    error = world.json("wheels", "pull", "nothing", "--from", server.url, code=2)["error"]
    assert (error["code"], error["run"]) == ("wheel-ref", [f"curl -s {server.url.rstrip('/')}/api/channels/local"])
    error = world.json("wheels", "pull", "--channel", "nowhere", "--from", server.url, code=4)["error"]
    assert (error["code"], bool(error["run"])) == ("upstream-missing", True)
    assert world.json("wheels", "pull", code=2)["error"]["code"] == "usage"


def test_what_was_withheld_here_does_not_come_by_another_door(near: tuple[World, Server]) -> None:
    world, server = near
    pull = ("wheels", "pull", "--from", server.url)
    name = world.json(*pull, "other")["wheels"][0]["filename"]
    world.run("wheels", "quarantine", name, "--reason", "it bites")
    for words in (("other",), (name, "--into", "team/x"), ("--channel", "local", "--into", "team/x")):
        error = world.json(*pull, *words, code=5)["error"]
        assert (error["code"], error["run"]) == ("wheel-withheld", [f"spark-build wheels show {name}"])
    assert len(world.json("wheels", "list", "--all")["wheels"]) == 1
    world.run("wheels", "quarantine", "--project", "other", "--reason", "taken over")
    error = world.json(*pull, "other", code=5)["error"]
    assert (error["code"], error["run"]) == ("wheel-withheld", ["spark-build wheels list --all other"])
    world.run(*pull, "tiny")
    world.run("wheels", "quarantine", "--project", "other", "--release")
    world.run("wheels", "quarantine", "--release", name)
    assert world.json(*pull, "other")["wheels"][0]["filename"] == name


def test_what_comes_goes_through_the_gate(near: tuple[World, Server], tmp_path: Path) -> None:
    world, server = near
    signers = allow(make_key(tmp_path, "alice"))
    world.config.mkdir(parents=True, exist_ok=True)
    (world.config / "config.toml").write_text(f'[signing]\nsigners = "{signers}"\n')
    error = world.json("wheels", "pull", "tiny", "--from", server.url, code=5)["error"]
    assert error["code"] == "signature-missing"
    assert world.json("wheels", "list")["wheels"] == []


@pytest.mark.slow
def test_an_interrupted_pull_goes_on_where_it_was(world: World, tmp_path: Path) -> None:
    far = World(tmp_path / "far")
    filled(far, "tiny", size=LARGE)

    def part() -> Path | None:
        found = world.wheelhouse.glob("builds/.pull-*/*.part")
        return next((one for one in found if one.stat().st_size > 4 << 20), None)

    with serving(far) as running:
        words = [str(COMMAND), "wheels", "pull", "tiny", "--from", running.url]
        with subprocess.Popen(words, env=world.env(), stderr=subprocess.PIPE, text=True) as pulling:
            _wait(lambda: part() is not None)
            pulling.send_signal(signal.SIGINT)
            _out, err = pulling.communicate()
        assert pulling.returncode == 130
        assert "goes on from there" in err.replace("\n", " ")
        there = part()
        assert there is not None
        have = there.stat().st_size
        with relayed(running.url) as relay:
            world.run("wheels", "pull", "tiny", "--from", relay.url)
            (asked,) = relay.wheels()
            assert (asked.status, asked.headers["range"]) == (206, f"bytes={have}-")
    assert not list(world.wheelhouse.glob("builds/.pull-*"))
    world.run("wheels", "verify")


def test_a_second_pull_waits_for_the_first(near: tuple[World, Server]) -> None:
    """Both would write to one part, and one of them would take the files away from under the other."""
    world, server = near
    words = [str(COMMAND), "wheels", "pull", "tiny", "--from", server.url]
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(kit.opened(world.wheelhouse)).build_lock(PREFIX, on_wait=print)
        with first:
            second = stack.enter_context(subprocess.Popen(words, env=world.env(), stderr=subprocess.PIPE, text=True))
            assert second.stderr is not None
            assert second.stderr.readline().startswith(f"waiting for another pull: process {os.getpid()}")
            assert not list(world.wheelhouse.glob("builds/.pull-*"))
        assert "1 of 1 fetched" in second.communicate()[1]


# --- transfers


def test_a_server_has_to_be_who_it_says_it_is(tmp_path: Path) -> None:
    far, cert = World(tmp_path / "far"), tmp_path / "cert.pem"
    filled(far, "tiny")
    certificate(tmp_path / "key.pem", cert)
    with serving(far, "--tls-cert", str(cert), "--tls-key", str(tmp_path / "key.pem")) as running:
        pull: tuple[str, ...] = ("wheels", "pull", "tiny", "--from", running.url)
        stranger = World(tmp_path / "near")
        error = stranger.json(*pull, code=4)["error"]
        assert (error["code"], "its certificate doesn't hold" in error["cause"]) == ("upstream-untrusted", True)
        stranger.run(*pull, SSL_CERT_FILE=str(cert))


def offered(server: Server, name: str) -> offers.Offer:
    (one,) = offers.channel(servers.of(server.url, env={}), "local", project=name)
    return one


def test_a_redirect_on_the_same_server_keeps_the_token(tmp_path: Path) -> None:
    far = World(tmp_path / "far")
    filled(far, "tiny")
    with serving(far) as running, relayed(running.url) as relay:
        server = servers.of(relay.url, env={"SPARK_BUILD_TOKEN": "secret"})
        with server.asked("simple/Tiny/", headers={"Accept": "text/html"}) as answer:
            assert answer.status == 200
        assert [one.status for one in relay.seen] == [301, 200]
        assert {one.headers["authorization"] for one in relay.seen} == {"Bearer secret"}


def test_a_download_goes_on_by_range_after_a_cut(tmp_path: Path) -> None:
    far = World(tmp_path / "far")
    filled(far, "tiny", size=8 << 20)
    with serving(far) as running, relayed(running.url) as relay:
        offer = offered(running, "tiny")
        cuts = iter([1 << 20, 3 << 20])
        relay.cut = lambda seen: next(cuts, None) if seen.is_wheel else None
        told: list[int] = []
        place = fetch.wheel(servers.of(relay.url, env={}), offer, tmp_path / "in", lambda one: told.append(one.done))
        assert hashlib.sha256(place.read_bytes()).hexdigest() == offer.sha256
        assert told[-1] == offer.size
        asked: list[Seen] = relay.wheels()
        assert [one.status for one in asked] == [200, 206, 206]
        assert all(one.headers["if-range"] == f'"{offer.sha256}"' for one in asked[1:])
        assert sum(one.sent for one in asked) < offer.size + (1 << 20)  # nothing large came twice
        assert sorted(path.name for path in place.parent.iterdir()) == [place.name, f"{place.name}.provenance.json"]


def test_a_part_of_another_file_is_never_gone_on_with(tmp_path: Path) -> None:
    far = World(tmp_path / "far")
    filled(far, "tiny", size=2 << 20)
    with serving(far) as running, relayed(running.url) as relay:
        offer, server = offered(running, "tiny"), servers.of(relay.url, env={})
        folder = tmp_path / "in"
        for etag, statuses in ((f'"{offer.sha256}"', [206, 200]), ('"another"', [200]), ("", [200])):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            (folder / f"{offer.sha256}.part").write_bytes(b"x" * 1000)
            (folder / f"{offer.sha256}.part.mark").write_text(etag)
            relay.clear()
            place = fetch.wheel(server, offer, folder, lambda _told: None)
            assert hashlib.sha256(place.read_bytes()).hexdigest() == offer.sha256
            assert [one.status for one in relay.wheels()] == statuses


def test_of_a_file_that_was_changed_on_the_way_nothing_is_kept(tmp_path: Path) -> None:
    far = World(tmp_path / "far")
    filled(far, "tiny")
    with serving(far) as running, relayed(running.url) as relay:
        offer = offered(running, "tiny")
        relay.alter = lambda seen, body: body[:-1] + b"?" if seen.is_wheel else None
        with pytest.raises(CheckRefused) as caught:
            fetch.wheel(servers.of(relay.url, env={}), offer, tmp_path / "in", lambda _told: None)
        assert caught.value.code == "upstream-hash"
        assert [path.suffix for path in (tmp_path / "in").iterdir()] == [".json"]
        missing = servers.of(running.url, env={}).but(tries=1)
        with pytest.raises(SourceError):
            offers.channel(missing, "nowhere")
