"""Uploads that look right one by one: sets that are half there, names in other spellings, what was withheld, and races."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from builder.digest import sha256_file
from builder.server import staging
from builder.server.refusal import Refusal
from builder.wheelhouse import channel, states
from builder.wheelhouse.publish import sidecar, signature
from tests import upload_kit as ups
from tests import wheelhouse_kit as kit
from tests.server_kit import ended, serving, token, tuned
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
def ci(taking: Taking) -> str:
    return taking.tokens["ci"]


@pytest.fixture
def boss(taking: Taking) -> str:
    return taking.tokens["boss"]


@pytest.fixture
def server(taking: Taking) -> Server:
    return taking.server


def test_a_set_of_which_a_part_is_there_enters_a_channel_as_a_whole(
    server: Server, root: Path, ci: str, tmp_path: Path
) -> None:
    known, new = wheel(tmp_path, "known"), wheel(tmp_path, "new")
    assert ups.post(server, ups.upload(known), ci).status == 200
    assert ups.stage(server, ci, new).status == 201
    assert ups.publish(server, ci, [known, new], channel="team/mixed")[0] == 200
    with kit.opened(root) as house:
        (only,) = channel.history(house, "team/mixed")
    assert only.wheels == (sha256_file(known), sha256_file(new))  # in the order asked for, and never one of them alone


def test_other_bytes_never_come_under_another_spelling_of_a_name(server: Server, ci: str, tmp_path: Path) -> None:
    first = wheel(tmp_path, "spelled_name")
    assert ups.post(server, ups.upload(first), ci).status == 200
    for name, version in (("Spelled_Name", "1.0"), ("spelled.name", "1.0"), ("spelled_name", "1.0.0")):
        other = wheel(tmp_path, name, version, text=b"VALUE = 2\n")
        answer = ups.post(server, ups.upload(other), ci)
        assert (answer.status, first.name in answer.text) == (409, True), answer.text
    assert ups.listed(server, "spelled-name") == {first.name: sha256_file(first)}
    assert ups.post(server, ups.upload(wheel(tmp_path, "Spelled_Name", "1.0.1")), ci).status == 200
    both = [wheel(tmp_path, name, text=name.encode()) for name in ("twice_given", "Twice_Given")]
    for one in both:
        assert ups.stage(server, ci, one).status == 201
    status, told = ups.publish(server, ci, both)
    assert (status, told["code"]) == (409, "name-taken")
    assert ups.listed(server, "twice-given") == {}


@pytest.mark.parametrize("state", ["yanked", "quarantined"])
def test_what_was_withheld_and_removed_enters_no_channel(
    server: Server, root: Path, ci: str, tmp_path: Path, state: states.State
) -> None:
    one = wheel(tmp_path, state)
    assert ups.post(server, ups.upload(one), ci).status == 200
    with kit.opened(root) as house:
        states.set(house, [house.get(one.name)], state, "bad")
        house.remove(house.get(one.name))
    answer = ups.post(server, ups.upload(one), ci, path="/team/withheld/legacy/")
    assert (answer.status, f"is {state}" in answer.text) == (409, True), answer.text
    assert server.ask("/api/channels/team/withheld").status == 404
    answer = ups.post(server, ups.upload(one), ci)
    assert (answer.status, answer.text) == (200, f"{one.name} is here, and {state}\n")


def test_names_that_no_file_can_have_are_refused(server: Server, ci: str) -> None:
    long = f"{'a' * 200}-1-py3-none-any.whl"
    tags = "-".join([".".join(f"p{letter}" for letter in "abcdefghijklmnopqrstuvwx")] * 3)
    for name in (f"{long}.provenance.json.provenance.json.sig", f"a-1-{tags}.whl"):
        for method, body in (("HEAD", None), ("PUT", b"x")):
            path = f"/api/staging/{'a' * 64}/{name}"
            assert server.ask(path, method, body, Authorization=f"Bearer {ci}").status == 400


@pytest.mark.parametrize("torn", [b"", None], ids=["cut", "other"])
def test_what_is_staged_is_published_as_what_was_sent_or_not_at_all(
    server: Server, root: Path, ci: str, tmp_path: Path, torn: bytes | None
) -> None:
    name = "torn_cut" if torn is not None else "torn_other"
    one, other = wheel(tmp_path, name), wheel(tmp_path, name, text=b"VALUE = 2\n", folder="other")
    assert ups.stage(server, ci, one).status == 201
    staged = root / "uploads" / "staging" / sha256_file(one) / one.name
    staged.write_bytes(other.read_bytes() if torn is None else torn)
    status, told = ups.publish(server, ci, [one], channel="team/torn")
    assert (status, told["code"]) == (409, "wheel-torn")
    assert ups.listed(server, name.replace("_", "-")) == {}
    assert ups.stage(server, ci, one).status == 201  # it wasn't taken for there
    assert ups.publish(server, ci, [one], channel="team/torn")[0] == 200
    assert ups.listed(server, name.replace("_", "-")) == {one.name: sha256_file(one)}


def test_who_published_sees_it_in_the_next_answer(server: Server, ci: str, boss: str, tmp_path: Path) -> None:
    both = [wheel(tmp_path, "seen", version) for version in ("1.0", "2.0")]
    for one in both:
        assert ups.post(server, ups.upload(one), ci).status == 200
        assert one.name in ups.listed(server, "seen")
    for one in both * 10:  # nothing is audited: it takes less than the server waits before it asks again
        assert ups.publish(server, boss, [one], channel="team/seen", replace=True)[0] == 200
        assert list(ups.listed(server, "seen", "team/seen")) == [one.name]


def test_a_record_that_was_made_anew_takes_the_place_of_the_one_that_is_staged(
    server: Server, root: Path, ci: str, tmp_path: Path
) -> None:
    """A set was refused, and is pushed again with another record: the old one's bytes aren't part of it."""
    one = wheel(tmp_path, "recorded")
    path = f"/api/staging/{sha256_file(one)}/{sidecar(one).name}"
    for data in (b"a record", b"one", b"another record", b"and another ren"):
        asked = ups.headers(server.ask(path, "HEAD", Authorization=f"Bearer {ci}"))
        assert (asked["upload-offset"], asked["upload-complete"]) == ("0", "?0")
        piece = f"bytes 0-{len(data) - 1}/{len(data)}"
        assert server.ask(path, "PUT", data, Authorization=f"Bearer {ci}", Content_Range=piece).status == 201
        staged = root / "uploads" / "staging" / sha256_file(one) / sidecar(one).name
        assert staged.read_bytes() == data
    assert ups.stage(server, ci, one).status == 201
    assert ups.publish(server, ci, [one])[1]["code"] == "record-damaged"
    assert ups.publish(server, ci, [one])[0] == 200  # as a file of which nobody says anything


# --- races


def test_what_is_published_while_another_sends_it_is_no_bug(server: Server, ci: str, tmp_path: Path) -> None:
    """Two machines push the same wheel: the first one is done while the second sends the record."""
    one = wheel(tmp_path, "pushed")
    assert ups.stage(server, ci, one).status == 201
    path = f"/api/staging/{sha256_file(one)}/{sidecar(one).name}"
    head = f"PUT {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ci}\r\nConnection: close\r\n"
    with socket.create_connection((server.host, server.port), timeout=20) as second:
        second.sendall(f"{head}Content-Length: 10\r\n\r\nhalf ".encode())
        while not list(server.log_file.parent.glob(f"wheelhouse/uploads/staging/{sha256_file(one)}/*.part")):
            time.sleep(0.01)
        assert ups.publish(server, ci, [one])[0] == 200
        second.sendall(b"there")
        answer = second.recv(1000)
    assert answer.startswith(b"HTTP/1.1 409 ")
    assert b"Upload-Offset: 0" in answer


def test_a_project_that_is_closed_during_the_audit_takes_nothing(
    server: Server, root: Path, ci: str, tmp_path: Path
) -> None:
    assert ups.post(server, ups.upload(wheel(tmp_path, "closing")), ci).status == 200
    large, answers = wheel(tmp_path, "closing", "2.0", size=60_000_000), []
    alone = replace(server, _connection=None)
    thread = threading.Thread(target=lambda: answers.append(ups.post(alone, ups.upload(large), ci, Connection="close")))
    thread.start()
    while not any((root / "uploads").glob("*/*.whl")):  # it is all there, and about to be looked at
        time.sleep(0.01)
    with kit.opened(root) as house:
        states.status(house, "closing", "archived", "moved away")
    thread.join(60)
    assert (answers[0].status, "closing is archived" in answers[0].text) == (403, True)
    assert list(ups.listed(server, "closing")) == ["closing-1.0-py3-none-any.whl"]


def test_a_wheel_that_is_whole_is_written_no_more(tmp_path: Path) -> None:
    """Opened as a part by one sender, just before the other one, who held it, was done."""
    whole = tmp_path / "a-1-py3-none-any.whl"
    part = whole.with_name(f"{whole.name}.part")
    part.write_bytes(b"whole")
    with part.open("r+b", buffering=0) as stream:
        part.rename(whole)
        with pytest.raises(Refusal, match="meanwhile"):
            staging._take(stream, whole, staging.Piece(start=0, size=5, total=5))  # noqa: SLF001  # a moment between two calls
    assert whole.read_bytes() == b"whole"


class Code(str):
    """Stands in a program as it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def test_who_does_not_say_how_much_it_is_is_not_waited_for(tmp_path: Path) -> None:
    root = tmp_path / "wheelhouse"
    ci = token(root, "ci", "publish")
    settings: dict[str, Any] = {"linger_s": 0.5, "tokens": Code(f"Path({str(root / 'tokens.toml')!r})")}
    with (
        ended(tuned(root, **settings)) as server,
        socket.create_connection((server.host, server.port), timeout=30) as client,
    ):
        kind = f"Content-Type: multipart/form-data; boundary={ups.BOUNDARY.decode()}"
        head = (
            f"POST /legacy/ HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ci}\r\nTransfer-Encoding: chunked\r\n{kind}"
        )
        client.sendall(f"{head}\r\n\r\n".encode())
        deadline = time.monotonic() + 20
        with contextlib.suppress(ConnectionError):
            while True:
                client.sendall(b"1000\r\n" + b"x" * 4096 + b"\r\n")
                assert time.monotonic() < deadline
                time.sleep(0.01)


# --- the server's own troubles


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")
def test_mistakes_of_the_server_are_told_to_its_log_and_paths_to_nobody_else(world: World, tmp_path: Path) -> None:
    from builder import signature as signing  # noqa: PLC0415
    from tests.test_wheels_foreign import about  # noqa: PLC0415

    ci = token(world.wheelhouse, "ci", "publish")
    one, config = wheel(tmp_path, "told"), world.config / "config.toml"
    record = json.dumps(about(one)).encode()
    seal = signing.sign(record, make_key(tmp_path, "stranger"))
    signers = allow(make_key(world.root, "key"))
    with serving(world) as server:
        assert ups.stage(server, ci, one).status == 201
        for text, status, code in (
            (f'[signing]\nsigners = "{signers}"\n', 422, "signer-unknown"),
            (f'[signing]\nsigners = "{world.root}/nowhere"\n', 503, "signers-missing"),
            (f'[signing]\nkey = "{world.root}/nowhere"\n', 503, "signing-key"),
            ("[sign\n", 503, "config-wrong"),
        ):
            config.write_text(text)
            for name, data in ((sidecar(one).name, record), (signature(one).name, seal)):
                assert ups.stage(server, ci, one, data=data, name=name).status == 201
            found, told = ups.publish(server, ci, [one])
            assert (found, told["code"]) == (status, code)
            assert os.fspath(world.root) not in json.dumps(told)
            while status >= 500 and code not in server.log:  # another process writes it
                time.sleep(0.01)
        assert "signer-unknown" not in server.log
        config.write_text("")
        assert ups.publish(server, ci, [one])[0] == 200
