"""The pages for people from the real server: headers, tags, what changes when, and events of builds as they come."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import shutil
import socket
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from builder import events, signature
from builder.pipeline import pages
from builder.wheelhouse import states
from tests import server_kit, site_events, site_house, site_kit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.server_kit import Server

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[site_kit.Kit]:
    made = site_house.fill(tmp_path_factory.mktemp("site") / "house", live=False)
    yield made
    made.close()


@pytest.fixture(scope="module")
def server(kit: site_kit.Kit) -> Iterator[Server]:
    with server_kit.serving(kit.root) as found:
        yield found


def test_the_server_has_the_bytes_of_the_export(server: Server, kit: site_kit.Kit) -> None:
    looked = 0
    for path, data in pages.tree(kit.house):
        if path == "404.html":
            continue
        answer = server.ask(f"/{path}")
        assert (answer.status, answer.body) == (200, data), path
        if path.endswith("/index.html"):
            assert server.ask(f"/{path.removesuffix('index.html')}").body == data
        looked += 1
    assert looked > 40


def test_headers_of_pages_and_files(server: Server) -> None:
    for path in ("/", "/builds/", "/projects/vllm/", "/static/style.css", "/static/search.js", "/?q=vllm"):
        answer = server.ask(path, Accept_Encoding="gzip")
        assert answer.status == 200
        assert answer.headers["Content-Security-Policy"] == POLICY
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Vary"] == "Accept-Encoding"
        assert answer.headers["Content-Encoding"] == "gzip"
        again = server.ask(path, If_None_Match=answer.headers["ETag"], Accept_Encoding="gzip")
        assert (again.status, again.body) == (304, b"")
        plain = server.ask(path)
        assert plain.body == gzip.decompress(answer.body)
        assert plain.headers["ETag"] != answer.headers["ETag"]
        head = server.ask(path, "HEAD")
        assert (head.status, head.body, head.headers["Content-Length"]) == (200, b"", str(len(plain.body)))
    assert server.ask("/static/spark.js").headers["Content-Type"].startswith("text/javascript")
    assert "immutable" not in server.ask("/static/spark.js").headers["Cache-Control"]
    assert "immutable" in server.ask("/static/spark.js?v=1").headers["Cache-Control"]


def test_what_isnt_there_is_a_page_for_people_and_a_line_for_programs(server: Server) -> None:
    for path in (
        "/nope",
        "/projects/no-such/",
        "/wheels/" + "0" * 64 + "/",
        "/channels/none/",
        "/builds/" + "0" * 64 + "/",
    ):
        page = server.ask(path, Accept=BROWSER)
        assert (page.status, page.headers["Content-Type"]) == (404, "text/html; charset=utf-8"), path
        assert page.headers["Content-Security-Policy"] == POLICY
        assert f'href="{"../" * (path.count("/") - 1)}static/style.css' in page.text
    assert server.ask("/nope").headers["Content-Type"].startswith("text/plain")
    assert server.ask("/nope%3Cscript%3E", Accept=BROWSER).text.count("<script") == 1
    assert server.ask("/static/none.css").status == 404
    assert server.ask("/static/..%2fgather.py").status == 404
    assert server.ask("/", "POST", b"x").status == 405
    assert server.ask("/projects/VLLM/").headers["Location"] == "../vllm/"


def test_search_without_a_script(server: Server) -> None:
    text = server.ask("/?q=flashinfer%20jit").text
    assert 'href="projects/flashinfer-jit-cache/index.html"' in text
    assert 'value="flashinfer jit"' in text
    evil = server.ask("/?q=%22%3E%3Cscript%3Ealert(1)%3C/script%3E").text
    assert evil.count("<script") == 1
    assert "Nothing is called" in evil
    assert server.ask("/?q=").body == server.ask("/").body
    assert server.ask("/?q=" + "x" * 5000).status == 200


def test_a_change_is_seen_and_nothing_else_is_made_anew(tmp_path: Path) -> None:
    kit = site_kit.Kit(tmp_path / "house")
    one = kit.wheel("tiny", "1.0", site_kit.inputs("tiny", "1.0", "a" * 40), days=2)
    kit.wheel("other", "1.0", None, days=2)
    with server_kit.serving(kit.root) as server:
        before, other = server.ask("/projects/tiny/"), server.ask("/projects/other/")
        states.set(kit.house, [one], "yanked", "use another")
        time.sleep(0.05)  # so long a change may take to be seen
        after = server.ask("/projects/tiny/", If_None_Match=before.headers["ETag"])
        assert after.status == 200
        assert "use another" in after.text
        assert server.ask("/projects/other/", If_None_Match=other.headers["ETag"]).status == 304
        kit.house.keep_findings(one.sha256, "rules", site_kit.triton_report())
        kit.attempt(
            "tiny", "1.0", one.fingerprint, site_events.whole("tiny", 1, site_kit.GIB, one.sha256, units=4), days=2
        )
        assert eventually(lambda: "Compiler runs" in server.ask(f"/builds/{one.fingerprint}/").text)
        assert eventually(lambda: "libtriton.so" in server.ask(f"/wheels/{one.sha256}/").text)
        judged = json.loads(json.dumps(site_kit.triton_report()).replace("libtriton.so", "libanother.so"))
        kit.house.keep_findings(one.sha256, "newer rules", judged)  # in place of those
        assert eventually(lambda: "libanother.so" in server.ask(f"/wheels/{one.sha256}/").text)
    kit.close()


def test_signatures_are_checked_by_those_who_may_sign(tmp_path: Path) -> None:
    if shutil.which("ssh-keygen") is None:
        pytest.skip("needs ssh-keygen")
    key, config = tmp_path / "key", tmp_path / ".config" / "spark-build"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    config.mkdir(parents=True)
    (config / "signers").write_text(f"ci {key.with_suffix('.pub').read_text()}")
    (config / "config.toml").write_text('[signing]\nsigners = "signers"\n')
    kit = site_kit.Kit(tmp_path / "house")
    inputs = site_kit.inputs("tiny", "1.0", "a" * 40)
    one = kit.wheel("tiny", "1.0", inputs, days=2, sign=lambda data: signature.sign(data, key))
    kit.close()
    with server_kit.serving(kit.root) as server:
        assert "by ci, who may sign here" in server.ask(f"/wheels/{one.sha256}/").text
        (config / "signers").write_text("")  # whoever has the key may not any more
        assert eventually(lambda: "by ci, who may" not in server.ask(f"/wheels/{one.sha256}/").text)


def test_pages_need_a_token_where_reading_does(kit: site_kit.Kit) -> None:
    secret = server_kit.token(kit.root, "reader", "read")
    try:
        with server_kit.serving(kit.root, "--bind", "0.0.0.0") as server:  # noqa: S104  # that is the point
            paths = ("/", "/builds/", "/projects/vllm/", "/static/style.css", "/api/builds/" + "0" * 64 + "/events")
            assert [server.ask(path).status for path in paths] == [401] * 5
            assert [server.ask(path, Authorization=f"Bearer {secret}").status for path in paths] == [200] * 4 + [404]
    finally:
        (kit.root / "tokens.toml").unlink()


def eventually(check: object, seconds: float = 10.0) -> bool:
    assert callable(check)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if check():
            return True
        time.sleep(0.1)
    return False


# --- events


class Stream:
    """A client of events: what came so far, event by event."""

    def __init__(self, server: Server, path: str, **headers: str) -> None:
        self.socket = socket.create_connection((server.host, server.port), timeout=20)
        named = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n{named}\r\n".encode())
        self.stream = self.socket.makefile("rb")
        self.status = int(self.stream.readline().split()[1])
        self.headers = {}
        while line := self.stream.readline().strip():
            name, _colon, value = line.decode().partition(": ")
            self.headers[name] = value

    def __iter__(self) -> Iterator[dict[str, str]]:
        """Each event, until the server hangs up or says that it was the last."""
        found: dict[str, str] = {}
        while line := self.stream.readline():
            text = line.decode().rstrip("\r\n")
            if not text:
                if "data" in found:
                    yield found
                if found.get("event") == "end":
                    return
                found = {}
            elif ": " in text and not text.startswith(":"):
                name, _colon, value = text.partition(": ")
                found[name] = value

    def close(self) -> None:
        self.stream.close()
        self.socket.close()


@pytest.fixture
def build(tmp_path: Path) -> Iterator[tuple[site_kit.Kit, str, Path]]:
    """A build that runs: its kit, its fingerprint, its folder."""
    kit = site_kit.Kit(tmp_path / "house")
    told = [(1.0, one) for one in site_events.phase("fetch", 12, "at hand")]
    fingerprint = "b" * 64
    folder = kit.attempt("tiny", "main", fingerprint, told, days=0)
    kit.running(fingerprint)
    yield kit, fingerprint, folder
    kit.close()


def tell(folder: Path, *told: events.Event) -> None:
    with (folder / "events.jsonl").open("a") as stream:
        lines = events.JsonLines(stream, build="b", clock=time.time)
        for one in told:
            lines.emit(one)


def test_events_come_as_they_happen_and_end_with_the_build(build: tuple[site_kit.Kit, str, Path]) -> None:
    kit, fingerprint, folder = build
    with server_kit.serving(kit.root) as server:
        stream = Stream(server, f"/api/builds/{fingerprint}/events")
        assert (stream.status, stream.headers["Content-Type"]) == (200, "text/event-stream; charset=utf-8")
        assert stream.headers["Cache-Control"] == "no-store"
        heard = iter(stream)
        first = [next(heard) for _ in range(3)]
        assert [one["id"] for one in first] == ["1", "2", "3"]
        assert [json.loads(one["data"])["kind"] for one in first] == ["build.started", "phase.started", "phase.ended"]
        tell(folder, events.PhaseStarted(phase="build", log="build.log"))
        assert next(heard)["id"] == "4"
        with (folder / "build.log").open("w") as log:
            log.write("one\r\ntwo <b>\nthr")
            log.flush()
            printed = [json.loads(next(heard)["data"]) for _ in range(2)]
            assert [(one["kind"], one["phase"], one["text"].strip()) for one in printed] == [
                ("phase.printed", "build", "one"),
                ("phase.printed", "build", "two <b>"),
            ]
            log.write("ee\n")
        tell(folder, events.PhaseEnded(phase="build", status="ok", ms=5), events.BuildEnded(status="ok", ms=9))
        rest = list(heard)
        assert [one.get("event") for one in rest][-1] == "end"
        assert json.loads(rest[0]["data"])["text"] == "three"
        assert [one["id"] for one in rest if "id" in one] == ["5", "6"]
        stream.close()
        assert server.log.count("\n") == 1  # its greeting


def test_a_client_goes_on_where_it_was_cut_off(build: tuple[site_kit.Kit, str, Path]) -> None:
    kit, fingerprint, folder = build
    tell(folder, events.BuildEnded(status="ok", ms=9))
    path = f"/api/builds/{fingerprint}/events"
    with server_kit.serving(kit.root) as server:
        for asked, headers in (
            (path, {"Last_Event_ID": "2"}),
            (f"{path}?after=2", {}),
            (f"{path}?attempt=1&after=2", {}),
        ):
            stream = Stream(server, asked, **headers)
            assert [one.get("id") for one in stream] == ["3", "4", None]
            stream.close()
        everything = Stream(server, path, Last_Event_ID="no number")
        assert [one.get("id") for one in everything] == ["1", "2", "3", "4", None]
        everything.close()
        assert server.ask(f"{path}?attempt=7").status == 404
        assert server.ask(path, "HEAD").status == 200


def test_a_build_that_was_killed_ends_its_events(build: tuple[site_kit.Kit, str, Path]) -> None:
    kit, fingerprint, _folder = build
    with server_kit.serving(kit.root) as server:
        stream = Stream(server, f"/api/builds/{fingerprint}/events")
        heard = iter(stream)
        assert [next(heard)["id"] for _ in range(3)] == ["1", "2", "3"]
        kit.close()
        assert [one.get("event") for one in heard] == ["end"]
        stream.close()


def test_who_follows_with_a_token_that_is_revoked_hears_no_more(build: tuple[site_kit.Kit, str, Path]) -> None:
    kit, fingerprint, folder = build
    secret = server_kit.token(kit.root, "reader", "read")
    with server_kit.serving(kit.root, "--closed-reads") as server:
        client = http.client.HTTPConnection(server.host, server.port, timeout=20)
        client.request("GET", f"/api/builds/{fingerprint}/events", headers={"Authorization": f"Bearer {secret}"})
        answer = client.getresponse()
        while b"phase.ended" not in answer.readline():
            pass
        (kit.root / "tokens.toml").unlink()
        time.sleep(0.5)  # it looks at the file five times a second
        tell(folder, events.Note(level="info", text="not for them"))
        assert (answer.readline(), answer.read(1)) == (b"\n", b"")
        client.close()


def test_followers_are_bounded_and_those_that_leave_make_room(build: tuple[site_kit.Kit, str, Path]) -> None:
    kit, fingerprint, folder = build
    path = f"/api/builds/{fingerprint}/events"
    with server_kit.serving(kit.root) as server, contextlib.ExitStack() as closing:
        many = [Stream(server, path) for _ in range(64)]
        for one in many:
            closing.callback(one.close)
        assert {one.status for one in many} == {200}
        refused = server.ask(path)
        assert (refused.status, refused.headers["Retry-After"]) == (503, "30")
        assert server.ask("/simple/").status == 200  # others are unhindered
        for one in many[:8]:
            one.close()
        tell(folder, events.Note(level="info", text="x" * 4000), events.Note(level="info", text="y"))

        def room() -> bool:
            stream = Stream(server, path)
            stream.close()
            return stream.status == 200

        assert eventually(room)
        assert server.stop(timeout=25) == 0  # followers don't keep it from stopping
