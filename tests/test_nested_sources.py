"""Nested sources from real git repositories and a real server: made exact, brought in, refused when they aren't right."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, ClassVar

import pytest

from builder.errors import SparkError
from builder.events import Fetching, Note
from builder.recipe.nested import Reading
from builder.source import archive as archives
from builder.source import git as gits
from builder.source import nested
from builder.source.mirror import Mirror
from builder.stages import ZIP_EPOCH
from tests.nested_kit import Tree, archive, git
from tests.source_kit import Outside, Reply, Repo, in_turn, serving, sha256, tar_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from builder.stages import Nested
    from tests.source_kit import Server

FILE = tar_of({"llvm/bin/clang": os.urandom(400_000)})


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as made:
        yield made


@pytest.fixture
def outside(tmp_path: Path) -> Outside:
    return Outside(tmp_path / "user")


@contextlib.contextmanager
def refused(code: str) -> Iterator[SparkError]:
    error = SparkError("none", "none")
    with pytest.raises(SparkError) as caught:
        yield error
    error.__dict__.update(vars(caught.value))
    assert caught.value.code == code, f"{caught.value.code}: {caught.value.summary}\n{caught.value.cause}"


def files(outside: Outside) -> list[str]:
    root = outside.root / "sources" / "files"
    return sorted(file.name for file in root.rglob("*") if file.is_file())


# --- archives


def test_a_digest_in_the_tree_is_held_to_and_nothing_is_downloaded_to_plan(server: Server, outside: Outside) -> None:
    server.replies["/llvm.tar.gz"] = Reply(FILE)
    tree = Tree({"sums.json": json.dumps({"sum": sha256(FILE)})})
    pin = (Reading(file="sums.json", json="sum", name="sum"),)
    tables = [archive("llvm", f"{server.url}/llvm.tar.gz", sha256="${sum}", pin=pin)]
    found = tree.resolve(tables, outside.sources)
    assert server.seen == []
    assert [one.id for one in nested.missing(found, outside.sources)] == ["llvm"]
    assert nested.size(found[0], outside.sources) == len(FILE)  # the server says it
    assert nested.fetch(found, outside.sources) == {"llvm": len(FILE)}
    assert nested.missing(found, outside.sources) == ()
    assert nested.fetch(found, outside.sources) == {"llvm": 0}
    assert found[0].pin is not None
    assert archives.file_of(found[0].pin, outside.sources).read_bytes() == FILE
    assert found[0].origin == "tree"


def test_bytes_that_the_tree_doesnt_name_are_refused_and_not_kept(server: Server, outside: Outside) -> None:
    server.replies["/llvm.tar.gz"] = Reply(FILE)
    found = Tree().resolve([archive("llvm", f"{server.url}/llvm.tar.gz", sha256="b" * 64)], outside.sources)
    assert found[0].origin == "recipe"
    with refused("hash-mismatch") as error:
        nested.fetch(found, outside.sources)
    assert error.summary.startswith("llvm: ")
    assert "fetch.llvm.path" in error.help
    assert files(outside) == []


def test_the_first_download_is_trusted_and_recorded_and_a_plan_downloads_nothing(
    server: Server, outside: Outside
) -> None:
    server.replies["/llvm.tar.gz"] = Reply(FILE)
    tables = [archive("llvm", f"{server.url}/llvm.tar.gz")]
    (planned,) = Tree().resolve(tables, outside.sources, bring=False)
    assert (planned.known, server.seen) == (False, [])
    (found,) = Tree().resolve(tables, outside.sources)
    assert found.pin is not None
    assert (found.pin.tree, found.origin, found.pin.size) == (f"sha256:{sha256(FILE)}", "first use", len(FILE))
    assert found.pin.time == ZIP_EPOCH
    server.replies.clear()
    assert Tree().resolve(tables, outside.sources) == (found,)
    assert Tree().resolve(tables, outside.sources, bring=False) == (found,)
    assert nested.fetch([found], outside.sources) == {"llvm": 0}


def test_what_changed_upstream_since_the_first_download_is_refused_until_it_is_asked_for(
    server: Server, outside: Outside
) -> None:
    tables = [archive("llvm", f"{server.url}/llvm.tar.gz")]
    server.replies["/llvm.tar.gz"] = Reply(FILE)
    (found,) = Tree().resolve(tables, outside.sources)
    assert found.pin is not None
    archives.file_of(found.pin, outside.sources).unlink()  # as gc would
    server.replies["/llvm.tar.gz"] = Reply(other := tar_of({"x": "another"}))
    found = Tree().resolve(tables, outside.sources)[0]
    with refused("hash-mismatch") as error:
        nested.fetch([found], outside.sources)
    assert "trust" in error.help
    assert any("--relock" in one for one in error.run)
    assert files(outside) == []
    (again,) = Tree().resolve(tables, outside.sources, relock=True)
    assert again.pin is not None
    assert again.pin.tree == f"sha256:{sha256(other)}"
    assert nested.fetch([again], outside.sources) == {"llvm": 0}


def test_a_file_of_any_kind_is_an_archive_but_one_that_is_named_so_has_to_be_whole(
    server: Server, outside: Outside
) -> None:
    server.replies["/ptxas"] = Reply(b"\x7fELF")
    server.replies["/cut.tar.gz"] = Reply(FILE[:-1000])
    (found,) = Tree().resolve([archive("ptxas", f"{server.url}/ptxas")], outside.sources)
    assert found.pin is not None
    assert archives.file_of(found.pin, outside.sources).read_bytes() == b"\x7fELF"
    with refused("archive-damaged") as error:
        Tree().resolve([archive("cut", f"{server.url}/cut.tar.gz")], outside.sources)
    assert error.summary.startswith("cut: ")
    assert files(outside) == ["ptxas"]


def test_a_download_that_is_cut_goes_on_where_nobody_knows_the_digest(server: Server, outside: Outside) -> None:
    whole, cut = Reply(FILE, headers={"ETag": '"1"'}), Reply(FILE, headers={"ETag": '"1"'}, cut=100_000)
    server.replies["/llvm.tar.gz"] = in_turn(cut, whole)
    (found,) = Tree().resolve([archive("llvm", f"{server.url}/llvm.tar.gz")], outside.sources)
    assert found.pin is not None
    assert found.pin.tree == f"sha256:{sha256(FILE)}"
    assert server.ranges("/llvm.tar.gz") == ["", "bytes=100000-"]
    assert server.seen[1][1]["if-range"] == '"1"'


def test_halves_of_two_files_are_never_put_together(server: Server, outside: Outside) -> None:
    """Nobody knows a digest, the connection breaks, and upstream puts another file there before the next try."""
    other = tar_of({"llvm/bin/clang": os.urandom(200_000)})

    def second(asked: Mapping[str, str]) -> Reply:
        assert asked["if-range"] == '"1"'  # RFC 9110: the file is another one, so all of it is sent
        return Reply(other, headers={"ETag": '"2"'}, ranges=False)

    server.replies["/llvm.tar.gz"] = in_turn(Reply(FILE, headers={"ETag": '"1"'}, cut=100_000), second)
    (found,) = Tree().resolve([archive("llvm", f"{server.url}/llvm.tar.gz")], outside.sources)
    assert found.pin is not None
    assert found.pin.tree == f"sha256:{sha256(other)}"


def test_what_can_not_be_told_apart_starts_anew_in_the_next_run(server: Server, outside: Outside) -> None:
    tables = [archive("llvm", f"{server.url}/llvm.tar.gz")]
    server.replies["/llvm.tar.gz"] = in_turn(*[Reply(FILE, cut=100_000)] * 4, Reply(FILE))
    with refused("unreachable"):
        Tree().resolve(tables, outside.sources)
    (found,) = Tree().resolve(tables, outside.sources)
    assert found.pin is not None
    assert found.pin.tree == f"sha256:{sha256(FILE)}"
    assert server.ranges("/llvm.tar.gz")[-1] == ""


def test_one_archive_for_several_places_comes_once(server: Server, outside: Outside) -> None:
    server.replies["/nvcc.tar.xz"] = Reply(data := tar_of({"nvcc/bin/ptxas": "p" * 9000}, mode="w:xz"))
    url = f"{server.url}/nvcc.tar.xz"
    tables = [archive(name, url, sha256=sha256(data)) for name in ("ptxas", "crt", "cupti")]
    found = Tree().resolve(tables, outside.sources)
    assert sum(nested.fetch(found, outside.sources).values()) == len(data)
    assert [path for path, _headers in server.seen] == ["/nvcc.tar.xz"]
    first = [archive(name, f"{url}?first", place="${deps}/x") for name in ("a", "b")]
    server.replies["/nvcc.tar.xz?first"] = Reply(data)
    one, two = Tree().resolve(first, outside.sources)
    assert one.pin == two.pin
    assert [path for path, _headers in server.seen].count("/nvcc.tar.xz?first") == 1


def test_a_mirror_of_archives_is_asked_instead_and_a_dead_one_is_told(
    server: Server, outside: Outside, tmp_path: Path
) -> None:
    (tmp_path / "mirror/builds").mkdir(parents=True)
    (tmp_path / "mirror/builds/llvm.tar.gz").write_bytes(FILE)
    outside.mirrors = {"https://builds.example.invalid/public": str(tmp_path / "mirror/builds")}
    tables = [archive("llvm", "https://builds.example.invalid/public/llvm.tar.gz")]
    (found,) = Tree().resolve(tables, outside.sources)
    assert found.pin is not None
    assert found.pin.url == "https://builds.example.invalid/public/llvm.tar.gz"  # canonical, whoever gave it
    server.close()
    outside.mirrors = {"https://dead.example.invalid": server.url}
    with refused("unreachable") as error:
        Tree().resolve([archive("x", "https://dead.example.invalid/x.zip")], outside.sources)
    assert "[mirrors]" in error.help
    assert "fetch.x.path" in error.help


# --- git


@pytest.fixture
def cutlass(tmp_path: Path) -> Repo:
    made = Repo(tmp_path / "cutlass", files={"include/cutlass.h": "1"})
    made("tag", "-a", "-m", "t", "v4.7.1")
    made.commit(**{"include/cutlass.h": "2"})
    return made


def at(pinned: Nested, path: str, outside: Outside) -> bytes | None:
    assert pinned.pin is not None
    return gits.read(pinned.pin, path, outside.sources)


def test_a_commit_comes_without_history_and_with_the_submodules_that_a_clone_would_have(
    outside: Outside, tmp_path: Path, cutlass: Repo
) -> None:
    inner = Repo(tmp_path / "inner", files={"inner.txt": "inner"})
    inner.submodule(cutlass.folder.as_uri(), "third_party/cutlass")
    outer = Repo(tmp_path / "fa", files={"a.cu": "1"})
    outer.submodule(inner.folder.as_uri(), "csrc/inner")
    commit = outer.submodule(cutlass.folder.as_uri(), "csrc/unused")
    url = outer.folder.as_uri()
    every, some, none = (git("fa", url, commit, submodules=kind) for kind in ("all", ("csrc/inner",), "none"))
    (found,) = Tree().resolve([every], outside.sources)
    assert found.pin is not None
    assert [one.path for one in found.pin.submodules] == ["csrc/inner", "csrc/inner/third_party/cutlass", "csrc/unused"]
    assert nested.missing([found], outside.sources) == ()
    assert found.pin.size
    assert Mirror(url, outside.sources).shallow
    (found,) = Tree().resolve([some], outside.sources)
    assert found.pin is not None
    assert [one.path for one in found.pin.submodules] == ["csrc/inner", "csrc/inner/third_party/cutlass"]
    (found,) = Tree().resolve([none], outside.sources)
    assert found.pin is not None
    assert found.pin.submodules == ()
    assert found.identity()["commit"] == commit


def test_a_plan_knows_the_commit_and_brings_nothing(outside: Outside, cutlass: Repo) -> None:
    tables = [git("cutlass", cutlass.folder.as_uri(), "v4.7.1", submodules="all")]
    (found,) = Tree().resolve(tables, outside.sources, bring=False)
    assert found.pin is not None
    assert (found.pin.commit, found.pin.tree) == (cutlass("rev-parse", "v4.7.1^{}"), "unknown")
    assert not Mirror(cutlass.folder.as_uri(), outside.sources).has(found.pin.commit or "")
    assert nested.missing([found], outside.sources) == (found,)
    (brought,) = Tree().resolve(tables, outside.sources)
    assert brought.known
    assert Tree().resolve(tables, outside.sources, bring=False) == (brought,)  # at hand now


def test_a_tag_is_looked_up_once_for_a_tree_and_again_with_relock(outside: Outside, cutlass: Repo) -> None:
    tables = [git("cutlass", cutlass.folder.as_uri(), "v4.7.1")]
    (found,) = Tree().resolve(tables, outside.sources)
    assert found.origin == "first use"
    assert at(found, "include/cutlass.h", outside) == b"1"
    cutlass("tag", "-f", "v4.7.1", "main")
    (same,) = Tree().resolve(tables, outside.sources)
    assert same.pin is not None
    assert found.pin is not None
    assert same.pin.commit == found.pin.commit
    (moved,) = Tree().resolve(tables, outside.sources, relock=True)
    assert at(moved, "include/cutlass.h", outside) == b"2"
    (other,) = Tree().resolve(tables, outside.sources, owner="another tree")
    assert at(other, "include/cutlass.h", outside) == b"2"


def test_a_tag_goes_before_a_branch_of_its_name(outside: Outside, cutlass: Repo) -> None:
    cutlass("branch", "v4.7.1", "main")
    (found,) = Tree().resolve([git("cutlass", cutlass.folder.as_uri(), "v4.7.1")], outside.sources)
    assert at(found, "include/cutlass.h", outside) == b"1"


def test_a_shortened_commit_and_a_branch_are_found(outside: Outside, cutlass: Repo) -> None:
    head = cutlass("rev-parse", "main")
    short, branch = Tree().resolve(
        [git("a", cutlass.folder.as_uri(), head[:9]), git("b", cutlass.folder.as_uri(), "main")], outside.sources
    )
    assert short.pin is not None
    assert branch.pin is not None
    assert (short.pin.commit, branch.pin.commit) == (head, head)


def test_a_ref_that_isnt_there_is_told_with_near_ones(outside: Outside, cutlass: Repo) -> None:
    with refused("ref-missing") as error:
        Tree().resolve([git("cutlass", cutlass.folder.as_uri(), "v4.7.2")], outside.sources)
    assert "v4.7.1" in error.cause
    assert error.summary.startswith("cutlass: ")


def test_a_mirror_of_repositories_is_asked_instead(outside: Outside, tmp_path: Path, cutlass: Repo) -> None:
    url = "https://git.example.invalid/nvidia/cutlass.git"
    outside.mirrors = {"https://git.example.invalid/nvidia": str(tmp_path)}
    (found,) = Tree().resolve([git("cutlass", url, cutlass("rev-parse", "main"))], outside.sources)
    assert found.pin is not None
    assert found.pin.url == url


class Smart(BaseHTTPRequestHandler):
    """A real git server (git-http-backend(1)); `root` holds its repositories."""

    root = ""
    seen: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.seen.append(self.path)
        path, _mark, query = self.path.partition("?")
        env = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": self.root,
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
        }
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        done = subprocess.run(["git", "http-backend"], env=env, input=body, capture_output=True, check=True)
        head, _blank, body = done.stdout.partition(b"\r\n\r\n")
        told = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self.send_response(int(told.pop("Status", "200").split()[0]))
        for name, value in told.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815  # the name that the library calls

    def log_message(self, *_words: object) -> None:
        pass


class Plain(SimpleHTTPRequestHandler):
    """A server of files, quiet."""

    def log_message(self, *_words: object) -> None:
        pass


@contextlib.contextmanager
def listening(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_git_server_gives_single_commits_and_tags(outside: Outside, cutlass: Repo) -> None:
    class Here(Smart):
        root = str(cutlass.folder.parent)
        seen: ClassVar[list[str]] = []

    with listening(Here) as url:
        commit = cutlass("rev-parse", "main")
        tables = [git("a", f"{url}/cutlass/.git", commit), git("b", f"{url}/cutlass/.git", "v4.7.1")]
        found = Tree().resolve(tables, outside.sources)
    assert [at(one, "include/cutlass.h", outside) for one in found] == [b"2", b"1"]
    assert Mirror(f"{url}/cutlass/.git", outside.sources).shallow
    assert any("git-upload-pack" in path for path in Here.seen)


def test_a_host_of_plain_files_gives_all_of_a_repository(outside: Outside, cutlass: Repo) -> None:
    cutlass("update-server-info")
    with listening(functools.partial(Plain, directory=str(cutlass.folder))) as url:
        found = Tree().resolve([git("a", f"{url}/.git", cutlass("rev-parse", "main"))], outside.sources)
    assert at(found[0], "include/cutlass.h", outside) == b"2"


def test_pins_of_a_lock_are_taken_as_they_are_and_then_fetched(outside: Outside, cutlass: Repo, tmp_path: Path) -> None:
    tables = [git("cutlass", cutlass.folder.as_uri(), "main")]
    (found,) = Tree().resolve(tables, outside.sources)
    assert found.pin is not None
    cutlass.commit(more="m")
    other = Outside(tmp_path / "other")
    (locked,) = Tree().resolve(tables, other.sources, known={"cutlass": found.pin})
    assert (locked.pin, locked.origin) == (found.pin, "lock")
    assert nested.missing([locked], other.sources) == (locked,)
    assert nested.fetch([locked], other.sources)["cutlass"] > 0
    assert nested.missing([locked], other.sources) == ()


# --- together


def test_several_come_at_a_time_and_are_told_as_one(server: Server, outside: Outside) -> None:
    """Each answer waits until all four were asked for: with fewer at a time nobody would get one."""
    meeting = threading.Barrier(4)

    def met(_asked: Mapping[str, str]) -> Reply:
        meeting.wait(timeout=30)
        return Reply(FILE)

    tables = []
    for name in ("a", "b", "c", "d"):
        server.replies[f"/{name}"] = met
        tables.append(archive(name, f"{server.url}/{name}"))
    found = Tree().resolve(tables, outside.sources)
    assert all(one.known for one in found)
    told = [event for event in outside.heard.events if isinstance(event, Fetching)]
    assert {event.name for event in told} <= {"4 nested sources"}


def test_one_that_fails_doesnt_stop_the_others(server: Server, outside: Outside) -> None:
    for name in ("a", "c", "e"):
        server.replies[f"/{name}"] = Reply(FILE)
    tables = [archive(name, f"{server.url}/{name}", sha256=sha256(FILE)) for name in "abcde"]
    tables[2] = archive("c", f"{server.url}/c", sha256="c" * 64)
    found = Tree().resolve(tables, outside.sources)
    with refused("hash-mismatch") as error:
        nested.fetch([found[0], found[2], found[4]], outside.sources)
    assert error.summary.startswith("c: ")
    with refused("not-found") as error:
        nested.fetch([found[1], found[3]], outside.sources)
    assert {error.summary[0], error.cause.split("also: ")[1][0]} == {"b", "d"}
    assert [one.id for one in nested.missing(found, outside.sources)] == ["b", "c", "d"]
    warned = [event.text for event in outside.heard.events if isinstance(event, Note)]
    assert warned
    assert all("going on with the others" in text for text in warned)


# --- offline


def test_offline_names_all_that_is_missing_with_size_key_and_command(
    server: Server, outside: Outside, cutlass: Repo
) -> None:
    server.replies["/llvm.tar.gz"] = server.replies["/json.zip"] = Reply(FILE)
    url = cutlass.folder.as_uri()
    tables = [
        archive("llvm", f"{server.url}/llvm.tar.gz"),
        archive("json", f"{server.url}/json.zip", sha256=sha256(FILE)),
        archive("crt", f"{server.url}/crt"),
        git("cutlass", url, "v4.7.1"),
        git("fa", url, cutlass("rev-parse", "main")),
    ]
    found = Tree().resolve([tables[0], tables[4]], outside.sources)
    for one in found[:1]:
        assert one.pin is not None
        archives.file_of(one.pin, outside.sources).unlink()
    outside.offline = True
    with refused("nested-missing") as error:
        Tree().resolve(tables, outside.sources)
    assert error.summary == "4 nested sources of NAME aren't at hand, and --offline forbids to fetch"
    lines = error.cause.splitlines()
    assert [line.split(":")[0] for line in lines] == ["llvm", "json", "crt", "cutlass"]
    assert lines[0].endswith("KiB (fetch.llvm.path)")  # known since it was here
    assert "at v4.7.1, size unknown" in lines[3]
    assert error.run == ("spark-build fetch NAME",)
    planned = Tree().resolve(tables, outside.sources, bring=False)
    assert [one.id for one in planned if not one.known] == ["crt", "cutlass"]
    with refused("nested-missing"):
        nested.fetch(planned, outside.sources)
    assert [path for path, _headers in server.seen] == ["/llvm.tar.gz"]


def test_offline_takes_what_is_at_hand(server: Server, outside: Outside, cutlass: Repo) -> None:
    server.replies["/x.tar.gz"] = Reply(FILE)
    tables = [archive("x", f"{server.url}/x.tar.gz"), git("cutlass", cutlass.folder.as_uri(), "v4.7.1")]
    found = Tree().resolve(tables, outside.sources)
    server.close()
    outside.offline = True
    assert Tree().resolve(tables, outside.sources) == found
    assert nested.fetch(found, outside.sources) == {"x": 0, "cutlass": 0}


def test_offline_another_tree_takes_what_a_tag_was_last_and_says_so(outside: Outside, cutlass: Repo) -> None:
    tables = [git("cutlass", cutlass.folder.as_uri(), "v4.7.1")]
    (found,) = Tree().resolve(tables, outside.sources)
    outside.offline = True
    (other,) = Tree().resolve(tables, outside.sources, owner="another tree")
    assert found.identity() == other.identity()
    assert [event for event in outside.heard.events if isinstance(event, Note) and "last known" in event.text]
    outside.offline = False
    cutlass("tag", "-f", "v4.7.1", "main")
    (asked,) = Tree().resolve(tables, outside.sources, owner="another tree")  # what wasn't asked wasn't kept
    assert at(asked, "include/cutlass.h", outside) == b"2"


def test_offline_takes_an_archive_out_of_a_folder(outside: Outside, tmp_path: Path) -> None:
    (tmp_path / "builds").mkdir()
    (tmp_path / "builds/llvm.tar.gz").write_bytes(FILE)
    outside.mirrors = {"https://builds.example.invalid": str(tmp_path / "builds")}
    outside.offline = True
    found = Tree().resolve([archive("llvm", "https://builds.example.invalid/llvm.tar.gz")], outside.sources)
    assert nested.fetch(found, outside.sources) == {"llvm": 0}
