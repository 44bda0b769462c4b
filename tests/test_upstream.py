"""A team builds each thing once: what a server upstream has of a fingerprint is taken when it holds, and built when not."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import socket
import zipfile
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from builder.upstream import offers
from builder.upstream import server as servers
from builder.wheelhouse import Wheelhouse
from tests.server_kit import serving, token
from tests.test_signature import allow, make_key
from tests.upstream_kit import Said, between, colleague
from tests.wheelhouse_kit import make_wheel
from tests.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from subprocess import CompletedProcess

    from tests.server_kit import Server

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")


class Team:
    """One who built ``tiny`` and serves it, signed; `join` makes others."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.builder = World(root / "one")
        self.builder.tiny_repo()
        self.builder.tiny_recipe()
        self.key = make_key(root, "alice")
        self.signers = allow(self.key)
        (self.builder.config / "config.toml").write_text(f'[signing]\nkey = "{self.key}"\n')
        (self.row,) = self.builder.json("recipe", "tiny")["wheels"]
        self.number = 0

    def join(self, url: str, more: str = "") -> World:
        self.number += 1
        other = colleague(self.root / f"other-{self.number}", self.builder)
        (other.config / "config.toml").write_text(f'[wheelhouse]\nupstream = "{url}"\n{more}')
        return other


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Team:
    return Team(tmp_path_factory.mktemp("team"))


@pytest.fixture(scope="module")
def server(team: Team) -> Iterator[Server]:
    with serving(team.builder) as running:
        yield running


def events(world: World, number: int = 1) -> list[dict[str, Any]]:
    (file,) = world.wheelhouse.glob(f"builds/*/logs/{number}/events.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


def phases(world: World) -> list[str]:
    return [one["phase"] for one in events(world) if one["kind"] == "phase.started"]


def warnings(world: World) -> list[str]:
    return [one["text"] for one in events(world) if one["kind"] == "note" and one["level"] == "warning"]


def built(world: World, *, said: str) -> CompletedProcess[str]:
    """Run the recipe, which has to build, to give one warning, and to say in it why upstream's wheel isn't taken."""
    done = world.run("recipe", "tiny")
    assert "build" in phases(world)
    (told,) = warnings(world)
    assert "isn't taken from upstream, and is built here" in told
    assert said in told, told
    assert told.partition(" and is built here")[0] in done.stderr.replace("\n", " ")
    return done


# --- taken


def test_what_the_team_has_is_taken_and_not_built(team: Team, server: Server) -> None:
    other = team.join(server.url, f'[signing]\nsigners = "{team.signers}"\n')
    done = other.run("recipe", "tiny")
    wheel = Path(done.stdout.strip())
    assert hashlib.sha256(wheel.read_bytes()).hexdigest() == team.row["sha256"]
    assert wheel.name == Path(team.row["path"]).name
    for tail in (".provenance.json", ".provenance.json.sig"):
        assert wheel.with_name(wheel.name + tail).read_bytes() == Path(team.row["path"] + tail).read_bytes()
    assert phases(other) == ["fetch"]
    assert f"taken from {server.url.rstrip('/')}, not built" in done.stderr
    (past,) = other.json("history")["attempts"]
    assert (past["outcome"], past["summary"]) == ("ok", f"taken from {server.url.rstrip('/')}")
    assert past["summary"] in other.run("log").stderr
    assert not list(other.wheelhouse.glob("builds/*/upstream"))
    assert (other.wheelhouse / "index" / "simple" / "tiny" / "index.html").is_file()


def test_it_is_a_hit_like_any_other_afterwards(team: Team, server: Server) -> None:
    other = team.join(server.url)
    (taken,) = other.json("recipe", "tiny")["wheels"]
    dead: dict[str, Any] = {"SPARK_BUILD_UPSTREAM": "http://127.0.0.1:9"}
    (again,) = other.json("recipe", "tiny", **dead)["wheels"]
    assert again == taken | {"cached": True}
    assert other.run("recipe", "tiny", "--plan", **dead).stderr.count("127.0.0.1:9") == 0
    assert "is in the wheelhouse" in other.run("why", "tiny").stdout
    shown = other.run("wheels", "show", taken["sha256"][:12]).stdout
    assert "(claimed by the record it came with)" in shown
    other.run("wheels", "verify")
    kept = other.run("wheels", "list").stdout
    other.run("wheels", "reindex")
    assert other.run("wheels", "list").stdout == kept
    assert other.json("recipe", "tiny", **dead)["wheels"] == [again]
    with Wheelhouse.open(other.wheelhouse, clock=lambda: 0.0) as house:
        assert house.recall("added", taken["sha256"])["from"] == server.url.rstrip("/")  # type: ignore[index]


@pytest.mark.slow
def test_forced_it_is_built_under_the_same_label_and_compared(team: Team, server: Server) -> None:
    other = team.join(server.url)
    (taken,) = other.json("recipe", "tiny")["wheels"]
    (forced,) = other.json("recipe", "tiny", "--force")["wheels"]
    assert forced == taken  # the same bits under the same name
    assert [one["phase"] for one in events(other, 2) if one["kind"] == "phase.started"].count("build") == 1
    assert other.json("rebuild", taken["sha256"][:12], "--check")["identical"]


@pytest.mark.slow
def test_what_was_withheld_here_doesn_t_come_back(team: Team, server: Server) -> None:
    other = team.join(server.url)
    (taken,) = other.json("recipe", "tiny")["wheels"]
    other.run("wheels", "quarantine", taken["sha256"][:12], "--reason", "x")
    other.run("wheels", "rm", taken["sha256"][:12], "--yes")
    other.run("recipe", "tiny", code=None)
    (told,) = [one["text"] for one in events(other, 2) if one["kind"] == "note" and one["level"] == "warning"]
    assert f"{Path(taken['path']).name} is quarantined here" in told


def test_nobody_is_asked_offline(team: Team, server: Server) -> None:
    other = team.join(server.url)
    other.run("fetch", "tiny")
    other.run("recipe", "tiny", "--offline")
    assert "build" in phases(other)
    assert not warnings(other)


def test_what_the_team_lacks_is_built_without_a_warning(team: Team, server: Server) -> None:
    other = team.join(server.url)
    done = other.run("recipe", "tiny", "--env", "OTHER=1")
    assert "build" in phases(other)
    assert not warnings(other)
    told = [one["text"] for one in events(other) if one["kind"] == "phase.ended" and one["phase"] == "fetch"]
    assert told[0].endswith("has no such build")
    assert "warning" not in done.stderr


@pytest.mark.slow
def test_all_outputs_are_taken_or_none(tmp_path: Path) -> None:
    one = World(tmp_path / "one")
    one.tiny_repo("first")
    one.tiny("first/second", text="SECOND = 1\n")
    one.git(one.root / "first", "add", "-A")
    one.git(one.root / "first", "commit", "-qm", "second")
    backend = one.root / "first" / "second" / "backend.py"
    backend.write_text(backend.read_text().replace("first/second", "second"))
    one.git(one.root / "first", "commit", "-qam", "named")
    one.tiny_recipe("first", more='[[output]]\nname = "second"\npath = "second"\n')
    rows = one.json("recipe", "first")["wheels"]
    with serving(one) as running:
        both = colleague(tmp_path / "two", one)
        env: dict[str, Any] = {"SPARK_BUILD_UPSTREAM": running.url}
        assert [row["sha256"] for row in both.json("recipe", "first", **env)["wheels"]] == [
            row["sha256"] for row in rows
        ]
        assert phases(both) == ["fetch"]
        one.run("wheels", "rm", rows[1]["sha256"][:12], "--yes")
        alone = colleague(tmp_path / "three", one)
        alone.run("recipe", "first", **env)
        assert phases(alone).count("build") == 2
        assert not warnings(alone)


def test_a_token_is_sent_where_reading_takes_one(team: Team, tmp_path: Path) -> None:
    """Reading is only closed on addresses that others reach."""
    secret = token(tmp_path, "reader", "read")
    with serving(team.builder, "--bind", "0.0.0.0", "--tokens", str(tmp_path / "tokens.toml")) as closed:  # noqa: S104
        url = f"http://127.0.0.1:{closed.port}"
        built(team.join(url), said=f"{url}: 401")
        given = team.join(url)
        given.run("recipe", "tiny", SPARK_BUILD_TOKEN=secret)
        assert phases(given) == ["fetch"]
        file, home = tmp_path / "token", tmp_path / "home"
        file.write_text(secret + "\n")
        home.mkdir()
        (home / ".netrc").write_text(f"machine 127.0.0.1 login me password {secret}\n")
        for who in (
            servers.of(url, env={}, token_file=file),
            servers.of(url, env={"HOME": str(home)}),
            servers.of(f"http://me:{secret}@127.0.0.1:{closed.port}/", env={}),
        ):
            assert secret not in who.url
            assert [one.sha256 for one in offers.build(who, team.row["fingerprint"])] == [team.row["sha256"]]


# --- what doesn't hold is built


def is_wheel(path: str) -> bool:
    return path.startswith("/files/") and path.endswith(".whl")


def test_a_forged_record_is_refused(team: Team, server: Server) -> None:
    def twist(path: str, said: Said) -> Said:
        if path.startswith("/api/builds/"):
            said.body = [b"".join(said.body).replace(b".provenance.json.sig", b"")]
            document = json.loads(b"".join(said.body))
            document["wheels"][0]["signature"] = None
            said.body = [json.dumps(document).encode()]
        if path.endswith(".provenance.json"):
            record = json.loads(b"".join(said.body))
            record["subject"][0]["digest"]["sha256"] = "0" * 64
            said.body = [json.dumps(record).encode()]
        return said

    with between(server.url, twist) as url:
        built(team.join(url), said="isn't about this wheel")


def test_a_record_of_another_build_is_refused(team: Team, server: Server) -> None:
    def twist(path: str, said: Said) -> Said:
        if path.endswith(".provenance.json"):
            said.body = [b"".join(said.body).replace(team.row["fingerprint"].encode(), b"e" * 64)]
        return said

    with between(server.url, twist) as url:
        built(team.join(url), said="says something else than the wheel")


def test_other_bytes_are_refused(team: Team, server: Server) -> None:
    def twist(path: str, said: Said) -> Said:
        if is_wheel(path):
            said.body = [b"".join(said.body)[:-1] + b"?"]
        return said

    with between(server.url, twist) as url:
        other = team.join(url)
        built(other, said="isn't what it says it is: sha256")
        assert not list(other.wheelhouse.glob("builds/*/upstream"))


def forged(team: Team, folder: Path) -> Path:
    """Return a sound wheel under the name of the real one, with other inputs in it."""
    true = Path(team.row["path"])
    with zipfile.ZipFile(true) as archive:
        member = next(name for name in archive.namelist() if name.endswith("/inputs.json"))
        inputs = json.loads(archive.read(member)) | {"name": "other"}
    return make_wheel(folder, "tiny", team.row["wheel_version"], inputs=inputs)


def test_other_inputs_are_refused(team: Team, server: Server, tmp_path: Path) -> None:
    wheel = forged(team, tmp_path).read_bytes()
    digest = hashlib.sha256(wheel).hexdigest()

    def twist(path: str, said: Said) -> Said:
        if path.startswith("/api/builds/"):
            document = json.loads(b"".join(said.body))
            document["wheels"][0] |= {"sha256": digest, "size": len(wheel), "signature": None}
            return Said(200, {"Content-Type": "application/json"}, [json.dumps(document).encode()])
        if is_wheel(path):
            return Said(200, {"Content-Type": "application/octet-stream"}, [wheel])
        if path.endswith(".provenance.json"):
            record = Path(team.row["path"] + ".provenance.json").read_bytes()
            return Said(
                200,
                {"Content-Type": "application/json"},
                [record.replace(team.row["sha256"].encode(), digest.encode())],
            )
        return said

    with between(server.url, twist) as url:
        built(team.join(url), said="carries a label that isn't of the inputs in it")


@pytest.mark.parametrize(("moment", "said"), [("20991231235959", "of the future"), ("20261399000000", "no such time")])
def test_a_label_that_would_be_above_all_later_ones_is_refused(
    team: Team, server: Server, tmp_path: Path, moment: str, said: str
) -> None:
    true = Path(team.row["path"])
    with zipfile.ZipFile(true) as archive:
        member = next(name for name in archive.namelist() if name.endswith("/inputs.json"))
        inputs = json.loads(archive.read(member))
    version = re.sub(r"sb\d{14}", f"sb{moment}", team.row["wheel_version"])
    wheel = make_wheel(tmp_path, "tiny", version, inputs=inputs).read_bytes()
    digest = hashlib.sha256(wheel).hexdigest()

    def moved(data: bytes) -> bytes:
        told = data.replace(team.row["sha256"].encode(), digest.encode())
        return re.sub(rb"sb\d{14}", f"sb{moment}".encode(), told)

    def twist(path: str, said: Said) -> Said:
        if path.startswith("/api/builds/"):
            document = json.loads(moved(b"".join(said.body)))
            document["wheels"][0] |= {"size": len(wheel), "signature": None}
            return Said(200, {"Content-Type": "application/json"}, [json.dumps(document).encode()])
        if is_wheel(path):
            return Said(200, {"Content-Type": "application/octet-stream"}, [wheel])
        if path.endswith(".provenance.json"):
            record = Path(team.row["path"] + ".provenance.json").read_bytes()
            return Said(200, {"Content-Type": "application/json"}, [moved(record)])
        return said

    with between(server.url, twist) as url:
        built(team.join(url), said=said)


def test_without_a_signature_that_counts_it_is_refused(team: Team, server: Server, tmp_path: Path) -> None:
    def unsigned(path: str, said: Said) -> Said:
        if path.startswith("/api/builds/"):
            document = json.loads(b"".join(said.body))
            document["wheels"][0]["signature"] = None
            said.body = [json.dumps(document).encode()]
        return said

    with between(server.url, unsigned) as url:
        built(team.join(url, f'[signing]\nsigners = "{team.signers}"\n'), said="nobody vouches for it")
    stranger = allow(make_key(tmp_path, "mallory"), "mallory@example.invalid")
    built(team.join(server.url, f'[signing]\nsigners = "{stranger}"\n'), said="by nobody whom signers lets sign")


def test_what_the_audit_refuses_is_refused(team: Team, server: Server) -> None:
    """The same fingerprint, another word of this machine's recipe on what a wheel has to hold."""
    other = team.join(server.url)
    with (other.recipes / "tiny.toml").open("a") as recipe:
        recipe.write('\n[[check]]\nkind = "size"\nmax = "1KiB"\n')
    done = other.run("recipe", "tiny", code=5)
    (told,) = warnings(other)
    assert "would not run as it should" in told
    assert "audit-refused" in done.stderr  # its own build has the same fault


@pytest.mark.parametrize(
    ("status", "kind", "body", "said"),
    [
        (200, "text/html", b"<html>", "doesn't answer as a spark-build server does"),
        pytest.param(200, "application/json", b"[" * 100_000, "its answer is no JSON", marks=pytest.mark.slow),
        pytest.param(404, "text/html", b"<html>", "doesn't answer as a spark-build server", marks=pytest.mark.slow),
        (302, "text/html", b"", "sends us to another server: to http://192.0.2.1/x"),
    ],
)
def test_a_server_that_is_none_of_ours_is_told(  # what it answers
    team: Team, server: Server, status: int, kind: str, body: bytes, said: str
) -> None:
    answer = Said(status, {"Content-Type": kind, "Location": "http://192.0.2.1/x"}, [body])
    with between(server.url, lambda _path, _said: answer) as url:
        built(team.join(url), said=said)


def test_an_endless_body_ends(team: Team, server: Server) -> None:
    def twist(path: str, said: Said) -> Said:
        return Said(200, said.headers, repeat(b"x" * 65536), length=-1) if is_wheel(path) else said

    with between(server.url, twist) as url:
        built(team.join(url), said=f"more than the {team.row['size']} bytes")


def test_a_dead_server_costs_a_warning(team: Team) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens, and nobody else will
        built(team.join(f"http://127.0.0.1:{taken.getsockname()[1]}"), said="can't be reached: ")


@pytest.mark.slow
def test_a_hanging_server_costs_some_seconds(team: Team) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        built(team.join(f"http://127.0.0.1:{deaf.getsockname()[1]}"), said="can't be reached: timed out")


@pytest.mark.slow
def test_a_transfer_that_is_cut_goes_on_where_it_was_cut(team: Team, server: Server) -> None:
    """Each connection brings some bytes; together they are the wheel."""
    asked: list[str] = []

    def twist(path: str, said: Said) -> Said:
        if is_wheel(path):
            asked.append(path)
            whole = b"".join(said.body)
            return Said(200, said.headers, [whole[:1000]], length=len(whole))
        return said

    with between(server.url, twist) as url:
        built(team.join(url), said="the connection ended after 1000 of")
    assert len(asked) == 4
