"""Public projects through our index: what is allowed and not ours comes from there, unchanged; what is ours never does."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests import wheelhouse_kit as kit
from tests.clients_kit import Client, installed
from tests.relay_kit import relayed
from tests.server_kit import HTML, JSON, serving, started
from tests.upstream_kit import Said, between
from tests.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.relay_kit import Relay
    from tests.server_kit import Server


def publish(world: World, *wheels: tuple[str, str], **more: Any) -> None:  # noqa: ANN401  # passed on
    with kit.opened(world.wheelhouse) as house:
        for name, version in wheels:
            kit.publish(house, [kit.wheel(world.root / "dl", name, version, **more)])


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """An index that anybody may put something into, and who counts what it is asked for."""
    world = World(tmp_path_factory.mktemp("public"))
    publish(world, ("pub", "1.0"), ("pub", "2.0"), ("acme", "99.0"), ("spark_kernels", "99.0"))
    with serving(world) as running, relayed(running.url) as relay:
        yield relay


@pytest.fixture
def ours(tmp_path: Path) -> World:
    """A wheelhouse with ``acme``, which wants ``pub``."""
    world = World(tmp_path / "ours")
    publish(world, ("acme", "1.0"), requires=["pub"])
    return world


def allow(world: World, url: str, *names: str, reserve: tuple[str, ...] = ()) -> None:
    words = f'[index]\npass-through = {json.dumps(names)}\npass-through-url = "{url.rstrip("/")}"\n'
    world.config.mkdir(parents=True, exist_ok=True)
    (world.config / "config.toml").write_text(f"{words}reserve = {json.dumps(reserve)}\n")


def page(server: Server, name: str, channel: str = "") -> dict[str, Any]:
    answer = server.ask(f"/{channel}simple/{name}/", Accept=JSON)
    assert answer.status == 200, answer
    found: dict[str, Any] = json.loads(answer.body)
    return found


def client(name: str, folder: Path) -> Client:
    return Client(name, Path(sys.executable).with_name("python" if name == "pip" else "uv"), folder / "home")


def versions(server: Server, name: str) -> list[str]:
    found: list[str] = page(server, name)["versions"]
    return found


@pytest.mark.parametrize("name", ["pip", "uv"])
def test_clients_with_this_one_index_install_ours_and_theirs(
    ours: World, public: Relay, tmp_path: Path, name: str
) -> None:
    allow(ours, public.url + "simple", "pub")
    with serving(ours) as server:
        who = client(name, tmp_path)
        if name == "pip":
            (tmp_path / "pip.conf").write_text(f"[global]\nindex-url = {server.url}simple/\n")
            done = who.run(
                "install", "--target", str(tmp_path / "in"), "acme", PIP_CONFIG_FILE=str(tmp_path / "pip.conf")
            )
        else:
            done = who.install(f"{server.url}simple/", tmp_path / "in", "acme")
        assert done.returncode == 0, done.stderr
        assert installed(tmp_path / "in") == {"acme": "1.0", "pub": "2.0"}


def test_what_is_ours_or_reserved_never_comes_from_there(ours: World, public: Relay, tmp_path: Path) -> None:
    allow(ours, public.url + "simple", "*", reserve=("spark-*",))
    publish(ours, ("gone", "1.0"))
    (row,) = ours.json("wheels", "list", "gone")["wheels"]
    ours.run("wheels", "rm", row["sha256"][:12], "--yes")
    public.clear()
    with serving(ours) as server:
        assert versions(server, "acme") == ["1.0"]
        assert page(server, "spark-kernels")["files"] == []
        assert page(server, "gone")["files"] == []
        assert public.seen == []
        ours.run("wheels", "quarantine", "acme-1.0-py3-none-any.whl", "--reason", "x")
        for who in (client("uv", tmp_path), client("pip", tmp_path)):
            done = who.install(f"{server.url}simple/", tmp_path / "in", "acme")
            assert done.returncode != 0
        assert page(server, "acme")["files"] == []
        assert public.seen == []
        assert versions(server, "pub") == ["1.0", "2.0"]
        publish(ours, ("pub", "0.1"))  # from now on it is ours
        assert versions(server, "pub") == ["0.1"]


def test_other_names_aren_t_asked_for(ours: World, public: Relay) -> None:
    allow(ours, public.url + "simple", "pub-*")
    public.clear()
    with serving(ours) as server:
        assert server.ask("/simple/pub/", Accept=JSON).status == 404
        assert server.ask("/simple/acme-other/", Accept=JSON).status == 404
        assert public.seen == []
        assert server.ask("/simple/pub-x/", Accept=JSON).status == 404
        assert [one.path for one in public.seen] == ["/simple/pub-x/"]


def test_its_pages_are_as_ours_with_urls_that_lead_there(ours: World, public: Relay) -> None:
    allow(ours, public.url + "simple", "pub")
    with serving(ours) as server:
        found = page(server, "pub")
        assert [one["filename"] for one in found["files"]] == ["pub-1.0-py3-none-any.whl", "pub-2.0-py3-none-any.whl"]
        for one in found["files"]:
            assert one["url"].startswith(f"{public.url}files/{one['hashes']['sha256']}/")
            assert one.keys() >= {"size", "upload-time", "requires-python", "core-metadata"}
        html = server.ask("/simple/pub/", Accept=HTML)
        links = re.findall(r'href="([^"#]+)#sha256=([0-9a-f]{64})"', html.text)
        assert links == [(one["url"], one["hashes"]["sha256"]) for one in found["files"]]
        assert html.headers["Content-Type"] == HTML
        assert page(server, "pub", "local/") == found
        answer = server.ask("/simple/pub/", Accept=JSON)
        own = server.ask("/simple/acme/", Accept=JSON)
        for header in ("Vary", "Cache-Control", "Content-Type", "X-Content-Type-Options"):
            assert answer.headers[header] == own.headers[header]
        again = server.ask("/simple/pub/", Accept=JSON, If_None_Match=answer.headers["ETag"])
        assert (again.status, again.headers["Content-Type"]) == (304, JSON)
        assert server.ask("/simple/pub/", Accept="image/png").status == 406
        assert server.ask("/simple/Pub/", Accept=JSON).status == 301


def test_many_ask_and_one_fetches(ours: World, public: Relay) -> None:
    allow(ours, public.url + "simple", "pub", "nothing")
    public.clear()
    with serving(ours) as server, ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(one_more, server.url, name) for name in ("pub", "nothing") for _ in range(16)]
        assert sorted(one.result() for one in asked) == [200] * 16 + [404] * 16
        assert sorted(one.path for one in public.seen) == ["/simple/nothing/", "/simple/pub/"]


def one_more(url: str, name: str) -> int:
    words = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", f"Accept: {JSON}", f"{url}simple/{name}/"]
    return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


FILE = {"filename": "pub-3.0-py3-none-any.whl", "url": "../x/pub.whl", "hashes": {"sha256": "a" * 64}}


def test_only_wheels_of_the_project_with_a_sha256_are_passed_on(ours: World, public: Relay) -> None:
    strange = [
        FILE,
        FILE | {"filename": "pub-3.0.tar.gz"},
        FILE | {"filename": "acme-3.0-py3-none-any.whl"},
        FILE | {"filename": "pub-3.1-py3-none-any.whl", "hashes": {"md5": "a" * 32}},
        FILE | {"filename": "pub-3.2-py3-none-any.whl", "hashes": {"sha256": "A"}},
        FILE | {"filename": "pub-3.3-py3-none-any.whl", "url": "javascript:alert(1)"},
        FILE | {"filename": "pub-3.4-py3-none-any.whl", "url": "https://me:secret@192.0.2.1/pub.whl"},
        FILE | {"filename": 'pub-3.5-py3-none-any.whl"><script>', "url": "x"},
        FILE | {"filename": "pub-3.6-py3-none-any.whl", "url": 'x"><b', "requires-python": '"><b>', "yanked": '"<i>'},
        "text",
    ]
    document = {"meta": {"api-version": "1.1", "tracks": ["x"]}, "name": "Pub", "files": strange, "versions": ["9"]}
    said = Said(200, {"Content-Type": JSON}, [json.dumps(document).encode()])
    with between(public.url, lambda _path, _said: said) as url:
        allow(ours, url + "/simple", "pub")
        with serving(ours) as server:
            found = page(server, "pub")
            assert found["versions"] == ["3.0", "3.6"]
            assert next(one["url"] for one in found["files"]) == f"{url}/simple/x/pub.whl"
            assert found["meta"] == {"api-version": "1.4"}
            html = server.ask("/simple/pub/", Accept=HTML).text
            assert "<script>" not in html
            assert not re.search(r"<[bi]>", html)


TROUBLE = {
    "html": (Said(200, {"Content-Type": "text/html"}, [b"<html>"]), "answers text/html where JSON is wanted"),
    "deep": (Said(200, {"Content-Type": JSON}, [b"[" * 100_000]), "nested too deep"),
    "new": (
        Said(200, {"Content-Type": JSON}, [b'{"meta": {"api-version": "2.0"}, "name": "new", "files": []}']),
        "on 2.0",
    ),
    "mixed": (
        Said(200, {"Content-Type": JSON}, [b'{"meta": {"api-version": "1.0"}, "name": "x", "files": []}']),
        "about x",
    ),
    "busy": (Said(503, {}, [b""]), "answers 503"),
    "endless": (Said(200, {"Content-Type": JSON}, repeat(b" " * (1 << 20)), length=-1), "more than 32 MiB"),
}


def test_trouble_there_is_told_and_isn_t_that_there_is_no_such_project(ours: World, public: Relay) -> None:
    with between(public.url, lambda path, _said: TROUBLE[path.split("/")[2]][0]) as url:
        allow(ours, url + "/simple", *TROUBLE)
        with serving(ours) as server:
            for name, (_said, why) in TROUBLE.items():
                answer = server.ask(f"/simple/{name}/", Accept=JSON)
                assert (answer.status, why in answer.text) == (502, True), answer
                assert why in server.log
            assert page(server, "acme")["versions"] == ["1.0"]


@pytest.mark.slow
def test_a_page_outlives_the_other_index(ours: World, tmp_path: Path) -> None:
    """Pages are good for half a second here, so that the test needn't wait for minutes."""
    other = World(tmp_path / "public")
    publish(other, ("pub", "1.0"))
    there = started(other.wheelhouse, env=other.env())
    code = (
        "import sys, time; from pathlib import Path; from builder.server import passthrough, run; "
        "from builder.server.settings import Settings; passthrough.GOOD_S = 0.5; "
        "run.serve(Settings(root=Path(sys.argv[1]), port=0, passthrough=('pub',), passthrough_url=sys.argv[2]), "
        "clock=time.time, announce=lambda url: print(url, flush=True))"
    )
    words = [sys.executable, "-c", code, str(ours.wheelhouse), f"{there.url}simple"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as running:
        try:
            assert running.stdout is not None
            url = running.stdout.readline().strip()
            assert one_more(url, "pub") == 200
            publish(other, ("pub", "2.0"))
            time.sleep(0.6)
            assert "pub-2.0" in body(url)
            there.kill()
            assert there.process.stdout is not None
            there.process.stdout.close()
            time.sleep(0.6)
            assert "pub-2.0" in body(url)
            running.send_signal(signal.SIGTERM)
            assert running.wait(30) == 0
        finally:
            running.kill()


def body(url: str) -> str:
    words = ["curl", "-sf", "-H", f"Accept: {JSON}", f"{url}simple/pub/"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout
