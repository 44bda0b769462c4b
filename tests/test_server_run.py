"""Starting and stopping: what is printed, signals, TLS, logs, metrics, and what a service manager is told."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin

import pytest

from builder.index import listing
from tests.server_kit import JSON, UV_ACCEPT, Server, drained, serving, started
from tests.tls_kit import certificate
from tests.wheelhouse_kit import NOBODY, opened, publish, wheel
from tests.world import COMMAND

if TYPE_CHECKING:
    from tests.world import World


@pytest.fixture
def root(tmp_path: Path) -> Path:
    with opened(tmp_path / "house") as house:
        publish(house, [wheel(tmp_path / "dist", "one"), wheel(tmp_path / "dist", "big", size=8_000_000)])
    return tmp_path / "house"


def big(root: Path) -> tuple[str, int]:
    with opened(root) as house:
        found = listing.project(house, "local", "big")
        assert found is not None
        return f"/files/{found.files[0].sha256}/{found.files[0].filename}", found.files[0].size


def failed(root: Path, *words: str, prefix: tuple[str, ...] = (), code: int) -> str:
    done = subprocess.run(
        [*prefix, str(COMMAND), "index", "serve", "--wheelhouse", str(root), *words],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={"PATH": os.environ["PATH"], "HOME": str(root)},
    )
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    return done.stderr


def test_the_url_is_the_only_line_on_stdout(root: Path) -> None:
    with serving(root) as server:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", server.url)
        assert server.ask("/health").status == 200
        assert server.stop() == 0
        assert server.process.stdout is not None
        assert server.process.stdout.read() == b""
        assert f"at {server.url}simple/" in server.log


def test_a_folder_that_is_not_there_is_no_new_wheelhouse(world: World) -> None:
    """A mistyped name would be an index without packages."""
    for words in ((), ("--wheelhouse", "typo")):
        place = world.root / words[1] if words else world.wheelhouse
        told = world.run("index", "serve", "--port", "0", *words, code=2).stderr
        assert ("error[wheelhouse-missing]" in told, f"mkdir -p {place}" in told) == (True, True), told
        assert not place.exists()
    world.wheelhouse.write_text("no folder")
    assert "error[wheelhouse-missing]" in world.run("index", "serve", "--port", "0", code=2).stderr


def test_an_empty_folder_becomes_a_wheelhouse_and_the_url_is_printed_as_json(world: World) -> None:
    world.wheelhouse.mkdir()
    log = world.root / "log"
    words = [str(COMMAND), "index", "serve", "--port", "0", "--json"]
    with log.open("w") as stderr:
        process = subprocess.Popen(words, env=world.env(), stdout=subprocess.PIPE, stderr=stderr, text=True)
    assert process.stdout is not None
    text = ""
    while not text.endswith("}\n"):
        text += process.stdout.readline()
    said = json.loads(text)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    process.stdout.close()
    assert (said["version"], said["index"], said["upload"]) == (1, f"{said['url']}simple/", f"{said['url']}legacy/")
    assert (world.wheelhouse / "catalog.sqlite3").exists()
    new = f"made a new wheelhouse at {world.wheelhouse}"
    assert new in log.read_text()
    with serving(world) as server:
        assert server.ask("/health").status == 200
        assert new not in server.log


def begun(server: Server, path: str) -> socket.socket:
    """Ask for a wheel, and take only its beginning."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(20)
    client.connect((server.host, server.port))
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert client.recv(500).startswith(b"HTTP/1.1 200")
    return client


def test_what_runs_is_finished_and_nothing_new_begun(root: Path) -> None:
    path, size = big(root)
    with serving(root) as server, contextlib.ExitStack() as stack:
        idle = stack.enter_context(socket.create_connection((server.host, server.port), timeout=10))
        idle.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert idle.recv(500).startswith(b"HTTP/1.1 200")
        client = stack.enter_context(begun(server, path))
        server.process.send_signal(signal.SIGTERM)
        while "stopping" not in server.log:
            time.sleep(0.01)
        for _ in range(500):
            try:
                socket.create_connection((server.host, server.port), timeout=1).close()
            except ConnectionRefusedError:
                break
            time.sleep(0.01)
        else:
            pytest.fail("it still listens")
        assert server.process.poll() is None
        assert len(drained(client)) > size - 1000
        assert drained(idle) == b""
        assert server.process.wait(30) == 0


def test_a_second_signal_ends_it_at_once(root: Path) -> None:
    with serving(root) as server, begun(server, big(root)[0]):
        server.process.send_signal(signal.SIGTERM)
        while "stopping" not in server.log:
            time.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == -signal.SIGTERM


def test_a_service_manager_is_told(root: Path, tmp_path: Path) -> None:
    place = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(place))
        manager.settimeout(20)
        with serving(root, env={"NOTIFY_SOCKET": str(place)}) as server:
            assert manager.recv(100) == b"READY=1"
            assert server.stop() == 0
            assert manager.recv(100) == b"STOPPING=1"
    with serving(root, env={"NOTIFY_SOCKET": str(tmp_path / "nobody")}) as server:
        assert server.ask("/health").status == 200


def test_a_log_that_nobody_reads_ends_nothing(root: Path) -> None:
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [str(COMMAND), "index", "serve", "--port", "0", "--wheelhouse", str(root), "--access-log", "-"],
        stdout=subprocess.PIPE,
        stderr=writing,
        env={"PATH": os.environ["PATH"], "HOME": str(root)},
    )
    os.close(writing)
    assert process.stdout is not None
    with process.stdout:
        server = Server(url=process.stdout.readline().decode().strip(), process=process, log_file=root)
        os.close(reading)
        path, _size = big(root)
        (root / "wheels" / "big" / "big-1.0-py3-none-any.whl").unlink()
        for _ in range(3):
            assert server.ask("/simple/one/", Accept=JSON).status == 200
            assert server.ask(path).status == 500
            time.sleep(0.15)
        assert server.stop() == 0


def test_a_log_that_is_closed_before_the_first_line_ends_nothing(root: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = subprocess.Popen(
        [str(COMMAND), "index", "serve", "--port", "0", "--wheelhouse", str(root)],
        stdout=subprocess.PIPE,
        stderr=writing,
        env={"PATH": os.environ["PATH"], "HOME": str(root)},
    )
    os.close(writing)
    assert process.stdout is not None
    with process.stdout:
        server = Server(url=process.stdout.readline().decode().strip(), process=process, log_file=root)
        assert server.ask("/simple/one/", Accept=JSON).status == 200
        assert server.stop() == 0


def test_what_keeps_it_from_starting_is_told_with_the_next_command(root: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = failed(root, "--port", str(port), code=3)
        assert f"error[port-busy]: another program listens on 127.0.0.1:{port}" in said
        assert "spark-build index serve --port 0" in said
    assert "error[bind]" in failed(root, "--bind", "192.0.2.1", "--port", "0", code=2)
    assert "error[bind]" in failed(root, "--bind", "no such name", "--port", "0", code=2)
    assert "error[usage]" in failed(root, "--port", "70000", code=2)
    assert "error[usage]" in failed(root, "--tls-key", "key.pem", code=2)
    assert "error[tls-unreadable]" in failed(root, "--port", "0", "--tls-cert", "nowhere.pem", code=3)
    junk = tmp_path / "junk.pem"
    junk.write_text("no certificate")
    assert f"openssl x509 -in {junk}" in failed(root, "--port", "0", "--tls-cert", str(junk), code=3)
    (root / "tokens.toml").write_text("")
    (root / "tokens.toml").chmod(0o666)
    assert f"chmod 600 {root}/tokens.toml" in failed(root, "--port", "0", code=3)


def let_in(folder: Path) -> None:
    """Let everybody go as far as a test's folder, which lies one deeper where tests run side by side."""
    for above in folder.parents[:3]:
        if above.stat().st_mode & stat.S_ISVTX:  # /tmp itself
            return
        above.chmod(0o755)


@pytest.mark.root
def test_a_port_for_root_is_told(tmp_path: Path) -> None:
    with open("/proc/sys/net/ipv4/ip_unprivileged_port_start") as stream:  # noqa: PTH123
        if int(stream.read()) <= 80:
            pytest.skip("here anybody may listen on any port")
    tmp_path.chmod(0o777)
    let_in(tmp_path)
    (tmp_path / "house").mkdir()
    (tmp_path / "house").chmod(0o777)
    assert "error[port-refused]" in failed(tmp_path / "house", "--port", "80", prefix=tuple(NOBODY), code=3)


def pair(folder: Path, name: str) -> tuple[Path, Path]:
    cert, key = folder / f"{name}.crt", folder / f"{name}.key"
    certificate(key, cert, subject=name)
    return cert, key


def test_tls_and_a_certificate_that_is_renewed(root: Path, tmp_path: Path) -> None:
    cert, key = pair(tmp_path, "first")
    path, size = big(root)

    def issuer(server: Server) -> str:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with (
            socket.create_connection((server.host, server.port), timeout=10) as plain,
            context.wrap_socket(plain) as client,
        ):
            return "second" if b"second" in (client.getpeercert(binary_form=True) or b"") else "first"

    with serving(root, "--tls-cert", str(cert), "--tls-key", str(key)) as server:
        assert server.url.startswith("https://")
        server.context = ssl.create_default_context(cafile=str(cert))
        for _ in range(2):
            assert server.ask("/simple/one/", Accept=JSON).status == 200
            assert len(server.ask(path).body) == size
        assert server.ask(path, Range="bytes=5-9").status == 206
        assert server.raw(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", timeout=2) == b""
        assert issuer(server) == "first"
        for made, place in zip(pair(tmp_path, "second"), (cert, key), strict=True):
            made.replace(place)
        server.process.send_signal(signal.SIGHUP)
        for _ in range(100):
            if issuer(server) == "second":
                break
            time.sleep(0.05)
        else:
            pytest.fail("it still shows the old one")


def test_the_access_log_and_its_rotation(root: Path, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    form = re.compile(r'127\.0\.0\.1 - - \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d \+0000\] "[^"]+" \d{3} \d+ "[^"]*" "[^"]*"')
    with serving(root, "--access-log", str(log)) as server:
        for _ in range(3):
            server.ask("/simple/one/", Accept=UV_ACCEPT, User_Agent="uv/0.13")
        server.ask("/nothing")
        server.ask("/simple/one/", "HEAD")
        lines: list[str] = []
        while len(lines) < 5:  # a line is written when its answer is sent
            time.sleep(0.01)
            lines = log.read_text().splitlines()
        assert all(form.fullmatch(line) for line in lines), lines
        assert re.search(r'"GET /simple/one/ HTTP/1.1" 200 [1-9]\d* "-" "uv/0.13"$', lines[2])
        assert '"GET /nothing HTTP/1.1" 404' in lines[3]
        assert '"HEAD /simple/one/ HTTP/1.1" 200 0 ' in lines[4]
        log.rename(tmp_path / "old.log")
        server.process.send_signal(signal.SIGHUP)
        for _ in range(100):
            server.ask("/health")
            if log.exists():
                break
            time.sleep(0.02)
        server.ask("/simple/one/", Accept=UV_ACCEPT)
        while "GET /simple/one/" not in log.read_text():
            time.sleep(0.01)


def test_the_metrics_are_what_prometheus_reads(root: Path) -> None:
    with serving(root) as server:
        for _ in range(5):
            server.ask("/simple/one/", Accept=UV_ACCEPT)
        server.ask("/simple/pip/")
        server.ask(big(root)[0])
        answer = server.ask("/metrics")
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    kinds: dict[str, str] = {}
    values: dict[str, float] = {}
    for line in answer.text.splitlines():
        if line.startswith("# TYPE "):
            _hash, _type, name, kind = line.split()
            assert name not in kinds
            kinds[name] = kind
        elif not line.startswith("#"):
            found = re.fullmatch(r'([a-z_]+)(\{[a-z]+="[^"]*"(?:,[a-z]+="[^"]*")*\})? (\S+)', line)
            assert found, line
            base = re.sub(r"_(bucket|sum|count)$", "", found[1])
            assert found[1] in kinds or kinds.get(base) == "histogram"
            values[f"{found[1]}{found[2] or ''}"] = float(found[3])
    assert values['sparkbuild_requests_total{route="simple",status="200"}'] == 5
    assert values['sparkbuild_requests_total{route="simple",status="404"}'] == 1
    assert values['sparkbuild_response_bytes_total{route="file"}'] > 8_000_000
    assert values['sparkbuild_request_seconds_count{route="simple"}'] == 6
    assert values['sparkbuild_request_seconds_bucket{route="simple",le="+Inf"}'] == 6
    assert values['sparkbuild_wheels{state="published"}'] == 2
    assert values["sparkbuild_projects"] == 2


def test_a_wheelhouse_that_cannot_be_written_is_served(root: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: it gives the server to another user")
    tmp_path.chmod(0o755)
    let_in(tmp_path)
    log = tmp_path / "nobody.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*NOBODY, str(COMMAND), "index", "serve", "--port", "0", "--wheelhouse", str(root)],
            stdout=subprocess.PIPE,
            stderr=stream,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        )
    assert process.stdout is not None
    with process.stdout:
        server = Server(url=process.stdout.readline().decode().strip(), process=process, log_file=log)
        try:
            for _ in range(2):
                assert server.ask("/simple/one/", Accept=JSON).status == 200
                assert len(server.ask(big(root)[0]).body) == big(root)[1]
            os.utime(root / "wheels" / "big" / "big-1.0-py3-none-any.whl")
            assert len(server.ask(big(root)[0]).body) == big(root)[1]
        finally:
            assert server.stop() == 0


NGINX = shutil.which("nginx") or "/usr/sbin/nginx"
PROXY = """
daemon off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
    uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    server {{
        listen unix:{folder}/socket;
        {location}
    }}
}}
"""


@pytest.mark.skipif(not Path(NGINX).exists(), reason="nginx is not installed here")
def test_behind_nginx_under_a_prefix_as_the_page_says(root: Path, tmp_path: Path) -> None:
    said = (Path(__file__).resolve().parent.parent / "docs" / "serving.md").read_text()
    location = said.partition("```nginx\n")[2].partition("```")[0]
    folder = tmp_path / "nginx"
    folder.mkdir()

    def ask(path: str) -> tuple[str, bytes]:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            client.connect(str(folder / "socket"))
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {JSON}\r\nConnection: close\r\n\r\n".encode())
            head, _blank, body = drained(client).partition(b"\r\n\r\n")
            return head.decode(), body

    def answers() -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(str(folder / "socket")) == 0

    with serving(root) as server:
        place = location.replace("127.0.0.1:8377", f"127.0.0.1:{server.port}")
        user = "user root;" if os.geteuid() == 0 else ""
        (folder / "nginx.conf").write_text(user + PROXY.format(folder=folder, location=place))
        nginx = subprocess.Popen([NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf")])
        try:
            while not answers():  # the file is there before anybody listens
                assert nginx.poll() is None
                time.sleep(0.01)
            for path in ("/wheels/simple/Big/", "/wheels/simple/big"):
                moved, _body = ask(path)
                assert re.search(r"\r\nLocation: (\.\./)?big/(\r\n|$)", moved)
            page = json.loads(ask("/wheels/simple/big/")[1])
            place = urljoin("/wheels/simple/big/", page["files"][0]["url"])
            assert place.startswith("/wheels/files/")
            head, body = ask(place)
            assert head.startswith("HTTP/1.1 200")
            assert hashlib.sha256(body).hexdigest() == page["files"][0]["hashes"]["sha256"]
        finally:
            nginx.terminate()
            nginx.wait()


@pytest.mark.slow
def test_many_clients_while_it_is_stopped_and_started(root: Path) -> None:
    """Rolling restarts: every request is answered whole or refused, never in halves."""
    wrong: list[str] = []
    done = threading.Event()
    server = started(root)
    port = server.port
    path, size = big(root)

    def look() -> None:
        while not done.is_set():
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
                    client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
                    got = drained(client)
            except OSError:
                time.sleep(0.01)
                continue
            if got and len(got.partition(b"\r\n\r\n")[2]) != size:
                wrong.append(f"{len(got)} of {size}")

    watchers = [threading.Thread(target=look) for _ in range(4)]
    for watcher in watchers:
        watcher.start()
    try:
        for _ in range(2):
            time.sleep(0.3)
            assert server.stop() == 0
            assert server.process.stdout is not None
            server.process.stdout.close()
            server = started(root, "--port", str(port))
    finally:
        done.set()
        for watcher in watchers:
            watcher.join()
        server.stop()
        assert server.process.stdout is not None
        server.process.stdout.close()
    assert wrong == []
