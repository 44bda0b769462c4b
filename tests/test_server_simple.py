"""The pages of clients over HTTP: their forms, their headers, what a change of the wheelhouse does to them."""

from __future__ import annotations

import gzip
import json
import threading
import time
from typing import TYPE_CHECKING, Any

import pypi_simple
import pytest
import requests

from builder.wheelhouse import channel
from builder.wheelhouse.reindex import reindex
from tests.server_kit import HTML, JSON, PIP_ACCEPT, UV_ACCEPT, serving
from tests.wheelhouse_kit import opened, publish, wheel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.server_kit import Server

RESERVE = '[index]\nreserve = ["triton", "flashinfer-*"]\n'


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simple")
    with opened(folder / "house") as house:
        stored = publish(house, [wheel(folder / "dist", "one", f"1.{minor}") for minor in range(6)])
        publish(house, [wheel(folder / "dist", "two_words", "2.0+sb1.cu130")], fingerprint="e" * 64)
        channel.promote(house, "team/stable", stored[:1])
        gone = publish(house, [wheel(folder / "dist", "gone")], fingerprint="d" * 64)
        house.remove(gone[0])
    (folder / "config.toml").write_text(RESERVE)
    return folder / "house"


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[Server]:
    with serving(root, env={"SPARK_BUILD_CONFIG": str(root.parent / "config.toml")}) as server:
        yield server


def page(server: Server, path: str) -> dict[str, Any]:
    answer = server.ask(path, Accept=JSON)
    assert answer.status == 200
    loaded: dict[str, Any] = json.loads(answer.body)
    return loaded


PAGES = ["/simple/", "/simple/one/", "/team/stable/simple/", "/team/stable/simple/one/", "/simple/gone/"]
TEXT = "text/html; charset=utf-8"


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize(
    ("accept", "content_type"),
    [(UV_ACCEPT, JSON), (PIP_ACCEPT, JSON), (HTML, HTML), ("text/html", TEXT), ("*/*", TEXT)],
)
def test_the_headers_of_a_page_and_of_its_304(server: Server, path: str, accept: str, content_type: str) -> None:
    for _ in range(2):  # the second is one that lies ready
        full = server.ask(path, Accept=accept)
        assert full.status == 200
        assert full.headers["Content-Type"] == content_type
        assert full.headers["Cache-Control"] == "no-cache"
        assert full.headers["Vary"] == "Accept, Accept-Encoding"
        assert int(full.headers["Content-Length"]) == len(full.body)
        assert "Content-Encoding" not in full.headers
        assert full.headers["ETag"].startswith('"')
        bare = server.ask(path, "HEAD", Accept=accept)
        assert (bare.status, bare.body) == (200, b"")
        assert {**bare.headers, "Date": ""} == {**full.headers, "Date": ""}
        for known in (full.headers["ETag"], f'"x", W/{full.headers["ETag"]}', "*"):
            for method in ("GET", "HEAD"):
                same = server.ask(path, method, Accept=accept, If_None_Match=known)
                assert (same.status, same.body) == (304, b"")
                assert "Content-Length" not in same.headers
                for name in ("Content-Type", "ETag", "Vary", "Cache-Control"):
                    assert same.headers[name] == full.headers[name]
        assert server.ask(path, Accept=accept, If_None_Match='"other"').status == 200


def test_gzip_is_another_form_with_a_tag_of_its_own(server: Server) -> None:
    plain = server.ask("/simple/one/", Accept=UV_ACCEPT)
    for _ in range(2):
        packed = server.ask("/simple/one/", Accept=UV_ACCEPT, Accept_Encoding="gzip, deflate, zstd")
        assert packed.headers["Content-Encoding"] == "gzip"
        assert gzip.decompress(packed.body) == plain.body
        assert len(packed.body) < len(plain.body)
        assert packed.headers["ETag"] != plain.headers["ETag"]
        for known in (packed, plain):
            same = server.ask(
                "/simple/one/", Accept=UV_ACCEPT, Accept_Encoding="gzip", If_None_Match=known.headers["ETag"]
            )
            assert same.status == 304
    assert "Content-Encoding" not in server.ask("/simple/one/", Accept_Encoding="gzip;q=0").headers


def test_a_format_in_the_address(server: Server) -> None:
    for _ in range(2):
        assert server.ask(f"/simple/one/?format={JSON}", Accept="text/html").headers["Content-Type"] == JSON
        assert (
            server.ask(f"/simple/one/?format={HTML.replace('+', '%2B')}", Accept=JSON).headers["Content-Type"] == HTML
        )
    assert server.ask("/simple/one/?format=x", Accept=JSON).status == 406
    assert server.ask("/simple/one/?other=x", Accept=JSON).status == 200


def test_what_nobody_can_send_is_406(server: Server) -> None:
    for accept in ("image/png", "application/vnd.pypi.simple.v2+json", "application/vnd.pypi.simple.v1+json;q=0"):
        answer = server.ask("/simple/one/", Accept=accept)
        assert answer.status == 406
        assert JSON in answer.text


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/simple/One/", "../one/"),
        ("/simple/TWO_words/", "../two-words/"),
        ("/simple/two.words", "two-words/"),
        ("/simple", "simple/"),
        ("/simple/one", "one/"),
        ("/simple/one?a=b", "one/?a=b"),
        ("/team/stable/simple/One/?x=1", "../one/?x=1"),
        ("/simple/Unknown-_.Name/", "../unknown-name/"),
    ],
)
def test_redirects_are_relative_and_lead_there_at_once(server: Server, path: str, place: str) -> None:
    for method in ("GET", "HEAD"):
        answer = server.ask(path, method, Accept=JSON)
        assert (answer.status, answer.headers["Location"]) == (301, place)
    followed = requests.get(server.url.rstrip("/") + path, headers={"Accept": JSON}, timeout=10)
    assert len(followed.history) == 1
    assert followed.status_code == (404 if "nknown" in path else 200)


def test_a_name_that_is_ours_is_never_404(server: Server) -> None:
    for name in ("gone", "triton", "flashinfer-python", "flashinfer-cubin", "one", "two-words"):
        for above in ("/simple/", "/team/stable/simple/", "/no-such-channel/simple/"):
            found = page(server, f"{above}{name}/")
            assert found["name"] == name
            if name in {"gone", "triton", "flashinfer-python"} or above.startswith("/no"):
                assert found["files"] == []
    for name in ("pip", "flashinfer", "tritons", "numpy"):
        for _ in range(2):
            answer = server.ask(f"/simple/{name}/", Accept=UV_ACCEPT)
            assert (answer.status, answer.text) == (404, f"there is no project {name} here\n")
            assert server.ask(f"/simple/{name}/", "HEAD").status == 404
    assert server.ask("/no-such-channel/simple/").status == 404


def test_errors_speak_as_they_are_asked(server: Server) -> None:
    problem = server.ask("/nothing", Accept="application/json")
    assert problem.headers["Content-Type"] == "application/problem+json"
    assert json.loads(problem.body)["status"] == 404
    text = server.ask("/nothing", Accept=UV_ACCEPT)
    assert text.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert text.headers["Cache-Control"] == "no-store"


def test_one_connection_serves_many(server: Server) -> None:
    with requests.Session() as session:
        for _ in range(20):
            assert session.get(f"{server.url}simple/one/", timeout=10).headers.get("Connection") is None
    old = server.raw(b"GET /simple/one/ HTTP/1.0\r\n\r\n")
    assert old.startswith(b"HTTP/1.0 200")
    assert server.raw(b"GET /simple/one/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").startswith(b"HTTP/1.1 200")


def test_an_independent_client_reads_all_of_it(server: Server, root: Path) -> None:
    for accept in (pypi_simple.ACCEPT_JSON_ONLY, pypi_simple.ACCEPT_HTML_ONLY):
        with pypi_simple.PyPISimple(f"{server.url}simple/", accept=accept) as client:
            assert client.get_index_page().repository_version == "1.4"
            assert set(client.get_index_page().projects) == {"one", "two-words"}
            found = client.get_project_page("Two_Words")
            package = found.packages[0]
            assert (package.filename, package.version) == ("two_words-2.0+sb1.cu130-py3-none-any.whl", "2.0+sb1.cu130")
            assert package.package_type == "wheel"
            assert client.get_package_metadata(package).startswith("Metadata-Version: 2.1\nName: two_words\n")
            target = root.parent / f"{time.monotonic_ns()}.whl"
            client.download_package(package, target)
            assert target.stat().st_size == (root / "wheels" / "two-words" / package.filename).stat().st_size
            assert [one.version for one in client.get_project_page("one").packages] == [f"1.{n}" for n in range(6)]
            with pytest.raises(pypi_simple.NoSuchProjectError):
                client.get_project_page("nobody")


# --- changes


@pytest.fixture
def changing(tmp_path: Path) -> Iterator[tuple[Path, Server]]:
    root = tmp_path / "house"
    with opened(root) as house:
        publish(house, [wheel(tmp_path / "dist", "one"), wheel(tmp_path / "dist", "two")])
    with serving(root) as server:
        yield root, server


def versions(server: Server, name: str) -> list[str]:
    return list(page(server, f"/simple/{name}/")["versions"])


def test_a_change_is_seen_at_once_and_only_where_it_is(changing: tuple[Path, Server]) -> None:
    root, server = changing
    tags = {name: server.ask(f"/simple/{name}/", Accept=JSON).headers["ETag"] for name in ("one", "two")}
    assert server.ask("/simple/three/", Accept=JSON).status == 404
    with opened(root) as house:
        publish(
            house,
            [wheel(root.parent / "dist", "one", "1.1"), wheel(root.parent / "dist", "three")],
            fingerprint="a" * 64,
        )
        time.sleep(0.05)
        assert versions(server, "one") == ["1.0", "1.1"]
        assert versions(server, "three") == ["1.0"]
        assert [one["name"] for one in page(server, "/simple/")["projects"]] == ["one", "three", "two"]
        assert server.ask("/simple/two/", Accept=JSON, If_None_Match=tags["two"]).status == 304
        assert server.ask("/simple/one/", Accept=JSON, If_None_Match=tags["one"]).status == 200
        house.remove(house.get("one-1.1-py3-none-any.whl"))
        time.sleep(0.05)
        assert server.ask("/simple/one/", Accept=JSON, If_None_Match=tags["one"]).status == 304
        channel.promote(house, "team", [house.get("two-1.0-py3-none-any.whl")])
        time.sleep(0.05)
        assert [one["name"] for one in page(server, "/team/simple/")["projects"]] == ["two"]


def test_a_reindex_swaps_the_catalogue_under_a_running_server(changing: tuple[Path, Server]) -> None:
    root, server = changing
    before = server.ask("/simple/one/", Accept=JSON)
    reindex(root, clock=time.time)
    after = server.ask("/simple/one/", Accept=JSON)
    assert after.headers["ETag"] == before.headers["ETag"]
    with opened(root) as house:
        publish(house, [wheel(root.parent / "dist", "one", "1.1")], fingerprint="a" * 64)
    time.sleep(0.05)
    assert versions(server, "one") == ["1.0", "1.1"]


def test_a_set_is_seen_whole_or_not_at_all(changing: tuple[Path, Server]) -> None:
    """Asked without end while sets of two come in: the second of a set never lacks where the first was seen."""
    root, server = changing
    seen: list[tuple[int, int]] = []
    done = threading.Event()

    def look() -> None:
        with requests.Session() as session:

            def count(name: str) -> int:
                asked = session.get(f"{server.url}simple/{name}/", headers={"Accept": JSON}, timeout=10)
                return len(asked.json()["versions"])

            while not done.is_set():
                seen.append((count("one"), count("two")))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        for number in range(1, 12):
            both = [wheel(root.parent / "dist", name, f"1.{number}") for name in ("one", "two")]
            with opened(root) as house:
                publish(house, both, fingerprint=f"{number:064x}")
    finally:
        done.set()
        watcher.join()
    assert all(first <= second for first, second in seen)
    assert len(set(seen)) > 1
    time.sleep(0.05)
    assert len(versions(server, "one")) == len(versions(server, "two")) == 12


def test_a_catalogue_that_cannot_be_read_is_told_and_mended(changing: tuple[Path, Server]) -> None:
    root, server = changing
    assert server.ask("/health").text == '{"status": "ok"}'
    kept = (root / "catalog.sqlite3").read_bytes()
    with opened(root) as house:
        house.catalogue.rows("PRAGMA wal_checkpoint(TRUNCATE)")
    kept = (root / "catalog.sqlite3").read_bytes()
    (root / "broken").write_bytes(b"no catalogue" * 1000)
    (root / "broken").replace(root / "catalog.sqlite3")
    for path in ("/health", "/simple/one/", "/simple/"):
        time.sleep(0.02)
        answer = server.ask(path, Accept=JSON)
        assert answer.status in {500, 503}
    assert server.ask("/health").status == 503
    assert "catalogue" in server.log
    for tail in ("-wal", "-shm"):
        (root / f"catalog.sqlite3{tail}").unlink(missing_ok=True)
    (root / "mended").write_bytes(kept)
    (root / "mended").replace(root / "catalog.sqlite3")
    time.sleep(0.05)
    assert versions(server, "one") == ["1.0"]
    assert server.ask("/health").status == 200
