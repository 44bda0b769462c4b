"""Uploads as twine and uv do them, through the real server: what is taken, what is refused and how that is said."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from builder.digest import sha256_file
from builder.wheelhouse import journal
from builder.wheelhouse.publish import sidecar, signature
from tests import upload_kit as ups
from tests import wheelhouse_kit as kit
from tests.server_kit import serving, started, token
from tests.test_signature import allow, make_key
from tests.upload_kit import wheel

if TYPE_CHECKING:
    from pathlib import Path

    from tests.server_kit import Server
    from tests.upload_kit import Taking
    from tests.world import World


@pytest.fixture
def root(taking: Taking) -> Path:
    return taking.root


@pytest.fixture
def tokens(taking: Taking) -> dict[str, str]:
    return taking.tokens


@pytest.fixture
def server(taking: Taking) -> Server:
    return taking.server


# --- as people do it


def test_twine_publishes_and_is_told_what_is_wrong(server: Server, tokens: dict[str, str], tmp_path: Path) -> None:
    one, url = wheel(tmp_path, "twined"), f"{server.url}legacy/"
    assert ups.twine(url, tokens["ci"], one).returncode == 0
    assert ups.listed(server, "twined") == {one.name: sha256_file(one)}
    again = ups.twine(url, tokens["ci"], one)
    assert again.returncode == 0
    assert "was there already" in again.stdout
    other = ups.twine(url, tokens["ci"], wheel(tmp_path, "twined", text=b"other = 1\n", folder="2"))
    assert other.returncode == 1
    assert f"409 Conflict from {url}" in other.stdout
    assert "twined-1.0-py3-none-any.whl already stands for other bytes" in other.stdout
    refused = ups.twine(url, tokens["ci"], wheel(tmp_path, "twined", "2.0", record=b"x,,\n"))
    assert refused.returncode == 1
    assert "3 file(s) that RECORD doesn't name" in refused.stdout
    assert "401 Unauthorized" in ups.twine(url, "sbt_wrong", one).stdout
    assert ups.listed(server, "twined") == {one.name: sha256_file(one)}


def test_uv_publishes_to_a_channel_and_is_told_what_is_wrong(
    server: Server, tokens: dict[str, str], tmp_path: Path
) -> None:
    wheels = [wheel(tmp_path, "uved"), wheel(tmp_path, "uved", "2.0+sb1.cu130")]
    url = f"{server.url}team/nightly/legacy/"
    assert ups.uv(url, tokens["team"], *wheels).returncode == 0
    offered = {one.name: sha256_file(one) for one in wheels}
    assert ups.listed(server, "uved", "team/nightly") == ups.listed(server, "uved") == offered
    skipped = ups.uv(url, tokens["team"], *wheels, more=["--check-url", f"{server.url}simple/"])
    assert skipped.returncode == 0
    assert "already exists" in skipped.stdout
    other = ups.uv(url, tokens["team"], wheel(tmp_path, "uved", text=b"other = 1\n", folder="2"))
    assert other.returncode == 2
    assert "uved-1.0-py3-none-any.whl already stands for other bytes" in other.stdout
    assert "doesn't hold for the channel local" in ups.uv(f"{server.url}legacy/", tokens["team"], wheels[0]).stdout
    assert "lacks the scope publish" in ups.uv(url, tokens["reader"], wheels[0]).stdout


def test_what_is_uploaded_is_whole_audited_and_in_the_journal(
    server: Server, root: Path, tokens: dict[str, str], tmp_path: Path
) -> None:
    one = wheel(tmp_path, "bytes", size=3_000_000)
    assert ups.post(server, ups.upload(one), tokens["ci"]).text == f"{one.name} is published\n"
    digest = sha256_file(one)
    assert server.ask(f"/files/{digest}/{one.name}").body == one.read_bytes()
    with kit.opened(root) as house:
        (stored,) = house.list_wheels(project="bytes")
        rules = house.catalogue.rows("SELECT rules FROM findings WHERE sha256=?", (digest,))
        assert rules[0][0].startswith("added:")
    record = json.loads(sidecar(stored.path).read_text())
    assert record["subject"][0]["digest"]["sha256"] == digest


# --- what isn't taken, and how that is said

LIES: tuple[tuple[int, str, dict[str, Any]], ...] = (
    (400, "sha256_digest says", {"sha256_digest": "0" * 64}),
    (400, "sha256_digest says", {"sha256_digest": "é" * 9}),
    (400, "blake2_256_digest says", {"blake2_256_digest": "0" * 64}),
    (400, "sha256_digest is missing", {"without": ("sha256_digest",)}),
    (400, "is sent as sdist", {"filetype": "sdist"}),
    (400, "isn't a wheel of", {"name": "other"}),
    (400, "isn't version", {"version": "9"}),
    (400, "is no version", {"version": "one"}),
    (400, "pyversion is", {"pyversion": "cp312"}),
    (400, "it was sent with Metadata-Version", {"metadata_version": "9.9"}),
    (400, "only :action=file_upload", {"_action": "doc_upload"}),
    (400, "protocol_version", {"protocol_version": "2"}),
    (400, "lacks name", {"without": ("name",)}),
    (400, "has more than", {"name": "x" * 5000}),
    (400, "characters", {"name": "li\0es"}),
    (400, "no wheel's name", {"filename": "../../evil-1.0-py3-none-any.whl"}),
    (400, "no wheel's name", {"filename": "/etc/lies-1.0-py3-none-any.whl"}),
    (400, "no wheel's name", {"filename": "lies-1.0.tar.gz"}),
    (400, "no wheel's name", {"filename": ""}),
    (422, "is no whole wheel", {"data": b"no zip"}),
)


@pytest.mark.parametrize(("status", "text", "changed"), LIES, ids=range(len(LIES)))
def test_a_form_that_lies_is_refused(
    server: Server, tokens: dict[str, str], tmp_path: Path, status: int, text: str, changed: dict[str, Any]
) -> None:
    answer = ups.post(server, ups.upload(wheel(tmp_path, "lies"), **changed), tokens["ci"])
    assert (answer.status, text in answer.text) == (status, True), answer.text
    assert ups.listed(server, "lies") == {}


def test_a_form_has_to_be_one(server: Server, tokens: dict[str, str], tmp_path: Path) -> None:
    body = ups.upload(wheel(tmp_path, "forms"))
    bearer = f"Authorization: Bearer {tokens['ci']}\r\n"
    for status, more in (
        (415, {"Content_Type": "application/json"}),
        (415, {"Content_Type": "multipart/form-data"}),
        (415, {"Content_Encoding": "gzip"}),
        (400, {"Content_Type": "multipart/form-data; boundary=other"}),
    ):
        assert ups.post(server, body, tokens["ci"], **more).status == status
    kind = f"Content-Type: multipart/form-data; boundary={ups.BOUNDARY.decode()}\r\n"
    chunked = (
        f"POST /legacy/ HTTP/1.1\r\nHost: x\r\n{bearer}{kind}Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    assert server.raw(f"{chunked}0\r\n\r\n".encode()).startswith(b"HTTP/1.1 411 ")
    huge = f"POST /legacy/ HTTP/1.1\r\nHost: x\r\n{bearer}{kind}Content-Length: 99999999999999\r\n\r\n".encode()
    with socket.create_connection((server.host, server.port), timeout=10) as client:
        client.sendall(huge)
        assert client.recv(100).startswith(b"HTTP/1.1 413 ")
    assert ups.post(server, body, None).status == 401
    assert ups.post(server, body, tokens["reader"]).status == 403
    assert ups.post(server, body, tokens["ci"], "/legacy").status == 200  # twine follows no redirect
    twice = ups.form([ups.part("name", b"a"), ups.part("name", b"a")])
    assert "name twice" in ups.post(server, twice, tokens["ci"]).text
    long = ups.form([ups.part("description", b"x" * (33 << 20))])
    assert ups.post(server, long, tokens["ci"]).status == 413
    assert "ends in the middle" in ups.post(server, body[:-20], tokens["ci"]).text
    asked = f"POST /legacy/ HTTP/1.1\r\nHost: x\r\n{bearer}{kind}Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
    with socket.create_connection((server.host, server.port), timeout=10) as client:
        client.sendall(asked.encode())
        assert client.recv(100).startswith(b"HTTP/1.1 100 ")
        client.sendall(body)
        assert client.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_the_audit_refuses_and_says_why(server: Server, tokens: dict[str, str], tmp_path: Path) -> None:
    other = tmp_path / "tagged-1.0-cp312-cp312-linux_aarch64.whl"  # WHEEL says py3-none-any
    shutil.copy(wheel(tmp_path, "tagged"), other)
    answer = ups.post(server, ups.upload(other), tokens["ci"])
    assert answer.status == 422
    assert "would not run as it should" in answer.text
    assert ups.listed(server, "tagged") == {}
    assert ups.stage(server, tokens["boss"], other).status == 201
    status, told = ups.publish(server, tokens["boss"], [other])
    assert (status, told["code"]) == (422, "audit-refused")
    slugs = {one["id"] for one in told["findings"][0]["findings"] if one["severity"] == "error"}
    accept = [{"id": slug, "reason": "for the tests"} for slug in slugs]
    assert ups.publish(server, tokens["ci"], [other], accept=accept)[0] == 403
    assert ups.publish(server, tokens["boss"], [other], accept=accept)[0] == 200
    assert other.name in ups.listed(server, "tagged")


@pytest.mark.parametrize("status", ["archived", "quarantined"])
def test_a_closed_project_takes_nothing(
    server: Server, root: Path, tokens: dict[str, str], tmp_path: Path, status: str
) -> None:
    one = wheel(tmp_path, f"closed-{status}".replace("-", "_"))
    with kit.opened(root) as house:
        house.remember("project", f"closed-{status}", {"status": status, "reason": "moved away", "time": 1})
    answer = ups.post(server, ups.upload(one), tokens["ci"])
    assert answer.status == 403
    assert f"closed-{status} is {status}" in answer.text
    assert "moved away" in answer.text
    assert ups.listed(server, f"closed-{status}") == {}


def test_a_full_disk_is_said_and_nothing_stays(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounts a small disk, which takes root")
    with kit.small_disk(tmp_path / "disk", "70m") as disk:
        ci = token(disk / "wheelhouse", "ci", "publish")
        with serving(disk / "wheelhouse", log := "--access-log", "-") as server:
            assert log
            answer = ups.post(server, ups.upload(wheel(tmp_path, "big", size=5 << 20)), ci)
            assert (answer.status, "no room" in answer.text) == (507, True)
            assert ups.post(server, ups.upload(wheel(tmp_path, "small")), ci).status == 200
            assert server.ask("/health").status == 200
        ups.nothing_left(disk / "wheelhouse")


# --- the process that audits


def test_a_worker_may_die_at_any_time(server: Server, root: Path, tokens: dict[str, str], tmp_path: Path) -> None:
    """Idle, at work, and stopped: uploads are answered by another one, and pages all the while."""
    first = wheel(tmp_path, "mortal")
    assert ups.post(server, ups.upload(first), tokens["ci"]).status == 200
    for pid in ups.children(server.process.pid):
        os.kill(pid, signal.SIGKILL)
    assert ups.post(server, ups.upload(wheel(tmp_path, "mortal", "2.0")), tokens["ci"]).status == 200
    large = wheel(tmp_path, "mortal", "3.0", size=40_000_000)
    answers: list[int] = []
    thread = threading.Thread(target=lambda: answers.append(alone(server, large, tokens["ci"])))
    (idle,) = ups.children(server.process.pid)
    os.kill(idle, signal.SIGSTOP)  # it takes the job and does nothing
    thread.start()
    for _number in range(50):
        assert server.ask("/simple/mortal/").status == 200
    while not any((root / "uploads").glob("*/*.whl")):
        time.sleep(0.01)
    time.sleep(0.1)
    os.kill(idle, signal.SIGKILL)
    thread.join(60)
    assert answers == [200]
    assert len(ups.listed(server, "mortal")) == 3


def test_what_no_worker_survives_is_an_error_and_no_more(
    server: Server, tokens: dict[str, str], tmp_path: Path
) -> None:
    over = threading.Event()

    def kill() -> None:
        while not over.is_set():
            for pid in ups.children(server.process.pid):
                os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        answer = ups.post(server, ups.upload(wheel(tmp_path, "deadly", size=30_000_000)), tokens["ci"])
    finally:
        over.set()
        thread.join()
    assert (answer.status, "without an answer" in answer.text) == (500, True)
    assert ups.listed(server, "deadly") == {}
    assert ups.post(server, ups.upload(wheel(tmp_path, "deadly", size=30_000_000)), tokens["ci"]).status == 200


def alone(server: Server, one: Path, secret: str) -> int:
    """Upload over a connection of its own."""
    from tests.server_kit import Server as Another  # noqa: PLC0415

    client = Another(url=server.url, process=server.process, log_file=server.log_file)
    return ups.post(client, ups.upload(one), secret, Connection="close").status


def test_many_at_once_are_all_answered(server: Server, tokens: dict[str, str], tmp_path: Path) -> None:
    wheels = [wheel(tmp_path, "many", f"{number}.0", size=200_000) for number in range(12)]
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda one=one: answers.append(alone(server, one, tokens["ci"]))) for one in wheels
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert answers == [200] * 12
    assert ups.listed(server, "many") == {one.name: sha256_file(one) for one in wheels}
    assert len(ups.children(server.process.pid)) <= 2


def test_what_a_killed_server_left_is_swept_and_its_worker_ends(tmp_path: Path) -> None:
    root = tmp_path / "wheelhouse"
    ci = token(root, "ci", "publish")
    server = started(root)
    assert ups.post(server, ups.upload(wheel(tmp_path, "left")), ci).status == 200
    assert server.ask("/health", Connection="close").status == 200
    (worker,) = ups.children(server.process.pid)
    body = ups.upload(wheel(tmp_path, "left", "2.0", size=5_000_000))
    head = (
        f"POST /legacy/ HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ci}\r\nContent-Length: {len(body)}\r\n"
        f"Content-Type: multipart/form-data; boundary={ups.BOUNDARY.decode()}\r\n\r\n"
    )
    with socket.create_connection((server.host, server.port)) as client:
        client.sendall(head.encode() + body[: 3 << 20])
        while not any((root / "uploads").glob("*/content")):
            time.sleep(0.01)
        server.kill()
    assert server.process.stdout is not None
    server.process.stdout.close()
    old = root / "uploads" / "staging" / ("a" * 64)
    old.mkdir(parents=True)
    (old / "x.part").write_bytes(b"x")
    new = root / "uploads" / "staging" / ("b" * 64)
    new.mkdir()
    (new / "x.part").write_bytes(b"x")
    for path in (old / "x.part", old):
        os.utime(path, (1, 1))
    with serving(root):
        assert [path.name for path in (root / "uploads").iterdir()] == ["staging"]
        assert [path.name for path in (root / "uploads" / "staging").iterdir()] == ["b" * 64]
    deadline = time.monotonic() + 20
    while alive(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(worker)
    ups.nothing_left(root)


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stream:  # noqa: PTH123  # a number, no path
            return stream.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# --- sets, sent in pieces and published in one step


def test_a_wheel_is_sent_in_pieces_and_goes_on_where_it_was(
    server: Server, tokens: dict[str, str], tmp_path: Path
) -> None:
    one = wheel(tmp_path, "pieces", size=6_000_000)
    data, path = one.read_bytes(), f"/api/staging/{sha256_file(one)}/{one.name}"
    bearer = f"Bearer {tokens['ci']}"
    assert ups.headers(server.ask(path, "HEAD", Authorization=bearer))["upload-offset"] == "0"
    half = len(data) // 2

    def piece(start: int, end: int, content: bytes | None = None) -> Any:  # noqa: ANN401  # an answer
        said = f"bytes {start}-{end - 1}/{len(data)}"
        return server.ask(
            path, "PUT", data[start:end] if content is None else content, Authorization=bearer, Content_Range=said
        )

    assert piece(0, half).status == 202
    assert piece(half + 1, len(data)).status == 409
    wrong = piece(0, half, data[:10])
    assert wrong.status == 400
    asked = ups.headers(server.ask(path, "HEAD", Authorization=bearer))
    assert (asked["upload-offset"], asked["upload-complete"]) == (str(half), "?0")
    cut = f"PUT {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {tokens['ci']}\r\nContent-Length: {len(data) - half}\r\n"
    cut += f"Content-Range: bytes {half}-{len(data) - 1}/{len(data)}\r\n\r\n"
    with socket.create_connection((server.host, server.port)) as client:
        client.sendall(cut.encode() + data[half : half + (2 << 20)])
        deadline = time.monotonic() + 10
        while (at := int(ups.headers(server.ask(path, "HEAD", Authorization=bearer))["upload-offset"])) == half:
            assert time.monotonic() < deadline
    while piece(at, len(data)).status == 409:  # until the server knows that the other one is gone
        at = int(ups.headers(server.ask(path, "HEAD", Authorization=bearer))["upload-offset"])
    assert half < at <= half + (2 << 20)
    assert ups.headers(server.ask(path, "HEAD", Authorization=bearer))["upload-complete"] == "?1"
    assert ups.publish(server, tokens["ci"], [one])[0] == 200
    assert ups.listed(server, "pieces") == {one.name: sha256_file(one)}
    assert (
        ups.headers(server.ask(path, "HEAD", Authorization=bearer))["upload-complete"] == "?1"
    )  # published: nothing to send


def test_other_bytes_than_those_of_the_digest_are_dropped(
    server: Server, root: Path, tokens: dict[str, str], tmp_path: Path
) -> None:
    one = wheel(tmp_path, "forged")
    answer = ups.stage(server, tokens["ci"], one, data=one.read_bytes() + b"x")
    assert (answer.status, "hash" in answer.text or "sent as" in answer.text) == (400, True)
    assert not list((root / "uploads" / "staging" / sha256_file(one)).glob("*"))
    status, told = ups.publish(server, tokens["ci"], [one])
    assert (status, told["code"]) == (409, "wheel-unstaged")
    for name in ("..%2fevil.whl", "evil.exe", "forged-1.0-py3-none-any.whl.other"):
        assert ups.stage(server, tokens["ci"], one, name=name).status in {400, 404}


def test_a_set_of_several_builds_is_published_in_one_step(
    server: Server, root: Path, tokens: dict[str, str], tmp_path: Path
) -> None:
    wheels = [
        kit.own_wheel(tmp_path, name, inputs={"schema": 1, "name": name, "requires": {name: []}})
        for name in ("alpha", "beta")
    ]
    for one in wheels:
        assert ups.stage(server, tokens["ci"], one).status == 201
    bad = wheel(tmp_path, "gamma", record=b"x,,\n")
    assert ups.stage(server, tokens["ci"], bad).status == 201
    status, told = ups.publish(server, tokens["ci"], [*wheels, bad], channel="team/sets")
    assert (status, "RECORD" in told["detail"]) == (422, True)
    assert ups.listed(server, "alpha") == {}
    status, told = ups.publish(server, tokens["ci"], wheels, channel="team/sets")
    assert (status, [one["cached"] for one in told["wheels"]]) == (200, [False, False])
    begun = [entry for entry in journal.read(root / "journal.jsonl") if entry["op"] == "publish.begin"]
    assert {row["filename"] for row in begun[-1]["wheels"]} == {one.name for one in wheels}
    assert list(begun[-1]["also"]) == ["team/sets"]
    for name, one in zip(("alpha", "beta"), wheels, strict=True):
        assert ups.listed(server, name, "team/sets") == ups.listed(server, name) == {one.name: sha256_file(one)}
    assert not (root / "uploads" / "staging" / sha256_file(wheels[0])).exists()
    status, told = ups.publish(server, tokens["ci"], wheels, channel="team/sets")  # again: nothing has to be sent
    assert (status, [one["cached"] for one in told["wheels"]]) == (200, [True, True])
    assert ups.publish(server, tokens["ci"], wheels[:1], channel="team/sets", replace=True)[0] == 403
    assert ups.publish(server, tokens["boss"], wheels[:1], channel="team/sets", replace=True)[0] == 200
    assert ups.listed(server, "beta", "team/sets") == {}
    assert ups.publish(server, tokens["team"], wheels, channel="other")[0] == 403


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")
def test_record_and_signature_come_along(server: Server, root: Path, tokens: dict[str, str], tmp_path: Path) -> None:
    from builder import signature as signing  # noqa: PLC0415
    from tests.test_wheels_foreign import about  # noqa: PLC0415

    one, key = wheel(tmp_path, "vouched"), make_key(tmp_path, "key")
    record = json.dumps(about(one)).encode()
    seal = signing.sign(record, key)
    for name, data in ((sidecar(one).name, record), (signature(one).name, seal), (one.name, one.read_bytes())):
        assert ups.stage(server, tokens["ci"], one, data=data, name=name).status == 201
    assert ups.publish(server, tokens["ci"], [one])[0] == 200
    with kit.opened(root) as house:
        (stored,) = house.list_wheels(project="vouched")
    assert sidecar(stored.path).read_bytes() == record
    assert signature(stored.path).read_bytes() == seal


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")
def test_the_server_asks_for_signatures_and_signs_as_it_is_configured(world: World, tmp_path: Path) -> None:
    from builder import signature as signing  # noqa: PLC0415

    key = make_key(world.root, "key")
    signers = allow(key)
    (world.config / "config.toml").write_text(f'[signing]\nkey = "{key}"\nsigners = "{signers}"\n')
    secret = token(world.wheelhouse, "ci", "publish")
    ours = kit.own_wheel(tmp_path, "ours", inputs={"schema": 1, "name": "ours", "requires": {"ours": []}})
    plain = wheel(tmp_path, "plain")
    with serving(world) as server:
        answer = ups.post(server, ups.upload(ours), secret)
        assert (answer.status, "nobody vouches for it" in answer.text) == (422, True)
        assert ups.post(server, ups.upload(plain), secret).status == 200  # it claims nothing
    with kit.opened(world.wheelhouse) as house:
        (stored,) = house.list_wheels()
    assert signing.verify(sidecar(stored.path), signature(stored.path), signers)


WRONG: tuple[Any, ...] = (
    b"{",
    b"[]",
    b"null",
    b"[" * 20_000,
    {"wheels": []},
    {"wheels": [{"sha256": "a" * 64, "filename": 1}]},
    {"wheels": [{"sha256": "../" * 21 + "a", "filename": "a-1-py3-none-any.whl"}]},
    {"wheels": [{"sha256": "a" * 64, "filename": "../a-1-py3-none-any.whl"}]},
    {"wheels": [{"sha256": "a" * 64, "filename": "a-1-py3-none-any.whl"}] * 2},
    {"wheels": [{"sha256": "a" * 64, "filename": "a-1-py3-none-any.whl"}], "channel": "../x"},
    {"wheels": [{"sha256": "a" * 64, "filename": "a-1-py3-none-any.whl"}], "channel": "simple"},
    {"wheels": [{"sha256": "a" * 64, "filename": "a-1-py3-none-any.whl"}], "channel": 7},
    {"wheels": [{"sha256": "a" * 64, "filename": "a-1-py3-none-any.whl"}], "replace": True},
    {"wheels": [{"sha256": "a" * 64, "filename": "a-1-py3-none-any.whl"}], "replace": "yes"},
    {"wheels": [{"sha256": "a" * 64, "filename": "a-1-py3-none-any.whl"}], "accept": ["x"]},
    {"wheels": [{"sha256": "a" * 64, "filename": "a-1-py3-none-any.whl"}], "accept": [{"id": "nope", "reason": "x"}]},
    {"wheels": [{"sha256": "a" * 64, "filename": "a-1-py3-none-any.whl"}], "more": 1},
)


@pytest.mark.parametrize("asked", WRONG, ids=range(len(WRONG)))
def test_a_wrong_request_is_refused(server: Server, tokens: dict[str, str], asked: Any) -> None:  # noqa: ANN401  # any JSON
    body = asked if isinstance(asked, bytes) else json.dumps(asked).encode()
    answer = server.ask("/api/publish", "POST", body, Authorization=f"Bearer {tokens['boss']}")
    assert answer.status == 400, answer.text
