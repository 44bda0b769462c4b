"""pip and uv, today's and a year old, against the real server: every way to install, and every trap that clients fall into.

All of it runs over one wheelhouse and one server; between it and the clients is a relay that writes down what was asked:
what a client did is seen and not believed. Each test has a row in `TRAPS`: what it keeps from coming back.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import pytest

from builder.wheelhouse import channel, states
from tests import clients_kit, wheel_kit, wheelhouse_kit
from tests.clients_kit import installed
from tests.relay_kit import relayed
from tests.server_kit import HTML, JSON, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from builder.wheelhouse import Wheelhouse
    from tests.clients_kit import Client
    from tests.relay_kit import Relay, Seen
    from tests.server_kit import Server

pytestmark = pytest.mark.network  # the clients of a year ago come from an index

LABEL = wheel_kit.LABEL
#: Bytes of the wheel that is cut: large enough for three parts, small enough for a test.
LARGE = 3_000_000

#: What each test keeps from coming back.
TRAPS = {
    "test_json_page_installs_with_its_dependency": "PEP 691: JSON is asked for first, by both, in one Accept header",
    "test_html_page_installs_with_its_dependency": "PEP 503: a client that knows HTML only; Content-Type is enforced",
    "test_url_without_a_slash": "an index URL as people type it; redirects to the slash, to the normalised name",
    "test_api_version_is_one_that_clients_know": "PEP 629: a client has to stop at another major version",
    "test_channel_is_an_index_of_its_own": "one index a variant, over the same files: relative links, nothing else listed",
    "test_metadata_beside_the_wheel_is_all_that_is_read": "without it pip and uv read whole wheels to resolve",
    "test_every_sidecar_that_is_named_is_there": "core-metadata that is named and missing, or has another hash, is fatal",
    "test_changed_sidecar_is_refused": "a wrong hash of a sidecar is an error in both, and there is no fallback",
    "test_lazy_range": "no sidecar used: HEAD and a range of the end, instead of the whole wheel",
    "test_head_has_no_body": "a body after HEAD breaks uv on a connection that is kept",
    "test_yanked_is_skipped_and_pinned_is_told_why": "PEP 592: skipped, but a pin gets it, with the reason",
    "test_quarantined_is_on_no_page": "no installer looks at PEP 792's status: the server has to drop the files itself",
    "test_requires_python_is_seen_on_the_page": "data-requires-python, escaped: nothing of that version is fetched",
    "test_local_version_wins_over_the_plain_one": "+ in file names and URLs; ==0.33.0 takes the labelled build",
    "test_changed_wheel_is_refused": "a hash that doesn't fit is refused by every client",
    "test_only_sha256_is_given": "uv locks the longest hash that any mirror lists",
    "test_upload_time_holds_back_what_is_newer": "PEP 700: upload-time decides what --exclude-newer sees",
    "test_size_is_that_of_the_file": "PEP 700: size is mandatory, and a lock with another one is refused",
    "test_304_keeps_the_content_type": "pip merges the headers of a 304: another Content-Type and it skips the page",
    "test_pip_caches_pages_only_from_hosts_it_trusts": "over plain http pip keeps nothing, unless the host is trusted",
    "test_immutable_files_are_not_asked_for_twice": "sidecars without immutable are fetched again at each resolve",
    "test_new_wheel_is_seen_by_a_warm_cache": "max-age on pages hides a fresh build for as long",
    "test_connections_are_kept": "a connection a request costs more than the answer",
    "test_pip_asks_for_itself": "pip's self-check asks /simple/pip/ at each run: a quick 404, and it goes on",
    "test_half_written_wheel_is_not_offered": "directory servers offer what is half there, and stop on what doesn't parse",
    "test_wheels_are_never_compressed": "a wheel with Content-Encoding has other bytes than its hash says",
    "test_pip_goes_on_where_it_was_cut": "Range with If-Range and a strong ETag: no byte is sent twice",
    "test_uv_starts_again_and_ends_right": "uv starts at zero each time; the server can only be there",
    "test_changed_file_is_never_spliced": "a resume after a change would join halves of two files",
    "test_file_that_was_changed_on_the_disk_is_not_served": "bytes that aren't those that were published",
}


def test_every_trap_has_a_test_and_every_test_a_trap() -> None:
    here = {
        name
        for name in globals()
        if name.startswith("test_") and name != "test_every_trap_has_a_test_and_every_test_a_trap"
    }
    assert here == set(TRAPS)


# --- one wheelhouse, one server, one relay


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clients")


@pytest.fixture(scope="module")
def house(place: Path) -> Iterator[Wheelhouse]:
    with wheel_kit.open_house(place / "house") as house:
        for name, version, more in (
            ("base", "1.5", {}),
            ("needy", "1.0", {"requires": ["base>=1"], "size": 400_000}),
            ("large", "1.0", {"size": LARGE}),
            ("doomed", "1.0", {"size": LARGE}),
            ("yanky", "1.0", {}),
            ("yanky", "2.0", {}),
            ("withheld", "1.0", {}),
            ("withheld", "2.0", {}),
            ("localish", "0.33.0", {}),
            ("localish", f"0.33.0+{LABEL}.cu130", {}),
            ("localish", "0.33.1.dev5", {}),
        ):
            filed(house, place, name, version, **more)
        wheel_kit.publish(house, place, "modern", "1.0", headers=["Requires-Python: >=3.9"])
        wheel_kit.publish(house, place, "modern", "3.0", headers=["Requires-Python: <5,>=4.0"])
        states.set(house, [house.get("yanky-2.0-py3-none-any.whl")], "yanked", "crashes on start")
        states.set(house, [house.get("withheld-2.0-py3-none-any.whl")], "quarantined", "not ours")
        half = house.root / "wheels" / "base" / "base-9.0-py3-none-any.whl"
        half.write_bytes(house.get("base-1.5-py3-none-any.whl").path.read_bytes()[:300])
        yield house


@pytest.fixture(scope="module")
def server(house: Wheelhouse) -> Iterator[Server]:
    with serving(house.root) as server:
        yield server


@pytest.fixture(scope="module")
def standing(server: Server) -> Iterator[Relay]:
    with relayed(f"{server.url}simple/") as relay:
        yield relay


@pytest.fixture
def relay(standing: Relay) -> Iterator[Relay]:
    """The relay with nothing seen yet; at the end nothing was wrong with any message."""
    standing.clear()
    yield standing
    assert standing.faults == []


@pytest.fixture
def named(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Callable[..., Client]:
    """Clients by name, each with a home of its own."""
    return lambda name, **more: clients_kit.client(name, tmp_path / "home", tmp_path_factory, **more)


@pytest.fixture
def client(request: pytest.FixtureRequest, named: Callable[..., Client]) -> Client:
    return named(request.param)


def clients(*names: str, slow: tuple[str, ...] = ("pip-old",)) -> pytest.MarkDecorator:
    """Run a test with each of the clients; those that take long only by --slow."""
    marks = {name: [pytest.mark.slow] if name in slow else [] for name in names}
    return pytest.mark.parametrize("client", [pytest.param(name, marks=marks[name]) for name in names], indirect=True)


every = clients("pip", "uv", "pip-old", "uv-old")
every_now = clients("pip", "uv", "pip-old", "uv-old", slow=())


def filed(house: Wheelhouse, place: Path, name: str, version: str, **more: Any) -> Path:  # noqa: ANN401  # passed on
    """Publish a wheel; return its file in the wheelhouse."""
    made = wheelhouse_kit.wheel(place / "made", name, version, **more)
    (stored,) = wheelhouse_kit.publish(house, [made], fingerprint=made.sha256, recipe=name)
    return stored.path


def without_metadata(seen: Seen, body: bytes) -> bytes | None:
    """Take from pages that there are sidecars, as indexes without them are."""
    if not seen.is_page:
        return None
    page = json.loads(body)
    for file in page.get("files", ()):
        file.pop("core-metadata", None)
        file.pop("dist-info-metadata", None)
    return json.dumps(page).encode()


# --- ways to install


@every_now
def test_json_page_installs_with_its_dependency(client: Client, relay: Relay, tmp_path: Path) -> None:
    done = client.install(relay.url, tmp_path / "t", "needy")
    assert done.returncode == 0, done.stderr
    assert installed(tmp_path / "t") == {"needy": "1.0", "base": "1.5"}
    assert {one.answer["content-type"] for one in relay.pages()} == {JSON}
    assert {one.status for one in relay.seen} == {200}


@every
def test_html_page_installs_with_its_dependency(client: Client, relay: Relay, tmp_path: Path) -> None:
    relay.ask = lambda seen: seen.headers.update(accept="text/html") if seen.is_page else None
    done = client.install(relay.url, tmp_path / "t", "needy")
    assert done.returncode == 0, done.stderr
    assert installed(tmp_path / "t") == {"needy": "1.0", "base": "1.5"}
    assert {one.answer["content-type"].partition(";")[0] for one in relay.pages()} == {"text/html"}
    assert len(relay.metadata()) == 2


@clients("pip", "uv", "uv-old")
def test_url_without_a_slash(client: Client, relay: Relay, server: Server, tmp_path: Path) -> None:
    assert client.install(relay.url.rstrip("/"), tmp_path / "t", "BASE").returncode == 0
    assert installed(tmp_path / "t") == {"base": "1.5"}
    for asked, wanted in (
        ("/simple", "/simple/"),
        ("/simple/base?a=b", "/simple/base/?a=b"),
        ("/simple/Base/", "/simple/base/"),
    ):
        answer = server.ask(asked)
        assert answer.status == 301
        assert urljoin(asked, answer.headers["Location"]) == wanted


def test_api_version_is_one_that_clients_know(server: Server) -> None:
    for path in ("/simple/", "/simple/base/"):
        assert json.loads(server.ask(path, Accept=JSON).body)["meta"]["api-version"] == "1.4"
        assert '<meta name="pypi:repository-version" content="1.4">' in server.ask(path, Accept=HTML).text


@clients("pip", "uv", "pip-old", "uv-old")
def test_channel_is_an_index_of_its_own(client: Client, relay: Relay, house: Wheelhouse, tmp_path: Path) -> None:
    names = ("base-1.5-py3-none-any.whl", "needy-1.0-py3-none-any.whl")
    channel.promote(house, "team/stable", [house.get(name) for name in names])
    url = relay.url.replace("/simple/", "/team/stable/simple/")
    done = client.install(url, tmp_path / "t", "needy")
    assert done.returncode == 0, done.stderr
    assert installed(tmp_path / "t") == {"needy": "1.0", "base": "1.5"}
    if not client.is_pip:
        assert client.install(url, tmp_path / "other", "large").returncode != 0


@every
def test_metadata_beside_the_wheel_is_all_that_is_read(client: Client, relay: Relay) -> None:
    if client.is_pip:  # pip reads wheels after it has resolved; an impossible wish is resolved and no more
        done = client.look(relay.url, "needy", "base<1")
        assert done.returncode != 0
    else:
        done = client.look(relay.url, "needy")
        assert done.returncode == 0, done.stderr
        assert "base==1.5" in done.stdout
    assert "needy-1.0-py3-none-any.whl.metadata" in {one.path.rpartition("/")[2] for one in relay.metadata()}
    assert relay.wheels() == []
    assert sum(one.sent for one in relay.seen) < 20_000


def test_every_sidecar_that_is_named_is_there(server: Server) -> None:
    names = [entry["name"] for entry in json.loads(server.ask("/simple/", Accept=JSON).body)["projects"]]
    assert {"base", "needy", "localish", "modern"} <= set(names)
    for name in names:
        for file in json.loads(server.ask(f"/simple/{name}/", Accept=JSON).body)["files"]:
            path = "/" + file["url"].replace("../", "")
            answer = server.ask(f"{path}.metadata")
            assert answer.status == 200
            assert hashlib.sha256(answer.body).hexdigest() == file["core-metadata"]["sha256"]
            assert hashlib.sha256(server.ask(path).body).hexdigest() == file["hashes"]["sha256"]


@clients("pip", "uv", "pip-old")  # uv of a year ago doesn't look at the hash of METADATA
def test_changed_sidecar_is_refused(client: Client, relay: Relay, tmp_path: Path) -> None:
    relay.alter = lambda seen, body: body + b"Requires-Dist: localish\n" if seen.is_metadata else None
    assert client.install(relay.url, tmp_path / "t", "base").returncode != 0
    assert installed(tmp_path / "t") == {}


@every
def test_lazy_range(client: Client, relay: Relay) -> None:
    relay.alter = without_metadata
    fast = ["--use-feature=fast-deps"] if client.is_pip else []
    done = client.look(relay.url, "needy", *fast, *(["base<1"] if client.is_pip else []))
    assert (done.returncode == 0) == (not client.is_pip), done.stderr
    assert relay.metadata() == []
    assert {one.status for one in relay.wheels("HEAD")} == {200}
    ranges = [one for one in relay.wheels() if one.path.endswith("needy-1.0-py3-none-any.whl")]
    assert {one.status for one in ranges} == {206}
    assert sum(one.sent for one in ranges) < 100_000


def test_head_has_no_body(server: Server, relay: Relay) -> None:
    page = json.loads(server.ask("/simple/base/", Accept=JSON).body)
    path = "/" + page["files"][0]["url"].replace("../", "")
    for asked in (
        "/simple/",
        "/simple/base/",
        path,
        f"{path}.metadata",
        f"{path}.provenance.json",
        "/simple/pip/",
        "/nowhere",
    ):
        whole = server.ask(asked, Accept=JSON)
        raw = server.raw(f"HEAD {asked} HTTP/1.1\r\nHost: x\r\nAccept: {JSON}\r\nConnection: close\r\n\r\n".encode())
        head, _blank, body = raw.partition(b"\r\n\r\n")
        assert body == b""
        assert f" {whole.status} ".encode() in head.splitlines()[0]
        assert f"content-length: {len(whole.body)}" in head.decode().lower()
    assert relay.faults == []


# --- what is offered


@every
def test_yanked_is_skipped_and_pinned_is_told_why(client: Client, relay: Relay, tmp_path: Path) -> None:
    assert client.install(relay.url, tmp_path / "t", "yanky").returncode == 0
    assert installed(tmp_path / "t") == {"yanky": "1.0"}
    done = client.install(relay.url, tmp_path / "pinned", "yanky==2.0")
    assert done.returncode == 0
    assert installed(tmp_path / "pinned") == {"yanky": "2.0"}
    assert "crashes on start" in done.stdout + done.stderr


@clients("pip", "uv")
def test_quarantined_is_on_no_page(
    client: Client, relay: Relay, server: Server, house: Wheelhouse, tmp_path: Path
) -> None:
    assert client.install(relay.url, tmp_path / "t", "withheld").returncode == 0
    assert installed(tmp_path / "t") == {"withheld": "1.0"}
    assert client.install(relay.url, tmp_path / "pinned", "withheld==2.0").returncode != 0
    wheel = house.get("withheld-2.0-py3-none-any.whl")
    answer = server.ask(f"/files/{wheel.sha256}/{wheel.filename}")
    assert answer.status == 403
    assert b"not ours" in answer.body


@every
def test_requires_python_is_seen_on_the_page(client: Client, relay: Relay, tmp_path: Path) -> None:
    relay.ask = lambda seen: seen.headers.update(accept="text/html") if seen.is_page else None
    assert client.install(relay.url, tmp_path / "t", "modern").returncode == 0
    assert installed(tmp_path / "t")["modern"].startswith("1.0+")
    assert [one.path for one in relay.seen if "modern-3.0" in one.path] == []


@clients("pip", "uv", "pip-old", "uv-old", slow=("pip", "pip-old"))
def test_local_version_wins_over_the_plain_one(client: Client, relay: Relay, tmp_path: Path) -> None:
    for number, (asked, wanted) in enumerate(
        (
            ("localish==0.33.0", f"0.33.0+{LABEL}.cu130"),
            ("localish===0.33.0", "0.33.0"),
            ("localish", f"0.33.0+{LABEL}.cu130"),
        )
    ):
        if number == 2 and client.is_pip:
            break  # said already, and pip takes long
        done = client.install(relay.url, tmp_path / str(number), asked)
        assert done.returncode == 0, done.stderr
        assert installed(tmp_path / str(number)) == {"localish": wanted}


# --- hashes, sizes, times


@every
def test_changed_wheel_is_refused(client: Client, relay: Relay, house: Wheelhouse, tmp_path: Path) -> None:
    """A wheel that is fine by itself, under the name of ours. uv of a year ago looks at hashes only where it is told to."""
    evil = wheelhouse_kit.make_wheel(tmp_path / "evil", "base", "1.5", text=b"VALUE = 2\n").read_bytes()
    relay.alter = lambda seen, _body: evil if seen.is_wheel else None
    words = ["base"]
    if client.name == "uv-old":
        pinned = tmp_path / "requirements.txt"
        pinned.write_text(f"base==1.5 --hash=sha256:{house.get('base-1.5-py3-none-any.whl').sha256}\n")
        words = ["--require-hashes", "--requirements", str(pinned)]
    done = client.install(relay.url, tmp_path / "t", *words)
    assert done.returncode != 0
    assert "hash" in done.stderr.lower()
    assert installed(tmp_path / "t") == {}


@clients("uv", "uv-old")
def test_only_sha256_is_given(client: Client, relay: Relay) -> None:
    done = client.look(relay.url, "needy", "--generate-hashes")
    assert done.returncode == 0, done.stderr
    assert set(re.findall(r"--hash=(\w+):", done.stdout)) == {"sha256"}


@clients("pip", "uv", "uv-old", slow=("pip",))
def test_upload_time_holds_back_what_is_newer(client: Client, relay: Relay) -> None:
    option = "--uploaded-prior-to" if client.is_pip else "--exclude-newer"
    assert client.look(relay.url, "base", f"{option}=2020-01-01T00:00:00Z").returncode != 0
    done = client.look(relay.url, "base", f"{option}=2100-01-01T00:00:00Z")
    assert done.returncode == 0, done.stderr


def test_size_is_that_of_the_file(named: Callable[..., Client], relay: Relay, tmp_path: Path) -> None:
    """A lock made from our pages names sizes and hashes; both clients install by it, uv only while the size is right."""
    uv, pip = named("uv"), named("pip")
    done = uv.look(relay.url, "needy", "--format=pylock.toml")
    assert done.returncode == 0, done.stderr
    sizes = [int(found) for found in re.findall(r"\bsize = (\d+)", done.stdout)]
    assert len(sizes) == 2
    assert max(sizes) > 400_000
    lock = tmp_path / "pylock.toml"
    for text, code in ((done.stdout, 0), (re.sub(r"\bsize = (\d)", r"size = 9\1", done.stdout), 1)):
        lock.write_text(text)
        target = tmp_path / f"uv-{code}"
        words = [
            "pip",
            "sync",
            "--preview",
            "--no-cache",
            "--python",
            sys.executable,
            "--target",
            str(target),
            str(lock),
        ]
        assert (uv.run(*words).returncode != 0) == code
        assert installed(target) == ({} if code else {"needy": "1.0", "base": "1.5"})
    lock.write_text(done.stdout)
    assert pip.run("install", "--target", str(tmp_path / "pip"), "-r", str(lock)).returncode == 0
    assert installed(tmp_path / "pip") == {"needy": "1.0", "base": "1.5"}


# --- caches and connections


@pytest.mark.parametrize("name", ["pip", "uv", pytest.param("pip-old", marks=pytest.mark.slow), "uv-old"])
def test_304_keeps_the_content_type(name: str, named: Callable[..., Client], relay: Relay, tmp_path: Path) -> None:
    client = named(name, caches=True)
    for number in range(2):
        relay.clear()
        done = client.install(relay.url, tmp_path / str(number), "needy")
        assert done.returncode == 0, done.stderr
        assert installed(tmp_path / str(number)) == {"needy": "1.0", "base": "1.5"}
    assert [one.status for one in relay.pages()] == [304, 304]
    assert {one.answer.get("content-type", JSON) for one in relay.pages()} == {JSON}


def test_pip_caches_pages_only_from_hosts_it_trusts(named: Callable[..., Client], relay: Relay, tmp_path: Path) -> None:
    client = named("pip", caches=True)
    for number in range(2):
        client.run("install", "--index-url", relay.url, "--target", str(tmp_path / str(number)), "--quiet", "base")
    assert [one.status for one in relay.pages()] == [200, 200]


@pytest.mark.parametrize("name", ["pip", "uv", pytest.param("pip-old", marks=pytest.mark.slow), "uv-old"])
def test_immutable_files_are_not_asked_for_twice(
    name: str, named: Callable[..., Client], relay: Relay, tmp_path: Path
) -> None:
    client = named(name, caches=True)
    assert client.install(relay.url, tmp_path / "one", "needy").returncode == 0
    assert len(relay.metadata()) == len(relay.wheels()) == 2
    assert {one.answer["cache-control"] for one in relay.seen if not one.is_page} == {"max-age=365000000, immutable"}
    relay.clear()
    assert client.install(relay.url, tmp_path / "two", "needy").returncode == 0
    assert [one.path for one in relay.seen if not one.is_page] == []


@pytest.mark.parametrize("name", ["pip", "uv", "uv-old"])
def test_new_wheel_is_seen_by_a_warm_cache(
    name: str, named: Callable[..., Client], relay: Relay, house: Wheelhouse, place: Path, tmp_path: Path
) -> None:
    client, project = named(name, caches=True), f"fresh-{name}"
    filed(house, place, project.replace("-", "_"), "1.0")
    assert client.install(relay.url, tmp_path / "one", project).returncode == 0
    filed(house, place, project.replace("-", "_"), "1.1")
    assert client.install(relay.url, tmp_path / "two", project).returncode == 0
    assert installed(tmp_path / "two") == {project: "1.1"}


@clients("pip", "uv", "pip-old", "uv-old")
def test_connections_are_kept(client: Client, relay: Relay, tmp_path: Path) -> None:
    assert client.install(relay.url, tmp_path / "t", "needy", "yanky", "modern", "localish").returncode == 0
    assert len(relay.seen) == 15  # five pages, five sidecars, five wheels
    if client.is_pip:
        assert relay.connections == 1
    else:  # it asks for several at once
        assert relay.connections <= 5
    assert {one.answer.get("connection", "keep-alive") for one in relay.seen} == {"keep-alive"}


def test_pip_asks_for_itself(named: Callable[..., Client], relay: Relay, tmp_path: Path) -> None:
    client = named("pip")
    done = client.install(relay.url, tmp_path / "t", "base", PIP_DISABLE_PIP_VERSION_CHECK="")
    assert done.returncode == 0, done.stderr
    assert installed(tmp_path / "t") == {"base": "1.5"}
    assert [one.status for one in relay.seen if one.path == "/simple/pip/"] == [404]


def test_half_written_wheel_is_not_offered(server: Server, house: Wheelhouse) -> None:
    assert (house.root / "wheels" / "base" / "base-9.0-py3-none-any.whl").exists()
    for kind in (JSON, HTML):
        page = server.ask("/simple/base/", Accept=kind).text
        assert "base-1.5" in page
        assert "base-9.0" not in page


def test_wheels_are_never_compressed(server: Server, house: Wheelhouse) -> None:
    for wheel in (house.get("base-1.5-py3-none-any.whl"), house.get("needy-1.0-py3-none-any.whl")):
        answer = server.ask(f"/files/{wheel.sha256}/{wheel.filename}", Accept_Encoding="gzip, deflate, zstd")
        assert "Content-Encoding" not in answer.headers
        assert hashlib.sha256(answer.body).hexdigest() == wheel.sha256


# --- downloads that are cut


def cuts(*limits: int) -> Callable[[Seen], int | None]:
    """Return what cuts the first downloads of wheels after so many bytes each, and lets the others pass."""
    left = list(limits)
    return lambda seen: left.pop(0) if left and seen.is_wheel and seen.method == "GET" else None


@clients("pip", "pip-old")
def test_pip_goes_on_where_it_was_cut(client: Client, relay: Relay, house: Wheelhouse, tmp_path: Path) -> None:
    relay.cut = cuts(1_000_000, 500_000)
    done = client.install(relay.url, tmp_path / "t", "large")
    assert done.returncode == 0, done.stderr
    asked = relay.wheels()
    assert [one.status for one in asked] == [200, 206, 206]
    etag = asked[0].answer["etag"]
    assert [one.headers.get("if-range") for one in asked] == [None, etag, etag]
    assert sum(one.sent for one in asked) == house.get("large-1.0-py3-none-any.whl").size
    assert len((tmp_path / "t" / "large" / "data.bin").read_bytes()) == LARGE


@clients("uv", "uv-old", slow=("uv",))  # it waits for some seconds between two tries
def test_uv_starts_again_and_ends_right(client: Client, relay: Relay, house: Wheelhouse, tmp_path: Path) -> None:
    relay.cut = cuts(1_000_000, 1_500_000)
    done = client.install(relay.url, tmp_path / "t", "large")
    assert done.returncode == 0, done.stderr
    asked = relay.wheels()
    assert [one.status for one in asked] == [200, 200, 200]
    assert [one.headers.get("range") for one in asked] == [None, None, None]
    assert asked[-1].sent == house.get("large-1.0-py3-none-any.whl").size
    assert len((tmp_path / "t" / "large" / "data.bin").read_bytes()) == LARGE


@clients("pip", "pip-old")
def test_changed_file_is_never_spliced(client: Client, relay: Relay, house: Wheelhouse, tmp_path: Path) -> None:
    """What pip has is of another file than the server's: it gets all of this one, and starts anew."""
    relay.cut = cuts(1_000_000)
    relay.ask = lambda seen: seen.headers.update({"if-range": f'"{"0" * 64}"'}) if "range" in seen.headers else None
    done = client.install(relay.url, tmp_path / "t", "large")
    assert done.returncode == 0, done.stderr
    asked = relay.wheels()
    assert [one.status for one in asked] == [200, 200]
    assert asked[1].headers["range"]
    assert asked[1].sent == house.get("large-1.0-py3-none-any.whl").size
    assert len((tmp_path / "t" / "large" / "data.bin").read_bytes()) == LARGE


@clients("pip", "uv")
def test_file_that_was_changed_on_the_disk_is_not_served(
    client: Client, relay: Relay, server: Server, house: Wheelhouse, tmp_path: Path
) -> None:
    """Not even its second half, to a client that has the first."""
    path = house.get("doomed-1.0-py3-none-any.whl").path
    kept = path.read_bytes()

    def change(seen: Seen) -> int | None:
        if not seen.is_wheel or seen.method != "GET":
            return None
        if len(relay.wheels()) == 1:
            beside = path.with_name("beside")
            beside.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
            beside.replace(path)
        return 1_000_000

    relay.cut = change
    try:
        done = client.install(relay.url, tmp_path / "t", "doomed", PIP_RETRIES="1", UV_HTTP_RETRIES="1")
        assert done.returncode != 0
        assert installed(tmp_path / "t") == {}
        asked = relay.wheels()
        assert asked[0].status == 200
        assert {one.status for one in asked[1:]} <= {500, 503, 410, 404}
        assert "doomed-1.0" in server.log
    finally:
        path.write_bytes(kept)
