"""``spark-build fetch``: one table of all that a build reads, parallel, resumed after a kill, and refused offline."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.source_kit import Reply, Repo, in_turn, serving, sha256, tar_of
from tests.world import COMMAND

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.source_kit import Server
    from tests.world import World

LLVM = tar_of({"llvm/bin/clang": os.urandom(3_000_000)})
JSON = tar_of({"include/json.hpp": "json"})


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as made:
        yield made


@pytest.fixture
def tiny(world: World, server: Server) -> World:
    """A project whose tree says what it pulls in: two archives, one with a digest, and a repository."""
    cutlass = Repo(world.root / "cutlass", files={"cutlass.h": "1"})
    cutlass("tag", "v4.7.1")
    folder = world.tiny_repo()
    (folder / "pins.json").write_text(json.dumps({"llvm": "0729a74e", "json": sha256(JSON), "cutlass": "v4.7.1"}))
    world.git(folder, "add", "-A")
    world.git(folder, "commit", "-qm", "pins")
    server.replies |= {"/llvm-0729a74e.tar.gz": Reply(LLVM), "/include.tar.gz": Reply(JSON)}
    world.tiny_recipe(
        more=f"""
        [[fetch]]
        id = "llvm"
        kind = "archive"
        about = "LLVM as upstream builds it"
        pin = [{{ file = "pins.json", json = "llvm", name = "hash" }}]
        url = "{server.url}/llvm-${{hash}}.tar.gz"
        place = "${{deps}}/llvm"
        unpack = true

        [[fetch]]
        id = "json"
        kind = "archive"
        pin = [{{ file = "pins.json", json = "json", name = "sum" }}]
        url = "{server.url}/include.tar.gz"
        sha256 = "${{sum}}"
        place = "${{deps}}/include.tar.gz"

        [[fetch]]
        id = "cutlass"
        kind = "git"
        pin = [{{ file = "pins.json", json = "cutlass", name = "tag" }}]
        url = "{cutlass.folder.as_uri()}"
        ref = "${{tag}}"
        """
    )
    return world


def table(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """Return the lines of the table by their first word."""
    return {line.split()[0]: line for line in done.stdout.splitlines()}


def test_a_dry_run_tells_what_is_missing_and_its_size_and_fetches_nothing(tiny: World, server: Server) -> None:
    done = tiny.run("fetch", "tiny", "--dry-run", code=4)
    found = table(done)
    assert list(found) == ["what", "tiny", "llvm", "json", "cutlass"]
    assert "at hand" in found["tiny"]
    assert "2.86 MiB" in found["llvm"] or "2.9 MiB" in found["llvm"]
    assert ("missing" in found["llvm"], "first fetch" in found["llvm"]) == (True, True)
    assert ("missing" in found["json"], "the tree" in found["json"]) == (True, True)
    assert ("v4.7.1 = " in found["cutlass"], " ? " in found["cutlass"]) == (True, True)
    assert "fetch.cutlass.path" in found["cutlass"]
    assert "3 missing: spark-build fetch tiny\n" in done.stderr
    assert {path for path, _headers in server.seen} == {
        "/llvm-0729a74e.tar.gz",
        "/include.tar.gz",
    }  # asked for its size
    assert not list((tiny.root / "sources").rglob("*.tar.gz"))


def test_everything_comes_and_then_nothing_is_needed(tiny: World, server: Server) -> None:
    found = table(tiny.run("fetch", "tiny"))
    assert all("fetched" in found[name] for name in ("llvm", "json", "cutlass"))
    asked = len(server.seen)
    server.close()
    found = table(tiny.run("fetch", "tiny", "--offline"))
    assert all("at hand" in found[name] for name in ("tiny", "llvm", "json", "cutlass"))
    assert " B " in found["cutlass"]  # its size is known now
    told = tiny.json("fetch", "tiny", "--offline")["fetched"][0]
    rows = {row["id"]: row for row in told["sources"]}
    assert rows["llvm"]["sha256"] == sha256(LLVM)
    assert rows["llvm"]["size"] == len(LLVM)
    assert rows["llvm"]["about"] == "LLVM as upstream builds it"
    assert (rows["json"]["origin"], rows["llvm"]["origin"], rows["cutlass"]["origin"]) == (
        "tree",
        "first use",
        "first use",
    )
    assert len(server.seen) == asked


def test_offline_with_one_missing_names_it_with_exit_code_4(tiny: World) -> None:
    tiny.run("fetch", "tiny")
    gone = next((tiny.root / "sources/files").rglob("include.tar.gz"))
    gone.unlink()
    done = tiny.run("fetch", "tiny", "--offline", code=4)
    assert "missing" in table(done)["json"]
    assert f"{len(JSON)} B" in table(done)["json"]
    assert "1 missing" in done.stderr
    done = tiny.run("recipe", "tiny", "--offline", code=4)
    assert "nested-missing" in done.stderr
    assert f"{len(JSON)} B (fetch.json.path)" in done.stderr
    assert "spark-build fetch tiny" in done.stderr
    tiny.run("fetch", "tiny")
    assert tiny.wheels("tiny", "--offline")


def test_a_digest_of_the_tree_that_doesnt_fit_ends_it_and_keeps_the_rest(tiny: World, server: Server) -> None:
    server.replies["/include.tar.gz"] = Reply(b"<html>log in</html>")
    done = tiny.run("fetch", "tiny", code=4)
    assert "hash-mismatch" in done.stderr
    assert "fetch.json.path" in done.stderr
    assert table(tiny.run("fetch", "tiny", "--dry-run", code=4))["json"].split()[-4:-2] != ["at", "hand"]
    assert not [file for file in (tiny.root / "sources").rglob("include.tar.gz*") if file.is_file()]
    server.replies["/include.tar.gz"] = Reply(JSON)
    found = table(tiny.run("fetch", "tiny"))
    assert ("at hand" in found["llvm"], "fetched" in found["json"]) == (True, True)


def test_what_is_put_in_place_of_one_is_shown_and_not_fetched(tiny: World, server: Server) -> None:
    (tiny.root / "mine").mkdir()
    (tiny.root / "mine/clang").touch()
    found = table(tiny.run("fetch", "tiny", "--set", f"fetch.llvm.path={tiny.root / 'mine'}"))
    assert "in place" in found["llvm"]
    assert str(tiny.root / "mine") in found["llvm"]
    assert not [path for path, _headers in server.seen if "llvm" in path]


HALF = 1_000_000


@contextlib.contextmanager
def stalled(tiny: World, server: Server) -> Iterator[tuple[subprocess.Popen[str], threading.Event]]:
    """Give a fetch that has written a part of LLVM and waits for the rest; the next who asks gets all of it."""
    go = threading.Event()
    mark = {"ETag": '"1"'}
    server.replies["/llvm-0729a74e.tar.gz"] = in_turn(
        Reply(LLVM, headers=mark),  # the size
        Reply(LLVM, headers=mark, cut=HALF, hold=go),
        Reply(LLVM, headers=mark),
    )
    tiny.run("fetch", "tiny", "--dry-run", code=4)
    process = start(tiny)
    try:
        wait_for(lambda: len(list(parts(tiny))) == 1 and next(parts(tiny)).stat().st_size > HALF // 2)
        yield process, go
    finally:
        go.set()
        process.kill()
        process.communicate()


def start(tiny: World) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(COMMAND), "fetch", "tiny"],
        env=tiny.env(),
        cwd=tiny.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def parts(tiny: World) -> Iterator[Path]:
    return (tiny.root / "sources/files").rglob("llvm*.part")


def wait_for(ready: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not ready():
        assert time.monotonic() < until, "it never came to that"
        time.sleep(0.02)


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT])
def test_a_fetch_that_was_stopped_goes_on_where_it_was(tiny: World, server: Server, signum: signal.Signals) -> None:
    with stalled(tiny, server) as (process, _go):
        process.send_signal(signum)
        _out, err = process.communicate(timeout=60)  # it doesn't wait for what stalls
        assert process.returncode == {signal.SIGKILL: -9, signal.SIGINT: 130}[signum]
        assert signum == signal.SIGKILL or "spark-build fetch tiny" in err
        (part,) = parts(tiny)
        have = part.stat().st_size
        assert 0 < have < len(LLVM)
    assert "fetched" in table(tiny.run("fetch", "tiny"))["llvm"]
    assert server.ranges("/llvm-0729a74e.tar.gz")[2] == f"bytes={have}-"
    (file,) = (tiny.root / "sources/files").rglob("llvm*.tar.gz")
    assert file.read_bytes() == LLVM
    assert not list(parts(tiny))


def test_two_at_once_bring_each_file_once(tiny: World, server: Server) -> None:
    with stalled(tiny, server) as (process, go):
        second = start(tiny)
        held = tiny.root / "sources/locks"
        wait_for(lambda: waits_for_a_lock(second.pid, held))
        go.set()
        for one in (process, second):
            _out, err = one.communicate(timeout=60)
            assert one.returncode == 0, err
    seen = server.ranges("/llvm-0729a74e.tar.gz")
    assert [one for one in seen if one] == [f"bytes={HALF}-"]
    assert len([path for path, _headers in server.seen if path == "/include.tar.gz"]) == 2  # a size, and once the file


def waits_for_a_lock(pid: int, folder: Path) -> bool:
    """Whether a process waits for a lock on a file in `folder` (proc(5), /proc/locks)."""
    waiting = [line.split() for line in Path("/proc/locks").read_text().splitlines() if "->" in line]
    inodes = {str(file.stat().st_ino) for file in folder.iterdir()}
    return any(words[5] == str(pid) and words[6].rsplit(":", 1)[1] in inodes for words in waiting)


@pytest.mark.root
def test_a_full_disk_is_told_and_what_came_is_kept(tiny: World, server: Server) -> None:
    small = tiny.root / "sources/files"
    small.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(small)], check=True)
    try:
        server.replies["/llvm-0729a74e.tar.gz"] = Reply(LLVM, headers={"ETag": '"1"'})
        done = tiny.run("fetch", "tiny", code=3)
        assert "disk-full" in done.stderr
        assert "spark-build gc" in done.stderr
        subprocess.run(["mount", "-o", "remount,size=20m", str(small)], check=True)
        assert "fetched" in table(tiny.run("fetch", "tiny"))["llvm"]
        assert server.ranges("/llvm-0729a74e.tar.gz")[-1].startswith("bytes=")
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_what_changed_since_the_first_fetch_is_refused_until_it_is_asked_for(tiny: World, server: Server) -> None:
    tiny.run("fetch", "tiny")
    next((tiny.root / "sources/files").rglob("llvm*.tar.gz")).unlink()
    server.replies["/llvm-0729a74e.tar.gz"] = Reply(tar_of({"llvm/bin/clang": "another"}))
    done = tiny.run("fetch", "tiny", code=4)
    assert "hash-mismatch" in done.stderr
    assert "spark-build fetch tiny --relock" in done.stderr
    assert "fetched" in table(tiny.run("fetch", "tiny", "--relock"))["llvm"]
    assert "at hand" in table(tiny.run("fetch", "tiny"))["llvm"]


def test_gc_keeps_a_mirror_that_a_build_tree_borrows_from(tiny: World) -> None:
    (tiny.root / "tiny/backend.py").write_text("import sys\nsys.exit('broken')\n")
    tiny.git(tiny.root / "tiny", "commit", "-qam", "broken")
    tiny.run("recipe", "tiny", code=1)
    for place in (tiny.root / "sources").rglob("*"):
        os.utime(place, (1_000_000_000, 1_000_000_000), follow_symlinks=False)
    told = tiny.json("gc", "--sources", "--older-than", "1d", "--dry-run")["items"]
    why = {Path(row["path"]).name.split("-")[0]: row["why"] for row in told if row["kind"] == "mirror"}
    assert why["cutlass"] == "a build tree borrows from it"


def test_a_hit_imports_nothing_of_this(tiny: World) -> None:
    tiny.wheels("tiny")
    done = tiny.run("recipe", "tiny", PYTHONVERBOSE="1")
    assert "import 'builder.pipeline.evaluate'" in done.stderr
    assert "builder.source.nested" not in done.stderr
    assert "builder.source.given" not in done.stderr
