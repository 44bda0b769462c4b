"""The export behind a real nginx, with the configuration that lies in it: what clients ask for, and clients themselves."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin

import pytest

from builder import index
from builder.wheelhouse import channel
from tests.index_kit import Client
from tests.server_kit import serving
from tests.wheel_kit import open_house, publish, set_state

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from builder.stages import Stored

NGINX = shutil.which("nginx") or "/usr/sbin/nginx"
pytestmark = pytest.mark.skipif(not Path(NGINX).exists(), reason="nginx is not installed here")

JSON, HTML = "application/vnd.pypi.simple.v1+json", "application/vnd.pypi.simple.v1+html"
UV_ACCEPT = f"{JSON}, {HTML};q=0.2, text/html;q=0.01"
IMMUTABLE, CHECKED = "max-age=365000000, immutable", "no-cache"
OLD, NEW = "sb20261123101112.gffffffffff", "sb20261124101112.g0000000000"

MAIN = """
daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1;
events {{ worker_connections 64; }}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
    uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    include {folder}/site.conf;
}}
"""


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Site:
    """nginx over an export, with three wheels: `tiny` in two builds, `base` also in channel team/stable."""

    port: int
    dest: Path
    house: Path
    log: Path
    old: Stored
    new: Stored
    base: Stored

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        with contextlib.closing(connection):
            connection.request(method, path, headers={key.replace("_", "-"): value for key, value in headers.items()})
            found = connection.getresponse()
            return Answer(found.status, {key.lower(): value for key, value in found.getheaders()}, found.read())

    def requests(self) -> list[str]:
        return [line.split('"')[1].rpartition(" ")[0] for line in self.log.read_text().splitlines()]


@contextlib.contextmanager
def running(folder: Path, dest: Path) -> Iterator[tuple[int, Path]]:
    folder.mkdir(mode=0o755)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "site.conf").write_text(
        (dest / "nginx.conf").read_text().replace("listen 80;", f"listen 127.0.0.1:{port};")
    )
    user = "user root;" if os.geteuid() == 0 else ""  # a test's folder is its owner's only
    (folder / "nginx.conf").write_text(user + MAIN.format(folder=folder))
    process = subprocess.Popen([NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf")], stderr=subprocess.PIPE)
    try:
        for _ in range(200):
            assert process.poll() is None, process.communicate()[1].decode()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.02)
        yield port, folder / "access.log"
    finally:
        process.terminate()
        process.communicate()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    root = tmp_path_factory.mktemp("nginx")
    with open_house(root / "wheelhouse") as house:
        base = publish(house, root, "base", version="1.5", files={f"base/{n}.py": b"x = 1\n" for n in range(40)})
        needs = {"headers": ["Requires-Dist: base>=1"], "files": {"tiny.bin": os.urandom(2 << 20)}}
        old, new = (publish(house, root, label=label, **needs) for label in (OLD, NEW))  # type: ignore[arg-type]
        publish(house, root, "cuda", version="2.0+cu130")
        set_state(house, publish(house, root, "held"), "quarantined")
        channel.promote(house, "team/stable", [base])
        reserve = ["triton", "flashinfer-*"]
        pages = [("index.html", b"<p>people"), ("404.html", b"<p>nothing")]
        dest = index.export(house, root / "dest", channel=None, reserve=reserve, more=lambda: pages).path
    with running(root / "nginx", dest) as (port, log):
        yield Site(port=port, dest=dest, house=root / "wheelhouse", log=log, old=old, new=new, base=base)


def file_path(wheel: Stored) -> str:
    return f"/files/{wheel.sha256}/{wheel.filename.replace('+', '%2B')}"


# --- pages


@pytest.mark.parametrize(
    ("accept", "kind", "name"),
    [
        (UV_ACCEPT, JSON, "index.v1_json"),
        (JSON, JSON, "index.v1_json"),
        ("application/vnd.pypi.simple.latest+json", JSON, "index.v1_json"),
        ("Application/VND.PyPI.simple.v1+JSON", JSON, "index.v1_json"),
        (HTML, HTML, "index.html"),
        ("text/html", "text/html; charset=utf-8", "index.html"),
        ("*/*", "text/html; charset=utf-8", "index.html"),
        ("", "text/html; charset=utf-8", "index.html"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/html; charset=utf-8", "index.html"),
    ],
)
@pytest.mark.parametrize("path", ["/simple/", "/simple/tiny/", "/team/stable/simple/base/", "/local/simple/tiny/"])
def test_the_form_that_is_asked_for_is_sent(site: Site, path: str, accept: str, kind: str, name: str) -> None:
    found = site.ask(path, Accept=accept)
    assert (found.status, found.headers["content-type"]) == (200, kind)
    assert found.body == (site.dest / path.strip("/") / name).read_bytes()
    assert found.headers["vary"] == "Accept, Accept-Encoding"
    assert found.headers["cache-control"] == CHECKED
    assert found.headers["etag"].startswith('"')
    packed = site.ask(path, Accept=accept, Accept_Encoding="gzip, deflate")
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.headers["content-type"] == kind
    assert gzip.decompress(packed.body) == found.body
    assert packed.headers["etag"] != found.headers["etag"]


@pytest.mark.parametrize("path", ["/simple/", "/simple/tiny/", "/files/x", "/team/stable/simple/base/"])
def test_head_has_no_body(site: Site, path: str) -> None:
    path = file_path(site.new) if path == "/files/x" else path
    got, head = site.ask(path, Accept=UV_ACCEPT), site.ask(path, "HEAD", Accept=UV_ACCEPT)
    assert head.body == b""
    same = ("content-type", "content-length", "etag", "cache-control")
    assert [head.headers[key] for key in same] == [got.headers[key] for key in same]


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_what_a_client_has_is_not_sent_again(site: Site, encoding: str) -> None:
    first = site.ask("/simple/tiny/", Accept=UV_ACCEPT, Accept_Encoding=encoding)
    again = site.ask("/simple/tiny/", Accept=UV_ACCEPT, Accept_Encoding=encoding, If_None_Match=first.headers["etag"])
    assert (again.status, again.body) == (304, b"")
    assert again.headers.get("content-type") in {None, JSON}  # pip takes that of a 304 for the page's own
    assert again.headers["vary"] == "Accept, Accept-Encoding"
    assert again.headers["cache-control"] == CHECKED


def test_what_is_wanted_in_no_form_that_there_is(site: Site) -> None:
    assert site.ask("/simple/tiny/", Accept="image/png").status == 406
    assert site.ask("/simple/tiny/", Accept="application/vnd.pypi.simple.v9+json").status == 406


@pytest.mark.parametrize("path", ["/simple", "/simple/tiny", "/team/stable/simple/base"])
def test_the_slash_is_added_and_the_query_kept(site: Site, path: str) -> None:
    found = site.ask(f"{path}?x=1&y=%20")
    assert (found.status, found.headers["location"]) == (301, f"{path}/?x=1&y=%20")
    assert site.ask(f"//evil.invalid{path}").headers.get("location", "/").startswith("/")


def test_names_of_ours_are_never_unknown(site: Site) -> None:
    for path in (
        "/simple/held/",
        "/simple/triton/",
        "/team/stable/simple/tiny/",
        "/team/stable/simple/triton/",
        "/gone/simple/tiny/",
    ):
        found = site.ask(path, Accept=UV_ACCEPT)
        assert (found.status, b'"files":[]' in found.body) == (200, True), path


@pytest.mark.parametrize("accept", [JSON, HTML, "text/html"])
def test_a_pattern_of_reserved_names_answers_as_a_page_would(site: Site, accept: str) -> None:
    found = site.ask("/simple/flashinfer-cubin/", Accept=accept)
    assert found.status == 200
    assert found.headers["content-type"].partition(";")[0] == accept
    assert b"flashinfer-cubin" in found.body
    assert b"<a " not in found.body
    if accept == JSON:
        assert found.body == b'{"meta":{"api-version":"1.4"},"name":"flashinfer-cubin","versions":[],"files":[]}\n'
    assert found.headers["cache-control"] == CHECKED


@pytest.mark.parametrize("name", ["a b", 'quo"te', "back\\slash", "$uri", "${x}y", "{a};", "it's", "ü"])
def test_the_folder_may_be_called_as_it_likes(tmp_path: Path, name: str) -> None:
    with open_house(tmp_path / "house") as house:
        publish(house, tmp_path)
        dest = index.export(house, tmp_path / name).path
    with running(tmp_path / "nginx", dest) as (port, _):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        with contextlib.closing(connection):
            connection.request("GET", "/simple/tiny/", headers={"Accept": JSON})
            found = connection.getresponse()
            assert (found.status, found.read()) == (200, (dest / "simple/tiny/index.v1_json").read_bytes())


def test_all_else_is_unknown(site: Site) -> None:
    for path in (
        *("/simple/pip/", "/simple/tiny/x", "/files/", "/files/x", f"/files/{'0' * 64}/", "/none/simple/pip/"),
        *("/.spark-build-index", "/nginx.conf", "/simple/../.spark-build-index", "/files/%2e%2e/nginx.conf"),
        *("/simple/index.v1_html", "/simple/tiny/index.v1_html"),
    ):
        assert site.ask(path, Accept=UV_ACCEPT).status in {400, 404}, path
    assert site.ask("/simple/tiny/", "POST", Accept=UV_ACCEPT).status == 405


def test_pages_for_people_are_checked_each_time(site: Site) -> None:
    found = site.ask("/")
    assert (found.body, found.headers["cache-control"]) == (b"<p>people", CHECKED)
    assert site.ask("/nowhere").body == b"<p>nothing"


# --- files


def test_wheels_are_sent_once_and_in_parts(site: Site) -> None:
    path, data = file_path(site.new), site.new.path.read_bytes()
    whole = site.ask(path, Accept_Encoding="gzip")
    assert (whole.status, whole.body) == (200, data)
    assert whole.headers["content-type"] == "application/octet-stream"
    assert whole.headers["cache-control"] == IMMUTABLE
    assert whole.headers["accept-ranges"] == "bytes"
    assert "content-encoding" not in whole.headers
    part = site.ask(path, Range="bytes=100-199")
    assert (part.status, part.body) == (206, data[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{len(data)}"
    assert site.ask(path, Range="bytes=-50").body == data[-50:]
    assert site.ask(path, Range=f"bytes={len(data)}-").status == 416
    tag = whole.headers["etag"]
    assert site.ask(path, Range="bytes=5-", If_Range=tag).status == 206
    assert site.ask(path, Range="bytes=5-", If_Range='"another"').status == 200
    assert site.ask(path, If_None_Match=tag).status == 304


def test_what_lies_beside_a_wheel_has_its_own_type(site: Site) -> None:
    path = file_path(site.new)
    metadata = site.ask(f"{path}.metadata")
    assert metadata.body.startswith(b"Metadata-Version")
    assert metadata.headers["content-type"] == "text/plain; charset=utf-8"
    assert metadata.headers["cache-control"] == IMMUTABLE
    record = site.ask(f"{path}.provenance.json")
    assert (record.status, record.headers["content-type"]) == (200, "application/json")
    assert record.headers["cache-control"] == CHECKED  # it may be signed later
    assert site.ask(f"{path}.provenance.json.sig").status == 404


def test_a_build_that_was_replaced_is_still_there_for_locks(site: Site) -> None:
    assert site.ask(file_path(site.old)).status == 200
    assert site.old.filename.encode() not in site.ask("/simple/tiny/", Accept="text/html").body


# --- the server


def test_it_answers_as_our_own_server_does(site: Site, tmp_path: Path) -> None:
    """Status, body and the headers that clients go by, for pages and files, whatever is asked for."""
    (tmp_path / "config.toml").write_text('[index]\nreserve = ["triton", "flashinfer-*"]\n')
    tiny = file_path(site.new)
    pages = ["", "simple/", "team/stable/simple/", "local/simple/"]
    paths = [
        f"/{page}{name}" for page in pages[1:] for name in ("", "tiny/", "held/", "triton/", "pip/", "flashinfer-x/")
    ]
    paths += ["/simple/tiny", "/simple", f"{tiny}", f"{tiny}.metadata", f"{tiny}.provenance.json", f"{tiny}.asc"]
    paths += [
        "/simple/tiny/?a=b",
        "/simple/tiny?a=b",
        "/files/x",
        "/team/none/simple/tiny/",
        "/simple/%2e%2e/nginx.conf",
    ]
    pages_have, files_have = (
        ("content-type", "cache-control", "vary"),
        ("content-type", "cache-control", "content-range"),
    )
    with serving(site.house, env={"SPARK_BUILD_CONFIG": str(tmp_path / "config.toml")}) as server:
        for path in paths:
            for accept in (UV_ACCEPT, HTML, "text/html", "image/png"):
                if path.startswith("/files/") and accept != UV_ACCEPT:
                    continue
                here = site.ask(path, Accept=accept, Range="bytes=3-9" if path == tiny else "")
                there = server.ask(path, Accept=accept, Range="bytes=3-9" if path == tiny else "")
                if accept == "image/png" and there.status == 404:  # nginx finds fault with that first
                    continue
                assert here.status == there.status, (path, accept)
                theirs = {key.lower(): value for key, value in there.headers.items()}
                if here.status == 301:
                    assert urljoin(path, here.headers["location"]) == urljoin(path, theirs["location"])
                elif here.status < 400:  # words for mistakes are each one's own
                    kept = files_have if path.startswith("/files/") else pages_have
                    assert {key: here.headers.get(key) for key in kept} == {key: theirs.get(key) for key in kept}, path
                    assert here.body == there.body, path


# --- clients


@pytest.fixture(params=["pip", "uv"])
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Client:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True, capture_output=True)
    (tmp_path / "cache").mkdir()
    return Client(name=request.param, pip_python=Path(sys.executable), venv=venv, cache=tmp_path / "cache")


def test_clients_install_by_json_and_metadata(site: Site, client: Client) -> None:
    before = len(site.requests())
    done = client.install(f"{site.url}simple/", "tiny==1.0", "cuda")
    assert done.returncode == 0, done.stderr
    assert client.version("tiny") == f"1.0+{NEW}"
    assert client.version("base") == site.base.version
    asked = site.requests()[before:]
    assert f"GET {file_path(site.new)}.metadata" in [line.replace("+", "%2B") for line in asked]
    assert len([line for line in asked if line.endswith(".whl")]) == 3  # each wheel once, none to look into


def test_clients_install_from_a_channel(site: Site, client: Client) -> None:
    url = f"{site.url}team/stable/simple/"
    assert client.install(url, "base").returncode == 0
    assert client.install(url, "tiny").returncode != 0
    assert client.version("base") == site.base.version


def test_a_lock_of_a_replaced_build_still_installs(site: Site, client: Client) -> None:
    wheel = f"tiny @ {site.url.rstrip('/')}{file_path(site.old)}#sha256={site.old.sha256}"
    done = client.install(f"{site.url}simple/", wheel)
    assert done.returncode == 0, done.stderr
    assert client.version("tiny") == site.old.version
