"""Released sources from real HTTP servers: which file, whose digest, and what happens on the way."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from builder import source
from builder.errors import HostError, SourceError, UsageError
from builder.events import Fetching, Note
from builder.recipe.model import Source
from builder.source import place, simple
from tests.source_kit import (
    Outside,
    Reply,
    Repo,
    git_source,
    guarded,
    in_turn,
    index_pages,
    json_page,
    request,
    serving,
    sha256,
    tar_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.source_kit import Server


SDIST = tar_of({"tiny_pkg-1.0.post1/pyproject.toml": "x = 1\n", "tiny_pkg-1.0.post1/big.bin": os.urandom(700_000)})
NAME = "tiny_pkg-1.0.post1.tar.gz"
FILE = {
    "filename": NAME,
    "url": f"../../files/{NAME}",
    "hashes": {"sha256": sha256(SDIST)},
    "size": len(SDIST),
    "upload-time": "2024-05-06T07:08:09.123456Z",
}


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as made:
        yield made


@pytest.fixture
def outside(tmp_path: Path, server: Server) -> Outside:
    server.replies = {"/simple/tiny-pkg/": json_page("tiny-pkg", FILE), f"/files/{NAME}": Reply(SDIST)}
    return Outside(tmp_path / "user", index_url=f"{server.url}/simple")


def pin(outside: Outside, version: str = "1.0.post1", **more: str) -> source.Pin:  # type: ignore[name-defined]
    made = Source(kind="sdist", project="Tiny.Pkg", version=more.pop("default", None), **more)  # type: ignore[arg-type]
    return source.pin(made, request(version=version), outside.sources, recipe="tiny", base=outside.root)


def test_json_gives_digest_size_and_time_and_the_tree_is_laid_out(outside: Outside, server: Server) -> None:
    pinned = pin(outside)
    assert (pinned.tree, pinned.size, pinned.version) == (f"sha256:{sha256(SDIST)}", len(SDIST), "1.0.post1")
    assert pinned.time == 1714979289
    assert pinned.url == f"{server.url}/files/{NAME}"
    assert source.fetch(pinned, outside.sources) == len(SDIST)
    assert source.fetch(pinned, outside.sources) == 0
    tree = outside.root / "tree"
    source.materialize(pinned, tree, outside.sources)
    assert (tree / "pyproject.toml").read_text() == "x = 1\n"
    assert {path.stat().st_mtime for path in [tree, *tree.iterdir()]} == {1714979289.0}
    assert source.read(pinned, "pyproject.toml", outside.sources) == b"x = 1\n"
    assert source.read(pinned, "nope", outside.sources) is None
    assert [path for path, _headers in server.seen].count("/simple/tiny-pkg/") == 1


def test_a_version_that_was_pinned_once_needs_no_network(outside: Outside, server: Server) -> None:
    pinned = pin(outside)
    source.fetch(pinned, outside.sources)
    server.replies.clear()
    outside.offline = True
    assert pin(outside) == pinned
    source.materialize(pinned, outside.root / "tree", outside.sources)
    with pytest.raises(SourceError) as caught:
        pin(outside, "2.0")
    assert (caught.value.code, caught.value.run) == ("offline-missing", ("spark-build fetch tiny",))


@pytest.mark.parametrize("spelled", ["1.0-1", "1.0.post1", "1.0.POST1", "v1.0-post-1"])
def test_a_version_spelled_in_another_way_is_the_same_source(outside: Outside, spelled: str) -> None:
    assert pin(outside, spelled).identity() == pin(outside).identity()


def test_html_only_indexes_are_read(outside: Outside, server: Server) -> None:
    page = (
        "<!DOCTYPE html><html><head><title>x</title></head><body>\n"
        f"<A class=x HREF='../../files/{NAME}?a=1&amp;b=2#egg=x&amp;sha256={sha256(SDIST)}' data-yanked='broken &lt;3'>"
        f"{NAME}</A>\n<a href=nothing>odd</a></body></html>"
    )
    server.replies["/simple/tiny-pkg/"] = Reply(page.encode(), headers={"Content-Type": "text/html; charset=utf-8"})
    server.replies[f"/files/{NAME}?a=1&b=2"] = Reply(SDIST)
    pinned = pin(outside)
    assert pinned.tree == f"sha256:{sha256(SDIST)}"
    assert pinned.time == 1_650_000_000  # the newest in the file: a page of HTML has no upload time
    assert pinned.size == len(SDIST)
    assert any(isinstance(event, Note) and "broken <3" in event.text for event in outside.heard.events)
    assert "json" in server.seen[0][1]["accept"]


def test_an_index_without_digests_is_trusted_once(outside: Outside, server: Server) -> None:
    server.replies["/simple/tiny-pkg/"] = json_page("tiny-pkg", {**FILE, "hashes": {}})
    pinned = pin(outside)
    assert pinned.tree == f"sha256:{sha256(SDIST)}"
    server.replies[f"/files/{NAME}"] = Reply(tar_of({"other": "x"}))
    assert pin(outside).tree == pinned.tree


def test_an_index_in_a_folder_is_read(outside: Outside, tmp_path: Path) -> None:
    folder = tmp_path / "index with space" / "tiny-pkg"
    folder.mkdir(parents=True)
    (folder / NAME).write_bytes(SDIST)
    outside.index_url = index_pages(folder.parent)
    outside.offline = True
    pinned = pin(outside)
    source.materialize(pinned, outside.root / "tree", outside.sources)
    assert pinned.tree == f"sha256:{sha256(SDIST)}"


def test_a_yanked_release_is_told_each_time(outside: Outside, server: Server) -> None:
    server.replies["/simple/tiny-pkg/"] = json_page("tiny-pkg", {**FILE, "yanked": "wrong metadata"})
    for _time in range(2):
        outside.heard.events.clear()
        pin(outside)
        assert "yanked by its authors: wrong metadata" in outside.heard.text()


def test_what_is_missing_is_told_with_what_is_near(outside: Outside, server: Server) -> None:
    wheel = {**FILE, "filename": "tiny_pkg-2.0-py3-none-any.whl"}
    server.replies["/simple/tiny-pkg/"] = json_page("tiny-pkg", FILE, wheel)
    for version, code in (("1.0.post2", "version-missing"), ("2.0", "sdist-missing"), ("2.0.0", "version-missing")):
        with pytest.raises(SourceError) as caught:
            pin(outside, version)
        assert caught.value.code == ("sdist-missing" if version == "2.0" else code)
        assert caught.value.exit_code == 4
        assert caught.value.run
    with pytest.raises(SourceError) as caught:
        pin(outside, "1.0.post2")
    assert "1.0.post1" in caught.value.cause
    server.replies.clear()
    with pytest.raises(SourceError) as caught:
        pin(outside, "9")
    assert caught.value.code == "project-missing"
    with pytest.raises(UsageError) as wrong:
        pin(outside, "../../../x")
    assert wrong.value.code == "version-wrong"


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"files": [{"filename": "a"}]}', b'{"files": {"a": 1}}'])
def test_a_page_that_is_none_is_told(outside: Outside, server: Server, body: bytes) -> None:
    server.replies["/simple/tiny-pkg/"] = Reply(body, headers={"Content-Type": "application/vnd.pypi.simple.v1+json"})
    with pytest.raises(SourceError) as caught:
        pin(outside)
    assert caught.value.code == "index-damaged"


def test_wrong_bytes_are_refused_and_not_kept(outside: Outside, server: Server) -> None:
    pinned = pin(outside)
    server.replies[f"/files/{NAME}"] = Reply(SDIST[:-1] + b"x")
    with pytest.raises(SourceError) as caught:
        source.materialize(pinned, outside.root / "tree", outside.sources)
    assert (caught.value.code, caught.value.exit_code) == ("hash-mismatch", 4)
    assert sha256(SDIST) in caught.value.cause
    assert not [file for file in (outside.root / "sources" / "files").rglob("*") if file.is_file()]
    assert not (outside.root / "tree").exists()
    with pytest.raises(SourceError) as caught:
        pin(outside, default="1.0.post1", sha256="0" * 64)
    assert caught.value.code == "hash-mismatch"


def test_bytes_that_a_disk_lost_are_seen_before_they_are_used(outside: Outside) -> None:
    pinned = pin(outside)
    source.fetch(pinned, outside.sources)
    file = outside.root / "sources" / "files" / sha256(SDIST) / NAME
    file.write_bytes(SDIST[:100] + b"x" + SDIST[101:])
    with pytest.raises(SourceError) as caught:
        source.materialize(pinned, outside.root / "tree", outside.sources)
    assert caught.value.code == "hash-mismatch"
    assert caught.value.run[0] == f"rm -r {file.parent}"


# --- the way there ---


def test_a_transfer_that_stops_goes_on_where_it_stopped(outside: Outside, server: Server) -> None:
    pinned = pin(outside)
    server.replies[f"/files/{NAME}"] = in_turn(Reply(SDIST, cut=400_000), Reply(SDIST))
    assert source.fetch(pinned, outside.sources) <= len(SDIST)
    ranges = server.ranges(f"/files/{NAME}")
    assert ranges[0] == ""
    assert ranges[1].startswith("bytes=")


def test_a_server_that_knows_no_ranges_starts_anew(outside: Outside, server: Server) -> None:
    pinned = pin(outside)
    server.replies[f"/files/{NAME}"] = in_turn(Reply(SDIST, cut=400_000, ranges=False), Reply(SDIST, ranges=False))
    source.materialize(pinned, outside.root / "tree", outside.sources)


@pytest.mark.parametrize("left", [b"of another file", SDIST, SDIST + b"more", SDIST[:1000]])
def test_what_lies_there_from_before_is_used_or_thrown_away(outside: Outside, server: Server, left: bytes) -> None:
    pinned = pin(outside)
    part = outside.root / "sources" / "files" / sha256(SDIST) / f"{NAME}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(left)
    source.materialize(pinned, outside.root / "tree", outside.sources)
    assert not part.exists()
    assert server.ranges(f"/files/{NAME}")[0] == f"bytes={len(left)}-"


def test_a_range_that_begins_elsewhere_is_not_believed(outside: Outside, server: Server) -> None:
    pinned = pin(outside)
    odd = Reply(SDIST, status=206, headers={"Content-Range": f"bytes 0-{len(SDIST) - 1}/{len(SDIST)}"}, ranges=False)
    server.replies[f"/files/{NAME}"] = lambda asked: odd if "range" in asked else Reply(SDIST)
    part = outside.root / "sources" / "files" / sha256(SDIST) / f"{NAME}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"xx")
    source.materialize(pinned, outside.root / "tree", outside.sources)


def test_a_servers_own_trouble_is_tried_again(outside: Outside, server: Server) -> None:
    page = server.replies["/simple/tiny-pkg/"]
    server.replies["/simple/tiny-pkg/"] = in_turn(Reply(status=503), page)
    pinned = pin(outside)
    server.replies[f"/files/{NAME}"] = in_turn(Reply(status=500), Reply(SDIST))
    source.fetch(pinned, outside.sources)


@pytest.mark.parametrize(
    ("status", "code", "tries"), [(404, "not-found", 1), (403, "access-denied", 1), (500, "unreachable", 3)]
)
def test_each_refusal_has_its_word(outside: Outside, server: Server, status: int, code: str, tries: int) -> None:
    pinned = pin(outside)
    server.replies[f"/files/{NAME}"] = Reply(status=status)
    with pytest.raises(SourceError) as caught:
        source.fetch(pinned, outside.sources)
    assert (caught.value.code, caught.value.exit_code) == (code, 4)
    assert str(status) in caught.value.summary + caught.value.cause
    assert caught.value.run
    assert len(server.ranges(f"/files/{NAME}")) == tries


def test_a_connection_that_always_ends_early_is_told(outside: Outside, server: Server) -> None:
    pinned = pin(outside)
    server.replies[f"/files/{NAME}"] = Reply(SDIST, cut=0)
    with pytest.raises(SourceError) as caught:
        source.fetch(pinned, outside.sources)
    assert caught.value.code == "unreachable"
    assert f"of {len(SDIST)} bytes" in caught.value.cause


def test_a_closed_port_is_unreachable_with_the_way_out(outside: Outside, server: Server) -> None:
    server.close()
    with pytest.raises(SourceError) as caught:
        pin(outside)
    assert caught.value.code == "unreachable"
    assert "--offline" in caught.value.help
    assert "[mirrors]" in caught.value.help


def test_redirects_are_followed_and_keep_the_login_to_its_host(outside: Outside, server: Server) -> None:
    with serving() as other:
        login = "Basic dXMzcjpzM2NyZXQ="
        needed = {"/simple/tiny-pkg/": server.replies["/simple/tiny-pkg/"], f"/files/{NAME}": Reply(SDIST)}
        other.replies[f"/cdn/{NAME}"] = Reply(SDIST)
        moved = {"/index/tiny-pkg/": "/simple/tiny-pkg/", f"/files/{NAME}": f"{other.url}/cdn/{NAME}"}

        for path, reply in needed.items():
            server.replies[path] = guarded(reply, login)
        for path, to in moved.items():
            server.replies[path] = guarded(Reply(status=302, headers={"Location": to}), login)
        outside.index_url = f"{server.url.replace('://', '://us3r:s3cret@')}/index/"
        pinned = pin(outside)
        source.fetch(pinned, outside.sources)
        assert other.seen
        assert "authorization" not in other.seen[0][1]
    assert "s3cret" not in str(pinned) + outside.heard.text()
    assert b"s3cret" not in outside.kept()
    assert b"dXMzcjpzM2NyZXQ" not in outside.kept()


def test_a_login_from_netrc_is_used(outside: Outside, server: Server) -> None:
    netrc = outside.root / "home" / ".netrc"
    netrc.parent.mkdir(parents=True)
    netrc.write_text("machine 127.0.0.1 login us3r password s3cret\n")
    netrc.chmod(0o600)
    server.replies["/simple/tiny-pkg/"] = guarded(server.replies["/simple/tiny-pkg/"], "Basic dXMzcjpzM2NyZXQ=")
    assert pin(outside).version == "1.0.post1"


def test_a_wrong_login_is_told_without_it(outside: Outside, server: Server) -> None:
    server.replies["/simple/tiny-pkg/"] = Reply(status=401)
    outside.index_url = f"{server.url.replace('://', '://us3r:s3cret@')}/simple"
    with pytest.raises(SourceError) as caught:
        pin(outside)
    assert caught.value.code == "access-denied"
    assert "s3cret" not in str(caught.value.as_json())
    assert "netrc" in caught.value.help


def test_proxies_of_the_environment_are_used(outside: Outside, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    outside.index_url = "http://index.invalid/simple"
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", "localhost")
    server.replies["http://index.invalid/simple/tiny-pkg/"] = server.replies["/simple/tiny-pkg/"]
    server.replies[f"http://index.invalid/files/{NAME}"] = Reply(SDIST)
    assert source.fetch(pin(outside), outside.sources) == len(SDIST)


def test_mirrors_serve_index_and_files(outside: Outside, server: Server) -> None:
    outside.index_url = "https://index.invalid/simple/"
    outside.mirrors = {"https://index.invalid": server.url}
    pinned = pin(outside)
    assert pinned.url == f"https://index.invalid/files/{NAME}"
    assert source.fetch(pinned, outside.sources) == len(SDIST)
    # A mirror of the pages only, whose files lie beside them: the pin says where they really are.
    outside.mirrors = {"https://index.invalid/simple": f"{server.url}/simple"}
    (outside.root / "sources" / "sdists" / "tiny-pkg" / "1.0.post1.json").unlink()
    assert pin(outside).url == f"{server.url}/files/{NAME}"


def test_progress_is_told(outside: Outside, server: Server) -> None:
    big = tar_of({"x/big.bin": os.urandom(40_000_000)}, mode="w")
    one = {**FILE, "hashes": {"sha256": sha256(big)}, "size": len(big)}
    server.replies["/simple/tiny-pkg/"] = json_page("tiny-pkg", one)

    def slowly(_asked: Mapping[str, str]) -> Reply:
        time.sleep(0.3)
        return Reply(big)

    server.replies[f"/files/{NAME}"] = slowly
    source.fetch(pin(outside), outside.sources)
    told = [event for event in outside.heard.events if isinstance(event, Fetching)]
    assert all(event.name == NAME and event.total == len(big) and 0 < event.done <= len(big) for event in told)


CHILD = """
import sys
import time
from pathlib import Path
from builder import source
from builder.recipe.model import Source
from tests.source_kit import Outside, request
outside = Outside(Path(sys.argv[1]), index_url=sys.argv[2])
made = Source(kind="sdist", project="tiny-pkg", version=None)
pinned = source.pin(made, request(version="1.0.post1"), outside.sources, recipe="tiny", base=outside.root)
print(source.fetch(pinned, outside.sources))
"""


def test_processes_that_want_one_file_fetch_it_once(outside: Outside, server: Server) -> None:
    words = [sys.executable, "-c", CHILD, str(outside.root), str(outside.index_url)]
    children = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=Path.cwd()) for _number in range(4)]
    received = sorted(int(child.communicate()[0]) for child in children)
    assert received == [0, 0, 0, len(SDIST)]
    assert len(server.ranges(f"/files/{NAME}")) == 1


@pytest.mark.root
def test_a_full_disk_keeps_what_came(outside: Outside, server: Server) -> None:
    data = tar_of({"x/big.bin": os.urandom(3_000_000)})
    server.replies["/simple/tiny-pkg/"] = json_page("tiny-pkg", {**FILE, "hashes": {"sha256": sha256(data)}})
    server.replies[f"/files/{NAME}"] = Reply(data)
    small = outside.root / "sources"
    small.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(small)], check=True)
    try:
        pinned = pin(outside)
        with pytest.raises(HostError) as caught:
            source.fetch(pinned, outside.sources)
        assert (caught.value.code, caught.value.exit_code) == ("disk-full", 3)
        subprocess.run(["mount", "-o", "remount,size=20m", str(small)], check=True)
        assert 0 < source.fetch(pinned, outside.sources) < len(data)
        subprocess.run(["mount", "-o", "remount,size=4m", str(small)], check=True)
        with pytest.raises(HostError) as caught:
            source.materialize(pinned, small / "tree", outside.sources)
        assert caught.value.code == "disk-full"
        assert not [path for path in small.iterdir() if "tree" in path.name]
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.mark.root
@pytest.mark.parametrize("kind", ["sdist", "git"])
def test_a_folder_that_cant_be_written_is_told(outside: Outside, kind: str) -> None:
    small = outside.root / "sources"
    small.mkdir(parents=True)
    repo = Repo(outside.root / "up")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", str(small)], check=True)
    try:
        made = (
            Source(kind="sdist", project="tiny-pkg", version="1.0.post1")
            if kind == "sdist"
            else git_source(repo.folder)
        )
        with pytest.raises(HostError) as caught:
            source.pin(made, request(), outside.sources, recipe="tiny", base=outside.root)
        assert (caught.value.code, caught.value.exit_code) == ("unwritable", 3)
        assert str(small) in caught.value.summary
        assert caught.value.run
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_the_index_that_uv_asks_is_found_without_path_home_or_a_cache(tmp_path: Path) -> None:
    env = {"UV_DEFAULT_INDEX": "https://host.invalid/simple", "UV_CACHE_DIR": "/dev/null/cache"}
    bare = dataclasses.replace(Outside(tmp_path / "user").sources, env=env)
    assert simple._index_of_uv(bare) == "https://host.invalid/simple"  # noqa: SLF001
    (tmp_path / "uv.toml").write_text("no toml")
    with pytest.raises(HostError) as caught:
        simple._index_of_uv(dataclasses.replace(bare, env={"UV_CONFIG_FILE": str(tmp_path / "uv.toml")}))  # noqa: SLF001
    assert (caught.value.code, caught.value.exit_code) == ("uv-failed", 3)
    assert "uv.toml" in caught.value.cause


@pytest.mark.network
def test_the_index_that_uv_asks_is_asked(tmp_path: Path) -> None:
    env = {key: value for key, value in os.environ.items() if key.startswith(("UV_", "SSL_CERT_"))}
    env |= {"HOME": os.environ["HOME"]}
    outside = Outside(tmp_path / "user", env=env)
    made = Source(kind="sdist", project="six", version=None)
    pinned = source.pin(made, request(version="1.16.0"), outside.sources, recipe="six", base=tmp_path)
    assert pinned.filename == "six-1.16.0.tar.gz"
    source.materialize(pinned, tmp_path / "tree", outside.sources)
    assert (tmp_path / "tree" / "six.py").exists()


def test_a_token_in_a_files_url_is_asked_for_again_where_it_is_needed(outside: Outside, server: Server) -> None:
    page = json_page("tiny-pkg", {**FILE, "url": f"{FILE['url']}?token=S3CRET"})
    server.replies["/simple/tiny-pkg/"] = page
    server.replies[f"/files/{NAME}?token=S3CRET"] = server.replies.pop(f"/files/{NAME}")
    pinned = pin(outside)
    assert pinned.url.endswith("?token=***")
    place._GIVEN.clear()  # noqa: SLF001  # as in another process
    assert pin(outside) == pinned
    assert source.fetch(pinned, outside.sources) > 0
    assert b"S3CRET" not in outside.kept()
